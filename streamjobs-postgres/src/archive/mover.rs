//! Moves the dead letters of one group on one stream into the table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use streamjobs::dead_letter::{DeadLetters, Taker};
use streamjobs::{EntryId, GroupName, StreamName};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::Instant;
use tracing::error;

use super::insert::{self, Stored};
use super::row::Row;
use super::{ArchiveError, ArchiveReport};
use crate::metrics;
use crate::postgres::Postgres;

/// What stands between the two stores: letters that were taken and are not in the table yet, and
/// letters that are and have not been removed yet. After a failure, the next round goes on there.
pub(super) struct Mover {
    postgres: Postgres,
    letters: DeadLetters,
    taker: Taker,
    lease: Duration,
    stream: StreamName,
    group: GroupName,
    portion: Portion,
    waiting: Vec<Row>,
    taken_at: Instant,
    /// Whether there may be more than what was taken.
    more: bool,
    stored: Vec<EntryId>,
    /// Letters of which it was said that they cannot be stored.
    refused: BTreeSet<EntryId>,
}

/// What a [`Mover`] works on and with.
pub(super) struct Parts {
    pub(super) postgres: Postgres,
    pub(super) letters: DeadLetters,
    pub(super) taker: Taker,
    pub(super) lease: Duration,
    pub(super) stream: StreamName,
    pub(super) group: GroupName,
    pub(super) batch: usize,
}

impl Mover {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { postgres, letters, taker, lease, stream, group, batch } = parts;
        Self {
            postgres,
            letters,
            taker,
            lease,
            stream,
            group,
            portion: Portion::new(batch),
            waiting: Vec::new(),
            taken_at: Instant::now(),
            more: false,
            stored: Vec::new(),
            refused: BTreeSet::new(),
        }
    }

    pub(super) fn stream(&self) -> &StreamName {
        &self.stream
    }

    pub(super) fn group(&self) -> &GroupName {
        &self.group
    }

    /// Takes letters, stores them, and removes them: stored first, removed second. True if there may
    /// be more.
    pub(super) async fn round(
        &mut self,
        turn: &Semaphore,
        report: &mut ArchiveReport,
    ) -> Result<bool, ArchiveError> {
        self.settle().await?;
        if self.waiting.is_empty() || self.taken_at.elapsed() >= self.lease {
            self.take(report).await?;
        }
        self.store(turn, report).await?;
        self.settle().await?;
        Ok(self.more)
    }

    /// Letters whose lease ran out while the database was away are taken again: until now somebody
    /// may have stored them, or put their jobs back.
    async fn take(&mut self, report: &mut ArchiveReport) -> Result<(), ArchiveError> {
        self.waiting.clear();
        self.taken_at = Instant::now();
        let taken = self.letters.take(&self.taker, self.portion.next).await?;
        report.gone += taken.missing as u64;
        self.more = taken.has_more;
        let (mut bytes, mut pause_at) = (0, YIELD_BYTES);
        for letter in taken.letters {
            let row = Row::of(letter);
            bytes += row.bytes();
            self.waiting.push(row);
            // Large payloads take a while to read, and handlers run on the same threads.
            if bytes >= pause_at {
                pause_at = bytes + YIELD_BYTES;
                yield_now().await;
            }
        }
        self.portion.learn(self.waiting.len(), bytes);
        Ok(())
    }

    async fn store(
        &mut self,
        turn: &Semaphore,
        report: &mut ArchiveReport,
    ) -> Result<(), ArchiveError> {
        while !self.waiting.is_empty() {
            let count = insert::first_chunk(&self.waiting);
            let chunk = self.waiting.get(..count).unwrap_or_default();
            // The semaphore is never closed; without a permit there would only be less order.
            let _permit = turn.acquire().await;
            match self.insert(chunk).await {
                Ok(stored) => self.note(count, stored, report),
                Err(error) if insert::is_about_rows(&error) => {
                    for _ in 0..count {
                        self.store_first(report).await?;
                    }
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    /// Stores the first waiting letter by itself, without its extras if it has to be. One that is
    /// refused even so stays where it is, and is tried again after the lease.
    async fn store_first(&mut self, report: &mut ArchiveReport) -> Result<(), ArchiveError> {
        let Some(row) = self.waiting.first() else { return Ok(()) };
        let mut answer = self.insert(std::slice::from_ref(row)).await;
        if answer.as_ref().is_err_and(insert::is_about_rows) {
            answer = self.insert(&[row.plain()]).await;
        }
        match answer {
            Ok(stored) => self.note(1, stored, report),
            Err(error) if insert::is_about_rows(&error) => self.refuse(&error, report),
            Err(error) => return Err(self.failed(error)),
        }
        Ok(())
    }

    async fn insert(&self, rows: &[Row]) -> Result<Stored, sqlx::Error> {
        insert::insert(&self.postgres, &self.stream, &self.group, rows).await
    }

    /// The first waiting letters are in the table: some only now, the others since before.
    fn note(&mut self, count: usize, stored: Stored, report: &mut ArchiveReport) {
        self.stored.extend(self.waiting.drain(..count).map(|row| row.id));
        report.stored += stored.len() as u64;
        report.stored_before += count.saturating_sub(stored.len()) as u64;
        let mut reasons = BTreeMap::new();
        for (reason, known_done) in stored {
            report.known_done += u64::from(known_done);
            *reasons.entry(reason).or_insert(0) += 1;
        }
        for (reason, letters) in reasons {
            metrics::archived(&self.stream, &self.group, reason, letters);
        }
    }

    /// The error's text may quote the payload, so only its code is told.
    fn refuse(&mut self, error: &sqlx::Error, report: &mut ArchiveReport) {
        let id = self.waiting.remove(0).id;
        report.refused += 1;
        if self.refused.len() >= REFUSED_MAX {
            self.refused.clear();
        }
        if self.refused.insert(id) {
            metrics::archive_refused(&self.stream, &self.group);
            let code = error.as_database_error().and_then(|error| error.code());
            error!(
                stream = %self.stream, group = %self.group, entry_id = %id,
                code = code.as_deref().unwrap_or("none"),
                "the database does not take a dead letter: it stays in its stream"
            );
        }
    }

    async fn settle(&mut self) -> Result<(), ArchiveError> {
        if !self.stored.is_empty() {
            self.letters.settle(&self.taker, &self.stored).await?;
            self.stored.clear();
        }
        Ok(())
    }

    fn failed(&self, source: sqlx::Error) -> ArchiveError {
        let (stream, group) = (self.stream.to_string(), self.group.to_string());
        ArchiveError::Database { stream, group, source }
    }
}

/// How many letters to take at a time, so that they fit into memory together: nobody knows how
/// large they are before they come.
#[derive(Debug, PartialEq, Eq)]
struct Portion {
    next: usize,
    max: usize,
}

impl Portion {
    fn new(max: usize) -> Self {
        Self { next: max.min(FIRST), max }
    }

    fn learn(&mut self, letters: usize, bytes: usize) {
        if let Some(each) = bytes.checked_div(letters) {
            let wider = self.next.saturating_mul(GROWTH);
            self.next = (TAKEN_BYTES / each.max(1)).min(wider).clamp(1, self.max);
        }
    }
}

const FIRST: usize = 32;
const GROWTH: usize = 4;
const TAKEN_BYTES: usize = 16 << 20;
const YIELD_BYTES: usize = 1 << 20;
/// How many refused letters are remembered, so that each is told once.
const REFUSED_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_letters_are_taken_many_at_a_time_and_large_ones_few() {
        let mut portion = Portion::new(500);
        let sizes = [(32, 32 * 300), (128, 128 * 300), (500, 500 << 20), (16, 16 << 20), (0, 0)];
        let taken = sizes.map(|(letters, bytes)| {
            let asked = portion.next;
            portion.learn(letters, bytes);
            asked
        });
        assert_eq!(taken, [32, 128, 500, 16, 16]);
        portion.learn(1, 600 << 20);
        assert_eq!(portion, Portion { next: 1, max: 500 });
        assert_eq!(Portion::new(1), Portion { next: 1, max: 1 });
    }
}
