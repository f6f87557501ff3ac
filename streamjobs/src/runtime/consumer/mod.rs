//! Consumers: how they are planned, wired, started and stopped.

pub(crate) mod io;
pub(crate) mod plan;
pub(crate) mod queue;
pub(crate) mod running;
pub(crate) mod services;
pub(crate) mod set;
pub(crate) mod stop;
pub(crate) mod wiring;
