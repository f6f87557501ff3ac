//! `streamjobs dead redrive` and `purge`, which change something only with `--yes`.

use serde_json::json;
use streamjobs::dead_letter::DeadLetters;
use streamjobs::error::DeadLetterError;
use streamjobs::{Client, EntryId};

use super::{PAGE, is_of, of};
use crate::action::{self, distinct, planned};
use crate::arguments::DeadChange;
use crate::output::{Output, Progress, print_error};
use crate::{Exit, Failure};

/// The result for the selected letters.
#[derive(Debug, Default)]
struct Change {
    selected: usize,
    done: usize,
    /// Letters that were not changed, and why.
    skipped: Vec<(EntryId, String)>,
}

/// Runs the jobs of letters again.
pub(super) async fn redrive(
    client: &Client,
    command: &DeadChange,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let letters = of(client, &command.queue)?;
    let ids = selected(&letters, command).await?;
    let mut change = Change { selected: ids.len(), ..Change::default() };
    if !command.consent.yes {
        return plan("redrive", &change, command, output);
    }
    let mut progress = Progress::new("redriven", Some(ids.len()));
    for id in ids {
        match letters.redrive(id).await {
            Ok(_) => change.done += 1,
            Err(
                error @ (DeadLetterError::Unknown { .. } | DeadLetterError::NotRunnable { .. }),
            ) => {
                change.skipped.push((id, error.to_string()));
            }
            Err(error) => return Err(interrupted("redriven", &change, error)),
        }
        progress.at(change.done);
    }
    report("redrive", "redriven", &change, command, output)
}

/// Deletes letters.
pub(super) async fn purge(
    client: &Client,
    command: &DeadChange,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let letters = of(client, &command.queue)?;
    let ids = selected(&letters, command).await?;
    let mut change = Change { selected: ids.len(), ..Change::default() };
    if !command.consent.yes {
        return plan("purge", &change, command, output);
    }
    let mut progress = Progress::new("purged", Some(ids.len()));
    for part in ids.chunks(PAGE) {
        match letters.purge(part).await {
            Ok(purged) => change.done += purged,
            Err(error) => return Err(interrupted("purged", &change, error)),
        }
        progress.at(change.done);
    }
    report("purge", "purged", &change, command, output)
}

/// The selected letters at this moment. Letters that are stored later are not included.
async fn selected(letters: &DeadLetters, command: &DeadChange) -> Result<Vec<EntryId>, Failure> {
    if !command.ids.is_empty() {
        return Ok(distinct(&command.ids));
    }
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = letters.list(after, PAGE).await?;
        let matching =
            page.letters.iter().filter(|letter| is_of(letter, command.reason.as_deref()));
        ids.extend(matching.map(|letter| letter.id));
        after = page.next;
        if after.is_none() {
            return Ok(ids);
        }
    }
}

fn plan(
    action: &str,
    change: &Change,
    command: &DeadChange,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let what = format!("{action} {} of {}", counted(change.selected), command.queue);
    planned(&what, &document(action, change, command), output)
}

fn report(
    action: &str,
    done: &str,
    change: &Change,
    command: &DeadChange,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match output.is_json() {
        true => output.document(&document(action, change, command))?,
        false => {
            let letters = counted(change.selected);
            output.line(&format!("{done} {} of {letters} of {}", change.done, command.queue))?;
            output.flush()?;
            for (_, reason) in &change.skipped {
                print_error(reason);
            }
        }
    }
    Ok(if change.done == change.selected { Exit::Ok } else { Exit::Findings })
}

fn document(action: &str, change: &Change, command: &DeadChange) -> serde_json::Value {
    let skipped = change.skipped.iter();
    let skipped = skipped.map(|(id, reason)| json!({ "id": id.to_string(), "reason": reason }));
    let skipped = skipped.collect::<Vec<_>>();
    let fields = json!({ "selected": change.selected, "done": change.done, "skipped": skipped });
    action::document(action, &command.queue, !command.consent.yes, fields)
}

/// Prints how far the command got before the server failed.
fn interrupted(done: &str, change: &Change, error: DeadLetterError) -> Failure {
    print_error(&format!(
        "{done} {} of {} before the failure",
        change.done,
        counted(change.selected)
    ));
    error.into()
}

fn counted(letters: usize) -> String {
    format!("{letters} dead letter{}", if letters == 1 { "" } else { "s" })
}
