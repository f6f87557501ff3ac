//! Upkeep: loops that run at intervals: due retries, heartbeats, retention, alerts.

pub(crate) mod janitor;
pub(crate) mod promoter;
pub(crate) mod watcher;
