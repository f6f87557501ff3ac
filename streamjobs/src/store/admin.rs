//! What an operator does to a stream, its groups and their pending entries. Each step checks and changes
//! in one script.

use std::time::Duration;

use async_trait::async_trait;

use super::types::{Inlet, Queue, Result};
use crate::model::entry::EntryId;
use crate::model::name::{ConsumerName, GroupName, StreamName};

/// What a step does about unfinished work: entries that are undelivered, pending, or waiting for retry.
///
/// Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unfinished {
    /// The step keeps it: a step that would lose unfinished work is refused (the default).
    #[default]
    Keep,
    /// The step may lose it, irrevocably.
    Lose,
}

/// Which entries of a stream may be removed. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All but this many of the newest entries.
    Length(u64),
    /// Entries older than this, by the server's clock.
    Age(Duration),
    /// Entries before this one.
    Before(EntryId),
}

/// How to trim a stream. Exhaustive: adding a field is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Which entries may be removed.
    pub cut: Cut,
    /// Whether to trim exactly. Otherwise only whole nodes of about a hundred entries are removed, which is much
    /// cheaper.
    pub exact: bool,
    /// What happens to entries that a group has not finished.
    pub unfinished: Unfinished,
}

/// What trimming did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trimmed {
    /// Entries that were removed.
    pub removed: u64,
    /// Entries that remain.
    pub length: u64,
    /// The group that still needs an entry which the trim would have removed, and the first entry that it
    /// needs.
    pub blocked_by: Option<(String, EntryId)>,
    /// Whether there is more to remove: one call removes at most 100,000 entries, or 1,000 if each has to
    /// be examined.
    pub more: bool,
}

/// Which pending entries to move. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug)]
pub enum Selected<'a> {
    /// These entries.
    Ids(&'a [EntryId]),
    /// One page of a consumer's pending entries, after an id.
    Of(&'a ConsumerName, EntryId),
}

/// Where to move pending entries. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// To this consumer; their idle times begin anew.
    Consumer(&'a ConsumerName),
    /// Nowhere: they are released, and the next claim takes them.
    Released,
}

/// The result of moving pending entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MovedPage {
    /// Entries that were moved.
    pub moved: Vec<EntryId>,
    /// Entries whose payload was trimmed; they are dead letters now.
    pub trimmed: Vec<EntryId>,
    /// Entries that are not pending.
    pub missing: Vec<EntryId>,
    /// Entries whose payload was trimmed and that stay pending, because no dead letter can be stored.
    pub unstored: Vec<EntryId>,
    /// The last pending entry that was examined; `None` at the end.
    pub next: Option<EntryId>,
}

/// Whether a step was permitted. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permitted {
    /// It was carried out.
    Done,
    /// It was refused; nothing was changed.
    Refused(Obstacle),
}

/// Why a step would lose or repeat work. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// There is unfinished work.
    Unfinished {
        /// The group.
        group: String,
        /// Pending entries, the lane's included.
        pending: u64,
        /// Whether there are entries that would never be delivered.
        undelivered: bool,
        /// Jobs that wait for retry or in the lane.
        retrying: u64,
        /// Dead letters, if the step would delete them.
        dead_letters: u64,
    },
    /// A process works for the group and would recreate it.
    Alive {
        /// The group.
        group: String,
        /// The consumer of that process.
        consumer: String,
    },
}

impl Obstacle {
    /// The obstacle of a group whose only unfinished work is undelivered entries.
    pub(crate) fn undelivered(queue: &Queue) -> Self {
        let group = queue.group.to_string();
        let (pending, retrying, dead_letters) = (0, 0, 0);
        Self::Unfinished { group, pending, undelivered: true, retrying, dead_letters }
    }
}

/// The steps of operators.
#[async_trait]
pub trait Admin: Send + Sync {
    /// Shortens a stream.
    async fn trim(&self, stream: &StreamName, trim: Trim) -> Result<Trimmed>;

    /// Tells what an exact trim would do, without changing anything. Examines at most 10,000 entries or 4
    /// MiB.
    async fn check_trim(&self, stream: &StreamName, trim: Trim) -> Result<Trimmed>;

    /// Moves pending entries. They keep their delivery counts, and none is lost. Afterwards, processes of this crate
    /// check for idle entries at once.
    async fn move_pending(
        &self,
        queue: &Queue,
        inlet: Inlet,
        selected: Selected<'_>,
        destination: Destination<'_>,
    ) -> Result<MovedPage>;

    /// Asks every process of the group to claim abandoned entries at once.
    async fn request_claim(&self, queue: &Queue) -> Result<()>;

    /// Makes jobs in the retry set due at once. Returns how many of them were there and not due yet.
    async fn run_now(&self, queue: &Queue, names: &[&str]) -> Result<usize>;

    /// Pauses the group in every process, or resumes it. Returns whether that changed anything. Each
    /// process follows at its next [`promote`](super::GroupUpkeep::promote).
    async fn set_paused(&self, queue: &Queue, paused: bool) -> Result<bool>;

    /// Moves the group's cursor to an entry, so that it continues after it; `None` is the end of the
    /// stream.
    async fn move_group(
        &self,
        queue: &Queue,
        after: Option<EntryId>,
        unfinished: Unfinished,
    ) -> Result<Permitted>;

    /// Whether [`move_group`](Self::move_group) would be permitted. Nothing is changed.
    async fn check_move_group(
        &self,
        queue: &Queue,
        after: Option<EntryId>,
        unfinished: Unfinished,
    ) -> Result<Permitted>;

    /// Removes a group and its keys, except its dead letters.
    async fn destroy_group(&self, queue: &Queue, unfinished: Unfinished) -> Result<Permitted>;

    /// Whether [`destroy_group`](Self::destroy_group) would be permitted. Nothing is changed.
    async fn check_destroy_group(&self, queue: &Queue, unfinished: Unfinished)
    -> Result<Permitted>;

    /// Deletes a stream, and the dead letters of these groups, without checking whether it still has
    /// groups. Returns whether the stream existed.
    async fn delete_stream(
        &self,
        stream: &StreamName,
        dead_letters_of: &[GroupName],
    ) -> Result<bool>;

    /// Forgets how many partitions a stream has, once all of them are deleted.
    async fn forget_partitions(&self, stream: &StreamName) -> Result<()>;
}

/// How long after its last heartbeat a consumer counts as alive at least. A consumer that announces heartbeats at
/// longer intervals counts as alive until it has missed two of them.
pub(crate) const ALIVE: Duration = Duration::from_secs(15);
