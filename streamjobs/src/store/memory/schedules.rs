//! Schedules in memory.

use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use super::state::{DAY, MemoryState, milliseconds};
use super::stream::count;
use super::timetable::{Row, score};
use super::work::text;
use crate::model::config::Retention;
use crate::model::entry::{EntryId, Fields, Inlet};
use crate::model::name::{ScheduleName, StreamName};
use crate::store::publish::NewEntry;
use crate::store::schedules::{
    DECLARED_FOR, DRIFT_MAX, Declared, DueSchedules, Fired, Firing, ListedSchedules, Mark,
    NewSchedule, NextTime, Ran, RemovedSchedule, SCHEDULES_MAX, ScheduleFactsPage, ScheduleKind,
    Schedules,
};
use crate::store::types::Result;
use crate::store::{Queue, ServerTime};

/// Whether a next time was ahead when it was computed, and is not any more at this time.
fn has_passed(next: NextTime, now: u64) -> bool {
    next.from.0 < next.at && next.at <= now
}

impl MemoryState {
    fn declare(
        &mut self,
        stream: &StreamName,
        schedule: &NewSchedule,
        next: NextTime,
        silence: Duration,
    ) -> Declared {
        let now = self.now();
        if now.abs_diff(next.from.0) >= DRIFT_MAX {
            return Declared::Stale(ServerTime(now));
        }
        let (table, name) = (self.timetable(stream), schedule.name.as_str());
        let is_new = !table.rows.contains_key(name);
        if is_new && table.rows.len() >= SCHEDULES_MAX {
            return Declared::Full;
        }
        let place = table.place(name);
        let row = table.rows.entry(name.to_owned()).or_default();
        if let (None, false) = (&row.spec, is_new) {
            return Declared::Unreadable;
        }
        if let Some(kind) = row.kind().filter(|kind| *kind != schedule.kind) {
            return Declared::OtherKind(kind);
        }
        let is_same = row.is(&schedule.digest);
        if !is_new && !is_same {
            let quiet = now.saturating_sub(row.declared().unwrap_or(0));
            if quiet < milliseconds(silence) {
                return Declared::Other(Duration::from_millis(quiet));
            }
        }
        let is_placed = place.is_some() && is_same;
        let counts = row.record.paused.is_none() && !is_placed;
        if counts && has_passed(next, now) {
            if is_new {
                table.rows.remove(name);
            }
            return Declared::Stale(ServerTime(now));
        }
        row.declared.retain(|_, at| now.saturating_sub(*at) <= DAY);
        row.declared.insert(schedule.digest.clone(), now);
        row.record.since = if is_new { now } else { row.record.since };
        if !is_same {
            row.spec = Some(schedule.clone());
        }
        if counts {
            table.set_place(name, Some(next.at));
        }
        if !is_same || !is_placed {
            table.change_version(now);
        }
        if is_same { Declared::Same } else { Declared::Stored }
    }

    fn mark(&mut self, stream: &StreamName, name: &ScheduleName, digest: &str) -> Mark {
        let now = self.now();
        let table = self.timetable(stream);
        let place = table.place(name.as_str());
        let Some(row) = table.rows.get_mut(name.as_str()) else { return Mark::Missing };
        match row.kind() {
            None => Mark::Unreadable,
            Some(kind @ ScheduleKind::Stored) => Mark::OtherKind(kind),
            Some(ScheduleKind::Code) if !row.is(digest) => {
                let quiet = now.saturating_sub(row.declared().unwrap_or(0));
                Mark::Other(Duration::from_millis(quiet))
            }
            Some(ScheduleKind::Code) if row.record.paused.is_none() && place.is_none() => {
                Mark::Unplaced
            }
            Some(ScheduleKind::Code) => {
                row.declared.insert(digest.to_owned(), now);
                Mark::Same
            }
        }
    }

    fn fire(
        &mut self,
        stream: &StreamName,
        retention: Retention,
        by: &str,
        firing: Firing,
    ) -> Fired {
        let now = self.now();
        let (table, name) = (self.timetable(stream), firing.name.as_str());
        match table.place(name) {
            Some(at) if score(at).text != firing.expected.text => return Fired::Moved,
            None => return Fired::Moved,
            Some(at) if at > now => return Fired::Early,
            Some(_) => {}
        }
        match table.rows.get(name) {
            Some(row) if row.is(&firing.digest) && row.record.paused.is_some() => {
                return Fired::Paused;
            }
            Some(row) if row.is(&firing.digest) => {}
            _ => return Fired::Changed,
        }
        let before = table.rows.get(name).and_then(|row| row.record.last_entry);
        let mut is_busy = match (&firing.busy, before) {
            (Some(group), Some(entry)) => {
                let queue = Queue { stream: stream.clone(), group: group.clone() };
                self.is_unfinished(&queue, entry)
            }
            _ => false,
        };
        let (mut entries, mut last, mut skipped) = (Vec::new(), None, 0);
        let due = firing.occurrences.last().map_or(firing.expected.at, |last| last.due).to_string();
        for mut occurrence in firing.occurrences {
            if is_busy {
                skipped += 1;
                continue;
            }
            is_busy = firing.busy.is_some();
            last = Some(occurrence.due);
            occurrence.fields.push(("sj-due".into(), occurrence.due.to_string().into()));
            entries.push(self.append(stream.as_str(), retention, occurrence.fields));
        }
        let published = count(entries.len());
        let table = self.timetable(stream);
        table.set_place(name, Some(firing.next));
        if let Some(row) = table.rows.get_mut(name) {
            row.record.fired += published;
            row.record.missed += firing.missed;
            row.record.skipped += skipped;
            row.record.last = last.or(row.record.last);
            row.record.last_entry = entries.last().copied().or(row.record.last_entry);
        }
        let entry = entries.last().map(ToString::to_string).unwrap_or_default();
        let counts = [published, firing.missed, skipped].map(|number| number.to_string());
        let [published, missed, skips] = counts.each_ref().map(String::as_str);
        self.log(stream, [name, &due, published, missed, skips, &entry, by]);
        match skipped {
            0 => Fired::Published(entries),
            skipped => Fired::Skipped { published: entries, skipped },
        }
    }

    /// Whether a group has not finished the job of an entry of its stream.
    fn is_unfinished(&mut self, queue: &Queue, id: EntryId) -> bool {
        let has_entry = self.stream(queue.stream.as_str()).entries.contains_key(&id);
        let Ok(group) = self.group(queue, Inlet::STREAM) else { return false };
        if group.pending.contains_key(&id) || group.delivered < id {
            return has_entry;
        }
        let origin = id.to_string();
        let is_of = |fields: &Fields| text(fields, "sj-origin") == origin;
        self.retries(queue).values().any(|retry| is_of(&retry.fields))
            || self.stream(&queue.key(Inlet::LANE)).entries.values().any(is_of)
            || self.limit(queue).lines.values().flatten().any(is_of)
    }

    fn log(&mut self, stream: &StreamName, values: [&str; 7]) {
        let names = ["schedule", "due", "count", "missed", "skipped", "entry", "by"];
        let fields = names.into_iter().zip(values);
        let fields = fields.map(|(name, value)| (name.into(), value.to_owned().into()));
        let (now, fields) = (self.now(), fields.collect::<Fields>());
        self.stream(&stream.schedule_log_key()).append(now, fields);
    }
}

#[async_trait]
impl Schedules for MemoryStore {
    async fn declare(
        &self,
        stream: &StreamName,
        schedule: &NewSchedule,
        next: NextTime,
        silence: Duration,
    ) -> Result<Declared> {
        self.step("declare", |state| Ok(state.declare(stream, schedule, next, silence))).await
    }

    async fn mark_declared(
        &self,
        stream: &StreamName,
        declared: &[(ScheduleName, String)],
    ) -> Result<Vec<Mark>> {
        self.step("mark_declared", |state| {
            let marks = declared.iter().map(|(name, digest)| state.mark(stream, name, digest));
            Ok(marks.collect())
        })
        .await
    }

    async fn due_schedules(&self, stream: &StreamName, skip: usize) -> Result<DueSchedules> {
        self.step("due_schedules", |state| {
            let now = state.now();
            let table = state.timetable(stream);
            let is_due = |place: &&(u64, String)| place.0 <= now;
            let due = table.places.iter().take_while(is_due).skip(skip);
            let due = due.map(|(at, name)| (name.clone(), score(*at))).collect();
            let coming = table.places.iter().find(|(at, _)| *at > now);
            Ok(DueSchedules {
                now: ServerTime(now),
                version: table.version,
                count: count(table.places.len()),
                used: table.is_used(),
                due,
                has_more: false,
                next_due: coming.map(|(at, _)| Duration::from_millis(at - now)),
            })
        })
        .await
    }

    async fn fire(
        &self,
        stream: &StreamName,
        retention: Retention,
        by: &str,
        firings: Vec<Firing>,
    ) -> Vec<Result<Fired>> {
        let mut answers = Vec::with_capacity(firings.len());
        for firing in firings {
            let step = |state: &mut MemoryState| Ok(state.fire(stream, retention, by, firing));
            answers.push(self.step("fire", step).await);
        }
        answers
    }

    async fn run_schedule(
        &self,
        stream: &StreamName,
        retention: Retention,
        name: &ScheduleName,
        digest: &str,
        fields: NewEntry,
    ) -> Result<Ran> {
        self.step("run_schedule", |state| {
            let table = state.timetable(stream);
            match table.rows.get_mut(name.as_str()) {
                Some(row) if row.is(digest) => row.record.runs += 1,
                _ => return Ok(Ran::Changed),
            }
            let entry = state.append(stream.as_str(), retention, fields);
            state.log(stream, [name.as_str(), "", "1", "0", "0", &entry.to_string(), ""]);
            Ok(Ran::Published(entry))
        })
        .await
    }

    async fn pause_schedule(&self, stream: &StreamName, name: &ScheduleName) -> Result<bool> {
        self.step("pause_schedule", |state| {
            let now = state.now();
            let table = state.timetable(stream);
            let Some(row) = table.rows.get_mut(name.as_str()) else { return Ok(false) };
            if row.record.paused.is_none() {
                row.record.paused = Some(now);
                table.change_version(now);
            }
            table.set_place(name.as_str(), None);
            Ok(true)
        })
        .await
    }

    async fn resume_schedule(
        &self,
        stream: &StreamName,
        name: &ScheduleName,
        digest: &str,
        next: NextTime,
    ) -> Result<Declared> {
        self.step("resume_schedule", |state| {
            let now = state.now();
            if now.abs_diff(next.from.0) >= DRIFT_MAX {
                return Ok(Declared::Stale(ServerTime(now)));
            }
            let table = state.timetable(stream);
            let row = table.rows.get_mut(name.as_str()).filter(|row| row.is(digest));
            let Some(row) = row else { return Ok(Declared::Other(Duration::ZERO)) };
            if row.record.paused.is_none() {
                return Ok(Declared::Same);
            }
            if has_passed(next, now) {
                return Ok(Declared::Stale(ServerTime(now)));
            }
            row.record.paused = None;
            table.set_place(name.as_str(), Some(next.at));
            table.change_version(now);
            Ok(Declared::Stored)
        })
        .await
    }

    async fn remove_schedule(
        &self,
        stream: &StreamName,
        name: &ScheduleName,
    ) -> Result<RemovedSchedule> {
        self.step("remove_schedule", |state| {
            let now = state.now();
            let table = state.timetable(stream);
            let row = table.rows.get(name.as_str());
            let row = row.filter(|row| row.kind() == Some(ScheduleKind::Code));
            let declared = row.and_then(Row::declared);
            if declared.is_some_and(|at| now.saturating_sub(at) < milliseconds(DECLARED_FOR)) {
                return Ok(RemovedSchedule::Declared);
            }
            if !table.remove(name.as_str()) {
                return Ok(RemovedSchedule::Missing);
            }
            table.change_version(now);
            Ok(RemovedSchedule::Removed)
        })
        .await
    }

    async fn forget_schedules(
        &self,
        stream: &StreamName,
        names: &[String],
        silence: Duration,
    ) -> Result<(usize, usize)> {
        self.step("forget_schedules", |state| {
            let now = state.now();
            let table = state.timetable(stream);
            let (mut removed, mut lost) = (0, 0);
            for name in names {
                match table.rows.get(name) {
                    None => lost += usize::from(table.remove(name)),
                    Some(row) if row.kind() == Some(ScheduleKind::Code) => {
                        let at = row.declared().unwrap_or(row.record.since);
                        if now.saturating_sub(at) >= milliseconds(silence) {
                            removed += usize::from(table.remove(name));
                        }
                    }
                    Some(_) => {}
                }
            }
            if removed + lost > 0 {
                table.change_version(now);
            }
            Ok((removed, lost))
        })
        .await
    }

    async fn schedules(
        &self,
        stream: &StreamName,
        listed: ListedSchedules<'_>,
        limit: usize,
        payloads: bool,
    ) -> Result<ScheduleFactsPage> {
        self.step("schedules", |state| {
            let now = ServerTime(state.now());
            let table = state.timetable(stream);
            let is_listed = |(name, _): &(&String, &Row)| match listed {
                ListedSchedules::After(after) => name.as_str() > after,
                ListedSchedules::Only(only) => name.as_str() == only,
            };
            let rows = table.rows.iter().filter(is_listed);
            let mut schedules = rows
                .take(limit + 1)
                .map(|(name, row)| table.facts(name, row, payloads))
                .collect::<Vec<_>>();
            let has_more = schedules.len() > limit;
            schedules.truncate(limit);
            Ok(ScheduleFactsPage { now, version: table.version, schedules, has_more })
        })
        .await
    }
}
