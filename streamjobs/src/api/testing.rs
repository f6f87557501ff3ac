//! Streams in memory, under tokio's clock, to test handlers without a server.
//!
//! In a test with a paused clock, leases, back-offs and timeouts take no real time:
//!
//! ```
//! use std::time::Duration;
//! use streamjobs::testing::Streams;
//! use streamjobs::{Entry, JobError, Runtime, handler, handlers};
//!
//! #[handler(group = "audit", stream = "orders", max_attempts = 3, backoff = "1m")]
//! async fn reject(_entry: Entry) -> Result<(), JobError> {
//!     Err("never".into())
//! }
//!
//! # #[derive(streamjobs::Event, serde::Serialize, serde::Deserialize)]
//! # #[event(stream = "orders", type = "order.placed")]
//! # struct OrderPlaced {}
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let streams = Streams::new();
//! let client = streams.client();
//! let runtime = Runtime::builder(&client).handlers(handlers![reject]).start().await?;
//! client.publish(&OrderPlaced {}).await?;
//! tokio::time::sleep(Duration::from_secs(180)).await;    // takes no real time on a paused clock
//! assert_eq!(client.dead_letters("orders", "audit")?.list(None, 10).await?.letters.len(), 1);
//! let report = runtime.shutdown().await;
//! # assert!(report.abandoned.is_empty());
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread()
//! #     .enable_time().start_paused(true).build().unwrap().block_on(example()).unwrap();
//! ```

use std::sync::Arc;
use std::time::Duration;

use crate::model::entry::EntryId;
use crate::model::error::ConnectError;
use crate::publish::client::{Client, ClientBuilder};
use crate::store::memory::{Fault, MemoryStore};
use crate::store::raw_access::RawAccess;

/// Streams in memory, and the faults that can happen to them. Clones share the streams.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    store: MemoryStore,
}

impl Streams {
    /// Empty streams.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client on these streams, with the default settings.
    ///
    /// Handlers and loops of its runtimes run on the current executor.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::in_memory(Arc::new(self.store.clone()))
    }

    /// A client on these streams, with the builder's settings. The builder's address is ignored.
    ///
    /// # Errors
    ///
    /// When a setting is invalid.
    pub fn client_with(&self, builder: ClientBuilder) -> Result<Client, ConnectError> {
        builder.with_store(Arc::new(self.store.clone()), true)
    }

    pub(crate) fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// Stops answering, like a server that is down.
    pub fn stop(&self) {
        self.store.stop_server();
    }

    /// Starts answering again.
    pub fn start(&self) {
        self.store.start_server();
    }

    /// Loses the answer of the next read: its entries are delivered, and no process knows it.
    pub fn lose_next_read(&self) {
        self.store.fail_next("read", Fault::AnswerLost);
    }

    /// Loses the answer of the next acknowledgement, which takes effect.
    pub fn lose_next_acknowledgement(&self) {
        self.store.fail_next("acknowledge", Fault::AnswerLost);
    }

    /// Moves the server's clock forwards or backwards.
    pub fn step_clock(&self, milliseconds: i64) {
        self.store.step_clock(milliseconds);
    }

    /// Deletes everything, as `FLUSHALL` does.
    pub fn flush(&self) {
        self.store.flush();
    }

    /// The number of entries in a stream.
    #[must_use]
    pub fn length(&self, stream: &str) -> usize {
        self.store.length(stream)
    }

    /// The pending entries of a group: id, consumer, delivery count.
    #[must_use]
    pub fn pending(&self, stream: &str, group: &str) -> Vec<(EntryId, String, u64)> {
        let rows = self.store.pending(stream, group).into_iter();
        rows.map(|row| (row.id, row.consumer, row.delivery_count)).collect()
    }

    /// Sets the idle time of a pending entry.
    pub fn age(&self, stream: &str, group: &str, id: EntryId, idle: Duration) {
        self.store.age(stream, group, id, idle);
    }
}
