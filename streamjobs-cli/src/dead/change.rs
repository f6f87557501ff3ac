//! `streamjobs dead redrive` and `purge`, which change something only with `--yes`.

use serde_json::json;
use streamjobs::Client;
use streamjobs::dead_letter::{DeadLetterSummary, DeadLetters};
use streamjobs::error::DeadLetterError;
use streamjobs::stream::EntryAddress;

use super::{PAGE, is_of, of};
use crate::action::{self, distinct, planned};
use crate::arguments::DeadChange;
use crate::output::{Output, Progress, print_error};
use crate::{Exit, Failure};

/// What to do with dead letters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// Their jobs run again.
    Redrive,
    /// They are deleted.
    Purge,
}

/// The result for the selected letters.
#[derive(Debug, Default)]
struct Change {
    selected: usize,
    done: usize,
    /// Letters that were not changed, and why.
    skipped: Vec<(EntryAddress, String)>,
}

/// Changes the selected letters.
pub(super) async fn run(
    client: &Client,
    action: Action,
    command: &DeadChange,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let (name, done, at_once) = match action {
        Action::Redrive => ("redrive", "redriven", 1),
        Action::Purge => ("purge", "purged", PAGE),
    };
    let letters = of(client, &command.queue)?;
    let ids = selected(&letters, command).await?;
    let mut change = Change { selected: ids.len(), ..Change::default() };
    if ids.is_empty() {
        super::known(client, &command.queue, &letters).await?;
    }
    let all = counted(change.selected);
    if !command.consent.yes {
        change.check(action, &letters, &ids).await?;
        return plan(name, &change, command, output);
    }
    let mut progress = Progress::new(done, Some(ids.len()));
    for part in ids.chunks(at_once) {
        if let Err(error) = change.apply(action, &letters, part).await {
            print_error(&format!("{done} {} of {all} before the failure", change.done));
            return Err(error.into());
        }
        progress.at(change.done);
    }
    report(name, done, &change, command, output)
}

impl Change {
    /// Finds the letters that would not be changed.
    async fn check(
        &mut self,
        action: Action,
        letters: &DeadLetters,
        ids: &[EntryAddress],
    ) -> Result<(), DeadLetterError> {
        let mut progress = Progress::new("checked", Some(ids.len()));
        for (done, id) in ids.iter().enumerate() {
            let checked = match action {
                Action::Redrive => letters.check_redrive(*id).await,
                Action::Purge => letters.get(*id).await.map(drop),
            };
            self.skip(*id, checked)?;
            progress.at(done);
        }
        Ok(())
    }

    /// The value for a letter that can be changed; a letter that cannot is skipped.
    fn skip<T>(
        &mut self,
        id: EntryAddress,
        answer: Result<T, DeadLetterError>,
    ) -> Result<Option<T>, DeadLetterError> {
        match answer {
            Ok(value) => Ok(Some(value)),
            Err(
                error @ (DeadLetterError::Unknown { .. } | DeadLetterError::NotRunnable { .. }),
            ) => {
                self.skipped.push((id, error.to_string()));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn apply(
        &mut self,
        action: Action,
        letters: &DeadLetters,
        ids: &[EntryAddress],
    ) -> Result<(), DeadLetterError> {
        if let Action::Purge = action {
            self.done += letters.purge(ids).await?;
            return Ok(());
        }
        for id in ids {
            let redriven = letters.redrive(*id).await;
            self.done += usize::from(self.skip(*id, redriven)?.is_some());
        }
        Ok(())
    }
}

/// The selected letters at this moment. Letters that are stored later are not included.
async fn selected(
    letters: &DeadLetters,
    command: &DeadChange,
) -> Result<Vec<EntryAddress>, Failure> {
    if !command.ids.is_empty() {
        return Ok(distinct(&command.ids));
    }
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = letters.summaries(after, PAGE).await?;
        let matching =
            page.letters.iter().filter(|letter| is_of(letter, command.reason.as_deref()));
        ids.extend(matching.map(DeadLetterSummary::address));
        after = page.next;
        if after.is_none() {
            return Ok(ids);
        }
    }
}

/// The answer without `--yes`: what would be changed, and what would not.
fn plan(
    name: &str,
    change: &Change,
    command: &DeadChange,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let (would, all) = (change.selected - change.skipped.len(), counted(change.selected));
    let all = if change.skipped.is_empty() { all } else { format!("{would} of {all}") };
    let what = format!("{name} {all} of {}", command.queue);
    let exit = planned(&what, &document(name, change, command), output)?;
    if !output.is_json() {
        output.flush()?;
        change.skipped.iter().for_each(|(_, reason)| print_error(reason));
    }
    Ok(exit)
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

fn counted(letters: usize) -> String {
    format!("{letters} dead letter{}", if letters == 1 { "" } else { "s" })
}
