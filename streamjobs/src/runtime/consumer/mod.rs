//! Consumers: how they are planned, wired, started and stopped; services beside them.

pub(crate) mod consumer_set;
pub(crate) mod io_thread;
mod loop_supervisor;
pub(crate) mod plan;
mod prepare;
mod queue_handle;
pub(crate) mod queue_loops;
mod queue_wiring;
pub(crate) mod running_consumer;
pub(crate) mod services;
pub(crate) mod shutdown_report;
mod stop;
pub(crate) mod wiring;
