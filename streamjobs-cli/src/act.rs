//! What the commands that change something have in common: asking first, and being refused.

use serde_json::{Value, json};
use streamjobs::Client;
use streamjobs::stream::{Group, StreamError, Unfinished};

use crate::arguments::Queue;
use crate::output::{Output, complain};
use crate::{Exit, Failure};

/// The group of a command. Nothing is asked of the server.
pub(crate) fn group(client: &Client, queue: &Queue) -> Result<Group, Failure> {
    Ok(client.stream(queue.stream.as_str())?.group(queue.group.as_str())?)
}

/// The same, when the group is there: what is done to a missing one can look like nothing to do.
pub(crate) async fn existing(client: &Client, queue: &Queue) -> Result<Group, Failure> {
    let group = group(client, queue)?;
    group.info().await?;
    Ok(group)
}

pub(crate) fn unfinished(lose: bool) -> Unfinished {
    if lose { Unfinished::Lose } else { Unfinished::Keep }
}

/// What a program reads of an act on a group, with the fields of an object beside the common ones.
pub(crate) fn document(action: &str, queue: &Queue, dry_run: bool, beside: Value) -> Value {
    let mut document = json!({
        "action": action,
        "stream": queue.stream.as_str(),
        "group": queue.group.as_str(),
        "dry_run": dry_run,
    });
    if let (Value::Object(document), Value::Object(beside)) = (&mut document, beside) {
        document.extend(beside);
    }
    document
}

/// Nothing is done without being told to.
pub(crate) fn planned(what: &str, document: &Value, output: &mut Output) -> Result<Exit, Failure> {
    output.answer(&format!("would {what}"), document)?;
    if !output.is_json() {
        output.line("nothing was done: say --yes to do it")?;
    }
    Ok(Exit::Findings)
}

/// The library's refusal of what would lose work, which is an answer and no failure.
pub(crate) fn refused(
    action: &str,
    queue: &Queue,
    error: StreamError,
    output: &mut Output,
) -> Result<Exit, Failure> {
    if !matches!(error, StreamError::Unfinished { .. } | StreamError::Alive { .. }) {
        return Err(error.into());
    }
    let why = error.to_string();
    match output.is_json() {
        true => {
            let beside = json!({ "done": 0, "why": why });
            output.document(&document(action, queue, false, beside))?;
        }
        false => complain(&why),
    }
    Ok(Exit::Findings)
}

/// Only one thing can be meant by saying it twice.
pub(crate) fn distinct<T: Ord + Clone>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    items.sort_unstable();
    items.dedup();
    items
}
