//! Time zones: their names, and the stretches of time in which their offset is the same.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::error::ZoneError;

/// A time zone of the IANA database, whose data is compiled into the program.
///
/// Two builds may have different rules for a zone; all machines that run the same build have the same rules. The zone
/// of the machine is never used.
#[derive(Clone)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

/// A stretch of time with one offset. All fields are seconds; `end` is not part of the stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// The wall clock minus UTC.
    pub(crate) offset: i64,
}

impl Zone {
    /// Finds a zone by its name, as in `Europe/Berlin`; the case of letters does not matter.
    ///
    /// # Errors
    ///
    /// When there is no such zone. The message names a zone with a similar name, if there is one.
    pub fn parse(name: &str) -> Result<Self, ZoneError> {
        let database = TimeZoneDatabase::bundled();
        let known = database.get(name).ok().filter(|_| name.len() <= NAME_BYTES_MAX);
        let found = known.and_then(|zone| Some((zone.iana_name()?.to_owned(), zone)));
        found.map(|(name, zone)| Self { name, zone }).ok_or_else(|| unknown(&database, name))
    }

    /// Coordinated universal time.
    #[must_use]
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }

    /// A zone with rules of a test's own, in the form of the variable `TZ`.
    #[cfg(test)]
    pub(crate) fn with_rules(rules: &str) -> Self {
        Self { name: rules.to_owned(), zone: TimeZone::posix(rules).unwrap() }
    }

    /// The name as the database writes it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The stretches from this second on; the first stretch begins there.
    pub(crate) fn stretches(&self, from: i64) -> impl Iterator<Item = Stretch> {
        let first = Timestamp::from_second(from).unwrap_or(Timestamp::MIN);
        let changes = self.zone.following(first);
        let mut changes =
            changes.map(|change| (change.timestamp().as_second(), change.offset().seconds()));
        let offset = self.zone.to_offset(first).seconds();
        let mut next = Some((first.as_second(), offset));
        std::iter::from_fn(move || {
            let (start, offset) = next?;
            next = changes.next();
            let end = next.map_or_else(|| Timestamp::MAX.as_second(), |(start, _)| start);
            Some(Stretch { start, end, offset: i64::from(offset) })
        })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zone").field(&self.name).finish()
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

impl std::hash::Hash for Zone {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl std::str::FromStr for Zone {
    type Err = ZoneError;

    fn from_str(name: &str) -> Result<Self, ZoneError> {
        Self::parse(name)
    }
}

/// The error for a name that the database does not have.
fn unknown(database: &TimeZoneDatabase, name: &str) -> ZoneError {
    let shown = name.chars().take(SHOWN_CHARACTERS_MAX).collect::<String>();
    let mut message = format!("there is no time zone {shown:?}");
    let wanted = shown.to_ascii_lowercase();
    let near = database.available().map(|zone| {
        let zone = zone.as_str().to_owned();
        (distance(&wanted, &zone.to_ascii_lowercase()), zone)
    });
    match near.min().filter(|(distance, _)| *distance <= TYPING_ERRORS_MAX) {
        Some((_, zone)) => message.push_str(&format!(": did you mean {zone:?}?")),
        None => message.push_str(": expected a name such as \"Europe/Berlin\" or \"UTC\""),
    }
    ZoneError::new(message)
}

/// How many letters have to be added, removed or replaced to turn one text into the other text.
fn distance(one: &str, other: &str) -> usize {
    let other = other.chars().collect::<Vec<_>>();
    let mut row = (0..=other.len()).collect::<Vec<_>>();
    for (before, letter) in one.chars().enumerate() {
        let mut next = vec![before + 1];
        for (pair, expected) in row.windows(2).zip(&other) {
            let (&[replaced, removed], Some(added)) = (pair, next.last()) else { continue };
            let replaced = replaced + usize::from(letter != *expected);
            next.push(replaced.min(removed + 1).min(added + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// The longest name that is looked up: longer than every name of the database.
const NAME_BYTES_MAX: usize = 64;
const SHOWN_CHARACTERS_MAX: usize = 64;
const TYPING_ERRORS_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_shown_as_the_database_writes_them() {
        for (given, shown) in
            [("europe/BERLIN", "Europe/Berlin"), ("utc", "UTC"), ("Asia/Calcutta", "Asia/Calcutta")]
        {
            assert_eq!(Zone::parse(given).unwrap().to_string(), shown);
        }
        assert_eq!(Zone::parse("UTC"), Ok(Zone::utc()));
    }

    #[test]
    fn other_names_are_refused_with_one_that_is_near() {
        let message = |name: &str| Zone::parse(name).unwrap_err().to_string();
        assert_eq!(
            message("Europe/Berln"),
            "there is no time zone \"Europe/Berln\": did you mean \"Europe/Berlin\"?"
        );
        for bad in ["", "local", "Etc/Unknown", "CET-1CEST", "/etc/localtime", "../UTC", "+01:00"] {
            assert!(message(bad).starts_with("there is no time zone"), "{bad}");
        }
        assert!(message(&"x".repeat(1_000_000)).len() < 200);
    }

    #[test]
    fn stretches_follow_each_other_without_a_hole() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        let stretches = berlin.stretches(1_767_225_600).take(3).collect::<Vec<_>>();
        let stretch = |start, end, offset| Stretch { start, end, offset };
        assert_eq!(
            stretches,
            [
                stretch(1_767_225_600, 1_774_746_000, 3_600),
                stretch(1_774_746_000, 1_792_890_000, 7_200),
                stretch(1_792_890_000, 1_806_195_600, 3_600),
            ]
        );
        let utc = Zone::utc().stretches(-5).collect::<Vec<_>>();
        assert_eq!(utc, [stretch(-5, Timestamp::MAX.as_second(), 0)]);
    }
}
