//! Publishing inside a transaction: rows that commit with the effects, and the relay that moves
//! them to their streams.

mod backlog;
mod failing;
mod find;
mod floor;
mod mover;
mod notify_listener;
mod publisher;
mod relay;
mod sending;

pub use self::backlog::OutboxBacklog;
pub use self::publisher::Publisher;
pub use self::relay::{Relay, Relayed};
