//! Dead letters: storing, reading, redriving and purging them, and moving them to an archive and back.

use std::time::Duration;

use async_trait::async_trait;

use super::types::{FenceResult, Hold, Queue, Result, StandIn, StoredDeadLetter};
use crate::model::entry::{EntryId, Fields};
pub use crate::model::name::RedriveToken;
use crate::model::name::{ConsumerName, GroupName};

/// A process that takes dead letters to store them elsewhere.
///
/// Takers of the same group share the letters: one of them takes each letter. If that taker does not
/// [settle](crate::api::dead_letter::DeadLetters::settle) it within the lease, another taker takes it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taker {
    group: Option<GroupName>,
    consumer: ConsumerName,
    lease: Duration,
}

impl Taker {
    /// A taker in the group `archive`, with a lease of 30 seconds.
    ///
    /// The name should be unique for every start, like one from [`ConsumerName::unique`]. Later takers
    /// remove a name that has had no taken letters for twenty leases.
    #[must_use]
    pub fn new(consumer: ConsumerName) -> Self {
        Self { group: None, consumer, lease: LEASE }
    }

    /// Puts the taker into another group, which takes every letter independently: for a second archive.
    ///
    /// Settling removes letters for all groups, so the archives of two groups both see every letter only
    /// if neither settles.
    #[must_use]
    pub fn group(mut self, group: GroupName) -> Self {
        self.group = Some(group);
        self
    }

    /// How long a letter may stay taken without being settled: 30 seconds by default.
    ///
    /// If it is too short, a slow archive stores letters twice; if it is too long, the letters of a
    /// crashed archive wait.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    pub(crate) fn group_name(&self) -> &str {
        self.group.as_ref().map_or(GROUP, GroupName::as_str)
    }

    pub(crate) fn consumer(&self) -> &ConsumerName {
        &self.consumer
    }

    pub(crate) fn lease_time(&self) -> Duration {
        self.lease
    }
}

/// Dead letters taken for an archive.
#[derive(Debug, Default)]
pub struct TakenLetters {
    /// The letters; those that were taken before come first.
    pub letters: Vec<StoredDeadLetter>,
    /// Letters that were taken before, not settled, and do not exist any more.
    pub missing: usize,
    /// Whether there may be more to take now.
    pub has_more: bool,
}

/// A job to redrive from an archive.
#[derive(Debug)]
pub struct RedriveRequest {
    /// The fields of its new entry in the lane.
    pub fields: Fields,
    /// Jobs with the same token are redriven once.
    pub token: RedriveToken,
}

/// The id of a redriven job in the lane, or `None` if its token was used before.
pub type Redriven = Result<Option<EntryId>>;

/// The steps on dead letters.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Stores a dead letter first and acknowledges its entry second. An entry that is not pending is
    /// settled only if there is a `stand_in`, which the letter replaces.
    async fn store_dead_letter(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        hold: Hold,
        stand_in: Option<StandIn>,
        letter: &Fields,
    ) -> Result<FenceResult>;

    /// Dead letters with ids after `after`, in order, at most `limit`. Tests compare stores by them.
    #[cfg(feature = "testing")]
    async fn dead_letters(
        &self,
        queue: &Queue,
        after: EntryId,
        limit: usize,
    ) -> Result<Vec<StoredDeadLetter>>;

    /// One dead letter.
    async fn dead_letter(&self, queue: &Queue, id: EntryId) -> Result<Option<StoredDeadLetter>>;

    /// Appends a dead letter's job to the lane and removes the letter, in one step. Returns the job's id
    /// in the lane, or `None` if the letter does not exist.
    async fn redrive(&self, queue: &Queue, id: EntryId, job: &Fields) -> Result<Option<EntryId>>;

    /// Removes dead letters. Returns how many there were.
    async fn purge(&self, queue: &Queue, ids: &[EntryId]) -> Result<usize>;

    /// Removes the oldest dead letters until about `keep` remain. Returns how many were removed.
    async fn trim_dead_letters(&self, queue: &Queue, keep: u64) -> Result<u64>;

    /// Takes dead letters for an archive: first those whose lease is over, then new ones. A letter about
    /// a trimmed payload is withheld for at most an hour while its consumer is alive, because that
    /// consumer may still have the job in flight and replace the letter.
    async fn take_letters(&self, queue: &Queue, by: &Taker, limit: usize) -> Result<TakenLetters>;

    /// Those of the letters that exist and that this taker has taken, in the order asked for.
    async fn still_taken(&self, queue: &Queue, by: &Taker, ids: &[EntryId])
    -> Result<Vec<EntryId>>;

    /// Removes letters that are stored elsewhere. Returns how many there were. Letters that the taker's
    /// group has not taken stay.
    async fn settle_letters(&self, queue: &Queue, by: &Taker, ids: &[EntryId]) -> Result<usize>;

    /// Appends archived jobs to the lane, except those whose token was used within `keep`. Returns an
    /// answer for each. If the group does not exist, nothing is changed.
    async fn redrive_archived(
        &self,
        queue: &Queue,
        jobs: &[RedriveRequest],
        keep: Duration,
    ) -> Vec<Redriven>;
}

const GROUP: &str = "archive";
const LEASE: Duration = Duration::from_secs(30);
/// How long a letter about a trimmed payload waits for the job that may replace it.
pub(crate) const WITHHELD: Duration = Duration::from_secs(60 * 60);
/// After how many leases the name of a taker without taken letters is removed.
pub(crate) const LEASES_KEPT: u32 = 20;
