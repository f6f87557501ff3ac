//! Dead letters between a stream and an archive: taken from here to be stored there, and put back.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::model::entry::{EntryId, Fields};
pub use crate::model::name::RedriveToken;
use crate::model::name::{ConsumerName, GroupName};
use crate::store::{Queue, Reply, StoreError, StoredDeadLetter};

/// Who takes dead letters to store them elsewhere.
///
/// Takers with the same group share the letters between them: each is taken by one of them, and
/// again by another one when it was not [settled](crate::api::dead_letter::DeadLetters::settle) within
/// the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taker {
    group: Option<GroupName>,
    consumer: ConsumerName,
    lease: Duration,
}

impl Taker {
    /// A taker of the group `archive`, with a lease of 30 seconds.
    ///
    /// The name should be unique for every start, as [`ConsumerName::unique`] makes one. Names that
    /// have nothing taken for twenty leases are removed by those who take after them.
    #[must_use]
    pub fn new(consumer: ConsumerName) -> Self {
        Self { group: None, consumer, lease: LEASE }
    }

    /// Another group, which has every letter to itself: for a second archive.
    ///
    /// Settled letters are gone for all groups, so archives of two groups see all of them only as
    /// long as neither settles.
    #[must_use]
    pub fn group(mut self, group: GroupName) -> Self {
        self.group = Some(group);
        self
    }

    /// How long a letter may stay taken without being settled: 30 seconds by default.
    ///
    /// Too short, and a slow archive stores letters twice; too long, and the letters of an archive
    /// that died wait for so long.
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

/// Dead letters as they are stored, taken for an archive.
#[derive(Debug, Default)]
pub struct TakenLetters {
    /// The letters, those that were taken before first.
    pub letters: Vec<StoredDeadLetter>,
    /// Letters that were taken before, not settled, and are gone.
    pub gone: usize,
    /// Whether there may be more to take now.
    pub more: bool,
}

/// A job that comes back from an archive.
#[derive(Debug)]
pub struct ReturningJob {
    /// The entry that the lane will hold.
    pub fields: Fields,
    /// Under what it comes back once.
    pub token: RedriveToken,
}

/// What became of a job that was to be put back: its id in the lane, or none if a job was put back
/// under its token before.
pub type Returned = Result<Option<EntryId>, StoreError>;

/// What an archive asks for.
pub trait Letters: Send + Sync {
    /// Takes dead letters: first those whose taker let its lease run out, then new ones. A letter
    /// that says that a payload was gone is left for an hour at most while its consumer lives,
    /// because that one may have the job in hand and replace the letter.
    fn take_letters<'a>(
        &'a self,
        queue: &'a Queue,
        by: &'a Taker,
        limit: usize,
    ) -> Reply<'a, TakenLetters>;

    /// Removes letters that are stored elsewhere: how many were there. One that nobody of the takers'
    /// group has taken stays.
    fn settle_letters<'a>(
        &'a self,
        queue: &'a Queue,
        by: &'a Taker,
        ids: &'a [EntryId],
    ) -> Reply<'a, usize>;

    /// Puts jobs into the lane, each unless its token was used within `keep`: an answer for each.
    /// Where the stream has no such group, nothing is changed.
    fn put_back<'a>(
        &'a self,
        queue: &'a Queue,
        jobs: &'a [ReturningJob],
        keep: Duration,
    ) -> BoxFuture<'a, Vec<Returned>>;
}

const GROUP: &str = "archive";
const LEASE: Duration = Duration::from_secs(30);
/// How long a letter of a loss waits for the job that it stands for.
pub(crate) const WITHHELD: Duration = Duration::from_secs(60 * 60);
/// How many leases a taker's name is kept that has nothing taken.
pub(crate) const LEASES_KEPT: u32 = 20;
