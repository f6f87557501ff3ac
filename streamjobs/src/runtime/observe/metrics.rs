//! Events as metrics.

use crate::insight::metrics::{ClaimReason, DuplicateStage, Finish, QueueMetrics};
use crate::runtime::observe::{JobEvent, QueueEvent, ScheduleEvent};

/// Updates the metrics for an event of one job.
pub(super) fn record_job(metrics: &QueueMetrics, event: &JobEvent<'_>) {
    match *event {
        JobEvent::Succeeded => metrics.finished(Finish::Ok),
        JobEvent::Duplicate => {
            metrics.finished(Finish::Duplicate);
            metrics.duplicate(DuplicateStage::Handle);
        }
        JobEvent::Failed { failure, .. } => metrics.failed(failure),
        JobEvent::Snoozed { .. } => metrics.snoozed.increment(1),
        JobEvent::RetryScheduled { .. } => metrics.finished(Finish::Retry),
        JobEvent::DeadLettered { reason, .. } => {
            metrics.finished(Finish::Dead);
            metrics.dead_lettered(reason);
        }
        JobEvent::DeliveredAgain => metrics.duplicate(DuplicateStage::Delivery),
        JobEvent::LeaseLost { .. } => metrics.leases_lost.increment(1),
        JobEvent::RefusedLate { .. } => {
            metrics.refused_late.increment(1);
            metrics.finished(Finish::LostLease);
        }
        JobEvent::TrimmedInFlight { .. } => metrics.trimmed.increment(1),
        JobEvent::RemovedInFlight => metrics.removed_in_flight.increment(1),
        // Counted when the attempt ends.
        JobEvent::Cancelled => {}
        JobEvent::Released => metrics.finished(Finish::Cancelled),
        JobEvent::Unhandled { .. } => metrics.unhandled.increment(1),
        JobEvent::ResultLost { .. } => metrics.results_lost.increment(1),
        JobEvent::Ended(finish) => metrics.finished(finish),
        JobEvent::Broken { .. } => metrics.finished(Finish::Abandoned),
    }
}

/// Updates the metrics for an event of a queue, by the number that it counts.
pub(super) fn record_queue(metrics: &QueueMetrics, event: &QueueEvent<'_>, by: u64) {
    match *event {
        QueueEvent::Delivered(_) => metrics.consumed.increment(by),
        QueueEvent::Acknowledged(_) => metrics.acknowledged.increment(by),
        QueueEvent::AcknowledgedLate(_) => metrics.acknowledged_late.increment(by),
        QueueEvent::Claimed(_) => metrics.claimed(ClaimReason::Idle, by),
        QueueEvent::ClaimedReleased(_) => metrics.claimed(ClaimReason::Released, by),
        QueueEvent::Recovered(_) => metrics.claimed(ClaimReason::LostReply, by),
        QueueEvent::Trimmed(_) => metrics.trimmed.increment(by),
        QueueEvent::TrimmedUnread(_) => metrics.trimmed_unread.increment(by),
        QueueEvent::PayloadsUnstored(_) => metrics.payloads_unstored.increment(by),
        QueueEvent::GroupRecreated => metrics.groups_recreated.increment(by),
        QueueEvent::RetriesRestored(_) => metrics.retries_restored.increment(by),
        QueueEvent::RetriesStranded(_) => metrics.retries_stranded.increment(by),
        QueueEvent::Parked(_) => metrics.parked.increment(by),
        QueueEvent::PlacesFreed(_) => metrics.places_freed.increment(by),
        QueueEvent::ScheduledEntered(_) => metrics.scheduled_entered.increment(by),
        QueueEvent::ScheduledLost(_) => metrics.scheduled_lost.increment(by),
        QueueEvent::ScheduledRestored(_) => metrics.scheduled_restored.increment(by),
        QueueEvent::ScheduledStranded(_) => metrics.scheduled_stranded.increment(by),
        QueueEvent::Schedule(event) => record_schedule(metrics, event, by),
        QueueEvent::StartAwaited => metrics.starts_awaited.increment(by),
        QueueEvent::Limited { .. } => metrics.limited.increment(by),
        QueueEvent::ClaimRefused { .. } => metrics.claims_refused.increment(by),
        QueueEvent::StoreFailed { .. } => metrics.server_errors.increment(by),
        QueueEvent::Reconnected => metrics.reconnects.increment(by),
        QueueEvent::ReadTimedOut => metrics.read_timeouts.increment(by),
        QueueEvent::EntriesTrimmed(_) => metrics.entries_trimmed.increment(by),
        QueueEvent::DeadLettersTrimmed(_) => metrics.letters_trimmed.increment(by),
        QueueEvent::ConsumersRemoved(_) => metrics.consumers_retired.increment(by),
        QueueEvent::PauseChanged { .. }
        | QueueEvent::TypeWithoutHandler { .. }
        | QueueEvent::LoopEnded { .. }
        | QueueEvent::ClaimedEarly { .. }
        | QueueEvent::LimitsDiffer { .. }
        | QueueEvent::LimitChanged { .. }
        | QueueEvent::OldEntries { .. }
        | QueueEvent::Alerted(_) => {}
    }
}

fn record_schedule(metrics: &QueueMetrics, event: ScheduleEvent<'_>, by: u64) {
    match event {
        ScheduleEvent::Fired(_) => metrics.schedules_fired.increment(by),
        ScheduleEvent::Missed(_) => metrics.schedules_missed.increment(by),
        ScheduleEvent::Skipped(_) => metrics.schedules_skipped.increment(by),
        ScheduleEvent::Lost(_) => metrics.schedules_lost.increment(by),
        ScheduleEvent::NotFired { .. } => metrics.schedules_not_fired.increment(by),
        ScheduleEvent::Forgotten(_)
        | ScheduleEvent::Declared { .. }
        | ScheduleEvent::Restored { .. } => {}
    }
}
