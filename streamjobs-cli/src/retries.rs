//! `streamjobs retries`: failed jobs that wait for a retry.

use std::collections::HashSet;

use serde_json::{Value, json};
use streamjobs::Client;
use streamjobs::stream::{RetryCursor, ScheduledRetry};

use crate::action::group;
use crate::arguments::Retries;
use crate::output::{Output, cut, milliseconds, print_note, span};
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: &Retries,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let group = group(client, &command.queue)?;
    let limit = usize::try_from(command.limit)?;
    let page = PAGE.min(limit.saturating_add(1));
    let (mut listed, mut after, mut more) = (Vec::new(), command.after.clone(), None);
    // If the last job of a page no longer waits, the next page starts with the jobs that are due at
    // the same time.
    let mut seen = HashSet::new();
    loop {
        let page = group.retries(after.as_ref(), page).await?;
        for job in page.jobs.into_iter().filter(|job| seen.insert(job.id.clone())) {
            if listed.len() == limit {
                more = listed.last().map(ScheduledRetry::cursor);
                break;
            }
            listed.push(job);
        }
        after = page.next;
        if more.is_some() || after.is_none() {
            break;
        }
    }
    if output.is_json() {
        output.document(&document(&listed, more.as_ref()))?;
        return Ok(Exit::Ok);
    }
    table(&listed, output)?;
    if let Some(id) = more {
        output.flush()?;
        print_note(&format!("more results: --after {id}"));
    }
    Ok(Exit::Ok)
}

fn table(jobs: &[ScheduledRetry], output: &mut Output) -> Result<(), Failure> {
    let row = |job: &ScheduledRetry| {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        [
            job.id.to_string(),
            span(Some(job.due_in)),
            text(&job.event_type),
            text(&job.event_id),
            job.attempts.to_string(),
            cut(&text(&job.error), ERROR_CHARACTERS_MAX),
        ]
    };
    let head = ["ID", "DUE IN", "TYPE", "EVENT", "ATTEMPTS", "ERROR"];
    Ok(output.table(head, jobs.iter().map(row).collect())?)
}

fn document(jobs: &[ScheduledRetry], more: Option<&RetryCursor>) -> Value {
    let jobs = jobs.iter().map(|job| {
        json!({
            "id": job.id.to_string(),
            "due_ms": job.due,
            "due_in_ms": milliseconds(Some(job.due_in)),
            "type": job.event_type,
            "event_id": job.event_id,
            "attempts": job.attempts,
            "error": job.error,
            "origin": job.origin.map(|id| id.to_string()),
        })
    });
    json!({ "jobs": jobs.collect::<Vec<_>>(), "more_after": more.map(ToString::to_string) })
}

/// How many jobs one request reads; it returns no payloads.
const PAGE: usize = 1_000;
const ERROR_CHARACTERS_MAX: usize = 60;
