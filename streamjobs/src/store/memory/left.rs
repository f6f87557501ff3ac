//! What is left to do in the streams in memory, for tests that wait until everything is done.

use std::collections::HashMap;

use super::MemoryStore;
use super::ledger::Ended;
use super::limit::Limit;
use super::state::{MemoryState, milliseconds};
use super::stream::{Group, Stream};
use super::work::text;
use crate::model::entry::{Entry, EntryId};
use crate::store::Queue;
use crate::store::schedules::{DECLARED_FOR, ScheduleKind};
use crate::store::types::released_for;

/// A moment, with which a test can ask later what has ended since.
#[derive(Debug)]
pub(crate) struct Moment {
    pub(crate) ended: Ended,
    /// The last dead letter of each queue.
    letters: HashMap<String, EntryId>,
}

/// What is left to do up to some time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// The server's clock in milliseconds.
    pub(crate) now: u64,
    pub(crate) left: Vec<Left>,
    /// Jobs and events that are due after that time.
    pub(crate) later: u64,
}

impl Unfinished {
    /// When the first of it is due, if all of it is due in the future.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let dues = self.left.iter().map(|left| left.work.due().unwrap_or(0));
        dues.min().filter(|due| *due > self.now)
    }
}

/// One thing that is left to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) stream: String,
    /// Its group; `None` for events that wait for their time.
    pub(crate) group: Option<String>,
    pub(crate) work: Work,
    /// Why no process does it.
    pub(crate) obstacle: Option<&'static str>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// This many entries are not delivered yet.
    Backlog(usize),
    /// An entry was delivered and has not ended.
    Pending { id: EntryId, event_id: String, consumer: String, delivery_count: u64 },
    /// A job waits for its retry.
    Retry { event_id: String, error: String, due: u64 },
    /// An event waits for its time.
    Scheduled { event_id: String, due: u64 },
    /// A schedule is due.
    Schedule { name: String, due: u64 },
}

impl Work {
    /// When it is due, if it waits for that.
    pub(crate) fn due(&self) -> Option<u64> {
        match self {
            Self::Backlog(_) | Self::Pending { .. } => None,
            Self::Retry { due, .. } | Self::Scheduled { due, .. } | Self::Schedule { due, .. } => {
                Some(*due)
            }
        }
    }
}

impl MemoryStore {
    /// Delivers each job once more after its success, from now on.
    pub(crate) fn repeat_jobs(&self) {
        self.lock().ledger.repeated.get_or_insert_default();
    }

    pub(crate) fn moment(&self) -> Moment {
        let state = self.lock();
        let last = |queue: &Queue| state.streams.get(&queue.dead_key()).map(|dead| dead.last);
        let queues = state.ledger.queues.values();
        let letters = queues.filter_map(|queue| Some((queue.dead_key(), last(queue)?)));
        Moment { ended: state.ledger.ended, letters: letters.collect() }
    }

    pub(crate) fn ended(&self) -> Ended {
        self.lock().ledger.ended
    }

    /// Waits for the next step of any process.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The dead letters that were stored since a moment and still exist.
    pub(crate) fn letters_since(&self, moment: &Moment) -> Vec<(Queue, Entry)> {
        let state = self.lock();
        let mut letters = Vec::new();
        for queue in state.ledger.queues.values() {
            let key = queue.dead_key();
            let before = moment.letters.get(&key).copied().unwrap_or(EntryId::ZERO);
            let Some(dead) = state.streams.get(&key) else { continue };
            let new = dead.entries.iter().filter(|(id, _)| **id > before);
            letters
                .extend(new.map(|(id, fields)| (queue.clone(), Entry::new(*id, fields.clone()))));
        }
        letters
    }

    /// What is left to do that is due by this time of the server's clock, in milliseconds.
    pub(crate) fn unfinished(&self, until: u64) -> Unfinished {
        let mut state = self.lock();
        let mut found = Unfinished { now: state.now(), ..Unfinished::default() };
        let queues = state.ledger.queues.values().cloned().collect::<Vec<_>>();
        for queue in queues {
            state.unfinished_jobs(&queue, until, &mut found);
        }
        state.waiting_events(until, &mut found);
        state.due_schedules(until, &mut found);
        found
    }
}

impl MemoryState {
    fn unfinished_jobs(&mut self, queue: &Queue, until: u64, found: &mut Unfinished) {
        let now = found.now;
        let record = self.record(queue);
        let alive = |name: &str| record.is_alive(name, now);
        let obstacle = match record.heartbeats.keys().any(|name| alive(name)) {
            false => Some("no process works on it"),
            true if record.paused.is_some() => Some("the group is paused"),
            true => None,
        };
        let left = |work, obstacle| Left {
            stream: queue.stream.as_str().to_owned(),
            group: Some(queue.group.as_str().to_owned()),
            work,
            obstacle,
        };
        let rows = self.streams_of(queue).flat_map(|(stream, group)| {
            group.pending.iter().map(|(id, row)| (*id, row, stream.entries.get(id)))
        });
        let pending = rows.map(|(id, row, fields)| Work::Pending {
            id,
            event_id: fields.map_or_else(String::new, |fields| text(fields, "sj-id")),
            consumer: row.consumer.clone(),
            delivery_count: row.delivery_count,
        });
        let pending = pending.collect::<Vec<_>>();
        let record = self.records.get(&queue.group_key());
        found.left.extend(pending.into_iter().map(|work| {
            let Work::Pending { consumer, .. } = &work else { return left(work, obstacle) };
            let is_released = released_for(consumer).is_some();
            let is_alive = record.is_some_and(|record| record.is_alive(consumer, now));
            let lost = (!is_released && !is_alive).then_some("its process is gone");
            left(work, obstacle.or(lost))
        }));
        let backlog =
            self.streams_of(queue).map(|(stream, group)| stream.after(group.delivered).count());
        let parked = self.limits.get(&queue.group_key()).map_or(0, Limit::parked);
        let backlog = backlog.sum::<usize>() + parked;
        if backlog > 0 {
            found.left.push(left(Work::Backlog(backlog), obstacle));
        }
        for ((due, _), retry) in self.retries.get(&queue.retry_key()).into_iter().flatten() {
            if *due > until {
                found.later += 1;
                continue;
            }
            let [event_id, error] = ["sj-id", "sj-error"].map(|name| text(&retry.fields, name));
            found.left.push(left(Work::Retry { event_id, error, due: *due }, obstacle));
        }
    }

    /// The streams of a queue that have its group.
    fn streams_of(&self, queue: &Queue) -> impl Iterator<Item = (&Stream, &Group)> {
        let name = queue.group.as_str().to_owned();
        let streams = queue.keys().map(|key| self.streams.get(&key));
        streams.into_iter().flatten().filter_map(move |on| Some((on, on.groups.get(&name)?)))
    }

    fn waiting_events(&self, until: u64, found: &mut Unfinished) {
        for (key, later) in &self.later {
            for (due, name) in &later.members {
                if *due > until {
                    found.later += 1;
                    continue;
                }
                let event_id = later.records.get(name).map(|(_, fields)| text(fields, "sj-id"));
                let event_id = event_id.unwrap_or_else(|| name.clone());
                let work = Work::Scheduled { event_id, due: *due };
                found.left.push(of_stream(key, ":later", work));
            }
        }
    }

    fn due_schedules(&self, until: u64, found: &mut Unfinished) {
        for (key, table) in &self.timetables {
            for (due, name) in table.places.iter().take_while(|(due, _)| *due <= until) {
                let Some(row) = table.rows.get(name) else { continue };
                let silence = found.now.saturating_sub(row.declared().unwrap_or(0));
                let fires = match row.kind() {
                    Some(ScheduleKind::Stored) => true,
                    Some(ScheduleKind::Code) => silence < milliseconds(DECLARED_FOR),
                    None => false,
                };
                if fires && row.record.paused.is_none() {
                    let work = Work::Schedule { name: name.clone(), due: *due };
                    found.left.push(of_stream(key, ":schedules", work));
                }
            }
        }
    }
}

/// Work in a stream, described by the key that holds it.
fn of_stream(key: &str, suffix: &str, work: Work) -> Left {
    let name = key.strip_suffix(suffix).unwrap_or(key);
    let bare = name.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
    Left { stream: bare.unwrap_or(name).to_owned(), group: None, work, obstacle: None }
}
