//! What a test does to streams in memory behind the store's back, and what it looks at.

use std::time::Duration;

use super::MemoryStore;
use super::world::milliseconds;
use crate::model::entry::{EntryId, Fields};
use crate::store::Queue;
use crate::store::conformance::{Hands, PendingRow};

impl Hands for MemoryStore {
    fn append(&self, key: &str, fields: Fields) -> EntryId {
        let mut world = self.lock();
        let now = world.now();
        let id = world.stream(key).append(now, fields);
        self.show("hands_append", &world);
        drop(world);
        self.changed.notify_waiters();
        id
    }

    fn has(&self, key: &str, id: EntryId) -> bool {
        self.lock().stream(key).entries.contains_key(&id)
    }

    fn delete(&self, key: &str, id: EntryId) {
        let mut world = self.lock();
        world.stream(key).entries.remove(&id);
        self.show("hands_delete", &world);
    }

    fn destroy_group(&self, key: &str, group: &str) {
        let mut world = self.lock();
        world.stream(key).groups.remove(group);
        self.show("hands_destroy_group", &world);
        drop(world);
        self.changed.notify_waiters();
    }

    fn flush(&self) {
        let mut world = self.lock();
        world.clear();
        self.show("hands_flush", &world);
        drop(world);
        self.changed.notify_waiters();
    }

    fn age(&self, key: &str, group: &str, id: EntryId, idle: Duration) {
        let mut world = self.lock();
        let since = world.now().saturating_sub(milliseconds(idle));
        let group = world.stream(key).groups.get_mut(group);
        if let Some(row) = group.and_then(|group| group.pending.get_mut(&id)) {
            row.since = since;
        }
    }

    fn schedule_retry(&self, queue: &Queue, name: &str, due: u64) {
        self.lock().put_aside(queue, due, Some(name), Fields::new());
    }

    fn pending(&self, key: &str, group: &str) -> Vec<PendingRow> {
        let mut world = self.lock();
        let now = world.now();
        let group = world.stream(key).groups.get(group);
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
        self.lock().stream(key).entries.len()
    }

    fn consumers(&self, key: &str, group: &str) -> Vec<String> {
        let mut world = self.lock();
        let group = world.stream(key).groups.get(group);
        group.into_iter().flat_map(|group| group.consumers.iter().cloned()).collect()
    }
}
