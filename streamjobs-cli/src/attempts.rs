//! The past attempts at a job as text and as JSON.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use streamjobs::dead_letter::{AttemptHistory, PastAttempt};

use crate::output::{Output, cut, milliseconds, time};

/// Prints a table below an empty line and a heading; nothing if no attempt is known.
pub(crate) fn print(
    heading: &str,
    history: &AttemptHistory,
    output: &mut Output,
) -> io::Result<()> {
    if history.is_empty() {
        return Ok(());
    }
    output.line("")?;
    output.line(heading)?;
    if history.left_out > 0 {
        output.line(&format!("{} earlier ones are not kept", history.left_out))?;
    }
    let row = |past: &PastAttempt| {
        [
            past.attempt.to_string(),
            time(past.began),
            ran(past.took),
            past.end.as_str().to_owned(),
            past.process.clone(),
            past.lost_before().to_string(),
            past.retry_at.map_or_else(|| "-".to_owned(), time),
            cut(past.error.as_deref().unwrap_or_default(), ERROR_CHARACTERS_MAX),
        ]
    };
    let head = ["ATTEMPT", "BEGAN", "RAN", "ENDED", "PROCESS", "LOST BEFORE", "RETRY", "ERROR"];
    output.table(head, history.attempts.iter().map(row).collect())
}

/// The attempts, in the order in which they were made.
pub(crate) fn document(history: &AttemptHistory) -> Value {
    let attempt = |past: &PastAttempt| {
        json!({
            "attempt": past.attempt,
            "end": past.end.as_str(),
            "began_ms": past.began,
            "took_ms": milliseconds(Some(past.took)),
            "process": past.process,
            "lost_before": past.lost_before(),
            "retry_ms": past.retry_at,
            "error": past.error,
        })
    };
    json!({
        "left_out": history.left_out,
        "attempts": history.attempts.iter().map(attempt).collect::<Vec<_>>(),
    })
}

/// How long an attempt ran, with tenths of a second if it was short.
pub(crate) fn ran(took: Duration) -> String {
    match took.as_secs() {
        0 => format!("{}ms", took.as_millis()),
        1..60 => format!("{}.{}s", took.as_secs(), took.subsec_millis() / 100),
        seconds => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

const ERROR_CHARACTERS_MAX: usize = 200;
