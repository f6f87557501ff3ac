//! What is to be done about each letter of a batch, and what became of it.

use std::collections::BTreeMap;
use std::str::FromStr;

use sqlx::Row;
use sqlx::postgres::PgRow;
use streamjobs::dead_letter::{ArchivedJob, DeadLetters, RedriveOutcome, TOKEN_KEPT};
use streamjobs::error::DeadLetterError;
use streamjobs::{Client, EntryId, EventId, Fields};

use super::OutcomeState;
use crate::letters::letter::fields;
use crate::text;

/// A letter as far as a redrive needs it.
pub(super) struct Letter {
    pub(super) id: i64,
    stream: String,
    group: String,
    event_id: Option<EventId>,
    origin: Option<EntryId>,
    fields: Fields,
    redriven: bool,
    known_done: bool,
}

/// What became of one letter of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) letter: i64,
    pub(super) state: OutcomeState,
    pub(super) entry_id: Option<String>,
    pub(super) error: Option<String>,
}

impl Letter {
    pub(super) fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let event_id = row.try_get::<Option<String>, _>("event_id")?;
        let origin = row.try_get::<Option<&str>, _>("origin_id")?;
        Ok(Self {
            id: row.try_get("id")?,
            stream: row.try_get("stream")?,
            group: row.try_get("group_name")?,
            event_id: event_id.and_then(|text| EventId::new(text).ok()),
            origin: origin.and_then(|text| EntryId::from_str(text).ok()),
            fields: fields(row)?,
            redriven: row.try_get("redriven")?,
            known_done: row.try_get("known_done")?,
        })
    }

    /// What it takes in memory and on the way to Redis.
    pub(super) fn size(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// The event under whose id its job is put back, or what became of the letter without that.
    fn runnable(&self, again: bool) -> Result<&EventId, Outcome> {
        if self.redriven && !again {
            return Err(Outcome::skipped(self.id, "another request put it back"));
        }
        if self.known_done && !again {
            return Err(Outcome::skipped(self.id, "the guard knows its job as done"));
        }
        if self.fields.is_empty() {
            return Err(Outcome::failed(self.id, "its payload was trimmed away"));
        }
        self.event_id.as_ref().ok_or_else(|| Outcome::failed(self.id, "its event has no id"))
    }
}

impl Outcome {
    pub(super) fn skipped(letter: i64, why: &str) -> Self {
        let error = Some(why.to_owned());
        Self { letter, state: OutcomeState::Skipped, entry_id: None, error }
    }

    fn failed(letter: i64, why: impl Into<String>) -> Self {
        let error = Some(why.into());
        Self { letter, state: OutcomeState::Failed, entry_id: None, error }
    }

    fn done(letter: i64, put: RedriveOutcome) -> Self {
        let entry_id = match put {
            RedriveOutcome::Redriven(id) => Some(id.to_string()),
            // The answer to an earlier try was lost, and with it the entry.
            RedriveOutcome::AlreadyRedriven => None,
        };
        Self { letter, state: OutcomeState::Done, entry_id, error: None }
    }

    /// Reads an answer; it comes back as an error if it says nothing about the letter.
    fn of(
        letter: i64,
        answer: Result<RedriveOutcome, DeadLetterError>,
    ) -> Result<Self, DeadLetterError> {
        match answer {
            Ok(put) => Ok(Self::done(letter, put)),
            Err(error) if error.is_final() => Ok(Self::failed(letter, told(&error))),
            Err(error) => Err(error),
        }
    }
}

/// Puts the jobs of some letters back, each under its own token, in their order for each group.
/// Letters without an outcome, if there is an error, are to be tried again under the same token.
pub(super) async fn put_back(
    client: &Client,
    letters: &[Letter],
    again: bool,
    token: &str,
) -> (Vec<Outcome>, Option<DeadLetterError>) {
    let mut outcomes = Vec::with_capacity(letters.len());
    let mut queues = BTreeMap::<(&str, &str), Vec<(&Letter, &EventId)>>::new();
    for letter in letters {
        match letter.runnable(again) {
            Ok(event) => {
                queues.entry((&letter.stream, &letter.group)).or_default().push((letter, event));
            }
            Err(outcome) => outcomes.push(outcome),
        }
    }
    let mut unreachable = None;
    for ((stream, group), letters) in queues {
        let queue = match client.dead_letters(stream, group) {
            Ok(queue) => queue,
            Err(error) => {
                let failed = |(letter, _): &(&Letter, _)| Outcome::failed(letter.id, told(&error));
                outcomes.extend(letters.iter().map(failed));
                continue;
            }
        };
        for (letter, answer) in answers(&queue, &letters, token).await {
            match Outcome::of(letter, answer) {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => unreachable = Some(error),
            }
        }
        if unreachable.is_some() {
            // The other groups would each wait for their deadline, with rows locked meanwhile.
            break;
        }
    }
    (outcomes, unreachable)
}

/// One answer for each letter of one group on one stream.
async fn answers(
    queue: &DeadLetters,
    letters: &[(&Letter, &EventId)],
    token: &str,
) -> Vec<(i64, Result<RedriveOutcome, DeadLetterError>)> {
    let tokens = letters.iter().map(|(letter, _)| format!("{token}-{}", letter.id));
    let tokens = tokens.collect::<Vec<_>>();
    let jobs = letters.iter().zip(&tokens).map(|((letter, event_id), token)| ArchivedJob {
        fields: &letter.fields,
        event_id,
        origin: letter.origin,
        token,
    });
    let jobs = jobs.collect::<Vec<_>>();
    let answers = queue.redrive_archived_all(&jobs, TOKEN_KEPT).await;
    letters.iter().map(|(letter, _)| letter.id).zip(answers).collect()
}

/// An error with its causes in one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text::clean(&text, TOLD_BYTES_MAX).into_owned()
}

/// As much of an error as is kept of a letter's own.
const TOLD_BYTES_MAX: usize = 4096;
