//! From where on somebody is told.

use std::time::Duration;

/// From where on an alert is raised. It is over when the reading has fallen below half of that, or,
/// for things that happen, when they have not happened for [`quiet`](Self::quiet).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct AlertRules {
    pub(crate) backlog: Option<u64>,
    pub(crate) pending: Option<u64>,
    pub(crate) oldest_waiting: Option<Duration>,
    pub(crate) oldest_pending: Option<Duration>,
    pub(crate) claims: Option<u64>,
    pub(crate) stream_length: Option<u64>,
    pub(crate) quiet: Duration,
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
            quiet: Duration::from_secs(300),
        }
    }
}

impl AlertRules {
    /// The default rules.
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries that wait for the group: 10,000 by default; none turns it off.
    pub fn backlog(mut self, entries: impl Into<Option<u64>>) -> Self {
        self.backlog = entries.into();
        self
    }

    /// Entries delivered and not acknowledged: 10,000 by default; none turns it off.
    pub fn pending(mut self, entries: impl Into<Option<u64>>) -> Self {
        self.pending = entries.into();
        self
    }

    /// How long the oldest entry has waited: 60 s by default; none turns it off.
    pub fn oldest_waiting(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.oldest_waiting = age.into();
        self
    }

    /// How long nothing has been heard of the oldest pending entry: 120 s by default; none turns it
    /// off. Below the lease it is raised without a reason.
    pub fn oldest_pending(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.oldest_pending = age.into();
        self
    }

    /// Entries that this process claims from others within a minute: 100 by default; none turns it
    /// off.
    pub fn reclaims_per_minute(mut self, entries: impl Into<Option<u64>>) -> Self {
        self.claims = entries.into();
        self
    }

    /// How long the stream may become. By default twice its history for
    /// [`Retention::History`](super::Retention::History), and any
    /// length otherwise; none is that default.
    pub fn stream_length(mut self, entries: impl Into<Option<u64>>) -> Self {
        self.stream_length = entries.into();
        self
    }

    /// After how much quiet an alert about something that happens is over: 5 minutes by default.
    /// Short times repeat it for every burst.
    pub fn quiet(mut self, quiet: Duration) -> Self {
        self.quiet = quiet;
        self
    }
}
