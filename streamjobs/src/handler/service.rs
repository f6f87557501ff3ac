//! Work beside the jobs: what a runtime starts, supervises and stops with its consumers.

pub use futures_util::future::BoxFuture;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::model::error::BoxError;
use crate::model::name::{GroupName, StreamName};
use crate::publish::client::Client;

/// Something that runs beside the consumers of a runtime for as long as it does: moving dead letters
/// into an archive, publishing what waits in a table, forgetting what is old.
///
/// It is given to [`RuntimeBuilder::service`](crate::RuntimeBuilder::service), and it has the
/// runtime's life: prepared before the start, run on the application's own executor, run again when
/// it ends too soon, and stopped once the consumers have drained, so that it can still take what the
/// last jobs left. Several processes run it at once; what must not be done twice is its own to see
/// to.
///
/// ```
/// use std::time::Duration;
/// use streamjobs::service::{BoxFuture, Service, ServiceContext};
///
/// /// Says every minute how much there is to do.
/// struct Gossip;
///
/// impl Service for Gossip {
///     fn name(&self) -> &'static str {
///         "gossip"
///     }
///
///     fn run(&self, context: ServiceContext) -> BoxFuture<'_, ()> {
///         Box::pin(async move {
///             while !context.stopped_within(Duration::from_secs(60)).await {
///                 for queue in context.queues() {
///                     println!("group {} works on {}", queue.group, queue.stream);
///                 }
///             }
///         })
///     }
/// }
/// ```
///
/// # Delivery
///
/// It can be dropped wherever it waits: when the runtime is dropped, or when it has not ended within
/// 5 seconds of the stop. That is what a dying process does too, so it has to bear it anyway: store
/// first, acknowledge second.
pub trait Service: Send + Sync + 'static {
    /// Its name in logs, metrics and errors: one word, such as `archive`.
    fn name(&self) -> &'static str;

    /// Makes sure that it can run: called once, before the runtime has touched the server and before
    /// any job runs. It has 30 seconds. Nothing to be sure of by default.
    ///
    /// # Errors
    ///
    /// Refuses the start, as [`StartError::Service`](crate::model::error::StartError::Service). So does a
    /// panic.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when the start is given up, or when its time is over.
    fn prepare<'a>(&'a self, context: &'a ServiceContext) -> BoxFuture<'a, Result<(), BoxError>> {
        let _ = context;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Runs until the context's [stop](ServiceContext::stop).
    ///
    /// When it returns earlier, or panics, that is logged and counted, and it is run again after a
    /// pause, which grows from 1 s to 30 s while that goes on. What it meets every day, a database
    /// that is away for example, it should wait for by itself.
    ///
    /// # Cancel safety
    ///
    /// See above: it may be dropped wherever it waits.
    fn run(&self, context: ServiceContext) -> BoxFuture<'_, ()>;
}

/// What a [`Service`] knows of the runtime that it is part of. Clones are the same.
#[derive(Clone, Debug)]
pub struct ServiceContext {
    client: Client,
    queues: Arc<[ServedQueue]>,
    stop: CancellationToken,
}

impl ServiceContext {
    pub(crate) fn new(client: Client, queues: Vec<ServedQueue>, stop: CancellationToken) -> Self {
        Self { client, queues: queues.into(), stop }
    }

    /// The same with a stop of its own, so that no service can stop another one.
    pub(crate) fn for_one_run(&self) -> Self {
        Self { stop: self.stop.child_token(), ..self.clone() }
    }

    /// The client of the runtime.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Every group that the runtime works for, on every stream that it reads.
    #[must_use]
    pub fn queues(&self) -> &[ServedQueue] {
        &self.queues
    }

    /// Fires when the service has to end: within 5 seconds, or it is dropped where it waits.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Waits for the given time, at most until the stop: true once it has fired.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait and nothing else.
    pub async fn stopped_within(&self, delay: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => true,
            () = sleep(delay) => false,
        }
    }
}

/// A group that a runtime works for, on one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServedQueue {
    /// The stream.
    pub stream: StreamName,
    /// The group.
    pub group: GroupName,
    /// How long after its publication a job may still be delivered, as far as the settings tell.
    ///
    /// Where the stream's retention is by [age](crate::model::config::Retention::MaxAge), that age, and for
    /// every allowed attempt the longest back-off, the timeout, and a lease for every allowed
    /// delivery. None for any other retention: an entry may then be there for ever.
    ///
    /// What the settings do not tell comes on top: processes or a server that were away, a pause,
    /// handlers without a timeout, delays that a handler chose itself, history that is trimmed in
    /// whole blocks and therefore late, and letters that somebody redrives.
    pub horizon: Option<Duration>,
}
