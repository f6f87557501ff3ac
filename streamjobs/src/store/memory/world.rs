//! The state of a memory store: streams, retry sets, and what groups remember beside them.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Fault;
use super::marks::Mark;
use super::stream::{Group, Pending, Stream};
use crate::model::entry::{Delivery, Entry, EntryId, Fields, Hold, Inlet};
use crate::store::{FenceResult, Queue, StoreError};

/// Everything that a server would hold.
#[derive(Debug)]
pub(super) struct World {
    pub(super) streams: HashMap<String, Stream>,
    /// Jobs waiting for their back-off by queue, in order of their due times.
    pub(super) waiting: HashMap<String, BTreeMap<(u64, u64), Waiting>>,
    pub(super) groups: HashMap<String, Memory>,
    /// When a token is forgotten, by its key.
    pub(super) tokens: HashMap<String, u64>,
    pub(super) marks: HashMap<String, Mark>,
    pub(super) faults: HashMap<&'static str, VecDeque<Fault>>,
    pub(super) down: bool,
    pub(super) woken: HashSet<u64>,
    pub(super) readers: u64,
    pub(super) retrying: u64,
    began: Instant,
    skew: i64,
}

/// What a group remembers beside its stream: it outlives the stream and the group.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) floor: Option<EntryId>,
    pub(super) released: u64,
    pub(super) beats: BTreeMap<String, u64>,
    /// What consumers say about themselves.
    pub(super) about: BTreeMap<String, String>,
    /// When the group was paused in every process, by the server's clock in milliseconds.
    pub(super) paused: Option<u64>,
    /// Entries that went before they were delivered.
    pub(super) trimmed_unread: u64,
    /// When a look last found nothing idle, and for which lease, both in milliseconds.
    pub(super) looked: HashMap<Inlet, (u64, u64)>,
}

/// A job that waits for its back-off.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) name: String,
    pub(super) fields: Fields,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            streams: HashMap::new(),
            waiting: HashMap::new(),
            groups: HashMap::new(),
            tokens: HashMap::new(),
            marks: HashMap::new(),
            faults: HashMap::new(),
            down: false,
            woken: HashSet::new(),
            readers: 0,
            retrying: 0,
            began: Instant::now(),
            skew: 0,
        }
    }

    /// The server's clock in milliseconds.
    pub(super) fn now(&self) -> u64 {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        EPOCH.saturating_add(elapsed).saturating_add_signed(self.skew)
    }

    pub(super) fn step_clock(&mut self, milliseconds: i64) {
        self.skew = self.skew.saturating_add(milliseconds);
    }

    pub(super) fn clear(&mut self) {
        self.streams.clear();
        self.waiting.clear();
        self.groups.clear();
        self.tokens.clear();
        self.marks.clear();
    }

    pub(super) fn stream(&mut self, key: &str) -> &mut Stream {
        self.streams.entry(key.to_owned()).or_default()
    }

    pub(super) fn memory(&mut self, queue: &Queue) -> &mut Memory {
        self.groups.entry(queue.stream.group_key(&queue.group)).or_default()
    }

    pub(super) fn waiting(&mut self, queue: &Queue) -> &mut BTreeMap<(u64, u64), Waiting> {
        self.waiting.entry(queue.stream.retry_key(&queue.group)).or_default()
    }

    /// Sets a job aside: what it is known by is said or made up. On a server it is named for its
    /// entry.
    pub(super) fn put_aside(
        &mut self,
        queue: &Queue,
        due: u64,
        name: Option<&str>,
        fields: Fields,
    ) {
        self.retrying += 1;
        let number = self.retrying;
        let name = name.map_or_else(|| format!("s:0-{number}"), str::to_owned);
        self.waiting(queue).insert((due, number), Waiting { name, fields });
    }

    /// The group of a queue on one of its streams.
    pub(super) fn group(&mut self, queue: &Queue, inlet: Inlet) -> Result<&mut Group, StoreError> {
        let stream = self.streams.get_mut(&queue.key(inlet));
        let group = stream.and_then(|stream| stream.groups.get_mut(queue.group.as_str()));
        group.ok_or(StoreError::GroupMissing)
    }

    pub(super) fn dead(&mut self, queue: &Queue) -> &mut Stream {
        self.stream(&queue.stream.dead_key(&queue.group))
    }

    /// Makes the group unless it is there: true if it was made.
    pub(super) fn ensure_group(&mut self, queue: &Queue, inlet: Inlet, from: EntryId) -> bool {
        let stream = self.stream(&queue.key(inlet));
        let made = !stream.groups.contains_key(queue.group.as_str());
        if made {
            let read = match stream.entries.keys().next() {
                _ if from >= stream.last => Some(stream.added),
                Some(first) if from >= *first => None,
                _ => Some(stream.gone()),
            };
            let group = Group { delivered: from, read, ..Group::default() };
            stream.groups.insert(queue.group.as_str().to_owned(), group);
        }
        made
    }

    /// Whether the attempt still has the entry.
    pub(super) fn check(
        &mut self,
        queue: &Queue,
        consumer: &str,
        hold: Hold,
    ) -> Result<FenceResult, StoreError> {
        let group = self.group(queue, hold.inlet)?;
        Ok(match group.pending.get(&hold.id) {
            None => FenceResult::NotPending,
            Some(row) if row.consumer == consumer && row.delivery_count == hold.delivery_count => {
                FenceResult::Owned
            }
            Some(_) => FenceResult::TakenOver,
        })
    }

    /// The payload of a pending entry; when it is gone, the entry becomes a dead letter.
    pub(super) fn payload(
        &mut self,
        queue: &Queue,
        inlet: Inlet,
        id: EntryId,
    ) -> Result<Result<Fields, EntryId>, StoreError> {
        let stored = self.streams.get(&queue.key(inlet)).and_then(|stream| stream.entries.get(&id));
        if let Some(fields) = stored.cloned() {
            return Ok(Ok(fields));
        }
        let row = self.group(queue, inlet)?.pending.remove(&id);
        let row = row.ok_or(StoreError::Protocol { command: "payload" })?;
        let now = self.now();
        Ok(Err(self.dead(queue).append(now, trimmed(inlet, id, &row))))
    }

    /// Removes a pending record, and the entry too if it stood in the lane.
    pub(super) fn acknowledge(&mut self, queue: &Queue, inlet: Inlet, id: EntryId) -> bool {
        let known = match self.group(queue, inlet) {
            Ok(group) => group.pending.remove(&id).is_some(),
            Err(_) => false,
        };
        if inlet == Inlet::LANE
            && let Some(lane) = self.streams.get_mut(&queue.key(Inlet::LANE))
        {
            lane.entries.remove(&id);
        }
        known
    }

    /// Changes a pending row, and says what is delivered with it.
    pub(super) fn redeliver(
        &mut self,
        queue: &Queue,
        hold: Hold,
        fields: Fields,
        change: impl FnOnce(&mut Pending),
    ) -> Result<Delivery, StoreError> {
        let group = self.group(queue, hold.inlet)?;
        let row =
            group.pending.get_mut(&hold.id).ok_or(StoreError::Protocol { command: "claim" })?;
        change(row);
        let (delivery_count, consumer) = (row.delivery_count, row.consumer.clone());
        group.consumers.insert(consumer);
        Ok(Delivery { inlet: hold.inlet, entry: Entry::new(hold.id, fields), delivery_count })
    }
}

/// What the step that finds a payload gone writes down.
fn trimmed(inlet: Inlet, id: EntryId, row: &Pending) -> Fields {
    let pair =
        |name: &'static str, value: String| (Bytes::from_static(name.as_bytes()), value.into());
    vec![
        pair("sj-dead-reason", "trimmed".to_owned()),
        pair("sj-dead-entry", id.to_string()),
        pair("sj-dead-source", inlet.as_str().to_owned()),
        pair("sj-dead-deliveries", row.delivery_count.to_string()),
        pair("sj-dead-consumer", row.consumer.clone()),
    ]
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An arbitrary morning, so that ids look like a server's.
const EPOCH: u64 = 1_700_000_000_000;
