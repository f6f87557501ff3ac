//! Renewals of entries in flight, and what their answers mean.

use tokio::time::Instant;

use super::{InFlight, Inner, key};
use crate::model::entry::{EntryId, Hold};
use crate::runtime::state::lock;
use crate::store::{FenceResult, Renewed, StandIn};

/// What an answer to a renewal means for the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// Nothing changes.
    Kept,
    /// Another attempt has the entry.
    Lost,
    /// Another consumer took the entry although its lease had not ended.
    TakenEarly,
    /// Another client removed the entry from the pending list. The attempt continues.
    Removed,
    /// The payload was trimmed; this dead letter was stored for it.
    Trimmed(EntryId),
    /// The job is done, so this dead letter, which was stored for its trimmed payload, has to be
    /// deleted.
    Obsolete(EntryId),
}

impl InFlight {
    /// Records that a renewal is about to be sent.
    pub(crate) fn begin_renewing(&self, holds: &[Hold]) {
        let entries = &mut lock(&self.inner).entries;
        for hold in holds {
            if let Some(entry) = entries.get_mut(&key(*hold)) {
                entry.renewing = true;
            }
        }
    }

    /// Records that a renewal failed and will not be answered.
    pub(crate) fn renewal_failed(&self, holds: &[Hold]) {
        let mut inner = lock(&self.inner);
        for hold in holds {
            inner.acknowledged.remove(&key(*hold));
            if let Some(entry) = inner.entries.get_mut(&key(*hold)) {
                entry.renewing = false;
                entry.unanswered = true;
            }
        }
    }

    /// Records how often operators had moved entries when this process sent its first heartbeat.
    pub(crate) fn begin_with_moves(&self, moves: u64) {
        lock(&self.inner).moves.begin_with(moves);
    }

    /// Takes what the answers to a renewal, sent at `sent`, report about moved entries.
    pub(crate) fn observe(&self, renewed: &Renewed, sent: Instant) {
        lock(&self.inner).moves.observe(renewed, sent, Instant::now());
    }

    /// Whether an entry that is not pending, as a renewal has just confirmed, was removed before its job was settled.
    /// If so, the job may be settled all the same.
    pub(crate) fn removed_before_settling(&self, hold: Hold, epoch: u64) -> bool {
        let Inner { entries, moves, .. } = &mut *lock(&self.inner);
        let entry = entries.get_mut(&key(hold)).filter(|entry| entry.was_removed(epoch, moves));
        entry.map(|entry| entry.stand_for(StandIn::Removed)).is_some()
    }

    /// Applies the answer to a renewal that was sent at `sent`.
    pub(crate) fn renewed(
        &self,
        hold: Hold,
        answer: FenceResult,
        sent: Instant,
        epoch: u64,
    ) -> Renewal {
        let Inner { entries, acknowledged, moves, .. } = &mut *lock(&self.inner);
        let acknowledged = acknowledged.remove(&key(hold));
        let Some(entry) = entries.get_mut(&key(hold)) else {
            return match answer {
                FenceResult::Trimmed(dead_letter) if acknowledged => Renewal::Obsolete(dead_letter),
                _ => Renewal::Kept,
            };
        };
        entry.renewing = false;
        if entry.delivery_count != hold.delivery_count {
            // Delivered here again after the renewal was sent.
            return Renewal::Kept;
        }
        if entry.untracked && entry.was_trimmed() {
            // It keeps the place of the job, and changes nothing else.
            entry.renewed_at = entry.renewed_at.max(sent);
            return Renewal::Kept;
        }
        match answer {
            FenceResult::Owned => {
                entry.unanswered = false;
                entry.renewed_at = entry.renewed_at.max(sent);
                entry.lease.prove(entry.renewed_at);
                Renewal::Kept
            }
            FenceResult::Trimmed(dead_letter) => {
                entry.stand_for(StandIn::DeadLetter(dead_letter));
                Renewal::Trimmed(dead_letter)
            }
            // The attempt has ended, and its acknowledgement may have arrived first.
            _ if entry.settling => Renewal::Kept,
            // The group was lost while the handler ran, so no other attempt has the entry.
            FenceResult::NotPending | FenceResult::Undelivered if entry.epoch != epoch => {
                entry.set_untracked();
                Renewal::Kept
            }
            FenceResult::NotPending if entry.was_removed(epoch, moves) => {
                entry.stand_for(StandIn::Removed);
                Renewal::Removed
            }
            FenceResult::TakenOver if !entry.lease.is_over() => {
                entry.lease.lose();
                Renewal::TakenEarly
            }
            FenceResult::NotPending | FenceResult::Undelivered | FenceResult::TakenOver => {
                entry.lease.lose();
                Renewal::Lost
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::block::WeakInBlock;

    use super::super::Registered;
    use super::super::tests::{LEASE, hold, table};
    use super::*;
    use crate::handler::Lease;
    use crate::model::entry::Inlet;
    use crate::store::ServerTime;

    #[test]
    fn a_refused_renewal_loses_the_lease_and_a_stale_answer_does_not() {
        let (in_flight, lease, now) = table();
        assert_eq!(in_flight.renewed(hold(9), FenceResult::TakenOver, now, 0), Renewal::Kept);
        assert_eq!(in_flight.renewed(hold(1), FenceResult::TakenOver, now, 0), Renewal::TakenEarly);
        assert!(lease.is_lost() && in_flight.begin_settling(hold(1)).is_none());
    }

    #[test]
    fn the_fence_falls_by_the_local_clock_and_a_renewal_moves_it() {
        let (in_flight, lease, now) = table();
        assert!(in_flight.fence(now + LEASE / 2, LEASE).is_empty());
        in_flight.renewed(hold(1), FenceResult::Owned, now + LEASE / 2, 0);
        assert!(in_flight.fence(now + LEASE, LEASE).is_empty());
        assert_eq!(in_flight.fence(now + LEASE * 2, LEASE), [hold(1)]);
        assert!(lease.is_lost());
    }

    #[test]
    fn an_attempt_that_has_ended_is_renewed_but_never_loses_its_lease() {
        let (in_flight, lease, now) = table();
        in_flight.begin_settling(hold(1));
        assert_eq!(in_flight.due_for_renewal(now + LEASE, LEASE, false), [hold(1)]);
        assert_eq!(in_flight.renewed(hold(1), FenceResult::NotPending, now, 0), Renewal::Kept);
        assert!(in_flight.fence(now + LEASE * 9, LEASE).is_empty() && !lease.is_lost());
    }

    #[test]
    fn a_handler_whose_group_was_lost_keeps_its_lease() {
        let (in_flight, lease, now) = table();
        assert_eq!(in_flight.renewed(hold(1), FenceResult::NotPending, now, 1), Renewal::Kept);
        assert!(in_flight.fence(now + LEASE * 9, LEASE).is_empty() && !lease.is_lost());
        assert!(in_flight.due_for_renewal(now + LEASE * 9, LEASE, false).is_empty());
    }

    #[test]
    fn an_untracked_entry_is_renewed_again_once_its_group_delivers_it_again() {
        let (in_flight, lease, now) = table();
        in_flight.renewed(hold(1), FenceResult::NotPending, now, 1);
        assert_eq!(
            in_flight.registration(now, 1).add(hold(1), WeakInBlock::gone(), &lease),
            Registered::InFlight
        );
        assert_eq!(in_flight.due_for_renewal(now + LEASE, LEASE, false), [hold(1)]);
        assert_eq!(in_flight.renewed(hold(1), FenceResult::TakenOver, now, 1), Renewal::TakenEarly);
    }

    #[test]
    fn trimming_leaves_the_handler_running_and_remembers_the_dead_letter() {
        let (in_flight, lease, now) = table();
        let dead_letter = EntryId::new(7, 7);
        assert_eq!(
            in_flight.renewed(hold(1), FenceResult::Trimmed(dead_letter), now, 0),
            Renewal::Trimmed(dead_letter)
        );
        assert!(!lease.is_lost());
        assert_eq!(
            in_flight.remove_acknowledged([(Inlet::STREAM, hold(1).id)].into_iter()),
            [dead_letter]
        );
        assert_eq!(in_flight.len(), 0);
    }

    #[test]
    fn the_dead_letter_of_a_job_acknowledged_before_its_renewal_is_answered_is_obsolete() {
        let (in_flight, _lease, now) = table();
        let dead_letter = EntryId::new(7, 7);
        in_flight.begin_renewing(&[hold(1)]);
        assert!(in_flight.is_renewing(hold(1)));
        let removed = in_flight.remove_acknowledged([(Inlet::STREAM, hold(1).id)].into_iter());
        assert!(removed.is_empty());
        let answer = FenceResult::Trimmed(dead_letter);
        assert_eq!(in_flight.renewed(hold(1), answer, now, 0), Renewal::Obsolete(dead_letter));
        assert_eq!(in_flight.renewed(hold(1), answer, now, 0), Renewal::Kept);
    }

    #[test]
    fn the_dead_letter_of_a_job_removed_before_its_renewal_is_answered_stays() {
        let (in_flight, _lease, now) = table();
        in_flight.begin_renewing(&[hold(1)]);
        in_flight.remove(Inlet::STREAM, EntryId::new(1, 0));
        let answer = FenceResult::Trimmed(EntryId::new(7, 7));
        assert_eq!(in_flight.renewed(hold(1), answer, now, 0), Renewal::Kept);
    }

    #[test]
    fn a_renewal_is_open_until_it_is_answered_or_has_failed() {
        let (in_flight, _lease, now) = table();
        in_flight.begin_renewing(&[hold(1)]);
        in_flight.renewed(hold(1), FenceResult::Owned, now, 0);
        assert!(!in_flight.is_renewing(hold(1)));
        in_flight.begin_renewing(&[hold(1)]);
        in_flight.renewal_failed(&[hold(1)]);
        assert!(!in_flight.is_renewing(hold(1)));
    }

    type Explain = fn(&InFlight, &Lease);

    fn observe(in_flight: &InFlight, moves: u64) {
        let renewed = Renewed { now: ServerTime(1), moves, answers: Vec::new() };
        in_flight.observe(&renewed, Instant::now());
    }

    #[test]
    fn an_entry_that_is_gone_was_removed_unless_something_else_explains_it() {
        let explanations: [(&str, Explain); 5] = [
            ("none", |_, _| {}),
            ("an operator moved entries", |in_flight, _| observe(in_flight, 8)),
            ("a lost answer may have stored a dead letter", |in_flight, _| {
                in_flight.begin_renewing(&[hold(1)]);
                in_flight.renewal_failed(&[hold(1)]);
            }),
            ("the group was lost", |in_flight, _| {
                let answer = FenceResult::NotPending;
                assert_eq!(in_flight.renewed(hold(1), answer, Instant::now(), 1), Renewal::Kept);
            }),
            ("the lease is over", |_, lease| lease.lose()),
        ];
        for (name, explain) in explanations {
            let (in_flight, lease, now) = table();
            in_flight.begin_with_moves(7);
            observe(&in_flight, 7);
            explain(&in_flight, &lease);
            let was_removed = name == "none";
            if name != "the group was lost" {
                let answer = in_flight.renewed(hold(1), FenceResult::NotPending, now, 0);
                assert_eq!(answer == Renewal::Removed, was_removed, "{name}: {answer:?}");
                assert_eq!(lease.is_lost(), !was_removed, "{name}");
            }
            let (in_flight, lease, _) = table();
            in_flight.begin_with_moves(7);
            explain(&in_flight, &lease);
            assert_eq!(in_flight.removed_before_settling(hold(1), 0), was_removed, "{name}");
            let stands = in_flight.stand_in(hold(1));
            assert_eq!(stands == Some(StandIn::Removed), was_removed, "{name}");
        }
    }
}
