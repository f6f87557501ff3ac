//! The application's observers: they are told what became of attempts, on the application's executor.
//!
//! Loops put observations into a bounded queue and never wait for it; observations that do not fit are dropped
//! and counted.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use crate::insight::metrics::ObserverMetrics;
use crate::model::cause::caught;
use crate::runtime::observe::{Count, Observation, Tally};
use crate::runtime::state::{OnConfirmed, lock};

/// A function that is told what became of attempts.
pub(crate) type ObserverHook = Arc<dyn Fn(&Observation) + Send + Sync>;

/// The queue to the observers of a runtime.
pub(crate) struct Observers {
    queue: mpsc::Sender<Observation>,
    counts: Arc<ObserverCounts>,
    stop: CancellationToken,
    /// The task that calls the observers.
    task: TaskTracker,
}

impl Observers {
    /// Starts the task that calls these observers, on the application's executor; `None` without observers.
    pub(crate) fn start(
        hooks: Vec<ObserverHook>,
        tally: &Arc<Tally>,
        app: &Handle,
    ) -> Option<Arc<Self>> {
        if hooks.is_empty() {
            return None;
        }
        let (queue, observations) = mpsc::channel(QUEUE_MAX);
        let counts = Arc::new(ObserverCounts::new(Arc::clone(tally)));
        let (stop, task) = (CancellationToken::new(), TaskTracker::new());
        let teller = Teller { hooks, counts: Arc::clone(&counts), stop: stop.clone() };
        task.spawn_on(teller.run(observations), app);
        task.close();
        Some(Arc::new(Self { queue, counts, stop, task }))
    }

    /// Passes an observation to the observers, unless too many are waiting.
    pub(crate) fn tell(&self, observation: Observation) {
        // After the stop there is nothing to report: jobs have ended, or were abandoned.
        if let Err(TrySendError::Full(_)) = self.queue.try_send(observation) {
            self.counts.dropped();
        }
    }

    /// Lets the observers finish what is waiting, up to a time limit. No new observations arrive any more.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        // An observer that blocks its thread cannot be dropped.
        let _late = timeout(STOP_MAX, self.task.wait()).await.is_err();
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.queue.max_capacity() - self.queue.capacity();
        f.debug_struct("Observers").field("waiting", &waiting).finish_non_exhaustive()
    }
}

/// Calls the observers with one observation after the other.
struct Teller {
    hooks: Vec<ObserverHook>,
    counts: Arc<ObserverCounts>,
    stop: CancellationToken,
}

impl Teller {
    /// Reports observations until the stop, and then those that still wait. Also ends when the runtime is gone.
    async fn run(self, mut observations: mpsc::Receiver<Observation>) {
        loop {
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled(), if !observations.is_closed() => {
                    observations.close();
                    continue;
                }
                next = observations.recv() => next,
            };
            let Some(observation) = next else { return };
            for hook in &self.hooks {
                if caught(|| hook(&observation)).is_err() {
                    self.counts.panicked();
                }
            }
        }
    }
}

/// A job whose acknowledgement is not confirmed yet, and what observers will be told once it is.
#[derive(Debug)]
pub(crate) struct ToldOnceDone {
    pub(crate) observers: Arc<Observers>,
    pub(crate) observation: Observation,
}

impl OnConfirmed for ToldOnceDone {
    fn confirmed(self: Box<Self>) {
        self.observers.tell(self.observation);
    }
}

/// The observations that were dropped, and the panics of observers.
struct ObserverCounts {
    metrics: ObserverMetrics,
    tally: Arc<Tally>,
    logged: [Mutex<Option<Instant>>; 2],
}

impl ObserverCounts {
    fn new(tally: Arc<Tally>) -> Self {
        Self { metrics: ObserverMetrics::new(), tally, logged: Default::default() }
    }

    fn dropped(&self) {
        self.metrics.dropped.increment(1);
        self.tally.add(Count::ObservationsDropped, 1);
        let [logged, _] = &self.logged;
        if is_due(logged) {
            let dropped = self.tally.counters().observations_dropped;
            warn!(dropped, "observers are too slow: observations are dropped");
        }
    }

    fn panicked(&self) {
        self.metrics.panicked.increment(1);
        self.tally.add(Count::ObserverPanics, 1);
        let [_, logged] = &self.logged;
        if is_due(logged) {
            let panics = self.tally.counters().observer_panics;
            error!(panics, "an observer panicked");
        }
    }
}

/// Whether a line that is logged at most once a minute is due.
fn is_due(logged: &Mutex<Option<Instant>>) -> bool {
    let (now, mut last) = (Instant::now(), lock(logged));
    let is_due = last.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL);
    if is_due {
        *last = Some(now);
    }
    is_due
}

/// How many observations wait at most.
const QUEUE_MAX: usize = 8_192;
/// How long a shutdown waits for observers.
const STOP_MAX: Duration = Duration::from_secs(5);
const LOG_INTERVAL: Duration = Duration::from_secs(60);
