//! What attempts pass on to the settler.

use std::sync::Arc;

use crate::handler::Lease;
use crate::model::entry::{Delivery, Hold};
use crate::model::event::Envelope;
use crate::model::policy::Verdict;
use crate::runtime::state::slots::Slot;

/// A verdict other than an acknowledgement, on its way to the server.
#[derive(Debug)]
pub(crate) struct Settlement {
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) envelope: Envelope,
    pub(crate) hold: Hold,
    /// When the attempt began, by the server's clock.
    pub(crate) began_at: u64,
    pub(crate) failures: u32,
    pub(crate) verdict: Verdict,
    pub(crate) lease: Arc<Lease>,
    pub(crate) slot: Slot,
}
