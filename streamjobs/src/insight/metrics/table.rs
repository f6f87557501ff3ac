//! The table of metrics.

use metrics::Unit;

/// One metric, as a scrape shows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    kind: Kind,
    unit: Unit,
    pub(super) name: &'static str,
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
        $(pub(super) const $constant: Metric = Metric {
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
        "Events sent to the server, by outcome";
    UNIQUE_REFUSED: Counter in Count, "streamjobs_unique_refused_total",
        "Events that were not published because an equal event still has its lock";
    REPLACED: Counter in Count, "streamjobs_debounced_replaced_total",
        "Debounced events that were replaced before they were due";
    CONSUMED: Counter in Count, "messaging_client_consumed_messages_total",
        "Entries delivered to this process, claims included";
    OPERATION: Histogram in Seconds, "messaging_client_operation_duration_seconds",
        "Duration of one request to the server; a receive waits for work";
    PROCESS: Histogram in Seconds, "messaging_process_duration_seconds",
        "Duration of one run of a handler";
    FINISHED: Counter in Count, "streamjobs_jobs_finished_total",
        "Jobs that this process finished, by outcome";
    FAILED: Counter in Count, "streamjobs_attempts_failed_total",
        "Attempts that failed, by reason";
    SNOOZED: Counter in Count, "streamjobs_attempts_snoozed_total",
        "Attempts that were snoozed, which do not count as failures";
    DEAD_LETTERS_STORED: Counter in Count, "streamjobs_dead_letters_total",
        "Jobs stored as dead letters, by reason";
    UNHANDLED: Counter in Count, "streamjobs_unhandled_total",
        "Deliveries of event types for which the process has no handler";
    QUEUE_TIME: Histogram in Seconds, "streamjobs_queue_time_seconds",
        "From publishing to the start of the first attempt, by the server's clock";
    SCHEDULE_LATENESS: Histogram in Seconds, "streamjobs_schedule_lateness_seconds",
        "From the end of a back-off to the start of the retry, by the server's clock";
    RUNNING: Gauge in Count, "streamjobs_running", "Handlers that are running";
    BUFFERED: Gauge in Count, "streamjobs_buffered",
        "Entries in flight whose handler is not running: not started, or not settled yet";
    SLOTS: Gauge in Count, "streamjobs_slots", "Jobs that may be in flight at once";
    SHARED_SLOTS: Gauge in Count, "streamjobs_shared_slots", "Slots of a set that several groups share";
    SHARED_SLOTS_IN_USE: Gauge in Count, "streamjobs_shared_slots_in_use",
        "Slots of a set that are taken: by jobs in flight, and by reads on their way";
    ACKNOWLEDGED: Counter in Count, "streamjobs_acknowledged_total",
        "Entries that the server confirmed as acknowledged";
    ACKNOWLEDGED_LATE: Counter in Count, "streamjobs_acknowledged_late_total",
        "Acknowledgements of entries that were no longer pending";
    CLAIMED: Counter in Count, "streamjobs_claimed_total",
        "Entries claimed, by reason";
    DUPLICATES: Counter in Count, "streamjobs_duplicates_total",
        "Duplicates that were detected and not run, by stage";
    RENEW: Histogram in Seconds, "streamjobs_lease_renew_seconds",
        "Duration of one renewal of leases";
    LEASES_LOST: Counter in Count, "streamjobs_lease_lost_total",
        "Attempts that lost their lease";
    REFUSED_LATE: Counter in Count, "streamjobs_refused_late_total",
        "Steps refused because another attempt owned the entry";
    TRIMMED: Counter in Count, "streamjobs_payloads_trimmed_total",
        "Entries whose payload was trimmed before their job was done";
    TRIMMED_UNREAD: Counter in Count, "streamjobs_trimmed_unread_total",
        "Entries trimmed before they were delivered to the group";
    REMOVED_IN_FLIGHT: Counter in Count, "streamjobs_removed_in_flight_total",
        "Entries that another client removed while their jobs ran";
    PAYLOADS_UNSTORED: Counter in Count, "streamjobs_payloads_unstored_total",
        "Times that a trimmed payload could not be stored as a dead letter";
    RESULTS_LOST: Counter in Count, "streamjobs_results_lost_total",
        "Jobs that are done and whose results could not be kept";
    GROUPS_RECREATED: Counter in Count, "streamjobs_group_recreated_total",
        "Groups that were lost and recreated";
    RETRIES_RESTORED: Counter in Count, "streamjobs_retries_restored_total",
        "Jobs waiting for retry that were scheduled again because the retry set was lost";
    RETRIES_STRANDED: Counter in Count, "streamjobs_retries_stranded_total",
        "Jobs of a lost retry set that wait for the right to run HSCAN; counted once a minute";
    PARKED: Counter in Count, "streamjobs_parked_total",
        "Jobs that were put into a line, because their key was at its limit";
    PLACES_FREED: Counter in Count, "streamjobs_limit_places_freed_total",
        "Places in a group's limit that were freed because their job was gone";
    SCHEDULED_ENTERED: Counter in Count, "streamjobs_scheduled_entered_total",
        "Scheduled events that entered their stream";
    SCHEDULED_LOST: Counter in Count, "streamjobs_scheduled_lost_total",
        "Scheduled events whose records were deleted or evicted";
    SCHEDULED_RESTORED: Counter in Count, "streamjobs_scheduled_restored_total",
        "Scheduled events whose place was lost and restored";
    SCHEDULED_STRANDED: Counter in Count, "streamjobs_scheduled_stranded_total",
        "Scheduled events whose place is lost until the user has the right to run HSCAN; counted once a minute";
    SCHEDULED_LATENESS: Histogram in Seconds, "streamjobs_scheduled_lateness_seconds",
        "The time from when a scheduled event is due until it enters its stream, by the server's clock";
    SCHEDULES_FIRED: Counter in Count, "streamjobs_schedules_fired_total",
        "Occurrences of schedules that this process published";
    SCHEDULES_MISSED: Counter in Count, "streamjobs_schedules_missed_total",
        "Occurrences of schedules that were missed and not published";
    SCHEDULES_SKIPPED: Counter in Count, "streamjobs_schedules_skipped_total",
        "Occurrences of schedules that were not published because the job of the last published occurrence had not ended";
    SCHEDULES_LOST: Counter in Count, "streamjobs_schedules_lost_total",
        "Schedules whose definitions were deleted or evicted";
    SCHEDULES_NOT_FIRED: Counter in Count, "streamjobs_schedules_not_fired_total",
        "Schedules that this process does not fire although it knows of them; each is counted once";
    FIRING_LATENESS: Histogram in Seconds, "streamjobs_schedules_lateness_seconds",
        "The time from when an occurrence is due until it enters its stream, by the server's clock";
    STARTS_AWAITED: Counter in Count, "streamjobs_starts_awaited_total",
        "How often the process had to wait until a job of the group could start";
    LIMITED: Counter in Count, "streamjobs_attempts_limited_total",
        "Attempts after which the whole group waits, because another system has a limit";
    CLAIMS_REFUSED: Counter in Count, "streamjobs_claims_refused_total",
        "Claims refused because of the server's clock or a gap in its answers";
    SERVER_ERRORS: Counter in Count, "streamjobs_redis_errors_total",
        "Requests to the server that failed";
    RECONNECTS: Counter in Count, "streamjobs_redis_reconnects_total",
        "Reading connections that were reopened";
    READ_TIMEOUTS: Counter in Count, "streamjobs_read_timeouts_total",
        "Reading connections closed because the server did not answer in time";
    ENTRIES_TRIMMED: Counter in Count, "streamjobs_entries_trimmed_total",
        "Entries that retention trimmed from the stream";
    LETTERS_TRIMMED: Counter in Count, "streamjobs_dead_letters_trimmed_total",
        "Dead letters deleted because their number exceeded the limit";
    CONSUMERS_RETIRED: Counter in Count, "streamjobs_consumers_removed_total",
        "Dead consumers that were removed";
    SERVICES_ENDED: Counter in Count, "streamjobs_services_ended_total",
        "Runs of a service that ended before the shutdown, by reason";
    OBSERVATIONS_DROPPED: Counter in Count, "streamjobs_observations_dropped_total",
        "Observations that were dropped because the application's observers were too slow";
    OBSERVER_PANICS: Counter in Count, "streamjobs_observer_panics_total",
        "Calls of the application's observers that panicked";
    JOBS: Gauge in Count, "streamjobs_jobs", "Jobs of the group on the server, by state";
    OLDEST_WAITING: Gauge in Seconds, "streamjobs_oldest_waiting_age_seconds",
        "How long the oldest undelivered entry has waited";
    OLDEST_PENDING: Gauge in Seconds, "streamjobs_oldest_pending_age_seconds",
        "Idle time of the oldest pending entry";
    LAG: Gauge in Count, "streamjobs_group_lag", "Lag as the server reports it";
    LAG_KNOWN: Gauge in Count, "streamjobs_group_lag_known", "Whether the server reports a lag";
    PAUSED: Gauge in Count, "streamjobs_paused", "Whether the group is paused in every process";
    STREAM_BYTES: Gauge in Bytes, "streamjobs_stream_bytes", "Memory of the stream";
    SCHEDULED_WAITING: Gauge in Count, "streamjobs_scheduled_waiting",
        "Scheduled events that wait until they are due";
    SCHEDULES_UNDECLARED: Gauge in Count, "streamjobs_schedules_undeclared",
        "Schedules in code that no living process declares";
    STREAM_LENGTH: Gauge in Count, "streamjobs_stream_entries", "Entries in the stream";
}

/// Describes each metric to the recorder. Repeating it changes nothing.
pub(crate) fn describe() {
    for Metric { kind, unit, name, about } in ALL.iter().copied() {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, about),
            Kind::Gauge => metrics::describe_gauge!(name, unit, about),
            Kind::Histogram => metrics::describe_histogram!(name, unit, about),
        }
    }
}
