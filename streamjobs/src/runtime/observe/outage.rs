//! An outage of the server: one line when it begins, one line a minute, and one line when it ends.
//!
//! Every loop of every queue notices an outage with each of its steps. All loops share this state,
//! because they use connections to one server. Steps that the server refuses are not part of an outage.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::refusal::Refusal;
use crate::runtime::state::lock;
use crate::store::StoreError;

/// The outage of one server as the connections of a runtime see it.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<Option<Ongoing>>);

/// An outage that has begun.
#[derive(Debug)]
struct Ongoing {
    since: Instant,
    failures: u64,
    last_failure: Instant,
    /// The first answer after the last failure.
    answered: Option<Instant>,
    last_line: Instant,
    /// Why the server refused the login, if it did.
    refusal: Option<Refusal>,
}

/// What to log about an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutageLine {
    /// It has begun, or its cause has changed.
    Begun,
    /// It continues: for how long so far, and how many steps have failed.
    Continues { lasted: Duration, failures: u64 },
    /// It is over: how long it lasted, and how many steps failed.
    Ended { lasted: Duration, failures: u64 },
}

impl Outage {
    /// Whether an error belongs to an outage: there was no connection, or an answer was lost.
    pub(crate) fn includes(error: &StoreError) -> bool {
        matches!(error, StoreError::Unreachable(_) | StoreError::AnswerLost(_))
    }

    /// Records that a step failed by an error of an outage. Returns what to log, if anything.
    pub(crate) fn failed(&self, now: Instant, error: &StoreError) -> Option<OutageLine> {
        let refusal = Refusal::of(error);
        let mut state = lock(&self.0);
        let Some(ongoing) = state.as_mut() else {
            *state = Some(Ongoing {
                since: now,
                failures: 1,
                last_failure: now,
                answered: None,
                last_line: now,
                refusal,
            });
            return Some(OutageLine::Begun);
        };
        ongoing.failures += 1;
        ongoing.last_failure = now;
        ongoing.answered = None;
        let has_changed = refusal.is_some() && refusal != ongoing.refusal;
        if has_changed {
            ongoing.refusal = refusal;
        } else if now.saturating_duration_since(ongoing.last_line) < LINE_INTERVAL {
            return None;
        }
        ongoing.last_line = now;
        let (lasted, failures) = (now.saturating_duration_since(ongoing.since), ongoing.failures);
        Some(match has_changed {
            true => OutageLine::Begun,
            false => OutageLine::Continues { lasted, failures },
        })
    }

    /// Records that the server has answered a step. The outage is over when no step has failed for a
    /// while: until then connections may still be waiting before their next attempt.
    pub(crate) fn answered(&self, now: Instant) -> Option<OutageLine> {
        let mut state = lock(&self.0);
        let ongoing = state.as_mut()?;
        let first = *ongoing.answered.get_or_insert(now);
        if now.saturating_duration_since(ongoing.last_failure) < QUIET {
            return None;
        }
        let (lasted, failures) = (first.saturating_duration_since(ongoing.since), ongoing.failures);
        *state = None;
        Some(OutageLine::Ended { lasted, failures })
    }

    /// Whether an outage is going on.
    pub(crate) fn is_ongoing(&self) -> bool {
        lock(&self.0).is_some()
    }
}

const LINE_INTERVAL: Duration = Duration::from_secs(60);
/// An outage is over when no step has failed for this time, which is longer than the pause before
/// an attempt to connect.
const QUIET: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn gone() -> StoreError {
        StoreError::Unreachable("connection refused".into())
    }

    #[test]
    fn an_outage_is_a_line_at_its_begin_one_a_minute_and_one_at_its_end() {
        let (outage, begun) = (Outage::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(outage.answered(at(0)), None, "no outage yet");
        let lines = (0..130).filter_map(|second| outage.failed(at(second), &gone()));
        let continues = |seconds| {
            let lasted = Duration::from_secs(seconds);
            OutageLine::Continues { lasted, failures: seconds + 1 }
        };
        assert_eq!(lines.collect::<Vec<_>>(), [OutageLine::Begun, continues(60), continues(120)]);
        let ended = (131..150).filter_map(|second| outage.answered(at(second)));
        let lasted = Duration::from_secs(131);
        assert_eq!(ended.collect::<Vec<_>>(), [OutageLine::Ended { lasted, failures: 130 }]);
        assert_eq!(outage.failed(at(150), &gone()), Some(OutageLine::Begun), "the next one");
    }

    #[test]
    fn answers_of_one_connection_do_not_end_the_outage_of_another() {
        let (outage, begun) = (Outage::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let lines = (0..59).filter_map(|second| {
            outage.failed(at(second), &gone()).or_else(|| outage.answered(at(second)))
        });
        assert_eq!(lines.collect::<Vec<_>>(), [OutageLine::Begun]);
    }

    #[test]
    fn a_refused_login_is_said_at_once_and_other_refusals_are_no_outage() {
        let (outage, now) = (Outage::default(), Instant::now());
        let login = StoreError::Unreachable("WRONGPASS invalid password".into());
        let lines = [gone(), gone(), login].map(|error| outage.failed(now, &error));
        assert_eq!(lines, [Some(OutageLine::Begun), None, Some(OutageLine::Begun)]);
        let refused = StoreError::Refused { code: "OOM".to_owned(), text: String::new() };
        assert!(!Outage::includes(&refused) && !Outage::includes(&StoreError::GroupMissing));
    }
}
