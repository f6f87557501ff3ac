//! The services of a runtime: prepared before its start, supervised, and stopped after the drain.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::handler::service::{ServedQueue, Service, ServiceContext};
use crate::insight::metrics::ServiceMetrics;
use crate::model::backoff::Backoff;
use crate::model::cause::{BoxError, panic_text};
use crate::model::error::StartError;
use crate::publish::client::Client;
use crate::runtime::observe::{Count, Tally};
use crate::runtime::state::LoopBackoff;

/// The services that run beside the consumers.
pub(crate) struct Services {
    services: Vec<Arc<dyn Service>>,
    context: ServiceContext,
    /// Tells the services to end.
    stop: CancellationToken,
    /// Drops services that have not ended.
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Services {
    /// Services that are not started yet.
    pub(crate) fn new(
        services: Vec<Arc<dyn Service>>,
        client: Client,
        queues: Vec<ServedQueue>,
    ) -> Self {
        let stop = CancellationToken::new();
        Self {
            services,
            context: ServiceContext::new(client, queues, stop.clone()),
            stop,
            abort: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Asks each in turn whether it can run. The first that cannot refuses the start.
    pub(crate) async fn prepare(&self) -> Result<(), StartError> {
        for service in &self.services {
            // The call itself may panic as well as its future.
            let prepared = async { service.prepare(&self.context).await };
            let prepared = timeout(PREPARE_MAX, AssertUnwindSafe(prepared).catch_unwind()).await;
            let refused: BoxError = match prepared {
                Ok(Ok(Ok(()))) => continue,
                Ok(Ok(Err(source))) => source,
                Ok(Err(panic)) => format!("it panicked: {}", panic_text(panic)).into(),
                Err(_elapsed) => format!("it took longer than {PREPARE_MAX:?}").into(),
            };
            return Err(StartError::Service { name: service.name(), source: refused });
        }
        Ok(())
    }

    /// Starts all of them on the application's executor.
    pub(crate) fn start(&self, tally: &Arc<Tally>, app: &Handle) {
        for service in &self.services {
            let supervised = Supervised {
                metrics: ServiceMetrics::new(service.name()),
                service: Arc::clone(service),
                context: self.context.clone(),
                stop: self.stop.clone(),
                abort: self.abort.clone(),
                tally: Arc::clone(tally),
            };
            self.tasks.spawn_on(supervised.run(), app);
        }
    }

    /// Tells all of them to end, waits up to a limit, and drops those that have not ended.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(STOP_MAX, self.tasks.wait()).await.is_err() {
            self.abort.cancel();
            // A service that blocks its thread cannot be dropped.
            let _blocked = timeout(DROP_MAX, self.tasks.wait()).await.is_err();
        }
    }

    /// Ends all of them without waiting.
    pub(crate) fn abandon(&self) {
        self.stop.cancel();
        self.abort.cancel();
        self.tasks.close();
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.services.iter().map(|service| service.name())).finish()
    }
}

/// One service, and what keeps it running.
struct Supervised {
    service: Arc<dyn Service>,
    context: ServiceContext,
    stop: CancellationToken,
    abort: CancellationToken,
    metrics: ServiceMetrics,
    tally: Arc<Tally>,
}

impl Supervised {
    /// Runs the service until the stop, and starts it again whenever it ends.
    async fn run(self) {
        let service = self.service.name();
        info!(service, "service started");
        let mut backoff = LoopBackoff::with(Backoff::exponential(DELAY_FIRST, DELAY_MAX));
        while !self.stop.is_cancelled() {
            let began = Instant::now();
            let run = async { self.service.run(self.context.for_one_run()).await };
            let ended = tokio::select! {
                biased;
                () = self.abort.cancelled() => {
                    warn!(service, "service dropped before it ended");
                    return;
                }
                ended = AssertUnwindSafe(run).catch_unwind() => ended,
            };
            let panic = ended.err().map(panic_text);
            self.ended(panic);
            if began.elapsed() >= DELAY_MAX {
                backoff.reset();
            }
            backoff.wait(&self.stop).await;
        }
        info!(service, "service stopped");
    }

    /// Counts and logs the end of a run, unless the shutdown ended it.
    fn ended(&self, panic: Option<String>) {
        let service = self.service.name();
        if panic.is_none() && self.stop.is_cancelled() {
            return;
        }
        self.metrics.ended(panic.is_some());
        self.tally.add(Count::ServicesEnded, 1);
        match panic {
            Some(panic) => error!(service, panic, "service panicked"),
            None => error!(service, "service returned before the shutdown"),
        }
    }
}

/// How long a service has to say whether it can run.
const PREPARE_MAX: Duration = Duration::from_secs(30);
/// How long services have to end when they are told to.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How long dropping services that have not ended may take.
const DROP_MAX: Duration = Duration::from_secs(2);
/// The first delay before a service is started again: short enough for a service that failed by
/// chance, and long enough not to fill the log.
const DELAY_FIRST: Duration = Duration::from_secs(1);
/// The longest delay. After a run that lasted at least this long, the delays begin with the
/// shortest again.
const DELAY_MAX: Duration = Duration::from_secs(30);
