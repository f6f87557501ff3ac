//! What happened, counted and logged: the one place that names events and their fields.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{debug, error, info, warn};

use crate::cause::chain;
use crate::entry::{EntryId, Hold};
use crate::handler::Place;
use crate::policy::Reason;
use crate::store::StoreError;

macro_rules! counters {
    ($($(#[$docs:meta])* $name:ident,)*) => {
        /// How often each thing happened since the runtime started.
        ///
        /// Every one of these also writes a log line when it happens.
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
    /// Entries that the server confirmed as acknowledged.
    acknowledged,
    /// Acknowledgements of entries that were not pending any more: late, or claimed by another.
    acknowledged_late,
    /// Failed jobs set aside until their back-off is over.
    set_aside,
    /// Jobs stored as dead letters.
    buried,
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
    /// Looks at lost payloads that were left as they are, because the key of the dead letters holds
    /// something else and no dead letter can tell of them.
    left,
    /// Entries handed back uncounted.
    handed_back,
    /// Entries of event types for which the group has no handler.
    unhandled,
    /// Groups that were lost and made again.
    groups_restored,
    /// Sweeps that the server's clock, or a gap in its answers, forbade.
    sweeps_refused,
    /// Requests to the server that failed.
    server_errors,
    /// Entries that retention took from the stream.
    entries_trimmed,
    /// Dead consumers that were removed.
    consumers_retired,
}

/// Counts and logs for one queue of one process run.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Of the runtime, and of this consumer alone.
    tallies: [Arc<Tally>; 2],
    place: Arc<Place>,
}

/// Adds to a counter of the report.
macro_rules! count {
    ($report:expr, $name:ident, $by:expr) => {
        for tally in &$report.tallies {
            tally.$name.fetch_add(u64::try_from($by).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
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
    pub(crate) fn new(tallies: [Arc<Tally>; 2], place: Arc<Place>) -> Self {
        Self { tallies, place }
    }

    pub(crate) fn delivered(&self, entries: usize) {
        count!(self, delivered, entries);
        log!(debug, self, entries, "delivered");
    }

    pub(crate) fn succeeded(&self, hold: Hold) {
        count!(self, succeeded, 1);
        log!(debug, self, entry_id = %hold.id, delivery_count = hold.delivery_count, "handler succeeded");
    }

    pub(crate) fn failed(&self, hold: Hold, event_id: &str, attempt: u32) {
        count!(self, failed, 1);
        log!(debug, self, entry_id = %hold.id, event_id, attempt, "attempt failed");
    }

    pub(crate) fn acknowledged(&self, asked: usize, confirmed: usize) {
        count!(self, acknowledged, confirmed);
        let late = asked.saturating_sub(confirmed);
        if late > 0 {
            count!(self, acknowledged_late, late);
            log!(warn, self, late, "acknowledged entries that were not pending any more");
        }
    }

    pub(crate) fn set_aside(
        &self,
        hold: Hold,
        event_id: &str,
        attempt: u32,
        delay: std::time::Duration,
        error: &str,
    ) {
        count!(self, set_aside, 1);
        log!(debug, self, entry_id = %hold.id, event_id, attempt, ?delay, error, "set aside until its back-off is over");
    }

    /// The error is what the handler said, as the dead letter keeps it.
    pub(crate) fn buried(&self, hold: Hold, event_id: &str, reason: Reason, error: Option<&str>) {
        count!(self, buried, 1);
        log!(info, self, entry_id = %hold.id, event_id, reason = reason.as_str(), error, "stored as a dead letter");
    }

    pub(crate) fn claimed(&self, entries: usize) {
        count!(self, claimed, entries);
        log!(warn, self, entries, "claimed entries of consumers that were not heard of");
    }

    pub(crate) fn recovered(&self, entries: usize) {
        count!(self, recovered, entries);
        log!(warn, self, entries, "took up entries whose delivery had been lost");
    }

    pub(crate) fn delivered_again(&self, hold: Hold) {
        count!(self, delivered_again, 1);
        log!(warn, self, entry_id = %hold.id, delivery_count = hold.delivery_count, "delivered again while in flight here");
    }

    pub(crate) fn lease_lost(&self, hold: Hold, why: &'static str) {
        count!(self, leases_lost, 1);
        log!(warn, self, entry_id = %hold.id, delivery_count = hold.delivery_count, why, "lost the lease");
    }

    pub(crate) fn refused_late(&self, hold: Hold, step: &'static str) {
        count!(self, refused_late, 1);
        log!(warn, self, entry_id = %hold.id, delivery_count = hold.delivery_count, step, "refused: another attempt has the entry");
    }

    pub(crate) fn trimmed(&self, entries: usize) {
        count!(self, trimmed, entries);
        log!(error, self, entries, "payload trimmed before the job was done, outcome unknown");
    }

    pub(crate) fn left(&self, jobs: usize) {
        if jobs > 0 {
            count!(self, left, jobs);
            log!(
                error,
                self,
                jobs,
                "left without a payload: the key of the dead letters holds something else"
            );
        }
    }

    pub(crate) fn handed_back(&self, entries: usize) {
        count!(self, handed_back, entries);
        log!(info, self, entries, "handed back uncounted");
    }

    pub(crate) fn unhandled(&self, hold: Hold, event_type: &str) {
        count!(self, unhandled, 1);
        log!(debug, self, entry_id = %hold.id, event_type, "no handler for this event type");
    }

    pub(crate) fn group_restored(&self) {
        count!(self, groups_restored, 1);
        log!(error, self, "the group was lost and has been made again at its durable floor");
    }

    pub(crate) fn sweep_refused(&self, why: &'static str) {
        count!(self, sweeps_refused, 1);
        log!(warn, self, why, "refused to claim idle entries");
    }

    pub(crate) fn server_error(&self, during: &'static str, failure: &StoreError) {
        count!(self, server_errors, 1);
        log!(warn, self, during, error = chain(failure), "the server did not do what it was asked");
    }

    pub(crate) fn entries_trimmed(&self, entries: u64) {
        if entries > 0 {
            count!(self, entries_trimmed, entries);
            log!(debug, self, entries, "trimmed history");
        }
    }

    pub(crate) fn consumers_retired(&self, consumers: usize) {
        if consumers > 0 {
            count!(self, consumers_retired, consumers);
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

    pub(crate) fn trimmed_while_held(&self, hold: Hold, letter: EntryId) {
        count!(self, trimmed, 1);
        log!(error, self, entry_id = %hold.id, dead_letter = %letter, "payload trimmed while its handler runs");
    }
}
