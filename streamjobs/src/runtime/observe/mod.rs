//! Observation: what happened, as counters, metrics, alerts and log lines; health; timed steps.

pub(crate) mod alert_subscribers;
pub(crate) mod events;
pub(crate) mod health;
mod log;
mod metrics;
pub(crate) mod queue_context;
pub(crate) mod queue_monitor;
pub(crate) mod report;
mod steps;
pub(crate) mod tally;
