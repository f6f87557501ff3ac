//! The time limits of a guarded transaction.

use std::time::Duration;

/// The time limits of a guarded transaction, which the database enforces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// For `lock_timeout`.
    pub(crate) lock: Limit,
    /// For `statement_timeout`.
    pub(crate) statement: Limit,
    /// For `idle_in_transaction_session_timeout`.
    pub(crate) idle: Limit,
}

/// A duration, and its text for a setting of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    duration: Duration,
    pub(crate) setting: String,
}

impl Limits {
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
    pub(crate) fn new(duration: Duration) -> Self {
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
        let limits = [Duration::ZERO, Duration::MAX, Duration::from_secs(2)].map(Limit::new);
        assert_eq!(limits.each_ref().map(|limit| &*limit.setting), ["1", "2147483647", "2000"]);
        let [lock, statement, idle] = limits;
        assert_eq!(Limits { lock, statement, idle }.timeout(), Duration::MAX);
    }
}
