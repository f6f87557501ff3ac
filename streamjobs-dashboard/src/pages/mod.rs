//! The pages, one module each.

pub(crate) mod alerts;
#[cfg(feature = "postgres")]
pub(crate) mod archive;
pub(crate) mod attempts;
pub(crate) mod chart;
pub(crate) mod dead;
pub(crate) mod dead_all;
pub(crate) mod event;
pub(crate) mod event_link;
pub(crate) mod find;
pub(crate) mod finished;
pub(crate) mod fleet;
pub(crate) mod fleet_order;
pub(crate) mod group;
pub(crate) mod group_limit;
pub(crate) mod group_parts;
pub(crate) mod overview;
pub(crate) mod partitions;
pub(crate) mod pending;
pub(crate) mod processes;
pub(crate) mod retries;
pub(crate) mod scheduled;
pub(crate) mod schedules;
pub(crate) mod stream;
pub(crate) mod trend_charts;
pub(crate) mod trends;
