//! Upkeep: loops that run at intervals: due retries, heartbeats, retention, alerts.

pub(crate) mod heartbeat_sender;
pub(crate) mod pause_switch;
pub(crate) mod promoter;
pub(crate) mod trimmer;
pub(crate) mod watcher;
