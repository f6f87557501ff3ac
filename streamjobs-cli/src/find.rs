//! `streamjobs find`: entries of a stream that contain a text.

use serde_json::{Value, json};
use streamjobs::Client;
use streamjobs::stream::EntryPreview;

use crate::action::stream;
use crate::arguments::Find;
use crate::output::{Output, print_note, time};
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: &Find,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let stream = stream(client, &command.stream, command.part)?;
    // Without this, a misspelt name would look like an empty stream.
    stream.sizes().await?;
    let limit = usize::try_from(command.limit)?;
    let found = stream.search(&command.text, command.before, limit).await?;
    let (oldest, next) =
        (found.oldest.map(|id| id.to_string()), found.next.map(|id| id.to_string()));
    if output.is_json() {
        output.document(&json!({
            "entries": found.entries.iter().map(document).collect::<Vec<_>>(),
            "compared": found.compared,
            "bytes": found.bytes,
            "cut": found.cut,
            "oldest": oldest,
            "more_before": next,
        }))?;
        return Ok(Exit::Ok);
    }
    let row = |entry: &EntryPreview| {
        let text = |name: &str| field(entry, name).unwrap_or_else(|| "-".to_owned());
        let bytes = entry.payload_bytes.to_string();
        [
            entry.address().to_string(),
            time(entry.id.milliseconds()),
            text("type"),
            text("sj-id"),
            text("sj-key"),
            bytes,
        ]
    };
    let head = ["ENTRY", "ADDED", "TYPE", "EVENT", "KEY", "BYTES"];
    output.table(head, found.entries.iter().map(row).collect())?;
    output.flush()?;
    let back = oldest.map(|id| format!(" back to {id}")).unwrap_or_default();
    let cut = match found.cut {
        0 => String::new(),
        cut => format!("; of {cut} of them, only the beginning of a large value was compared"),
    };
    let on = next.map_or_else(|| ", all".to_owned(), |id| format!("; more results: --before {id}"));
    print_note(&format!(
        "{} entries were compared, {} bytes{back}{cut}{on}",
        found.compared, found.bytes
    ));
    Ok(Exit::Ok)
}

/// An entry as JSON, without its payload: `replay` prints that.
fn document(entry: &EntryPreview) -> Value {
    json!({
        "id": entry.address().to_string(),
        "time_ms": entry.id.milliseconds(),
        "type": field(entry, "type"),
        "event_id": field(entry, "sj-id"),
        "key": field(entry, "sj-key"),
        "bytes": entry.payload_bytes,
    })
}

fn field(entry: &EntryPreview, name: &str) -> Option<String> {
    let field = entry.fields.iter().find(|field| field.name == name)?;
    Some(String::from_utf8_lossy(&field.value).into_owned())
}
