//! What groups did, for charts: kept beside the stream, in two rings.

use async_trait::async_trait;

use super::types::{Queue, Result};
pub use crate::model::trend::{TrendNote, TrendRange, TrendStep};

/// Records and reads what a group did. The group has one ring for each [`TrendRange`], with a place for each of
/// the range's steps, so that the stored data does not grow with time.
#[async_trait]
pub trait Trends: Send + Sync {
    /// Adds what a process did since its last note to the current steps, by the server's clock. A repetition adds
    /// it twice. A ring is removed when nothing was noted for as long as it goes back.
    async fn note_trend(&self, queue: &Queue, note: &TrendNote) -> Result<()>;

    /// The server's clock in milliseconds, and those steps of a range for which anything was noted, in order.
    async fn trend(&self, queue: &Queue, range: TrendRange) -> Result<(u64, Vec<TrendStep>)>;
}
