//! The keys of the data that is kept beside a stream.

use super::name::{EventId, GroupName, RedriveToken, StreamName};
use super::trend::TrendRange;

impl StreamName {
    /// The key of a group's retry set: failed jobs, sorted by when they are due.
    #[must_use]
    pub fn retry_key(&self, group: &GroupName) -> String {
        self.helper_key("retry", group)
    }

    /// The key of the hash with the records of the retry set.
    #[must_use]
    pub fn retry_records_key(&self, group: &GroupName) -> String {
        self.helper_key("retry-records", group)
    }

    /// The key of the hash with the jobs that have a place in a group's limit.
    #[must_use]
    pub fn holds_key(&self, group: &GroupName) -> String {
        self.helper_key("holds", group)
    }

    /// The key of the hash that says how many such jobs each key has.
    #[must_use]
    pub fn busy_key(&self, group: &GroupName) -> String {
        self.helper_key("busy", group)
    }

    /// The key of the sorted set with the lines of jobs that wait for a place in a group's limit.
    #[must_use]
    pub fn lines_key(&self, group: &GroupName) -> String {
        self.helper_key("lines", group)
    }

    /// The key of the hash with the records of the lines.
    #[must_use]
    pub fn line_records_key(&self, group: &GroupName) -> String {
        self.helper_key("line-records", group)
    }

    /// The key of the sorted set with the keys that have a line, by the length of the line.
    #[must_use]
    pub fn turns_key(&self, group: &GroupName) -> String {
        self.helper_key("turns", group)
    }

    /// The key of the sorted set that says which key with a line is next, where keys have fair shares.
    #[must_use]
    pub fn shares_key(&self, group: &GroupName) -> String {
        self.helper_key("shares", group)
    }

    /// The key of the hash with a group's durable floor, heartbeats, releases and pause.
    #[must_use]
    pub fn group_key(&self, group: &GroupName) -> String {
        self.helper_key("group", group)
    }

    /// The key of the hash with the progress of a group's running jobs.
    pub(crate) fn progress_key(&self, group: &GroupName) -> String {
        self.helper_key("progress", group)
    }

    /// The key of the stream with notes of a group's jobs that are done.
    #[must_use]
    pub fn done_key(&self, group: &GroupName) -> String {
        self.helper_key("done", group)
    }

    /// The key of the ring with the trend of a group, in the steps of a range.
    #[must_use]
    pub fn trend_key(&self, group: &GroupName, range: TrendRange) -> String {
        let ring = match range {
            TrendRange::SixHours => "trend-minutes",
            TrendRange::SevenDays => "trend-quarters",
        };
        self.helper_key(ring, group)
    }

    /// The key of the hash that says up to when starts of a group's jobs are granted.
    pub(crate) fn rate_key(&self, group: &GroupName) -> String {
        self.helper_key("rate", group)
    }

    /// The key that records that a job was redriven under a token.
    ///
    /// Group names have no braces, so the last two parts cannot be confused.
    pub(crate) fn redriven_key(&self, group: &GroupName, token: &RedriveToken) -> String {
        format!("{}:{{{}}}", self.helper_key("redriven", group), token.as_str())
    }

    /// The key of the mark that says whether a group has done something once.
    pub(crate) fn once_key(&self, group: &GroupName, key: &str) -> String {
        format!("{}:{{{key}}}", self.helper_key("once", group))
    }

    /// The key of the result of a group's job on an event.
    pub(crate) fn result_key(&self, group: &GroupName, event_id: &EventId) -> String {
        format!("{}:{{{}}}", self.helper_key("result", group), event_id.as_str())
    }

    /// The key of the sorted set of events that wait for their time, by when they are due.
    pub(crate) fn later_key(&self) -> String {
        format!("{}later", self.helper_prefix())
    }

    /// The key of the sorted set of marks that cancel jobs.
    pub(crate) fn cancelled_key(&self) -> String {
        format!("{}cancelled", self.helper_prefix())
    }

    /// The key of the hash with the records of scheduled events.
    pub(crate) fn later_records_key(&self) -> String {
        format!("{}later-records", self.helper_prefix())
    }

    /// The key of the sorted set of the stream's schedules, by when they are due next.
    pub(crate) fn schedules_key(&self) -> String {
        format!("{}schedules", self.helper_prefix())
    }

    /// The key of the hash with the definition of each schedule, and what became of it.
    pub(crate) fn schedule_specs_key(&self) -> String {
        format!("{}schedule-specs", self.helper_prefix())
    }

    /// The key of the stream with the last firings of all schedules.
    pub(crate) fn schedule_log_key(&self) -> String {
        format!("{}schedule-log", self.helper_prefix())
    }

    /// The key that says which event has the lock of a digest.
    pub(crate) fn unique_key(&self, digest: &str) -> String {
        format!("{}unique:{digest}", self.helper_prefix())
    }

    /// The key of the hash that says how many partitions the stream has.
    pub(crate) fn partitions_key(&self) -> String {
        format!("{}partitions", self.helper_prefix())
    }
}
