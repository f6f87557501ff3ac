//! Rates of groups: how many jobs may start, by the server's clock, for all processes.

use std::time::Duration;

use async_trait::async_trait;

use super::types::{Queue, Result};
pub(crate) use crate::model::outcome::LIMITED_MAX;
pub use crate::model::rate::{Rate, SetRate};

/// What a process asks for.
#[derive(Clone, Copy, Debug)]
pub struct StartsAsked {
    /// The rate of its code; `None` if that has none, and only an operator has set one.
    pub rate: Option<Rate>,
    /// How many starts it could use now. It is granted no more.
    pub wanted: u32,
    /// What the first answer said of when it joined the group; 0 for the first.
    pub joined: u64,
}

/// Starts that were granted, at times of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    /// How many.
    pub count: u32,
    /// When the first may be, in microseconds from the answer on; not above zero for at once.
    pub offset: i64,
    /// How much later each of the others may be. Zero without a rate: then all of them at once, and more.
    pub interval: Duration,
    /// For how long after its time a start may still be used.
    pub slack: Duration,
    /// The number that stands for them, to give them back with.
    pub tat: u64,
}

/// The answer to a process that asks for starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartsGranted {
    /// The starts.
    pub starts: Starts,
    /// Without any, how long to wait until it makes sense to ask again.
    pub wait: Duration,
    /// When the process joined the group, in microseconds of the server's clock.
    pub joined: u64,
}

/// The rate of a group, as the server knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateFacts {
    /// The rate of the code that holds: of the process that started last. `None` if none has asked lately.
    pub declared: Option<Rate>,
    /// What an operator has set in its place.
    pub set: Option<SetRate>,
    /// How long until a start may be that is not granted yet; zero for at once.
    pub next: Duration,
    /// For how long from now on the starts are worth that were granted; zero if the burst is full again.
    pub ahead: Duration,
    /// How long the group still waits because a job has met a limit of the other side.
    pub limited: Option<Duration>,
}

/// The steps of rates. A group on a stream with partitions has one rate for all of them: its queue is the one
/// on the first partition.
#[async_trait]
pub trait Rates: Send + Sync {
    /// Grants starts, at most half a second ahead of their times: in any window, those of all processes are at
    /// most what the rate allows and one burst. What an operator has set precedes the rate of the code, of
    /// which that of the process that joined last holds as long as it has asked within a minute. While the
    /// group is [limited](Self::limit_group), none is granted.
    async fn reserve_starts(&self, queue: &Queue, asked: StartsAsked) -> Result<StartsGranted>;

    /// Gives back the last `count` of these starts, which were not used. True if they can be granted again:
    /// nothing was granted after them.
    async fn return_starts(&self, queue: &Queue, starts: Starts, count: u32) -> Result<bool>;

    /// No job of the group starts for so long, at most a day, or longer if it waits longer already: how long it
    /// waits now. Every process learns that with its next promotion, and with the next reservation.
    async fn limit_group(&self, queue: &Queue, delay: Duration) -> Result<Duration>;

    /// Sets the rate of a group for every process, or `None` for that of the code. Ends the wait of
    /// [`limit_group`](Self::limit_group). Whether that changed anything.
    async fn set_rate(&self, queue: &Queue, rate: Option<SetRate>) -> Result<bool>;
}

#[cfg(any(test, feature = "testing"))]
/// For how long the rate of a process holds that has not asked again, and two intervals more.
pub(crate) const DECLARED_MICROS: u64 = 60_000_000;
