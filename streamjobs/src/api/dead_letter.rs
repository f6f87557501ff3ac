//! Dead letters: looking at them, running their jobs again, and deleting them.

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
use crate::store::{Queue, Store, StoreError};

pub use crate::model::policy::Reason;
pub use crate::model::record::DeadLetter;
pub use crate::store::dead_letters::Taker;

impl Client {
    /// The dead letters of one group on one stream.
    ///
    /// # Errors
    ///
    /// When one of the names is not one.
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
    store: Arc<dyn Store>,
    queue: Queue,
}

/// Some dead letters, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The dead letters.
    pub letters: Vec<DeadLetter>,
    /// What to ask for next; none at the end.
    pub next: Option<EntryId>,
}

/// Dead letters that were taken to be stored elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "what is taken and not settled is taken again after the lease"]
pub struct Taken {
    /// The letters, those that were taken before first.
    pub letters: Vec<DeadLetter>,
    /// Letters that were taken before and not settled, and that are gone: redriven, purged, or
    /// settled with a lost answer.
    pub gone: usize,
    /// Whether there may be more to take at once. Where no letters came, there may be: those that
    /// wait for the consumer that had their entries are passed over.
    pub more: bool,
}

/// A job of an archive, to be put back.
///
/// `Debug` does not show the payload. Closed on purpose: these are all the parts that a job needs.
#[derive(Clone, Copy)]
pub struct ArchivedJob<'a> {
    /// The fields of its dead letter.
    pub fields: &'a Fields,
    /// The identity of its event, which it keeps.
    pub event_id: &'a EventId,
    /// The entry that was published, which it remembers.
    pub origin: Option<EntryId>,
    /// Under what it is put back at most once: at most 128 bytes without control characters.
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

/// What became of a job that was to be put back. Closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutBack {
    /// It was put back, as this entry of the group's lane.
    Put(EntryId),
    /// A job was put back under the same token before; nothing was changed.
    PutBefore,
}

impl DeadLetters {
    pub(crate) fn new(store: Arc<dyn Store>, queue: Queue) -> Self {
        Self { store, queue }
    }

    /// Dead letters after the given one, oldest first: at most `limit` and at most 1,000.
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
        let stored = stored.map_err(|error| self.failed("list", error))?;
        let letters = stored.iter().map(DeadLetter::of).collect::<Vec<_>>();
        let next =
            if letters.len() < limit { None } else { letters.last().map(|letter| letter.id) };
        Ok(Page { letters, next })
    }

    /// Dead letters before the given one, newest first: at most `limit` and at most 1,000.
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
        let stored = stored.map_err(|error| self.failed("list", error))?;
        let letters = stored.iter().map(DeadLetter::of).collect::<Vec<_>>();
        let next =
            if letters.len() < limit { None } else { letters.last().map(|letter| letter.id) };
        Ok(Page { letters, next })
    }

    /// One dead letter.
    ///
    /// # Errors
    ///
    /// When there is none with this id, or the server cannot be reached or refuses.
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

    /// Puts a dead letter's job back for this group alone: its event id is kept, its failures are
    /// forgotten, and it remembers the entry that was published. Returns the id of its new entry. It
    /// runs within the processes' promote interval, half a second by default, or six of them where
    /// there was no work for a lease.
    ///
    /// # Errors
    ///
    /// When there is no such dead letter, when it cannot be run again, or when the server cannot be
    /// reached or refuses. After a lost answer, the dead letter is either still there or redriven.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the job was put back; it is never put back twice.
    pub async fn redrive(&self, id: EntryId) -> Result<EntryId, DeadLetterError> {
        let letter = self.get(id).await?;
        let Some(job) = letter.redriven() else {
            let (stream, group) = self.names();
            return Err(DeadLetterError::NotRunnable { stream, group, id });
        };
        let redriven = self.store.redrive(&self.queue, id, &job).await;
        redriven.map_err(|error| self.failed("redrive", error))?.ok_or_else(|| self.unknown(id))
    }

    /// Puts many jobs back, one answer for each id in order.
    ///
    /// # Cancel safety
    ///
    /// As [`redrive`](Self::redrive), for the one in the middle of which it was dropped.
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

    /// Deletes dead letters for good: how many of them were there.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses; some may be deleted by then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open which are deleted.
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

    /// Takes dead letters to store them elsewhere: at most `limit` and at most 500. First those that
    /// were taken before and not [settled](Self::settle) within the lease, by whomever; then new
    /// ones, oldest first.
    ///
    /// A taken letter is still listed, and can still be redriven and purged. A letter that says that
    /// a payload was trimmed away waits for up to an hour while the consumer that had the entry
    /// lives: it may have the job in hand, and take the letter back.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// What was taken by a dropped future, or by one whose answer was lost, is taken again after
    /// the lease.
    ///
    /// # Delivery
    ///
    /// At least once: store letters under their id and [digest](DeadLetter::digest), and settle them
    /// when they are stored.
    pub async fn take(&self, by: &Taker, limit: usize) -> Result<Taken, DeadLetterError> {
        let taken = self.store.take_letters(&self.queue, by, limit).await;
        let taken = taken.map_err(|error| self.failed("take", error))?;
        let letters = taken.letters.iter().map(DeadLetter::of).collect();
        Ok(Taken { letters, gone: taken.missing, more: taken.has_more })
    }

    /// Removes dead letters that are stored elsewhere: how many of them were still there. Doing it
    /// twice does nothing more. A letter that nobody of the taker's group has taken stays.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses; some may be removed by then, and the others
    /// are taken again after the lease.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open which are removed.
    pub async fn settle(&self, by: &Taker, ids: &[EntryId]) -> Result<usize, DeadLetterError> {
        let settled = self.store.settle_letters(&self.queue, by, ids).await;
        settled.map_err(|error| self.failed("settle", error))
    }

    /// Puts a job back that comes from an archive, for this group alone, as
    /// [`redrive`](Self::redrive) puts back a dead letter's: its event id is kept and its failures
    /// are forgotten.
    ///
    /// Under one token that happens once, however often it is asked for within `keep`
    /// ([`TOKEN_KEPT`] for most; one of less than a millisecond is one of a millisecond): write the
    /// token down before, and repeat the call after a crash or a lost answer.
    ///
    /// # Errors
    ///
    /// When the token is none, when there is nothing that can be run, when the group is not on the
    /// stream, or when the server cannot be reached or refuses. Nothing is changed then, unless the
    /// answer was lost.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the job was put back; asking again with the token
    /// tells.
    pub async fn put_back(
        &self,
        fields: &Fields,
        event_id: &EventId,
        origin: Option<EntryId>,
        token: &str,
        keep: Duration,
    ) -> Result<PutBack, DeadLetterError> {
        let mut answers =
            self.put_back_all(&[ArchivedJob { fields, event_id, origin, token }], keep).await;
        let lost = StoreError::Protocol { command: "redrive_archived" };
        answers.pop().unwrap_or_else(|| Err(self.failed("put back", lost)))
    }

    /// Puts many jobs back, about a hundred in one round trip: one answer for each, in order.
    ///
    /// It is not a transaction: some may be put back where others are refused. No jobs make no
    /// call.
    ///
    /// # Cancel safety
    ///
    /// As [`put_back`](Self::put_back).
    pub async fn put_back_all(
        &self,
        jobs: &[ArchivedJob<'_>],
        keep: Duration,
    ) -> Vec<Result<PutBack, DeadLetterError>> {
        let mut returning = Vec::with_capacity(jobs.len());
        let prepared = jobs.iter().map(|job| self.returning(job).map(|job| returning.push(job)));
        let prepared = prepared.collect::<Vec<_>>();
        let mut returned =
            self.store.redrive_archived(&self.queue, &returning, keep).await.into_iter();
        let lost = || Err(StoreError::Protocol { command: "redrive_archived" });
        let answer = |prepared: Result<(), DeadLetterError>| {
            prepared.and_then(|()| self.returned(returned.next().unwrap_or_else(lost)))
        };
        prepared.into_iter().map(answer).collect()
    }

    fn returning(&self, job: &ArchivedJob<'_>) -> Result<RedriveRequest, DeadLetterError> {
        let token = RedriveToken::new(job.token)?;
        match record::redriven(job.fields, Some(job.event_id), job.origin) {
            Some(fields) => Ok(RedriveRequest { fields, token }),
            None => {
                let (stream, group) = self.names();
                Err(DeadLetterError::NothingToRun { stream, group, token: token.to_string() })
            }
        }
    }

    fn returned(&self, returned: Redriven) -> Result<PutBack, DeadLetterError> {
        match returned {
            Ok(Some(id)) => Ok(PutBack::Put(id)),
            Ok(None) => Ok(PutBack::PutBefore),
            Err(StoreError::GroupMissing) => {
                let (stream, group) = self.names();
                Err(DeadLetterError::UnknownGroup { stream, group })
            }
            Err(error) => Err(self.failed("put back", error)),
        }
    }

    fn names(&self) -> (String, String) {
        (self.queue.stream.to_string(), self.queue.group.to_string())
    }

    fn unknown(&self, id: EntryId) -> DeadLetterError {
        let (stream, group) = self.names();
        DeadLetterError::Unknown { stream, group, id }
    }

    fn failed(&self, action: &'static str, error: StoreError) -> DeadLetterError {
        let (stream, group) = self.names();
        DeadLetterError::Server { action, stream, group, source: error.into() }
    }
}

impl DeadLetterError {
    /// Whether asking again is of no use, because of the names, the letter, the group or what the
    /// server holds. If not, the server could not be reached, or cannot do it for now: it loads its
    /// data, is full, or is not the primary.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let Self::Server { source, .. } = self else { return true };
        match source.downcast_ref::<StoreError>() {
            Some(StoreError::GroupMissing) => true,
            Some(StoreError::Refused { code, .. }) => !PASSING.contains(&code.as_str()),
            Some(_) | None => false,
        }
    }
}

/// Refusals that are about the server's state and not about what was asked.
const PASSING: [&str; 12] = [
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
/// How long a token is kept for most: seven days.
pub const TOKEN_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const PAGE_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn server(error: StoreError) -> DeadLetterError {
        let (stream, group) = (String::from("orders"), String::from("mail"));
        DeadLetterError::Server { action: "put back", stream, group, source: error.into() }
    }

    #[test]
    fn only_what_stays_refused_is_final() {
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
