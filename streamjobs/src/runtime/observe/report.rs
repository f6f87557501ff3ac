//! The report of one queue: takes each event once and passes it to every sink.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::handler::ConsumerIdentity;
use crate::insight::metrics::{QueueMetrics, Running};
use crate::insight::view::GroupInfo;
use crate::model::entry::{Delivery, Hold};
use crate::model::record::due;
use crate::runtime::observe::{
    Count, Counters, JobEvent, Observation, Observed, Observers, Outage, QueueEvent, QueueMonitor,
    Subject, Tally, ToldOnceDone, count_of_job, count_of_queue,
};
use crate::runtime::observe::{log, metrics};
use crate::runtime::state::{OnConfirmed, TrendCounts};
use crate::store::StoreError;
use crate::store::inspect::StreamSizes;

/// Counts, measures, watches and logs what happens to one queue of one consumer.
#[derive(Debug)]
pub(crate) struct Report {
    /// The counters of the runtime, of this consumer, and of this consumer's queue.
    tallies: [Arc<Tally>; 3],
    pub(crate) metrics: Arc<QueueMetrics>,
    monitor: Arc<QueueMonitor>,
    identity: Arc<ConsumerIdentity>,
    /// `None` if the application has no observers.
    observers: Option<Arc<Observers>>,
    /// What is recorded for charts; `None` if nothing is.
    pub(crate) trend: Option<Arc<TrendCounts>>,
}

impl Report {
    pub(crate) fn new(
        tallies: [Arc<Tally>; 3],
        metrics: Arc<QueueMetrics>,
        monitor: Arc<QueueMonitor>,
        identity: Arc<ConsumerIdentity>,
        observers: Option<Arc<Observers>>,
        trend: Option<Arc<TrendCounts>>,
    ) -> Self {
        Self { tallies, metrics, monitor, identity, observers, trend }
    }

    /// Whether the application has observers.
    pub(crate) fn is_observed(&self) -> bool {
        self.observers.is_some()
    }

    /// Tells observers what became of an attempt.
    pub(crate) fn observe(&self, subject: Subject<'_>, what: Observed) {
        if let Some(observers) = &self.observers {
            observers.tell(Observation::new(&self.identity, subject, what));
        }
    }

    /// What to tell once the acknowledgement of a job is confirmed; `None` without observers.
    pub(crate) fn told_once_done(&self, subject: Subject<'_>) -> Option<Box<dyn OnConfirmed>> {
        let observers = Arc::clone(self.observers.as_ref()?);
        let observation = Observation::new(&self.identity, subject, Observed::Done);
        Some(Box::new(ToldOnceDone { observers, observation }))
    }

    /// Reports an event of one job.
    pub(crate) fn job(&self, hold: Hold, event: JobEvent<'_>) {
        if let Some(count) = count_of_job(&event) {
            self.add(count, 1);
        }
        metrics::record_job(&self.metrics, &event);
        self.monitor.record_job(&event);
        log::log_job(&self.identity, hold, &event);
    }

    /// Reports an event of the queue, or of several of its jobs.
    pub(crate) fn queue(&self, event: QueueEvent<'_>) {
        if let Some((count, by)) = count_of_queue(&event) {
            if by == 0 {
                return;
            }
            self.add(count, by);
            metrics::record_queue(&self.metrics, &event, by);
            self.monitor.record_queue(&event, by);
        }
        if let QueueEvent::ClaimedEarly { consumer } = event {
            self.monitor.record_claimer(Instant::now(), consumer);
        }
        match event {
            QueueEvent::StoreFailed { operation, error } if Outage::includes(error) => {
                if let Some(line) = self.monitor.outage.failed(Instant::now(), error) {
                    log::log_outage(line, Some((operation, error)));
                }
            }
            // The log line of the outage tells this already.
            QueueEvent::ReadTimedOut | QueueEvent::Reconnected
                if self.monitor.outage.is_ongoing() =>
            {
                log::log_queue_within_outage(&self.identity, &event);
            }
            event => log::log_queue(&self.identity, &event),
        }
    }

    /// Records that the server has answered a step.
    pub(crate) fn answered(&self) {
        if let Some(line) = self.monitor.outage.answered(Instant::now()) {
            log::log_outage(line, None);
        }
    }

    /// The consumer that recently took a running job of this process.
    pub(crate) fn claimer(&self) -> Option<String> {
        self.monitor.claimer(Instant::now())
    }

    /// Reports an event type without a handler in this process, when the process meets it first.
    /// `until_dead` is how long its jobs wait unless a process declares the type.
    pub(crate) fn type_without_handler(
        &self,
        event_type: &str,
        fate: &'static str,
        until_dead: Option<Duration>,
    ) {
        if self.monitor.meets_type(event_type) {
            self.queue(QueueEvent::TypeWithoutHandler { event_type, fate, until_dead });
        }
    }

    /// Reports now and then that jobs of a lost retry set cannot be scheduled again.
    pub(crate) fn retries_stranded(&self, jobs: usize) {
        if jobs > 0 && self.monitor.reports_stranded() {
            self.queue(QueueEvent::RetriesStranded(jobs));
        }
    }

    /// Reports now and then that scheduled events cannot get their place back.
    pub(crate) fn schedule_stranded(&self, events: usize) {
        if events > 0 && self.monitor.reports_stranded_events() {
            self.queue(QueueEvent::ScheduledStranded(events));
        }
    }

    /// Reports that a step of the store failed.
    pub(crate) fn store_failed(&self, operation: &'static str, error: &StoreError) {
        self.queue(QueueEvent::StoreFailed { operation, error });
    }

    /// The answer of a step; a failure is reported, and its loop repeats the step at its next
    /// interval. A lost group is not reported here: the reader recreates and reports it.
    pub(crate) fn ok_or_report<T>(
        &self,
        operation: &'static str,
        answer: Result<T, StoreError>,
    ) -> Option<T> {
        match answer {
            Ok(value) => {
                self.answered();
                Some(value)
            }
            Err(StoreError::GroupMissing) => None,
            Err(error) => {
                self.store_failed(operation, &error);
                None
            }
        }
    }

    /// What this consumer has counted on this queue.
    pub(crate) fn counters(&self) -> Counters {
        let [.., queue] = &self.tallies;
        queue.counters()
    }

    /// Records that a handler is about to run, at this time of the server's clock in milliseconds.
    /// The job counts as running until the guard is dropped.
    pub(crate) fn started(&self, delivery: &Delivery, server_now: u64) -> Running<'_> {
        // The time of a later delivery depends on a crash, and not on how long the job waited.
        if delivery.delivery_count == 1 {
            let (metric, from) = if delivery.inlet.is_lane() {
                (&self.metrics.lateness, due(&delivery.entry))
            } else {
                (&self.metrics.queue_time, Some(delivery.entry.id().milliseconds()))
            };
            if let Some(from) = from {
                let waited = Duration::from_millis(server_now.saturating_sub(from));
                metric.record(waited);
                if let Some(trend) = self.trend.as_ref().filter(|_| !delivery.inlet.is_lane()) {
                    trend.waited(waited);
                }
            }
        }
        self.metrics.run()
    }

    /// Records how long an attempt ran.
    pub(crate) fn ran(&self, took: Duration) {
        if let Some(trend) = &self.trend {
            trend.ran(took);
        }
    }

    /// Shows the group and its stream in this partition, for metrics that are kept apart for each
    /// partition; `None` if the server did not answer.
    pub(crate) fn seen_here(&self, group: Option<&GroupInfo>, stream: Option<&StreamSizes>) {
        if self.metrics.of_partition {
            self.set_seen(group, stream);
        }
        if let (Some(trend), Some(group)) = (&self.trend, group) {
            trend.saw(group);
        }
    }

    /// Shows the group and its stream in all partitions together, for metrics of the whole stream.
    pub(crate) fn seen(&self, group: Option<&GroupInfo>, stream: Option<&StreamSizes>) {
        if !self.metrics.of_partition {
            self.set_seen(group, stream);
        }
    }

    fn set_seen(&self, group: Option<&GroupInfo>, stream: Option<&StreamSizes>) {
        if let Some(group) = group {
            self.metrics.seen.set_group(group);
        }
        if let Some(stream) = stream {
            self.metrics.seen.set_stream(stream);
        }
    }

    fn add(&self, count: Count, by: u64) {
        for tally in &self.tallies {
            tally.add(count, by);
        }
    }
}
