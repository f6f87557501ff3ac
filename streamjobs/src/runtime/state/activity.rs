//! Whether a group has anything to do, and so how often it is looked after.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Promoted;

/// What is known of a queue's business.
#[derive(Debug)]
pub(crate) struct Activity {
    lease: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// When there was last something to do, or something wrong.
    stirred: Instant,
    /// When a look was sent that found nothing pending, if the last one did.
    nothing_pending: Option<Instant>,
}

impl Activity {
    pub(crate) fn new(lease: Duration, now: Instant) -> Self {
        Self { lease, state: Mutex::new(State { stirred: now, nothing_pending: None }) }
    }

    /// There is something to do, or something is wrong: looks come at their full pace for a lease.
    /// True if it was quiet before.
    pub(crate) fn mark_active(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let stirred = std::mem::replace(&mut state.stirred, now);
        now.saturating_duration_since(stirred) >= self.lease
    }

    /// Takes what a look at the group found that was sent at this moment.
    pub(crate) fn looked(&self, sent: Instant, found: &Promoted) {
        let mut state = self.lock();
        state.nothing_pending = (found.pending == 0).then_some(sent);
        let idle = found.pending + found.waiting + found.promoted + found.left == 0;
        // A paused group waits for its end, and one with jobs set aside for them.
        if !idle || found.paused || found.next_due.is_some() {
            state.stirred = sent;
        }
    }

    /// Whether nothing has been there for a lease: this process was given no job, and its looks
    /// have found none pending, waiting or set aside anywhere.
    pub(crate) fn is_quiet(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.lock().stirred) >= self.lease
    }

    /// Whether nothing can have been pending for a lease, because a moment ago nothing was.
    pub(crate) fn nothing_is_idle(&self, now: Instant) -> bool {
        let looked = self.lock().nothing_pending;
        looked.is_some_and(|looked| now.saturating_duration_since(looked) < self.lease / 2)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turns of a loop that leaves most of them out while its group is quiet.
#[derive(Debug, Default)]
pub(crate) struct IdleTurns {
    left_out: u32,
}

impl IdleTurns {
    /// Whether to take this turn: each one, or while the group is quiet one in so many.
    pub(crate) fn take(&mut self, quiet: bool, one_in: u32) -> bool {
        let takes = !quiet || self.left_out + 1 >= one_in;
        self.left_out = if takes { 0 } else { self.left_out + 1 };
        takes
    }
}

/// How much more seldom a quiet group is looked at.
pub(crate) const IDLE_BACKOFF: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(12);

    #[test]
    fn a_group_is_quiet_when_nothing_was_there_for_a_lease() {
        let now = Instant::now();
        let quiet = Activity::new(LEASE, now);
        assert!(!quiet.is_quiet(now + LEASE / 2), "it has just begun");
        assert!(quiet.is_quiet(now + LEASE));
        let nothing = Promoted::default();
        let somethings = [
            Promoted { pending: 1, ..nothing },
            Promoted { waiting: 1, ..nothing },
            Promoted { promoted: 1, ..nothing },
            Promoted { left: 1, ..nothing },
            Promoted { paused: true, ..nothing },
            Promoted { next_due: Some(LEASE), ..nothing },
        ];
        for (round, found) in (1..).zip(somethings) {
            let later = now + LEASE * round;
            quiet.looked(later, &found);
            assert!(!quiet.is_quiet(later + LEASE / 2), "{found:?}");
            quiet.looked(later + LEASE / 2, &nothing);
            assert!(quiet.is_quiet(later + LEASE), "{found:?}");
        }
        assert!(quiet.mark_active(now + LEASE * 9), "it was quiet");
        assert!(!quiet.is_quiet(now + LEASE * 9) && !quiet.mark_active(now + LEASE * 9));
    }

    #[test]
    fn only_a_fresh_look_says_that_nothing_is_idle() {
        let now = Instant::now();
        let quiet = Activity::new(LEASE, now);
        assert!(!quiet.nothing_is_idle(now), "nobody has looked");
        quiet.looked(now, &Promoted::default());
        assert!(quiet.nothing_is_idle(now + LEASE / 3));
        assert!(!quiet.nothing_is_idle(now + LEASE / 2), "what came just after may be dying");
        quiet.looked(now, &Promoted { pending: 1, ..Promoted::default() });
        assert!(!quiet.nothing_is_idle(now));
    }

    #[test]
    fn a_quiet_group_takes_one_turn_in_so_many() {
        let mut turns = IdleTurns::default();
        let taken = (0..6).map(|_| turns.take(true, 3)).collect::<Vec<_>>();
        assert_eq!(taken, [false, false, true, false, false, true]);
        assert!(!turns.take(true, 3));
        assert!(turns.take(false, 3), "at once when it is quiet no more");
        assert!(!turns.take(true, 3));
    }
}
