//! Every metric: its name, unit and meaning, and the handles through which it is set.
//!
//! Names follow Prometheus; `docs/metrics.md` is the table for users, and a test holds the two
//! together. Handles are made once for each queue, and once for each stream that is published to,
//! so that a job neither looks a name up nor takes a lock. Labels come from names in the program's
//! own text (streams, groups, event types) and from closed lists, never from ids.
//!
//! A metric more is a row of the table, a field with its line in `new`, and a row of the document.

mod seen;
mod service;

pub(crate) use self::service::ServiceMetrics;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, Unit};

use self::seen::Seen;
use crate::model::name::{GroupName, StreamName};
use crate::model::policy::Reason;

/// One metric, as a scrape shows it.
#[derive(Clone, Copy, Debug)]
struct Metric {
    kind: Kind,
    unit: Unit,
    name: &'static str,
    about: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

macro_rules! table {
    ($($constant:ident: $kind:ident in $unit:ident, $name:literal, $about:literal;)*) => {
        $(const $constant: Metric = Metric {
            kind: Kind::$kind,
            unit: Unit::$unit,
            name: $name,
            about: $about,
        };)*
        const ALL: &[Metric] = &[$($constant),*];
    };
}

table! {
    SENT: Counter in Count, "messaging_client_sent_messages_total",
        "Events sent to the server, by what is known of their end";
    CONSUMED: Counter in Count, "messaging_client_consumed_messages_total",
        "Entries handed to this process, claims included";
    OPERATION: Histogram in Seconds, "messaging_client_operation_duration_seconds",
        "Duration of one request to the server; a receive waits for work";
    PROCESS: Histogram in Seconds, "messaging_process_duration_seconds",
        "Duration of one run of a handler";
    FINISHED: Counter in Count, "streamjobs_jobs_finished_total",
        "Jobs that this process is done with, by how";
    FAILED: Counter in Count, "streamjobs_attempts_failed_total",
        "Attempts that ended in a failure, by what it was";
    SNOOZED: Counter in Count, "streamjobs_attempts_snoozed_total",
        "Attempts that were put off and count as no failure";
    DEAD_LETTERS_STORED: Counter in Count, "streamjobs_dead_letters_total",
        "Jobs stored as dead letters, by reason";
    UNHANDLED: Counter in Count, "streamjobs_unhandled_total",
        "Entries of event types for which the group has no handler";
    QUEUE_TIME: Histogram in Seconds, "streamjobs_queue_time_seconds",
        "From publishing to the start of the first attempt, by the server's clock";
    LATENESS: Histogram in Seconds, "streamjobs_schedule_lateness_seconds",
        "From the end of a back-off to the start of the retry, by the server's clock";
    RUNNING: Gauge in Count, "streamjobs_running", "Handlers that run now";
    BUFFERED: Gauge in Count, "streamjobs_buffered",
        "Entries held whose handler does not run: not started, or their end not stored yet";
    SLOTS: Gauge in Count, "streamjobs_slots", "Jobs that may be held at once";
    ACKNOWLEDGED: Counter in Count, "streamjobs_acknowledged_total",
        "Entries that the server confirmed as acknowledged";
    ACKNOWLEDGED_LATE: Counter in Count, "streamjobs_acknowledged_late_total",
        "Acknowledgements of entries that were not pending any more";
    CLAIMED: Counter in Count, "streamjobs_claimed_total",
        "Deliveries taken over, by why";
    SUPPRESSED: Counter in Count, "streamjobs_duplicates_total",
        "Repetitions that were noticed and not run, by where";
    RENEW: Histogram in Seconds, "streamjobs_lease_renew_seconds",
        "Duration of one renewal of leases";
    LEASES_LOST: Counter in Count, "streamjobs_lease_lost_total",
        "Attempts that lost their lease";
    REFUSED_LATE: Counter in Count, "streamjobs_refused_late_total",
        "Steps refused because another attempt had the entry";
    TRIMMED: Counter in Count, "streamjobs_payloads_trimmed_total",
        "Entries whose payload was trimmed away before they were done";
    TRIMMED_UNREAD: Counter in Count, "streamjobs_trimmed_unread_total",
        "Entries that retention took before the group had got them";
    LEFT: Counter in Count, "streamjobs_payloads_unstored_total",
        "Looks at lost payloads of which no dead letter can tell";
    GROUPS_RECREATED: Counter in Count, "streamjobs_group_recreated_total",
        "Groups that were lost and made again";
    CLAIMS_REFUSED: Counter in Count, "streamjobs_claims_refused_total",
        "Sweeps that the server's clock, or a gap in its answers, forbade";
    SERVER_ERRORS: Counter in Count, "streamjobs_redis_errors_total",
        "Requests to the server that failed";
    RECONNECTS: Counter in Count, "streamjobs_redis_reconnects_total",
        "Reading connections that were opened again";
    READ_TIMEOUTS: Counter in Count, "streamjobs_read_timeouts_total",
        "Reading connections given up because the server was silent";
    ENTRIES_TRIMMED: Counter in Count, "streamjobs_entries_trimmed_total",
        "Entries that retention took from the stream";
    LETTERS_TRIMMED: Counter in Count, "streamjobs_dead_letters_trimmed_total",
        "Dead letters deleted because there were more than may be kept";
    CONSUMERS_RETIRED: Counter in Count, "streamjobs_consumers_removed_total",
        "Dead consumers that were removed";
    SERVICES_ENDED: Counter in Count, "streamjobs_services_ended_total",
        "Runs of a service that ended before they should, by how";
    JOBS: Gauge in Count, "streamjobs_jobs", "Jobs of the group on the server, by state";
    OLDEST_WAITING: Gauge in Seconds, "streamjobs_oldest_waiting_age_seconds",
        "How long the first entry that the group has not got has waited";
    OLDEST_PENDING: Gauge in Seconds, "streamjobs_oldest_pending_age_seconds",
        "How long nothing has been heard of the oldest pending entry";
    LAG: Gauge in Count, "streamjobs_group_lag", "The lag that the server names";
    LAG_KNOWN: Gauge in Count, "streamjobs_group_lag_known", "Whether the server names a lag";
    PAUSED: Gauge in Count, "streamjobs_paused", "Whether the group is paused in every process";
    STREAM_BYTES: Gauge in Bytes, "streamjobs_stream_bytes", "Memory of the stream";
    STREAM_LENGTH: Gauge in Count, "streamjobs_stream_entries", "Entries in the stream";
}

/// Tells the recorder what each metric means. Saying it again changes nothing.
pub(crate) fn describe() {
    for Metric { kind, unit, name, about } in ALL.iter().copied() {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, about),
            Kind::Gauge => metrics::describe_gauge!(name, unit, about),
            Kind::Histogram => metrics::describe_histogram!(name, unit, about),
        }
    }
}

/// Labels that a number of handles have in common.
#[derive(Clone, Debug)]
struct Labels(Vec<Label>);

impl Labels {
    fn and(&self, name: &'static str, value: &'static str) -> Self {
        let mut labels = self.0.clone();
        labels.push(Label::from_static_parts(name, value));
        Self(labels)
    }

    fn counter(&self, metric: Metric) -> Counter {
        metrics::counter!(metric.name, self.0.clone())
    }

    fn gauge(&self, metric: Metric) -> Gauge {
        metrics::gauge!(metric.name, self.0.clone())
    }

    fn histogram(&self, metric: Metric) -> Histogram {
        metrics::histogram!(metric.name, self.0.clone())
    }
}

/// Counters that differ in one label with a closed list of values, in the order of the list.
#[derive(Debug)]
struct Family(Vec<Counter>);

impl Family {
    fn new(
        metric: Metric,
        labels: &Labels,
        name: &'static str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let counter = |value| labels.and(name, value).counter(metric);
        Self(values.into_iter().map(counter).collect())
    }

    /// Adds to the counter of the value at this place of the list.
    fn add(&self, place: usize, by: u64) {
        if let Some(counter) = self.0.get(place) {
            counter.increment(by);
        }
    }
}

macro_rules! words {
    ($(#[$docs:meta])* $name:ident { $($(#[$case_docs:meta])* $case:ident = $word:literal,)* }) => {
        $(#[$docs])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$case_docs])* $case,)*
        }

        impl $name {
            /// The values of the label, each at the place of its case.
            const WORDS: &[&'static str] = &[$($word),*];
        }
    };
}

words! {
    /// How this process was done with a job: once for each job that it held.
    Finish {
        /// The handler did it.
        Ok = "ok",
        /// It was known as done.
        Duplicate = "duplicate",
        /// Acknowledged for want of a handler.
        Unhandled = "unhandled",
        /// Set aside until it is tried again.
        Retry = "retry",
        /// Stored as a dead letter.
        Dead = "dead",
        /// Handed back by a shutdown.
        Cancelled = "cancelled",
        /// Another attempt has it, or the group was lost.
        LostLease = "lost_lease",
        /// Left pending for a process that has a handler.
        Left = "left",
        /// The shutdown ran out of time before the server knew the verdict.
        Abandoned = "abandoned",
    }
}

words! {
    /// What made an attempt a failure.
    Failure {
        Error = "error",
        Panic = "panic",
        Timeout = "timeout",
    }
}

words! {
    /// Why a delivery was taken over.
    Reclaim {
        /// Its consumer was not heard of.
        Idle = "idle",
        /// It was ours, and the answer that carried it was lost.
        LostReply = "lost_reply",
    }
}

words! {
    /// Where a repetition was noticed.
    Stage {
        /// The entry was in flight here.
        Delivery = "delivery",
        /// A guard knew the job as done.
        Handle = "handle",
    }
}

words! {
    /// What became of an event that was sent.
    Sending {
        Ok = "ok",
        Rejected = "rejected",
        Unconfirmed = "unconfirmed",
    }
}

/// The handles of one group on one stream.
#[derive(Debug)]
pub(crate) struct QueueMetrics {
    labels: Labels,
    slots: Gauge,
    slots_now: AtomicUsize,
    running: Gauge,
    buffered: Gauge,
    finished: Family,
    failed: Family,
    quarantined: Family,
    reclaimed: Family,
    suppressed: Family,
    pub(crate) consumed: Counter,
    pub(crate) snoozed: Counter,
    pub(crate) unhandled: Counter,
    pub(crate) acknowledged: Counter,
    pub(crate) acknowledged_late: Counter,
    pub(crate) leases_lost: Counter,
    pub(crate) refused_late: Counter,
    pub(crate) trimmed: Counter,
    pub(crate) trimmed_unread: Counter,
    pub(crate) left: Counter,
    pub(crate) groups_recreated: Counter,
    pub(crate) claims_refused: Counter,
    pub(crate) server_errors: Counter,
    pub(crate) reconnects: Counter,
    pub(crate) watchdog: Counter,
    pub(crate) entries_trimmed: Counter,
    pub(crate) letters_trimmed: Counter,
    pub(crate) consumers_retired: Counter,
    seen: Seen,
    pub(crate) queue_time: Histogram,
    pub(crate) lateness: Histogram,
    pub(crate) renew: Histogram,
    pub(crate) receive: Histogram,
    pub(crate) settle: Histogram,
}

impl QueueMetrics {
    /// Makes every handle with the recorder that is there now.
    pub(crate) fn new(stream: &StreamName, group: &GroupName) -> Self {
        let labels = Labels(vec![stream_label(stream), Label::new("group", group.to_string())]);
        let counter = |metric| labels.counter(metric);
        let family = |metric, name, words| Family::new(metric, &labels, name, words);
        let words = |words: &'static [&'static str]| words.iter().copied();
        let operation = |name| labels.and("operation", name).histogram(OPERATION);
        let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
        Self {
            slots: labels.gauge(SLOTS),
            slots_now: AtomicUsize::new(0),
            running: labels.gauge(RUNNING),
            buffered: labels.gauge(BUFFERED),
            finished: family(FINISHED, "outcome", words(Finish::WORDS)),
            failed: family(FAILED, "reason", words(Failure::WORDS)),
            quarantined: Family::new(DEAD_LETTERS_STORED, &labels, "reason", reasons),
            reclaimed: family(CLAIMED, "reason", words(Reclaim::WORDS)),
            suppressed: family(SUPPRESSED, "stage", words(Stage::WORDS)),
            consumed: counter(CONSUMED),
            snoozed: counter(SNOOZED),
            unhandled: counter(UNHANDLED),
            acknowledged: counter(ACKNOWLEDGED),
            acknowledged_late: counter(ACKNOWLEDGED_LATE),
            leases_lost: counter(LEASES_LOST),
            refused_late: counter(REFUSED_LATE),
            trimmed: counter(TRIMMED),
            trimmed_unread: counter(TRIMMED_UNREAD),
            left: counter(LEFT),
            groups_recreated: counter(GROUPS_RECREATED),
            claims_refused: counter(CLAIMS_REFUSED),
            server_errors: counter(SERVER_ERRORS),
            reconnects: counter(RECONNECTS),
            watchdog: counter(READ_TIMEOUTS),
            entries_trimmed: counter(ENTRIES_TRIMMED),
            letters_trimmed: counter(LETTERS_TRIMMED),
            consumers_retired: counter(CONSUMERS_RETIRED),
            seen: Seen::new(&labels, stream),
            queue_time: labels.histogram(QUEUE_TIME),
            lateness: labels.histogram(LATENESS),
            renew: labels.histogram(RENEW),
            receive: operation("receive"),
            settle: operation("settle"),
            labels,
        }
    }

    /// The duration of one handler's runs. `handler` is the event type, or `*` for whatever comes.
    pub(crate) fn process(&self, handler: &'static str) -> Histogram {
        self.labels.and("handler", handler).histogram(PROCESS)
    }

    pub(crate) fn finished(&self, finish: Finish) {
        self.finished.add(finish as usize, 1);
    }

    pub(crate) fn failed(&self, failure: Failure) {
        self.failed.add(failure as usize, 1);
    }

    pub(crate) fn quarantined(&self, reason: Reason) {
        self.quarantined.add(reason as usize, 1);
    }

    pub(crate) fn reclaimed(&self, why: Reclaim, entries: u64) {
        self.reclaimed.add(why as usize, entries);
    }

    pub(crate) fn suppressed(&self, stage: Stage) {
        self.suppressed.add(stage as usize, 1);
    }

    /// Says how many slots there are. Processes that share a recorder add up, so gauges are moved
    /// and never set.
    pub(crate) fn set_slots(&self, slots: usize) {
        let before = self.slots_now.swap(slots, Ordering::Relaxed);
        move_gauge(&self.slots, before, slots);
    }

    /// An entry is held from now on.
    pub(crate) fn took(&self) {
        self.buffered.increment(1.0);
    }

    /// Entries are no longer held.
    pub(crate) fn gave_up(&self, entries: usize) {
        move_gauge(&self.buffered, entries, 0);
    }

    /// A handler runs until the guard is dropped.
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

/// A handler that runs now, in the gauges.
#[derive(Debug)]
pub(crate) struct Running<'m>(&'m QueueMetrics);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.decrement(1.0);
        self.0.buffered.increment(1.0);
    }
}

/// The handles of a client, made for each stream when it is first published to.
#[derive(Debug, Default)]
pub(crate) struct SendMetrics {
    streams: RwLock<HashMap<StreamName, Arc<StreamMetrics>>>,
}

/// The handles for publishing to one stream.
#[derive(Debug)]
pub(crate) struct StreamMetrics {
    sent: Family,
    send: Histogram,
}

impl SendMetrics {
    /// The handles for a stream.
    pub(crate) fn stream(&self, stream: &StreamName) -> Arc<StreamMetrics> {
        let known =
            self.streams.read().unwrap_or_else(PoisonError::into_inner).get(stream).cloned();
        known.unwrap_or_else(|| {
            let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
            let made = || Arc::new(StreamMetrics::new(stream));
            Arc::clone(streams.entry(stream.clone()).or_insert_with(made))
        })
    }
}

impl StreamMetrics {
    fn new(stream: &StreamName) -> Self {
        let labels = Labels(vec![stream_label(stream)]);
        Self {
            sent: Family::new(SENT, &labels, "outcome", Sending::WORDS.iter().copied()),
            send: labels.and("operation", "send").histogram(OPERATION),
        }
    }

    /// Events were sent in one call.
    pub(crate) fn sent(&self, outcomes: impl IntoIterator<Item = Sending>, took: Duration) {
        let (mut ok, mut rejected, mut unconfirmed) = (0, 0, 0);
        for outcome in outcomes {
            match outcome {
                Sending::Ok => ok += 1,
                Sending::Rejected => rejected += 1,
                Sending::Unconfirmed => unconfirmed += 1,
            }
        }
        self.sent.add(Sending::Ok as usize, ok);
        self.sent.add(Sending::Rejected as usize, rejected);
        self.sent.add(Sending::Unconfirmed as usize, unconfirmed);
        self.send.record(took);
    }
}

fn stream_label(stream: &StreamName) -> Label {
    Label::new("stream", stream.to_string())
}

fn move_gauge(gauge: &Gauge, before: usize, after: usize) {
    // Counts of jobs are far below where an f64 loses ones.
    if after >= before {
        gauge.increment((after - before) as f64);
    } else {
        gauge.decrement((before - after) as f64);
    }
}
