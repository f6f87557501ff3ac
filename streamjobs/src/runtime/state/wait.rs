//! How loops wait: jittered, bounded, and ended by a stop.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::model::backoff::Backoff;

/// The pauses between tries of a loop that meets errors.
#[derive(Debug)]
pub(crate) struct LoopBackoff {
    backoff: Backoff,
    failures: u32,
}

impl LoopBackoff {
    /// The pauses of a loop that talks to the server.
    pub(crate) fn new() -> Self {
        Self::with(Backoff::exponential(PAUSE_FIRST, PAUSE_MAX))
    }

    pub(crate) fn with(backoff: Backoff) -> Self {
        Self { backoff, failures: 0 }
    }

    /// The last try succeeded.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next try; returns at once at a stop.
    pub(crate) async fn wait(&mut self, stop: &CancellationToken) {
        self.failures = self.failures.saturating_add(1);
        // Half the bound at least: full jitter could try many times within a millisecond.
        let delay = self.backoff.delay(self.failures, 0.5 + fastrand::f64() / 2.0);
        stopped_within(stop, delay).await;
    }
}

/// Waits, and says whether a stop ended the wait.
pub(crate) async fn stopped_within(stop: &CancellationToken, delay: Duration) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => true,
        () = sleep(delay) => false,
    }
}

/// An interval with a fifth of jitter to both sides, so that processes do not act in step.
pub(crate) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(fastrand::f64().mul_add(0.4, 0.8))
}

const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Recovery of the server is noticed within this time.
const PAUSE_MAX: Duration = Duration::from_secs(2);
