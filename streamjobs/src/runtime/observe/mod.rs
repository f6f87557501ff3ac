//! Observation: what happened, as counters, metrics, log lines, alerts and health.

pub(crate) mod health;
pub(crate) mod monitor;
pub(crate) mod report;
