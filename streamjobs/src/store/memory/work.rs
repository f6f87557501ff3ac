//! How jobs in memory end: their ends are counted, and a test may have each job delivered once more after
//! a success.

use super::state::MemoryState;
use crate::model::entry::{Entry, EntryId, Fields, Hold, Inlet};
use crate::model::name::ConsumerName;
use crate::store::{NewRetry, Queue};

impl MemoryState {
    /// Ends a job that is done: acknowledges its entry, or delivers it again. Returns true if it was
    /// pending.
    pub(super) fn acknowledge_done(&mut self, queue: &Queue, inlet: Inlet, id: EntryId) -> bool {
        if self.deliver_again(queue, inlet, id) {
            return true;
        }
        let was_pending = self.acknowledge(queue, inlet, id);
        self.ledger.ended.done += u64::from(was_pending);
        was_pending
    }

    /// Acknowledges entries that a process may have in flight: how many were pending. It is a move if
    /// another consumer had one.
    pub(super) fn acknowledge_late(
        &mut self,
        queue: &Queue,
        consumer: Option<&ConsumerName>,
        acks: &[(Inlet, EntryId)],
    ) -> usize {
        let is_others = |state: &mut Self, inlet, id: &EntryId| {
            let row = state.group(queue, inlet).ok().and_then(|group| group.pending.get(id));
            row.is_some_and(|row| consumer.is_none_or(|me| row.consumer != me.as_str()))
        };
        let (mut acknowledged, mut others) = (0, false);
        for (inlet, id) in acks {
            others |= is_others(self, *inlet, id);
            acknowledged += usize::from(self.acknowledge_done(queue, *inlet, *id));
        }
        self.record(queue).moves += u64::from(others);
        acknowledged
    }

    /// Delivers a job again as if its process had died before it could acknowledge, if jobs are repeated
    /// and this one was not.
    fn deliver_again(&mut self, queue: &Queue, inlet: Inlet, id: EntryId) -> bool {
        // One that waits for its retry, or has ended, is not pending. Its time comes when it is done.
        let is_pending = |state: &mut Self| {
            state.group(queue, inlet).is_ok_and(|group| group.pending.contains_key(&id))
        };
        if self.ledger.repeated.is_none() || !is_pending(self) {
            return false;
        }
        let stored = self.streams.get(&queue.key(inlet)).and_then(|stream| stream.entries.get(&id));
        let Some(entry) = stored.map(|fields| Entry::new(id, fields.clone())) else { return false };
        let origin = entry.text("sj-origin").and_then(|origin| origin.parse().ok()).unwrap_or(id);
        let Some(repeated) = &mut self.ledger.repeated else { return false };
        if !repeated.insert((queue.group_key(), origin)) {
            return false;
        }
        let (now, default) = (self.now(), 10_000);
        let lease_of = self.leases(queue, default, None);
        let Ok(group) = self.group(queue, inlet) else { return false };
        let Some(row) = group.pending.get_mut(&id) else { return false };
        let lease = lease_of(&row.consumer);
        GONE.clone_into(&mut row.consumer);
        row.since = (now + REPEATED_AFTER).saturating_sub(lease);
        self.ledger.ended.repeated += 1;
        true
    }

    /// Whether a job that was done waits to be delivered again.
    pub(super) fn is_repeated(&mut self, queue: &Queue, inlet: Inlet, id: EntryId) -> bool {
        let group = self.group(queue, inlet).ok();
        let row = group.and_then(|group| group.pending.get(&id));
        row.is_some_and(|row| row.consumer == GONE)
    }

    /// Counts an attempt after which the job waits for its retry.
    pub(super) fn count_retry(&mut self, queue: &Queue, retry: &NewRetry) {
        let failures = number(&retry.job, "sj-attempt").unwrap_or(0);
        match failures > self.failures(queue, retry.hold) {
            true => self.ledger.ended.failed += 1,
            false => self.ledger.ended.snoozed += 1,
        }
    }

    /// Counts an attempt after which the job becomes a dead letter, if it failed.
    pub(super) fn count_letter(&mut self, queue: &Queue, hold: Hold, letter: &Fields) {
        let failures = number(letter, "sj-dead-attempts").unwrap_or(0);
        self.ledger.ended.failed += u64::from(failures > self.failures(queue, hold));
    }

    /// The failures that were recorded before this attempt.
    fn failures(&self, queue: &Queue, hold: Hold) -> u64 {
        let stored = self.streams.get(&queue.key(hold.inlet));
        let stored = stored.and_then(|stream| stream.entries.get(&hold.id));
        stored.and_then(|fields| number(fields, "sj-attempt")).unwrap_or(0)
    }
}

pub(super) fn text(fields: &Fields, name: &str) -> String {
    Entry::new(EntryId::ZERO, fields.clone()).text(name).unwrap_or_default().to_owned()
}

fn number(fields: &Fields, name: &str) -> Option<u64> {
    text(fields, name).parse().ok()
}

/// The consumer to which a job is delivered again. It is not alive.
const GONE: &str = "streamjobs-testing-gone";
/// The time in milliseconds after which a repeated job may be claimed. By then its process has the answer
/// to the acknowledgement, which may come with a read that waits.
const REPEATED_AFTER: u64 = 6_000;
