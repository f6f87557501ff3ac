//! `streamjobs event show`: what is known about one event.

use serde_json::{Value, json};
use streamjobs::Client;
use streamjobs::stream::{
    CancelledEvent, EntryAddress, EventReport, JobReport, JobState, KeptResult, PendingEntry,
};

use crate::arguments::{EventShow, Events};
use crate::inspect::progress_document;
use crate::output::{Output, cut, milliseconds, print_note, span, time};
use crate::{Exit, Failure, attempts, finished};

pub(crate) async fn run(
    client: &Client,
    command: Events,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let Events::Show(command) = command;
    let report = find(client, &command).await?;
    match output.is_json() {
        true => output.document(&document(&report))?,
        false => show(&report, output)?,
    }
    if !report.is_known() {
        output.flush()?;
        let part = if report.searched { "" } else { ", of which a part was searched" };
        print_note(&format!("no event {} is known of stream {}{part}", command.id, command.stream));
        return Ok(Exit::Findings);
    }
    Ok(Exit::Ok)
}

/// Finds the event by entry id, if the id has the form of an entry id and such an entry exists;
/// otherwise by event id.
async fn find(client: &Client, command: &EventShow) -> Result<EventReport, Failure> {
    let stream = client.stream(command.stream.as_str())?;
    if let Ok(entry) = command.id.as_str().parse::<EntryAddress>()
        && let Some(report) = stream.event_of(entry).await?
    {
        return Ok(report);
    }
    let report = stream.event(&command.id).await?;
    if !report.is_known() {
        // A stream that does not exist is an error, not an empty result.
        stream.sizes().await?;
    }
    Ok(report)
}

fn show(report: &EventReport, output: &mut Output) -> Result<(), Failure> {
    let none = || "-".to_owned();
    output.pairs([
        ("event", report.event_id.to_string()),
        ("type", report.event_type.clone().unwrap_or_else(none)),
        ("entry", report.entry.map_or_else(none, entry)),
        ("trace", report.trace_id.clone().unwrap_or_else(none)),
        ("scheduled", report.scheduled.as_ref().map_or_else(none, |event| time(event.due))),
        (
            "cancelled",
            match report.cancelled.is_empty() {
                true if !report.marks_searched => "not among the first 1,000 marks".to_owned(),
                true => none(),
                false => report.cancelled.iter().map(cancelled).collect::<Vec<_>>().join(", "),
            },
        ),
    ])?;
    if report.jobs.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let row = |job: &JobReport| {
        let attempts = job.state.attempts().map_or_else(none, |attempts| attempts.to_string());
        [job.group.clone(), job.state.as_str().to_owned(), attempts, detail(job)]
    };
    output.table(["GROUP", "JOB", "FAILURES", ""], report.jobs.iter().map(row).collect())?;
    for job in &report.jobs {
        attempts::print(&format!("attempts of {}", job.group), &job.attempts, output)?;
    }
    if report.groups_left > 0 {
        output.flush()?;
        print_note(&format!("{} more groups were not asked", report.groups_left));
    }
    Ok(())
}

fn entry(entry: EntryAddress) -> String {
    format!("{entry}  {}", time(entry.id.milliseconds()))
}

fn cancelled(mark: &CancelledEvent) -> String {
    let whose = mark.group.as_deref().unwrap_or("all groups");
    format!("{whose} at {}", time(mark.at))
}

/// Details of a job besides its state.
fn detail(job: &JobReport) -> String {
    let place = match &job.finished {
        Some(done) => format!("at {}, {done}", time(done.ended())),
        None => place(&job.state),
    };
    let result = job.result.as_ref().map(result).unwrap_or_default();
    let gap = if place.is_empty() || result.is_empty() { "" } else { "  " };
    format!("{place}{gap}{result}")
}

/// What is kept of the result of a job, without its contents.
fn result(result: &KeptResult) -> String {
    let rest = span(Some(result.rest));
    match result.bytes {
        Some(bytes) => format!("result of {bytes} bytes, kept for {rest}"),
        None => format!("done, the server had no memory for the result; known for {rest}"),
    }
}

fn place(state: &JobState) -> String {
    let error = |error: Option<&str>| cut(error.unwrap_or_default(), ERROR_CHARACTERS_MAX);
    match state {
        JobState::Pending(pending) => delivery(pending),
        JobState::Lane { pending: Some(pending), .. } => delivery(pending),
        JobState::Lane { .. } => "due, waits for a process".to_owned(),
        JobState::Retrying(job) => {
            format!("due in {}  {}", span(Some(job.due_in)), error(job.error.as_deref()))
        }
        JobState::Dead(letter) => {
            format!(
                "{} {}  {}",
                letter.address(),
                letter.reason.as_str(),
                error(letter.error.as_deref())
            )
        }
        _ => String::new(),
    }
}

fn delivery(entry: &PendingEntry) -> String {
    let consumer = if entry.consumer.is_empty() { "(released)" } else { &entry.consumer };
    let count = match entry.delivery_count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    let progress = entry.progress.as_ref().map(|progress| format!(", {progress}"));
    let (idle, progress) = (span(entry.idle), progress.unwrap_or_default());
    format!("{consumer}, delivered {count}, idle for {idle}{progress}")
}

fn document(report: &EventReport) -> Value {
    let cancelled = report.cancelled.iter();
    let cancelled = cancelled.map(|mark| json!({ "group": mark.group, "cancelled_ms": mark.at }));
    let jobs = report.jobs.iter().map(job_document);
    json!({
        "stream": report.stream,
        "event_id": report.event_id.as_str(),
        "known": report.is_known(),
        "searched": report.searched,
        "type": report.event_type,
        "entry": report.entry.map(|entry| entry.to_string()),
        "trace_id": report.trace_id,
        "scheduled_due_ms": report.scheduled.as_ref().map(|event| event.due),
        "cancelled": cancelled.collect::<Vec<_>>(),
        "marks_searched": report.marks_searched,
        "jobs": jobs.collect::<Vec<_>>(),
        "groups_left": report.groups_left,
    })
}

fn job_document(job: &JobReport) -> Value {
    let delivery = job.state.delivery().map(|entry| {
        json!({
            "consumer": entry.consumer,
            "idle_ms": milliseconds(entry.idle),
            "deliveries": entry.delivery_count,
            "progress": entry.progress.as_ref().map(progress_document),
        })
    });
    let retry = match &job.state {
        JobState::Retrying(job) => Some(json!({ "id": job.id.to_string(), "due_ms": job.due })),
        _ => None,
    };
    let letter = match &job.state {
        JobState::Dead(letter) => Some(json!({
            "id": letter.address().to_string(),
            "reason": letter.reason.as_str(),
        })),
        _ => None,
    };
    let result = job.result.map(
        |result| json!({ "bytes": result.bytes, "kept_for_ms": milliseconds(Some(result.rest)) }),
    );
    json!({
        "group": job.group,
        "state": job.state.as_str(),
        "failures": job.state.attempts(),
        "delivery": delivery,
        "retry": retry,
        "dead_letter": letter,
        "result": result,
        "finished": job.finished.as_ref().map(finished::document),
        "error": job.state.error(),
        "history": attempts::document(&job.attempts),
    })
}

const ERROR_CHARACTERS_MAX: usize = 200;
