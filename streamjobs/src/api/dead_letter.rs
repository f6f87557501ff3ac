//! Dead letters: listing, redriving, archiving and purging them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::model::entry::{EntryId, Fields};
use crate::model::error::DeadLetterError;
use crate::model::name::{EventId, GroupName, RedriveToken, StreamName};
use crate::model::record;
use crate::publish::client::Client;
use crate::store::dead_letters::{RedriveRequest, Redriven};
use crate::store::inspect::Span;
use crate::store::{Queue, Store, StoreError, StoredDeadLetter};

pub use super::dead_letter_list::SummaryPage;
pub use crate::model::policy::Reason;
pub use crate::model::preview::DeadLetterSummary;
pub use crate::model::record::DeadLetter;
pub use crate::store::dead_letters::Taker;

impl Client {
    /// The dead letters of one group on one stream.
    ///
    /// # Errors
    ///
    /// When one of the names is invalid.
    pub fn dead_letters(&self, stream: &str, group: &str) -> Result<DeadLetters, DeadLetterError> {
        let queue = Queue { stream: StreamName::new(stream)?, group: GroupName::new(group)? };
        Ok(DeadLetters::new(Arc::clone(self.store()), queue))
    }
}

/// The dead letters of one group on one stream.
///
/// ```no_run
/// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let letters = client.dead_letters("orders", "notifications")?;
/// let page = letters.list(None, 50).await?;
/// for letter in &page.letters {
///     println!("{} {} {:?}", letter.id, letter.reason.as_str(), letter.error);
///     letters.redrive(letter.id).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeadLetters {
    pub(super) store: Arc<dyn Store>,
    pub(super) queue: Queue,
}

/// A page of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The dead letters.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<EntryId>,
}

/// Dead letters that were taken to be stored in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "dead letters that are not settled are taken again after the lease"]
pub struct Taken {
    /// The dead letters, those that were taken before first.
    pub letters: Vec<DeadLetter>,
    /// Dead letters that were taken before and not settled, and that no longer exist: redriven,
    /// purged, or settled with a lost answer.
    pub missing: usize,
    /// Whether there may be more to take at once, even if no letters were returned: those that wait
    /// for the consumer that owned their entries are skipped.
    pub has_more: bool,
}

/// An archived job, to be redriven.
///
/// `Debug` does not show the payload.
#[derive(Clone, Copy)]
pub struct ArchivedJob<'a> {
    /// The fields of its dead letter.
    pub fields: &'a Fields,
    /// The event id, which it keeps.
    pub event_id: &'a EventId,
    /// The entry that was published, which it keeps as its origin.
    pub origin: Option<EntryId>,
    /// The token under which it is redriven at most once: at most 128 bytes without control
    /// characters.
    pub token: &'a str,
}

impl fmt::Debug for ArchivedJob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchivedJob")
            .field("event_id", &self.event_id)
            .field("origin", &self.origin)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// The result of redriving an archived job. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedriveOutcome {
    /// It was redriven, as this entry of the group's lane.
    Redriven(EntryId),
    /// A job was redriven under the same token before; nothing was changed.
    AlreadyRedriven,
}

impl DeadLetters {
    pub(crate) fn new(store: Arc<dyn Store>, queue: Queue) -> Self {
        Self { store, queue }
    }

    /// Dead letters after the given one with their payloads, oldest first: at most `limit` and at
    /// most 1,000. For lists, [`summaries`](Self::summaries) moves no payloads.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn list(
        &self,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Page, DeadLetterError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let stored =
            self.store.dead_letters(&self.queue, after.unwrap_or(EntryId::ZERO), limit).await;
        self.page(stored, limit)
    }

    /// Dead letters before the given one with their payloads, newest first: at most `limit` and at
    /// most 1,000. For lists, [`newest_summaries`](Self::newest_summaries) moves no payloads.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn newest(
        &self,
        before: Option<EntryId>,
        limit: usize,
    ) -> Result<Page, DeadLetterError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let to = before.map_or(Some(EntryId::MAX), EntryId::previous);
        let Some(to) = to else { return Ok(Page { letters: Vec::new(), next: None }) };
        let key = self.queue.stream.dead_stream(&self.queue.group);
        let span = Span { from: EntryId::ZERO, to };
        let stored = self.store.range(&key, span, true, limit).await;
        self.page(stored, limit)
    }

    /// One dead letter.
    ///
    /// # Errors
    ///
    /// When no dead letter has this id, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn get(&self, id: EntryId) -> Result<DeadLetter, DeadLetterError> {
        let stored = self
            .store
            .dead_letter(&self.queue, id)
            .await
            .map_err(|error| self.failed("read", error))?;
        stored.as_ref().map(DeadLetter::of).ok_or_else(|| self.unknown(id))
    }

    /// Redrives a dead letter's job for this group alone: it keeps its event id and the id of the
    /// published entry, and its failures are reset. Returns the id of its new entry. It runs within
    /// the processes' promote interval, half a second by default, or six intervals in an idle group.
    ///
    /// # Errors
    ///
    /// When there is no such dead letter, when it cannot be redriven, or when the server cannot be
    /// reached or refuses. After a lost answer, the dead letter is either still there or redriven.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job may or may not be redriven; it is never redriven twice.
    pub async fn redrive(&self, id: EntryId) -> Result<EntryId, DeadLetterError> {
        let job = self.runnable(id).await?;
        let redriven = self.store.redrive(&self.queue, id, &job).await;
        redriven.map_err(|error| self.failed("redrive", error))?.ok_or_else(|| self.unknown(id))
    }

    /// Whether [`redrive`](Self::redrive) would be refused now; nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`redrive`](Self::redrive).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn check_redrive(&self, id: EntryId) -> Result<(), DeadLetterError> {
        self.runnable(id).await.map(drop)
    }

    /// Redrives many dead letters one after another, with one result for each id in order.
    ///
    /// # Cancel safety
    ///
    /// As [`redrive`](Self::redrive), for the dead letter at which the future was dropped.
    pub async fn redrive_all(
        &self,
        ids: impl IntoIterator<Item = EntryId>,
    ) -> Vec<(EntryId, Result<EntryId, DeadLetterError>)> {
        let mut answers = Vec::new();
        for id in ids {
            answers.push((id, self.redrive(id).await));
        }
        answers
    }

    /// Deletes dead letters, and returns how many of them existed.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses; some may be deleted before.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of them may or may not be deleted.
    pub async fn purge(&self, ids: &[EntryId]) -> Result<usize, DeadLetterError> {
        let mut purged = 0;
        for ids in ids.chunks(PAGE_MAX) {
            purged += self
                .store
                .purge(&self.queue, ids)
                .await
                .map_err(|error| self.failed("purge", error))?;
        }
        Ok(purged)
    }

    /// Takes dead letters to store them in an archive: at most `limit` and at most 500. First those
    /// that any process took before and did not [settle](Self::settle) within the lease; then new
    /// ones, oldest first.
    ///
    /// A taken dead letter is still listed, and can still be redriven and purged. A dead letter of a
    /// trimmed payload is skipped for up to an hour while the consumer that owned the entry is alive:
    /// the job may be in flight there, and its end removes the dead letter.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, or the answer is lost, the dead letters are taken again after the
    /// lease.
    ///
    /// # Delivery
    ///
    /// At least once: store dead letters under their id and [digest](DeadLetter::digest), and settle
    /// them when they are stored.
    pub async fn take(&self, by: &Taker, limit: usize) -> Result<Taken, DeadLetterError> {
        let taken = self.store.take_letters(&self.queue, by, limit).await;
        let taken = taken.map_err(|error| self.failed("take", error))?;
        let letters = taken.letters.iter().map(DeadLetter::of).collect();
        Ok(Taken { letters, missing: taken.missing, has_more: taken.has_more })
    }

    /// Removes dead letters that are stored in an archive, and returns how many still existed. It may
    /// be repeated. A dead letter that was not taken by the taker's group stays.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses; some may be removed before, and the others are
    /// taken again after the lease.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of them may or may not be removed.
    pub async fn settle(&self, by: &Taker, ids: &[EntryId]) -> Result<usize, DeadLetterError> {
        let settled = self.store.settle_letters(&self.queue, by, ids).await;
        settled.map_err(|error| self.failed("settle", error))
    }

    /// Redrives a job from an archive for this group alone, as [`redrive`](Self::redrive) does for a
    /// dead letter: it keeps its event id, and its failures are reset.
    ///
    /// Under one token the job is redriven once, however often the call is repeated within `keep`
    /// (use [`TOKEN_KEPT`]; the minimum is a millisecond). Store the token before the call, and
    /// repeat the call after a crash or a lost answer.
    ///
    /// # Errors
    ///
    /// When the token is invalid, when the job cannot be redriven, when the stream has no such group,
    /// or when the server cannot be reached or refuses. Nothing is changed then, unless the answer
    /// was lost.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job may or may not be redriven; repeating the call with the same
    /// token is safe.
    pub async fn redrive_archived(
        &self,
        fields: &Fields,
        event_id: &EventId,
        origin: Option<EntryId>,
        token: &str,
        keep: Duration,
    ) -> Result<RedriveOutcome, DeadLetterError> {
        let mut answers = self
            .redrive_archived_all(&[ArchivedJob { fields, event_id, origin, token }], keep)
            .await;
        let lost = StoreError::Protocol { command: "redrive_archived" };
        answers.pop().unwrap_or_else(|| Err(self.failed("redrive", lost)))
    }

    /// Redrives many jobs from an archive, about a hundred in one round trip, with one result for each
    /// in order.
    ///
    /// It is not a transaction: some jobs may be redriven while others are refused. Without jobs
    /// nothing is sent.
    ///
    /// # Cancel safety
    ///
    /// As [`redrive_archived`](Self::redrive_archived).
    pub async fn redrive_archived_all(
        &self,
        jobs: &[ArchivedJob<'_>],
        keep: Duration,
    ) -> Vec<Result<RedriveOutcome, DeadLetterError>> {
        let mut returning = Vec::with_capacity(jobs.len());
        let prepared = jobs.iter().map(|job| self.prepare(job).map(|job| returning.push(job)));
        let prepared = prepared.collect::<Vec<_>>();
        let mut returned =
            self.store.redrive_archived(&self.queue, &returning, keep).await.into_iter();
        let lost = || Err(StoreError::Protocol { command: "redrive_archived" });
        let answer = |prepared: Result<(), DeadLetterError>| {
            prepared.and_then(|()| self.outcome(returned.next().unwrap_or_else(lost)))
        };
        prepared.into_iter().map(answer).collect()
    }

    fn prepare(&self, job: &ArchivedJob<'_>) -> Result<RedriveRequest, DeadLetterError> {
        let token = RedriveToken::new(job.token)?;
        match record::redriven(job.fields, Some(job.event_id), job.origin) {
            Some(fields) => Ok(RedriveRequest { fields, token }),
            None => {
                let (stream, group) = self.names();
                Err(DeadLetterError::NothingToRun { stream, group, token: token.to_string() })
            }
        }
    }

    fn outcome(&self, returned: Redriven) -> Result<RedriveOutcome, DeadLetterError> {
        match returned {
            Ok(Some(id)) => Ok(RedriveOutcome::Redriven(id)),
            Ok(None) => Ok(RedriveOutcome::AlreadyRedriven),
            Err(StoreError::GroupMissing) => {
                let (stream, group) = self.names();
                Err(DeadLetterError::UnknownGroup { stream, group })
            }
            Err(error) => Err(self.failed("redrive", error)),
        }
    }

    fn page(
        &self,
        stored: Result<Vec<StoredDeadLetter>, StoreError>,
        limit: usize,
    ) -> Result<Page, DeadLetterError> {
        let stored = stored.map_err(|error| self.failed("list", error))?;
        let letters = stored.iter().map(DeadLetter::of).collect::<Vec<_>>();
        let next = letters.last().map(|letter| letter.id).filter(|_| letters.len() >= limit);
        Ok(Page { letters, next })
    }

    fn names(&self) -> (String, String) {
        (self.queue.stream.to_string(), self.queue.group.to_string())
    }

    /// The job of a dead letter that can be redriven.
    async fn runnable(&self, id: EntryId) -> Result<Fields, DeadLetterError> {
        self.get(id).await?.redriven().ok_or_else(|| {
            let (stream, group) = self.names();
            DeadLetterError::NotRunnable { stream, group, id }
        })
    }

    fn unknown(&self, id: EntryId) -> DeadLetterError {
        let (stream, group) = self.names();
        DeadLetterError::Unknown { stream, group, id }
    }

    pub(super) fn failed(&self, action: &'static str, error: StoreError) -> DeadLetterError {
        let (stream, group) = self.names();
        DeadLetterError::Server { action, stream, group, source: error.into() }
    }
}

impl DeadLetterError {
    /// Whether repeating the call cannot help, because of the names, the dead letter, the group or the
    /// data on the server. Otherwise the server could not be reached, or refuses temporarily: it is
    /// loading its data, is full, or is not the primary.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let Self::Server { source, .. } = self else { return true };
        match source.downcast_ref::<StoreError>() {
            Some(StoreError::GroupMissing) => true,
            Some(StoreError::Refused { code, .. }) => !TRANSIENT.contains(&code.as_str()),
            Some(_) | None => false,
        }
    }
}

/// Error codes of the server's temporary states, which say nothing about the request.
const TRANSIENT: [&str; 12] = [
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOREPLICAS",
    "NOSCRIPT",
    "OOM",
    "READONLY",
    "TRYAGAIN",
];
/// The usual time for which a token is kept: seven days.
pub const TOKEN_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
pub(super) const PAGE_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn server(error: StoreError) -> DeadLetterError {
        let (stream, group) = (String::from("orders"), String::from("mail"));
        DeadLetterError::Server { action: "redrive", stream, group, source: error.into() }
    }

    #[test]
    fn only_permanent_refusals_are_final() {
        let refused = |code: &str| {
            server(StoreError::Refused { code: code.to_owned(), text: String::from("no") })
        };
        assert!(refused("WRONGTYPE").is_final() && refused("NOPERM").is_final());
        assert!(!refused("OOM").is_final() && !refused("READONLY").is_final());
        assert!(server(StoreError::GroupMissing).is_final());
        for lost in [
            StoreError::Unreachable("gone".into()),
            StoreError::AnswerLost("gone".into()),
            StoreError::Protocol { command: "redrive_archived" },
        ] {
            assert!(!server(lost).is_final());
        }
        let name = StreamName::new("").map_err(DeadLetterError::from);
        assert!(name.is_err_and(|error| error.is_final()));
    }
}
