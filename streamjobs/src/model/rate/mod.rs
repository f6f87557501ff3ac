//! The rate of a group: how many of its jobs may start in a period, over all processes. Pure.

#[cfg(any(test, feature = "testing"))]
mod pace;
mod text;

#[cfg(any(test, feature = "testing"))]
pub(crate) use self::pace::{Asked, Pace, given_back};
pub use self::text::SetRate;

use std::num::NonZeroU32;
use std::time::Duration;

/// How many jobs of a group may start in a period, over all processes: for
/// [`GroupOptions::rate`](crate::config::GroupOptions::rate) and
/// [`Group::set_rate`](crate::stream::Group::set_rate).
///
/// In any window of any length, at most `starts × window ÷ per + burst` jobs start, retries and runs after a crash
/// included. Jobs that wait stay in the stream. Starts are evenly spread, except for the burst: with 100 in a minute
/// there is one every 0.6 s, and after a quiet time as many at once as the burst allows. Starts can be some
/// milliseconds late, because of networks and timers, and a burst absorbs that: without one, two starts can be closer
/// together by as much as the first of them was late.
///
/// ```
/// use streamjobs::Rate;
///
/// let rate = "100/1m".parse::<Rate>()?.burst(20.try_into()?);
/// assert_eq!(rate.to_string(), "100/1m, burst 20");
/// assert!("0/1m".parse::<Rate>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Rate {
    starts: NonZeroU32,
    per: Duration,
    burst: NonZeroU32,
}

/// Why a rate cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RateError(pub(super) String);

impl Rate {
    /// This many starts in this time, without a burst: evenly spread. `per` is 1 ms to 30 days, in whole
    /// microseconds. A rate that cannot be kept is refused where it is used.
    pub const fn new(starts: NonZeroU32, per: Duration) -> Self {
        Self { starts, per, burst: NonZeroU32::MIN }
    }

    /// How many jobs may start at once after a quiet time: 1 by default, at most a million.
    ///
    /// Within a window of any length, the burst comes on top of the rate. With a large burst, the other side can see
    /// more than the rate for a moment. A small burst costs throughput when starts are late: with 500 in a second, a
    /// burst of 50 makes up for a tenth of a second.
    pub const fn burst(mut self, burst: NonZeroU32) -> Self {
        self.burst = burst;
        self
    }

    /// How many jobs may start in [`per`](Self::per).
    #[must_use]
    pub const fn starts(&self) -> NonZeroU32 {
        self.starts
    }

    /// The period in which [`starts`](Self::starts) jobs may start.
    #[must_use]
    pub const fn per(&self) -> Duration {
        self.per
    }

    /// How many jobs may start at once.
    #[must_use]
    pub const fn burst_size(&self) -> NonZeroU32 {
        self.burst
    }

    /// Checks that the rate can be kept.
    ///
    /// # Errors
    ///
    /// When the time is not 1 ms to 30 days, when there are more than 100,000 starts in a second, and when the burst
    /// is above a million or is worth more than 365 days of starts.
    pub fn check(&self) -> Result<(), RateError> {
        let fault = |text: String| Err(RateError(text));
        if self.per < PER_MIN || self.per > PER_MAX {
            return fault(format!("the time of a rate is 1ms to 30d, and not {:?}", self.per));
        }
        let interval = self.interval_micros();
        if interval < INTERVAL_MIN_MICROS {
            return fault("a rate is at most 100000 starts in a second".to_owned());
        }
        let burst = self.burst.get();
        if burst > BURST_MAX {
            return fault(format!("the burst of a rate is at most {BURST_MAX}"));
        }
        if interval * f64::from(burst - 1) > BURST_MAX_MICROS {
            return fault("the burst of a rate is worth at most 365 days of starts".to_owned());
        }
        Ok(())
    }

    /// The time from one start to the next, in microseconds.
    fn interval_micros(&self) -> f64 {
        self.per.as_secs_f64() * 1e6 / f64::from(self.starts.get())
    }
}

const PER_MIN: Duration = Duration::from_millis(1);
const PER_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const INTERVAL_MIN_MICROS: f64 = 10.0;
const BURST_MAX: u32 = 1_000_000;
/// The longest time whose starts a burst may be worth: a year, so that sums with clocks stay exact where scripts count
/// in floating point.
const BURST_MAX_MICROS: f64 = 365.0 * 24.0 * 3600.0 * 1e6;

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(starts: u32, per: Duration, burst: u32) -> Result<(), String> {
        let count = |count| NonZeroU32::new(count).unwrap();
        let rate = Rate::new(count(starts), per).burst(count(burst));
        rate.check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_rate_that_cannot_be_kept_is_refused_with_its_bound() {
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
        for (starts, per, burst, text) in [
            (1, Duration::from_micros(999), 1, "1ms to 30d"),
            (1, day * 31, 1, "1ms to 30d"),
            (100_001, second, 1, "100000 starts in a second"),
            (1, second, 1_000_001, "at most 1000000"),
            (1, day, 367, "365 days"),
        ] {
            let error = rate(starts, per, burst).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
        for (starts, per, burst) in
            [(1, PER_MIN, 1), (100_000, second, 1_000_000), (1, day * 30, 12), (7, second, 3)]
        {
            assert_eq!(rate(starts, per, burst), Ok(()));
        }
    }
}
