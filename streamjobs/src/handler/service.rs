//! Services: background work that a runtime starts, supervises and stops with its consumers.

pub use futures_util::future::BoxFuture;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::model::error::BoxError;
use crate::model::name::{GroupName, StreamName};
use crate::publish::client::Client;

/// Background work that runs as long as the runtime: moving dead letters into an archive, publishing
/// the rows of an outbox, pruning old rows.
///
/// Give it to [`RuntimeBuilder::service`](crate::RuntimeBuilder::service). It is prepared before the start, runs on
/// the application's executor, is restarted when it ends early, and is stopped after the consumers have drained, so
/// that it can process what the last jobs left. Several processes run it at the same time, so the service itself has
/// to prevent double work.
///
/// ```
/// use std::time::Duration;
/// use streamjobs::service::{BoxFuture, Service, ServiceContext};
///
/// /// Prints the queues of this runtime every minute.
/// struct ListQueues;
///
/// impl Service for ListQueues {
///     fn name(&self) -> &'static str {
///         "list-queues"
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
/// The future can be dropped at any await: when the runtime is dropped, or when it has not ended within
/// 5 seconds after the stop. A crash has the same effect, so a service must tolerate it: store first,
/// acknowledge second.
pub trait Service: Send + Sync + 'static {
    /// Its name in logs, metrics and errors: one word, such as `archive`.
    fn name(&self) -> &'static str;

    /// Checks that the service can run. It is called once, before the runtime sends anything to the
    /// server and before any job runs, and has 30 seconds. Does nothing by default.
    ///
    /// # Errors
    ///
    /// An error refuses the start with
    /// [`StartError::Service`](crate::model::error::StartError::Service), and so does a panic.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when the start is cancelled, or after 30 seconds.
    fn prepare<'a>(&'a self, context: &'a ServiceContext) -> BoxFuture<'a, Result<(), BoxError>> {
        let _ = context;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Runs until the context's [stop](ServiceContext::stop).
    ///
    /// A run that returns early or panics is logged and counted, and restarted after a delay that grows from 1 s to
    /// 30 s while this repeats. The service itself should wait out conditions that it expects, such as a database
    /// that is unavailable.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any await, as described for the trait.
    fn run(&self, context: ServiceContext) -> BoxFuture<'_, ()>;
}

/// What a [`Service`] knows of its runtime. Clones refer to the same runtime.
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

    /// A context with a stop token of its own, so that one service cannot stop another.
    pub(crate) fn for_one_run(&self) -> Self {
        Self { stop: self.stop.child_token(), ..self.clone() }
    }

    /// The client of the runtime.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Every group that the runtime serves, on every stream that it reads.
    #[must_use]
    pub fn queues(&self) -> &[ServedQueue] {
        &self.queues
    }

    /// Fires when the service has to end. After 5 seconds its future is dropped.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Waits for this time, but at most until the stop; true if the stop has fired.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: only the wait ends.
    pub async fn stopped_within(&self, delay: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => true,
            () = sleep(delay) => false,
        }
    }
}

/// A group that a runtime serves, on one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServedQueue {
    /// The stream; if it is spread over partitions, the whole stream.
    pub stream: StreamName,
    /// The group.
    pub group: GroupName,
    /// How long after its publication a job may still be delivered, computed from the settings.
    ///
    /// With a retention by [age](crate::model::config::Retention::MaxAge) it is that age, plus the
    /// longest back-off and the timeout for every allowed attempt, plus a lease for every allowed
    /// delivery, plus the time that a job may wait for a process with its handler. `None` for any other
    /// retention, with which an entry may stay indefinitely.
    ///
    /// What the settings do not show is not included: downtime of processes or the server, a pause,
    /// handlers without a timeout, delays that a handler chose, history that is trimmed late because
    /// it is trimmed in whole blocks, and redriven dead letters.
    pub horizon: Option<Duration>,
}
