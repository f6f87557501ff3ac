//! Intake: loops that bring entries to this consumer and keep their leases.

pub(crate) mod admission;
pub(crate) mod batch_sizer;
pub(crate) mod connector;
pub(crate) mod group_repair;
pub(crate) mod lane_turn;
pub(crate) mod lease_keeper;
pub(crate) mod reader;
pub(crate) mod reaper;
pub(crate) mod recovery;
pub(crate) mod slot_request;
