//! State that loops share, and the signals between them.

pub(crate) mod abandoned_attempts;
pub(crate) mod acks;
pub(crate) mod activity;
pub(crate) mod assignment;
pub(crate) mod clock;
pub(crate) mod in_flight;
pub(crate) mod lock;
pub(crate) mod loop_health;
pub(crate) mod next_due;
pub(crate) mod once_per_interval;
pub(crate) mod pause_gate;
pub(crate) mod reader_unblock;
pub(crate) mod settlement;
pub(crate) mod signals;
pub(crate) mod slots;
pub(crate) mod stopped_consumers;
pub(crate) mod wait;
