//! Publishing inside of a transaction: rows that commit with the effects.

mod backlog;
mod publisher;

pub use self::backlog::OutboxBacklog;
pub use self::publisher::{PublishInError, Publisher};
