//! The server's clock as this process knows it, and when it may be trusted for claims.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::store::ServerTime;

/// What the server's answers say about its clock and about gaps in its answers.
#[derive(Debug)]
pub(crate) struct Clock {
    lease: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// A moment of ours, and the server's clock at it.
    known: Option<(Instant, ServerTime)>,
    answered: Instant,
    /// Claims wait until then, so that everybody whose renewals were held up renews first.
    claims_from: Instant,
}

impl Clock {
    pub(crate) fn new(lease: Duration, now: Instant) -> Self {
        Self { lease, state: Mutex::new(State { known: None, answered: now, claims_from: now }) }
    }

    /// Takes the server's clock out of an answer.
    pub(crate) fn observe(&self, sent: Instant, received: Instant, server: ServerTime) {
        let mut state = self.lock();
        if received.saturating_duration_since(state.answered) > self.gap() {
            state.claims_from = received + self.settle_time();
        }
        state.answered = received;
        let round_trip = received.saturating_duration_since(sent);
        // A slow answer says little about when in its round trip the server looked at its clock.
        if round_trip > self.tolerance() / 2 && state.known.is_some() {
            return;
        }
        let middle = sent + round_trip / 2;
        let expected = state.known.map_or(server, |known| advanced(known, middle));
        if server.0.abs_diff(expected.0) > milliseconds(self.tolerance()) {
            // Everybody's work looks as old as the step is long.
            state.claims_from = received + self.lease;
        }
        state.known = Some((middle, server));
    }

    /// The server's clock was not where it was expected: learn it anew, and wait a lease.
    pub(crate) fn stepped(&self, now: Instant, server: ServerTime) {
        let mut state = self.lock();
        state.known = Some((now, server));
        state.claims_from = now + self.lease;
    }

    /// What the server's clock should show, and by how much it may be off; none while claims have
    /// to wait.
    pub(crate) fn expectation(&self, now: Instant) -> Option<(ServerTime, Duration)> {
        let state = self.lock();
        let silent = now.saturating_duration_since(state.answered) > self.gap();
        if silent || now < state.claims_from {
            return None;
        }
        state.known.map(|known| (advanced(known, now), self.tolerance()))
    }

    /// The server's clock in milliseconds; our own until the server's is known.
    pub(crate) fn server_now(&self, now: Instant) -> u64 {
        match self.lock().known {
            Some(known) => advanced(known, now).0,
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, milliseconds),
        }
    }

    /// How long ago the server last answered.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.lock().answered)
    }

    fn tolerance(&self) -> Duration {
        self.lease / 3
    }

    /// Answers come every quarter of a lease; a longer silence than this was a fault.
    fn gap(&self) -> Duration {
        self.lease / 2
    }

    /// Long enough for every live owner to renew once.
    fn settle_time(&self) -> Duration {
        self.lease / 2
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn advanced((moment, server): (Instant, ServerTime), now: Instant) -> ServerTime {
    ServerTime(server.0.saturating_add(milliseconds(now.saturating_duration_since(moment))))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

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
    fn the_expectation_follows_our_own_clock() {
        let (clock, now) = clock();
        let later = now + Duration::from_secs(2);
        assert_eq!(clock.expectation(later), Some((ServerTime(1_002_000), LEASE / 3)));
        assert_eq!(clock.server_now(later), 1_002_000);
    }

    #[test]
    fn claims_wait_during_and_after_a_gap_in_the_answers() {
        let (clock, now) = clock();
        let late = now + LEASE;
        assert_eq!(clock.expectation(late), None, "the server has been silent");
        clock.observe(late, late, ServerTime(1_012_000));
        assert_eq!(clock.expectation(late), None, "others have to renew first");
        let quiet = late + LEASE / 3;
        clock.observe(quiet, quiet, ServerTime(1_016_000));
        assert!(clock.expectation(late + LEASE / 2).is_some());
    }

    #[test]
    fn claims_wait_a_lease_after_a_clock_step() {
        let (clock, now) = clock();
        clock.stepped(now, ServerTime(9_000_000));
        assert_eq!(clock.expectation(now + LEASE / 4), None);
        let after = now + LEASE;
        for moment in [now + LEASE / 3, now + LEASE / 3 * 2, after] {
            clock.observe(moment, moment, advanced((now, ServerTime(9_000_000)), moment));
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
    fn slow_answers_do_not_move_the_known_clock() {
        let (clock, now) = clock();
        let received = now + LEASE / 3;
        clock.observe(now, received, ServerTime(5));
        assert_eq!(clock.server_now(now), SERVER.0);
    }
}
