//! Rates of groups: how many jobs may start, by the server's clock, for all processes.

use std::time::Duration;

use async_trait::async_trait;

use super::types::{Queue, Result};
pub(crate) use crate::model::outcome::LIMITED_MAX;
pub use crate::model::rate::{Rate, SetRate};

/// What a process asks for.
#[derive(Clone, Copy, Debug)]
pub struct StartsAsked {
    /// The rate of its code; `None` if the code has none, and the group has only the rate that an operator has set.
    pub rate: Option<Rate>,
    /// How many starts it could use now. It gets at most this many.
    pub wanted: u32,
    /// When the process joined the group, from the answer to its first request; 0 in the first request.
    pub joined: u64,
}

/// Starts that were granted, each at a time of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    /// How many starts.
    pub count: u32,
    /// When the first start is allowed, in microseconds from the answer on; zero or less means at once.
    pub offset: i64,
    /// The time between two of these starts. Zero if the group has no rate; in that case all these jobs, and more, may
    /// start at once.
    pub interval: Duration,
    /// For how long after its time a start may still be used.
    pub slack: Duration,
    /// The number that identifies these starts when they are returned.
    pub tat: u64,
}

/// The answer to a process that asks for starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartsGranted {
    /// The starts.
    pub starts: Starts,
    /// If no start was granted: how long to wait before asking again.
    pub wait: Duration,
    /// Whether that wait is the one of [`limit_group`](Rates::limit_group), which an operator can end.
    pub is_limited: bool,
    /// When the process joined the group, in microseconds of the server's clock.
    pub joined: u64,
}

/// The rate of a group, as the server knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateFacts {
    /// The rate in force from the code: that of the process that started last. `None` if no process has asked lately.
    pub declared: Option<Rate>,
    /// The rate that an operator has set instead.
    pub set: Option<SetRate>,
    /// How long until the next start that is not granted yet; zero if it is allowed now.
    pub next: Duration,
    /// How far into the future the granted starts reach, counted from now; zero if the full burst is available
    /// again.
    pub ahead: Duration,
    /// For how much longer no job of the group starts, because a job has met a limit of the service that it
    /// calls.
    pub limited: Option<Duration>,
}

/// The steps of rates. A group on a stream with partitions has one rate for all of them, kept with its queue on
/// the first partition.
#[async_trait]
pub trait Rates: Send + Sync {
    /// Grants starts, at most half a second ahead of their times. In any window, the starts of all processes
    /// are at most what the rate allows plus one burst. A rate that an operator has set takes precedence over
    /// rates from the code; of those, the rate of the process that joined last is in force, as long as that
    /// process was granted starts within a minute. While the group is [limited](Self::limit_group), no start is
    /// granted.
    async fn reserve_starts(&self, queue: &Queue, asked: StartsAsked) -> Result<StartsGranted>;

    /// Returns the last `count` of these starts, which were not used. True if they can be granted again because
    /// nothing was granted after them.
    async fn return_starts(&self, queue: &Queue, starts: Starts, count: u32) -> Result<bool>;

    /// Lets no job of the group start for this long, at most a day, or for longer if the group already waits longer.
    /// Returns how long it waits now. Every process learns this with its next promotion, and with its next reservation.
    async fn limit_group(&self, queue: &Queue, delay: Duration) -> Result<Duration>;

    /// Sets the rate of a group for every process; with `None`, the rate of the code is in force again. Ends
    /// the wait of [`limit_group`](Self::limit_group). Returns whether that changed anything.
    async fn set_rate(&self, queue: &Queue, rate: Option<SetRate>) -> Result<bool>;
}

#[cfg(any(test, feature = "testing"))]
/// For how long, plus two intervals, the rate of a process stays in force after it last asked.
pub(crate) const DECLARED_MICROS: u64 = 60_000_000;
