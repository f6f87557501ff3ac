//! `streamjobs trim`: shortens a stream, and reports what stopped it.

use serde_json::{Value, json};
use streamjobs::Client;
use streamjobs::stream::{Cut, Stream, StreamError, Trimmed};

use crate::action::{LOSE, planned, stream, unfinished};
use crate::arguments::Trim;
use crate::output::{Output, Progress, print_error, span};
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: &Trim,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let stream = stream(client, &command.stream, command.part)?;
    let present = stream.info().await?;
    let Some((cut, wanted)) = cut(command) else {
        return Err("give one of --length, --age and --before".into());
    };
    if !command.consent.yes {
        let checked = stream.check_trim(cut, unfinished(command.lose_unfinished)).await?;
        let lost = if command.lose_unfinished { ", including unfinished jobs" } else { "" };
        let length = present.length;
        let what =
            format!("trim stream {} with {length} entries to {wanted}{lost}", command.stream);
        let document = planned_document(command, length, &checked);
        let exit = planned(&what, &document, output)?;
        if !output.is_json() {
            let at_least = if checked.more { "at least " } else { "" };
            let nodes = if command.exact { "" } else { ", or less: whole nodes are removed" };
            let removed = checked.removed;
            output.line(&format!("would remove {at_least}{removed} entries{nodes}"))?;
            stopped(&checked, output)?;
        }
        return Ok(exit);
    }
    let (mut removed, mut progress) = (0, Progress::new("removed", None));
    loop {
        let trimmed = match once(&stream, command, cut).await {
            Ok(trimmed) => trimmed,
            Err(error) => {
                print_error(&format!(
                    "removed {removed} entries in the steps before the failed step, which may have removed some too"
                ));
                return Err(error.into());
            }
        };
        removed += trimmed.removed;
        // If one call removes nothing, the next call would not remove anything either.
        if !trimmed.more || trimmed.removed == 0 {
            return report(command, removed, &trimmed, output);
        }
        progress.at(usize::try_from(removed)?);
    }
}

async fn once(stream: &Stream, command: &Trim, cut: Cut) -> Result<Trimmed, StreamError> {
    let unfinished = unfinished(command.lose_unfinished);
    match command.exact {
        true => stream.trim_exactly(cut, unfinished).await,
        false => stream.trim(cut, unfinished).await,
    }
}

/// The requested cut and what would remain, as text. The arguments contain exactly one cut.
fn cut(command: &Trim) -> Option<(Cut, String)> {
    let length = command.length.map(|length| (Cut::Length(length), format!("{length}")));
    let age = || {
        let younger = |age| format!("entries younger than {}", span(Some(age)));
        command.age.map(|age| (Cut::Age(age), younger(age)))
    };
    let before = || {
        let first = command.before?.first();
        Some((Cut::Before(first), format!("entries from {first} on")))
    };
    length.or_else(age).or_else(before)
}

fn report(
    command: &Trim,
    removed: u64,
    trimmed: &Trimmed,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match output.is_json() {
        true => output.document(&document(command, removed, trimmed))?,
        false => {
            let (stream, length) = (&command.stream, trimmed.length);
            output.line(&format!(
                "removed {removed} entries from stream {stream}, {length} remain"
            ))?;
            stopped(trimmed, output)?;
        }
    }
    Ok(if trimmed.blocked_by.is_none() { Exit::Ok } else { Exit::Findings })
}

/// What stopped a trim, and the flag that allows it.
fn stopped(trimmed: &Trimmed, output: &mut Output) -> Result<(), Failure> {
    output.flush()?;
    if let Some((group, entry)) = &trimmed.blocked_by {
        print_error(&format!(
            "stopped at entry {entry}: group {group} has not finished it; {LOSE} allows it"
        ));
    }
    Ok(())
}

/// The document of a dry run: nothing is removed.
fn planned_document(command: &Trim, length: u64, checked: &Trimmed) -> Value {
    let mut document = document(command, 0, checked);
    if let Value::Object(fields) = &mut document {
        fields.insert("length".to_owned(), json!(length));
        fields.insert("would_remove".to_owned(), json!(checked.removed));
        fields.insert("would_remove_exact".to_owned(), json!(command.exact && !checked.more));
    }
    document
}

fn document(command: &Trim, removed: u64, trimmed: &Trimmed) -> Value {
    let blocked_by = trimmed.blocked_by.as_ref();
    json!({
        "action": "trim",
        "stream": command.stream.as_str(),
        "removed": removed,
        "length": trimmed.length,
        "blocked_by": blocked_by.map(|(group, id)| json!({ "group": group, "entry": id.to_string() })),
        "dry_run": !command.consent.yes,
    })
}
