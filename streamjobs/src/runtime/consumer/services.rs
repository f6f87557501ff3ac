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

use crate::handler::panic_text;
use crate::handler::service::{ServedQueue, Service, ServiceContext};
use crate::insight::metrics::ServiceMetrics;
use crate::model::backoff::Backoff;
use crate::model::cause::BoxError;
use crate::model::error::StartError;
use crate::publish::client::Client;
use crate::runtime::observe::report::Tally;
use crate::runtime::state::wait::LoopBackoff;

/// What runs beside the consumers.
pub(crate) struct Services {
    services: Vec<Arc<dyn Service>>,
    context: ServiceContext,
    /// Asks them to end.
    stop: CancellationToken,
    /// Drops those that have not.
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Services {
    /// Services of which none runs yet.
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
            // The call may panic, and not only the future that it gives.
            let prepared = async { service.prepare(&self.context).await };
            let prepared = timeout(PREPARE_MAX, AssertUnwindSafe(prepared).catch_unwind()).await;
            let refused: BoxError = match prepared {
                Ok(Ok(Ok(()))) => continue,
                Ok(Ok(Err(source))) => source,
                Ok(Err(panic)) => format!("it panicked: {}", panic_text(panic.as_ref())).into(),
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

    /// Tells all of them to end, waits for that, and drops those that do not.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(STOP_MAX, self.tasks.wait()).await.is_err() {
            self.abort.cancel();
            // One that blocks its thread cannot be dropped.
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

/// One service and what is needed to keep it running.
struct Supervised {
    service: Arc<dyn Service>,
    context: ServiceContext,
    stop: CancellationToken,
    abort: CancellationToken,
    metrics: ServiceMetrics,
    tally: Arc<Tally>,
}

impl Supervised {
    /// Runs the service again and again until the stop.
    async fn run(self) {
        let service = self.service.name();
        info!(service, "service started");
        let mut pause = LoopBackoff::with(Backoff::exponential(PAUSE_FIRST, PAUSE_MAX));
        while !self.stop.is_cancelled() {
            let began = Instant::now();
            let run = async { self.service.run(self.context.for_one_run()).await };
            let ended = tokio::select! {
                biased;
                () = self.abort.cancelled() => {
                    warn!(service, "the service was dropped before it had ended");
                    return;
                }
                ended = AssertUnwindSafe(run).catch_unwind() => ended,
            };
            let panic = ended.err().map(|panic| panic_text(panic.as_ref()));
            self.ended(panic);
            if began.elapsed() >= PAUSE_MAX {
                pause.reset();
            }
            pause.wait(&self.stop).await;
        }
        info!(service, "service stopped");
    }

    /// Counts and logs the end of a run, unless it ended because it was told to.
    fn ended(&self, panic: Option<String>) {
        let service = self.service.name();
        if panic.is_none() && self.stop.is_cancelled() {
            return;
        }
        self.metrics.ended(panic.is_some());
        self.tally.service_ended();
        match panic {
            Some(panic) => error!(service, panic, "the service panicked"),
            None => error!(service, "the service returned before it was told to"),
        }
    }
}

/// How long a service has to say whether it can run.
const PREPARE_MAX: Duration = Duration::from_secs(30);
/// How long services have to end when they are told to.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How long it may take until those that did not end are gone.
const DROP_MAX: Duration = Duration::from_secs(2);
/// A service that ends at once fills no log, and one that died by chance is back soon.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause; a run that lasted as long begins with the shortest again.
const PAUSE_MAX: Duration = Duration::from_secs(30);
