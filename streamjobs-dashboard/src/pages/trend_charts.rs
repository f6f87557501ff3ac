//! The charts over hours and days, and the tabs for the ranges.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};
use streamjobs::stream::{DurationCounts, Trend, TrendPoint, TrendRange};

use crate::fault::Fault;
use crate::form::Fields;
use crate::format;
use crate::layout::empty;
use crate::pages::chart::{Axis, Chart, Line, count, draw, exact, seconds};

/// The range that an address asks for; `None` for the last 15 minutes.
pub(crate) fn asked(fields: &Fields) -> Result<Option<TrendRange>, Fault> {
    match fields.get("range") {
        None | Some("15m") => Ok(None),
        Some("6h") => Ok(Some(TrendRange::SixHours)),
        Some("7d") => Ok(Some(TrendRange::SevenDays)),
        Some(_) => Err(Fault::bad_request("Unknown range: 15m, 6h or 7d.")),
    }
}

/// Links to the ranges. `to` returns the address for a range.
pub(crate) fn tabs(
    ranges: &[Option<TrendRange>],
    shown: Option<TrendRange>,
    to: impl Fn(&str) -> String,
) -> Markup {
    html! {
        nav.tabs aria-label="Range of the charts" {
            @for range in ranges {
                @let (name, text) = words(*range);
                a href=(to(name)) aria-current=[(*range == shown).then_some("page")] { (text) }
            }
        }
    }
}

/// The charts of a trend. `backlog` is how many entries wait now and how long the oldest has waited, if that is known.
pub(crate) fn charts(trend: &Trend, backlog: Option<(u64, Duration)>) -> Markup {
    let range = trend.range;
    let (_, text) = words(Some(range));
    let (over, marks) = (format!("the last {text}"), marks(range));
    let gap = range.step() * 2;
    let axis = Axis { words: &over, span: range.span(), marks: &marks, gap };
    html! {
        h2 { "Last " (text) }
        @if trend.points.is_empty() {
            (empty("Nothing was noted within this time: no process did a job or found a backlog."))
        } @else {
            div.charts { @for chart in &of(trend, backlog) { (draw(chart, axis)) } }
            p.soft {
                "One point for each " (if range == TrendRange::SixHours { "minute" } else { "quarter of an hour" })
                ". Processes note their figures every 15 seconds. Times are percentiles, to within 41 %."
            }
        }
    }
}

fn of(trend: &Trend, backlog: Option<(u64, Duration)>) -> [Chart<'static>; 6] {
    let rate = |name, class, of: fn(&TrendPoint) -> u64| Line {
        name,
        class,
        values: rates(trend, of),
        is_whole: true,
    };
    let done = vec![rate("done", "done", |at| at.done)];
    let failed = vec![rate("failed", "failed", |at| at.failed)];
    let known = |name, of: fn(&TrendPoint) -> f64, now: Option<f64>| {
        let values = trend.points.iter().map(|point| (ago(trend, point), of(point)));
        let values = values.chain(now.map(|now| (Duration::ZERO, now))).collect();
        vec![Line { name, class: "waiting", values, is_whole: false }]
    };
    let waiting =
        known("waiting", |at| exact(at.waiting), backlog.map(|(entries, _)| exact(entries)));
    let oldest =
        known("oldest", |at| at.oldest.as_secs_f64(), backlog.map(|(_, age)| age.as_secs_f64()));
    [
        Chart { title: "Jobs", lines: done, least: 0.0, unit: format::rate },
        Chart { title: "Failures", lines: failed, least: 0.0, unit: format::rate },
        times("Queue time", trend, |at| &at.queue_time),
        times("Run time", trend, |at| &at.run_time),
        Chart { title: "Waiting", lines: waiting, least: 2.0, unit: count },
        Chart { title: "Oldest waiting", lines: oldest, least: 1.0, unit: seconds },
    ]
}

/// The median and the 95th and 99th percentiles.
fn times(
    title: &'static str,
    trend: &Trend,
    of: fn(&TrendPoint) -> &DurationCounts,
) -> Chart<'static> {
    let line = |(name, class, part)| {
        let values = trend.points.iter().filter_map(|point| {
            let value = of(point).percentile(part)?;
            Some((ago(trend, point), value.as_secs_f64()))
        });
        Line { name, class, values: values.collect(), is_whole: false }
    };
    let lines = [("p50", "done", 0.5), ("p95", "p95", 0.95), ("p99", "p99", 0.99)].map(line);
    Chart { title, lines: lines.into(), least: 0.0, unit: seconds }
}

/// Rates per second, from the first step for which anything was noted. Nothing happened in steps without notes.
fn rates(trend: &Trend, of: fn(&TrendPoint) -> u64) -> Vec<(Duration, f64)> {
    let (step, mut values) = (trend.range.step(), Vec::new());
    let mut before = None::<SystemTime>;
    for point in &trend.points {
        // For a stretch without notes, a zero at each end is enough.
        let quiet = before.map(|before| since(point.began, before)).filter(|since| *since > step);
        if let (Some(before), Some(_)) = (before, quiet) {
            let ends = [before + step, point.began - step];
            values.extend(ends.map(|began| (ended(trend, began), 0.0)));
        }
        before = Some(point.began);
        // The last step has not ended, and the last note can be 15 seconds old.
        let passed = since(trend.now, point.began).clamp(Duration::from_secs(15), step);
        values.push((ago(trend, point), exact(of(point)) / passed.as_secs_f64()));
    }
    if let Some(before) = before.filter(|before| since(trend.now, *before) > step * 2) {
        values.push((ended(trend, before + step), 0.0));
        values.push((Duration::ZERO, 0.0));
    }
    values
}

/// How long ago a step ended.
fn ago(trend: &Trend, point: &TrendPoint) -> Duration {
    ended(trend, point.began)
}

fn ended(trend: &Trend, began: SystemTime) -> Duration {
    since(trend.now, began).saturating_sub(trend.range.step())
}

fn since(later: SystemTime, earlier: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

/// The name of a range in addresses, and on pages.
fn words(range: Option<TrendRange>) -> (&'static str, &'static str) {
    match range {
        None => ("15m", "15 minutes"),
        Some(TrendRange::SevenDays) => ("7d", "7 days"),
        Some(_) => ("6h", "6 hours"),
    }
}

fn marks(range: TrendRange) -> [(Duration, &'static str); 4] {
    let hours = |hours: u64| Duration::from_secs(hours * 60 * 60);
    match range {
        TrendRange::SevenDays => [
            (hours(7 * 24), "−7 d"),
            (hours(4 * 24), "−4 d"),
            (hours(2 * 24), "−2 d"),
            (hours(0), "now"),
        ],
        _ => [(hours(6), "−6 h"), (hours(4), "−4 h"), (hours(2), "−2 h"), (hours(0), "now")],
    }
}
