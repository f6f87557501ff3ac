//! `streamjobs unique ...`: unique events that stand.

use serde_json::{Value, json};
use streamjobs::Client;
use streamjobs::unique::{StandingEvent, UniqueDigest, UniqueEvents};

use crate::action::planned;
use crate::arguments::{Unique, UniqueKey, UniqueRelease};
use crate::output::{Output, milliseconds, span};
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: Unique,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command {
        Unique::Show(key) => show(client, &key, output).await,
        Unique::Release(command) => release(client, &command, output).await,
    }
}

async fn show(client: &Client, key: &UniqueKey, output: &mut Output) -> Result<Exit, Failure> {
    let (digest, events) = (key.digest()?, client.unique(key.stream.as_str())?);
    let stands = holder(client, &events, &digest).await?;
    let document = document(&events, &digest, stands.as_ref());
    output.answer(&said(stands.as_ref()), &document)?;
    Ok(if stands.is_some() { Exit::Ok } else { Exit::Findings })
}

async fn release(
    client: &Client,
    UniqueRelease { key, event, consent }: &UniqueRelease,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let (digest, events) = (key.digest()?, client.unique(key.stream.as_str())?);
    let mut stands = holder(client, &events, &digest).await?;
    if let Some(event) = event {
        stands = stands.filter(|stands| stands.published.event_id == *event);
    }
    let changed = |done: bool, stands: Option<&StandingEvent>| {
        let mut document = document(&events, &digest, stands);
        let fields = json!({
            "action": "release",
            "dry_run": !consent.yes,
            "done": usize::from(done),
        });
        if let (Value::Object(document), Value::Object(fields)) = (&mut document, fields) {
            document.extend(fields);
        }
        document
    };
    if let (Some(stands), false) = (&stands, consent.yes) {
        let what = format!("release {}", said(Some(stands)));
        return planned(&what, &changed(false, Some(stands)), output);
    }
    let released = match stands {
        Some(_) => events.release(&digest, event.as_ref()).await?,
        None => None,
    };
    let text = match &released {
        Some(released) => format!("released {}", released.published.event_id),
        None => said(None),
    };
    output.answer(&text, &changed(released.is_some(), released.as_ref()))?;
    Ok(if released.is_some() { Exit::Ok } else { Exit::Findings })
}

/// The event that stands for a digest, in a stream that exists. For any other name, the answer would look like an
/// answer about an existing stream.
async fn holder(
    client: &Client,
    events: &UniqueEvents,
    digest: &UniqueDigest,
) -> Result<Option<StandingEvent>, Failure> {
    let holder = events.holder(digest).await?;
    if holder.is_none() {
        client.stream(events.stream().as_str())?.sizes().await?;
    }
    Ok(holder)
}

fn said(stands: Option<&StandingEvent>) -> String {
    match stands {
        Some(StandingEvent { published, rest, .. }) => {
            let (id, entry) = (&published.event_id, published.address());
            format!("{id}, entry {entry}, refuses equal events for {}", span(Some(*rest)))
        }
        None => "there is no such event".to_owned(),
    }
}

fn document(events: &UniqueEvents, digest: &UniqueDigest, stands: Option<&StandingEvent>) -> Value {
    json!({
        "stream": events.stream().as_str(),
        "digest": digest.as_str(),
        "event_id": stands.map(|stands| stands.published.event_id.as_str()),
        "entry": stands.map(|stands| stands.published.address().to_string()),
        "rest_ms": milliseconds(stands.map(|stands| stands.rest)),
    })
}
