//! The fields of an expression.

use crate::error::CronError;
use crate::field::{Field, Item, Kind};

/// The five fields, checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Expression {
    pub(crate) minutes: Field,
    pub(crate) hours: Field,
    pub(crate) days: Field,
    pub(crate) months: Field,
    pub(crate) weekdays: Field,
}

impl Expression {
    /// Reads the five fields or a shorthand for them.
    pub(crate) fn parse(text: &str) -> Result<Self, CronError> {
        if text.len() > EXPRESSION_BYTES_MAX {
            let message = format!("a cron expression has at most {EXPRESSION_BYTES_MAX} bytes");
            return Err(CronError::new(0..text.len(), message));
        }
        let words = words_of(text);
        let fields = match words.as_slice() {
            [(at, word)] if word.starts_with('@') => shorthand(*at, word)?,
            _ => words,
        };
        let &[minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(wrong_count(text, &fields));
        };
        let field = |kind, (at, word): (usize, &str)| Field::parse(kind, word, at);
        Ok(Self {
            minutes: field(Kind::Minute, minutes)?,
            hours: field(Kind::Hour, hours)?,
            days: field(Kind::Day, days)?,
            months: field(Kind::Month, months)?,
            weekdays: field(Kind::Weekday, weekdays)?,
        })
    }

    /// Whether the expression follows the clock through nights on which it changes. Other expressions run each of
    /// their times once a day.
    pub(crate) fn is_repeating(&self) -> bool {
        let all =
            |item: &Item| matches!(item, Item::All { .. } | Item::Range { first: 0, last: 23, .. });
        self.hours.items().iter().any(all) || self.hours.values().len() == 24
    }
}

/// The words of the expression with the byte at which each begins.
fn words_of(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut rest = 0;
    for word in text.split(|letter: char| letter.is_ascii_whitespace()) {
        if !word.is_empty() {
            words.push((rest, word));
        }
        // The spaces are one byte each.
        rest += word.len() + 1;
    }
    words
}

/// The fields that a shorthand stands for; all have the shorthand's position.
fn shorthand(at: usize, word: &str) -> Result<Vec<(usize, &str)>, CronError> {
    let known = SHORTHANDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    let Some((_, fields)) = known else {
        let names = SHORTHANDS.map(|(name, _)| name).join(", ");
        let message = format!("`{}` is not known: expected one of {names}", word.escape_debug());
        return Err(CronError::new(at..at + word.len(), message));
    };
    Ok(fields.split(' ').map(|field| (at, field)).collect())
}

fn wrong_count(text: &str, fields: &[(usize, &str)]) -> CronError {
    let place = match (fields.first(), fields.get(5), fields.last()) {
        (_, Some((sixth, _)), Some((last, word))) => *sixth..last + word.len(),
        (Some((first, _)), None, Some((last, word))) => *first..last + word.len(),
        _ => 0..text.len(),
    };
    let count = fields.len();
    let mut message =
        format!("expected five fields (minute, hour, day of month, month, weekday), found {count}");
    if count > 5 {
        message.push_str(": seconds and years have no field");
    }
    CronError::new(place, message)
}

const EXPRESSION_BYTES_MAX: usize = 256;
const SHORTHANDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorthands_are_the_expressions_of_every_crontab() {
        for (name, fields) in SHORTHANDS {
            assert_eq!(Expression::parse(name), Expression::parse(fields));
            assert_eq!(Expression::parse(&name.to_uppercase()), Expression::parse(fields));
        }
        let error = Expression::parse(" @every 5m").unwrap_err();
        assert_eq!(error.position(), 1..10);
        let error = Expression::parse(" @reboot").unwrap_err();
        assert_eq!((error.position(), error.to_string().contains("@hourly")), (1..8, true));
    }

    #[test]
    fn other_counts_of_fields_are_refused() {
        let fault = |text: &str| {
            let error = Expression::parse(text).unwrap_err();
            (error.position(), error.to_string())
        };
        assert_eq!(fault("").0, 0..0);
        assert_eq!(fault("* * * *").0, 0..7);
        let (place, message) = fault("0 0 9 * * MON 2026");
        assert_eq!(place, 10..18);
        assert!(message.ends_with("found 7: seconds and years have no field"), "{message}");
    }

    #[test]
    fn length_is_bounded() {
        let long = |bytes: usize| format!("{}{}", " ".repeat(bytes - 9), "* * * * *");
        assert!(Expression::parse(&long(256)).is_ok());
        assert!(Expression::parse(&long(257)).is_err());
        assert!(Expression::parse(&"1,".repeat(200_000)).is_err());
    }

    #[test]
    fn the_hour_field_decides_whether_a_line_repeats() {
        for repeating in
            ["* * * * *", "0 */2 * * *", "0 0-23 * * *", "0 0-23/3 * * *", "0 */6,1 * * *"]
        {
            assert!(Expression::parse(repeating).unwrap().is_repeating(), "{repeating}");
        }
        for all in ["0 0-11,12-23 * * *", "@hourly"] {
            assert!(Expression::parse(all).unwrap().is_repeating(), "{all}");
        }
        for fixed in [
            "0 2 * * *",
            "* 2 * * *",
            "*/5 1-3 * * *",
            "0 2,3 * * *",
            "0 1-23 * * *",
            "0 2-22/2 * * *",
        ] {
            assert!(!Expression::parse(fixed).unwrap().is_repeating(), "{fixed}");
        }
    }
}
