//! Schedules: what publishes again and again, and how each of its occurrences is published once.

use std::time::Duration;

use async_trait::async_trait;

use super::publish::NewEntry;
use super::types::{Result, ServerTime};
use crate::model::config::Retention;
use crate::model::entry::EntryId;
use crate::model::name::{EventId, GroupName};
pub use crate::model::name::{ScheduleName, StreamName};

/// Where a schedule comes from. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleKind {
    /// Processes declare it at their start, and fire it while they declare it.
    Code,
    /// It was stored at run time. Every runtime of the stream fires it until it is removed.
    Stored,
}

impl ScheduleKind {
    /// As it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Stored => "stored",
        }
    }
}

/// A schedule as a process computes it. The store understands only its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSchedule {
    /// Its name, unique within the stream.
    pub name: ScheduleName,
    /// What identifies this definition among all others.
    pub digest: String,
    /// Where it comes from.
    pub kind: ScheduleKind,
    /// When it is due and what is published, in JSON.
    pub about: String,
    /// The fields of each event except its id, if they are fixed. There are at most 1,000.
    pub fields: NewEntry,
}

/// When a schedule is due next, and the time of the server's clock from which that was computed. A store refuses a next
/// time that was computed from a time which is a minute or more away from its clock. It also refuses one that has
/// passed since it was computed, because the previous definition may have fired that occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextTime {
    /// When it is due, in milliseconds since 1970.
    pub at: u64,
    /// The time from which it was computed.
    pub from: ServerTime,
}

/// What became of a declaration. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// The definition was stored before, and is declared from now on. If its next time was lost, it was set
    /// again.
    Same,
    /// It is new, or replaces another definition, whose missed occurrences are not made up.
    Stored,
    /// Another definition has the name and was declared this long ago; nothing was changed.
    Other(Duration),
    /// A schedule of the other kind has the name; nothing was changed.
    OtherKind(ScheduleKind),
    /// What is stored under the name cannot be read; nothing was changed.
    Unreadable,
    /// The next time was computed from a time that differs too much from the server's clock, or it has passed since
    /// then; nothing was changed. This is the server's clock.
    Stale(ServerTime),
    /// The stream has so many schedules that it takes no other; nothing was changed.
    Full,
}

/// What is stored under a name that a process declares. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// This definition, which is declared from now on.
    Same,
    /// This definition, without the time at which it is due next: the process has to declare it again.
    Unplaced,
    /// Another definition, which was last declared this long ago.
    Other(Duration),
    /// No schedule.
    Missing,
    /// A schedule of the other kind.
    OtherKind(ScheduleKind),
    /// Something that cannot be read.
    Unreadable,
}

/// When a schedule is due next, as the server stores it: two values are equal only if their texts are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Score {
    /// As the server prints it.
    pub text: String,
    /// The same in whole milliseconds since 1970.
    pub at: u64,
}

/// What is due in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueSchedules {
    /// The server's clock.
    pub now: ServerTime,
    /// A number that changes with each change of a definition or a pause.
    pub version: u64,
    /// Schedules of the stream that have a next time.
    pub count: u64,
    /// Whether the stream has schedules at all.
    pub used: bool,
    /// Schedules that are due, the earliest first: names as they are stored.
    pub due: Vec<(String, Score)>,
    /// Whether more may be due.
    pub has_more: bool,
    /// How long until the next schedule becomes due, apart from those that are due already.
    pub next_due: Option<Duration>,
}

/// A schedule as it is stored. A field is `None` if it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleFacts {
    /// Its name, which another client may have written.
    pub name: String,
    /// When it is due next; `None` while it is paused, or if that is lost.
    pub next: Option<Score>,
    /// Its definition.
    pub spec: Option<StoredSpec>,
    /// What became of it.
    pub record: ScheduleRecord,
}

/// A definition as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSpec {
    /// What identifies this definition among all others.
    pub digest: String,
    /// Where it comes from.
    pub kind: ScheduleKind,
    /// When it is due and what is published, in JSON.
    pub about: String,
    /// The fields of each event except its id; empty if the caller did not ask for them.
    pub fields: NewEntry,
    /// The size of these fields in bytes.
    pub bytes: u64,
}

/// What became of a schedule. Times are by the server's clock in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScheduleRecord {
    /// Since when there is a schedule of this name.
    pub since: u64,
    /// Occurrences that were published.
    pub fired: u64,
    /// Occurrences that were missed and not published.
    pub missed: u64,
    /// Occurrences that were skipped because the job of the last one had not ended.
    pub skipped: u64,
    /// How often it was run by hand.
    pub runs: u64,
    /// The last occurrence that was published.
    pub last: Option<u64>,
    /// The entry of that occurrence.
    pub last_entry: Option<EntryId>,
    /// Since when it is paused.
    pub paused: Option<u64>,
    /// When a process last declared the definition.
    pub declared: Option<u64>,
}

/// Which schedules are listed. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListedSchedules<'a> {
    /// Schedules after a name.
    After(&'a str),
    /// The schedule of this name.
    Only(&'a str),
}

/// A page of schedules, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleFactsPage {
    /// The server's clock.
    pub now: ServerTime,
    /// The number that changes with each definition.
    pub version: u64,
    /// The schedules.
    pub schedules: Vec<ScheduleFacts>,
    /// Whether there are more after them.
    pub has_more: bool,
}

/// An occurrence to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// When it is due.
    pub due: u64,
    /// All fields of its entry except `sj-due`. There are at most 1,000.
    pub fields: NewEntry,
}

/// One firing: the occurrences of a schedule that are due, as a process has computed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firing {
    /// The schedule.
    pub name: ScheduleName,
    /// When it was due.
    pub expected: Score,
    /// The definition from which this was computed.
    pub digest: String,
    /// When it is due next.
    pub next: u64,
    /// What to publish, in this order; may be empty.
    pub occurrences: Vec<Occurrence>,
    /// Occurrences that were missed and are not to be published.
    pub missed: u64,
    /// The group in which the job of the last occurrence must have ended. Until then, every other occurrence
    /// is skipped.
    pub busy: Option<GroupName>,
}

/// What became of a firing. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fired {
    /// The occurrences are in the stream, as these entries.
    Published(Vec<EntryId>),
    /// The job of the last occurrence has not ended. The next time is set.
    Skipped {
        /// The entries of the occurrences before it.
        published: Vec<EntryId>,
        /// How many occurrences were not published.
        skipped: u64,
    },
    /// Another process fired first, or the next time was changed; nothing was changed here.
    Moved,
    /// The definition is a different one, is missing or cannot be read; nothing was changed.
    Changed,
    /// It is paused; nothing was changed.
    Paused,
    /// It is not due by the server's clock; nothing was changed.
    Early,
}

/// What became of a run by hand. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// The event was published as this entry.
    Published(EntryId),
    /// There is no such schedule, or it has another definition; nothing was changed.
    Changed,
}

/// What became of a removal. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovedSchedule {
    /// There was no such schedule.
    Missing,
    /// It is removed.
    Removed,
    /// A live process declares it, and would declare it again: nothing was changed.
    Declared,
}

/// The steps of schedules. Schedules belong to a stream and to none of its groups.
#[async_trait]
pub trait Schedules: Send + Sync {
    /// Stores the definition of a schedule, unless another definition is stored that was declared less than `silence`
    /// ago; without a silence, the last declaration wins. The same definition keeps its next time; a new one begins
    /// with `next`. A pause stays.
    async fn declare(
        &self,
        stream: &StreamName,
        schedule: &NewSchedule,
        next: NextTime,
        silence: Duration,
    ) -> Result<Declared>;

    /// Records which definitions a process has in its code, by name and digest. Returns an answer for each.
    async fn mark_declared(
        &self,
        stream: &StreamName,
        declared: &[(ScheduleName, String)],
    ) -> Result<Vec<Mark>>;

    /// Returns what is due: one page, after the first `skip` schedules. Changes nothing.
    async fn due_schedules(&self, stream: &StreamName, skip: usize) -> Result<DueSchedules>;

    /// Fires schedules. Returns an answer for each. Each firing is carried out as a whole or refused, with
    /// the retention that is applied at each append. `by` is the consumer that the log names.
    async fn fire(
        &self,
        stream: &StreamName,
        retention: Retention,
        by: &str,
        firings: Vec<Firing>,
    ) -> Vec<Result<Fired>>;

    /// Publishes an event of a schedule now, if the schedule has this definition. Its next time stays.
    async fn run_schedule(
        &self,
        stream: &StreamName,
        retention: Retention,
        name: &ScheduleName,
        digest: &str,
        fields: NewEntry,
    ) -> Result<Ran>;

    /// Pauses a schedule. Returns whether there is one. A paused schedule has no next time.
    async fn pause_schedule(&self, stream: &StreamName, name: &ScheduleName) -> Result<bool>;

    /// Ends the pause of a schedule, if it has this definition; it continues at `next`. Returns `Same` if it
    /// was not paused, `Stored` if it was, and `Other` if it is missing or has another definition.
    async fn resume_schedule(
        &self,
        stream: &StreamName,
        name: &ScheduleName,
        digest: &str,
        next: NextTime,
    ) -> Result<Declared>;

    /// Removes a schedule, whatever its state, unless processes declare it.
    async fn remove_schedule(
        &self,
        stream: &StreamName,
        name: &ScheduleName,
    ) -> Result<RemovedSchedule>;

    /// Removes those of the named schedules that exist only in code and that no process has declared for this long.
    /// Also removes next times whose schedule is lost. Returns how many were removed, and how many were lost.
    async fn forget_schedules(
        &self,
        stream: &StreamName,
        names: &[String],
        silence: Duration,
    ) -> Result<(usize, usize)>;

    /// A page of schedules in the order of their names: at most `limit`, and fewer where payloads are asked
    /// for and large.
    async fn schedules(
        &self,
        stream: &StreamName,
        listed: ListedSchedules<'_>,
        limit: usize,
        payloads: bool,
    ) -> Result<ScheduleFactsPage>;
}

impl Firing {
    /// The id of the occurrence that is due at a time.
    #[must_use]
    pub fn occurrence_id(stream: &StreamName, name: &ScheduleName, at: u64) -> EventId {
        EventId::of_occurrence(stream, name, at)
    }
}

/// How far the time from which a next time was computed may differ from the server's clock, in milliseconds.
pub(crate) const DRIFT_MAX: u64 = 60_000;
/// For how long a process's declaration counts.
pub(crate) const DECLARED_FOR: Duration = Duration::from_secs(600);
/// How many schedules one stream, or each of its partitions, may have.
pub(crate) const SCHEDULES_MAX: usize = 5_000;
/// About how many lines the log of a stream keeps.
pub(crate) const LOG_MAX: usize = 10_000;
