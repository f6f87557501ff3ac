//! Direct access to streams in memory, as another client of a server has it.

use std::time::Duration;

use super::MemoryStore;
use super::state::{MemoryState, milliseconds};
use crate::model::entry::{EntryId, Fields};
use crate::model::name::StreamName;
use crate::store::Queue;
use crate::store::raw_access::{PendingRow, RawAccess};

impl RawAccess for MemoryStore {
    fn append(&self, key: &str, fields: Fields) -> EntryId {
        self.change("raw_append", |state| {
            let now = state.now();
            state.stream(key).append(now, fields)
        })
    }

    fn has(&self, key: &str, id: EntryId) -> bool {
        self.lock().stream(key).entries.contains_key(&id)
    }

    fn delete(&self, key: &str, id: EntryId) {
        let mut state = self.lock();
        state.stream(key).entries.remove(&id);
        self.faults.show("raw_delete", &state);
    }

    fn lose_key(&self, key: &str) {
        self.change("raw_lose_key", |state| state.streams.remove(key));
    }

    fn destroy_group(&self, key: &str, group: &str) {
        self.change("raw_destroy_group", |state| state.stream(key).groups.remove(group));
    }

    fn set_cursor(&self, key: &str, group: &str, to: EntryId) {
        self.change("raw_set_cursor", |state| {
            if let Some(group) = state.stream(key).groups.get_mut(group) {
                (group.delivered, group.read) = (to, None);
            }
        });
    }

    fn delete_consumer(&self, key: &str, group: &str, consumer: &str) {
        self.change("raw_delete_consumer", |state| {
            if let Some(group) = state.stream(key).groups.get_mut(group) {
                group.consumers.remove(consumer);
                group.pending.retain(|_, row| row.consumer != consumer);
            }
        });
    }

    fn flush(&self) {
        self.change("raw_flush", MemoryState::clear);
    }

    fn age(&self, key: &str, group: &str, id: EntryId, idle: Duration) {
        let mut state = self.lock();
        let since = state.now().saturating_sub(milliseconds(idle));
        let group = state.stream(key).groups.get_mut(group);
        if let Some(row) = group.and_then(|group| group.pending.get_mut(&id)) {
            row.since = since;
        }
    }

    fn schedule_retry(&self, queue: &Queue, name: &str, due: u64) {
        self.lock().schedule_retry(queue, due, name, Fields::new());
    }

    fn lose_retry_set(&self, queue: &Queue) {
        let mut state = self.lock();
        let lost = std::mem::take(state.retries(queue));
        state.record(queue).lost_retries.extend(lost.into_values());
    }

    fn lose_schedule(&self, stream: &StreamName) {
        self.lock().later(stream).members.clear();
    }

    fn lose_scheduled_record(&self, stream: &StreamName, id: &str) {
        self.lock().later(stream).records.remove(id);
    }

    fn lose_scheduled_records(&self, stream: &StreamName) {
        let mut state = self.lock();
        let later = state.later(stream);
        later.records.clear();
        later.since = None;
    }

    fn place_schedule(&self, stream: &StreamName, name: &str, at: u64) {
        self.change("raw_place_schedule", |state| {
            state.timetable(stream).set_place(name, Some(at));
        });
    }

    fn lose_schedule_places(&self, stream: &StreamName) {
        self.lock().timetable(stream).places.clear();
    }

    fn lose_schedule_specs(&self, stream: &StreamName) {
        let mut state = self.lock();
        let table = state.timetable(stream);
        table.rows.clear();
        table.version = 0;
    }

    fn garble_schedule(&self, stream: &StreamName, name: &str) {
        let mut state = self.lock();
        let (now, table) = (state.now(), state.timetable(stream));
        table.rows.entry(name.to_owned()).or_default().spec = None;
        table.change_version(now + 1);
    }

    fn pending(&self, key: &str, group: &str) -> Vec<PendingRow> {
        let mut state = self.lock();
        let now = state.now();
        let group = state.stream(key).groups.get(group);
        let rows = group.into_iter().flat_map(|group| &group.pending);
        rows.map(|(id, row)| PendingRow {
            id: *id,
            consumer: row.consumer.clone(),
            idle: Duration::from_millis(row.idle(now)),
            delivery_count: row.delivery_count,
        })
        .collect()
    }

    fn length(&self, key: &str) -> usize {
        let mut state = self.lock();
        state.expire_notes();
        state.stream(key).entries.len()
    }

    fn consumers(&self, key: &str, group: &str) -> Vec<String> {
        let mut state = self.lock();
        let group = state.stream(key).groups.get(group);
        group.into_iter().flat_map(|group| group.consumers.iter().cloned()).collect()
    }
}

impl MemoryStore {
    fn change<T>(&self, name: &'static str, change: impl FnOnce(&mut MemoryState) -> T) -> T {
        let mut state = self.lock();
        let answer = change(&mut state);
        self.faults.show(name, &state);
        drop(state);
        self.changed.notify_waiters();
        answer
    }
}
