//! Schedules and their firings, as they are shown.

use std::time::Duration;

use crate::model::entry::{Entry, EntryId};
use crate::model::name::{ScheduleName, StreamName};
use crate::model::schedule::Schedule;
use crate::store::schedules::{DECLARED_FOR, ScheduleFacts};
use crate::store::{ScheduleKind, ServerTime};

/// Where a schedule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScheduleOrigin {
    /// The code of processes, which fire it while they declare it.
    Code,
    /// It was stored at run time. Every runtime of the stream fires it.
    Stored,
}

impl ScheduleOrigin {
    /// A short name: `code` or `stored`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Stored => "stored",
        }
    }
}

/// Whether a schedule fires, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScheduleState {
    /// It fires at its next time.
    Active,
    /// It was paused, and does not fire until it is resumed.
    Paused,
    /// It comes from code, and no process has declared it for ten minutes: it does not fire.
    Undeclared,
    /// Its definition cannot be read by this version: another client or a newer version has written it.
    Unreadable,
    /// Its next time was deleted or evicted. A process sets it again.
    Unplaced,
}

impl ScheduleState {
    /// A short name, such as `active`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Undeclared => "undeclared",
            Self::Unreadable => "unreadable",
            Self::Unplaced => "unplaced",
        }
    }
}

/// A schedule of a stream. Times are those of the server's clock, in milliseconds since 1970.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScheduleInfo {
    /// Its name.
    pub name: ScheduleName,
    /// Its definition; `None` if it cannot be read. The payload is left out where schedules are listed.
    pub schedule: Option<Schedule>,
    /// Where it comes from; `None` if that cannot be read.
    pub origin: Option<ScheduleOrigin>,
    /// Whether it fires.
    pub state: ScheduleState,
    /// When it is due next.
    pub next: Option<u64>,
    /// How long until it is due next; zero if it is due now.
    pub next_in: Option<Duration>,
    /// The last occurrence that was published.
    pub last: Option<u64>,
    /// The entry of the last occurrence.
    pub last_entry: Option<EntryId>,
    /// How long after its due time the last occurrence was published.
    pub last_late: Option<Duration>,
    /// Occurrences that were published.
    pub fired: u64,
    /// Occurrences that were missed and not published.
    pub missed: u64,
    /// Occurrences that were skipped because the job of the last published occurrence had not
    /// ended.
    pub skipped: u64,
    /// How often it was run by hand.
    pub runs: u64,
    /// The time since which there is a schedule of this name.
    pub since: u64,
    /// The time since which it is paused.
    pub paused: Option<u64>,
    /// When a process last declared the definition.
    pub declared: Option<u64>,
    /// The size of the event's fields in bytes, if they are fixed.
    pub payload_bytes: u64,
    /// The number of its partition; `None` if the stream has only one.
    pub partition: Option<u16>,
}

/// A page of schedules, in the order of their names.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SchedulePage {
    /// The schedules.
    pub schedules: Vec<ScheduleInfo>,
    /// The name after which the next page begins; `None` at the end.
    pub next: Option<ScheduleName>,
}

/// A firing of a schedule, or a run by hand, as recorded in the log of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FiringInfo {
    /// When it was, by the server's clock in milliseconds since 1970.
    pub at: u64,
    /// The schedule.
    pub schedule: String,
    /// The last occurrence of the firing; `None` for a run by hand.
    pub due: Option<u64>,
    /// How late the firing was: the time since that occurrence was due.
    pub late: Option<Duration>,
    /// Events that were published.
    pub published: u64,
    /// Occurrences that were missed and not published.
    pub missed: u64,
    /// Occurrences that were skipped because the job of the last published occurrence had not
    /// ended.
    pub skipped: u64,
    /// The last entry that was published.
    pub entry: Option<EntryId>,
    /// The consumer that fired; `None` for a run by hand.
    pub by: Option<String>,
    /// The number of the partition; `None` if the stream has only one.
    pub partition: Option<u16>,
}

impl ScheduleInfo {
    /// `None` for a name that no schedule can have: another client wrote it.
    pub(super) fn of(
        stream: &StreamName,
        facts: ScheduleFacts,
        now: ServerTime,
        partition: Option<u16>,
    ) -> Option<Self> {
        let ScheduleFacts { name, next, spec, record } = facts;
        let name = ScheduleName::new(name).ok()?;
        let origin = spec.as_ref().map(|spec| match spec.kind {
            ScheduleKind::Code => ScheduleOrigin::Code,
            ScheduleKind::Stored => ScheduleOrigin::Stored,
        });
        let payload_bytes = spec.as_ref().map_or(0, |spec| spec.bytes);
        let schedule =
            spec.and_then(|spec| Schedule::read(stream, name.as_str(), &spec.about, spec.fields));
        let next = next.map(|score| score.at);
        let declared = record.declared.unwrap_or(record.since);
        let silence = Duration::from_millis(now.0.saturating_sub(declared));
        let state = match (&schedule, origin) {
            (None, _) => ScheduleState::Unreadable,
            _ if record.paused.is_some() => ScheduleState::Paused,
            (_, Some(ScheduleOrigin::Code)) if silence >= DECLARED_FOR => ScheduleState::Undeclared,
            _ if next.is_none() => ScheduleState::Unplaced,
            _ => ScheduleState::Active,
        };
        let until = |next: u64| Duration::from_millis(next.saturating_sub(now.0));
        let late = |due: u64, entry: EntryId| entry.milliseconds().saturating_sub(due);
        let last_late = record.last.zip(record.last_entry).map(|(due, entry)| late(due, entry));
        Some(Self {
            name,
            schedule,
            origin,
            state,
            next,
            next_in: next.map(until),
            last: record.last,
            last_entry: record.last_entry,
            last_late: last_late.map(Duration::from_millis),
            fired: record.fired,
            missed: record.missed,
            skipped: record.skipped,
            runs: record.runs,
            since: record.since,
            paused: record.paused,
            declared: record.declared,
            payload_bytes,
            partition,
        })
    }
}

impl FiringInfo {
    pub(super) fn of(line: &Entry, partition: Option<u16>) -> Self {
        let text = |name: &str| line.text(name).unwrap_or_default();
        let number = |name: &str| text(name).parse::<u64>().ok();
        let (at, due) = (line.id().milliseconds(), number("due"));
        let by = Some(text("by")).filter(|by| !by.is_empty());
        Self {
            at,
            schedule: text("schedule").to_owned(),
            due,
            late: due.map(|due| Duration::from_millis(at.saturating_sub(due))),
            published: number("count").unwrap_or(0),
            missed: number("missed").unwrap_or(0),
            skipped: number("skipped").unwrap_or(0),
            entry: text("entry").parse().ok(),
            by: by.map(str::to_owned),
            partition,
        }
    }
}
