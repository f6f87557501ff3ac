//! Stores: the steps that the runtime and the API take on a stream, as traits, and their two
//! implementations.
//!
//! `redis` works on a server; `memory` works in this process, for tests under a virtual clock. The conformance suite
//! of the tests checks both. Each trait has one file or folder here, in `redis` and in `memory`. A store makes no
//! decisions; a step that changes a pending entry first checks its owner and its delivery count.

pub mod admin;
pub mod cancels;
pub mod consume;
pub mod dead_letters;
pub mod done_jobs;
pub mod group_upkeep;
pub mod holds;
pub mod inspect;
pub(crate) mod lacking;
pub mod marks;
pub mod progress;
pub mod publish;
pub mod rates;
pub mod redis;
pub mod results;
pub mod schedule;
pub mod schedules;
pub mod server_info;
pub mod trends;
pub mod types;
pub mod unique;

#[cfg(any(test, feature = "testing"))]
pub mod memory;
#[cfg(any(test, feature = "testing"))]
pub mod raw_access;

use std::fmt;
use std::sync::Arc;

pub use self::admin::Admin;
pub use self::cancels::{CancelMark, CancelMarks, Cancels};
pub use self::consume::{
    ClaimedPage, Consume, Idle, IdleClaim, NewRetry, ReadReply, ReadRequest, ReaderSetup, Renewed,
    StreamReader,
};
pub use self::dead_letters::DeadLetters;
pub use self::done_jobs::DoneJobs;
pub use self::group_upkeep::{
    BeginAt, GroupBirth, GroupMade, GroupUpkeep, Prepared, Promoted, Recorded, TypeSight,
};
pub(crate) use self::holds::place_of;
pub use self::holds::{
    Finished, HeldPlace, HoldSweep, Holds, Left, LineFacts, SweepAt, SweepCursors, SweptHolds,
    Taken,
};
pub use self::inspect::Inspect;
pub use self::marks::Marks;
pub use self::progress::JobProgress;
pub use self::publish::{Appended, Appender, NewEntry, Publish};
pub use self::rates::{Rate, RateFacts, Rates, SetRate, Starts, StartsAsked, StartsGranted};
pub use self::results::{DeadSign, ResultFacts, ResultKept, Results, StoredResult};
pub use self::schedule::{
    Debounced, Due, Entered, NewDebounced, NewScheduled, Rescheduled, Schedule, ScheduledFrom,
    Scheduling, Upcoming,
};
pub use self::schedules::{
    Declared, DueSchedules, Fired, Firing, Mark, NewSchedule, NextTime, Occurrence, Ran,
    RemovedSchedule, ScheduleKind, Schedules, Score,
};
pub use self::server_info::ServerInfo;
pub use self::trends::Trends;
pub use self::types::{
    Delivery, FenceResult, Hold, Inlet, Queue, ServerTime, StandIn, StoreError, StoredDeadLetter,
};
pub use self::unique::{NewUnique, UniqueAck, UniqueAppend, UniqueHolder, UniqueLocks};

/// The streams of a server, or of a test.
pub trait Store:
    Publish
    + Consume
    + GroupUpkeep
    + DeadLetters
    + Inspect
    + Admin
    + Marks
    + Schedule
    + Cancels
    + Schedules
    + UniqueLocks
    + JobProgress
    + DoneJobs
    + Results
    + Holds
    + Rates
    + Trends
    + ServerInfo
    + fmt::Debug
    + Send
    + Sync
{
    /// A store on the same data with connections of its own, for use on another thread.
    fn fork(&self) -> Arc<dyn Store>;

    /// Like [`fork`](Self::fork), but for steps that carry payloads, so that other steps do not wait behind them. The
    /// more bytes a step moves, the longer it may take.
    fn fork_for_payloads(&self) -> Arc<dyn Store>;

    /// The clock of the streams in memory, which needs no request; `None` for a server's streams.
    fn virtual_now(&self) -> Option<ServerTime> {
        None
    }
}
