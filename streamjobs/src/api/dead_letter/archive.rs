//! Dead letters and an archive: taking dead letters into the archive, and redriving jobs from it.

use std::fmt;
use std::time::Duration;

use super::letters::DeadLetters;
use crate::model::entry::{EntryAddress, EntryId, Fields};
use crate::model::error::DeadLetterError;
use crate::model::name::{EventId, RedriveToken};
use crate::model::record::{self, DeadLetter};
use crate::store::dead_letters::{RedriveRequest, Redriven, Taker};
use crate::store::{Queue, StoreError};

/// Dead letters that were taken to be stored in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "dead letters that are not settled are taken again after the lease"]
pub struct Taken {
    /// The dead letters, those that were taken before first.
    pub letters: Vec<DeadLetter>,
    /// Dead letters that were taken before and not settled, and that no longer exist: they were
    /// redriven, purged, or settled by a call whose answer was lost.
    pub missing: usize,
    /// Whether there may be more to take at once, even if no letters were returned: dead letters
    /// that wait for the consumer that owned their entries are skipped.
    pub has_more: bool,
}

/// An archived job, to be redriven.
///
/// `Debug` does not show the payload.
#[derive(Clone, Copy)]
pub struct ArchivedJob<'a> {
    /// The fields of its dead letter.
    pub fields: &'a Fields,
    /// The event id, which the job keeps.
    pub event_id: &'a EventId,
    /// The entry that was published, which the job keeps as its origin.
    pub origin: Option<EntryId>,
    /// The token under which the job is redriven at most once: at most 128 bytes without control
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
    /// The job was redriven, as this entry of the group's lane.
    Redriven(EntryId),
    /// A job was redriven under the same token before; nothing was changed.
    AlreadyRedriven,
}

impl DeadLetters {
    /// Takes dead letters to store them in an archive: at most `limit`, and never more than 500.
    /// Dead letters that any process took before and did not [settle](Self::settle) within the
    /// lease come first, then new ones, oldest first.
    ///
    /// A taken dead letter is still listed, and can still be redriven and purged. A dead letter whose payload was
    /// trimmed is skipped for up to an hour while the consumer that owned the entry is alive: the job may be in
    /// flight there, and the end of the job removes the dead letter.
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
        let mut all = Taken::default();
        for part in self.parts.iter() {
            let room = limit.min(TAKEN_MAX).saturating_sub(all.letters.len());
            if room == 0 && limit > 0 {
                all.has_more = true;
                break;
            }
            let taken = self.store.take_letters(&self.queue(part), by, room).await;
            let taken = taken.map_err(|error| self.failed(&part.stream, "take", error))?;
            let letters = taken.letters.into_iter();
            let letters = letters.map(|letter| letter.in_partition(part.number));
            all.letters.extend(letters.map(|letter| DeadLetter::of(&letter)));
            all.missing += taken.missing;
            all.has_more |= taken.has_more;
        }
        Ok(all)
    }

    /// Those of the dead letters that still exist and that this taker still has: they were not redriven or purged, and
    /// no other taker has them. It does not renew their lease.
    ///
    /// Ask before you store what you took a while ago, for example before an outage of the archive. A dead letter that
    /// is redriven after the answer and before you [settle](Self::settle) it is in the archive, although its job runs
    /// again: `settle` returns one less then.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn still_taken(
        &self,
        by: &Taker,
        letters: impl IntoIterator<Item = impl Into<EntryAddress>>,
    ) -> Result<Vec<EntryAddress>, DeadLetterError> {
        let letters = letters.into_iter().map(Into::into).collect::<Vec<EntryAddress>>();
        let mut found = Vec::with_capacity(letters.len());
        for part in self.parts.iter() {
            let number = part.number.unwrap_or(0);
            let may_have = |letter: &&EntryAddress| letter.partition.is_none_or(|of| of == number);
            let ids = letters.iter().filter(may_have).map(|letter| letter.id).collect::<Vec<_>>();
            if ids.is_empty() {
                continue;
            }
            let answer = self.store.still_taken(&self.queue(part), by, &ids).await;
            let answer = answer.map_err(|error| self.failed(&part.stream, "take", error))?;
            found.extend(answer.into_iter().map(|id| EntryAddress { id, partition: part.number }));
        }
        Ok(found)
    }

    /// Removes dead letters that are stored in an archive, and returns how many still existed. It may
    /// be repeated. A dead letter that was not taken by the taker's group stays.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses. Some dead letters may already be removed in
    /// that case, and the others are taken again after the lease.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of them may or may not be removed.
    pub async fn settle(
        &self,
        by: &Taker,
        letters: impl IntoIterator<Item = impl Into<EntryAddress>>,
    ) -> Result<usize, DeadLetterError> {
        let letters = letters.into_iter().map(Into::into).collect();
        let mut settled = 0;
        for (queue, ids) in self.by_queue(letters).await? {
            let answer = self.store.settle_letters(&queue, by, &ids).await;
            settled += answer.map_err(|error| self.failed(&queue.stream, "settle", error))?;
        }
        Ok(settled)
    }

    /// Redrives a job from an archive for this group alone, as [`redrive`](Self::redrive) does for a dead letter: the
    /// job keeps its event id, and its failures are reset.
    ///
    /// On a stream with partitions, the job goes to the first partition. To redrive it where it
    /// belongs, use the handle of its [partition](crate::stream::Stream::partitions).
    ///
    /// Under one token the job is redriven once, however often the call is repeated within `keep`
    /// (use [`TOKEN_KEPT`]; the minimum is a millisecond). Store the token before the call, and
    /// repeat the call after a crash or a lost answer.
    ///
    /// # Errors
    ///
    /// When the token is invalid, when the job cannot be redriven, when the stream has no such group, or when the
    /// server cannot be reached or refuses. In these cases nothing is changed, unless the answer was lost.
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
        answers.pop().unwrap_or_else(|| Err(self.failed(self.parts.name(), "redrive", lost)))
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
        let queue = Queue { stream: self.first().clone(), group: self.group.clone() };
        let mut returned = self.store.redrive_archived(&queue, &returning, keep).await.into_iter();
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
            Err(error) => Err(self.failed(self.first(), "redrive", error)),
        }
    }
}

/// How long a token is usually kept: seven days.
pub const TOKEN_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The most dead letters that are taken at once.
const TAKEN_MAX: usize = 500;
