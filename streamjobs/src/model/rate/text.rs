//! A rate as text: as people write it, and as the server stores it.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use super::{Rate, RateError};

/// What an operator has set in place of the rate in the code. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetRate {
    /// This rate.
    At(Rate),
    /// No limit.
    Unlimited,
}

impl Rate {
    /// As it is stored: starts, microseconds, burst.
    pub(crate) fn stored(&self) -> String {
        format!("{}/{}/{}", self.starts, self.per.as_micros(), self.burst)
    }

    /// Reads what [`stored`](Self::stored) has written; none for anything else.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let mut next = || parts.next()?.parse::<u64>().ok();
        let (starts, per, burst) = (next()?, next()?, next()?);
        let count = |count: u64| u32::try_from(count).ok().and_then(NonZeroU32::new);
        let rate = Self::new(count(starts)?, Duration::from_micros(per)).burst(count(burst)?);
        (parts.next().is_none() && rate.check().is_ok()).then_some(rate)
    }
}

impl SetRate {
    /// As it is stored.
    pub(crate) fn stored(&self) -> String {
        match self {
            Self::At(rate) => rate.stored(),
            Self::Unlimited => UNLIMITED.to_owned(),
        }
    }

    /// Reads what [`stored`](Self::stored) has written; none for anything else.
    pub(crate) fn read(text: &str) -> Option<Self> {
        match text {
            UNLIMITED => Some(Self::Unlimited),
            text => Rate::read(text).map(Self::At),
        }
    }
}

impl From<Rate> for SetRate {
    fn from(rate: Rate) -> Self {
        Self::At(rate)
    }
}

impl fmt::Display for SetRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(rate) => rate.fmt(f),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.per.as_micros();
        let fits = |unit: &&(&str, u128)| micros.is_multiple_of(unit.1);
        let (unit, length) = UNITS.iter().rev().find(fits).copied().unwrap_or(("us", 1));
        write!(f, "{}/{}{unit}", self.starts, micros / length)?;
        match self.burst.get() {
            1 => Ok(()),
            burst => write!(f, ", burst {burst}"),
        }
    }
}

impl FromStr for Rate {
    type Err = RateError;

    /// Reads a number of starts and a time, as in `100/1m`; the units are `ms`, `s`, `m`, `h` and `d`.
    fn from_str(text: &str) -> Result<Self, RateError> {
        let form = || RateError(format!("{text:?} is not a rate: {EXPECTED}"));
        let (starts, per) = text.split_once('/').ok_or_else(form)?;
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(starts) {
            return Err(form());
        }
        let starts = starts.parse::<u32>().map_err(|_| {
            RateError(format!("a rate is at most {} starts: {text:?} has more", u32::MAX))
        })?;
        let none = || RateError("a rate of zero starts no job: pause the group instead".to_owned());
        let starts = NonZeroU32::new(starts).ok_or_else(none)?;
        let number = per.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = per.split_at(number);
        let unit = UNITS.iter().find(|(name, _)| *name == unit && !number.is_empty());
        let (_, length) = unit.ok_or_else(form)?;
        // A number that overflows is too long as well.
        let per = number.parse::<u64>().ok().and_then(|number| {
            let micros = u128::from(number).checked_mul(*length)?;
            u64::try_from(micros).ok().map(Duration::from_micros)
        });
        let rate = Self::new(starts, per.unwrap_or(Duration::MAX));
        rate.check().map(|()| rate)
    }
}

const UNLIMITED: &str = "off";
const UNITS: [(&str, u128); 5] = [
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];
const EXPECTED: &str = "expected starts, a slash and a time in ms, s, m, h or d, as in \"100/1m\"";

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Result<String, String> {
        let rate = text.parse::<Rate>();
        rate.map(|rate| rate.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for (text, shown) in [
            ("100/1m", "100/1m"),
            ("1/24h", "1/1d"),
            ("5/90s", "5/90s"),
            ("500/1000ms", "500/1s"),
            ("1/1ms", "1/1ms"),
        ] {
            assert_eq!(rate(text).as_deref(), Ok(shown));
            assert_eq!(rate(shown).as_deref(), Ok(shown));
        }
        let rate = "7/1s".parse::<Rate>().unwrap().burst(NonZeroU32::new(3).unwrap());
        assert_eq!(
            (rate.to_string(), rate.stored()),
            ("7/1s, burst 3".into(), "7/1000000/3".into())
        );
        assert_eq!(Rate::read("7/1000000/3"), Some(rate));
        assert_eq!(SetRate::read(&SetRate::At(rate).stored()), Some(SetRate::At(rate)));
        assert_eq!(SetRate::read("off"), Some(SetRate::Unlimited));
    }

    #[test]
    fn what_is_no_rate_is_refused_by_name() {
        for bad in
            ["", "100", "100/", "/1m", "100/m", "100/1", "1.5/1s", "-1/1s", "100/1y", "1/1s/2"]
        {
            assert!(rate(bad).unwrap_err().contains("is not a rate"), "{bad}");
        }
        assert!(rate("0/1m").unwrap_err().contains("zero"));
        assert!(rate("1/31d").unwrap_err().contains("1ms to 30d"));
        assert!(rate("1/99999999999999999999d").unwrap_err().contains("1ms to 30d"));
        assert!(rate("4294967296/1s").unwrap_err().contains("has more"));
        assert!(rate("200000/1s").unwrap_err().contains("in a second"));
        for bad in
            ["", "off ", "1/2", "0/1000000/1", "1/1000000/0", "1/1000000/1/1", "1/1/1", "a/b/c"]
        {
            assert_eq!(SetRate::read(bad), None, "{bad}");
        }
    }
}
