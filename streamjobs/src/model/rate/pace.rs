//! How starts are granted: the generic cell rate algorithm, the same arithmetic as in `reserve_starts.lua`.
//!
//! One number is the whole state: the theoretical arrival time (TAT), in microseconds of the server's clock, up to
//! which the granted starts have used the rate. It moves forward by the interval `T` for each start. With a burst of
//! `B`, a start may be granted when the TAT is at most `T × (B − 1)` ahead of its time.
//!
//! A start may be late: the answer travels, the entry is read, the task begins. So a part of the burst is kept in
//! reserve as the *slack* `D`, half of `T × (B − 1)` and at most a quarter of a second: start `i` is granted for
//! `TAT + i × T − T × (B − 1) + D` at the earliest, and is valid until `D` later. Then any two starts `i` and `j`,
//! however late each is within its slack, are apart by at least `(j − i) × T − T × (B − 1)`. That is why in any window
//! `w` at most `w ÷ T + B` jobs start.

use super::Rate;

/// What a rate means for its starts, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    /// From one start to the next.
    pub(crate) interval: f64,
    /// How far the TAT may be ahead of a start.
    pub(crate) tolerance: f64,
    /// How late a start may be.
    pub(crate) slack: f64,
}

/// A request for a reservation, in microseconds of the server's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) now: f64,
    pub(crate) wanted: u32,
}

/// The result of a reservation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reserved {
    /// How many starts are granted.
    pub(crate) granted: u32,
    /// When the first start is allowed, relative to now. If this is below zero, it is allowed now, and so are the
    /// starts after it, each an interval later, whose times are not after now.
    pub(crate) offset: f64,
    /// The TAT, relative to now.
    pub(crate) tat: f64,
    /// If nothing was granted, how long to wait before asking again.
    pub(crate) wait: f64,
}

/// The TAT after unused starts were given back.
pub(crate) fn given_back(tat: f64, starts: u32, interval: f64) -> f64 {
    f64::from(starts).mul_add(-interval, tat).ceil()
}

impl Pace {
    pub(crate) fn of(rate: &Rate) -> Self {
        let interval = rate.interval_micros();
        let worth = interval * f64::from(rate.burst_size().get() - 1);
        let slack = (worth / 2.0).min(SLACK_MAX_MICROS);
        Self { interval, tolerance: worth - slack, slack }
    }

    /// Grants starts within the horizon.
    ///
    /// No reservation under this rate leaves a TAT further ahead than a certain bound. A TAT beyond it comes from a
    /// lower rate, or from before the server's clock was set back: it is cut back to the bound.
    pub(crate) fn reserve(&self, tat: f64, asked: Asked) -> Reserved {
        let Self { interval, tolerance, .. } = *self;
        let Asked { now, wanted } = asked;
        let ahead = tolerance + HORIZON_MICROS;
        // Because of rounding up, a reservation may leave the TAT a microsecond further ahead.
        let tat = tat.max(now).min(now + ahead + interval + 1.0);
        let room = ((now + ahead - tat) / interval).floor() + 1.0;
        let granted = room.clamp(0.0, f64::from(wanted));
        Reserved {
            // A whole number from 0 to `wanted`.
            granted: granted as u32,
            offset: tat - tolerance - now,
            tat: (tat + granted * interval).ceil(),
            wait: (tat - ahead - now).ceil().max(0.0),
        }
    }
}

/// How far ahead starts are granted: a process that dies wastes at most this much of the rate.
const HORIZON_MICROS: f64 = 500_000.0;
const SLACK_MAX_MICROS: f64 = 250_000.0;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;

    fn pace(starts: u32, per: Duration, burst: u32) -> Pace {
        let count = |count| NonZeroU32::new(count).unwrap();
        Pace::of(&Rate::new(count(starts), per).burst(count(burst)))
    }

    /// Of `k` starts, the first and the last are at least `(k - burst) × interval` apart.
    fn assert_bound(mut starts: Vec<f64>, interval: f64, burst: u32) {
        starts.sort_by(f64::total_cmp);
        let burst = usize::try_from(burst).unwrap();
        for (first, start) in starts.iter().enumerate() {
            let Some(last) = starts.get(first + burst) else { break };
            // The bound on longer windows follows from this one, because each further start is at least an interval
            // later in the same sense.
            assert!(last - start >= interval - 1.0, "{burst} and one more within {}", last - start);
        }
        for (first, start) in starts.iter().enumerate() {
            for (count, last) in starts[first..].iter().enumerate().skip(burst) {
                let least = f64::from(u32::try_from(count + 1 - burst).unwrap()) * interval;
                assert!(last - start >= least - 1.0, "{} within {}", count + 1, last - start);
            }
        }
    }

    #[test]
    fn any_window_has_at_most_its_rate_and_one_burst() {
        let seconds = Duration::from_secs;
        for (starts, per, burst) in [
            (500, seconds(1), 50),
            (7, seconds(1), 3),
            (100, seconds(60), 1),
            (3, seconds(3600), 5),
            (10_000, seconds(1), 300),
        ] {
            let pace = pace(starts, per, burst);
            let mut random = fastrand::Rng::with_seed(u64::from(starts));
            let (mut now, mut tat, mut at) = (1.7e15, 0.0, Vec::new());
            for _ in 0..400 {
                // Mostly a backlog, sometimes a quiet time; a grant is used, given back, or lost.
                let quiet = if random.u32(..20) == 0 { 40.0 } else { 0.7 };
                now += (random.f64() * pace.interval * quiet).ceil();
                let wanted = random.u32(1..20);
                let reserved = pace.reserve(tat, Asked { now, wanted });
                assert!(reserved.granted <= wanted);
                tat = reserved.tat;
                match random.u32(..10) {
                    0 => continue,
                    1 => {
                        tat = given_back(tat, reserved.granted, pace.interval);
                        continue;
                    }
                    _ => {}
                }
                for number in 0..reserved.granted {
                    let earliest = f64::from(number).mul_add(pace.interval, reserved.offset);
                    at.push(random.f64().mul_add(pace.slack, now + earliest.max(0.0)));
                }
            }
            assert!(at.len() > 100);
            assert_bound(at, pace.interval, burst);
        }
    }

    #[test]
    fn the_whole_rate_is_granted_to_those_who_ask_when_they_were_told() {
        let pace = pace(50, Duration::from_secs(1), 10);
        let (begun, mut now, mut tat, mut granted) = (1.7e15, 1.7e15, 0.0, 0);
        while now - begun < 10e6 {
            let reserved = pace.reserve(tat, Asked { now, wanted: 16 });
            (tat, granted) = (reserved.tat, granted + reserved.granted);
            now += if reserved.granted == 0 { reserved.wait.max(1.0) } else { 1_000.0 };
        }
        // Half a second ahead, and the burst without what is kept back for late starts.
        assert!((500..=500 + 10 + 25).contains(&granted), "{granted}");
    }

    #[test]
    fn a_tat_from_another_clock_or_a_lower_rate_is_cut_back() {
        let pace = pace(1, Duration::from_secs(1), 1);
        let now = 1.7e15;
        for tat in [now + 3600e6, now + 1e12, f64::MAX] {
            let reserved = pace.reserve(tat, Asked { now, wanted: 4 });
            assert_eq!(reserved.granted, 0);
            assert!(reserved.wait <= 1e6 + 1.0, "{}", reserved.wait);
            let later = now + reserved.wait;
            let reserved = pace.reserve(reserved.tat, Asked { now: later, wanted: 4 });
            assert_eq!(reserved.granted, 1, "it is never stuck");
        }
        assert_eq!(
            pace.reserve(0.0, Asked { now, wanted: 4 }).granted,
            1,
            "one, and no debt before"
        );
    }

    #[test]
    fn a_slow_rate_is_reserved_half_a_second_ahead_and_not_more() {
        let pace = pace(1, Duration::from_secs(3600), 1);
        let now = 1.7e15;
        let first = pace.reserve(0.0, Asked { now, wanted: 16 });
        assert_eq!((first.granted, first.offset), (1, 0.0));
        let second = pace.reserve(first.tat, Asked { now, wanted: 16 });
        assert_eq!((second.granted, second.wait), (0, 3600e6 - HORIZON_MICROS));
        let due = pace.reserve(first.tat, Asked { now: now + second.wait, wanted: 16 });
        assert_eq!((due.granted, due.offset), (1, HORIZON_MICROS));
    }
}
