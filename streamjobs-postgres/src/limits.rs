//! The time limits of a guarded transaction.

use std::time::Duration;

/// The time limits of a guarded transaction, which the database enforces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    lock: Limit,
    statement: Limit,
    idle: Limit,
}

/// A duration, and its text for a setting of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limit {
    duration: Duration,
    setting: String,
}

impl Limits {
    pub(crate) fn set_lock(&mut self, limit: Duration) {
        self.lock = Limit::new(limit);
    }

    pub(crate) fn set_statement(&mut self, limit: Duration) {
        self.statement = Limit::new(limit);
    }

    pub(crate) fn set_idle(&mut self, limit: Duration) {
        self.idle = Limit::new(limit);
    }

    /// For `lock_timeout`.
    pub(crate) fn lock(&self) -> &str {
        &self.lock.setting
    }

    /// For `statement_timeout`.
    pub(crate) fn statement(&self) -> &str {
        &self.statement.setting
    }

    /// For `idle_in_transaction_session_timeout`.
    pub(crate) fn idle(&self) -> &str {
        &self.idle.setting
    }

    /// How long to wait for the reply to a statement: longer than the server lets it run.
    pub(crate) fn timeout(&self) -> Duration {
        self.statement.duration.saturating_add(MARGIN)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lock: Limit::new(Duration::from_secs(5)),
            statement: Limit::new(Duration::from_secs(60)),
            idle: Limit::new(Duration::from_secs(60)),
        }
    }
}

impl Limit {
    fn new(duration: Duration) -> Self {
        // Zero would mean no limit, and the server's settings are 32-bit integers.
        let milliseconds = duration.as_millis().clamp(1, i32::MAX as u128);
        Self { duration, setting: milliseconds.to_string() }
    }
}

/// The time beyond the server's own limit.
const MARGIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_too_large_are_limits_too() {
        let mut limits = Limits::default();
        limits.set_lock(Duration::ZERO);
        limits.set_statement(Duration::MAX);
        limits.set_idle(Duration::from_secs(2));
        assert_eq!((limits.lock(), limits.statement()), ("1", "2147483647"));
        assert_eq!((limits.idle(), limits.timeout()), ("2000", Duration::MAX));
    }
}
