//! What commands that change something share: dry runs, refusals, JSON documents.

use serde_json::{Value, json};
use streamjobs::stream::{Group, Stream, StreamError, Unfinished};
use streamjobs::{Client, StreamName};

use crate::arguments::{Part, Queue};
use crate::output::{Output, print_error};
use crate::{Exit, Failure};

/// The stream of a command, or a partition of it. Sends no request.
pub(crate) fn stream(client: &Client, name: &StreamName, part: Part) -> Result<Stream, Failure> {
    let whole = client.stream(name.as_str())?;
    let Some(number) = part.partition else { return Ok(whole) };
    let partitions = whole.partitions();
    let count = partitions.len();
    let one = partitions.into_iter().nth(usize::from(number));
    one.ok_or_else(|| {
        let has = if count == 1 { "1 partition" } else { &format!("{count} partitions") };
        format!("stream {name} has no partition {number}: it has {has}").into()
    })
}

/// The group of a command. Sends no request.
pub(crate) fn group(client: &Client, queue: &Queue) -> Result<Group, Failure> {
    let stream = stream(client, &queue.stream, queue.part)?;
    Ok(stream.group(queue.group.as_str())?)
}

/// The group of a command, which must exist: an action on a missing group can look like success.
pub(crate) async fn existing(client: &Client, queue: &Queue) -> Result<Group, Failure> {
    let group = group(client, queue)?;
    group.info().await?;
    Ok(group)
}

pub(crate) fn unfinished(lose: bool) -> Unfinished {
    if lose { Unfinished::Lose } else { Unfinished::Keep }
}

/// The JSON document of an action on a group, with further fields after the common ones.
pub(crate) fn document(action: &str, queue: &Queue, dry_run: bool, fields: Value) -> Value {
    let mut document = json!({
        "action": action,
        "stream": queue.stream.as_str(),
        "group": queue.group.as_str(),
        "dry_run": dry_run,
    });
    if let (Value::Object(document), Value::Object(fields)) = (&mut document, fields) {
        document.extend(fields);
    }
    document
}

/// The answer without `--yes`: what would be done.
pub(crate) fn planned(what: &str, document: &Value, output: &mut Output) -> Result<Exit, Failure> {
    output.answer(&format!("would {what}"), document)?;
    if !output.is_json() {
        output.line("nothing was changed; add --yes to apply")?;
    }
    Ok(Exit::Findings)
}

/// Reports an action on a group as a whole, and whether it changed anything.
pub(crate) fn done(
    action: &str,
    queue: &Queue,
    changed: bool,
    text: &str,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let fields = json!({ "done": usize::from(changed) });
    output.answer(text, &document(action, queue, false, fields))?;
    Ok(Exit::Ok)
}

/// Reports that the library refused an action because it would lose work; a dry run reports this
/// too. This is a result, not a failure. The flag is the one that allows the loss, if there is one.
pub(crate) fn refused(
    action: &str,
    queue: &Queue,
    (dry_run, flag): (bool, Option<&str>),
    error: StreamError,
    output: &mut Output,
) -> Result<Exit, Failure> {
    if !matches!(error, StreamError::Unfinished { .. } | StreamError::Alive { .. }) {
        return Err(error.into());
    }
    let mut reason = error.to_string();
    if let (StreamError::Unfinished { .. }, Some(flag)) = (&error, flag) {
        reason.push_str(&format!("; {flag} allows it"));
    }
    match output.is_json() {
        true => {
            let fields = json!({ "done": 0, "reason": reason });
            output.document(&document(action, queue, dry_run, fields))?;
        }
        false => print_error(&reason),
    }
    Ok(Exit::Findings)
}

/// The items without duplicates.
pub(crate) fn distinct<T: Ord + Clone>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    items.sort_unstable();
    items.dedup();
    items
}

/// The flag that allows losing unfinished jobs.
pub(crate) const LOSE: &str = "--lose-unfinished";
