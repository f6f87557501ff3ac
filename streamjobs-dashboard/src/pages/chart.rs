//! Charts with axes, as pictures that the server draws.

use std::time::Duration;

use maud::{Markup, html};
use tokio::time::Instant;

use crate::format;
use crate::trend::{KEPT, TrendPoint};

/// What a chart shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    /// The lines, each with its name and its class.
    pub(crate) lines: &'a [Line<'a>],
    /// The end of the axis, if all values are smaller.
    pub(crate) least: f64,
    /// A value as text.
    pub(crate) unit: fn(f64) -> String,
}

/// One line of a chart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    /// Its class: `done`, `failed` or `waiting`.
    pub(crate) class: &'a str,
    /// The value at a point, where it is known.
    pub(crate) value: fn(&TrendPoint) -> Option<f64>,
}

/// The charts of a group over the last quarter of an hour. Nothing until there are two points.
///
/// They end at the last point, so that a page without a new one stays the same.
pub(crate) fn of_group(points: &[TrendPoint]) -> Markup {
    let Some(now) = points.last().map(|last| last.at) else { return html! {} };
    let seconds = |value: f64| format::span(Duration::from_secs_f64(value.max(0.0)));
    let count = |value: f64| format!("{value:.0}");
    let done = Line { name: "done", class: "done", value: |at| Some(at.rates?.done) };
    let failed = Line { name: "failed", class: "failed", value: |at| Some(at.rates?.failed) };
    let waiting = Line { name: "waiting", class: "waiting", value: |at| Some(exact(at.waiting)) };
    let oldest =
        Line { name: "oldest", class: "waiting", value: |at| Some(at.oldest.as_secs_f64()) };
    let (jobs, backlog, age) = ([done, failed], [waiting], [oldest]);
    let charts = [
        Chart { title: "Jobs", lines: &jobs, least: 0.0, unit: format::rate },
        Chart { title: "Waiting", lines: &backlog, least: 2.0, unit: count },
        Chart { title: "Oldest waiting", lines: &age, least: 1.0, unit: seconds },
    ];
    html! {
        @if points.len() > 1 {
            h2 { "Last 15 minutes" }
            div.charts {
                @for chart in charts { (draw(chart, points, now)) }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a chart needs no 16 digits")]
fn exact(count: u64) -> f64 {
    count as f64
}

fn draw(chart: Chart<'_>, points: &[TrendPoint], now: Instant) -> Markup {
    let values = chart.lines.iter().flat_map(|line| points.iter().filter_map(line.value));
    let top = rounded_up(values.fold(chart.least, f64::max));
    let unit = chart.unit;
    html! {
        figure.chart {
            figcaption {
                (chart.title)
                @for line in chart.lines {
                    @let last = points.iter().rev().find_map(line.value);
                    " · " span class={ "key " (line.class) } { (line.name) " " (last.map_or("–".into(), unit)) }
                }
            }
            svg viewBox="0 0 360 130" role="img" {
                title { (chart.title) " over the last 15 minutes, at most " (unit(top)) }
                @for (y, value) in [(TOP, top), ((TOP + BOTTOM) / 2.0, top / 2.0), (BOTTOM, 0.0)] {
                    line.grid x1=(LEFT) x2=(RIGHT) y1=(y) y2=(y) {}
                    text.y x=(LEFT - 6.0) y=(y + 4.0) { (unit(value)) }
                }
                @for minutes in [15_u32, 10, 5, 0] {
                    text.x x=(x_of(Duration::from_secs(u64::from(minutes) * 60))) y="126" {
                        @if minutes == 0 { "now" } @else { "−" (minutes) " min" }
                    }
                }
                @for line in chart.lines {
                    @for part in parts(line, points, now, top) {
                        // One point alone is no line.
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

/// The line in parts: a new one begins where nothing was sampled for a while.
fn parts(line: &Line<'_>, points: &[TrendPoint], now: Instant, top: f64) -> Vec<String> {
    let mut parts = Vec::<String>::new();
    let mut before = None::<Instant>;
    let gap = gap(points);
    for point in points {
        let Some(value) = (line.value)(point) else { continue };
        let x = x_of(now.saturating_duration_since(point.at));
        let y = (value / top).mul_add(TOP - BOTTOM, BOTTOM);
        let is_gap = before.is_none_or(|at| point.at.saturating_duration_since(at) > gap);
        before = Some(point.at);
        match parts.last_mut().filter(|_| !is_gap) {
            Some(part) => part.push_str(&format!(" {x:.1},{y:.1}")),
            None => parts.push(format!("{x:.1},{y:.1}")),
        }
    }
    parts
}

/// The distance of two points between which nothing was sampled: three times the usual one, because with many
/// groups each has its turn only now and then.
fn gap(points: &[TrendPoint]) -> Duration {
    let pairs = points.iter().zip(points.iter().skip(1));
    let distances = pairs.map(|(one, next)| next.at.saturating_duration_since(one.at));
    let mut distances = distances.collect::<Vec<_>>();
    distances.sort_unstable();
    let median = distances.get(distances.len().saturating_sub(1) / 2);
    median.map_or(KEPT, |median| *median * 3)
}

/// The place of a moment that long ago.
fn x_of(ago: Duration) -> f64 {
    let part = (ago.as_secs_f64() / KEPT.as_secs_f64()).min(1.0);
    part.mul_add(LEFT - RIGHT, RIGHT)
}

/// The next number that is 1, 2 or 4 with some zeros, so that it and its half are round numbers.
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

    #[test]
    fn a_line_has_a_gap_where_nothing_was_sampled() {
        let now = Instant::now() + KEPT;
        let at = |ago: u64| now - Duration::from_secs(ago);
        let points = [point(at(900), 0.0, 0), point(at(890), 1.0, 5), point(at(0), 2.0, 10)];
        let line = Line { name: "waiting", class: "waiting", value: |at| Some(exact(at.waiting)) };
        assert_eq!(parts(&line, &points, now, 10.0), ["64.0,106.0 67.1,58.0", "340.0,10.0"]);
    }

    #[test]
    fn points_that_are_a_minute_apart_are_a_line_and_a_single_one_is_a_dot() {
        let now = Instant::now() + KEPT;
        let at = |ago: u64| point(now - Duration::from_secs(ago), 1.0, 5);
        let slow = [at(840), at(778), at(716), at(655), at(593)];
        let line = Line { name: "waiting", class: "waiting", value: |at| Some(exact(at.waiting)) };
        assert_eq!(parts(&line, &slow, now, 10.0).len(), 1);
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
