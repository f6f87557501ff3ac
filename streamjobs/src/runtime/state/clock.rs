//! The server's clock as this process knows it, and when claims may rely on it.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::handler::JobClock;
use crate::model::entry::EntryId;
use crate::runtime::state::lock;
use crate::store::ServerTime;

/// The server's clock and the gaps between its answers, learned from the answers.
#[derive(Debug)]
pub(crate) struct Clock {
    lease: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    known: Option<Known>,
    answered: Instant,
    /// Until when claims wait, so that consumers whose renewals were delayed renew first.
    claims_from: Instant,
}

/// What the server's clock showed at a moment of the local clock, and by how much that may be wrong.
#[derive(Clone, Copy, Debug)]
struct Known {
    moment: Instant,
    server: ServerTime,
    error: Duration,
}

impl Known {
    fn at(&self, now: Instant) -> ServerTime {
        let passed = milliseconds(now.saturating_duration_since(self.moment));
        ServerTime(self.server.0.saturating_add(passed))
    }

    /// By how much the estimate may be wrong by now.
    fn error_at(&self, now: Instant) -> Duration {
        self.error + now.saturating_duration_since(self.moment) / DRIFT
    }

    /// Whether a newer answer is better: it is at least as exact, or the two contradict each other.
    fn is_worse_than(&self, newer: &Self) -> bool {
        let error = self.error_at(newer.moment);
        let apart = newer.server.0.abs_diff(self.at(newer.moment).0);
        newer.error <= error || apart > milliseconds(error + newer.error) + 1
    }
}

impl Clock {
    pub(crate) fn new(lease: Duration, now: Instant) -> Self {
        Self { lease, state: Mutex::new(State { known: None, answered: now, claims_from: now }) }
    }

    /// Learns from an answer that carries the server's clock.
    pub(crate) fn observe(&self, sent: Instant, received: Instant, server: ServerTime) {
        let mut state = lock(&self.state);
        if received.saturating_duration_since(state.answered) > self.gap() {
            state.claims_from = received + self.settle_time();
        }
        state.answered = received;
        let round_trip = received.saturating_duration_since(sent);
        // A slow answer says little about when in its round trip the server read its clock.
        if round_trip > self.tolerance() / 2 && state.known.is_some() {
            return;
        }
        let error = round_trip / 2;
        let newer = Known { moment: sent + error, server, error };
        let expected = state.known.map_or(server, |known| known.at(newer.moment));
        if server.0.abs_diff(expected.0) > milliseconds(self.tolerance()) {
            // To the server, every pending entry seems older by the length of the jump.
            state.claims_from = received + self.lease;
        }
        if state.known.is_none_or(|known| known.is_worse_than(&newer)) {
            state.known = Some(newer);
        }
    }

    /// Called when the server's clock did not show what was expected. Starts over, and makes claims wait a lease.
    pub(crate) fn stepped(&self, now: Instant, server: ServerTime) {
        let mut state = lock(&self.state);
        // How long the answer took is not known here, so any later answer is better.
        state.known = Some(Known { moment: now, server, error: self.tolerance() });
        state.claims_from = now + self.lease;
    }

    /// What the server's clock should show, and the tolerance; `None` while claims have to wait.
    pub(crate) fn expectation(&self, now: Instant) -> Option<(ServerTime, Duration)> {
        let state = lock(&self.state);
        let silent = now.saturating_duration_since(state.answered) > self.gap();
        if silent || now < state.claims_from {
            return None;
        }
        state.known.map(|known| (known.at(now), self.tolerance()))
    }

    /// The server's clock in milliseconds, or this machine's clock until the server's clock is
    /// known.
    pub(crate) fn server_now(&self, now: Instant) -> u64 {
        match lock(&self.state).known {
            Some(known) => known.at(now).0,
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, milliseconds),
        }
    }

    /// The server's clock at the delivery of this entry, in milliseconds. It is not before the time in the entry's
    /// id, unless the id is so far ahead that an error of the estimate cannot explain it: publishers can choose ids.
    pub(crate) fn server_now_after(&self, now: Instant, entry: EntryId) -> u64 {
        let (estimate, added) = (self.server_now(now), entry.milliseconds());
        if added.saturating_sub(estimate) <= milliseconds(self.tolerance()) {
            return estimate.max(added);
        }
        estimate
    }

    /// How long ago the server last answered.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(lock(&self.state).answered)
    }

    fn tolerance(&self) -> Duration {
        self.lease / 3
    }

    /// The longest silence that is not a fault. Answers come at least every two fifths of a lease.
    fn gap(&self) -> Duration {
        self.lease / 2
    }

    /// Long enough for every live owner to renew once.
    fn settle_time(&self) -> Duration {
        self.lease / 2
    }
}

impl JobClock for Clock {
    fn now(&self) -> u64 {
        self.server_now(Instant::now())
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Clocks drift apart by at most one part in this many, which is ten times as much as a cheap
/// quartz.
const DRIFT: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(12);
    const SERVER: ServerTime = ServerTime(1_000_000);

    fn clock() -> (Clock, Instant) {
        let now = Instant::now();
        let clock = Clock::new(LEASE, now);
        clock.observe(now, now, SERVER);
        (clock, now)
    }

    #[test]
    fn the_expectation_follows_the_local_clock() {
        let (clock, now) = clock();
        let later = now + Duration::from_secs(2);
        assert_eq!(clock.expectation(later), Some((ServerTime(1_002_000), LEASE / 3)));
        assert_eq!(clock.server_now(later), 1_002_000);
        let after = |milliseconds| clock.server_now_after(later, EntryId::new(milliseconds, 0));
        assert_eq!([0, 1_002_009].map(after), [1_002_000, 1_002_009]);
        assert_eq!(after(9_002_000), 1_002_000, "an id of the publisher's choice");
    }

    #[test]
    fn claims_wait_during_and_after_a_gap_in_the_answers() {
        let (clock, now) = clock();
        let late = now + LEASE;
        assert_eq!(clock.expectation(late), None, "the server has been silent");
        clock.observe(late, late, ServerTime(1_012_000));
        assert_eq!(clock.expectation(late), None, "other consumers have to renew first");
        let later = late + LEASE / 3;
        clock.observe(later, later, ServerTime(1_016_000));
        assert!(clock.expectation(late + LEASE / 2).is_some());
    }

    #[test]
    fn claims_wait_a_lease_after_a_clock_step() {
        let (clock, now) = clock();
        clock.stepped(now, ServerTime(9_000_000));
        assert_eq!(clock.expectation(now + LEASE / 4), None);
        let after = now + LEASE;
        for moment in [now + LEASE / 3, now + LEASE / 3 * 2, after] {
            let server = 9_000_000 + milliseconds(moment - now);
            clock.observe(moment, moment, ServerTime(server));
        }
        assert_eq!(clock.expectation(after), Some((ServerTime(9_012_000), LEASE / 3)));
    }

    #[test]
    fn a_step_is_noticed_in_any_answer() {
        let (clock, now) = clock();
        let later = now + LEASE / 6;
        clock.observe(later, later, ServerTime(9_000_000));
        assert_eq!(clock.expectation(later), None);
        assert_eq!(clock.server_now(later), 9_000_000);
    }

    #[test]
    fn a_better_answer_is_kept_until_drift_makes_it_worse() {
        let now = Instant::now();
        let clock = Clock::new(LEASE, now);
        let milliseconds = Duration::from_millis;
        // The server's clock shows 1,000,000 now; the answer took 20 ms, all of it on the way back.
        clock.observe(now, now + milliseconds(20), SERVER);
        assert_eq!(clock.server_now(now + milliseconds(20)), 1_000_010, "half of it is a guess");
        // A quick answer is better.
        let quick = now + milliseconds(100);
        clock.observe(quick, quick, ServerTime(1_000_100));
        assert_eq!(clock.server_now(quick), 1_000_100);
        // A slow answer, half a second later, is worse than what is known.
        let slow = now + milliseconds(600);
        clock.observe(slow, slow + milliseconds(40), ServerTime(1_000_600));
        assert_eq!(clock.server_now(slow + milliseconds(40)), 1_000_640);
        // After a minute, the clocks may have drifted further apart than that.
        let late = slow + Duration::from_secs(60);
        clock.observe(late, late + milliseconds(40), ServerTime(1_060_590));
        assert_eq!(clock.server_now(late + milliseconds(20)), 1_060_590);
    }

    #[test]
    fn a_small_step_is_followed_however_exact_the_old_answer_was() {
        let (clock, now) = clock();
        let later = now + LEASE / 6;
        let stepped = ServerTime(SERVER.0 + 3_000);
        clock.observe(later, later + Duration::from_millis(200), stepped);
        assert_eq!(clock.server_now(later + Duration::from_millis(100)), stepped.0);
        assert!(clock.expectation(later).is_some(), "it is within the tolerance");
    }

    #[test]
    fn slow_answers_do_not_move_the_known_clock() {
        let (clock, now) = clock();
        let received = now + LEASE / 3;
        clock.observe(now, received, ServerTime(5));
        assert_eq!(clock.server_now(now), SERVER.0);
    }
}
