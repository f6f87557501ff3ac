//! Durations in attributes: `"30s"`, `"500ms"`.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;

/// Parses a whole number and its unit; the error is a message for the user.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let (Some((_, milliseconds)), false) = (unit, number.is_empty()) else {
        return Err(format!(
            "{text:?} is not a duration: expected a whole number and one of the units ms, s, m, h, d, as in \"30s\""
        ));
    };
    // A number that overflows is too long as well.
    let total = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*milliseconds));
    match total.map(Duration::from_millis) {
        Some(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err(format!("the duration {text:?} is too long: at most 365d")),
    }
}

/// The duration as a constant expression.
pub(crate) fn tokens(duration: Duration) -> TokenStream {
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    quote_spanned!(Span::mixed_site()=> ::core::time::Duration::new(#seconds, #nanoseconds))
}

const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// The longest duration: above every useful setting, and low enough that sums with clocks cannot
/// overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_parsed() {
        let seconds = |text: &str| parse(text).unwrap().as_secs_f64();
        assert_eq!(
            ["500ms", "30s", "5m", "1h", "2d", "0s"].map(seconds),
            [0.5, 30.0, 300.0, 3600.0, 172_800.0, 0.0]
        );
        assert_eq!(parse("365d"), Ok(DURATION_MAX));
    }

    #[test]
    fn invalid_durations_are_refused() {
        for bad in ["", "30", "s", "30 s", "1.5s", "-1s", "+1s", "30S", "1us", "1m30s", "٣s", "30ß"]
        {
            let message = parse(bad).unwrap_err();
            assert!(message.contains("is not a duration"), "{message}");
        }
        for long in ["366d", "31536000001ms", "99999999999999999999s", "18446744073709551615d"] {
            let message = parse(long).unwrap_err();
            assert!(message.contains("too long"), "{message}");
        }
    }
}
