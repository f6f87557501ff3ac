//! Words of the command line that stand for names, places, times and durations.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Timestamp};
use streamjobs::config::Start;
use streamjobs::stream::Position;
use streamjobs::{ConsumerName, EntryId, GroupName, NameError, StreamName};

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Id(EntryId),
    /// Milliseconds since 1970.
    Time(u64),
}

impl Place {
    /// The first entry that may be meant.
    pub(crate) fn first(self) -> EntryId {
        match self {
            Self::Id(id) => id,
            Self::Time(milliseconds) => EntryId::new(milliseconds, 0),
        }
    }

    /// After which entry to go on: after the one that is named, or with the first one of a time.
    pub(crate) fn after(self) -> EntryId {
        match self {
            Self::Id(id) => id,
            Self::Time(_) => self.first().previous().unwrap_or_default(),
        }
    }
}

impl From<Place> for Position {
    fn from(place: Place) -> Self {
        match place {
            Place::Id(id) => Self::Id(id),
            Place::Time(milliseconds) => Self::Milliseconds(milliseconds),
        }
    }
}

pub(super) fn stream(name: &str) -> Result<StreamName, NameError> {
    StreamName::new(name)
}

pub(super) fn group(name: &str) -> Result<GroupName, NameError> {
    GroupName::new(name)
}

pub(super) fn consumer(name: &str) -> Result<ConsumerName, NameError> {
    ConsumerName::new(name)
}

/// An entry id, milliseconds since 1970, an RFC 3339 time, or how long ago by this machine's clock.
pub(super) fn place(text: &str) -> Result<Place, &'static str> {
    place_at(text, Timestamp::now())
}

/// `$` for the end of the stream, or a place; 0 is the beginning.
pub(super) fn start(text: &str) -> Result<Start, &'static str> {
    if text == "$" {
        return Ok(Start::End);
    }
    let after = place(text).map_err(|_| NOT_A_START)?.after();
    Ok(if after == EntryId::ZERO { Start::Beginning } else { Start::After(after) })
}

pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    let span = text.parse::<Span>().map_err(|_| NOT_A_DURATION)?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours());
    duration.ok().and_then(|duration| Duration::try_from(duration).ok()).ok_or(NOT_A_DURATION)
}

fn place_at(text: &str, now: Timestamp) -> Result<Place, &'static str> {
    if let Ok(id) = text.parse::<EntryId>() {
        return Ok(if text.contains('-') { Place::Id(id) } else { Place::Time(id.milliseconds()) });
    }
    let time = match text.parse::<Timestamp>() {
        Ok(time) => time,
        Err(_) => {
            let ago = duration(text.strip_suffix("ago").unwrap_or(text).trim());
            now.checked_sub(ago.map_err(|_| NOT_A_PLACE)?).map_err(|_| NOT_A_PLACE)?
        }
    };
    Ok(Place::Time(u64::try_from(time.as_millisecond()).unwrap_or(0)))
}

const NOT_A_PLACE: &str = "expected an entry id such as 1764000000000-0, milliseconds since 1970, \
    a time such as 2025-11-24T16:00:00Z, or how long ago, such as 10m";
const NOT_A_START: &str = "expected 0 for the beginning, $ for the end, an entry id to go on after, \
    a time such as 2025-11-24T16:00:00Z, or how long ago, such as 10m";
const NOT_A_DURATION: &str = "expected a duration such as 30s, 10m, 2h30m or 7d";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_ids_times_or_so_long_ago() {
        let now = Timestamp::from_second(1_764_000_000).unwrap();
        let at = |text| place_at(text, now);
        assert_eq!(at("5-3"), Ok(Place::Id(EntryId::new(5, 3))));
        assert_eq!(at("1764000000123"), Ok(Place::Time(1_764_000_000_123)));
        for noon in ["2025-11-24T16:00:00Z", "2025-11-24 16:00:00Z", "2025-11-24T18:00:00+02:00"] {
            assert_eq!(at(noon), Ok(Place::Time(1_764_000_000_000)), "{noon}");
        }
        for ago in ["10m", "10m ago", "10 minutes ago", "600s"] {
            assert_eq!(at(ago), Ok(Place::Time(1_763_999_400_000)), "{ago}");
        }
        assert_eq!(at("2d"), Ok(Place::Time(1_763_827_200_000)));
        assert_eq!(at("1969-01-01T00:00:00Z"), Ok(Place::Time(0)));
        for wrong in ["", "ago", "-10m", "yesterday", "5-", "2025-11-24T16:00:00", "99999y"] {
            assert_eq!(at(wrong), Err(NOT_A_PLACE), "{wrong}");
        }
    }

    #[test]
    fn going_on_after_a_time_begins_with_its_first_entry() {
        assert_eq!(Place::Time(7).after(), EntryId::new(6, u64::MAX));
        assert_eq!(Place::Id(EntryId::new(7, 2)).after(), EntryId::new(7, 2));
        assert_eq!(Place::Time(0).after(), EntryId::ZERO);
    }

    #[test]
    fn starts_are_written_as_handlers_write_them() {
        assert_eq!(start("0"), Ok(Start::Beginning));
        assert_eq!(start("$"), Ok(Start::End));
        assert_eq!(start("5-3"), Ok(Start::After(EntryId::new(5, 3))));
        assert_eq!(start("end"), Err(NOT_A_START));
    }

    #[test]
    fn durations_have_a_unit_and_are_not_negative() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h30m"), Ok(Duration::from_secs(9_000)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["", "30", "-30s", "30s ago", "soon"] {
            assert_eq!(duration(wrong), Err(NOT_A_DURATION), "{wrong}");
        }
    }
}
