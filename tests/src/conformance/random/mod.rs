//! Random lists of operations, and the answers of one store, so that two stores can be compared.
//!
//! Both stores get the same list, made from a seed. Ids that a server makes are replaced by the
//! order in which they were first seen, and times are left out: if an entry has to be old, the test's
//! [`RawAccess`](super::RawAccess) ages it. How much was trimmed before its delivery is left out too: if entries
//! before the cursor were deleted, a server only guesses what a group has read.

mod archive;
mod jobs;
mod upkeep;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use fastrand::Rng;
use streamjobs::__store::{Delivery, FenceResult, Hold, Inlet, StoreError, StoredDeadLetter};
use streamjobs::{ConsumerName, EntryId};

use super::Stage;

/// The inlet that gave out an id; `None` for dead letters. Two streams may give out the same id.
type Space = Option<Inlet>;

/// Carries a random list of operations out, step by step.
#[derive(Debug)]
pub struct Replay {
    stage: Stage,
    rng: Rng,
    /// Ids in the order in which they were first seen, and the reverse.
    ids: Vec<EntryId>,
    order: BTreeMap<(Space, EntryId), usize>,
    /// Entries that may be in flight: an inlet, the order of an id, a delivery count.
    holds: Vec<(Inlet, usize, u64)>,
    letters: Vec<usize>,
    published: u64,
}

impl Replay {
    /// A list of operations that the seed decides, on a stage of its own.
    #[must_use]
    pub fn new(stage: Stage, seed: u64) -> Self {
        Self {
            stage,
            rng: Rng::with_seed(seed),
            ids: Vec::new(),
            order: BTreeMap::new(),
            holds: Vec::new(),
            letters: Vec::new(),
            published: 0,
        }
    }

    /// Carries out the next operation. Returns what it was, and what its result was.
    pub async fn step(&mut self) -> String {
        match self.rng.u32(0..100) {
            0..=16 => self.append().await,
            17..=33 => self.read().await,
            34..=40 => self.acknowledge().await,
            41..=45 => self.renew().await,
            46..=50 => self.release().await,
            51..=56 => self.schedule_retries().await,
            57..=60 => self.store_dead_letter().await,
            61..=67 => self.claim_idle().await,
            68..=70 => self.recover().await,
            71..=74 => self.promote().await,
            75..=76 => self.letters().await,
            77 => self.take_letters().await,
            78 => self.still_taken().await,
            79 => self.settle_letters().await,
            80..=82 => self.redrive().await,
            83 => self.redrive_archived().await,
            84..=86 => self.mark().await,
            87 => self.pause().await,
            88..=89 => self.heartbeat().await,
            90 => self.retire().await,
            91 => self.trim().await,
            92 => self.delete(),
            93 => self.lose_group().await,
            94..=95 => self.move_pending().await,
            _ => self.inspect().await,
        }
    }

    /// Everything that both stores have to agree on at the end.
    pub async fn state(&mut self) -> String {
        let mut state = String::new();
        for inlet in Inlet::ALL {
            let rows = self.stage.pending(inlet);
            for row in rows {
                let (id, consumer) = (self.seen(Some(inlet), row.id), row.consumer);
                let _ = writeln!(state, "{inlet:?} {id} {consumer} {}", row.delivery_count);
            }
            let key = self.stage.key(inlet);
            let _ = writeln!(state, "{inlet:?} {}", self.stage.raw.length(&key));
        }
        let letters = self.stage.store.dead_letters(&self.stage.queue, EntryId::ZERO, 10_000).await;
        let letters = letters.unwrap_or_default();
        for letter in &letters {
            let letter = self.letter(letter);
            let _ = writeln!(state, "{letter}");
        }
        for row in self.stage.raw.pending(&self.stage.dead_key(), archive::GROUP) {
            let (order, count) = (self.seen(None, row.id), row.delivery_count);
            let _ = writeln!(state, "taken {order} {} {count}", row.consumer);
        }
        state + &self.facts().await
    }

    fn seen(&mut self, space: Space, id: EntryId) -> usize {
        *self.order.entry((space, id)).or_insert_with(|| {
            self.ids.push(id);
            self.ids.len() - 1
        })
    }

    /// How many of the ids that were seen in the stream are lower.
    fn seen_before(&self, id: EntryId) -> usize {
        let seen = self.order.keys().filter(|(space, _)| *space == Some(Inlet::STREAM));
        seen.filter(|(_, seen)| *seen < id).count()
    }

    fn id(&self, order: usize) -> EntryId {
        self.ids.get(order).copied().unwrap_or(JUNK)
    }

    fn consumer(&mut self) -> ConsumerName {
        if self.rng.bool() { self.stage.me.clone() } else { self.stage.other.clone() }
    }

    fn inlet(&mut self) -> Inlet {
        if self.rng.u32(0..4) == 0 { Inlet::LANE } else { Inlet::STREAM }
    }

    fn index(&mut self, length: usize) -> usize {
        self.rng.usize(0..length.max(1))
    }

    /// An entry that is delivered, was delivered, has another count, or was never delivered.
    fn hold(&mut self) -> Hold {
        let index = self.index(self.holds.len());
        // Usually a recent one: old entries are settled.
        let index = if self.rng.u32(0..4) > 0 {
            self.holds.len().saturating_sub(1 + index % 20)
        } else {
            index
        };
        let known = self.holds.get(index).copied();
        let (inlet, order, count) = known.unwrap_or((Inlet::STREAM, usize::MAX, 1));
        let (id, count) = match self.rng.u32(0..20) {
            0 => (JUNK, count),
            1 => (self.id(order), count + 1),
            _ => (self.id(order), count),
        };
        Hold { inlet, id, delivery_count: count }
    }

    /// One or more entries, all of one inlet, because the loops ask for them in this way.
    fn some_holds(&mut self) -> Vec<Hold> {
        let first = self.hold();
        let more = (0..self.rng.usize(0..3)).map(|_| self.hold()).collect::<Vec<_>>();
        let mut holds = vec![first];
        holds.extend(more.into_iter().filter(|hold| hold.inlet == first.inlet));
        // A call has each entry only once, like the calls of the loops.
        let mut seen = HashSet::new();
        holds.retain(|hold| seen.insert(hold.id));
        holds
    }

    fn answer<T>(
        &mut self,
        answer: Result<T, StoreError>,
        show: impl FnOnce(&mut Self, T) -> String,
    ) -> String {
        match answer {
            Ok(value) => show(self, value),
            Err(error) => error.kind().to_owned(),
        }
    }

    fn checked(&mut self, checked: FenceResult) -> String {
        match checked {
            FenceResult::Trimmed(letter) => format!("trimmed {}", self.seen(None, letter)),
            other => format!("{other:?}"),
        }
    }

    fn delivered(&mut self, deliveries: Vec<Delivery>) -> String {
        let mut text = String::new();
        for delivery in deliveries {
            let order = self.seen(Some(delivery.inlet), delivery.entry.id());
            self.holds.push((delivery.inlet, order, delivery.delivery_count));
            let (fields, count) = (delivery.entry.fields(), delivery.delivery_count);
            let _ = write!(text, "[{:?} {order} {count} {fields:?}]", delivery.inlet);
        }
        text
    }

    fn letter(&mut self, letter: &StoredDeadLetter) -> String {
        let order = self.seen(None, letter.id());
        let lane = letter.text("sj-dead-source") == Some("lane");
        let inlet = if lane { Inlet::LANE } else { Inlet::STREAM };
        let mut text = format!("letter {order}");
        for (name, value) in letter.fields() {
            let id = std::str::from_utf8(value).ok().and_then(|text| text.parse::<EntryId>().ok());
            let _ = match id.filter(|_| name == ENTRY_FIELD) {
                Some(id) => write!(text, " {name:?}={}", self.seen(Some(inlet), id)),
                None => write!(text, " {name:?}={value:?}"),
            };
        }
        text
    }
}

/// The field in which a dead letter about a loss names the entry.
const ENTRY_FIELD: &[u8] = b"sj-dead-entry";
/// An id that no store gives out.
const JUNK: EntryId = EntryId::new(1, 1);
