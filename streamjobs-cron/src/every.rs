//! Intervals on a grid that starts with the epoch.

use std::fmt;
use std::time::Duration;

use crate::error::EveryError;

/// An interval: occurrences at each multiple of the period since 1970, plus an offset.
///
/// The grid does not depend on when a process started, so restarts and the clocks of several
/// processes do not move it. It has no zone: a period of a day is 24 hours.
///
/// ```
/// use std::time::Duration;
/// use streamjobs_cron::Every;
///
/// let every = Every::new(Duration::from_secs(300), Duration::from_secs(60))?;
/// assert_eq!(every.next_after(0), 60_000);
/// assert_eq!(every.next_after(60_000), 360_000);
/// # Ok::<(), streamjobs_cron::EveryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Every {
    period_ms: u64,
    offset_ms: u64,
}

impl Every {
    /// An interval with a period of 1 second to 365 days, and an offset below the period. Both are
    /// whole milliseconds.
    ///
    /// # Errors
    ///
    /// Names the bound that is violated.
    pub fn new(period: Duration, offset: Duration) -> Result<Self, EveryError> {
        if period < PERIOD_MIN {
            return Err(EveryError::TooShort);
        }
        if period > PERIOD_MAX {
            return Err(EveryError::TooLong);
        }
        if offset >= period {
            return Err(EveryError::Offset);
        }
        Ok(Self { period_ms: milliseconds(period)?, offset_ms: milliseconds(offset)? })
    }

    /// The first point of the grid that is later than this time, in milliseconds since 1970.
    #[must_use]
    pub fn next_after(&self, after_ms: u64) -> u64 {
        let Some(since) = after_ms.checked_sub(self.offset_ms) else { return self.offset_ms };
        // The offset is below the period, so this is the distance to the previous point.
        let past = since % self.period_ms;
        after_ms.saturating_add(self.period_ms - past)
    }

    /// The time between two occurrences.
    #[must_use]
    pub const fn period(&self) -> Duration {
        Duration::from_millis(self.period_ms)
    }

    /// How long after each multiple of the period an occurrence is.
    #[must_use]
    pub const fn offset(&self) -> Duration {
        Duration::from_millis(self.offset_ms)
    }

    /// The interval in English, as in "Every 5 minutes".
    #[must_use]
    pub fn in_words(&self) -> String {
        let every = match units(self.period_ms).as_slice() {
            [(1, unit)] => format!("Every {unit}"),
            parts => format!("Every {}", spelled(parts)),
        };
        match units(self.offset_ms).as_slice() {
            [] => every,
            parts => format!("{every}, {} after", spelled(parts)),
        }
    }
}

/// As in `5m` or `1h+90s`: period and offset, each in its largest whole unit.
impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&short(self.period_ms))?;
        match self.offset_ms {
            0 => Ok(()),
            offset => write!(f, "+{}", short(offset)),
        }
    }
}

fn milliseconds(duration: Duration) -> Result<u64, EveryError> {
    let whole = duration.subsec_nanos().is_multiple_of(1_000_000);
    let milliseconds = u64::try_from(duration.as_millis()).ok().filter(|_| whole);
    milliseconds.ok_or(EveryError::Fraction)
}

/// The duration in the largest unit that divides it.
fn short(milliseconds: u64) -> String {
    let unit = UNITS.iter().find(|(length, ..)| milliseconds.is_multiple_of(*length));
    let (length, short, _) = unit.copied().unwrap_or((1, "ms", "millisecond"));
    format!("{}{short}", milliseconds / length)
}

/// How many of each unit.
fn units(milliseconds: u64) -> Vec<(u64, &'static str)> {
    let mut rest = milliseconds;
    let parts = UNITS.iter().map(|(length, _, name)| {
        let count = rest / length;
        rest %= length;
        (count, *name)
    });
    parts.filter(|(count, _)| *count > 0).collect()
}

fn spelled(parts: &[(u64, &str)]) -> String {
    let words = parts.iter().map(|(count, unit)| match count {
        1 => format!("1 {unit}"),
        _ => format!("{count} {unit}s"),
    });
    words.collect::<Vec<_>>().join(" ")
}

const PERIOD_MIN: Duration = Duration::from_secs(1);
const PERIOD_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const UNITS: [(u64, &str, &str); 5] = [
    (86_400_000, "d", "day"),
    (3_600_000, "h", "hour"),
    (60_000, "m", "minute"),
    (1_000, "s", "second"),
    (1, "ms", "millisecond"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn every(period: u64, offset: u64) -> Result<Every, EveryError> {
        Every::new(Duration::from_millis(period), Duration::from_millis(offset))
    }

    #[test]
    fn the_grid_begins_with_the_epoch_plus_the_offset() {
        let plain = every(300_000, 0).unwrap();
        assert_eq!(
            [0, 1, 299_999, 300_000].map(|at| plain.next_after(at)),
            [300_000, 300_000, 300_000, 600_000]
        );
        let shifted = every(300_000, 60_000).unwrap();
        assert_eq!(
            [0, 59_999, 60_000, 359_999, 360_000].map(|at| shifted.next_after(at)),
            [60_000, 60_000, 360_000, 360_000, 660_000]
        );
        assert_eq!(plain.next_after(u64::MAX), u64::MAX, "the end of all times");
    }

    #[test]
    fn an_interval_has_bounds() {
        let year = 365 * 86_400_000;
        assert_eq!(every(999, 0), Err(EveryError::TooShort));
        assert_eq!(every(year + 1, 0), Err(EveryError::TooLong));
        assert_eq!(every(1_000, 1_000), Err(EveryError::Offset));
        let fraction = Duration::from_micros(1_000_500);
        assert_eq!(Every::new(fraction, Duration::ZERO), Err(EveryError::Fraction));
        let offset = Every::new(Duration::from_secs(2), Duration::from_micros(500));
        assert_eq!(offset, Err(EveryError::Fraction));
        assert!(every(1_000, 999).is_ok() && every(year, 0).is_ok());
    }

    #[test]
    fn an_interval_is_shown_short_and_in_words() {
        let shown = |period, offset| {
            let every = every(period, offset).unwrap();
            (every.to_string(), every.in_words())
        };
        let pair = |short: &str, words: &str| (short.to_owned(), words.to_owned());
        assert_eq!(shown(300_000, 0), pair("5m", "Every 5 minutes"));
        assert_eq!(shown(86_400_000, 0), pair("1d", "Every day"));
        assert_eq!(
            shown(3_600_000, 90_000),
            pair("1h+90s", "Every hour, 1 minute 30 seconds after")
        );
        assert_eq!(
            shown(1_500, 1),
            pair("1500ms+1ms", "Every 1 second 500 milliseconds, 1 millisecond after")
        );
    }
}
