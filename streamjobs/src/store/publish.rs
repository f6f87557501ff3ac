//! Appending entries to a stream.

use async_trait::async_trait;

use super::types::{Result, StoreError};
use crate::model::config::Retention;
use crate::model::entry::{EntryId, Fields};
use crate::model::name::StreamName;

/// A new entry.
pub type NewEntry = Fields;

/// The id of an appended entry, or why it was not appended.
pub type Appended = Result<EntryId>;

/// Appends entries to one stream in order, and sends the next ones before earlier ones are answered.
///
/// After a connection breaks, nothing more is sent: a later entry must not be stored when an earlier one
/// is lost. If an appender is dropped, it is unknown which entries are stored.
#[async_trait]
pub trait Appender: Send {
    /// Sends entries. Returns when they are sent, before they are answered.
    async fn push(&mut self, entries: Vec<NewEntry>);

    /// Waits for the outstanding answers: one for each entry, in order.
    async fn finish(self: Box<Self>) -> Vec<Appended>;
}

/// Appends to streams, and trims them if their retention is one that trims at each append.
#[async_trait]
pub trait Publish: Send + Sync {
    /// Returns how many partitions a stream has. The stream gets as many as `wanted`, but never fewer
    /// than it had.
    async fn partitions(&self, stream: &StreamName, wanted: u16) -> Result<u16>;

    /// Appends many entries to a stream.
    fn appender(&self, stream: &StreamName, retention: Retention) -> Box<dyn Appender>;

    /// Appends one entry.
    async fn append_one(
        &self,
        stream: &StreamName,
        retention: Retention,
        entry: NewEntry,
    ) -> Appended {
        let mut appender = self.appender(stream, retention);
        appender.push(vec![entry]).await;
        let answer = appender.finish().await.into_iter().next();
        answer.unwrap_or(Err(StoreError::Protocol { command: "XADD" }))
    }
}
