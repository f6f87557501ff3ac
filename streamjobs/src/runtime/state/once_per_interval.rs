//! One of several loops acts within an interval.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::state::lock::lock;
use crate::runtime::state::wait::most_of;

/// The turn of loops that do the same work: one of them within the interval is enough, and any of
/// them may stop.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::state::wait::jittered;

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
