//! What an operator does to a stream, its groups and their pending entries. Every step is one
//! script: nothing can come between its look and its change.

use std::time::Duration;

use crate::model::entry::{EntryId, Inlet};
use crate::model::name::{ConsumerName, StreamName};
use crate::store::{Queue, Reply};

/// What becomes of work that is not done yet: undelivered, pending, or set aside.
///
/// Closed on purpose: there is no third way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unfinished {
    /// It stays: nothing is done that would lose any of it (the default).
    #[default]
    Keep,
    /// It may be lost. There is no way back.
    Lose,
}

/// Which entries of a stream may go. Closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All but this many of the newest.
    Length(u64),
    /// Those older than this, by the server's clock.
    Age(Duration),
    /// Those before this one.
    Before(EntryId),
}

/// How a stream is to be shortened. Closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Which entries may go.
    pub cut: Cut,
    /// To the entry, or in whole nodes of about a hundred, which is much cheaper.
    pub exact: bool,
    /// What becomes of entries that some group has not done.
    pub unfinished: Unfinished,
}

/// What trimming did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trimmed {
    /// Entries that went.
    pub removed: u64,
    /// Entries that stayed.
    pub length: u64,
    /// The group that still needs an entry that would have gone otherwise, and the first that it
    /// needs.
    pub blocked_by: Option<(String, EntryId)>,
    /// Whether there is more to remove: one call removes at most 100,000 entries, or 1,000 where
    /// each has to be looked at.
    pub more: bool,
}

/// Which pending entries are to be moved. Closed on purpose.
#[derive(Clone, Copy, Debug)]
pub enum Selected<'a> {
    /// These.
    Ids(&'a [EntryId]),
    /// A page of one consumer's, after an id.
    Of(&'a ConsumerName, EntryId),
}

/// Where pending entries go. Closed on purpose.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// To whom; none leaves them with their consumers.
    pub consumer: Option<&'a ConsumerName>,
    /// Whether they look abandoned afterwards, so that the next sweep takes them up. Otherwise
    /// their idle time stays as it is.
    pub abandoned: bool,
}

/// What became of entries that were to be moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MovedPage {
    /// Entries that were moved.
    pub moved: Vec<EntryId>,
    /// Entries without a payload, which are dead letters now.
    pub trimmed: Vec<EntryId>,
    /// Entries that are not pending.
    pub missing: Vec<EntryId>,
    /// Entries without a payload that stay as they are, because no dead letter can be stored.
    pub left: Vec<EntryId>,
    /// The last pending entry that was looked at; none at the end.
    pub next: Option<EntryId>,
}

/// What a step found that some work forbids. Closed on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permitted {
    /// It was carried out.
    Done,
    /// It was not carried out, and nothing was changed.
    Refused(Obstacle),
}

/// Why a step would lose or repeat work. Closed on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Work is not done.
    Unfinished {
        /// The group.
        group: String,
        /// Entries delivered and not acknowledged, the lane's included.
        pending: u64,
        /// Whether entries would never be delivered.
        undelivered: bool,
        /// Jobs set aside or waiting in the lane.
        retrying: u64,
        /// Dead letters, where the step would delete them.
        dead_letters: u64,
    },
    /// A process works for the group, and would make it again.
    Alive {
        /// The group.
        group: String,
        /// The process' consumer.
        consumer: String,
    },
}

/// What can be done.
pub trait Operate: Send + Sync {
    /// Shortens a stream.
    fn trim<'a>(&'a self, stream: &'a StreamName, trim: Trim) -> Reply<'a, Trimmed>;

    /// Moves pending entries: no delivery count is raised, and none is lost. Processes of this
    /// crate look for work at once.
    fn move_pending<'a>(
        &'a self,
        queue: &'a Queue,
        inlet: Inlet,
        selected: Selected<'a>,
        destination: Destination<'a>,
    ) -> Reply<'a, MovedPage>;

    /// Asks every process of the group to look for abandoned entries at once.
    fn call_sweep<'a>(&'a self, queue: &'a Queue) -> Reply<'a, ()>;

    /// Makes jobs that are set aside due at once: how many of them were there and not due.
    fn run_now<'a>(&'a self, queue: &'a Queue, names: &'a [&'a str]) -> Reply<'a, usize>;

    /// Lets a group go on after another entry: the beginning is before the first, none is the end
    /// of the stream.
    fn move_group<'a>(
        &'a self,
        queue: &'a Queue,
        after: Option<EntryId>,
        unfinished: Unfinished,
    ) -> Reply<'a, Permitted>;

    /// Removes a group with everything beside it but its dead letters.
    fn destroy_group<'a>(
        &'a self,
        queue: &'a Queue,
        unfinished: Unfinished,
    ) -> Reply<'a, Permitted>;

    /// Deletes the oldest dead letters of a group until about so many are left: how many went.
    fn trim_dead_letters<'a>(&'a self, queue: &'a Queue, keep: u64) -> Reply<'a, u64>;

    /// Deletes a stream that has no groups any more, and the dead letters of these. True if the
    /// stream was there.
    fn delete_stream<'a>(
        &'a self,
        stream: &'a StreamName,
        dead_letters_of: &'a [crate::model::name::GroupName],
    ) -> Reply<'a, bool>;
}

/// How long after its last beat a consumer counts as alive. A process beats every ten seconds at
/// least, a fifth of jitter included.
pub(crate) const ALIVE: Duration = Duration::from_secs(15);
