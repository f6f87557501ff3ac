//! One connection of a link, and its places.

use std::pin::pin;
use std::sync::{Arc, OnceLock};

use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::capabilities::Capabilities;
use super::error::not_sent;
use super::multiplexed::{Answers, Multiplexed, Request};
use super::places::{Place, Places};
use super::server::Tenure;
use crate::store::StoreError;

/// A connection. It is not replaced when it breaks.
pub(super) struct Live {
    pub(super) connection: Multiplexed,
    pub(super) places: Arc<Places>,
    /// Cancelled when the connection's task ends, when the server's tenure as primary ends, or when the
    /// link gives the connection up: nothing is sent over it any more.
    pub(super) closed: CancellationToken,
    pub(super) tenure: Tenure,
    pub(super) generation: u64,
    /// Learned when the connection was opened. Empty if the server refused to tell.
    pub(super) capabilities: OnceLock<Capabilities>,
}

// Each future is pinned where it is created: otherwise each future into which it is moved would reserve
// memory for it again.
impl Live {
    /// Waits for a place until a deadline. None if the connection cannot be used any more.
    pub(super) async fn place(
        &self,
        bytes: usize,
        until: Instant,
    ) -> Result<Option<Place>, StoreError> {
        if let Some(place) = self.places.take_now(bytes) {
            return Ok(Some(place));
        }
        let waiting = async {
            tokio::select! {
                biased;
                () = self.closed.cancelled() => Ok(None),
                place = timeout_at(until, self.places.take(bytes)) => place.map_err(|_| not_sent()),
            }
        };
        // Unconstrained, like the wait for the answer.
        unconstrained(waiting).await
    }

    /// Sends one command. The first poll sends it.
    pub(super) async fn command(&self, place: Place, command: &Cmd) -> RedisResult<Value> {
        let sent = pin!(self.connection.command(command, place));
        self.tenure.within(sent).await
    }

    /// Sends commands in one go. The first poll sends them.
    pub(super) async fn commands(
        &self,
        place: Place,
        pipeline: &Pipeline,
    ) -> RedisResult<Vec<Value>> {
        let sent = pin!(self.connection.commands(pipeline, place));
        self.tenure.within(sent).await
    }

    /// Sends commands in one go. The first poll sends them.
    pub(super) async fn request(
        &self,
        place: Place,
        request: &impl Request,
    ) -> RedisResult<Answers> {
        let sent = pin!(self.connection.request(request, place));
        self.tenure.within(sent).await
    }
}
