//! Events as log lines. The same fields have the same names in all lines.

use tracing::{debug, error, info, warn};

use crate::handler::ConsumerIdentity;
use crate::insight::alert::Alert;
use crate::insight::condition::Condition;
use crate::model::cause::chain;
use crate::model::entry::Hold;
use crate::model::policy::Reason;
use crate::runtime::observe::{JobEvent, OutageLine, QueueEvent, ScheduleEvent};
use crate::store::StoreError;

/// Logs with the names of the queue and the consumer in front.
macro_rules! log {
    ($level:ident, $identity:expr, $($rest:tt)*) => {
        $level!(
            stream = %$identity.queue.stream,
            group = %$identity.queue.group,
            consumer = %$identity.consumer,
            $($rest)*
        )
    };
}

/// Logs with the entry and its delivery count after the names.
macro_rules! log_entry {
    ($level:ident, $identity:expr, $hold:expr, $($rest:tt)*) => {
        log!(
            $level, $identity,
            entry_id = %$hold.id, delivery_count = $hold.delivery_count, $($rest)*
        )
    };
}

/// Logs with the handler, the event and the number of the attempt after the entry.
macro_rules! log_attempt {
    ($level:ident, $identity:expr, $hold:expr, $attempt:expr, $($rest:tt)*) => {
        log_entry!(
            $level, $identity, $hold,
            handler = $attempt.handler,
            event_type = $attempt.event_type,
            event_id = $attempt.event_id,
            attempt = $attempt.number,
            attempts_max = $attempt.number_max,
            $($rest)*
        )
    };
}

/// Logs an event of one job.
pub(super) fn log_job(identity: &ConsumerIdentity, hold: Hold, event: &JobEvent<'_>) {
    match *event {
        JobEvent::Succeeded => log_entry!(debug, identity, hold, "handler succeeded"),
        JobEvent::Duplicate => {
            log_entry!(debug, identity, hold, "duplicate: the job was done before");
        }
        JobEvent::Failed { event_id, attempt, failure } => {
            log_entry!(debug, identity, hold, event_id, attempt, ?failure, "attempt failed");
        }
        JobEvent::Snoozed { event_id, attempt, .. } => {
            log_entry!(debug, identity, hold, event_id, attempt, "snoozed, no failure counted");
        }
        JobEvent::RetryScheduled { attempt, counted: true, delay, error } => {
            let message = "attempt failed, retry scheduled";
            log_attempt!(warn, identity, hold, attempt, retry_in = ?delay, error, "{message}");
        }
        JobEvent::RetryScheduled { attempt, counted: false, delay, error } => {
            let message = "snoozed, retry scheduled";
            log_attempt!(debug, identity, hold, attempt, retry_in = ?delay, error, "{message}");
        }
        JobEvent::DeadLettered { attempt, reason: Reason::Cancelled, error } => {
            log_attempt!(
                info,
                identity,
                hold,
                attempt,
                error,
                "cancelled, stored as a dead letter"
            );
        }
        JobEvent::DeadLettered { attempt, reason, error } => {
            let reason = reason.as_str();
            let message = "stored as a dead letter";
            log_attempt!(error, identity, hold, attempt, reason, error, "{message}");
        }
        JobEvent::DeliveredAgain => {
            log_entry!(warn, identity, hold, "delivered again while in flight here");
        }
        JobEvent::LeaseLost { why } => log_entry!(warn, identity, hold, why, "lease lost"),
        JobEvent::RefusedLate { step } => {
            log_entry!(warn, identity, hold, step, "refused: the lease was lost");
        }
        JobEvent::TrimmedInFlight { dead_letter } => {
            log_entry!(error, identity, hold, %dead_letter, "payload trimmed while its handler runs");
        }
        JobEvent::RemovedInFlight => {
            let cause = "its consumer was deleted, or another client acknowledged it";
            let message = "entry removed while its job runs; the job goes on";
            log_entry!(error, identity, hold, cause, "{message}");
        }
        JobEvent::Cancelled => log_entry!(info, identity, hold, "cancelled while its handler runs"),
        JobEvent::Released => log_entry!(info, identity, hold, "released, no failure counted"),
        JobEvent::Unhandled { event_type } => {
            log_entry!(debug, identity, hold, event_type, "no handler for this event type");
        }
        JobEvent::ResultLost { event_id, why } => {
            let message = "job done, but its result could not be kept";
            log_entry!(warn, identity, hold, event_id, why, "{message}");
        }
        JobEvent::Ended(finish) => {
            log_entry!(debug, identity, hold, ?finish, "ended without a verdict");
        }
        JobEvent::Broken { panic } => {
            log_entry!(error, identity, hold, panic, "job ended by a fault of streamjobs");
        }
    }
}

/// Logs an event of a queue.
pub(super) fn log_queue(identity: &ConsumerIdentity, event: &QueueEvent<'_>) {
    match *event {
        QueueEvent::Delivered(entries) => log!(debug, identity, entries, "delivered"),
        QueueEvent::Acknowledged(entries) => log!(debug, identity, entries, "acknowledged"),
        QueueEvent::AcknowledgedLate(entries) => {
            log!(warn, identity, entries, "acknowledged entries that were not pending any more");
        }
        QueueEvent::Claimed(entries) => {
            log!(warn, identity, entries, "idle entries claimed from other consumers");
        }
        QueueEvent::ClaimedReleased(entries) => {
            log!(info, identity, entries, "released entries claimed");
        }
        QueueEvent::Recovered(entries) => {
            log!(warn, identity, entries, "recovered own entries whose delivery was lost");
        }
        QueueEvent::Trimmed(entries) => {
            log!(error, identity, entries, "payload trimmed, outcome of the job unknown");
        }
        QueueEvent::TrimmedUnread(entries) => {
            log!(error, identity, entries, "entries trimmed before they were delivered");
        }
        QueueEvent::PayloadsUnstored(jobs) => log!(error, identity, jobs, "{NO_LETTER}"),
        QueueEvent::GroupRecreated => {
            log!(error, identity, "group was lost and has been recreated at its durable floor");
        }
        QueueEvent::OldEntries { stream, entries } => log_old_entries(identity, stream, entries),
        QueueEvent::RetriesRestored(_) | QueueEvent::RetriesStranded(_) => {
            log_retry_set(identity, event);
        }
        QueueEvent::Parked(_)
        | QueueEvent::PlacesFreed(_)
        | QueueEvent::LimitsDiffer { .. }
        | QueueEvent::LimitChanged { .. } => log_limit(identity, event),
        QueueEvent::ScheduledEntered(_)
        | QueueEvent::ScheduledLost(_)
        | QueueEvent::ScheduledRestored(_)
        | QueueEvent::ScheduledStranded(_) => log_scheduled(identity, event),
        QueueEvent::Schedule(event) => log_schedule(identity, &event),
        QueueEvent::ClaimedEarly { consumer: claimer } => {
            log!(warn, identity, claimer, "a running job was claimed before its lease ended");
        }
        QueueEvent::ClaimRefused { why } => log!(warn, identity, why, "no idle entries claimed"),
        QueueEvent::StoreFailed { operation, error } => {
            log!(warn, identity, operation, "Redis command failed: {}", chain(error));
        }
        QueueEvent::StartAwaited | QueueEvent::Limited { .. } => log_starts(identity, event),
        QueueEvent::Reconnected => log!(info, identity, "read connection reopened"),
        QueueEvent::ReadTimedOut => log!(warn, identity, "read timed out, connection closed"),
        QueueEvent::EntriesTrimmed(entries) => log!(debug, identity, entries, "stream trimmed"),
        QueueEvent::DeadLettersTrimmed(dead_letters) => {
            log!(warn, identity, dead_letters, "oldest dead letters deleted, over the limit");
        }
        QueueEvent::ConsumersRemoved(consumers) => {
            log!(info, identity, consumers, "removed dead consumers with nothing pending");
        }
        QueueEvent::PauseChanged { paused, scope } => {
            let what = if paused { "paused: takes in no new work" } else { "resumed" };
            log!(info, identity, scope, "{what}");
        }
        QueueEvent::TypeWithoutHandler { event_type, fate, until_dead } => {
            log!(warn, identity, event_type, ?until_dead, "no handler for this event type: {fate}");
        }
        QueueEvent::LoopEnded { name, panic } => {
            log!(error, identity, name, panic, "a loop panicked: restart the process");
        }
        QueueEvent::Alerted(alert) => log_alert(identity, alert),
    }
}

/// Logs what became of the jobs of a lost retry set.
fn log_retry_set(identity: &ConsumerIdentity, event: &QueueEvent<'_>) {
    match *event {
        QueueEvent::RetriesRestored(jobs) => {
            log!(error, identity, jobs, "the retry set was lost: its jobs are scheduled again");
        }
        QueueEvent::RetriesStranded(jobs) => {
            let message =
                "the retry set was lost: its jobs wait until the user has the right to run HSCAN";
            log!(error, identity, jobs, "{message}");
        }
        _ => {}
    }
}

/// Logs what the group's limit over all processes did.
fn log_limit(identity: &ConsumerIdentity, event: &QueueEvent<'_>) {
    match *event {
        QueueEvent::Parked(jobs) => {
            log!(debug, identity, jobs, "jobs wait in line for other jobs of their key");
        }
        QueueEvent::PlacesFreed(places) => {
            let message = "freed places in the group's limit, because their jobs were gone";
            log!(warn, identity, places, "{message}");
        }
        QueueEvent::LimitsDiffer { others } => {
            log!(warn, identity, others, "a live process of the group has other limits");
        }
        QueueEvent::LimitChanged { limit, in_code } => {
            let message = "an operator has changed the limit of the group over all processes";
            log!(info, identity, limit, in_code, "{message}");
        }
        _ => {}
    }
}

/// Logs why jobs wait for their start.
fn log_starts(identity: &ConsumerIdentity, event: &QueueEvent<'_>) {
    match *event {
        QueueEvent::Limited { delay } => {
            let message =
                "another system limits the group: it starts no job until the delay is over";
            log!(warn, identity, ?delay, "{message}");
        }
        _ => log!(debug, identity, "waits until the next job can start"),
    }
}

/// Logs what became of scheduled events.
fn log_scheduled(identity: &ConsumerIdentity, event: &QueueEvent<'_>) {
    match *event {
        QueueEvent::ScheduledEntered(events) => {
            log!(debug, identity, events, "scheduled events entered the stream");
        }
        QueueEvent::ScheduledLost(events) => {
            let message = "scheduled events are lost: their records were deleted or evicted";
            log!(error, identity, events, "{message}");
        }
        QueueEvent::ScheduledRestored(events) => {
            log!(error, identity, events, "the set of scheduled events was lost and is restored");
        }
        QueueEvent::ScheduledStranded(events) => {
            let message = "the set of scheduled events was lost: the events wait until the user may \
                           run HSCAN";
            log!(error, identity, events, "{message}");
        }
        _ => {}
    }
}

/// Logs what became of schedules.
fn log_schedule(identity: &ConsumerIdentity, event: &ScheduleEvent<'_>) {
    match *event {
        ScheduleEvent::Fired(events) => log!(debug, identity, events, "schedule fired"),
        ScheduleEvent::Missed(occurrences) => {
            log!(warn, identity, occurrences, "occurrences of a schedule were missed");
        }
        ScheduleEvent::Skipped(occurrences) => {
            let message = "occurrences of a schedule were skipped: the job of the last published \
                           occurrence has not ended";
            log!(info, identity, occurrences, "{message}");
        }
        ScheduleEvent::Lost(schedules) => {
            let message = "schedules are lost: their definitions were deleted or evicted";
            log!(error, identity, schedules, "{message}");
        }
        ScheduleEvent::Forgotten(schedules) => {
            log!(info, identity, schedules, "removed schedules that no process declares");
        }
        ScheduleEvent::Declared { schedule, when } => {
            log!(info, identity, schedule, when, "schedule declared");
        }
        ScheduleEvent::Restored { schedule } => {
            log!(error, identity, schedule, "the next time of a schedule was lost and is restored");
        }
        ScheduleEvent::NotFired { schedule, why } => {
            log!(warn, identity, schedule, "this process does not fire the schedule: {why}");
        }
    }
}

/// Logs that a group that is new on the whole stream runs what was published before.
fn log_old_entries(identity: &ConsumerIdentity, stream: &str, entries: u64) {
    let (group, consumer) = (&identity.queue.group, &identity.consumer);
    let choice = "start = \"0\", the default; with start = \"$\" a new group begins after them";
    let message = "new group: it runs events that were published before";
    warn!(stream, %group, %consumer, entries, choice, "{message}");
}

/// Logs those events of an outage that every queue would repeat.
pub(super) fn log_queue_within_outage(identity: &ConsumerIdentity, event: &QueueEvent<'_>) {
    log!(debug, identity, ?event, "during an outage of Redis");
}

/// Logs an outage of the server, with the step that noticed it.
pub(super) fn log_outage(line: OutageLine, noticed: Option<(&'static str, &StoreError)>) {
    let (operation, cause) =
        noticed.map(|(operation, error)| (operation, chain(error))).unwrap_or_default();
    match line {
        OutageLine::Begun => warn!(operation, "Redis is not reachable: {cause}"),
        OutageLine::Continues { lasted, failures } => {
            warn!(operation, failures, ?lasted, "Redis is still not reachable: {cause}");
        }
        OutageLine::Ended { lasted, failures } => {
            info!(failures, "Redis is reachable again after {} s", lasted.as_secs());
        }
    }
}

fn log_alert(identity: &ConsumerIdentity, alert: &Alert) {
    let (kind, text) = (alert.condition.as_str(), &alert.text);
    match alert.raised {
        // The text has the cursor and the last id.
        true if alert.condition == Condition::CursorBeyond => {
            log!(warn, identity, kind, text, "alert");
        }
        true => log!(error, identity, kind, text, "alert"),
        false => log!(info, identity, kind, text, "alert ended"),
    }
}

const NO_LETTER: &str =
    "payload trimmed, and no dead letter stored: the key of the dead letters has another type";
