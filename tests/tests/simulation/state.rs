//! What the store held after the last step, and whether it still does.

use std::collections::BTreeMap;

use streamjobs::__store::memory::View;
use streamjobs::__store::{Inlet, Queue};
use streamjobs::{Entry, EntryId, Fields, GroupName, StreamName};

use crate::plan::{GROUPS, STREAM};

/// Where an entry stands.
pub type Key = (Inlet, EntryId);

/// A row of a pending list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub consumer: String,
    pub since: u64,
    pub count: u64,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The entry that was published; none where only the entry of the lane is known.
    pub origin: Option<EntryId>,
    pub entry: Option<Key>,
    pub reason: String,
    pub payload: Option<Vec<u8>>,
}

impl Letter {
    pub fn is_of_a_loss(&self) -> bool {
        self.reason == "trimmed"
    }
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// None while there is no group.
    pub cursor: Option<EntryId>,
    pub pending: BTreeMap<Key, Row>,
    /// The published entries behind those of the lane.
    pub lane: BTreeMap<EntryId, EntryId>,
    /// The published entries of jobs that wait for retry.
    pub waiting: Vec<EntryId>,
    /// The published entries of jobs in the lines of the group's limit.
    pub lined: Vec<EntryId>,
    /// The places of the limit, with the key that each counts for.
    pub holds: BTreeMap<Key, String>,
    pub letters: BTreeMap<EntryId, Letter>,
}

pub fn queue(group: usize) -> Queue {
    let group = GroupName::new(GROUPS[group]).unwrap();
    Queue { stream: StreamName::new(STREAM).unwrap(), group }
}

impl Group {
    pub fn of(queue: &Queue, view: View<'_>) -> Self {
        let group = queue.group.as_str();
        let mut pending = BTreeMap::new();
        for inlet in SOURCES {
            for row in view.pending(&queue.key(inlet), group) {
                let (consumer, since) = (row.consumer.to_owned(), row.since);
                let count = row.delivery_count;
                pending.insert((inlet, row.id), Row { consumer, since, count });
            }
        }
        let lane = view.entries(&queue.key(Inlet::LANE));
        let letters = view.entries(&queue.stream.dead_key(&queue.group));
        let mut waiting = view.retries(queue).map(origin).collect::<Vec<_>>();
        waiting.sort_unstable();
        let mut lined = view.lines(queue).map(origin).collect::<Vec<_>>();
        lined.sort_unstable();
        let holds = view.holds(queue).map(|(place, key)| (place, key.to_owned()));
        Self {
            cursor: view.cursor(queue.stream.as_str(), group),
            pending,
            lane: lane.map(|(id, fields)| (id, origin(fields))).collect(),
            waiting,
            lined,
            holds: holds.collect(),
            letters: letters.map(|(id, fields)| (id, letter(id, fields))).collect(),
        }
    }

    /// Whether nothing has changed. Entries and letters never change under their ids.
    pub fn is_still(&self, queue: &Queue, view: View<'_>) -> bool {
        let group = queue.group.as_str();
        let rows = SOURCES
            .into_iter()
            .flat_map(|inlet| view.pending(&queue.key(inlet), group).map(move |row| (inlet, row)));
        let same_rows = rows.eq_by_rows(&self.pending);
        let lane = view.entries(&queue.key(Inlet::LANE)).map(|(id, _)| id);
        let letters = view.entries(&queue.stream.dead_key(&queue.group)).map(|(id, _)| id);
        self.cursor == view.cursor(queue.stream.as_str(), group)
            && same_rows
            && lane.eq(self.lane.keys().copied())
            && view.retries(queue).count() == self.waiting.len()
            && view.lines(queue).count() == self.lined.len()
            && view.holds(queue).map(|(place, _)| place).eq(self.holds.keys().copied())
            && letters.eq(self.letters.keys().copied())
    }

    /// How often each published entry is still there for the group.
    pub fn places(&self, stream: &BTreeMap<EntryId, u64>) -> BTreeMap<EntryId, usize> {
        let cursor = self.cursor.unwrap_or(EntryId::MAX);
        let undelivered = stream.keys().copied().filter(|id| *id > cursor);
        let pending = self.pending.keys().filter(|(inlet, _)| *inlet == Inlet::STREAM);
        let letters = self.letters.values().filter_map(|letter| letter.origin);
        let all = undelivered
            .chain(pending.map(|(_, id)| *id))
            .chain(self.lane.values().copied())
            .chain(self.waiting.iter().copied())
            .chain(self.lined.iter().copied())
            .chain(letters);
        let mut places = BTreeMap::new();
        for id in all {
            *places.entry(id).or_default() += 1;
        }
        places
    }
}

/// Compares rows as they are seen with rows as they were noted, without copying them.
trait EqByRows {
    fn eq_by_rows(self, noted: &BTreeMap<Key, Row>) -> bool;
}

impl<'a, I> EqByRows for I
where
    I: Iterator<Item = (Inlet, streamjobs::__store::memory::PendingView<'a>)>,
{
    fn eq_by_rows(mut self, noted: &BTreeMap<Key, Row>) -> bool {
        let same = noted.iter().all(|((inlet, id), noted)| {
            self.next().is_some_and(|(of, row)| {
                of == *inlet
                    && row.id == *id
                    && row.since == noted.since
                    && row.delivery_count == noted.count
                    && row.consumer == noted.consumer
            })
        });
        same && self.next().is_none()
    }
}

/// The published entry that a stored job comes from.
fn origin(fields: &Fields) -> EntryId {
    let entry = Entry::new(EntryId::ZERO, fields.clone());
    entry.text("sj-origin").and_then(|text| text.parse().ok()).unwrap_or(EntryId::ZERO)
}

fn letter(id: EntryId, fields: &Fields) -> Letter {
    let letter = Entry::new(id, fields.clone());
    let id = |name: &str| letter.text(name).and_then(|text| text.parse::<EntryId>().ok());
    let inlet = match letter.text("sj-dead-source") {
        Some("lane") => Inlet::LANE,
        _ => Inlet::STREAM,
    };
    let entry = id("sj-dead-entry").map(|id| (inlet, id));
    let published = entry.filter(|(inlet, _)| *inlet == Inlet::STREAM).map(|(_, id)| id);
    Letter {
        origin: id("sj-dead-origin").or(published),
        entry,
        reason: letter.text("sj-dead-reason").unwrap_or_default().to_owned(),
        payload: letter.field("data").map(|data| data.to_vec()),
    }
}

const SOURCES: [Inlet; 2] = [Inlet::STREAM, Inlet::LANE];
