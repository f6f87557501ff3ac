//! A checked expression.

use std::fmt;
use std::str::FromStr;

use crate::error::{CheckError, CronError, NextError};
use crate::expression::Expression;
use crate::zone::Zone;
use crate::{next, words};

/// A cron expression: minute, hour, day of month, month and weekday.
///
/// | Field | Values | Also |
/// |---|---|---|
/// | minute | 0–59 | |
/// | hour | 0–23 | |
/// | day of month | 1–31 | `L` last day, `LW` last Monday to Friday, `15W` Monday to Friday nearest to the 15th |
/// | month | 1–12, `JAN`–`DEC` | |
/// | weekday | 0–7 (0 and 7 are Sunday), `SUN`–`SAT` | `5#3` third Friday, `5L` last Friday of the month |
///
/// Each field is `*`, a value, a range (`1-5`), a step over all values or a range (`*/15`, `8-18/2`), or a
/// list of these. `@hourly`, `@daily` (`@midnight`), `@weekly`, `@monthly` and `@yearly` (`@annually`)
/// stand for the expressions that they have in every crontab. Names are read in any case. When both day
/// fields are other than `*`, a day that either of them names is a match.
///
/// # Nights on which clocks change
///
/// The hour field decides. With `*`, a step over all hours or all 24 hours, the expression **repeats**: it follows
/// the clock, so times that the clock skips do not exist, and times that it shows twice are two occurrences. With any
/// other hours, the expression is **fixed**: each of its times occurs once a day. Times that the clock shows twice
/// occur only the first time. Times that it skips occur when the gap ends: the first of them at once, the others at
/// their usual distance from the first. Two times that fall on the same instant are one occurrence.
///
/// ```
/// use streamjobs_cron::{Cron, Zone};
///
/// let cron = Cron::parse("0 9 * * MON-FRI")?;
/// let next = cron.next_after(&Zone::parse("Europe/Berlin")?, 1_700_000_000_000)?;
/// assert_eq!(next, Some(1_700_035_200_000)); // 2023-11-15 09:00 in Berlin
/// assert_eq!(cron.in_words(), "At 09:00 on Monday to Friday");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cron {
    text: String,
    expression: Expression,
}

impl Cron {
    /// Reads an expression of at most 256 bytes. Space around it is ignored.
    ///
    /// # Errors
    ///
    /// Names what is wrong and [where](CronError::position). There are no fields for seconds or years.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let expression = Expression::parse(text)?;
        let text = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Self { text, expression })
    }

    /// The first occurrence that is later than this time. Both times are milliseconds since 1970.
    ///
    /// `None` means that there is no occurrence within eight years, as for 31 February.
    ///
    /// # Errors
    ///
    /// When the time is after the year 9989. An error never means that there is no further occurrence.
    pub fn next_after(&self, zone: &Zone, after_ms: u64) -> Result<Option<u64>, NextError> {
        next::after(&self.expression, zone, after_ms)
    }

    /// Refuses an expression that has no occurrence in the eight years after this time.
    ///
    /// # Errors
    ///
    /// When no occurrence was found, or it could not be computed.
    pub fn check(&self, zone: &Zone, now_ms: u64) -> Result<(), CheckError> {
        match self.next_after(zone, now_ms) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(CheckError::Never),
            Err(error) => Err(CheckError::Unknown(error)),
        }
    }

    /// The expression in English, as in "Every 15 minutes on Monday to Friday".
    #[must_use]
    pub fn in_words(&self) -> String {
        words::of(&self.expression)
    }
}

/// The text as it was given, with single spaces between the fields.
impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cron").field(&self.text).finish()
    }
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_shown_as_it_was_given_with_single_spaces() {
        let cron = Cron::parse(" \t0  9 *\t* mon-FRI\n").unwrap();
        assert_eq!(cron.to_string(), "0 9 * * mon-FRI");
        assert_eq!(format!("{cron:?}"), "Cron(\"0 9 * * mon-FRI\")");
        assert_eq!("@Daily".parse::<Cron>().unwrap().to_string(), "@Daily");
    }

    #[test]
    fn a_fault_has_its_place_in_the_text_as_given() {
        let error = Cron::parse("  0 25 * * *").unwrap_err();
        assert_eq!(error.position(), 4..6);
        assert_eq!(error.mark("  0 25 * * *"), "  0 25 * * *\n    ^^");
        let text = "0 ü * *\t*";
        assert_eq!(Cron::parse(text).unwrap_err().mark(text), "0 ü * * *\n  ^");
    }
}
