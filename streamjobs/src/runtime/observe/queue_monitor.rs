//! What the consumers of one queue in this process share for its alerts.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::insight::alert::EventCounts;
use crate::insight::sample::PartSample;
use crate::model::cause::bounded_text;
use crate::model::name::StreamName;
use crate::runtime::observe::{GroupWatch, JobEvent, Outage, QueueEvent, Watched};
use crate::runtime::state::{OncePerInterval, lock};

/// The events of a queue that alerts count, and the alerts that are raised. There is one monitor for
/// each queue, however many consumers the queue has.
#[derive(Debug)]
pub(crate) struct QueueMonitor {
    /// Whether the watcher of this queue reads its stream as well: one queue of each stream does.
    pub(crate) watches_stream: bool,
    /// The turn to watch the queue, which its consumers share.
    pub(crate) turn: OncePerInterval,
    /// The outage of the server, shared by all queues.
    pub(super) outage: Arc<Outage>,
    happened: Mutex<EventCounts>,
    /// What has to be repaired for the last blocked attempt.
    blocked_cause: Mutex<String>,
    /// Event types that were met without a handler.
    types_met: Mutex<HashSet<String>>,
    /// The turn to report a type that does not fit into the set any more.
    types_turn: OncePerInterval,
    /// The turn to report jobs of a lost retry set that cannot be scheduled again.
    stranded_turn: OncePerInterval,
    /// The turn to report scheduled events that cannot get their place back.
    schedule_turn: OncePerInterval,
    /// What the queue shares with the other partitions of its stream.
    watch: Arc<GroupWatch>,
    /// The consumer that last took a running job although the job's lease had not ended, and when.
    claimer: Mutex<Option<(Instant, String)>>,
}

impl QueueMonitor {
    pub(crate) fn new(watch: Arc<GroupWatch>, watches_stream: bool, outage: Arc<Outage>) -> Self {
        Self {
            watches_stream,
            turn: OncePerInterval::default(),
            outage,
            happened: Mutex::default(),
            blocked_cause: Mutex::default(),
            types_met: Mutex::default(),
            types_turn: OncePerInterval::default(),
            stranded_turn: OncePerInterval::default(),
            schedule_turn: OncePerInterval::default(),
            watch,
            claimer: Mutex::default(),
        }
    }

    pub(super) fn record_job(&self, event: &JobEvent<'_>) {
        match event {
            JobEvent::DeadLettered { .. } => lock(&self.happened).dead_lettered += 1,
            JobEvent::Snoozed { blocked: Some(cause), .. } => {
                *lock(&self.blocked_cause) = bounded_text(cause);
                lock(&self.happened).blocked += 1;
            }
            JobEvent::RemovedInFlight => lock(&self.happened).removed_in_flight += 1,
            _ => {}
        }
    }

    pub(super) fn record_queue(&self, event: &QueueEvent<'_>, by: u64) {
        match event {
            QueueEvent::Claimed(_) => lock(&self.happened).claimed += by,
            QueueEvent::Trimmed(_) => lock(&self.happened).dead_lettered += by,
            QueueEvent::GroupRecreated => lock(&self.happened).groups_recreated += by,
            QueueEvent::TrimmedUnread(_) => lock(&self.happened).trimmed_unread += by,
            _ => {}
        }
    }

    /// Whether to report an event type without a handler: when it is met first, or now and then if
    /// there are too many to remember.
    pub(super) fn meets_type(&self, event_type: &str) -> bool {
        let mut met = lock(&self.types_met);
        if met.contains(event_type) {
            return false;
        }
        if met.len() < TYPES_MET_MAX && event_type.len() <= TYPE_BYTES_MAX {
            return met.insert(event_type.to_owned());
        }
        self.types_turn.take(Instant::now(), TYPES_INTERVAL)
    }

    /// Whether to report now the jobs that cannot be scheduled again.
    pub(super) fn reports_stranded(&self) -> bool {
        self.stranded_turn.take(Instant::now(), STRANDED_INTERVAL)
    }

    /// Whether to report now the scheduled events that cannot get their place back.
    pub(super) fn reports_stranded_events(&self) -> bool {
        self.schedule_turn.take(Instant::now(), STRANDED_INTERVAL)
    }

    pub(crate) fn happened(&self) -> EventCounts {
        *lock(&self.happened)
    }

    /// What has to be repaired for the last attempt that was snoozed until an operator does so.
    pub(crate) fn blocked_cause(&self) -> String {
        lock(&self.blocked_cause).clone()
    }

    pub(super) fn record_claimer(&self, now: Instant, consumer: &str) {
        // A longer name would make every heartbeat long.
        if consumer.len() <= CLAIMER_BYTES_MAX {
            *lock(&self.claimer) = Some((now, consumer.to_owned()));
        }
    }

    pub(super) fn claimer(&self, now: Instant) -> Option<String> {
        let claimer = lock(&self.claimer);
        let (since, consumer) = claimer.as_ref()?;
        (now.saturating_duration_since(*since) <= CLAIMER_SHOWN).then(|| consumer.clone())
    }

    /// Takes the figures of the queue. Returns what they tell about the group on the whole stream.
    pub(crate) fn watched(
        &self,
        now: Instant,
        stream: &StreamName,
        sample: PartSample,
        length_max: Option<u64>,
    ) -> Watched {
        self.watch.take(now, stream, sample, length_max)
    }
}

/// A process remembers at most this many event types for which it has no handler.
const TYPES_MET_MAX: usize = 1_000;
const TYPE_BYTES_MAX: usize = 1_024;
const CLAIMER_BYTES_MAX: usize = 512;
/// How long heartbeats name a consumer that took a running job.
const CLAIMER_SHOWN: Duration = Duration::from_secs(300);
const TYPES_INTERVAL: Duration = Duration::from_secs(60);
/// How often jobs that cannot be scheduled again are counted and logged.
const STRANDED_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::AlertRules;
    use crate::model::name::GroupName;

    #[tokio::test(start_paused = true)]
    async fn a_type_is_reported_once_and_no_number_of_types_fills_memory_or_log() {
        let (stream, group) = (StreamName::new("orders"), GroupName::new("mail"));
        let watch = GroupWatch::new(stream.unwrap(), &group.unwrap(), AlertRules::default());
        let monitor = QueueMonitor::new(Arc::new(watch), false, Arc::default());
        assert!(monitor.meets_type("a") && monitor.meets_type("b") && !monitor.meets_type("a"));
        let reported = (0..5_000).filter(|name| monitor.meets_type(&name.to_string())).count();
        assert_eq!(reported, TYPES_MET_MAX - 2 + 1);
        assert_eq!(lock(&monitor.types_met).len(), TYPES_MET_MAX);
    }
}
