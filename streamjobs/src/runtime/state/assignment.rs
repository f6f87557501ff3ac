//! What intake passes on to attempts.

use std::sync::Arc;

use crate::handler::Lease;
use crate::model::entry::Delivery;
use crate::runtime::state::slots::Slot;

/// A delivery with a slot to run in.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) slot: Slot,
}
