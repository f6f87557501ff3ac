//! `streamjobs cancel`, `uncancel` and `cancelled`: jobs that do not run any more.

use serde_json::{Value, json};
use streamjobs::stream::{Cancellation, CancelledEvent, Stream};
use streamjobs::{Client, EventId, StreamName};

use crate::action::planned;
use crate::arguments::{CancelIds, CancelList, Cancels, Consent};
use crate::output::{Output, print_note, time};
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: Cancels,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command {
        Cancels::Cancel { events, consent } => cancel(client, &events, consent, output).await,
        Cancels::Uncancel(events) => uncancel(client, &events, output).await,
        Cancels::Cancelled(command) => list(client, &command, output).await,
    }
}

async fn cancel(
    client: &Client,
    events: &CancelIds,
    consent: Consent,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let stream = known(client, &events.stream).await?;
    if !consent.yes {
        let what = format!("cancel {} of stream {}", counted(events), events.stream);
        return planned(&what, &document("cancel", events, true, json!({ "done": 0 })), output);
    }
    let mut unscheduled = 0;
    for id in &events.ids {
        match &events.group {
            Some(group) => stream.group(group.as_str())?.cancel(id).await?,
            None => {
                unscheduled += usize::from(stream.cancel(id).await? == Cancellation::Unscheduled);
            }
        }
    }
    let done = events.ids.len();
    let text = match unscheduled {
        0 => format!("cancelled {done}"),
        some => format!("cancelled {done}, of which {some} waited until they were due"),
    };
    let fields = json!({ "done": done, "unscheduled": unscheduled });
    output.answer(&text, &document("cancel", events, false, fields))?;
    Ok(Exit::Ok)
}

async fn uncancel(
    client: &Client,
    events: &CancelIds,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let stream = known(client, &events.stream).await?;
    let mut missing = Vec::new();
    for id in &events.ids {
        let removed = match &events.group {
            Some(group) => stream.group(group.as_str())?.uncancel(id).await?,
            None => stream.uncancel(id).await?,
        };
        if !removed {
            missing.push(id);
        }
    }
    let done = events.ids.len() - missing.len();
    let names = missing.iter().map(|id| id.as_str()).collect::<Vec<_>>();
    let fields = json!({ "done": done, "not_cancelled": names });
    output.answer(&format!("uncancelled {done}"), &document("uncancel", events, false, fields))?;
    Ok(told(&missing, output.is_json()))
}

async fn list(client: &Client, command: &CancelList, output: &mut Output) -> Result<Exit, Failure> {
    let stream = known(client, &command.stream).await?;
    let limit = usize::try_from(command.limit)?;
    let events = stream.cancelled(command.after, limit).await?;
    let last = events.last().map(|event| event.at).filter(|_| events.len() == limit);
    let more = match last {
        Some(last) if !stream.cancelled(last, 1).await?.is_empty() => Some(last),
        _ => None,
    };
    if output.is_json() {
        let events = events.iter().map(
            |event| json!({ "id": event.event_id, "group": event.group, "cancelled_ms": event.at }),
        );
        let events = events.collect::<Vec<_>>();
        output.document(&json!({ "events": events, "more_after": more }))?;
        return Ok(Exit::Ok);
    }
    let row = |event: &CancelledEvent| {
        let group = event.group.clone().unwrap_or_else(|| "(all)".to_owned());
        [event.event_id.clone(), group, time(event.at)]
    };
    output.table(["ID", "GROUP", "CANCELLED"], events.iter().map(row).collect())?;
    if let Some(after) = more {
        output.flush()?;
        print_note(&format!("more results: --after {after}"));
    }
    Ok(Exit::Ok)
}

/// A stream that exists, or for which events are scheduled or cancelled.
async fn known(client: &Client, name: &StreamName) -> Result<Stream, Failure> {
    let stream = client.stream(name.as_str())?;
    if stream.cancelled(0, 1).await?.is_empty()
        && client.scheduled(name.as_str())?.count().await? == 0
    {
        stream.sizes().await?;
    }
    Ok(stream)
}

fn counted(events: &CancelIds) -> String {
    let count = events.ids.len();
    let jobs = if count == 1 { "1 event" } else { &format!("{count} events") };
    match &events.group {
        Some(group) => format!("{jobs} for group {group}"),
        None => format!("{jobs} for all groups"),
    }
}

fn document(action: &str, events: &CancelIds, dry_run: bool, fields: Value) -> Value {
    let mut document = json!({
        "action": action,
        "stream": events.stream.as_str(),
        "group": events.group.as_ref().map(|group| group.as_str()),
        "dry_run": dry_run,
    });
    if let (Value::Object(document), Value::Object(fields)) = (&mut document, fields) {
        document.extend(fields);
    }
    document
}

/// Names the events that were not cancelled.
fn told(missing: &[&EventId], is_json: bool) -> Exit {
    if missing.is_empty() {
        return Exit::Ok;
    }
    if !is_json {
        for id in missing {
            print_note(&format!("not cancelled: {id}"));
        }
    }
    Exit::Findings
}
