//! The state of a memory store: streams, retry sets, marks, and the records of groups.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::granted::GrantedUpTo;
use super::later::Later;
use super::ledger::Ledger;
use super::limit::{Limit, Turns};
use super::stream::{Group, Pending, Stream};
use super::timetable::Timetable;
use crate::model::entry::{Entry, EntryId, Fields};
use crate::model::heartbeat::Heartbeat;
use crate::model::limit::SetLimit;
use crate::model::name::{ConsumerName, EventId, StreamName};
use crate::store::trends::TrendStep;
use crate::store::types::{Result, released_for};
use crate::store::{
    Delivery, FenceResult, GroupBirth, Hold, Inlet, Queue, SetRate, StandIn, StoreError,
};

/// Everything that a server would store.
#[derive(Clone, Debug)]
pub(super) struct MemoryState {
    pub(super) streams: HashMap<String, Stream>,
    /// Jobs that wait for retry, by queue, in the order in which they are due.
    pub(super) retries: HashMap<String, BTreeMap<(u64, u64), Retry>>,
    /// What groups remember, by their key.
    pub(super) records: HashMap<String, Record>,
    /// When a redrive token expires, by its key.
    pub(super) tokens: HashMap<String, u64>,
    pub(super) marks: HashMap<String, Mark>,
    /// Events that wait for their time, by the key of the set of them.
    pub(super) later: HashMap<String, Later>,
    /// The numbers of marks that cancel jobs, by stream and mark.
    pub(super) cancels: HashMap<String, HashMap<String, u64>>,
    /// Schedules, by the key of the set of them.
    pub(super) timetables: HashMap<String, Timetable>,
    /// Locks of unique events, by their key.
    pub(super) locks: HashMap<String, Lock>,
    /// The progress of jobs, by key and field.
    pub(super) progress: HashMap<String, HashMap<String, String>>,
    /// When notes of jobs that are done expire, by the key of their stream.
    pub(super) notes_expire: HashMap<String, u64>,
    /// What groups did, by the key of the ring.
    pub(super) trends: HashMap<String, Ring>,
    /// Results of jobs, by their key.
    pub(super) results: HashMap<String, Kept>,
    pub(super) ledger: Ledger,
    /// The limits of groups, by the key of what the group remembers.
    pub(super) limits: HashMap<String, Limit>,
    /// The turns of the keys of groups that have fair shares, by the key of what the group remembers.
    pub(super) turns: HashMap<String, Turns>,
    /// Up to when starts of jobs are granted, by the key of the rate.
    pub(super) rates: HashMap<String, GrantedUpTo>,
    /// How many partitions a stream has.
    pub(super) partitions: HashMap<String, u16>,
    /// Readers whose wait was ended.
    pub(super) woken: HashSet<u64>,
    /// Readers ever opened.
    pub(super) readers: u64,
    /// Retries ever scheduled.
    scheduled: u64,
    began: Instant,
    skew: i64,
}

/// What a group remembers apart from its stream. It outlives the stream and the group.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) floor: Option<EntryId>,
    /// What was known when the group was created on a stream with several partitions.
    pub(super) made: Option<GroupBirth>,
    pub(super) released: u64,
    /// How often operators moved entries, or acknowledged some.
    pub(super) moves: u64,
    /// The last heartbeat of each consumer.
    pub(super) heartbeats: BTreeMap<String, u64>,
    /// What consumers say about themselves.
    pub(super) about: BTreeMap<String, String>,
    /// When the group was paused in every process, by the server's clock in milliseconds.
    pub(super) paused: Option<u64>,
    /// When the last pause ended.
    pub(super) resumed: Option<u64>,
    /// The rate that an operator has set.
    pub(super) rate: Option<SetRate>,
    /// The limit that an operator has set.
    pub(super) limit: Option<SetLimit>,
    /// From when until when no job starts, by the server's clock in milliseconds.
    pub(super) limited: Option<(u64, u64)>,
    /// When the attempt at a trimmed entry with a place was last renewed, and by which consumer.
    pub(super) runs: BTreeMap<(Inlet, EntryId), (u64, String)>,
    /// Entries that were trimmed before their delivery.
    pub(super) trimmed_unread: u64,
    /// When a scan last found nothing idle, and for which lease, both in milliseconds.
    pub(super) scans: HashMap<Inlet, (u64, u64)>,
    /// Until when a live consumer declares an event type; `*` stands for consumers that may have any.
    pub(super) types: BTreeMap<String, u64>,
    /// Event types that were met without a handler: when first and when last.
    pub(super) unhandled: BTreeMap<String, (u64, u64)>,
    /// Jobs whose place in the retry set was lost.
    pub(super) lost_retries: Vec<Retry>,
}

/// A job that waits for its back-off.
#[derive(Clone, Debug)]
pub(super) struct Retry {
    pub(super) name: String,
    pub(super) fields: Fields,
}

/// What a group did in the steps of one range, by their place in the ring, and when the ring expires.
#[derive(Clone, Debug, Default)]
pub(super) struct Ring {
    pub(super) places: BTreeMap<u64, TrendStep>,
    pub(super) expires: u64,
}

/// The result of a job, and when it expires.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) json: Bytes,
    pub(super) expires: u64,
}

/// The event that has the lock of a digest, its entry, and when the lock expires.
#[derive(Clone, Debug)]
pub(super) struct Lock {
    pub(super) event_id: EventId,
    pub(super) entry_id: EntryId,
    pub(super) expires: u64,
}

/// A mark, and when it expires.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) work: MarkedWork,
    pub(super) expires: u64,
}

/// The work that is marked.
#[derive(Clone, Debug)]
pub(super) enum MarkedWork {
    Running { owner: String, origin: EntryId, until: u64 },
    Done,
}

impl MemoryState {
    pub(super) fn new() -> Self {
        Self {
            streams: HashMap::new(),
            retries: HashMap::new(),
            records: HashMap::new(),
            tokens: HashMap::new(),
            marks: HashMap::new(),
            later: HashMap::new(),
            cancels: HashMap::new(),
            timetables: HashMap::new(),
            locks: HashMap::new(),
            progress: HashMap::new(),
            notes_expire: HashMap::new(),
            trends: HashMap::new(),
            results: HashMap::new(),
            ledger: Ledger::default(),
            limits: HashMap::new(),
            turns: HashMap::new(),
            rates: HashMap::new(),
            partitions: HashMap::new(),
            woken: HashSet::new(),
            readers: 0,
            scheduled: 0,
            began: Instant::now(),
            skew: 0,
        }
    }

    /// The server's clock in milliseconds.
    pub(super) fn now(&self) -> u64 {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        EPOCH.saturating_add(elapsed).saturating_add_signed(self.skew)
    }

    /// The server's clock in microseconds.
    pub(super) fn now_micros(&self) -> u64 {
        let elapsed = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let skew = self.skew.saturating_mul(1_000);
        (EPOCH * 1_000).saturating_add(elapsed).saturating_add_signed(skew)
    }

    pub(super) fn step_clock(&mut self, milliseconds: i64) {
        self.skew = self.skew.saturating_add(milliseconds);
    }

    pub(super) fn clear(&mut self) {
        self.streams.clear();
        self.retries.clear();
        self.records.clear();
        self.tokens.clear();
        self.marks.clear();
        self.later.clear();
        self.cancels.clear();
        self.timetables.clear();
        self.locks.clear();
        self.progress.clear();
        self.notes_expire.clear();
        self.trends.clear();
        self.limits.clear();
        self.turns.clear();
        self.rates.clear();
    }

    pub(super) fn stream(&mut self, key: &str) -> &mut Stream {
        self.streams.entry(key.to_owned()).or_default()
    }

    /// The events of a stream that wait for their time.
    pub(super) fn later(&mut self, stream: &StreamName) -> &mut Later {
        self.later.entry(stream.later_key()).or_default()
    }

    /// The schedules of a stream.
    pub(super) fn timetable(&mut self, stream: &StreamName) -> &mut Timetable {
        self.timetables.entry(stream.schedules_key()).or_default()
    }

    pub(super) fn lane(&mut self, queue: &Queue) -> &mut Stream {
        self.stream(&queue.key(Inlet::LANE))
    }

    /// For how long the entries of each owner must be idle before others may claim them, in
    /// milliseconds. Released entries may be claimed at once; if they are released for a live process
    /// other than `me`, only when they have been idle for its lease.
    pub(super) fn leases(
        &mut self,
        queue: &Queue,
        default: u64,
        me: Option<&ConsumerName>,
    ) -> impl Fn(&str) -> u64 + use<> {
        let now = self.now();
        let record = self.record(queue);
        let leases = record.about.iter().filter_map(|(owner, about)| {
            let lease = Heartbeat::read(about)?.lease(Duration::from_millis(default));
            Some((owner.clone(), (milliseconds(lease), record.is_alive(owner, now))))
        });
        let leases = leases.collect::<HashMap<_, _>>();
        let me = me.cloned();
        move |owner| {
            let heir = released_for(owner);
            let (lease, alive) =
                leases.get(heir.unwrap_or(owner)).copied().unwrap_or((default, false));
            match (heir, &me) {
                (Some(_), None) => 0,
                (Some(heir), Some(me)) if heir == me.as_str() || !alive => 0,
                _ => lease,
            }
        }
    }

    pub(super) fn record(&mut self, queue: &Queue) -> &mut Record {
        self.records.entry(queue.group_key()).or_default()
    }

    pub(super) fn retries(&mut self, queue: &Queue) -> &mut BTreeMap<(u64, u64), Retry> {
        self.retries.entry(queue.retry_key()).or_default()
    }

    pub(super) fn has_retry(&mut self, queue: &Queue, name: &str) -> bool {
        self.retries(queue).values().any(|retry| retry.name == name)
            || self.record(queue).lost_retries.iter().any(|retry| retry.name == name)
    }

    /// Whether the retry of this name keeps this place in the group's limit.
    pub(super) fn retry_keeps(&mut self, queue: &Queue, name: &str, place: &str) -> bool {
        let of_name = self.retries(queue).values().filter(|retry| retry.name == name);
        of_name
            .flat_map(|retry| &retry.fields)
            .any(|(field, value)| field == "sj-held" && value.as_ref() == place.as_bytes())
    }

    /// Schedules a retry, named after the job's entry.
    pub(super) fn schedule_retry(&mut self, queue: &Queue, due: u64, name: &str, fields: Fields) {
        self.scheduled += 1;
        let number = self.scheduled;
        let name = name.to_owned();
        self.retries(queue).insert((due, number), Retry { name, fields });
    }

    /// The group of an inlet.
    pub(super) fn group(&mut self, queue: &Queue, inlet: Inlet) -> Result<&mut Group> {
        let stream = self.streams.get_mut(&queue.key(inlet));
        let group = stream.and_then(|stream| stream.groups.get_mut(queue.group.as_str()));
        group.ok_or(StoreError::GroupMissing)
    }

    /// The groups of those inlets that have one.
    pub(super) fn groups<'s>(&'s self, queue: &Queue) -> impl Iterator<Item = &'s Group> + use<'s> {
        let streams = queue.keys().map(|key| self.streams.get(&key));
        let group = queue.group.clone();
        streams.into_iter().flatten().filter_map(move |on| on.groups.get(group.as_str()))
    }

    pub(super) fn dead(&mut self, queue: &Queue) -> &mut Stream {
        self.stream(&queue.dead_key())
    }

    /// Creates the group of an inlet unless it exists: true if it was created.
    pub(super) fn ensure_group(&mut self, queue: &Queue, inlet: Inlet, from: EntryId) -> bool {
        self.ledger.queues.entry(queue.group_key()).or_insert_with(|| queue.clone());
        let stream = self.stream(&queue.key(inlet));
        let created = !stream.groups.contains_key(queue.group.as_str());
        if created {
            let read = match stream.entries.keys().next() {
                _ if from >= stream.last => Some(stream.added),
                Some(first) if from >= *first => None,
                _ => Some(stream.removed()),
            };
            let group = Group { delivered: from, read, ..Group::default() };
            stream.groups.insert(queue.group.as_str().to_owned(), group);
        }
        created
    }

    /// Whether the attempt still owns the entry.
    pub(super) fn check(
        &mut self,
        queue: &Queue,
        consumer: &str,
        hold: Hold,
    ) -> Result<FenceResult> {
        let stored = self.streams.get(&queue.key(hold.inlet));
        let is_stored = stored.is_some_and(|stream| stream.entries.contains_key(&hold.id));
        let group = self.group(queue, hold.inlet)?;
        Ok(match group.pending.get(&hold.id) {
            None if group.delivered < hold.id && is_stored => FenceResult::Undelivered,
            None => FenceResult::NotPending,
            Some(row) if row.consumer == consumer && row.delivery_count == hold.delivery_count => {
                FenceResult::Owned
            }
            Some(_) => FenceResult::TakenOver,
        })
    }

    /// The payload of a pending entry, or the dead letter that records that it was trimmed.
    pub(super) fn payload(
        &mut self,
        queue: &Queue,
        inlet: Inlet,
        id: EntryId,
    ) -> Result<Result<Fields, EntryId>> {
        let stored = self.streams.get(&queue.key(inlet)).and_then(|stream| stream.entries.get(&id));
        if let Some(fields) = stored.cloned() {
            return Ok(Ok(fields));
        }
        let row = self.group(queue, inlet)?.pending.remove(&id);
        let row = row.ok_or(StoreError::Protocol { command: "payload" })?;
        let now = self.now();
        Ok(Err(self.dead(queue).append(now, trimmed(inlet, id, &row))))
    }

    /// Acknowledges an entry, and removes it from the lane. Returns true if it was pending.
    pub(super) fn acknowledge(&mut self, queue: &Queue, inlet: Inlet, id: EntryId) -> bool {
        let known = match self.group(queue, inlet) {
            Ok(group) => group.pending.remove(&id).is_some(),
            Err(_) => false,
        };
        if inlet.is_lane() {
            self.lane(queue).entries.remove(&id);
        }
        known
    }

    /// Acknowledges entries. Returns how many were pending.
    pub(super) fn acknowledge_all(&mut self, queue: &Queue, acks: &[(Inlet, EntryId)]) -> usize {
        acks.iter().filter(|(inlet, id)| self.acknowledge_done(queue, *inlet, *id)).count()
    }

    /// Changes those pending rows that the consumer owns. Returns an answer for each.
    pub(super) fn change_owned(
        &mut self,
        queue: &Queue,
        consumer: &ConsumerName,
        holds: &[Hold],
        change: impl Fn(&mut Pending),
    ) -> Result<Vec<FenceResult>> {
        let mut answers = Vec::with_capacity(holds.len());
        for hold in holds {
            let mut checked = self.check(queue, consumer.as_str(), *hold)?;
            if checked == FenceResult::Owned {
                match self.payload(queue, hold.inlet, hold.id)? {
                    Ok(fields) => drop(self.redeliver(queue, *hold, fields, &change)?),
                    Err(letter) => checked = FenceResult::Trimmed(letter),
                }
            }
            answers.push(checked);
        }
        Ok(answers)
    }

    /// Stores a job's next form and acknowledges its entry, if the attempt owns the entry or has a stand-in for it.
    /// Tells `store` what the check of the owner found.
    pub(super) fn settle(
        &mut self,
        queue: &Queue,
        consumer: &str,
        hold: Hold,
        stand_in: Option<StandIn>,
        store: impl FnOnce(&mut Self, FenceResult),
    ) -> Result<FenceResult> {
        let checked = self.check(queue, consumer, hold)?;
        let letter = match (checked, stand_in) {
            (FenceResult::Owned, _) | (FenceResult::NotPending, Some(StandIn::Removed)) => None,
            (
                FenceResult::NotPending | FenceResult::Undelivered,
                Some(StandIn::DeadLetter(letter)),
            ) if self.dead(queue).entries.contains_key(&letter) => Some(letter),
            _ => return Ok(checked),
        };
        store(self, checked);
        if let Some(letter) = letter {
            self.dead(queue).entries.remove(&letter);
        }
        self.acknowledge(queue, hold.inlet, hold.id);
        Ok(FenceResult::Owned)
    }

    /// Changes a pending row and delivers its entry again.
    pub(super) fn redeliver(
        &mut self,
        queue: &Queue,
        hold: Hold,
        fields: Fields,
        change: impl FnOnce(&mut Pending),
    ) -> Result<Delivery> {
        let group = self.group(queue, hold.inlet)?;
        let row =
            group.pending.get_mut(&hold.id).ok_or(StoreError::Protocol { command: "claim" })?;
        change(row);
        let (delivery_count, consumer) = (row.delivery_count, row.consumer.clone());
        group.consumers.insert(consumer);
        Ok(Delivery { inlet: hold.inlet, entry: Entry::new(hold.id, fields), delivery_count })
    }
}

/// The dead letter about a trimmed payload.
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

/// An arbitrary time in 2023, so that ids look like a server's.
const EPOCH: u64 = 1_700_000_000_000;
pub(super) const DAY: u64 = 24 * 60 * 60 * 1_000;
