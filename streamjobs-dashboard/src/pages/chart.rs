//! Charts with axes, as images that the server draws.

use std::time::Duration;

use maud::{Markup, html};

use crate::format;
use crate::trend::{KEPT, TrendPoint};

/// What a chart shows.
#[derive(Clone, Debug)]
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    pub(crate) lines: Vec<Line<'a>>,
    /// Where the axis ends if all values are smaller.
    pub(crate) least: f64,
    /// Formats a value as text.
    pub(crate) unit: fn(f64) -> String,
}

/// One line of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    /// Its CSS class: `done`, `failed`, `waiting`, `p95` or `p99`.
    pub(crate) class: &'a str,
    /// The known values, each with how long ago it was; oldest first.
    pub(crate) values: Vec<(Duration, f64)>,
    /// Whether the line continues between values that are far apart.
    pub(crate) is_whole: bool,
}

/// The time axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis<'a> {
    /// The range in words, as in "over the last 15 minutes".
    pub(crate) words: &'a str,
    pub(crate) span: Duration,
    /// The moments that are marked, each with its label.
    pub(crate) marks: &'a [(Duration, &'a str)],
    /// If two values are at least this far apart, nothing was sampled between them.
    pub(crate) gap: Duration,
}

/// The charts of a group over the last quarter of an hour; nothing until there are two points.
///
/// The charts end at the last point, so that a page without a new point stays the same.
pub(crate) fn of_group(points: &[TrendPoint]) -> Markup {
    let Some(now) = points.last().map(|last| last.at) else { return html! {} };
    let line = |name, class, value: fn(&TrendPoint) -> Option<f64>| {
        let ago = |point: &TrendPoint| now.saturating_duration_since(point.at);
        let values = points.iter().filter_map(|point| Some((ago(point), value(point)?)));
        Line { name, class, values: values.collect(), is_whole: false }
    };
    let jobs = vec![
        line("done", "done", |at| Some(at.rates?.done)),
        line("failed", "failed", |at| Some(at.rates?.failed)),
    ];
    let backlog = vec![line("waiting", "waiting", |at| Some(exact(at.waiting)))];
    let age = vec![line("oldest", "waiting", |at| Some(at.oldest.as_secs_f64()))];
    let charts = [
        Chart { title: "Jobs", lines: jobs, least: 0.0, unit: format::rate },
        Chart { title: "Waiting", lines: backlog, least: 2.0, unit: count },
        Chart { title: "Oldest waiting", lines: age, least: 1.0, unit: seconds },
    ];
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let marks = [
        (minutes(15), "−15 min"),
        (minutes(10), "−10 min"),
        (minutes(5), "−5 min"),
        (minutes(0), "now"),
    ];
    let axis = Axis { words: "the last 15 minutes", span: KEPT, marks: &marks, gap: gap(points) };
    html! {
        @if points.len() > 1 {
            h2 { "Last 15 minutes" }
            div.charts {
                @for chart in &charts { (draw(chart, axis)) }
            }
        }
    }
}

/// A whole number as text.
pub(crate) fn count(value: f64) -> String {
    format!("{value:.0}")
}

/// Seconds as text.
pub(crate) fn seconds(value: f64) -> String {
    format::span(Duration::from_secs_f64(value.max(0.0)))
}

#[expect(clippy::cast_precision_loss, reason = "a chart needs no 16 digits")]
pub(crate) fn exact(count: u64) -> f64 {
    count as f64
}

pub(crate) fn draw(chart: &Chart<'_>, axis: Axis<'_>) -> Markup {
    let values = chart.lines.iter().flat_map(|line| line.values.iter().map(|(_, value)| *value));
    let top = rounded_up(values.fold(chart.least, f64::max));
    let unit = chart.unit;
    html! {
        figure.chart {
            figcaption {
                (chart.title)
                @for line in &chart.lines {
                    @let last = line.values.last().map(|(_, value)| *value);
                    " · " span class={ "key " (line.class) } { (line.name) " " (last.map_or("–".into(), unit)) }
                }
            }
            svg viewBox="0 0 360 130" role="img" {
                title { (chart.title) " over " (axis.words) ", at most " (unit(top)) }
                @for (y, value) in [(TOP, top), ((TOP + BOTTOM) / 2.0, top / 2.0), (BOTTOM, 0.0)] {
                    line.grid x1=(LEFT) x2=(RIGHT) y1=(y) y2=(y) {}
                    text.y x=(LEFT - 6.0) y=(y + 4.0) { (unit(value)) }
                }
                @for (ago, text) in axis.marks {
                    text.x x=(x_of(*ago, axis.span)) y="126" { (text) }
                }
                @for line in &chart.lines {
                    @for part in parts(line, axis, top) {
                        // A single point does not make a line.
                        @match part.split_once(' ') {
                            Some(_) => polyline class=(line.class) points=(part) {},
                            None => @if let Some((x, y)) = part.split_once(',') {
                                circle class=(line.class) cx=(x) cy=(y) r="2" {}
                            },
                        }
                    }
                }
            }
        }
    }
}

/// The line in parts: a new part begins after a time in which nothing was sampled.
fn parts(line: &Line<'_>, axis: Axis<'_>, top: f64) -> Vec<String> {
    let mut parts = Vec::<String>::new();
    let mut before = None::<Duration>;
    for (ago, value) in &line.values {
        let x = x_of(*ago, axis.span);
        let y = (value / top).mul_add(TOP - BOTTOM, BOTTOM);
        let is_gap = before.is_none_or(|at| !line.is_whole && at.saturating_sub(*ago) > axis.gap);
        before = Some(*ago);
        match parts.last_mut().filter(|_| !is_gap) {
            Some(part) => part.push_str(&format!(" {x:.1},{y:.1}")),
            None => parts.push(format!("{x:.1},{y:.1}")),
        }
    }
    parts
}

/// If two points are at least this far apart, nothing was sampled between them. This is three times the usual
/// distance, because with many groups each is sampled only now and then.
fn gap(points: &[TrendPoint]) -> Duration {
    let pairs = points.iter().zip(points.iter().skip(1));
    let distances = pairs.map(|(one, next)| next.at.saturating_duration_since(one.at));
    let mut distances = distances.collect::<Vec<_>>();
    distances.sort_unstable();
    let median = distances.get(distances.len().saturating_sub(1) / 2);
    median.map_or(KEPT, |median| *median * 3)
}

/// The horizontal place of a moment, given how long ago it was.
fn x_of(ago: Duration, span: Duration) -> f64 {
    let part = (ago.as_secs_f64() / span.as_secs_f64()).min(1.0);
    part.mul_add(LEFT - RIGHT, RIGHT)
}

/// The next number that is 1, 2 or 4 followed by zeros, so that it and its half are round numbers.
fn rounded_up(most: f64) -> f64 {
    if most <= 0.0 || !most.is_finite() {
        return 1.0;
    }
    let zeros = 10_f64.powf(most.log10().floor());
    let steps = [1.0, 2.0, 4.0, 10.0].map(|step| step * zeros);
    steps.into_iter().find(|step| *step >= most).unwrap_or(most)
}

const LEFT: f64 = 64.0;
const RIGHT: f64 = 340.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 106.0;

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::history::Rates;

    fn point(at: Instant, done: f64, waiting: u64) -> TrendPoint {
        let rates = Some(Rates { done, failed: 0.0 });
        TrendPoint { at, rates, waiting, oldest: Duration::ZERO }
    }

    #[test]
    fn an_axis_ends_at_a_round_number() {
        let tops = [0.0, 0.03, 0.7, 1.0, 1.1, 4.0, 51.0, 999.0].map(rounded_up);
        assert_eq!(tops, [1.0, 0.04, 1.0, 1.0, 2.0, 4.0, 100.0, 1_000.0]);
        assert!((rounded_up(f64::NAN) - 1.0).abs() < f64::EPSILON);
    }

    fn drawn(values: &[(u64, f64)], gap: u64) -> Vec<String> {
        let values = values.iter().map(|(ago, value)| (Duration::from_secs(*ago), *value));
        let values = values.collect();
        let line = Line { name: "waiting", class: "waiting", values, is_whole: false };
        let gap = Duration::from_secs(gap);
        parts(&line, Axis { words: "", span: KEPT, marks: &[], gap }, 10.0)
    }

    #[test]
    fn a_line_has_a_gap_where_nothing_was_sampled() {
        let values = [(900, 0.0), (890, 5.0), (0, 10.0)];
        assert_eq!(drawn(&values, 30), ["64.0,106.0 67.1,58.0", "340.0,10.0"]);
    }

    #[test]
    fn points_that_are_a_minute_apart_are_a_line_and_a_single_one_is_a_dot() {
        let now = Instant::now() + KEPT;
        let at = |ago: u64| point(now - Duration::from_secs(ago), 1.0, 5);
        let slow = [at(840), at(778), at(716), at(655), at(593)];
        assert!(gap(&slow) > Duration::from_secs(180), "{:?}", gap(&slow));
        assert_eq!(of_group(&slow).into_string().matches("<polyline").count(), 4);
        let shown = of_group(&[at(840), at(830), at(820), at(0)]).into_string();
        assert_eq!(shown.matches("<circle").count(), 4, "{shown}");
        assert_eq!(shown.matches("<polyline").count(), 4, "{shown}");
    }

    #[test]
    fn a_chart_has_axes_and_says_its_last_values() {
        let now = Instant::now() + KEPT;
        let points = [point(now - Duration::from_secs(10), 3.0, 7), point(now, 4.0, 12)];
        let shown = of_group(&points).into_string();
        for text in [
            "Jobs over the last 15 minutes, at most 4.0/s",
            "done 4.0/s",
            "waiting 12",
            "−15 min",
            ">20<",
        ] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
        assert_eq!(shown.matches("<polyline").count(), 4);
        assert_eq!(of_group(&points[..1]).into_string(), "");
    }
}
