//! Whether a group is active or idle, which decides how often upkeep runs for it.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::state::{Beat, jittered, lock};
use crate::store::Promoted;

/// When a queue last had work, as far as this process knows.
#[derive(Debug)]
pub(crate) struct Activity {
    lease: Duration,
    beat: Beat,
    seen: Mutex<Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// When there was last work or an error.
    active: Instant,
    /// When the last promotion was sent, if it found nothing pending.
    nothing_pending: Option<Instant>,
}

impl Activity {
    pub(crate) fn new(lease: Duration, beat: Beat, now: Instant) -> Self {
        Self { lease, beat, seen: Mutex::new(Seen { active: now, nothing_pending: None }) }
    }

    /// Records work or an error, so that loops run at their full pace for a lease. Returns true if the group was idle
    /// before.
    pub(crate) fn mark_active(&self, now: Instant) -> bool {
        let mut seen = lock(&self.seen);
        let active = std::mem::replace(&mut seen.active, now);
        now.saturating_duration_since(active) >= self.lease
    }

    /// Takes what a promotion found that was sent at this moment.
    pub(crate) fn observe(&self, sent: Instant, found: &Promoted) {
        let mut seen = lock(&self.seen);
        seen.nothing_pending = (found.pending == 0).then_some(sent);
        let empty = found.pending + found.waiting + found.promoted + found.left == 0;
        // A paused group waits for its resume, and a group with scheduled retries for these.
        if !empty || found.paused || found.next_due.is_some() {
            seen.active = sent;
        }
    }

    /// Whether there was no work for a lease: nothing was delivered to this process, and promotions
    /// found nothing pending, waiting or scheduled in any process.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(lock(&self.seen).active) >= self.lease
    }

    /// How long a loop that acts about every `interval` waits. While the group is idle, the loop waits until the
    /// moment at which loops of other idle queues act too.
    pub(crate) fn pause(&self, now: Instant, interval: Duration) -> Duration {
        if self.is_idle(now) { self.beat.within(now, interval) } else { jittered(interval) }
    }

    /// Whether no entry can have been pending for a lease, because nothing was pending less than
    /// half a lease ago.
    pub(crate) fn rules_out_claims(&self, now: Instant) -> bool {
        let nothing_pending = lock(&self.seen).nothing_pending;
        nothing_pending.is_some_and(|sent| now.saturating_duration_since(sent) < self.lease / 2)
    }
}

/// The turns of a loop that skips most of them while its group is idle.
#[derive(Debug, Default)]
pub(crate) struct IdleTurns {
    skipped: u32,
}

impl IdleTurns {
    /// Whether to take this turn: every turn while the group is active, one turn in `one_in` while
    /// it is idle.
    pub(crate) fn take(&mut self, idle: bool, one_in: u32) -> bool {
        let takes = !idle || self.skipped + 1 >= one_in;
        self.skipped = if takes { 0 } else { self.skipped + 1 };
        takes
    }
}

/// Upkeep of an idle group runs this many times less often.
pub(crate) const IDLE_BACKOFF: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(12);

    #[test]
    fn a_group_is_idle_after_a_lease_without_work() {
        let now = Instant::now();
        let activity = Activity::new(LEASE, Beat::new(now), now);
        assert!(!activity.is_idle(now + LEASE / 2), "it has just begun");
        assert!(activity.is_idle(now + LEASE));
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
            activity.observe(later, &found);
            assert!(!activity.is_idle(later + LEASE / 2), "{found:?}");
            activity.observe(later + LEASE / 2, &nothing);
            assert!(activity.is_idle(later + LEASE), "{found:?}");
        }
        assert!(activity.mark_active(now + LEASE * 9), "it was idle");
        assert!(!activity.is_idle(now + LEASE * 9) && !activity.mark_active(now + LEASE * 9));
    }

    #[test]
    fn only_an_idle_group_waits_for_the_beat() {
        let now = Instant::now();
        let activity = Activity::new(LEASE, Beat::new(now), now);
        let waits = |from| {
            let pauses = (0..50).map(|_| activity.pause(from, Duration::from_secs(5)));
            pauses.filter(|pause| pause.subsec_nanos() != 0).count()
        };
        assert!(waits(now) > 40);
        assert_eq!(waits(now + LEASE), 0);
    }

    #[test]
    fn only_a_recent_promotion_rules_out_claims() {
        let now = Instant::now();
        let activity = Activity::new(LEASE, Beat::new(now), now);
        assert!(!activity.rules_out_claims(now), "nothing was promoted yet");
        activity.observe(now, &Promoted::default());
        assert!(activity.rules_out_claims(now + LEASE / 3));
        assert!(!activity.rules_out_claims(now + LEASE / 2), "a later entry may be idle soon");
        activity.observe(now, &Promoted { pending: 1, ..Promoted::default() });
        assert!(!activity.rules_out_claims(now));
    }

    #[test]
    fn an_idle_group_takes_one_turn_in_several() {
        let mut turns = IdleTurns::default();
        let taken = (0..6).map(|_| turns.take(true, 3)).collect::<Vec<_>>();
        assert_eq!(taken, [false, false, true, false, false, true]);
        assert!(!turns.take(true, 3));
        assert!(turns.take(false, 3), "an active group takes each turn");
        assert!(!turns.take(true, 3));
    }
}
