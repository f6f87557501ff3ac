//! Holds: places in a limit that counts the jobs of all processes. A hold belongs to a job, never to a
//! process, and ends with it.

use std::time::Duration;

use async_trait::async_trait;

use super::types::{Delivery, Inlet, Queue, Result, ServerTime};
use crate::model::entry::EntryId;
pub use crate::model::limit::HoldRule;
#[cfg(feature = "testing")]
pub use crate::model::limit::HoldScope;
use crate::model::name::ConsumerName;

/// What a take has left unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Drained,
    /// There may be more, which another take looks at.
    More,
    /// There is more that the limit does not admit now.
    Full,
}

/// What a take has found.
#[derive(Debug)]
pub struct Taken {
    /// What is left.
    pub left: Left,
    /// How many jobs were put into lines.
    pub parked: usize,
    /// Entries that are admitted, each with a hold unless it has no key.
    pub deliveries: Vec<Delivery>,
}

/// What the end of jobs has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// How many of the entries were pending.
    pub acknowledged: usize,
    /// How many jobs went from a line to the lane.
    pub fed: usize,
}

/// Where a sweep goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SweepAt {
    /// At the beginning.
    #[default]
    Begin,
    /// Where the last call has ended.
    Cursor(u64),
    /// Everything has been looked at.
    End,
}

/// Where a sweep goes on, among two things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepCursors {
    /// Among the holds.
    pub holds: SweepAt,
    /// Among the keys that have a line.
    pub lines: SweepAt,
}

impl SweepCursors {
    /// Everything has been looked at.
    pub const END: Self = Self { holds: SweepAt::End, lines: SweepAt::End };
}

/// A look for holds without a job, and for lines that nothing lets go on.
#[derive(Clone, Copy, Debug)]
pub struct HoldSweep {
    /// The limit of this process; without one, all jobs of lines go on unless a live process has one.
    pub rule: Option<HoldRule>,
    /// Where to go on.
    pub cursors: SweepCursors,
}

/// What a sweep has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweptHolds {
    /// Where the next one goes on.
    pub cursors: SweepCursors,
    /// How many holds were ended because their job is gone.
    pub ended: usize,
    /// How many jobs went from lines to the lane.
    pub fed: usize,
    /// How many jobs are in lines.
    pub parked: u64,
    /// What a live process of the group says of its limits, if that is something else; `none` if it has
    /// none or does not say.
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
    /// The oldest place of the key among those that were looked at.
    pub place: Option<HeldPlace>,
    /// At how many places of the group the step has looked.
    pub looked: u64,
    /// Whether these are all of its places.
    pub complete: bool,
}

/// A place in a limit, and its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPlace {
    /// Where the job is, or was before it failed.
    pub inlet: Inlet,
    /// Its entry there.
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
    /// Reads entries that the limit admits, at most `count`. Others go to the end of their key's line,
    /// or stay unread. Reading and deciding are one step.
    async fn take(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        inlet: Inlet,
        count: usize,
        rule: HoldRule,
    ) -> Result<Taken>;

    /// Acknowledges entries of any owner, ends their holds, and lets jobs go on that waited for them. An
    /// entry that is not pending any more, because its job is a dead letter or waits for its retry, only
    /// gives its hold back.
    async fn finish(
        &self,
        queue: &Queue,
        rule: HoldRule,
        places: &[(Inlet, EntryId)],
    ) -> Result<Finished>;

    /// Ends holds whose job is gone, page by page, and lets lines go on that nothing else lets go on.
    async fn sweep_holds(&self, queue: &Queue, sweep: HoldSweep) -> Result<SweptHolds>;

    /// Who has the place for which the longest line waits, looked for among about so many places of the group;
    /// `None` if no job waits in a line.
    async fn line_holder(&self, queue: &Queue, places: usize) -> Result<Option<LineFacts>>;
}

/// The place that is named by what a hold's field is called.
pub(crate) fn place_of(text: &str) -> Option<(Inlet, EntryId)> {
    let (source, id) = text.split_once(':')?;
    let inlet = match source {
        "s" => Inlet::STREAM,
        "l" => Inlet::LANE,
        _ => return None,
    };
    Some((inlet, id.parse().ok()?))
}
