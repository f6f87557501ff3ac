//! `streamjobs replay` and `tail`: past and new entries of a stream, with payloads.

use std::io;
use std::ops::Bound;

use serde_json::json;
use streamjobs::stream::Position;
use streamjobs::{Client, Entry};

use crate::action::stream;
use crate::arguments::{History, Replay, Tail};
use crate::output::{Output, print_note, time};
use crate::{Exit, Failure, fields, find, trim};

pub(crate) async fn run(
    client: &Client,
    command: History,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command {
        History::Find(command) => find::run(client, &command, output).await,
        History::Replay(command) => replay(client, &command, output).await,
        History::Tail(command) => tail(client, &command, output).await,
        History::Trim(command) => trim::run(client, &command, output).await,
    }
}

async fn replay(client: &Client, command: &Replay, output: &mut Output) -> Result<Exit, Failure> {
    let stream = stream(client, &command.stream, command.part)?;
    // Without this, a misspelt name would look like an empty stream.
    stream.sizes().await?;
    let bound = |position: Option<_>| position.map_or(Bound::Unbounded, Bound::Included);
    let range: (Bound<Position>, Bound<Position>) =
        (bound(command.from.map(Into::into)), bound(command.to.map(Into::into)));
    let mut replay = stream.replay(range);
    let mut printed = 0;
    while let Some(entry) = replay.next().await {
        let entry = entry?;
        if !is_of(&entry, &command.types) {
            continue;
        }
        if command.limit == Some(printed) {
            output.flush()?;
            print_note(&format!("more results: --from {}", entry.address()));
            break;
        }
        print(&entry, output)?;
        printed += 1;
    }
    Ok(Exit::Ok)
}

async fn tail(client: &Client, command: &Tail, output: &mut Output) -> Result<Exit, Failure> {
    let stream = stream(client, &command.stream, command.part)?;
    // As in a replay, a misspelt name must not look like an empty stream.
    stream.info().await?;
    let mut tail = match command.after {
        Some(position) => stream.tail_after(position.after()).await?,
        None => stream.tail().await?,
    };
    let mut printed = 0;
    while command.count != Some(printed) {
        print(&tail.next().await?, output)?;
        // Print each entry at once.
        output.flush()?;
        printed += 1;
    }
    Ok(Exit::Ok)
}

/// Whether an entry has one of the requested types, if any.
fn is_of(entry: &Entry, types: &[String]) -> bool {
    types.is_empty() || entry.event_type().is_some_and(|of| types.iter().any(|name| name == of))
}

fn print(entry: &Entry, output: &mut Output) -> io::Result<()> {
    let (id, time_ms) = (entry.address(), entry.id().milliseconds());
    if output.is_json() {
        return output.document(&json!({
            "id": id.to_string(),
            "time_ms": time_ms,
            "type": entry.event_type(),
            "fields": fields::document(entry.fields()),
        }));
    }
    let name = entry.event_type().unwrap_or("-");
    output.line(&format!("{id}  {}  {name}", time(time_ms)))?;
    fields::print("  ", entry.fields(), output)
}
