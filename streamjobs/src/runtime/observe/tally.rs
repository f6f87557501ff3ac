//! Counters: how often each thing happened.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::runtime::observe::{JobEvent, QueueEvent, ScheduleEvent};

macro_rules! counters {
    ($($(#[$docs:meta])* $name:ident: $count:ident,)*) => {
        /// How often each thing happened since the runtime started.
        ///
        /// Everything that is counted here also writes a log line when it happens, and moves a
        /// metric.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$docs])* pub $name: u64,)*
        }

        /// What is counted.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Count {
            $($count,)*
        }

        const COUNTS: usize = [$(Count::$count),*].len();

        impl Tally {
            pub(crate) fn counters(&self) -> Counters {
                Counters { $($name: self.get(Count::$count),)* }
            }
        }
    };
}

counters! {
    /// Entries delivered to this process, claims included.
    delivered: Delivered,
    /// Handlers that returned successfully, or whose guard found that the job was done before.
    succeeded: Succeeded,
    /// Attempts that ended in an error, a panic or a timeout.
    failed: Failed,
    /// Attempts that were snoozed: tried again later and not counted as failures.
    snoozed: Snoozed,
    /// Entries that the server confirmed as acknowledged.
    acknowledged: Acknowledged,
    /// Acknowledgements of entries that were not pending any more: they were late, or another consumer had
    /// claimed the entry.
    acknowledged_late: AcknowledgedLate,
    /// Retries that were scheduled, for failed jobs and for snoozed jobs.
    retried: Retried,
    /// Jobs stored as dead letters.
    dead_lettered: DeadLettered,
    /// Entries claimed from other consumers: idle entries of consumers that stopped renewing, and released
    /// entries.
    claimed: Claimed,
    /// Entries of this consumer whose delivery had been lost, and that were delivered again.
    recovered: Recovered,
    /// Deliveries of entries that were in flight in this process already.
    delivered_again: DeliveredAgain,
    /// Attempts that lost their lease.
    leases_lost: LeasesLost,
    /// Steps of an attempt that were refused because it did not own its entry any more.
    refused_late: RefusedLate,
    /// Entries that another client removed from the pending list while their jobs ran here: their
    /// consumer was deleted, or they were acknowledged by hand. The jobs continue.
    removed_in_flight: RemovedInFlight,
    /// Entries whose payload was trimmed before their jobs were done.
    trimmed: Trimmed,
    /// Entries that retention trimmed before they were delivered to this group. No dead letter is
    /// stored for them.
    ///
    /// If retention trims undelivered entries, and the group catches up again between two heartbeats (within a third
    /// of the lease, or two thirds for an idle group), the loss is not counted on servers that forget it at the next
    /// read.
    trimmed_unread: TrimmedUnread,
    /// Trimmed payloads that were left pending, because the key of the dead letters holds another
    /// type and no dead letter can be stored. Counted each time such a payload is found.
    left: PayloadsUnstored,
    /// Entries released uncounted.
    released: Released,
    /// Deliveries of event types for which this process has no handler. A job that is left for a
    /// process with a handler is counted each time it is offered here.
    unhandled: Unhandled,
    /// Jobs that are done, but whose results could not be kept: the server was out of memory, refused, or could
    /// not be reached.
    results_lost: ResultsLost,
    /// Groups that were lost and recreated.
    groups_recreated: GroupsRecreated,
    /// Jobs waiting for retry that had lost their place in the retry set and were scheduled again.
    retries_restored: RetriesRestored,
    /// Jobs waiting for retry that have lost their place in the retry set, and wait until the user has the right to
    /// run `HSCAN`. Counted once a minute while they wait.
    retries_stranded: RetriesStranded,
    /// Jobs that this process put into a line, because their group's limit over all processes admitted no
    /// more jobs of their key.
    parked: Parked,
    /// Places in a limit over all processes that this process freed because their job was gone, for example
    /// after its entry was acknowledged by hand.
    places_freed: PlacesFreed,
    /// Scheduled events that this process moved to their streams when they were due.
    scheduled_entered: ScheduledEntered,
    /// Scheduled events whose records were deleted or evicted. They are lost, and no group learns of them.
    scheduled_lost: ScheduledLost,
    /// Scheduled events that had lost their place in the order of due times, and have got it back.
    scheduled_restored: ScheduledRestored,
    /// Scheduled events that have lost their place, and wait until the user has the right to run `HSCAN`. Counted
    /// once a minute while they wait.
    scheduled_stranded: ScheduledStranded,
    /// Occurrences of schedules that this process published.
    schedules_fired: SchedulesFired,
    /// Occurrences of schedules that were missed and that this process decided not to publish.
    schedules_missed: SchedulesMissed,
    /// Occurrences of schedules that this process skipped, because the job of the last published occurrence had not
    /// ended.
    schedules_skipped: SchedulesSkipped,
    /// Schedules whose definitions were deleted or evicted, and that do not fire any more.
    schedules_lost: SchedulesLost,
    /// Schedules that this process does not fire although it knows of them, because another version of the
    /// program declares them differently, or because they cannot be read. Each is counted once.
    schedules_not_fired: SchedulesNotFired,
    /// Schedules that were removed, because no process had declared them for 30 days.
    schedules_forgotten: SchedulesForgotten,
    /// How often this process had to wait until a job of a group might start: because of the group's rate, or
    /// because the service that its jobs call had asked for it.
    starts_awaited: StartsAwaited,
    /// Attempts after which the whole group waits, because the service that the job calls has a limit: see
    /// [`JobError::limited`](crate::JobError::limited).
    limited: Limited,
    /// Scans for idle entries that were not made because of a jump of the server's clock, or a gap in its
    /// answers.
    claims_refused: ClaimsRefused,
    /// Requests to the server that failed.
    server_errors: ServerErrors,
    /// Read connections that were opened again.
    reconnects: Reconnects,
    /// Read connections that were closed because the server did not answer within the block time
    /// and its margin.
    read_timeouts: ReadTimeouts,
    /// Entries that retention trimmed from the stream.
    entries_trimmed: EntriesTrimmed,
    /// Dead letters that were deleted because there were more than the limit.
    letters_trimmed: DeadLettersTrimmed,
    /// Dead consumers that were removed.
    consumers_retired: ConsumersRemoved,
    /// Runs of a [service](crate::handler::service::Service) that ended before the shutdown, by a
    /// panic or by returning. The service is run again after a back-off.
    services_ended: ServicesEnded,
    /// Observations that were dropped, because the observers of
    /// [`RuntimeBuilder::observe`](crate::RuntimeBuilder::observe) were too slow. Logged at most once a minute.
    observations_dropped: ObservationsDropped,
    /// Calls of observers that panicked. Logged at most once a minute.
    observer_panics: ObserverPanics,
}

/// The counters of a runtime, a consumer or a queue.
#[derive(Debug)]
pub(crate) struct Tally {
    counts: [AtomicU64; COUNTS],
}

impl Default for Tally {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::default()) }
    }
}

impl Tally {
    pub(crate) fn add(&self, count: Count, by: u64) {
        if let Some(counter) = self.counts.get(count as usize) {
            counter.fetch_add(by, Ordering::Relaxed);
        }
    }

    fn get(&self, count: Count) -> u64 {
        self.counts.get(count as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

/// The counter that an event of one job raises by one.
pub(crate) fn count_of_job(event: &JobEvent<'_>) -> Option<Count> {
    Some(match event {
        JobEvent::Succeeded | JobEvent::Duplicate => Count::Succeeded,
        JobEvent::Failed { .. } => Count::Failed,
        JobEvent::Snoozed { .. } => Count::Snoozed,
        JobEvent::RetryScheduled { .. } => Count::Retried,
        JobEvent::DeadLettered { .. } => Count::DeadLettered,
        JobEvent::DeliveredAgain => Count::DeliveredAgain,
        JobEvent::LeaseLost { .. } => Count::LeasesLost,
        JobEvent::RefusedLate { .. } => Count::RefusedLate,
        JobEvent::TrimmedInFlight { .. } => Count::Trimmed,
        JobEvent::RemovedInFlight => Count::RemovedInFlight,
        JobEvent::Released => Count::Released,
        JobEvent::Unhandled { .. } => Count::Unhandled,
        JobEvent::ResultLost { .. } => Count::ResultsLost,
        JobEvent::Cancelled | JobEvent::Ended(_) | JobEvent::Broken { .. } => return None,
    })
}

/// The counter that an event of a queue raises, and by how much.
pub(crate) fn count_of_queue(event: &QueueEvent<'_>) -> Option<(Count, u64)> {
    Some(match *event {
        QueueEvent::Delivered(entries) => (Count::Delivered, wide(entries)),
        QueueEvent::Acknowledged(entries) => (Count::Acknowledged, wide(entries)),
        QueueEvent::AcknowledgedLate(entries) => (Count::AcknowledgedLate, wide(entries)),
        QueueEvent::Claimed(entries) | QueueEvent::ClaimedReleased(entries) => {
            (Count::Claimed, wide(entries))
        }
        QueueEvent::Recovered(entries) => (Count::Recovered, wide(entries)),
        QueueEvent::Trimmed(entries) => (Count::Trimmed, wide(entries)),
        QueueEvent::TrimmedUnread(entries) => (Count::TrimmedUnread, entries),
        QueueEvent::PayloadsUnstored(jobs) => (Count::PayloadsUnstored, wide(jobs)),
        QueueEvent::GroupRecreated => (Count::GroupsRecreated, 1),
        QueueEvent::RetriesRestored(jobs) => (Count::RetriesRestored, wide(jobs)),
        QueueEvent::RetriesStranded(jobs) => (Count::RetriesStranded, wide(jobs)),
        QueueEvent::Parked(jobs) => (Count::Parked, wide(jobs)),
        QueueEvent::PlacesFreed(places) => (Count::PlacesFreed, wide(places)),
        QueueEvent::ScheduledEntered(events) => (Count::ScheduledEntered, wide(events)),
        QueueEvent::ScheduledLost(events) => (Count::ScheduledLost, wide(events)),
        QueueEvent::ScheduledRestored(events) => (Count::ScheduledRestored, wide(events)),
        QueueEvent::ScheduledStranded(events) => (Count::ScheduledStranded, wide(events)),
        QueueEvent::Schedule(event) => return count_of_schedule(&event),
        QueueEvent::StartAwaited => (Count::StartsAwaited, 1),
        QueueEvent::Limited { .. } => (Count::Limited, 1),
        QueueEvent::ClaimRefused { .. } => (Count::ClaimsRefused, 1),
        QueueEvent::StoreFailed { .. } => (Count::ServerErrors, 1),
        QueueEvent::Reconnected => (Count::Reconnects, 1),
        QueueEvent::ReadTimedOut => (Count::ReadTimeouts, 1),
        QueueEvent::EntriesTrimmed(entries) => (Count::EntriesTrimmed, entries),
        QueueEvent::DeadLettersTrimmed(dead_letters) => (Count::DeadLettersTrimmed, dead_letters),
        QueueEvent::ConsumersRemoved(consumers) => (Count::ConsumersRemoved, wide(consumers)),
        QueueEvent::ClaimedEarly { .. }
        | QueueEvent::LimitsDiffer { .. }
        | QueueEvent::LimitChanged { .. }
        | QueueEvent::OldEntries { .. }
        | QueueEvent::PauseChanged { .. }
        | QueueEvent::TypeWithoutHandler { .. }
        | QueueEvent::LoopEnded { .. }
        | QueueEvent::Alerted(_) => {
            return None;
        }
    })
}

fn count_of_schedule(event: &ScheduleEvent<'_>) -> Option<(Count, u64)> {
    Some(match *event {
        ScheduleEvent::Fired(events) => (Count::SchedulesFired, wide(events)),
        ScheduleEvent::Missed(occurrences) => (Count::SchedulesMissed, occurrences),
        ScheduleEvent::Skipped(occurrences) => (Count::SchedulesSkipped, occurrences),
        ScheduleEvent::Lost(schedules) => (Count::SchedulesLost, wide(schedules)),
        ScheduleEvent::Forgotten(schedules) => (Count::SchedulesForgotten, wide(schedules)),
        ScheduleEvent::NotFired { .. } => (Count::SchedulesNotFired, 1),
        ScheduleEvent::Declared { .. } | ScheduleEvent::Restored { .. } => return None,
    })
}

pub(crate) fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
