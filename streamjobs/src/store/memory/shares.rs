//! Fair shares of keys in memory.

use std::collections::{BTreeMap, VecDeque};

use super::holds::{counted_key, parked_job};
use super::limit::Turns;
use super::state::MemoryState;
use crate::model::entry::{Delivery, Entry};
use crate::model::limit::HoldRule;
use crate::model::name::ConsumerName;
use crate::store::types::Result;
use crate::store::{Inlet, Left, Queue, StoreError, Taken};

/// Entries that a take has read and not yet decided about, by key.
type Waiting = BTreeMap<String, VecDeque<(Inlet, Entry)>>;

impl MemoryState {
    /// Reads entries of stream and lane so that keys have fair shares of `free` slots.
    pub(super) fn take_share(
        &mut self,
        queue: &Queue,
        consumer: &ConsumerName,
        free: usize,
        rule: HoldRule,
    ) -> Result<Taken> {
        // While lines are full, a take reads nothing from the stream, and from the lane only as
        // many entries as slots are free.
        let is_full = self.limit(queue).parked() >= PARKED_MAX;
        let of_lane = free + if is_full { 0 } else { LANE_AHEAD };
        let retried = self.read_ahead(queue, consumer, Inlet::LANE, of_lane)?;
        let lane_is_read = retried.len() < of_lane;
        let room = if is_full { 0 } else { LOOKED_MAX.saturating_sub(retried.len()).max(free) };
        let read = self.read_ahead(queue, consumer, Inlet::STREAM, room)?;
        let stream_is_read = room > read.len();
        let mut of_both = retried.into_iter().map(|entry| (Inlet::LANE, entry)).collect::<Vec<_>>();
        of_both.extend(read.into_iter().map(|entry| (Inlet::STREAM, entry)));
        let mut deliveries = Vec::new();
        let mut waiting = Waiting::new();
        for (inlet, entry) in of_both {
            let (place, limit) = ((inlet, entry.id()), self.limit(queue));
            if limit.holds.contains_key(&place) && deliveries.len() < free {
                deliveries.push(Delivery { inlet, entry, delivery_count: 1 });
                continue;
            }
            limit.holds.remove(&place);
            let key = counted_key(rule, &entry).unwrap_or_default();
            if !limit.lines.contains_key(&key) && !waiting.contains_key(&key) {
                self.turns(queue).take(&key);
            }
            waiting.entry(key).or_default().push_back((inlet, entry));
        }
        self.share_out(queue, lane_is_read, free, &mut waiting, &mut deliveries);
        let parked = self.park_all(queue, waiting);
        let fed = free.saturating_sub(deliveries.len());
        let fed =
            self.read_ahead(queue, consumer, Inlet::LANE, if lane_is_read { fed } else { 0 })?;
        let fed = fed.into_iter();
        deliveries.extend(fed.map(|entry| Delivery {
            inlet: Inlet::LANE,
            entry,
            delivery_count: 1,
        }));
        let is_drained = deliveries.len() < free && lane_is_read && stream_is_read && parked == 0;
        if self.limit(queue).lines.is_empty() {
            self.turns.remove(&queue.group_key());
        }
        let left = if is_drained { Left::Drained } else { Left::More };
        Ok(Taken { left, parked, deliveries })
    }

    fn turns(&mut self, queue: &Queue) -> &mut Turns {
        self.turns.entry(queue.group_key()).or_default()
    }

    fn read_ahead(
        &mut self,
        queue: &Queue,
        consumer: &ConsumerName,
        inlet: Inlet,
        most: usize,
    ) -> Result<Vec<Entry>> {
        self.group(queue, inlet)?;
        let (now, key) = (self.now(), queue.key(inlet));
        let (group, consumer) = (queue.group.as_str(), consumer.as_str());
        let stream = self.streams.get_mut(&key).ok_or(StoreError::GroupMissing)?;
        let read = stream.deliver(group, consumer, most, now).ok_or(StoreError::GroupMissing)?;
        Ok(read.into_iter().map(|(id, fields)| Entry::new(id, fields)).collect())
    }

    /// Takes as many jobs as slots are free, from the entries that were read, and from lines by
    /// moving their jobs to the lane.
    fn share_out(
        &mut self,
        queue: &Queue,
        may_feed: bool,
        free: usize,
        waiting: &mut Waiting,
        deliveries: &mut Vec<Delivery>,
    ) {
        let mut fed = 0;
        while deliveries.len() + fed < free {
            let turns = self.turns(queue).clone();
            let limit = self.limit(queue);
            let lined = limit.lines.keys().filter(|_| may_feed);
            let fresh = waiting.keys().filter(|key| !limit.lines.contains_key(*key));
            let next = lined.chain(fresh).min_by_key(|key| (limit.busy(key), turns.of(key)));
            let Some(key) = next.cloned() else { return };
            self.turns(queue).take(&key);
            let limit = self.limit(queue);
            if let Some(job) = limit.next(&key) {
                let now = self.now();
                let id = self.lane(queue).append(now, job);
                self.limit(queue).holds.insert((Inlet::LANE, id), key);
                fed += 1;
            } else if let Some(jobs) = waiting.get_mut(&key)
                && let Some((inlet, entry)) = jobs.pop_front()
            {
                limit.holds.insert((inlet, entry.id()), key.clone());
                deliveries.push(Delivery { inlet, entry, delivery_count: 1 });
                if jobs.is_empty() {
                    waiting.remove(&key);
                }
            }
        }
    }

    /// Puts the remaining jobs into lines. Returns how many.
    fn park_all(&mut self, queue: &Queue, waiting: Waiting) -> usize {
        let mut parked = 0;
        for (key, jobs) in waiting {
            for (inlet, entry) in jobs {
                let job = parked_job(&entry, inlet);
                self.limit(queue).lines.entry(key.clone()).or_default().push_back(job);
                self.acknowledge(queue, inlet, entry.id());
                parked += 1;
            }
        }
        parked
    }
}

/// How many entries of the stream a take examines.
const LOOKED_MAX: usize = 500;
/// How many entries of the lane a take examines beyond the free slots.
const LANE_AHEAD: usize = 100;
const PARKED_MAX: usize = 10_000;
