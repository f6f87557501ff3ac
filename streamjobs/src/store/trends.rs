//! What groups did, for charts: beside the stream, in two rings.

use async_trait::async_trait;

use super::types::{Queue, Result};
pub use crate::model::trend::{TrendNote, TrendRange, TrendStep};

/// The steps on what a group did. For each [`TrendRange`] it has a ring with a place for each of its steps, so that
/// what is stored does not grow with time.
#[async_trait]
pub trait Trends: Send + Sync {
    /// Adds what a process did since its last note to the steps of now, by the server's clock. A repetition adds it
    /// twice. A ring that is not noted for as long as it goes back is removed.
    async fn note_trend(&self, queue: &Queue, note: &TrendNote) -> Result<()>;

    /// The server's clock in milliseconds, and the steps of a range as far as anything was noted, in order.
    async fn trend(&self, queue: &Queue, range: TrendRange) -> Result<(u64, Vec<TrendStep>)>;
}
