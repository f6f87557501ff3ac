//! Putting the job of each dead letter of a batch back, and the outcome.

use std::collections::BTreeMap;
use std::str::FromStr;

use sqlx::Row;
use sqlx::postgres::PgRow;
use streamjobs::dead_letter::{ArchivedJob, DeadLetters, RedriveOutcome, TOKEN_KEPT};
use streamjobs::error::DeadLetterError;
use streamjobs::{Client, EntryId, EventId, Fields};

use super::OutcomeState;
use crate::letters::letter::{fields, history};
use crate::text::error_chain;

/// The columns of a dead letter that a redrive needs.
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

/// The outcome of one dead letter of a batch.
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
        let mut fields = fields(row)?;
        if !fields.is_empty() {
            history(row)?.carry(&mut fields);
        }
        Ok(Self {
            id: row.try_get("id")?,
            stream: row.try_get("stream")?,
            group: row.try_get("group_name")?,
            event_id: event_id.and_then(|text| EventId::new(text).ok()),
            origin: origin.and_then(|text| EntryId::from_str(text).ok()),
            fields,
            redriven: row.try_get("redriven")?,
            known_done: row.try_get("known_done")?,
        })
    }

    /// Its size in memory and on the way to Redis.
    pub(super) fn size(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// The event id under which its job is put back, or the outcome if it cannot be.
    fn runnable(&self, again: bool) -> Result<&EventId, Outcome> {
        if self.redriven && !again {
            return Err(Outcome::skipped(self.id, "another request put it back"));
        }
        if self.known_done && !again {
            return Err(Outcome::skipped(self.id, "the guard says that its job was done"));
        }
        if self.fields.is_empty() {
            return Err(Outcome::failed(self.id, "its payload was trimmed"));
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
            // The reply to an earlier try was lost, and with it the entry id.
            RedriveOutcome::AlreadyRedriven => None,
        };
        Self { letter, state: OutcomeState::Done, entry_id, error: None }
    }
}

/// Puts the jobs of some dead letters back, each under its own token, in order within each group.
/// If an error is returned, those without an outcome are retried later under the same token.
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
        let queue = match first_partition(client, stream, group) {
            Ok(queue) => queue,
            Err(error) => {
                let failed =
                    |(letter, _): &(&Letter, _)| Outcome::failed(letter.id, error_chain(&error));
                outcomes.extend(letters.iter().map(failed));
                continue;
            }
        };
        for (letter, reply) in replies(&queue, &letters, token).await {
            match reply {
                Ok(put) => outcomes.push(Outcome::done(letter, put)),
                Err(error) if error.is_final() => {
                    outcomes.push(Outcome::failed(letter, error_chain(&error)));
                }
                // The error is about the server, not the dead letter.
                Err(error) => unreachable = Some(error),
            }
        }
        if unreachable.is_some() {
            // Each other group would wait for its own timeout, with rows locked meanwhile.
            break;
        }
    }
    (outcomes, unreachable)
}

/// The dead letters of one partition alone. A row names its partition, and the first partition has the same name as
/// the whole stream.
fn first_partition(
    client: &Client,
    stream: &str,
    group: &str,
) -> Result<DeadLetters, DeadLetterError> {
    let stream = client.stream(stream)?;
    let first = stream.partitions().into_iter().next().unwrap_or(stream);
    Ok(first.group(group)?.dead_letters())
}

/// One reply for each dead letter of one group on one stream.
async fn replies(
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
    let replies = queue.redrive_archived_all(&jobs, TOKEN_KEPT).await;
    letters.iter().map(|(letter, _)| letter.id).zip(replies).collect()
}
