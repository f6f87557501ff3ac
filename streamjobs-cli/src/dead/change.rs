//! Changes to dead letters, which are only made with `--yes`.

use serde_json::json;
use streamjobs::dead_letter::DeadLetters;
use streamjobs::error::DeadLetterError;
use streamjobs::{Client, EntryId};

use super::{PAGE, is_of, of};
use crate::act::{self, distinct, planned};
use crate::arguments::DeadChange;
use crate::output::{Output, Progress, complain};
use crate::{Exit, Failure};

/// What became of the letters that were chosen.
#[derive(Debug, Default)]
struct Change {
    chosen: usize,
    done: usize,
    /// What was not done, and why.
    left: Vec<(EntryId, String)>,
}

/// Runs jobs again.
pub(super) async fn redrive(
    client: &Client,
    command: &DeadChange,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let letters = of(client, &command.queue)?;
    let ids = chosen(&letters, command).await?;
    let mut change = Change { chosen: ids.len(), ..Change::default() };
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
                change.left.push((id, error.to_string()));
            }
            Err(error) => return Err(interrupted("redriven", &change, error)),
        }
        progress.at(change.done);
    }
    report("redrive", "redriven", &change, command, output)
}

/// Deletes letters for good.
pub(super) async fn purge(
    client: &Client,
    command: &DeadChange,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let letters = of(client, &command.queue)?;
    let ids = chosen(&letters, command).await?;
    let mut change = Change { chosen: ids.len(), ..Change::default() };
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

/// The letters that are meant, as they are now: jobs that die again meanwhile are not among them.
async fn chosen(letters: &DeadLetters, command: &DeadChange) -> Result<Vec<EntryId>, Failure> {
    if !command.ids.is_empty() {
        return Ok(distinct(&command.ids));
    }
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = letters.list(after, PAGE).await?;
        let meant = page.letters.iter().filter(|letter| is_of(letter, command.reason.as_deref()));
        ids.extend(meant.map(|letter| letter.id));
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
    let what = format!("{action} {} of {}", counted(change.chosen), command.queue);
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
            let letters = counted(change.chosen);
            output.line(&format!("{done} {} of {letters} of {}", change.done, command.queue))?;
            output.flush()?;
            for (_, why) in &change.left {
                complain(why);
            }
        }
    }
    Ok(if change.done == change.chosen { Exit::Ok } else { Exit::Findings })
}

fn document(action: &str, change: &Change, command: &DeadChange) -> serde_json::Value {
    let left = change.left.iter().map(|(id, why)| json!({ "id": id.to_string(), "why": why }));
    let left = left.collect::<Vec<_>>();
    let beside = json!({ "chosen": change.chosen, "done": change.done, "left": left });
    act::document(action, &command.queue, !command.consent.yes, beside)
}

/// The connection or the server failed on the way.
fn interrupted(done: &str, change: &Change, error: DeadLetterError) -> Failure {
    complain(&format!("{done} {} of {} before it failed", change.done, counted(change.chosen)));
    error.into()
}

fn counted(letters: usize) -> String {
    format!("{letters} dead letter{}", if letters == 1 { "" } else { "s" })
}
