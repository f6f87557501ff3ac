//! Holds in memory.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::MemoryStore;
use super::limit::{Limit, limit_of};
use super::state::MemoryState;
use super::stream::count;
use crate::model::entry::{Delivery, Entry, EntryId, Fields, Hold};
use crate::model::heartbeat::Heartbeat;
use crate::model::limit::{HoldRule, HoldScope, SetLimit};
use crate::model::name::ConsumerName;
use crate::store::types::{Result, released_for};
use crate::store::{
    FenceResult, Finished, HeldPlace, HoldSweep, Holds, Inlet, Left, LineFacts, Queue, ServerTime,
    StoreError, SweepCursors, SweptHolds, Taken, place_of,
};

impl MemoryState {
    pub(super) fn limit(&mut self, queue: &Queue) -> &mut Limit {
        self.limits.entry(queue.group_key()).or_default()
    }

    /// The rule with the number that an operator has set.
    fn in_force(&mut self, queue: &Queue, rule: HoldRule) -> HoldRule {
        rule.with(self.record(queue).limit.as_ref())
    }

    /// How many jobs wait for a place.
    pub(super) fn parked(&mut self, queue: &Queue) -> u64 {
        count(self.limit(queue).parked())
    }

    /// The key for which most jobs wait, and how many do.
    pub(super) fn longest_line(&mut self, queue: &Queue) -> Option<(String, u64)> {
        let lines = self.limit(queue).lines.iter().map(|(key, line)| (line.len(), key));
        lines.max().map(|(jobs, key)| (key.clone(), count(jobs)))
    }

    /// Whether the limit admits an entry. If not, its job is in a line now.
    fn admit(&mut self, queue: &Queue, rule: HoldRule, inlet: Inlet, entry: &Entry) -> bool {
        let (place, limit) = ((inlet, entry.id()), self.limit(queue));
        if limit.holds.contains_key(&place) {
            return true;
        }
        let before = entry.text("sj-held").and_then(place_of).filter(|_| inlet.is_lane());
        if let Some(kept) = before.and_then(|before| limit.holds.remove(&before)) {
            limit.holds.insert(place, kept);
            return true;
        }
        let Some(key) = counted_key(rule, entry) else { return true };
        if limit.admits(rule, &key) {
            limit.holds.insert(place, key);
            return true;
        }
        limit.lines.entry(key).or_default().push_back(parked_job(entry, inlet));
        self.acknowledge(queue, inlet, entry.id());
        false
    }

    /// How many entries a take may read.
    fn room(&mut self, queue: &Queue, rule: HoldRule, inlet: Inlet, count: usize) -> usize {
        let limit = self.limit(queue);
        match rule.scope {
            _ if inlet.is_lane() => count,
            HoldScope::Group if limit.lines.contains_key(ALL) => 0,
            HoldScope::Group => count.min(limit_of(rule).saturating_sub(limit.busy(ALL))),
            HoldScope::Key | HoldScope::Share if limit.parked() >= PARKED_MAX => 0,
            HoldScope::Key | HoldScope::Share => count,
        }
    }

    /// Moves jobs of a key from its line to the lane, as long as the key is below the limit.
    fn feed(&mut self, queue: &Queue, key: &str, rule: Option<HoldRule>) -> usize {
        let mut fed = 0;
        loop {
            let limit = self.limit(queue);
            if rule.is_some_and(|rule| limit.busy(key) >= limit_of(rule)) {
                break;
            }
            let Some(job) = limit.next(key) else { break };
            let now = self.now();
            let id = self.lane(queue).append(now, job);
            if rule.is_some() {
                self.limit(queue).holds.insert((Inlet::LANE, id), key.to_owned());
            }
            fed += 1;
        }
        fed
    }

    /// What is known of the job of a hold.
    fn held_place(&mut self, queue: &Queue, (inlet, entry): (Inlet, EntryId)) -> HeldPlace {
        let name = format!("{}:{entry}", if inlet.is_lane() { 'l' } else { 's' });
        let names = [format!("{name}+"), name];
        let now = self.now();
        let group = self.group(queue, inlet).ok();
        let row = group.and_then(|group| group.pending.get(&entry));
        let (consumer, idle) = (row.map(|row| row.consumer.clone()), row.map(|row| row.idle(now)));
        let is_released = |name: &String| released_for(name).is_some();
        let consumer = consumer.map(|name| if is_released(&name) { String::new() } else { name });
        let mut retries = self.retries(queue).iter();
        let retry = retries.find(|(_, retry)| names.contains(&retry.name));
        let retry = retry.filter(|_| consumer.is_none());
        let retry = retry.map(|((due, _), retry)| (*due, retry.fields.clone()));
        let stored = self.streams.get(&queue.key(inlet)).and_then(|on| on.entries.get(&entry));
        let fields = retry.as_ref().map(|(_, fields)| fields).or(stored);
        HeldPlace {
            inlet,
            entry,
            event_id: fields.and_then(|fields| {
                Entry::new(entry, fields.clone()).text("sj-id").map(str::to_owned)
            }),
            consumer,
            idle: idle.map(Duration::from_millis),
            due: retry.map(|(due, _)| due),
        }
    }

    /// Notes which attempts run on although their entry, which has a place, is not pending any more.
    pub(super) fn note_runs(
        &mut self,
        queue: &Queue,
        me: &str,
        renewed: &[Hold],
        answers: &[FenceResult],
    ) {
        let now = self.now();
        for (hold, answer) in renewed.iter().zip(answers) {
            let place = (hold.inlet, hold.id);
            let noted = self.record(queue).runs.get(&place).is_some_and(|(_, by)| by == me);
            let runs = match answer {
                FenceResult::Trimmed(_) => self.limit(queue).holds.contains_key(&place),
                FenceResult::NotPending | FenceResult::Undelivered => noted,
                FenceResult::Owned | FenceResult::TakenOver => false,
            };
            if runs {
                self.record(queue).runs.insert(place, (now, me.to_owned()));
            }
        }
    }

    /// Forgets attempts that do not run on: their note is as old as the lease of their consumer.
    fn forget_runs(&mut self, queue: &Queue) {
        let (now, record) = (self.now(), self.record(queue));
        let mut runs = std::mem::take(&mut record.runs);
        runs.retain(|_, (noted, consumer)| {
            let about = record.about.get(consumer).and_then(|about| Heartbeat::read(about));
            let lease = about.map_or(0, |about| about.lease_millis);
            now < noted.saturating_add(lease) && record.is_alive(consumer, now)
        });
        record.runs = runs;
    }

    /// Whether the job of a hold still exists in a place where it keeps the hold.
    fn has_job(&mut self, queue: &Queue, (inlet, id): (Inlet, EntryId), blocks: bool) -> bool {
        let name = format!("{}:{id}", if inlet.is_lane() { 'l' } else { 's' });
        let entry = self.streams.get(&queue.key(inlet)).map(|on| on.entries.contains_key(&id));
        let is_stored = entry.unwrap_or(false);
        let group = self.group(queue, inlet).ok();
        let is_pending = group.as_ref().is_some_and(|group| group.pending.contains_key(&id));
        let is_new = group.is_none_or(|group| group.delivered < id);
        let in_lane = self.lane(queue).entries.values();
        let is_unread = in_lane
            .flatten()
            .any(|(field, value)| field == "sj-held" && value.as_ref() == name.as_bytes());
        let waits = [name.clone(), format!("{name}+")].iter().any(|retry| match blocks {
            true => self.has_retry(queue, retry),
            // A job that a stop cut off says that it keeps its place.
            false => self.retry_keeps(queue, retry, &name),
        });
        let runs_on = self.record(queue).runs.contains_key(&(inlet, id));
        is_pending || runs_on || inlet.is_lane() && is_stored && is_new || is_unread || waits
    }
}

impl MemoryStore {
    /// Decides about one entry as a take does: for tests of what happens if reading and deciding are two
    /// steps.
    #[must_use]
    pub fn decide(&self, queue: &Queue, rule: HoldRule, inlet: Inlet, entry: &Entry) -> bool {
        self.lock().admit(queue, rule, inlet, entry)
    }
}

#[async_trait]
impl Holds for MemoryStore {
    async fn take(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        inlet: Inlet,
        count: usize,
        rule: HoldRule,
    ) -> Result<Taken> {
        self.step("take", |state| {
            if rule.scope == HoldScope::Share {
                return state.take_share(queue, consumer, count, rule);
            }
            let rule = state.in_force(queue, rule);
            state.group(queue, inlet)?;
            let want = state.room(queue, rule, inlet, count);
            let (mut deliveries, mut parked) = (Vec::new(), 0);
            let mut left = if want == 0 { Left::Full } else { Left::More };
            while deliveries.len() < want && parked + deliveries.len() < LOOKED_MAX {
                let (now, key) = (state.now(), queue.key(inlet));
                let stream = state.streams.get_mut(&key);
                let (group, consumer) = (queue.group.as_str(), consumer.as_str());
                let read = stream.and_then(|stream| stream.deliver(group, consumer, 1, now));
                let Some((id, fields)) = read.ok_or(StoreError::GroupMissing)?.pop() else {
                    left = Left::Drained;
                    break;
                };
                let entry = Entry::new(id, fields);
                match state.admit(queue, rule, inlet, &entry) {
                    true => deliveries.push(Delivery { inlet, entry, delivery_count: 1 }),
                    false => parked += 1,
                }
            }
            if left == Left::More && want < count && deliveries.len() == want {
                left = Left::Full;
            }
            Ok(Taken { left, parked, deliveries })
        })
        .await
    }

    async fn finish(
        &self,
        queue: &Queue,
        rule: HoldRule,
        places: &[(Inlet, EntryId)],
    ) -> Result<Finished> {
        self.step("finish", |state| {
            let rule = state.in_force(queue, rule);
            let to_end = places.iter().filter(|(inlet, id)| !state.is_repeated(queue, *inlet, *id));
            let to_end = to_end.copied().collect::<Vec<_>>();
            let acknowledged = state.acknowledge_all(queue, &to_end);
            let mut ended = Vec::new();
            for (inlet, id) in places {
                // A test can have had the job delivered once more.
                let group = state.group(queue, *inlet).ok();
                if group.is_none_or(|group| !group.pending.contains_key(id)) {
                    ended.extend(state.limit(queue).holds.remove(&(*inlet, *id)));
                }
            }
            let fed = match rule.scope {
                HoldScope::Key | HoldScope::Group => {
                    ended.iter().map(|key| state.feed(queue, key, Some(rule))).sum()
                }
                // The next take decides which jobs move on.
                HoldScope::Share => 0,
            };
            Ok(Finished { acknowledged, fed })
        })
        .await
    }

    async fn sweep_holds(&self, queue: &Queue, sweep: HoldSweep) -> Result<SweptHolds> {
        self.step("sweep_holds", |state| {
            let now = state.now();
            state.forget_runs(queue);
            let said = sweep.rule.map_or_else(String::new, HoldRule::text);
            let record = state.record(queue);
            let living = record.about.iter().filter(|(consumer, _)| record.is_alive(consumer, now));
            let others = living.map(|(_, about)| limits_of(about)).find(|other| *other != said);
            let mut swept = SweptHolds { cursors: SweepCursors::END, ..SweptHolds::default() };
            if sweep.rule.is_some() {
                let places = state.limit(queue).holds.keys().copied().collect::<Vec<_>>();
                for place in places {
                    if !state.has_job(queue, place, sweep.rule.is_some_and(|rule| rule.blocks)) {
                        state.limit(queue).holds.remove(&place);
                        swept.ended += 1;
                    }
                }
            }
            let shares = sweep.rule.is_some_and(|rule| rule.scope == HoldScope::Share);
            if !shares && (sweep.rule.is_some() || others.is_none()) {
                let keys = state.limit(queue).lines.keys().cloned().collect::<Vec<_>>();
                let rule = sweep.rule.map(|rule| state.in_force(queue, rule));
                swept.fed = keys.iter().map(|key| state.feed(queue, key, rule)).sum();
            }
            if sweep.rule.is_none() && others.is_none() {
                state.limit(queue).holds.clear();
            }
            swept.parked = state.parked(queue);
            swept.others =
                others.map(|said| if said.is_empty() { "none".to_owned() } else { said });
            Ok(swept)
        })
        .await
    }

    async fn set_limit(&self, queue: &Queue, set: Option<&SetLimit>) -> Result<bool> {
        self.step("set_limit", |state| {
            let at = state.now();
            let set = set.map(|set| SetLimit { at, ..set.clone() });
            let number = |set: &Option<SetLimit>| set.as_ref().map(SetLimit::number);
            let record = state.record(queue);
            let is_changed = number(&record.limit) != number(&set);
            record.limit = set;
            Ok(is_changed)
        })
        .await
    }

    async fn line_holder(&self, queue: &Queue, places: usize) -> Result<Option<LineFacts>> {
        self.step("line_holder", |state| {
            state.group(queue, Inlet::STREAM)?;
            let Some((key, jobs)) = state.longest_line(queue) else { return Ok(None) };
            let holds = &state.limit(queue).holds;
            let (all, looked) = (holds.len(), holds.len().min(places));
            let held = holds.iter().take(places).filter(|(_, held)| **held == key);
            let oldest = held.map(|(place, _)| *place).min_by_key(|(_, id)| id.milliseconds());
            Ok(Some(LineFacts {
                now: ServerTime(state.now()),
                key,
                jobs,
                place: oldest.map(|place| state.held_place(queue, place)),
                looked: count(looked),
                complete: looked == all,
            }))
        })
        .await
    }
}

/// The key that a limit counts for an entry; `None` for one without a key, which no limit counts.
pub(super) fn counted_key(rule: HoldRule, entry: &Entry) -> Option<String> {
    match rule.scope {
        HoldScope::Group => Some(ALL.to_owned()),
        HoldScope::Key | HoldScope::Share => {
            let key = entry.field("sj-key").filter(|key| !key.is_empty())?;
            Some(String::from_utf8_lossy(key).into_owned())
        }
    }
}

/// A job as it waits in a line. It keeps the id of the entry that was published, and since when it waits.
pub(super) fn parked_job(entry: &Entry, inlet: Inlet) -> Fields {
    let mut job = entry.fields().to_vec();
    let since = line_since(entry, inlet.is_lane());
    job.retain(|(name, _)| name != "sj-held" && (since.is_none() || name != SINCE));
    if entry.text("sj-origin").is_none() {
        job.push((Bytes::from_static(b"sj-origin"), entry.id().to_string().into()));
    }
    if let Some(since) = since {
        job.push((Bytes::from_static(SINCE.as_bytes()), since.to_string().into()));
    }
    job
}

/// Since when a job that goes into a line waits. `None` for a job that began before, and for a job without an event id:
/// its id is derived from all fields, so that no field may be added. Such a job came from the stream, so its origin
/// says since when it waits.
fn line_since(entry: &Entry, is_in_lane: bool) -> Option<u64> {
    entry.text("sj-id").filter(|id| !id.is_empty())?;
    match entry.text(SINCE).filter(|_| is_in_lane) {
        Some(since) => since.parse().ok(),
        None if is_in_lane && entry.text("sj-error").is_some() => None,
        None => Some(entry.id().milliseconds()),
    }
}

/// What a heartbeat says of limits.
fn limits_of(about: &str) -> String {
    Heartbeat::read(about).and_then(|about| about.limits).unwrap_or_default()
}

const SINCE: &str = "sj-since";
/// What a limit counts together where it counts all jobs of the group.
const ALL: &str = "*";
const LOOKED_MAX: usize = 200;
const PARKED_MAX: usize = 10_000;
