//! The handle to the schedules of a stream.

use std::sync::Arc;
use std::time::Duration;

use super::error::SchedulesError;
use super::view::{FiringInfo, ScheduleInfo, SchedulePage};
use crate::api::parts::{Part, Parts, read_all};
use crate::model::config::Retention;
use crate::model::entry::{EntryId, Fields};
use crate::model::name::{EventId, NameError, ScheduleName, StreamName};
use crate::model::schedule::{Schedule, StoredContent};
use crate::publish::client::{Client, Published};
use crate::publish::layouts::{Layouts, key_of};
use crate::store::inspect::Span;
use crate::store::schedules::{ListedSchedules, ScheduleFacts};
use crate::store::{
    Declared, NewSchedule, NextTime, Ran, RemovedSchedule, ScheduleKind, ServerTime, Store,
    StoreError,
};

impl Client {
    /// A handle to the schedules of a stream: those that processes declare in their code, and those that were stored
    /// at run time. On a stream with [partitions](crate::ClientBuilder::partitions), the handle covers the schedules
    /// of all of them. Nothing is sent.
    ///
    /// ```no_run
    /// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use streamjobs::schedule::{Schedule, ScheduleName};
    ///
    /// let schedules = client.schedules("ticks")?;
    /// schedules.put(&Schedule::cron("tenant-7", "0 6 * * MON")?.zone("Europe/Berlin")?).await?;
    /// for schedule in schedules.list(None, 100).await?.schedules {
    ///     println!("{} is due in {:?}", schedule.name, schedule.next_in);
    /// }
    /// schedules.remove(&ScheduleName::new("tenant-7")?).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When the name is invalid.
    pub fn schedules(&self, stream: &str) -> Result<Schedules, NameError> {
        let parts = Parts::of(self.layouts(), StreamName::new(stream)?);
        Ok(Schedules {
            store: Arc::clone(self.store()),
            retention: self.retention(parts.name()),
            layouts: Arc::clone(self.layouts()),
            bytes_max: self.payload_bytes_max(),
            parts,
        })
    }
}

/// A handle to the schedules of a stream. It is cheap to clone.
///
/// The name of a schedule determines its partition. Every call asks all partitions, because the stream may have had a
/// different number of them when the schedule was stored.
#[derive(Clone, Debug)]
pub struct Schedules {
    store: Arc<dyn Store>,
    parts: Parts,
    retention: Retention,
    layouts: Arc<Layouts>,
    bytes_max: usize,
}

/// A schedule that was found, and where.
struct Found {
    part: Part,
    facts: ScheduleFacts,
    now: ServerTime,
}

impl Schedules {
    /// The name of the stream.
    #[must_use]
    pub fn stream(&self) -> &StreamName {
        self.parts.name()
    }

    /// A page of the schedules after a name, in the order of their names: about `limit`, at most 1,000.
    /// Payloads are not read.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn list(
        &self,
        after: Option<&ScheduleName>,
        limit: usize,
    ) -> Result<SchedulePage, SchedulesError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let mut after = after.map(ScheduleName::as_str).unwrap_or_default().to_owned();
        loop {
            let from = after.as_str();
            let read = async |part: &Part| {
                let listed = ListedSchedules::After(from);
                let page = self.store.schedules(&part.stream, listed, limit, false).await;
                page.map(|page| (part.number, page)).map_err(|error| failed(part, READ, error))
            };
            let pages = read_all(self.parts.iter().map(read).collect()).await?;
            // If a partition has more schedules, their names may come before names that other partitions have listed.
            // So the page ends where the first such partition's page ends.
            let ends = pages.iter().filter(|(_, page)| page.has_more);
            let end = ends.filter_map(|(_, page)| page.schedules.last()).map(|last| &last.name);
            let end = end.min().cloned();
            let stream = self.stream();
            let rows = pages.into_iter().flat_map(|(number, page)| {
                let row = move |facts| ScheduleInfo::of(stream, facts, page.now, number);
                page.schedules.into_iter().filter_map(row)
            });
            let within = |row: &ScheduleInfo| {
                end.as_ref().is_none_or(|end| row.name.as_str() <= end.as_str())
            };
            let mut schedules = rows.filter(within).collect::<Vec<_>>();
            schedules.sort_by(|one, other| {
                (&one.name, one.partition).cmp(&(&other.name, other.partition))
            });
            match end {
                // Names that no schedule can have were left out.
                Some(end) if schedules.is_empty() => after = end,
                end => {
                    let next = schedules.last().map(|last| last.name.clone());
                    return Ok(SchedulePage { schedules, next: next.filter(|_| end.is_some()) });
                }
            }
        }
    }

    /// One schedule, with its payload; `None` if no schedule has this name.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn get(&self, name: &ScheduleName) -> Result<Option<ScheduleInfo>, SchedulesError> {
        let found = self.find(name, READ).await?.0;
        Ok(found.and_then(|Found { part, facts, now }| {
            ScheduleInfo::of(self.stream(), facts, now, part.number)
        }))
    }

    /// Stores a schedule, which every runtime of the stream fires until it is removed, and returns whether that
    /// changed anything. It replaces a schedule of the same name. An unchanged definition keeps its next time; a new
    /// definition begins after now, and does not make up for what the old definition has missed. A paused schedule
    /// stays paused.
    ///
    /// # Errors
    ///
    /// When the schedule cannot be used, publishes to another stream, has the name of a schedule that is declared
    /// in code, or replaces a schedule of another partition than that of its event's key. When the server cannot be reached or refuses; repeating the call is safe.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the schedule may or may not be stored.
    pub async fn put(&self, schedule: &Schedule) -> Result<bool, SchedulesError> {
        let (name, stream) = (schedule.name(), self.stream());
        if schedule.target() != stream {
            let target = schedule.target().to_string();
            let (name, stream) = (name.to_string(), stream.to_string());
            return Err(SchedulesError::OtherStream { name, target, stream });
        }
        let (found, mut now) = self.find(name, PUT).await?;
        schedule.check(now.0, self.bytes_max)?;
        let StoredContent { digest, about, fields } = schedule.stored();
        let partition = self.partition(name, &fields, found)?;
        let kind = ScheduleKind::Stored;
        let new = NewSchedule { name: name.clone(), digest, kind, about, fields };
        for _ in 0..TRIES {
            let Ok(Some(at)) = schedule.next_after(now.0) else { break };
            let next = NextTime { at, from: now };
            let declared = self.store.declare(&partition, &new, next, Duration::ZERO).await;
            let declared = declared.map_err(|error| server(&partition, PUT, error))?;
            return match declared {
                Declared::Same => Ok(false),
                Declared::Stored => Ok(true),
                Declared::OtherKind(_) => Err(SchedulesError::declared(stream, name)),
                Declared::Unreadable => Err(SchedulesError::unreadable(stream, name)),
                Declared::Full => {
                    let (stream, name) = (stream.to_string(), name.to_string());
                    Err(SchedulesError::TooMany { stream, name })
                }
                Declared::Other(_) => Err(SchedulesError::changed(stream, name)),
                Declared::Stale(clock) => {
                    now = clock;
                    continue;
                }
            };
        }
        Err(SchedulesError::changed(stream, name))
    }

    /// Removes a schedule, and returns whether there was such a schedule. No occurrence of it is published any more.
    ///
    /// # Errors
    ///
    /// When live processes declare the schedule in their code; pause it instead. When the server cannot be reached or
    /// refuses; the call can be repeated.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the schedule may or may not be removed.
    pub async fn remove(&self, name: &ScheduleName) -> Result<bool, SchedulesError> {
        let mut was_there = false;
        for part in self.parts.iter() {
            let removed = self.store.remove_schedule(&part.stream, name).await;
            match removed.map_err(|error| failed(part, "remove a schedule of", error))? {
                RemovedSchedule::Missing => {}
                RemovedSchedule::Removed => was_there = true,
                RemovedSchedule::Declared => {
                    return Err(SchedulesError::declared(self.stream(), name));
                }
            }
        }
        Ok(was_there)
    }

    /// Pauses a schedule in every process, until it is resumed. A pause outlasts changes of the code.
    /// Repeating it changes nothing.
    ///
    /// # Errors
    ///
    /// When there is no such schedule. When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the schedule may or may not be paused.
    pub async fn pause(&self, name: &ScheduleName) -> Result<(), SchedulesError> {
        let mut was_there = false;
        for part in self.parts.iter() {
            let paused = self.store.pause_schedule(&part.stream, name).await;
            was_there |= paused.map_err(|error| failed(part, "pause a schedule of", error))?;
        }
        match was_there {
            true => Ok(()),
            false => Err(SchedulesError::missing(self.stream(), name)),
        }
    }

    /// Resumes a schedule, and returns whether it was paused. Its next time is the first occurrence after now:
    /// occurrences that fell due during the pause are not made up for.
    ///
    /// # Errors
    ///
    /// When there is no such schedule, or it cannot be read. When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the schedule may or may not be resumed.
    pub async fn resume(&self, name: &ScheduleName) -> Result<bool, SchedulesError> {
        let mut resumed = false;
        for _ in 0..TRIES {
            let copies = self.copies(name, RESUME).await?.0;
            if copies.is_empty() {
                return Err(SchedulesError::missing(self.stream(), name));
            }
            let mut changed = false;
            for found in &copies {
                match self.resume_copy(name, found).await? {
                    Declared::Same => {}
                    Declared::Stored => resumed = true,
                    _ => changed = true,
                }
            }
            if !changed {
                return Ok(resumed);
            }
        }
        Err(SchedulesError::changed(self.stream(), name))
    }

    async fn resume_copy(
        &self,
        name: &ScheduleName,
        found: &Found,
    ) -> Result<Declared, SchedulesError> {
        let (schedule, digest) = self.read(name, found)?;
        let Ok(Some(at)) = schedule.next_after(found.now.0) else {
            return Err(SchedulesError::unreadable(self.stream(), name));
        };
        let (next, part) = (NextTime { at, from: found.now }, &found.part);
        let resumed = self.store.resume_schedule(&part.stream, name, &digest, next).await;
        resumed.map_err(|error| failed(part, RESUME, error))
    }

    /// Publishes an event of a schedule now, in addition to its occurrences, even if the schedule is paused. Its next
    /// time stays as it is. A [`Tick`](crate::schedule::Tick) has the time of the run.
    ///
    /// # Errors
    ///
    /// When there is no such schedule, or it cannot be read. When the server cannot be reached or refuses; if
    /// the error is [unconfirmed](SchedulesError::is_unconfirmed), repeating the call may publish a second
    /// event.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may or may not be published.
    pub async fn run_now(&self, name: &ScheduleName) -> Result<Published, SchedulesError> {
        let stream = self.stream();
        for _ in 0..TRIES {
            let found = self.find(name, RUN).await?.0;
            let found = found.ok_or_else(|| SchedulesError::missing(stream, name))?;
            let (schedule, digest) = self.read(name, &found)?;
            let (event_id, part) = (EventId::generate(), &found.part);
            let fields = schedule.entry_by_hand(&event_id, found.now.0);
            let (store, retention) = (&self.store, self.retention);
            let ran = store.run_schedule(&part.stream, retention, name, &digest, fields).await;
            match ran.map_err(|error| failed(part, RUN, error))? {
                Ran::Published(entry_id) => {
                    return Ok(Published { entry_id, event_id, partition: part.number });
                }
                Ran::Changed => {}
            }
        }
        Err(SchedulesError::changed(stream, name))
    }

    /// The last firings of one schedule or of all, newest first: at most `limit`, and never more than 1,000. The log
    /// of a stream, or of each partition, keeps about 10,000 firings.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn history(
        &self,
        name: Option<&ScheduleName>,
        limit: usize,
    ) -> Result<Vec<FiringInfo>, SchedulesError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let read = async |part: &Part| self.lines(part, name, limit).await;
        let parts = read_all(self.parts.iter().map(read).collect()).await?;
        let mut lines = parts.into_iter().flatten().collect::<Vec<_>>();
        lines.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
        Ok(lines.into_iter().take(limit).map(|(_, line)| line).collect())
    }

    /// The last firings of one partition.
    async fn lines(
        &self,
        part: &Part,
        name: Option<&ScheduleName>,
        limit: usize,
    ) -> Result<Vec<(EntryId, FiringInfo)>, SchedulesError> {
        let (log, mut lines) = (part.stream.schedule_log(), Vec::new());
        let mut span = Span { from: EntryId::ZERO, to: EntryId::MAX };
        for _ in 0..LOG_PAGES {
            let read = self.store.range(&log, span, true, PAGE_MAX).await;
            let read = read.map_err(|error| failed(part, READ, error))?;
            let is_last = read.len() < PAGE_MAX;
            let next = read.last().and_then(|last| last.id().previous());
            for line in &read {
                let firing = FiringInfo::of(line, part.number);
                if name.is_none_or(|name| name.as_str() == firing.schedule) {
                    lines.push((line.id(), firing));
                }
            }
            match next {
                Some(to) if !is_last && lines.len() < limit => span.to = to,
                _ => break,
            }
        }
        lines.truncate(limit);
        Ok(lines)
    }

    /// The partition of a schedule, and the server's clock. When partitions were added, an older copy can remain in
    /// the former partition: the copy that was declared last counts.
    async fn find(
        &self,
        name: &ScheduleName,
        action: &'static str,
    ) -> Result<(Option<Found>, ServerTime), SchedulesError> {
        let (copies, now) = self.copies(name, action).await?;
        let declared =
            |found: &Found| found.facts.record.declared.unwrap_or(found.facts.record.since);
        Ok((copies.into_iter().max_by_key(declared), now))
    }

    /// All copies of a schedule, and the server's clock.
    async fn copies(
        &self,
        name: &ScheduleName,
        action: &'static str,
    ) -> Result<(Vec<Found>, ServerTime), SchedulesError> {
        let read = async |part: &Part| {
            let listed = ListedSchedules::Only(name.as_str());
            let page = self.store.schedules(&part.stream, listed, 1, true).await;
            page.map(|page| (part.clone(), page)).map_err(|error| failed(part, action, error))
        };
        let pages = read_all(self.parts.iter().map(read).collect()).await?;
        let now = pages.iter().map(|(_, page)| page.now).max().unwrap_or_default();
        let copies = pages.into_iter().filter_map(|(part, page)| {
            let facts = page.schedules.into_iter().next()?;
            Some(Found { part, facts, now: page.now })
        });
        Ok((copies.collect(), now))
    }

    /// Where a schedule is stored: in the partition of its event's key, or else where it was found, or in that of its
    /// name.
    fn partition(
        &self,
        name: &ScheduleName,
        event: &Fields,
        found: Option<Found>,
    ) -> Result<StreamName, SchedulesError> {
        let (stream, found) = (self.stream(), found.map(|found| found.part.stream));
        let partition = self.layouts.of_named(stream, event, name.as_str());
        match found {
            Some(found) if found != *partition && key_of(event).is_some() => {
                let (stream, name) = (stream.to_string(), name.to_string());
                Err(SchedulesError::OtherPartition { stream, name })
            }
            Some(found) => Ok(found),
            None => Ok(partition.clone()),
        }
    }

    /// The definition that was found, and its digest.
    fn read(
        &self,
        name: &ScheduleName,
        found: &Found,
    ) -> Result<(Schedule, String), SchedulesError> {
        let spec = found.facts.spec.as_ref();
        let read = spec.and_then(|spec| {
            let fields = spec.fields.clone();
            let schedule = Schedule::read(self.stream(), name.as_str(), &spec.about, fields)?;
            Some((schedule, spec.digest.clone()))
        });
        read.ok_or_else(|| SchedulesError::unreadable(self.stream(), name))
    }
}

fn failed(part: &Part, action: &'static str, error: StoreError) -> SchedulesError {
    server(&part.stream, action, error)
}

fn server(stream: &StreamName, action: &'static str, error: StoreError) -> SchedulesError {
    SchedulesError::server(stream, action, error)
}

const READ: &str = "read the schedules of";
const PUT: &str = "store a schedule of";
const RESUME: &str = "resume a schedule of";
const RUN: &str = "run a schedule of";
const PAGE_MAX: usize = 1_000;
/// How many pages of a log are read at most: more than its maximum of 10,000 firings needs, because
/// the maximum is not exact.
const LOG_PAGES: usize = 12;
/// How often a change is tried, because other clients may change a definition between two requests.
const TRIES: usize = 3;
