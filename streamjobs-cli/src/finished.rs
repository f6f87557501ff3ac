//! `streamjobs finished`: finished jobs, as far as they are noted.

use serde_json::{Value, json};
use streamjobs::Client;
use streamjobs::stream::{FinishedJob, FinishedQuery};

use crate::action::{existing, group};
use crate::arguments::Finished;
use crate::attempts::ran;
use crate::output::{Output, milliseconds, print_note, time};
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: &Finished,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let group = group(client, &command.queue)?;
    let mut query = FinishedQuery::new().limit(usize::try_from(command.limit)?);
    if let Some(before) = command.before {
        query = query.before(before);
    }
    if let Some(id) = &command.event {
        query = query.event_id(id);
    }
    if let Some(event_type) = &command.event_type {
        query = query.event_type(event_type);
    }
    if let Some(key) = &command.key {
        query = query.key(key);
    }
    let page = group.finished(query).await?;
    if page.jobs.is_empty() && command.before.is_none() {
        existing(client, &command.queue).await?;
    }
    if output.is_json() {
        output.document(&json!({
            "jobs": page.jobs.iter().map(document).collect::<Vec<_>>(),
            "compared": page.compared,
            "more_before": page.next.map(|id| id.to_string()),
        }))?;
        return Ok(Exit::Ok);
    }
    let row = |job: &FinishedJob| {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        [
            time(job.ended()),
            job.event_id.clone(),
            text(&job.event_type),
            text(&job.key),
            job.attempt.to_string(),
            ran(job.took),
            job.process.clone(),
        ]
    };
    let head = ["DONE", "EVENT", "TYPE", "KEY", "ATTEMPT", "RAN", "PROCESS"];
    output.table(head, page.jobs.iter().map(row).collect())?;
    if let Some(id) = page.next {
        output.flush()?;
        print_note(&format!("{} notes were compared; more results: --before {id}", page.compared));
    }
    Ok(Exit::Ok)
}

/// A finished job as JSON.
pub(crate) fn document(job: &FinishedJob) -> Value {
    json!({
        "id": job.address().to_string(),
        "event_id": job.event_id,
        "type": job.event_type,
        "key": job.key,
        "origin": job.origin.map(|id| id.to_string()),
        "began_ms": job.began,
        "ended_ms": job.ended(),
        "took_ms": milliseconds(Some(job.took)),
        "attempt": job.attempt,
        "process": job.process,
    })
}
