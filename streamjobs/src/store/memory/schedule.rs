//! Events in memory that wait for their time.

use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use super::state::{MemoryState, milliseconds};
use super::stream::count;
use crate::model::config::Retention;
use crate::model::entry::{Entry, EntryId, Fields};
use crate::model::name::{EventId, StreamName};
use crate::store::schedule::{LEARNING, SHORT, ScheduledFacts, ScheduledFactsPage};
use crate::store::types::Result;
use crate::store::{
    Debounced, Due, Entered, NewDebounced, NewScheduled, Rescheduled, Schedule, ScheduledFrom,
    Scheduling, ServerTime, Upcoming,
};

impl MemoryState {
    fn due(&self, due: Due) -> u64 {
        match due {
            Due::At(time) => time,
            Due::In(delay) => self.now().saturating_add(milliseconds(delay)),
        }
    }

    fn schedule(
        &mut self,
        stream: &StreamName,
        retention: Retention,
        event: NewScheduled,
    ) -> Scheduling {
        let (now, due) = (self.now(), self.due(event.due));
        let later = self.later(stream);
        let since = later.since.filter(|since| *since <= now);
        let is_new = since.is_none_or(|since| now - since < milliseconds(LEARNING));
        let unwatched = |due: u64| {
            let wait = Duration::from_millis(due.saturating_sub(now));
            Some(wait).filter(|wait| is_new && *wait < SHORT)
        };
        if let Some((due, _)) = later.records.get(event.id.as_str()) {
            let due = *due;
            return Scheduling::Waits { due, repeated: true, unwatched: unwatched(due) };
        }
        if due <= now {
            return Scheduling::Entered(self.append(stream.as_str(), retention, event.fields));
        }
        later.since = Some(since.unwrap_or(now));
        later.records.insert(event.id.as_str().to_owned(), (due, event.fields));
        later.members.insert((due, event.id.as_str().to_owned()));
        Scheduling::Waits { due, repeated: false, unwatched: unwatched(due) }
    }

    fn debounce(&mut self, stream: &StreamName, event: NewDebounced) -> Debounced {
        let now = self.now();
        let NewDebounced { name, id, times, mut fields } = event;
        let later = self.later(stream);
        let waiting = later.records.get(name.as_str());
        let before = waiting.map(|(due, fields)| (*due, Entry::new(EntryId::ZERO, fields.clone())));
        let text = |name: &str| before.as_ref().and_then(|(_, entry)| entry.text(name));
        let replaced = text("sj-id").and_then(|id| EventId::new(id).ok());
        let due_before = before.as_ref().map(|(due, _)| *due);
        if let Some(due) = due_before.filter(|_| replaced.as_ref() == Some(&id)) {
            return Debounced { due, replaced: None, repeated: true };
        }
        let first = text(DEBOUNCED).and_then(|first| first.parse().ok()).unwrap_or(now).min(now);
        let due = now.saturating_add(milliseconds(times.delay));
        let due = due.min(first.saturating_add(milliseconds(times.wait_max)));
        let due = due_before.filter(|_| times.keeps_time).unwrap_or(due);
        fields.push((DEBOUNCED.into(), first.to_string().into()));
        later.since = Some(later.since.unwrap_or(now).min(now));
        later.remove(name.as_str());
        later.records.insert(name.as_str().to_owned(), (due, fields));
        later.members.insert((due, name.as_str().to_owned()));
        Debounced { due, replaced, repeated: false }
    }

    /// Moves an event to its stream.
    fn enter(
        &mut self,
        stream: &StreamName,
        retention: Retention,
        id: &str,
        due: u64,
    ) -> Option<EntryId> {
        let record = self.later(stream).records.get(id).cloned();
        let entered = record.map(|(_, mut fields)| {
            fields.push(("sj-due".into(), due.to_string().into()));
            self.append(stream.as_str(), retention, fields)
        });
        self.later(stream).remove(id);
        entered
    }
}

#[async_trait]
impl Schedule for MemoryStore {
    async fn schedule(
        &self,
        stream: &StreamName,
        retention: Retention,
        events: Vec<NewScheduled>,
    ) -> Vec<Result<Scheduling>> {
        let mut answers = Vec::with_capacity(events.len());
        for event in events {
            let step = |state: &mut MemoryState| Ok(state.schedule(stream, retention, event));
            answers.push(self.step("schedule", step).await);
        }
        answers
    }

    async fn debounce(&self, stream: &StreamName, event: NewDebounced) -> Result<Debounced> {
        self.step("debounce", |state| Ok(state.debounce(stream, event))).await
    }

    async fn look_ahead(&self, stream: &StreamName) -> Result<Upcoming> {
        self.step("look_ahead", |state| {
            let now = state.now();
            Ok(state.later(stream).upcoming(now))
        })
        .await
    }

    async fn enter(
        &self,
        stream: &StreamName,
        retention: Retention,
        limit: usize,
        _cursor: u64,
    ) -> Result<Entered> {
        self.step("enter", |state| {
            let now = state.now();
            let restored = state.later(stream).restore();
            let due = state.later(stream).members.iter().take_while(|(due, _)| *due <= now);
            let due = due.take(limit).cloned().collect::<Vec<_>>();
            let mut entered = Entered {
                restored,
                has_more: limit > 0 && due.len() == limit,
                ..Entered::default()
            };
            for (due, id) in due {
                match state.enter(stream, retention, &id, due) {
                    Some(_) => entered.lateness.push(Duration::from_millis(now - due)),
                    None => entered.lost += 1,
                }
            }
            entered.upcoming = state.later(stream).upcoming(now);
            Ok(entered)
        })
        .await
    }

    async fn unschedule(&self, stream: &StreamName, id: &EventId) -> Result<bool> {
        self.step("unschedule", |state| Ok(state.later(stream).remove(id.as_str()))).await
    }

    async fn reschedule(
        &self,
        stream: &StreamName,
        retention: Retention,
        id: &EventId,
        due: Due,
    ) -> Result<Rescheduled> {
        self.step("reschedule", |state| {
            let (now, due) = (state.now(), state.due(due));
            let later = state.later(stream);
            let Some(record) = later.records.get_mut(id.as_str()) else {
                return Ok(Rescheduled::NotScheduled);
            };
            record.0 = due;
            later.members.retain(|(_, member)| member != id.as_str());
            later.members.insert((due, id.as_str().to_owned()));
            if due > now {
                return Ok(Rescheduled::Waits(due));
            }
            let record = state.later(stream).records.get(id.as_str());
            let record = record.map(|(_, fields)| Entry::new(EntryId::ZERO, fields.clone()));
            let event = record.as_ref().and_then(|record| record.text("sj-id"));
            let event = event.and_then(|event| EventId::new(event).ok());
            let entered = state.enter(stream, retention, id.as_str(), due);
            let entered = entered.map(|entry| Rescheduled::Entered(entry, event));
            Ok(entered.unwrap_or(Rescheduled::NotScheduled))
        })
        .await
    }

    async fn scheduled(
        &self,
        stream: &StreamName,
        from: ScheduledFrom<'_>,
        limit: usize,
    ) -> Result<ScheduledFactsPage> {
        self.step("scheduled", |state| {
            let now = ServerTime(state.now());
            let later = state.later(stream);
            let members = later.members.iter().collect::<Vec<_>>();
            let first_due = |at| members.iter().take_while(|(due, _)| *due < at).count();
            let place = match from {
                ScheduledFrom::First => 0,
                ScheduledFrom::Due(due) => first_due(due),
                ScheduledFrom::After { id, due } => {
                    let place = members.iter().position(|(_, member)| member == id);
                    place.map_or_else(|| first_due(due), |place| place + 1)
                }
            };
            let rest = members.len().saturating_sub(place);
            let page = members.into_iter().skip(place).take(limit);
            let events =
                page.map(|(due, name)| facts(name, *due, later.records.get(name))).collect();
            Ok(ScheduledFactsPage { now, events, has_more: rest >= limit })
        })
        .await
    }

    async fn scheduled_count(&self, stream: &StreamName) -> Result<u64> {
        self.step("scheduled_count", |state| Ok(count(state.later(stream).members.len()))).await
    }
}

/// The field of a debounced event with the time of the first publication that it stands for.
const DEBOUNCED: &str = "sj-debounced";

fn facts(name: &str, due: u64, record: Option<&(u64, Fields)>) -> ScheduledFacts {
    let fields = record.map(|(_, fields)| fields.clone()).unwrap_or_default();
    let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    let entry = Entry::new(EntryId::ZERO, fields);
    let text = |name: &str| entry.text(name).map(str::to_owned);
    ScheduledFacts {
        name: name.to_owned(),
        event_id: text("sj-id"),
        due,
        event_type: text("type"),
        key: text("sj-key"),
        bytes: count(bytes),
    }
}
