//! Parsers for names, positions, times and durations.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{Span, SpanRelativeTo, Timestamp};
use streamjobs::config::Start;
use streamjobs::schedule::ScheduleName;
use streamjobs::stream::{EntryAddress, Position};
use streamjobs::{ConsumerName, EntryId, EventId, GroupName, NameError, StreamName};

/// A position in a stream, as the command line takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PositionArg {
    Id(EntryId),
    /// Milliseconds since 1970.
    Time(u64),
    /// An entry of one of several partitions.
    Address(EntryAddress),
}

impl PositionArg {
    /// The first id at the position.
    pub(crate) fn first(self) -> EntryId {
        match self {
            Self::Id(id) => id,
            Self::Time(milliseconds) => EntryId::new(milliseconds, 0),
            Self::Address(address) => address.id,
        }
    }

    /// The entry to continue after: the given one, or the last one before a time.
    pub(crate) fn after(self) -> EntryAddress {
        match self {
            Self::Id(id) => id.into(),
            Self::Time(_) => self.first().previous().unwrap_or_default().into(),
            Self::Address(address) => address,
        }
    }
}

impl From<PositionArg> for Position {
    fn from(position: PositionArg) -> Self {
        match position {
            PositionArg::Id(id) => Self::Id(id),
            PositionArg::Time(milliseconds) => Self::Milliseconds(milliseconds),
            PositionArg::Address(address) => Self::Address(address),
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

pub(super) fn schedule(name: &str) -> Result<ScheduleName, NameError> {
    ScheduleName::new(name)
}

pub(super) fn event_id(id: &str) -> Result<EventId, NameError> {
    EventId::new(id)
}

/// Milliseconds since 1970, an RFC 3339 time, or a delay from now by this machine's clock.
pub(super) fn moment(text: &str) -> Result<SystemTime, &'static str> {
    moment_at(text, SystemTime::now())
}

fn moment_at(text: &str, now: SystemTime) -> Result<SystemTime, &'static str> {
    if let Ok(milliseconds) = text.parse::<u64>() {
        let at = UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds));
        return at.ok_or(NOT_A_MOMENT);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        let since = u64::try_from(time.as_millisecond()).unwrap_or(0);
        return UNIX_EPOCH.checked_add(Duration::from_millis(since)).ok_or(NOT_A_MOMENT);
    }
    let delay = duration(text).map_err(|_| NOT_A_MOMENT)?;
    now.checked_add(delay).ok_or(NOT_A_MOMENT)
}

/// An entry id, milliseconds since 1970, an RFC 3339 time, or an age by this machine's clock.
pub(super) fn position(text: &str) -> Result<PositionArg, &'static str> {
    position_at(text, Timestamp::now())
}

/// Like [`position`], or an entry of one partition, with the partition's number.
pub(super) fn place(text: &str) -> Result<PositionArg, &'static str> {
    match text.parse::<EntryAddress>() {
        Ok(address) if address.partition.is_some() => Ok(PositionArg::Address(address)),
        _ => position(text),
    }
}

/// `$` for the end of the stream, or a position; 0 is the beginning.
pub(super) fn start(text: &str) -> Result<Start, &'static str> {
    if text == "$" {
        return Ok(Start::End);
    }
    let after = position(text).map_err(|_| NOT_A_START)?.after().id;
    Ok(if after == EntryId::ZERO { Start::Beginning } else { Start::After(after) })
}

pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    let span = text.parse::<Span>().map_err(|_| NOT_A_DURATION)?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours());
    duration.ok().and_then(|duration| Duration::try_from(duration).ok()).ok_or(NOT_A_DURATION)
}

/// The pause between two rounds.
pub(super) fn pause(text: &str) -> Result<Duration, &'static str> {
    let pause = duration(text)?;
    if PAUSE_MIN <= pause && pause <= PAUSE_MAX { Ok(pause) } else { Err(NOT_A_PAUSE) }
}

fn position_at(text: &str, now: Timestamp) -> Result<PositionArg, &'static str> {
    if let Ok(id) = text.parse::<EntryId>() {
        return Ok(if text.contains('-') {
            PositionArg::Id(id)
        } else {
            PositionArg::Time(id.milliseconds())
        });
    }
    let time = match text.parse::<Timestamp>() {
        Ok(time) => time,
        Err(_) => {
            let ago = duration(text.strip_suffix("ago").unwrap_or(text).trim());
            now.checked_sub(ago.map_err(|_| NOT_A_POSITION)?).map_err(|_| NOT_A_POSITION)?
        }
    };
    Ok(PositionArg::Time(u64::try_from(time.as_millisecond()).unwrap_or(0)))
}

const NOT_A_POSITION: &str = "expected an entry id such as 1764000000000-0, milliseconds since 1970, \
    a time such as 2025-11-24T16:00:00Z, or an age such as 10m";
const NOT_A_MOMENT: &str = "expected milliseconds since 1970, a time such as 2025-11-24T16:00:00Z, or a \
    delay from now such as 10m";
const NOT_A_START: &str = "expected 0 for the beginning, $ for the end, an entry id to continue after, \
    a time such as 2025-11-24T16:00:00Z, or an age such as 10m";
const NOT_A_PAUSE: &str = "expected a duration from 200ms to 1 day, such as 2s";
/// The shortest pause. A shorter one keeps the server busy with figures that change faster than
/// they are read.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(86_400);
const NOT_A_DURATION: &str = "expected a duration such as 30s, 10m, 2h30m or 7d";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_ids_times_or_ages() {
        let now = Timestamp::from_second(1_764_000_000).unwrap();
        let at = |text| position_at(text, now);
        assert_eq!(at("5-3"), Ok(PositionArg::Id(EntryId::new(5, 3))));
        assert_eq!(at("1764000000123"), Ok(PositionArg::Time(1_764_000_000_123)));
        for noon in ["2025-11-24T16:00:00Z", "2025-11-24 16:00:00Z", "2025-11-24T18:00:00+02:00"] {
            assert_eq!(at(noon), Ok(PositionArg::Time(1_764_000_000_000)), "{noon}");
        }
        for ago in ["10m", "10m ago", "10 minutes ago", "600s"] {
            assert_eq!(at(ago), Ok(PositionArg::Time(1_763_999_400_000)), "{ago}");
        }
        assert_eq!(at("2d"), Ok(PositionArg::Time(1_763_827_200_000)));
        assert_eq!(at("1969-01-01T00:00:00Z"), Ok(PositionArg::Time(0)));
        for wrong in ["", "ago", "-10m", "yesterday", "5-", "2025-11-24T16:00:00", "99999y"] {
            assert_eq!(at(wrong), Err(NOT_A_POSITION), "{wrong}");
        }
    }

    #[test]
    fn continuing_after_a_time_starts_with_its_first_entry() {
        assert_eq!(PositionArg::Time(7).after(), EntryId::new(6, u64::MAX).into());
        assert_eq!(PositionArg::Id(EntryId::new(7, 2)).after(), EntryId::new(7, 2).into());
        assert_eq!(PositionArg::Time(0).after(), EntryId::ZERO.into());
    }

    #[test]
    fn only_places_in_the_history_can_be_in_one_partition() {
        let address = EntryAddress { id: EntryId::new(5, 3), partition: Some(7) };
        assert_eq!(place("5-3@7"), Ok(PositionArg::Address(address)));
        assert_eq!(place("5-3"), Ok(PositionArg::Id(address.id)));
        assert_eq!((position("5-3@7"), start("5-3@7")), (Err(NOT_A_POSITION), Err(NOT_A_START)));
    }

    #[test]
    fn start_positions_are_written_as_in_handlers() {
        assert_eq!(start("0"), Ok(Start::Beginning));
        assert_eq!(start("$"), Ok(Start::End));
        assert_eq!(start("5-3"), Ok(Start::After(EntryId::new(5, 3))));
        assert_eq!(start("end"), Err(NOT_A_START));
    }

    #[test]
    fn moments_are_times_or_delays() {
        let now = UNIX_EPOCH + Duration::from_secs(1_764_000_000);
        let at = |text| moment_at(text, now);
        assert_eq!(at("5"), Ok(UNIX_EPOCH + Duration::from_millis(5)));
        assert_eq!(at("2025-11-24T16:00:00Z"), Ok(now));
        assert_eq!(at("2h30m"), Ok(now + Duration::from_secs(9_000)));
        for wrong in ["", "-10m", "10m ago", "soon", "5-3"] {
            assert_eq!(at(wrong), Err(NOT_A_MOMENT), "{wrong}");
        }
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
