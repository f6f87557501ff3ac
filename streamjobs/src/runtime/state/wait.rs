//! How loops wait: with jitter, with a bound, until a stop, and for their turn.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::model::backoff::Backoff;
use crate::runtime::state::lock;

/// The delays between tries of a loop that meets errors.
#[derive(Debug)]
pub(crate) struct LoopBackoff {
    backoff: Backoff,
    failures: u32,
}

impl LoopBackoff {
    /// The delays of a loop that talks to the server: 50 ms to 2 s.
    pub(crate) fn new() -> Self {
        Self::with(Backoff::exponential(DELAY_FIRST, DELAY_MAX))
    }

    pub(crate) fn with(backoff: Backoff) -> Self {
        Self { backoff, failures: 0 }
    }

    /// Records that the last try succeeded.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next try; returns at once at a stop.
    pub(crate) async fn wait(&mut self, stop: &CancellationToken) {
        self.failures = self.failures.saturating_add(1);
        // At least half the bound: with full jitter a loop could try many times in a millisecond.
        let delay = self.backoff.delay(self.failures, 0.5 + fastrand::f64() / 2.0);
        stopped_within(stop, delay).await;
    }
}

/// Waits for the delay. Returns true if a stop ended the wait. A delay of zero does not wait: the shortest wait of a
/// timer is a millisecond.
pub(crate) async fn stopped_within(stop: &CancellationToken, delay: Duration) -> bool {
    if delay.is_zero() {
        return stop.is_cancelled();
    }
    stopped_before(stop, sleep(delay)).await
}

/// Waits for the event. Returns true if a stop ended the wait; if both happen, the stop wins.
pub(crate) async fn stopped_before(
    stop: &CancellationToken,
    event: impl Future<Output = ()>,
) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => true,
        () = event => false,
    }
}

/// An interval with a jitter of a fifth in both directions, so that processes do not act at the same moments.
pub(crate) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(fastrand::f64().mul_add(0.4, 0.8))
}

/// A little less than any [`jittered`] interval: work that a loop did this long ago is due again.
pub(crate) fn most_of(interval: Duration) -> Duration {
    interval / 4 * 3
}

/// The turn of loops that do the same work. It is enough if one of the loops does the work within the interval, and
/// any of them may stop.
#[derive(Debug, Default)]
pub(crate) struct OncePerInterval {
    taken: Mutex<Option<Instant>>,
}

impl OncePerInterval {
    /// Takes the turn, unless it was taken within most of the interval.
    pub(crate) fn take(&self, now: Instant, interval: Duration) -> bool {
        let mut taken = lock(&self.taken);
        let is_due =
            taken.is_none_or(|taken| now.saturating_duration_since(taken) >= most_of(interval));
        if is_due {
            *taken = Some(now);
        }
        is_due
    }
}

const DELAY_FIRST: Duration = Duration::from_millis(50);
/// The longest delay: a server that is back is noticed within this time.
const DELAY_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(4);

    #[test]
    fn one_of_several_loops_takes_the_turn_within_an_interval() {
        let (turn, now) = (OncePerInterval::default(), Instant::now());
        assert!(turn.take(now, INTERVAL));
        assert!(!turn.take(now, INTERVAL) && !turn.take(now + INTERVAL / 2, INTERVAL));
        assert!(turn.take(now + INTERVAL, INTERVAL));
    }

    #[test]
    fn a_loop_that_is_alone_takes_every_turn() {
        let (turn, mut now) = (OncePerInterval::default(), Instant::now());
        for _ in 0..1_000 {
            assert!(turn.take(now, INTERVAL));
            now += jittered(INTERVAL);
        }
    }
}
