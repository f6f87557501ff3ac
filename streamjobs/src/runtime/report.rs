//! What happened, counted and logged: the one place that names events and their fields.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::handler::Place;
use crate::insight::alert::Alert;
use crate::insight::metrics::{
    ClaimReason, DuplicateStage, Failure, Finish, QueueMetrics, Running,
};
use crate::insight::view::GroupInfo;
use crate::model::cause::chain;
use crate::model::entry::{Delivery, EntryId, Hold};
use crate::model::policy::Reason;
use crate::model::record::due;
use crate::runtime::lookout::Lookout;
use crate::store::StoreError;
use crate::store::inspect::StreamInfo;

macro_rules! counters {
    ($($(#[$docs:meta])* $name:ident,)*) => {
        /// How often each thing happened since the runtime started.
        ///
        /// Every one of these also writes a log line when it happens, and moves a metric.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$docs])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Tally {
            $($name: AtomicU64,)*
        }

        impl Tally {
            pub(crate) fn counters(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Entries handed to this process, claims included.
    delivered,
    /// Handlers that returned successfully, or whose guard knew the job as done.
    succeeded,
    /// Attempts that ended in an error, a panic or a timeout.
    failed,
    /// Attempts that were put off by what was not the job's doing, and count as no failure.
    snoozed,
    /// Entries that the server confirmed as acknowledged.
    acknowledged,
    /// Acknowledgements of entries that were not pending any more: late, or claimed by another.
    acknowledged_late,
    /// Jobs set aside until they are tried again: failed ones until their back-off is over, and those
    /// that were put off.
    retried,
    /// Jobs stored as dead letters.
    dead_lettered,
    /// Idle entries claimed from consumers that were not heard of.
    claimed,
    /// Own entries whose delivery had been lost on the way, taken up again.
    recovered,
    /// Deliveries of entries that this process was working on already.
    delivered_again,
    /// Attempts that lost their lease.
    leases_lost,
    /// Steps of an attempt that were refused because another attempt had the entry.
    refused_late,
    /// Entries whose payload was trimmed away before they were done.
    trimmed,
    /// Entries that retention took before this group had got them, which no dead letter can tell
    /// of. An overrun that begins and ends between two beats, within a third of the lease or two
    /// thirds where the group had nothing to do, is not seen on servers that forget it at the next
    /// read.
    trimmed_unread,
    /// Looks at lost payloads that were left as they are, because the key of the dead letters holds
    /// something else and no dead letter can tell of them.
    left,
    /// Entries handed back uncounted.
    released,
    /// Entries of event types for which the group has no handler.
    unhandled,
    /// Groups that were lost and made again.
    groups_recreated,
    /// Sweeps that the server's clock, or a gap in its answers, forbade.
    claims_refused,
    /// Requests to the server that failed.
    server_errors,
    /// Reading connections that were opened again.
    reconnects,
    /// Reading connections that were given up because the server was silent for longer than the
    /// block time and its margin.
    read_timeouts,
    /// Entries that retention took from the stream.
    entries_trimmed,
    /// Dead letters deleted because there were more than may be kept.
    letters_trimmed,
    /// Dead consumers that were removed.
    consumers_retired,
    /// Runs of a [service](crate::handler::service::Service) that ended before they should, by a panic or by
    /// returning. It is run again after a pause.
    services_ended,
}

impl Tally {
    /// Services belong to no queue, and have a log of their own.
    pub(crate) fn service_ended(&self) {
        self.services_ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts and logs for one queue of one process run.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Of the runtime, of this consumer, and of this queue of it.
    tallies: [Arc<Tally>; 3],
    metrics: Arc<QueueMetrics>,
    lookout: Arc<Lookout>,
    place: Arc<Place>,
}

/// Adds to a counter of the report, and to the metric that shows it alone.
macro_rules! count {
    ($report:expr, $name:ident, $by:expr) => {
        for tally in &$report.tallies {
            tally.$name.fetch_add(wide($by), Ordering::Relaxed);
        }
    };
    ($report:expr, $name:ident as $metric:ident, $by:expr) => {
        count!($report, $name, $by);
        $report.metrics.$metric.increment(wide($by));
    };
}

/// Logs with the names of the queue in front.
macro_rules! log {
    ($level:ident, $report:expr, $($rest:tt)*) => {
        $level!(
            stream = %$report.place.stream, group = %$report.place.group, consumer = %$report.place.consumer,
            $($rest)*
        )
    };
}

impl Report {
    pub(crate) fn new(
        tallies: [Arc<Tally>; 3],
        metrics: Arc<QueueMetrics>,
        lookout: &Arc<Lookout>,
        place: Arc<Place>,
    ) -> Self {
        Self { tallies, metrics, lookout: Arc::clone(lookout), place }
    }

    /// What this consumer has counted on this queue.
    pub(crate) fn counted(&self) -> Counters {
        let [.., queue] = &self.tallies;
        queue.counters()
    }

    /// How many jobs the queue may have in flight.
    pub(crate) fn slots(&self, slots: usize) {
        self.metrics.set_slots(slots);
    }

    pub(crate) fn delivered(&self, entries: usize) {
        count!(self, delivered as consumed, entries);
        log!(debug, self, entries, "delivered");
    }

    /// A handler is about to run: how late, by the server's clock in milliseconds. It counts as
    /// running until the guard is dropped.
    pub(crate) fn started(&self, delivery: &Delivery, server_now: u64) -> Running<'_> {
        // A delivery that is not the first says when others died, not how long work waits.
        if delivery.delivery_count == 1 {
            let (metric, from) = if delivery.inlet.is_lane() {
                (&self.metrics.lateness, due(&delivery.entry))
            } else {
                (&self.metrics.queue_time, Some(delivery.entry.id().milliseconds()))
            };
            if let Some(from) = from {
                metric.record(Duration::from_millis(server_now.saturating_sub(from)));
            }
        }
        self.metrics.run()
    }

    pub(crate) fn succeeded(&self, hold: Hold) {
        count!(self, succeeded, 1);
        self.metrics.finished(Finish::Ok);
        log!(debug, self, entry_id = %hold.id, delivery_count = hold.delivery_count, "handler succeeded");
    }

    pub(crate) fn done_before(&self, hold: Hold) {
        count!(self, succeeded, 1);
        self.metrics.finished(Finish::Duplicate);
        self.metrics.duplicate(DuplicateStage::Handle);
        log!(debug, self, entry_id = %hold.id, delivery_count = hold.delivery_count, "known as done");
    }

    pub(crate) fn failed(&self, hold: Hold, event_id: &str, attempt: u32, failure: Failure) {
        count!(self, failed, 1);
        self.metrics.failed(failure);
        log!(debug, self, entry_id = %hold.id, event_id, attempt, ?failure, "attempt failed");
    }

    pub(crate) fn snoozed(&self, hold: Hold, event_id: &str, attempt: u32) {
        count!(self, snoozed as snoozed, 1);
        log!(debug, self, entry_id = %hold.id, event_id, attempt, "attempt put off, not counted as a failure");
    }

    pub(crate) fn acknowledged(&self, asked: usize, confirmed: usize) {
        count!(self, acknowledged as acknowledged, confirmed);
        let late = asked.saturating_sub(confirmed);
        if late > 0 {
            count!(self, acknowledged_late as acknowledged_late, late);
            log!(warn, self, late, "acknowledged entries that were not pending any more");
        }
    }

    pub(crate) fn retry_scheduled(
        &self,
        hold: Hold,
        event_id: &str,
        failures: u32,
        delay: Duration,
        error: &str,
    ) {
        count!(self, retried, 1);
        self.metrics.finished(Finish::Retry);
        log!(debug, self, entry_id = %hold.id, event_id, failures, ?delay, error, "set aside until it is tried again");
    }

    /// The error is what the handler said, as the dead letter keeps it.
    pub(crate) fn dead_lettered(
        &self,
        hold: Hold,
        event_id: &str,
        reason: Reason,
        error: Option<&str>,
    ) {
        count!(self, dead_lettered, 1);
        self.metrics.finished(Finish::Dead);
        self.metrics.dead_lettered(reason);
        self.lookout.dead_lettered(1);
        log!(info, self, entry_id = %hold.id, event_id, reason = reason.as_str(), error, "stored as a dead letter");
    }

    pub(crate) fn claimed(&self, entries: usize) {
        count!(self, claimed, entries);
        self.metrics.claimed(ClaimReason::Idle, wide(entries));
        self.lookout.claimed(wide(entries));
        log!(warn, self, entries, "claimed entries of consumers that were not heard of");
    }

    pub(crate) fn recovered(&self, entries: usize) {
        count!(self, recovered, entries);
        self.metrics.claimed(ClaimReason::LostReply, wide(entries));
        log!(warn, self, entries, "took up entries whose delivery had been lost");
    }

    pub(crate) fn delivered_again(&self, hold: Hold) {
        count!(self, delivered_again, 1);
        self.metrics.duplicate(DuplicateStage::Delivery);
        log!(warn, self, entry_id = %hold.id, delivery_count = hold.delivery_count, "delivered again while in flight here");
    }

    pub(crate) fn lease_lost(&self, hold: Hold, why: &'static str) {
        count!(self, leases_lost as leases_lost, 1);
        log!(warn, self, entry_id = %hold.id, delivery_count = hold.delivery_count, why, "lost the lease");
    }

    /// Ends the job here: another attempt has it.
    pub(crate) fn refused_late(&self, hold: Hold, step: &'static str) {
        count!(self, refused_late as refused_late, 1);
        self.metrics.finished(Finish::LostLease);
        log!(warn, self, entry_id = %hold.id, delivery_count = hold.delivery_count, step, "refused: another attempt has the entry");
    }

    pub(crate) fn trimmed(&self, entries: usize) {
        count!(self, trimmed as trimmed, entries);
        self.lookout.dead_lettered(wide(entries));
        log!(error, self, entries, "payload trimmed before the job was done, outcome unknown");
    }

    pub(crate) fn trimmed_unread(&self, entries: u64) {
        if entries > 0 {
            count!(self, trimmed_unread as trimmed_unread, entries);
            self.lookout.trimmed_unread(entries);
            log!(error, self, entries, "entries were trimmed before they were delivered");
        }
    }

    pub(crate) fn left(&self, jobs: usize) {
        if jobs > 0 {
            count!(self, left as payloads_unstored, jobs);
            log!(
                error,
                self,
                jobs,
                "left without a payload: the key of the dead letters holds something else"
            );
        }
    }

    pub(crate) fn released(&self, hold: Hold) {
        count!(self, released, 1);
        self.metrics.finished(Finish::Cancelled);
        log!(info, self, entry_id = %hold.id, "handed back uncounted");
    }

    /// The process is done with a job without a verdict of its own.
    pub(crate) fn given_up(&self, hold: Hold, finish: Finish) {
        self.metrics.finished(finish);
        log!(debug, self, entry_id = %hold.id, ?finish, "given up");
    }

    pub(crate) fn unhandled(&self, hold: Hold, event_type: &str) {
        count!(self, unhandled as unhandled, 1);
        log!(debug, self, entry_id = %hold.id, event_type, "no handler for this event type");
    }

    pub(crate) fn group_recreated(&self) {
        count!(self, groups_recreated as groups_recreated, 1);
        self.lookout.group_recreated();
        log!(error, self, "the group was lost and has been made again at its durable floor");
    }

    pub(crate) fn claim_refused(&self, why: &'static str) {
        count!(self, claims_refused as claims_refused, 1);
        log!(warn, self, why, "refused to claim idle entries");
    }

    /// What a look or a housekeeping step gave. One that fails is done the next time.
    pub(crate) fn unless_failed<T>(
        &self,
        during: &'static str,
        answer: Result<T, StoreError>,
    ) -> Option<T> {
        match answer {
            Ok(value) => Some(value),
            // The reader makes a lost group again, and says so.
            Err(StoreError::GroupMissing) => None,
            Err(error) => {
                self.server_error(during, &error);
                None
            }
        }
    }

    pub(crate) fn server_error(&self, during: &'static str, failure: &StoreError) {
        count!(self, server_errors as server_errors, 1);
        log!(warn, self, during, error = chain(failure), "the server did not do what it was asked");
    }

    pub(crate) fn reconnected(&self) {
        count!(self, reconnects as reconnects, 1);
        log!(info, self, "opened the reading connection again");
    }

    pub(crate) fn read_timeouts(&self) {
        count!(self, read_timeouts as read_timeouts, 1);
        log!(warn, self, "the server was silent: gave the reading connection up");
    }

    pub(crate) fn received(&self, took: Duration) {
        self.metrics.receive.record(took);
    }

    pub(crate) fn settled(&self, took: Duration) {
        self.metrics.settle.record(took);
    }

    pub(crate) fn renewed(&self, took: Duration) {
        self.metrics.renew.record(took);
    }

    pub(crate) fn entries_trimmed(&self, entries: u64) {
        if entries > 0 {
            count!(self, entries_trimmed as entries_trimmed, entries);
            log!(debug, self, entries, "trimmed history");
        }
    }

    pub(crate) fn letters_trimmed(&self, letters: u64) {
        if letters > 0 {
            count!(self, letters_trimmed as letters_trimmed, letters);
            log!(warn, self, letters, "deleted old dead letters");
        }
    }

    /// The group and its stream as the server sees them; none where it could not be asked.
    pub(crate) fn seen(&self, group: Option<&GroupInfo>, stream: Option<&StreamInfo>) {
        if let Some(group) = group {
            self.metrics.seen_group(group);
        }
        if let Some(stream) = stream {
            self.metrics.seen_stream(stream);
        }
    }

    pub(crate) fn alert(&self, alert: &Alert) {
        let (kind, text) = (alert.condition.as_str(), &alert.text);
        match alert.raised {
            true => log!(error, self, kind, text, "alert"),
            false => log!(info, self, kind, text, "alert is over"),
        }
    }

    pub(crate) fn consumers_retired(&self, consumers: usize) {
        if consumers > 0 {
            count!(self, consumers_retired as consumers_retired, consumers);
            log!(info, self, consumers, "removed dead consumers with nothing pending");
        }
    }

    pub(crate) fn paused(&self, paused: bool, place: &'static str) {
        let what = if paused { "paused: takes in no more work" } else { "resumed" };
        log!(info, self, place, "{what}");
    }

    pub(crate) fn loop_ended(&self, name: &'static str, panic: &str) {
        log!(error, self, name, panic, "a loop of the runtime ended: restart the process");
    }

    pub(crate) fn job_broken(&self, hold: Hold, panic: &str) {
        log!(error, self, entry_id = %hold.id, panic, "a job ended by a fault of the runtime");
        self.given_up(hold, Finish::Abandoned);
    }

    pub(crate) fn trimmed_while_held(&self, hold: Hold, letter: EntryId) {
        count!(self, trimmed as trimmed, 1);
        log!(error, self, entry_id = %hold.id, dead_letter = %letter, "payload trimmed while its handler runs");
    }
}

fn wide<T: TryInto<u64>>(count: T) -> u64 {
    count.try_into().unwrap_or(u64::MAX)
}
