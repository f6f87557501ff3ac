//! `streamjobs publish`: one event of any type.

use std::io::{self, Read as _};

use serde_json::{Value, json};
use streamjobs::stream::Scheduled;
use streamjobs::{Client, EncodedEvent, EventId};

use crate::arguments::Publish;
use crate::output::{Output, time};
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: Publish,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let payload = payload(&command.payload)?;
    let id = command.id.clone().unwrap_or_else(EventId::generate);
    let mut fields = vec![
        ("type".into(), command.event_type.clone().into()),
        ("data".into(), payload.into()),
        ("sj-id".into(), id.to_string().into()),
    ];
    fields.extend(command.key.clone().map(|key| ("sj-key".into(), key.into())));
    if !command.new_stream {
        // A misspelt name would create a stream that no group reads.
        client.stream(command.stream.as_str())?.sizes().await?;
    }
    let event = EncodedEvent::from_parts(command.stream.clone(), fields)?;
    let failed = |error: Failure| -> Failure { format!("event {id}: {error}").into() };
    let (entry, due) = match command.delay {
        None => {
            let answers = client.publish_encoded(vec![event]).await;
            let answer = answers.into_iter().next().ok_or("no answer")?;
            (Some(answer.map_err(|error| failed(error.into()))?.address()), None)
        }
        Some(at) => {
            let answers = client.publish_encoded_at(vec![(at, event)]).await;
            let answer = answers.into_iter().next().ok_or("no answer")?;
            match answer.map_err(|error| failed(error.into()))? {
                Scheduled::Waits(waiting) if waiting.repeated => {
                    let text = "an event with this id already waits; it stays, and this one was not stored";
                    return Err(failed(text.into()));
                }
                Scheduled::Waits(waiting) => (None, Some(waiting.due)),
                Scheduled::Published(published) => (Some(published.address()), None),
            }
        }
    };
    let document = json!({
        "stream": command.stream.as_str(),
        "event_id": id.as_str(),
        "entry": entry.map(|entry| entry.to_string()),
        "scheduled_due_ms": due,
    });
    let text = match (entry, due) {
        (Some(entry), _) => format!("published event {id} as entry {entry}"),
        (None, due) => format!("scheduled event {id} for {}", time(due.unwrap_or_default())),
    };
    output.answer(&text, &document)?;
    Ok(Exit::Ok)
}

/// The payload in one line. An error never shows it.
fn payload(argument: &str) -> Result<String, Failure> {
    let mut text = argument.to_owned();
    if argument == "-" {
        text.clear();
        io::stdin().lock().take(PAYLOAD_BYTES_MAX).read_to_string(&mut text)?;
    }
    let value = serde_json::from_str::<Value>(&text);
    let value = value.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("the payload is not JSON: line {line}, column {column}")
    })?;
    drop(value);
    // The text is sent as it was given: numbers keep their digits and objects keep their order.
    Ok(text.trim().to_owned())
}

/// The longest payload that is read. The client would refuse a longer payload in any case.
const PAYLOAD_BYTES_MAX: u64 = 16 * 1024 * 1024;
