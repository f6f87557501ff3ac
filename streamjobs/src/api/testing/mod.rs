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

mod drain;
mod perform;
mod published;
mod streams;

pub use self::drain::{DrainError, Drained, DrainedLetter};
pub use self::perform::{
    Next, Perform, PerformError, Performed, perform, perform_entry, perform_tick,
};
pub use self::published::{EventsError, PublishedEvent, WaitingEvent};
pub use self::streams::Streams;
