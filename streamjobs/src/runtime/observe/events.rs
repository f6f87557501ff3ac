//! Events of the runtime: each thing that is counted, measured, watched or logged.
//!
//! Each event is a variant here, and a line in each sink that takes it: `tally` for the counters,
//! `metrics`, `queue_monitor` for alerts, and `log`.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::insight::alert::Alert;
use crate::insight::metrics::{Failure, Finish};
use crate::model::entry::EntryId;
use crate::model::policy::Reason;
use crate::store::StoreError;

/// What happened to one job.
#[derive(Clone, Copy, Debug)]
pub(crate) enum JobEvent<'a> {
    /// The handler returned successfully.
    Succeeded,
    /// A guard found that the job was done before.
    Duplicate,
    /// The attempt ended in an error, a panic or a timeout.
    Failed {
        event_id: &'a str,
        attempt: u32,
        failure: Failure,
    },
    /// The handler asked to be tried again later.
    Snoozed {
        event_id: &'a str,
        attempt: u32,
        /// What an operator has to repair before the job can run.
        blocked: Option<&'a str>,
    },
    RetryScheduled {
        attempt: FailedAttempt<'a>,
        /// Whether a failure was counted; otherwise the job was snoozed.
        counted: bool,
        delay: Duration,
        error: &'a str,
    },
    /// The error is the handler's own text, as stored in the dead letter.
    DeadLettered {
        attempt: FailedAttempt<'a>,
        reason: Reason,
        error: Option<&'a str>,
    },
    /// The entry was delivered again while it was in flight here.
    DeliveredAgain,
    LeaseLost {
        why: &'static str,
    },
    /// A step was refused because the attempt does not own the entry any more. This ends the job here.
    RefusedLate {
        step: &'static str,
    },
    /// The payload was trimmed while the handler was running, and a dead letter was stored.
    TrimmedInFlight {
        dead_letter: EntryId,
    },
    /// Another client removed the entry from the pending list while its job had the lease, by deleting
    /// its consumer or by hand. The job continues here.
    RemovedInFlight,
    Released,
    /// The job was cancelled while it ran: its attempt was asked to stop.
    Cancelled,
    /// The group has no handler for the event type.
    Unhandled {
        event_type: &'a str,
    },
    /// The job is done, and its result could not be kept.
    ResultLost {
        event_id: &'a str,
        why: &'a str,
    },
    /// The job ended here without a verdict of its own.
    Ended(Finish),
    /// The job ended by a fault of this crate.
    Broken {
        panic: &'a str,
    },
}

/// The attempt that led to a retry or a dead letter, as log lines show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailedAttempt<'a> {
    pub(crate) event_id: &'a str,
    pub(crate) event_type: &'a str,
    /// The handler's place in the source.
    pub(crate) handler: &'a str,
    /// The number of counted failures, the last one included.
    pub(crate) number: u32,
    /// How many attempts the job has; zero without a handler.
    pub(crate) number_max: u32,
}

/// What happened to a queue, or to several of its jobs at once. An event with a count of zero did not
/// happen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum QueueEvent<'a> {
    /// Entries were delivered to this process, claims included.
    Delivered(usize),
    /// The server confirmed acknowledgements.
    Acknowledged(usize),
    /// Acknowledged entries were not pending any more.
    AcknowledgedLate(usize),
    /// The reaper claimed idle entries.
    Claimed(usize),
    /// The reaper claimed entries that other consumers had released.
    ClaimedReleased(usize),
    /// Entries of this consumer whose delivery had been lost were recovered.
    Recovered(usize),
    /// Payloads were trimmed before the jobs were done, and dead letters were stored.
    Trimmed(usize),
    /// Entries were trimmed before they were delivered.
    TrimmedUnread(u64),
    /// Payloads were trimmed, and no dead letter could be stored.
    PayloadsUnstored(usize),
    GroupRecreated,
    /// A group was created at the beginning of the whole stream, which already has entries.
    OldEntries {
        stream: &'a str,
        entries: u64,
    },
    /// Jobs that wait for a retry got back their place in the retry set, which another client or an
    /// eviction had deleted.
    RetriesRestored(usize),
    /// Jobs cannot get their place in the retry set back, because the user lacks the right to look for
    /// them.
    RetriesStranded(usize),
    /// Jobs wait for a place in the group's limit.
    Parked(usize),
    /// Places in the group's limit whose job was gone were freed.
    PlacesFreed(usize),
    /// A live process of the group has other limits.
    LimitsDiffer {
        others: &'a str,
    },
    /// An operator has changed or reset the number of the group's limit.
    LimitChanged {
        limit: NonZeroU32,
        in_code: NonZeroU32,
    },
    /// Scheduled events were due and entered their stream.
    ScheduledEntered(usize),
    /// Scheduled events have lost their records to another client or an eviction, and were removed.
    ScheduledLost(usize),
    /// Scheduled events got back their place, which another client or an eviction had deleted.
    ScheduledRestored(usize),
    /// Scheduled events cannot get their place back, because the user lacks the right to look for them.
    ScheduledStranded(usize),
    /// Something happened to schedules of the stream.
    Schedule(ScheduleEvent<'a>),
    /// A consumer took the entry of a running job although its lease had not ended.
    ClaimedEarly {
        consumer: &'a str,
    },
    ClaimRefused {
        why: &'static str,
    },
    StoreFailed {
        operation: &'static str,
        error: &'a StoreError,
    },
    Reconnected,
    /// The server did not answer a read within the block time and its margin.
    ReadTimedOut,
    EntriesTrimmed(u64),
    DeadLettersTrimmed(u64),
    /// Dead consumers were removed from the group.
    ConsumersRemoved(usize),
    /// The reader waits until the next job of the group may start.
    StartAwaited,
    /// A job has met a limit of the service that it calls: the group waits this long.
    Limited {
        delay: Duration,
    },
    /// A pause of the group began or ended, in this process or in every process.
    PauseChanged {
        paused: bool,
        scope: &'static str,
    },
    /// An event type for which this process has no handler was delivered here for the first time.
    TypeWithoutHandler {
        event_type: &'a str,
        fate: &'static str,
        /// How long its jobs wait unless a process declares the type.
        until_dead: Option<Duration>,
    },
    /// A loop ended by a panic.
    LoopEnded {
        name: &'static str,
        panic: &'a str,
    },
    Alerted(&'a Alert),
}

/// What happened to schedules. An event with a count of zero did not happen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ScheduleEvent<'a> {
    /// Occurrences of schedules were published.
    Fired(usize),
    /// Occurrences of schedules were missed, and are not published.
    Missed(u64),
    /// Occurrences of schedules are not published, because the job of the last published occurrence
    /// has not ended.
    Skipped(u64),
    /// Schedules have lost their definitions to another client or an eviction.
    Lost(usize),
    /// Schedules that no process has declared for long were removed.
    Forgotten(usize),
    /// The definition of a schedule of the code has been stored.
    Declared { schedule: &'a str, when: &'a str },
    /// The next time of a stored schedule had been deleted or evicted, and was set again.
    Restored { schedule: &'a str },
    /// This process does not fire a schedule that it knows of. Reported once.
    NotFired { schedule: &'a str, why: &'static str },
}
