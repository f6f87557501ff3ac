//! The thresholds from which alerts are raised.

use std::time::Duration;

/// The thresholds from which alerts are raised.
///
/// An alert about a level is over when the level falls below half of its threshold; an alert that
/// counts events is over when none has happened for [`clear_after`](Self::clear_after).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct AlertRules {
    pub(crate) backlog: Option<u64>,
    pub(crate) pending: Option<u64>,
    pub(crate) oldest_waiting: Option<Duration>,
    pub(crate) oldest_pending: Option<Duration>,
    pub(crate) claims: Option<u64>,
    pub(crate) stream_length: Option<u64>,
    pub(crate) clear_after: Duration,
}

impl Default for AlertRules {
    fn default() -> Self {
        Self {
            backlog: Some(10_000),
            pending: Some(10_000),
            oldest_waiting: Some(Duration::from_secs(60)),
            oldest_pending: Some(Duration::from_secs(120)),
            claims: Some(100),
            stream_length: None,
            clear_after: Duration::from_secs(300),
        }
    }
}

impl AlertRules {
    /// The default rules.
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries that wait for the group: 10,000 by default. `None` turns the alert off.
    pub fn backlog(mut self, entries: impl Into<Option<u64>>) -> Self {
        self.backlog = entries.into();
        self
    }

    /// Entries delivered and not acknowledged: 10,000 by default. `None` turns the alert off.
    pub fn pending(mut self, entries: impl Into<Option<u64>>) -> Self {
        self.pending = entries.into();
        self
    }

    /// How long the oldest entry has waited: 60 s by default. `None` turns the alert off.
    pub fn oldest_waiting(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.oldest_waiting = age.into();
        self
    }

    /// The idle time of the oldest pending entry: 120 s by default. `None` turns the alert off.
    ///
    /// A threshold below the lease raises the alert for entries that are in flight.
    pub fn oldest_pending(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.oldest_pending = age.into();
        self
    }

    /// Entries that this process claims from others within a minute: 100 by default. `None` turns
    /// the alert off.
    pub fn claims_per_minute(mut self, entries: impl Into<Option<u64>>) -> Self {
        self.claims = entries.into();
        self
    }

    /// The most entries that the stream may hold. `None`, the default, means twice the history for
    /// [`Retention::History`](super::Retention::History), and no limit for other retentions.
    pub fn stream_length(mut self, entries: impl Into<Option<u64>>) -> Self {
        self.stream_length = entries.into();
        self
    }

    /// An alert that counts events is over after this time without another event: 5 minutes by
    /// default. If the time is short, every burst raises the alert again.
    pub fn clear_after(mut self, time: Duration) -> Self {
        self.clear_after = time;
        self
    }
}
