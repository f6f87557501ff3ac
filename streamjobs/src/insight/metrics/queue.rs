//! The metrics of one group on one stream.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::labels::{Durations, Family, Labels};
use super::server::ServerGauges;
use super::table::{
    ACKNOWLEDGED, ACKNOWLEDGED_LATE, BUFFERED, CLAIMED, CLAIMS_REFUSED, CONSUMED,
    CONSUMERS_RETIRED, DEAD_LETTERS_STORED, DUPLICATES, ENTRIES_TRIMMED, FAILED, FINISHED,
    FIRING_LATENESS, GROUPS_RECREATED, LEASES_LOST, LETTERS_TRIMMED, LIMITED, OPERATION, PARKED,
    PAYLOADS_UNSTORED, PLACES_FREED, PROCESS, QUEUE_TIME, READ_TIMEOUTS, RECONNECTS, REFUSED_LATE,
    REMOVED_IN_FLIGHT, RENEW, RESULTS_LOST, RETRIES_RESTORED, RETRIES_STRANDED, RUNNING,
    SCHEDULE_LATENESS, SCHEDULED_ENTERED, SCHEDULED_LATENESS, SCHEDULED_LOST, SCHEDULED_RESTORED,
    SCHEDULED_STRANDED, SCHEDULES_FIRED, SCHEDULES_LOST, SCHEDULES_MISSED, SCHEDULES_NOT_FIRED,
    SCHEDULES_SKIPPED, SERVER_ERRORS, SLOTS, SNOOZED, STARTS_AWAITED, TRIMMED, TRIMMED_UNREAD,
    UNHANDLED,
};
use super::words::{ClaimReason, DuplicateStage, Failure, Finish};
use crate::model::name::{GroupName, StreamName};
use crate::model::policy::Reason;

/// The handles of one group on one stream.
#[derive(Debug)]
pub(crate) struct QueueMetrics {
    labels: Labels,
    /// Whether the handles belong to one of several partitions.
    pub(crate) of_partition: bool,
    slots: Gauge,
    slots_now: AtomicUsize,
    running: Gauge,
    buffered: Gauge,
    finished: Family,
    failed: Family,
    dead_lettered: Family,
    claimed: Family,
    duplicates: Family,
    pub(crate) consumed: Counter,
    pub(crate) snoozed: Counter,
    pub(crate) unhandled: Counter,
    pub(crate) acknowledged: Counter,
    pub(crate) acknowledged_late: Counter,
    pub(crate) leases_lost: Counter,
    pub(crate) refused_late: Counter,
    pub(crate) trimmed: Counter,
    pub(crate) trimmed_unread: Counter,
    pub(crate) removed_in_flight: Counter,
    pub(crate) payloads_unstored: Counter,
    pub(crate) results_lost: Counter,
    pub(crate) groups_recreated: Counter,
    pub(crate) retries_restored: Counter,
    pub(crate) retries_stranded: Counter,
    pub(crate) parked: Counter,
    pub(crate) places_freed: Counter,
    pub(crate) scheduled_entered: Counter,
    pub(crate) scheduled_lost: Counter,
    pub(crate) scheduled_restored: Counter,
    pub(crate) scheduled_stranded: Counter,
    pub(crate) schedules_fired: Counter,
    pub(crate) schedules_missed: Counter,
    pub(crate) schedules_skipped: Counter,
    pub(crate) schedules_lost: Counter,
    pub(crate) schedules_not_fired: Counter,
    pub(crate) firing_lateness: Histogram,
    pub(crate) starts_awaited: Counter,
    pub(crate) limited: Counter,
    pub(crate) claims_refused: Counter,
    pub(crate) server_errors: Counter,
    pub(crate) reconnects: Counter,
    pub(crate) read_timeouts: Counter,
    pub(crate) entries_trimmed: Counter,
    pub(crate) letters_trimmed: Counter,
    pub(crate) consumers_retired: Counter,
    pub(crate) seen: ServerGauges,
    pub(crate) queue_time: Histogram,
    pub(crate) lateness: Histogram,
    pub(crate) scheduled_lateness: Histogram,
    pub(crate) renew: Histogram,
    pub(crate) receive: Durations,
    settle: [(&'static str, Durations); 4],
}

impl QueueMetrics {
    /// Makes every handle with the current recorder: for a whole stream, or for one of its partitions.
    pub(crate) fn new(stream: &StreamName, group: &GroupName, partition: Option<u16>) -> Self {
        let of_stream = Labels::of_stream(stream, partition);
        let labels = of_stream.and_group(group);
        let counter = |metric| labels.counter(metric);
        let family = |metric, name, words| Family::new(metric, &labels, name, words);
        let words = |words: &'static [&'static str]| words.iter().copied();
        let receiving = labels.of_operation("receive");
        let settle = SETTLE.map(|operation| {
            (operation, Durations::new(OPERATION, labels.of_operation(operation).of_type("settle")))
        });
        let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
        Self {
            slots: labels.gauge(SLOTS),
            slots_now: AtomicUsize::new(0),
            running: labels.gauge(RUNNING),
            buffered: labels.gauge(BUFFERED),
            finished: family(FINISHED, "outcome", words(Finish::WORDS)),
            failed: family(FAILED, "reason", words(Failure::WORDS)),
            dead_lettered: Family::new(DEAD_LETTERS_STORED, &labels, "reason", reasons),
            claimed: family(CLAIMED, "reason", words(ClaimReason::WORDS)),
            duplicates: family(DUPLICATES, "stage", words(DuplicateStage::WORDS)),
            consumed: receiving.counter(CONSUMED),
            snoozed: counter(SNOOZED),
            unhandled: counter(UNHANDLED),
            acknowledged: counter(ACKNOWLEDGED),
            acknowledged_late: counter(ACKNOWLEDGED_LATE),
            leases_lost: counter(LEASES_LOST),
            refused_late: counter(REFUSED_LATE),
            trimmed: counter(TRIMMED),
            trimmed_unread: counter(TRIMMED_UNREAD),
            removed_in_flight: counter(REMOVED_IN_FLIGHT),
            payloads_unstored: counter(PAYLOADS_UNSTORED),
            results_lost: counter(RESULTS_LOST),
            groups_recreated: counter(GROUPS_RECREATED),
            retries_restored: counter(RETRIES_RESTORED),
            retries_stranded: counter(RETRIES_STRANDED),
            parked: counter(PARKED),
            places_freed: counter(PLACES_FREED),
            scheduled_entered: of_stream.counter(SCHEDULED_ENTERED),
            scheduled_lost: of_stream.counter(SCHEDULED_LOST),
            scheduled_restored: of_stream.counter(SCHEDULED_RESTORED),
            scheduled_stranded: of_stream.counter(SCHEDULED_STRANDED),
            schedules_fired: of_stream.counter(SCHEDULES_FIRED),
            schedules_missed: of_stream.counter(SCHEDULES_MISSED),
            schedules_skipped: of_stream.counter(SCHEDULES_SKIPPED),
            schedules_lost: of_stream.counter(SCHEDULES_LOST),
            schedules_not_fired: of_stream.counter(SCHEDULES_NOT_FIRED),
            firing_lateness: of_stream.histogram(FIRING_LATENESS),
            starts_awaited: counter(STARTS_AWAITED),
            limited: counter(LIMITED),
            claims_refused: counter(CLAIMS_REFUSED),
            server_errors: counter(SERVER_ERRORS),
            reconnects: counter(RECONNECTS),
            read_timeouts: counter(READ_TIMEOUTS),
            entries_trimmed: counter(ENTRIES_TRIMMED),
            letters_trimmed: counter(LETTERS_TRIMMED),
            consumers_retired: counter(CONSUMERS_RETIRED),
            seen: ServerGauges::new(&labels, &of_stream),
            queue_time: labels.histogram(QUEUE_TIME),
            lateness: labels.histogram(SCHEDULE_LATENESS),
            scheduled_lateness: of_stream.histogram(SCHEDULED_LATENESS),
            renew: labels.histogram(RENEW),
            receive: Durations::new(OPERATION, receiving.of_type("receive")),
            settle,
            of_partition: partition.is_some(),
            labels,
        }
    }

    /// The duration of one handler's runs. `handler` is the event type, or `*` for a handler that
    /// takes any type.
    pub(crate) fn process(&self, handler: &'static str) -> Durations {
        Durations::new(PROCESS, self.labels.of_operation("process").and("handler", handler))
    }

    /// Records how long a request that settled jobs took, and the kind of its error if it failed.
    pub(crate) fn settled(
        &self,
        operation: &'static str,
        took: Duration,
        error: Option<&'static str>,
    ) {
        if let Some((_, durations)) = self.settle.iter().find(|(name, _)| *name == operation) {
            durations.record(took, error);
        }
    }

    pub(crate) fn finished(&self, finish: Finish) {
        self.finished.add(finish as usize, 1);
    }

    pub(crate) fn failed(&self, failure: Failure) {
        self.failed.add(failure as usize, 1);
    }

    pub(crate) fn dead_lettered(&self, reason: Reason) {
        self.dead_lettered.add(reason as usize, 1);
    }

    pub(crate) fn claimed(&self, why: ClaimReason, entries: u64) {
        self.claimed.add(why as usize, entries);
    }

    pub(crate) fn duplicate(&self, stage: DuplicateStage) {
        self.duplicates.add(stage as usize, 1);
    }

    /// Sets the number of slots. Several queues may share a recorder, so a gauge is raised or lowered
    /// by the difference and never set.
    pub(crate) fn set_slots(&self, slots: usize) {
        let before = self.slots_now.swap(slots, Ordering::Relaxed);
        move_gauge(&self.slots, before, slots);
    }

    /// Counts entries that are in flight from now on.
    pub(crate) fn add_in_flight(&self, entries: usize) {
        move_gauge(&self.buffered, 0, entries);
    }

    /// Counts entries that are no longer in flight.
    pub(crate) fn remove_in_flight(&self, entries: usize) {
        move_gauge(&self.buffered, entries, 0);
    }

    /// Counts a handler as running until the guard is dropped.
    pub(crate) fn run(&self) -> Running<'_> {
        self.buffered.decrement(1.0);
        self.running.increment(1.0);
        Running(self)
    }
}

impl Drop for QueueMetrics {
    fn drop(&mut self) {
        self.set_slots(0);
    }
}

/// A running handler, in the gauges.
#[derive(Debug)]
pub(crate) struct Running<'m>(&'m QueueMetrics);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.decrement(1.0);
        self.0.buffered.increment(1.0);
    }
}

pub(super) fn move_gauge(gauge: &Gauge, before: usize, after: usize) {
    // Counts of jobs are far below the range in which an f64 cannot hold every integer.
    if after >= before {
        gauge.increment((after - before) as f64);
    } else {
        gauge.decrement((before - after) as f64);
    }
}

/// The names of requests that settle jobs, as in their spans.
const SETTLE: [&str; 4] = ["ack", "retry", "dead_letter", "release"];
