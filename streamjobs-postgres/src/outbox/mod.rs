//! Publishing inside of a transaction: rows that commit with the effects, and the relay that moves
//! them to their streams.

mod backlog;
mod ears;
mod publisher;
mod relay;
mod round;
mod troubles;

pub use self::backlog::OutboxBacklog;
pub use self::publisher::{PublishInError, Publisher};
pub use self::relay::{Relay, Relayed};
