//! `streamjobs scheduled ...`: events that wait until they are due.

use serde_json::{Value, json};
use streamjobs::stream::{Rescheduled, ScheduledCursor, ScheduledEvent, ScheduledEvents};
use streamjobs::{Client, EventId, StreamName};

use crate::action::planned;
use crate::arguments::{Consent, Scheduled, ScheduledIds, ScheduledList, ScheduledMove};
use crate::output::{Output, milliseconds, print_note, span, time};
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: Scheduled,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command {
        Scheduled::List(command) => list(client, &command, output).await,
        Scheduled::Count { stream } => {
            let count = known(client, &stream).await?.count().await?;
            let document = json!({ "stream": stream.as_str(), "scheduled": count });
            output.answer(&count.to_string(), &document)?;
            Ok(Exit::Ok)
        }
        Scheduled::Cancel { events, consent } => cancel(client, &events, consent, output).await,
        Scheduled::Run(events) => run_now(client, &events, output).await,
        Scheduled::Reschedule(command) => reschedule(client, &command, output).await,
    }
}

async fn list(
    client: &Client,
    command: &ScheduledList,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let waiting = known(client, &command.stream).await?;
    let limit = usize::try_from(command.limit)?;
    let (mut listed, mut after) = (Vec::new(), command.after.clone());
    let more = loop {
        let page = waiting.list(after.as_ref(), PAGE.min(limit - listed.len())).await?;
        listed.extend(page.events);
        after = page.next;
        if after.is_none() || listed.len() >= limit {
            break after;
        }
    };
    // If the page ends exactly where the list ends, it says that there may be more.
    let more = match more {
        Some(cursor) if waiting.list(Some(&cursor), 1).await?.events.is_empty() => None,
        more => more,
    };
    if output.is_json() {
        output.document(&document(&listed, more.as_ref()))?;
        return Ok(Exit::Ok);
    }
    table(&listed, output)?;
    if let Some(cursor) = more {
        output.flush()?;
        print_note(&format!("more results: --after {cursor}"));
    }
    Ok(Exit::Ok)
}

fn table(events: &[ScheduledEvent], output: &mut Output) -> Result<(), Failure> {
    let row = |event: &ScheduledEvent| {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        [
            event.id.as_str().to_owned(),
            time(event.due),
            span(Some(event.due_in)),
            text(&event.event_type),
            text(&event.key),
            event.bytes.to_string(),
            // The name that `cancel` takes, if it differs from the id.
            text(&Some(&event.name).filter(|name| **name != event.id).map(ToString::to_string)),
        ]
    };
    let head = ["ID", "DUE", "DUE IN", "TYPE", "KEY", "BYTES", "NAME"];
    Ok(output.table(head, events.iter().map(row).collect())?)
}

fn document(events: &[ScheduledEvent], more: Option<&ScheduledCursor>) -> Value {
    let events = events.iter().map(|event| {
        json!({
            "id": event.id.as_str(),
            "name": event.name.as_str(),
            "due_ms": event.due,
            "due_in_ms": milliseconds(Some(event.due_in)),
            "type": event.event_type,
            "key": event.key,
            "bytes": event.bytes,
            "partition": event.partition,
        })
    });
    json!({ "events": events.collect::<Vec<_>>(), "more_after": more.map(ToString::to_string) })
}

async fn cancel(
    client: &Client,
    ScheduledIds { stream, ids }: &ScheduledIds,
    consent: Consent,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let waiting = known(client, stream).await?;
    let document = |done: usize, missing: &[&EventId]| {
        json!({
            "action": "cancel",
            "stream": stream.as_str(),
            "dry_run": !consent.yes,
            "done": done,
            "not_scheduled": missing.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
        })
    };
    if !consent.yes {
        let what =
            format!("cancel {} scheduled events of stream {stream}, if they wait", ids.len());
        return planned(&what, &document(0, &[]), output);
    }
    let mut missing = Vec::new();
    for id in ids {
        if !waiting.cancel(id).await? {
            missing.push(id);
        }
    }
    let done = ids.len() - missing.len();
    output.answer(&format!("cancelled {done}"), &document(done, &missing))?;
    Ok(told(&missing, output.is_json()))
}

async fn run_now(
    client: &Client,
    ScheduledIds { stream, ids }: &ScheduledIds,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let waiting = known(client, stream).await?;
    let mut missing = Vec::new();
    for id in ids {
        if waiting.run_now(id).await? == Rescheduled::NotScheduled {
            missing.push(id);
        }
    }
    let done = ids.len() - missing.len();
    let document = json!({
        "action": "run",
        "stream": stream.as_str(),
        "done": done,
        "not_scheduled": missing.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
    });
    output.answer(&format!("entered {done}"), &document)?;
    Ok(told(&missing, output.is_json()))
}

async fn reschedule(
    client: &Client,
    command: &ScheduledMove,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let ScheduledMove { stream, id, time: at } = command;
    let waiting = known(client, stream).await?;
    let (text, due, entry) = match waiting.reschedule(id, *at).await? {
        Rescheduled::NotScheduled => (NOT_SCHEDULED.to_owned(), None, None),
        Rescheduled::Waits { due } => (format!("due at {}", time(due)), Some(due), None),
        Rescheduled::Published(published) => {
            let entry = published.address().to_string();
            (format!("entered as {entry}"), None, Some(entry))
        }
    };
    let done = due.is_some() || entry.is_some();
    let document = json!({
        "action": "reschedule",
        "stream": stream.as_str(),
        "id": id.as_str(),
        "done": usize::from(done),
        "due_ms": due,
        "entry": entry,
    });
    output.answer(&text, &document)?;
    Ok(if done { Exit::Ok } else { Exit::Findings })
}

/// The scheduled events of a stream that exists, or for which events wait although none has entered yet. For any
/// other name, the answer would look like an answer about an existing stream.
async fn known(client: &Client, stream: &StreamName) -> Result<ScheduledEvents, Failure> {
    let waiting = client.scheduled(stream.as_str())?;
    if waiting.count().await? == 0 {
        client.stream(stream.as_str())?.sizes().await?;
    }
    Ok(waiting)
}

/// Names the events that did not wait.
fn told(missing: &[&EventId], is_json: bool) -> Exit {
    if missing.is_empty() {
        return Exit::Ok;
    }
    if !is_json {
        for id in missing {
            print_note(&format!("{NOT_SCHEDULED}: {id}"));
        }
    }
    Exit::Findings
}

/// How many events one request reads; it returns no payloads.
const PAGE: usize = 1_000;
const NOT_SCHEDULED: &str = "not scheduled";
