//! State that loops share, and the signals between them.

pub(crate) mod abandoned;
pub(crate) mod acks;
pub(crate) mod activity;
pub(crate) mod clock;
pub(crate) mod in_flight;
pub(crate) mod next_due;
pub(crate) mod pause_gate;
pub(crate) mod reader_unblock;
pub(crate) mod slots;
pub(crate) mod stopped;
pub(crate) mod wait;
