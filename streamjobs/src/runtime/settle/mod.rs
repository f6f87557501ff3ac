//! Settling: verdicts are carried out on the server.

mod ack_flusher;
mod refused_room;
mod retry_batches;
mod settler;

pub(crate) use self::ack_flusher::AckFlusher;
pub(crate) use self::refused_room::RefusedRoom;
pub(crate) use self::retry_batches::RetryBatches;
pub(crate) use self::settler::{Settler, SettlingSteps};
