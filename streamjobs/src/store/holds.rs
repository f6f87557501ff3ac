//! Holds: places in a limit that counts the jobs of all processes. A hold belongs to a job, never to a
//! process, and ends with it.

use std::time::Duration;

use async_trait::async_trait;

use super::types::{Delivery, Inlet, Queue, Result, ServerTime};
use crate::model::entry::EntryId;
#[cfg(feature = "testing")]
pub use crate::model::limit::HoldScope;
pub use crate::model::limit::{HoldRule, SetLimit};
use crate::model::name::ConsumerName;

/// What a take has left unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Drained,
    /// There may be more, which another take can read.
    More,
    /// There is more, which the limit does not admit now.
    Full,
}

/// What a take has found.
#[derive(Debug)]
pub struct Taken {
    /// What is left unread.
    pub left: Left,
    /// How many jobs were put into lines.
    pub parked: usize,
    /// Entries that are admitted. Each has a hold, unless it has no key.
    pub deliveries: Vec<Delivery>,
}

/// What the end of jobs has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// How many of the entries were pending.
    pub acknowledged: usize,
    /// How many jobs moved from a line to the lane.
    pub fed: usize,
}

/// Where a sweep continues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SweepAt {
    /// At the beginning.
    #[default]
    Begin,
    /// Where the last call ended.
    Cursor(u64),
    /// Nowhere: everything has been examined.
    End,
}

/// Where a sweep of two sets continues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepCursors {
    /// Among the holds.
    pub holds: SweepAt,
    /// Among the keys that have a line.
    pub lines: SweepAt,
}

impl SweepCursors {
    /// Everything has been examined.
    pub const END: Self = Self { holds: SweepAt::End, lines: SweepAt::End };
}

/// A search for holds without a job, and for lines that nothing else moves on.
#[derive(Clone, Copy, Debug)]
pub struct HoldSweep {
    /// The limit of this process. Without one, all jobs of lines move on, unless a live process has a limit.
    pub rule: Option<HoldRule>,
    /// Where to continue.
    pub cursors: SweepCursors,
}

/// What a sweep has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweptHolds {
    /// Where the next sweep continues.
    pub cursors: SweepCursors,
    /// How many holds were ended because their job is gone.
    pub ended: usize,
    /// How many jobs moved from lines to the lane.
    pub fed: usize,
    /// How many jobs are in lines.
    pub parked: u64,
    /// The limits that a live process of the group states, if they differ from those of this process; `none` if that
    /// process has no limits or states none.
    pub others: Option<String>,
}

/// Who has the place for which the longest line of a group waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFacts {
    /// The server's clock.
    pub now: ServerTime,
    /// The key of the line.
    pub key: String,
    /// How many jobs wait in it.
    pub jobs: u64,
    /// The oldest place of the key, among those that the step examined.
    pub place: Option<HeldPlace>,
    /// How many places of the group the step examined.
    pub looked: u64,
    /// Whether the step examined all places of the group.
    pub complete: bool,
}

/// A place in a limit, and its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPlace {
    /// Where the job is, or was before it failed.
    pub inlet: Inlet,
    /// The id of its entry in that inlet.
    pub entry: EntryId,
    /// The event id; `None` if the entry has none, or is gone.
    pub event_id: Option<String>,
    /// The consumer that has the entry pending, empty if it is released; `None` if it is not pending.
    pub consumer: Option<String>,
    /// For how long that consumer has not renewed it.
    pub idle: Option<Duration>,
    /// When it is due, by the server's clock in milliseconds, if it waits for a retry.
    pub due: Option<u64>,
}

/// The steps of a group whose jobs are limited over all processes.
#[async_trait]
pub trait Holds: Send + Sync {
    /// Reads entries that the limit admits, at most `count`. Other entries go to the end of their key's line,
    /// or stay unread. Reading and deciding are one step.
    async fn take(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        inlet: Inlet,
        count: usize,
        rule: HoldRule,
    ) -> Result<Taken>;

    /// Acknowledges entries of any owner, ends their holds, and lets the jobs that waited for them move on.
    /// For an entry that is not pending any more, because its job is a dead letter or waits for its retry, it
    /// only ends the hold.
    async fn finish(
        &self,
        queue: &Queue,
        rule: HoldRule,
        places: &[(Inlet, EntryId)],
    ) -> Result<Finished>;

    /// Ends holds whose job is gone, page by page, and moves on those lines that nothing else moves on.
    async fn sweep_holds(&self, queue: &Queue, sweep: HoldSweep) -> Result<SweptHolds>;

    /// Sets the number of the group's limit for every process; with `None`, the number of the code applies again. It
    /// applies to the next step of each process whose code has the same option. Jobs that have a place keep it, and
    /// jobs in lines move on with the next end or sweep. The time in `set` is not used: the store notes its own.
    /// Returns whether that changed the number.
    async fn set_limit(&self, queue: &Queue, set: Option<&SetLimit>) -> Result<bool>;

    /// Returns who has the place for which the longest line waits. Examines about `places` places of the
    /// group. `None` if no job waits in a line.
    async fn line_holder(&self, queue: &Queue, places: usize) -> Result<Option<LineFacts>>;
}

/// The place that the name of a hold's field stands for.
pub(crate) fn place_of(text: &str) -> Option<(Inlet, EntryId)> {
    let (source, id) = text.split_once(':')?;
    let inlet = match source {
        "s" => Inlet::STREAM,
        "l" => Inlet::LANE,
        _ => return None,
    };
    Some((inlet, id.parse().ok()?))
}
