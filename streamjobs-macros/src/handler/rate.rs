//! The options `rate` and `burst`: how many jobs of the group may start in a period.

use std::num::NonZeroU32;
use std::time::Duration;

use syn::{Error, LitInt};

use super::parse::Options;
use crate::errors::Errors;
use crate::{count, duration};

/// A rate that can be kept.
#[derive(Debug, PartialEq)]
pub(crate) struct Rate {
    pub(crate) starts: NonZeroU32,
    pub(crate) per: Duration,
    pub(crate) burst: NonZeroU32,
}

impl Rate {
    /// The rate of the options, if they have a valid rate.
    pub(super) fn new(options: &Options, errors: &mut Errors) -> Option<Self> {
        let burst = options.burst.as_ref().map(burst).transpose();
        let burst = errors.keep(burst);
        if let (Some(literal), false) = (&options.burst, options.names("rate")) {
            let message = "`burst` belongs to a rate: name it too, as in `rate = \"100/1m\"`";
            errors.push(Error::new(literal.span(), message));
        }
        let literal = options.rate.as_ref()?;
        let fault = |message| Error::new(literal.span(), message);
        let (starts, per) = errors.keep(parse(&literal.value()).map_err(fault))?;
        let rate = Self { starts, per, burst: burst?.unwrap_or(NonZeroU32::MIN) };
        if let (Some(literal), true) = (&options.burst, rate.burst_worth() > BURST_WORTH_MAX) {
            let message = "`burst` is worth more than 365d of starts at this rate";
            errors.push(Error::new(literal.span(), message));
            return None;
        }
        Some(rate)
    }

    /// How many nanoseconds of starts the burst is worth.
    fn burst_worth(&self) -> u128 {
        self.per.as_nanos() * u128::from(self.burst.get() - 1) / u128::from(self.starts.get())
    }
}

fn burst(literal: &LitInt) -> syn::Result<NonZeroU32> {
    let burst = count::parse("burst", literal)?;
    match burst.get() <= BURST_MAX {
        true => Ok(burst),
        false => Err(Error::new(literal.span(), format!("`burst` is at most {BURST_MAX}"))),
    }
}

fn parse(text: &str) -> Result<(NonZeroU32, Duration), String> {
    let form =
        || format!("{text:?} is not a rate: expected starts, a slash and a time, as in \"100/1m\"");
    let (starts, per) = text.split_once('/').ok_or_else(form)?;
    if starts.is_empty() || !starts.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(form());
    }
    let too_many = |_| format!("`rate` is at most {} starts", u32::MAX);
    let starts = starts.parse::<u32>().map_err(too_many)?;
    let none = "a rate of zero starts no job: omit the option for no limit";
    let starts = NonZeroU32::new(starts).ok_or(none)?;
    let per = duration::parse(per).map_err(|fault| format!("the time of the rate: {fault}"))?;
    if per < PER_MIN || per > PER_MAX {
        return Err(format!("the time of the rate {text:?} is at least 1ms and at most 30d"));
    }
    // More than 100,000 in a second.
    if per.as_micros() < 10 * u128::from(starts.get()) {
        return Err(format!("the rate {text:?} is too high: at most 100000 starts in a second"));
    }
    Ok((starts, per))
}

/// The bounds of the core crate's settings.
const PER_MIN: Duration = Duration::from_millis(1);
const PER_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const BURST_MAX: u32 = 1_000_000;
const BURST_WORTH_MAX: u128 = 365 * 24 * 60 * 60 * 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_of_starts_and_a_time() {
        let parsed = |text: &str| parse(text).map(|(starts, per)| (starts.get(), per.as_secs()));
        assert_eq!(parsed("100/1m"), Ok((100, 60)));
        assert_eq!(parsed("1/30d"), Ok((1, 30 * 86_400)));
        assert_eq!(parsed("100000/1s"), Ok((100_000, 1)));
        for (bad, fault) in [
            ("", "is not a rate"),
            ("100", "is not a rate"),
            ("x/1s", "is not a rate"),
            ("-1/1s", "is not a rate"),
            ("/1s", "is not a rate"),
            ("4294967296/1s", "at most 4294967295 starts"),
            ("0/1s", "zero starts no job"),
            ("1/1y", "is not a duration"),
            ("1/0s", "at least 1ms"),
            ("1/31d", "at most 30d"),
            ("100001/1s", "too high"),
        ] {
            let error = parsed(bad).unwrap_err();
            assert!(error.contains(fault), "{error}");
        }
    }
}
