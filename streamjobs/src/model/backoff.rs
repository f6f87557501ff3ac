//! The delay before a retry.

use std::fmt;
use std::time::Duration;

/// The delay after a failed attempt: exponential with full jitter, or fixed.
///
/// The default doubles from 1 s to 10 min. Full jitter draws the delay evenly from zero to the doubled
/// bound, so that jobs that failed at the same time are not retried at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    jitter: bool,
}

impl Backoff {
    /// Doubles the bound with each attempt, from `first` to `max`, with full jitter.
    #[must_use]
    pub const fn exponential(first: Duration, max: Duration) -> Self {
        Self { first, max, jitter: true }
    }

    /// The same delay after each attempt.
    #[must_use]
    pub const fn fixed(delay: Duration) -> Self {
        Self { first: delay, max: delay, jitter: false }
    }

    /// The longest delay after any attempt.
    pub(crate) const fn longest(&self) -> Duration {
        self.max
    }

    /// The delay after the given attempt (from 1); `random` is drawn evenly from 0 to 1.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(DOUBLINGS_MAX);
        let bound = self.first.saturating_mul(1_u32 << doublings).min(self.max);
        if self.jitter { bound.mul_f64(random.clamp(0.0, 1.0)) } else { bound }
    }
}

/// The form in which the attribute writes it: `1s..600s`, or a fixed delay.
impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.jitter {
            true => write!(f, "{:?}..{:?}", self.first, self.max),
            false => write!(f, "{:?}", self.max),
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1), Duration::from_secs(600))
    }
}

/// After this many doublings, any useful first delay is past any useful maximum.
const DOUBLINGS_MAX: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_from_the_first_to_the_ceiling() {
        let backoff = Backoff::default();
        let bounds =
            [1, 2, 3, 10, 11, 1_000, u32::MAX].map(|attempt| backoff.delay(attempt, 1.0).as_secs());
        assert_eq!(bounds, [1, 2, 4, 512, 600, 600, 600]);
    }

    #[test]
    fn jitter_is_full_and_never_leaves_its_bounds() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(4, 0.0), Duration::ZERO);
        assert_eq!(backoff.delay(4, 0.5), Duration::from_secs(4));
        assert_eq!(backoff.delay(4, 7.0), Duration::from_secs(8));
        assert_eq!(backoff.delay(4, f64::NAN.max(0.0)), Duration::ZERO);
    }

    #[test]
    fn a_fixed_delay_has_no_jitter() {
        let backoff = Backoff::fixed(Duration::from_millis(5));
        assert_eq!(backoff.delay(1, 0.0), backoff.delay(9, 1.0));
    }
}
