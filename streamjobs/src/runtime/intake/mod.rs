//! Intake: loops that bring entries to this consumer and keep their leases.

mod admission;
mod batch_sizer;
mod group_repair;
mod lane_turn;
mod lease_keeper;
mod limited_reader;
mod reader;
mod reaper;
mod recovery;

pub(crate) use self::admission::Admission;
pub(crate) use self::batch_sizer::{BATCH_MAX, Backlog, BatchSizer, acks_worthwhile};
pub(crate) use self::group_repair::GroupRepair;
pub(crate) use self::lane_turn::LaneTurn;
pub(crate) use self::lease_keeper::LeaseKeeper;
pub(crate) use self::reader::{Connector, Reader};
pub(crate) use self::reaper::{Reaper, SlotRequest};
pub(crate) use self::recovery::Recovery;
