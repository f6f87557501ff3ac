//! Moving the dead letters of one group on one stream into the table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use streamjobs::dead_letter::{DeadLetters, Taker};
use streamjobs::{EntryId, GroupName, StreamName};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::Instant;
use tracing::{error, warn};

use super::insert::{self, Stored};
use super::report::{ArchiveError, ArchiveReport};
use super::row::LetterRow;
use crate::metrics;
use crate::postgres::Postgres;

/// Moves the dead letters of one group on one stream.
///
/// It keeps the dead letters that were taken and are not in the table yet, and those that are in
/// the table and not removed from their stream yet. After a failure, the next round continues
/// there. Before it stores what it took a while ago, it asks which of it still exist.
pub(super) struct LetterMover {
    pub(super) queue: LetterQueue,
    sizer: BatchSizer,
    waiting: Vec<LetterRow>,
    taken_at: Instant,
    /// When the waiting dead letters were known to exist.
    known_at: Instant,
    /// Whether there may be more dead letters than were taken.
    more: bool,
    stored: Vec<EntryId>,
    /// Whether the stored ones may have been removed, by a call that failed.
    is_settling: bool,
    /// Dead letters that the database refused, so that each is logged once.
    refused: BTreeSet<EntryId>,
}

/// The dead letters of one group on one stream, who takes them, and where they go.
pub(super) struct LetterQueue {
    pub(super) postgres: Postgres,
    pub(super) letters: DeadLetters,
    pub(super) taker: Taker,
    pub(super) lease: Duration,
    /// The stream of the partition.
    pub(super) stream: StreamName,
    /// The whole stream that the partition belongs to, or that stream itself: for metrics.
    pub(super) whole: StreamName,
    pub(super) group: GroupName,
}

impl LetterMover {
    pub(super) fn new(queue: LetterQueue, batch: usize) -> Self {
        Self {
            queue,
            sizer: BatchSizer::new(batch),
            waiting: Vec::new(),
            taken_at: Instant::now(),
            known_at: Instant::now(),
            more: false,
            stored: Vec::new(),
            is_settling: false,
            refused: BTreeSet::new(),
        }
    }

    /// Takes dead letters, stores them in the table, and then removes them from their stream.
    /// Returns whether there may be more.
    pub(super) async fn round(
        &mut self,
        turn: &Semaphore,
        report: &mut ArchiveReport,
    ) -> Result<bool, ArchiveError> {
        self.remove_stored().await?;
        if self.waiting.is_empty() || self.taken_at.elapsed() >= self.queue.lease {
            self.take(report).await?;
        }
        self.store(turn, report).await?;
        self.remove_stored().await?;
        Ok(self.more)
    }

    /// Takes dead letters, including those whose lease ran out while the database was unavailable:
    /// another process may have stored or redriven them since.
    async fn take(&mut self, report: &mut ArchiveReport) -> Result<(), ArchiveError> {
        self.waiting.clear();
        self.taken_at = Instant::now();
        self.known_at = self.taken_at;
        let taken = self.queue.letters.take(&self.queue.taker, self.sizer.next).await?;
        report.gone += taken.missing as u64;
        self.more = taken.has_more;
        let (mut bytes, mut pause_at) = (0, YIELD_BYTES);
        for letter in taken.letters {
            let row = LetterRow::of(letter);
            bytes += row.bytes();
            self.waiting.push(row);
            // Large payloads take a while to parse, and handlers run on the same threads.
            if bytes >= pause_at {
                pause_at = bytes + YIELD_BYTES;
                yield_now().await;
            }
        }
        self.sizer.record(self.waiting.len(), bytes);
        Ok(())
    }

    async fn store(
        &mut self,
        turn: &Semaphore,
        report: &mut ArchiveReport,
    ) -> Result<(), ArchiveError> {
        while !self.waiting.is_empty() {
            // The semaphore is never closed. It only limits how many connections are used.
            let _permit = turn.acquire().await;
            self.drop_missing(report).await?;
            let count = insert::first_chunk(&self.waiting);
            let chunk = self.waiting.get(..count).unwrap_or_default();
            match self.insert(chunk).await {
                Ok(stored) => self.record_stored(count, stored, report),
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

    /// Stores the first waiting dead letter by itself. If that is refused, it is stored without the
    /// optional columns. If that is refused as well, it stays in its stream and is retried after
    /// the lease.
    async fn store_first(&mut self, report: &mut ArchiveReport) -> Result<(), ArchiveError> {
        self.drop_missing(report).await?;
        let Some(row) = self.waiting.first() else { return Ok(()) };
        let mut result = self.insert(std::slice::from_ref(row)).await;
        if result.as_ref().is_err_and(insert::is_about_rows) {
            result = self.insert(&[row.plain()]).await;
        }
        match result {
            Ok(stored) => self.record_stored(1, stored, report),
            Err(error) if insert::is_about_rows(&error) => self.refuse(&error, report),
            Err(error) => return Err(self.failed(error)),
        }
        Ok(())
    }

    /// Drops waiting dead letters that were redriven or purged, or that another process took, while the database was
    /// slow or unavailable: a row for one that was redriven would be open, and a redrive from the archive would run its
    /// job again.
    async fn drop_missing(&mut self, report: &mut ArchiveReport) -> Result<(), ArchiveError> {
        if self.waiting.is_empty() || self.known_at.elapsed() < KNOWN {
            return Ok(());
        }
        let asked_at = Instant::now();
        let ids = self.waiting.iter().map(|row| row.id);
        let found = self.queue.letters.still_taken(&self.queue.taker, ids).await?;
        let found = found.into_iter().map(|letter| letter.id).collect::<BTreeSet<_>>();
        let before = self.waiting.len();
        self.waiting.retain(|row| found.contains(&row.id));
        report.gone += before.saturating_sub(self.waiting.len()) as u64;
        self.known_at = asked_at;
        Ok(())
    }

    async fn insert(&self, rows: &[LetterRow]) -> Result<Stored, sqlx::Error> {
        let LetterQueue { postgres, stream, group, .. } = &self.queue;
        insert::insert(postgres, stream, group, rows).await
    }

    /// Counts the first `count` waiting dead letters as stored; those not in `stored` had a row
    /// before.
    fn record_stored(&mut self, count: usize, stored: Stored, report: &mut ArchiveReport) {
        self.stored.extend(self.waiting.drain(..count).map(|row| row.id));
        report.stored += stored.len() as u64;
        report.stored_before += count.saturating_sub(stored.len()) as u64;
        let mut reasons = BTreeMap::new();
        for (reason, known_done) in stored {
            report.known_done += u64::from(known_done);
            *reasons.entry(reason).or_insert(0) += 1;
        }
        for (reason, letters) in reasons {
            metrics::archived(&self.queue.whole, &self.queue.group, reason, letters);
        }
    }

    /// Counts and logs the first waiting dead letter as refused. The error's text may quote the
    /// payload, so only its code is logged.
    fn refuse(&mut self, error: &sqlx::Error, report: &mut ArchiveReport) {
        let id = self.waiting.remove(0).id;
        report.refused += 1;
        if self.refused.len() >= REFUSED_MAX {
            self.refused.clear();
        }
        if self.refused.insert(id) {
            metrics::archive_refused(&self.queue.whole, &self.queue.group);
            let code = error.as_database_error().and_then(|error| error.code());
            error!(
                stream = %self.queue.stream, group = %self.queue.group, entry_id = %id,
                code = code.as_deref().unwrap_or("none"),
                "the database refused a dead letter; it stays in its stream"
            );
        }
    }

    async fn remove_stored(&mut self) -> Result<(), ArchiveError> {
        if self.stored.is_empty() {
            return Ok(());
        }
        // If the answer is lost, the next one says nothing about what the first call removed.
        let is_first = !std::mem::replace(&mut self.is_settling, true);
        let removed = self.queue.letters.settle(&self.queue.taker, &self.stored).await?;
        let missing = self.stored.len().saturating_sub(removed);
        if missing > 0 && is_first && self.taken_at.elapsed() < self.queue.lease {
            let LetterQueue { stream, group, .. } = &self.queue;
            warn!(
                %stream, %group, missing,
                "dead letters that were redriven or purged during archiving are still open in the archive"
            );
        }
        self.stored.clear();
        self.is_settling = false;
        Ok(())
    }

    fn failed(&self, source: sqlx::Error) -> ArchiveError {
        let (stream, group) = (self.queue.stream.to_string(), self.queue.group.to_string());
        ArchiveError::Database { stream, group, source }
    }
}

/// How many dead letters to take at a time, so that they fit into memory. Their size is unknown
/// before they are read, so it is estimated from the last batch.
#[derive(Debug, PartialEq, Eq)]
struct BatchSizer {
    next: usize,
    max: usize,
}

impl BatchSizer {
    fn new(max: usize) -> Self {
        Self { next: max.min(FIRST), max }
    }

    fn record(&mut self, letters: usize, bytes: usize) {
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
/// How long a dead letter counts as there after Redis has said so.
const KNOWN: Duration = Duration::from_secs(1);
/// How many refused dead letters are remembered, so that each is logged once.
const REFUSED_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_of_small_letters_grow_and_of_large_ones_shrink() {
        let mut sizer = BatchSizer::new(500);
        let sizes = [(32, 32 * 300), (128, 128 * 300), (500, 500 << 20), (16, 16 << 20), (0, 0)];
        let taken = sizes.map(|(letters, bytes)| {
            let size = sizer.next;
            sizer.record(letters, bytes);
            size
        });
        assert_eq!(taken, [32, 128, 500, 16, 16]);
        sizer.record(1, 600 << 20);
        assert_eq!(sizer, BatchSizer { next: 1, max: 500 });
        assert_eq!(BatchSizer::new(1), BatchSizer { next: 1, max: 1 });
    }
}
