//! Intake: loops that bring entries to this consumer and keep their leases.

pub(crate) mod lease_keeper;
pub(crate) mod reader;
pub(crate) mod reaper;
