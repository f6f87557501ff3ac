//! `streamjobs trend`: what a group did over hours or days.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use streamjobs::Client;
use streamjobs::stream::{DurationCounts, TrendPoint, TrendRange};

use crate::action::{existing, group};
use crate::arguments::Trend;
use crate::attempts::ran;
use crate::output::{Output, milliseconds, print_note, span, time};
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: &Trend,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let range = if command.days { TrendRange::SevenDays } else { TrendRange::SixHours };
    let trend = group(client, &command.queue)?.trend(range).await?;
    if trend.points.is_empty() {
        existing(client, &command.queue).await?;
    }
    let left_out = trend.points.len().saturating_sub(usize::try_from(command.limit)?);
    let points = trend.points.iter().skip(left_out);
    if output.is_json() {
        output.document(&json!({
            "now_ms": since_1970(trend.now),
            "step_ms": milliseconds(Some(range.step())),
            "points": points.map(document).collect::<Vec<_>>(),
            "left_out": left_out,
        }))?;
        return Ok(Exit::Ok);
    }
    let head = [
        "FROM",
        "DONE",
        "FAILED",
        "WAITING",
        "OLDEST",
        "QUEUED P50",
        "P95",
        "P99",
        "RAN P50",
        "P95",
        "P99",
    ];
    output.table(head, points.map(row).collect())?;
    if left_out > 0 {
        output.flush()?;
        print_note(&format!("{left_out} earlier rows are left out; --limit shows more"));
    }
    Ok(Exit::Ok)
}

fn row(point: &TrendPoint) -> [String; 11] {
    let [queued, queued_95, queued_99] = percentiles(&point.queue_time).map(shown);
    let [run, run_95, run_99] = percentiles(&point.run_time).map(shown);
    [
        time(since_1970(point.began)),
        point.done.to_string(),
        point.failed.to_string(),
        point.waiting.to_string(),
        if point.waiting > 0 { span(Some(point.oldest)) } else { "-".to_owned() },
        queued,
        queued_95,
        queued_99,
        run,
        run_95,
        run_99,
    ]
}

/// A step as JSON. Times are null if there were none.
fn document(point: &TrendPoint) -> Value {
    let times = |counts: &DurationCounts| {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let [p50, p95, p99] = percentiles(counts).map(|time| time.map(micros));
        json!({ "count": counts.count(), "p50_us": p50, "p95_us": p95, "p99_us": p99 })
    };
    json!({
        "began_ms": since_1970(point.began),
        "done": point.done,
        "failed": point.failed,
        "waiting": point.waiting,
        "oldest_ms": milliseconds(Some(point.oldest)),
        "queue_time": times(&point.queue_time),
        "run_time": times(&point.run_time),
    })
}

fn percentiles(counts: &DurationCounts) -> [Option<Duration>; 3] {
    [0.5, 0.95, 0.99].map(|part| counts.percentile(part))
}

fn shown(duration: Option<Duration>) -> String {
    match duration {
        Some(time) if time < Duration::from_millis(1) => format!("{}µs", time.as_micros()),
        Some(time) => ran(time),
        None => "-".to_owned(),
    }
}

fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
