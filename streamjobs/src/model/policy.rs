//! The policy: which verdict follows from an outcome. Pure and total.

use std::time::Duration;

use crate::model::cause::{bounded_text, shown};
use crate::model::config::{JobLimits, Unhandled};
use crate::model::outcome::{Outcome, Retry};

/// Why a job became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It failed `max_attempts` times.
    Exhausted,
    /// Its handler returned a permanent failure.
    Rejected,
    /// Its entry could not be decoded; the raw fields are kept.
    Undecodable,
    /// It was delivered `max_deliveries` times, and no run ended: its processes died.
    Crashed,
    /// Its payload was trimmed before the job ended; whether it was done is unknown.
    Trimmed,
    /// The group has no handler for its event type.
    Unhandled,
    /// It did not begin in time, and has not run.
    Expired,
    /// It was cancelled. It has not run since, or its last attempt did not succeed.
    Cancelled,
}

impl Reason {
    /// Every reason, in the order of their declaration.
    pub(crate) const ALL: [Self; 8] = [
        Self::Exhausted,
        Self::Rejected,
        Self::Undecodable,
        Self::Crashed,
        Self::Trimmed,
        Self::Unhandled,
        Self::Expired,
        Self::Cancelled,
    ];

    /// Every reason that this version knows, for selection lists.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter()
    }

    /// The word in a stored dead letter. It does not change between releases.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Undecodable => "undecodable",
            Self::Crashed => "crashed",
            Self::Trimmed => "trimmed",
            Self::Unhandled => "unhandled",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

/// What is done with a delivery.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// The job is done.
    Acknowledge,
    /// The job is retried after the delay.
    Retry { delay: Duration, error: String },
    /// The job becomes a dead letter.
    DeadLetter { reason: Reason, error: Option<String> },
    /// The entry is released uncounted, for any consumer to claim at once.
    Release,
    /// Nothing: another attempt owns the job, or will.
    Leave,
    /// The job waits for a process that has a handler for its type, or becomes a dead letter. [`left`] decides, by
    /// when the type was last declared.
    AwaitHandler,
}

/// What the group remembers of an event type that a process met and has no handler for. Exhaustive: adding a field is
/// a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeSight {
    /// Whether a live process may have a handler for it.
    pub declared: bool,
    /// How long no live process has declared it.
    pub undeclared_for: Duration,
}

impl TypeSight {
    /// Nothing is known, which counts as if the type had been declared until now.
    pub(crate) const UNKNOWN: Self = Self { declared: false, undeclared_for: Duration::ZERO };
}

/// Decides about an attempt that ended. `random` is drawn evenly from 0 to 1.
pub(crate) fn after_attempt(
    outcome: &Outcome,
    attempt: u32,
    limits: &JobLimits,
    random: f64,
) -> Verdict {
    let again = |delay: Duration, error: String| {
        let error = bounded_text(&error);
        if attempt >= limits.max_attempts {
            Verdict::DeadLetter { reason: Reason::Exhausted, error: Some(error) }
        } else {
            Verdict::Retry { delay, error }
        }
    };
    let backoff = || limits.backoff.delay(attempt, random);
    match outcome {
        Outcome::Done | Outcome::AlreadyDone => Verdict::Acknowledge,
        Outcome::Failed(error) => match error.asks_for() {
            Retry::Backoff => again(backoff(), error.text()),
            Retry::After(delay) => again(delay, error.text()),
            // A snooze is independent of the number of failures.
            Retry::Later(delay) => Verdict::Retry { delay, error: bounded_text(&error.text()) },
            Retry::Never => Verdict::DeadLetter {
                reason: Reason::Rejected,
                error: Some(bounded_text(&error.text())),
            },
        },
        Outcome::Panicked(text) => again(backoff(), format!("the handler panicked: {text}")),
        Outcome::TimedOut(timeout) => {
            again(backoff(), format!("the handler ran for longer than {timeout:?}"))
        }
        Outcome::Undecodable(error) => Verdict::DeadLetter {
            reason: Reason::Undecodable,
            error: Some(bounded_text(&error.to_string())),
        },
        Outcome::Cancelled => Verdict::DeadLetter { reason: Reason::Cancelled, error: None },
        Outcome::CutOff => Verdict::Release,
        Outcome::LeaseLost => Verdict::Leave,
    }
}

/// Ends a job that was cancelled while its attempt ran: a job that is done stays done; any other is
/// not retried.
pub(crate) fn cancelled(verdict: Verdict) -> Verdict {
    let error = match verdict {
        Verdict::Acknowledge | Verdict::Leave => return verdict,
        Verdict::Retry { error, .. } => Some(error),
        Verdict::DeadLetter { error, .. } => error,
        Verdict::Release | Verdict::AwaitHandler => None,
    };
    Verdict::DeadLetter { reason: Reason::Cancelled, error }
}

/// Dead-letters a job that would be retried but has more fields than a retry can carry.
pub(crate) fn reject_if_too_wide(verdict: Verdict, fields: usize, fields_max: usize) -> Verdict {
    match verdict {
        Verdict::Retry { error, .. } if fields > fields_max => Verdict::DeadLetter {
            reason: Reason::Exhausted,
            error: Some(format!(
                "{error} (not retried: the entry has {fields} fields, and a retry carries at most \
                 {fields_max})"
            )),
        },
        verdict => verdict,
    }
}

/// Decides about a delivery before its handler runs: `None` means that it may run. `waited` is how long
/// the job has waited to begin; `None` if it began before.
pub(crate) fn before_attempt(
    delivery_count: u64,
    waited: Option<Duration>,
    limits: &JobLimits,
) -> Option<Verdict> {
    let dead = |reason, error| Some(Verdict::DeadLetter { reason, error: Some(error) });
    if delivery_count > u64::from(limits.max_deliveries) {
        let error = format!("delivered {} times, and no attempt ended", delivery_count - 1);
        return dead(Reason::Crashed, error);
    }
    match (waited, limits.expires) {
        (Some(waited), Some(expires)) if waited > expires => {
            let (waited, expires) = (shown(waited), shown(expires));
            dead(Reason::Expired, format!("did not begin within {expires}, but after {waited}"))
        }
        _ => None,
    }
}

/// Decides about a delivery for which this process has no handler. An entry that is too wide for a
/// retry can only be left pending, which counts deliveries.
pub(crate) fn without_handler(
    choice: Unhandled,
    event_type: &str,
    delivery_count: u64,
    max_deliveries: u32,
    too_wide: bool,
) -> Verdict {
    let gone = delivery_count >= u64::from(max_deliveries);
    match choice {
        Unhandled::Acknowledge => Verdict::Acknowledge,
        Unhandled::DeadLetter => unhandled(event_type),
        Unhandled::Leave if too_wide && gone => unhandled(event_type),
        Unhandled::Leave if too_wide => Verdict::Leave,
        Unhandled::Leave => Verdict::AwaitHandler,
    }
}

/// Decides about a job that is left for a process with a handler, by what the group remembers of its
/// type. `random` is drawn evenly from 0 to 1.
pub(crate) fn left(event_type: &str, sight: TypeSight, after: Duration, random: f64) -> Verdict {
    if !sight.declared && sight.undeclared_for >= after {
        return unhandled(event_type);
    }
    let rest = after.saturating_sub(sight.undeclared_for);
    let undeclared = || OFFERED_AGAIN_UNDECLARED.min(rest).max(OFFERED_AGAIN);
    let delay = if sight.declared { OFFERED_AGAIN } else { undeclared() };
    let error = format!("{AWAITS_HANDLER} for event type {event_type}");
    Verdict::Retry { delay: delay.mul_f64(random.mul_add(0.4, 0.8)), error: bounded_text(&error) }
}

fn unhandled(event_type: &str) -> Verdict {
    let error = format!("the group has no handler for event type {event_type}");
    Verdict::DeadLetter { reason: Reason::Unhandled, error: Some(bounded_text(&error)) }
}

/// The beginning of the error of a job that waits for a process with its handler, and has not run.
pub(crate) const AWAITS_HANDLER: &str = "waits for a process that has a handler";
/// How long a job waits until it is offered to the processes of its group again, while a live one
/// declares its type.
const OFFERED_AGAIN: Duration = Duration::from_secs(1);
/// How long a job waits until it is offered again, while no live process declares its type.
const OFFERED_AGAIN_UNDECLARED: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::backoff::Backoff;
    use crate::model::event::DecodeError;
    use crate::model::outcome::JobError;

    const LIMITS: JobLimits = JobLimits {
        max_attempts: 3,
        max_deliveries: 5,
        timeout: None,
        expires: None,
        backoff: Backoff::fixed(Duration::from_secs(7)),
    };

    fn verdict(outcome: &Outcome, attempt: u32) -> Verdict {
        after_attempt(outcome, attempt, &LIMITS, 0.5)
    }

    fn reason(verdict: Verdict) -> Option<Reason> {
        match verdict {
            Verdict::DeadLetter { reason, .. } => Some(reason),
            _ => None,
        }
    }

    #[test]
    fn done_is_acknowledged_below_and_at_the_limit() {
        for attempt in [1, 2, 3, 9] {
            assert_eq!(verdict(&Outcome::Done, attempt), Verdict::Acknowledge);
            assert_eq!(verdict(&Outcome::AlreadyDone, attempt), Verdict::Acknowledge);
        }
    }

    #[test]
    fn failures_wait_below_the_limit_and_are_dead_lettered_at_it() {
        let outcomes = [
            Outcome::Failed(JobError::retry("no")),
            Outcome::Panicked("no".into()),
            Outcome::TimedOut(Duration::from_secs(1)),
        ];
        for outcome in &outcomes {
            for attempt in [1, 2] {
                assert!(
                    matches!(verdict(outcome, attempt), Verdict::Retry { delay, .. } if delay.as_secs() == 7)
                );
            }
            assert_eq!(reason(verdict(outcome, 3)), Some(Reason::Exhausted));
        }
    }

    #[test]
    fn a_handler_can_choose_its_delay_but_not_escape_the_limit() {
        let later = Outcome::Failed(JobError::retry_after(Duration::from_secs(60), "later"));
        assert!(
            matches!(verdict(&later, 1), Verdict::Retry { delay, .. } if delay.as_secs() == 60)
        );
        assert_eq!(reason(verdict(&later, 3)), Some(Reason::Exhausted));
    }

    #[test]
    fn a_snoozed_job_waits_below_at_and_past_the_limit() {
        let outcome = Outcome::Failed(JobError::later(Duration::from_secs(60), "a deadlock"));
        for attempt in [1, 3, 4, u32::MAX] {
            let expected = Duration::from_secs(60);
            assert!(
                matches!(verdict(&outcome, attempt), Verdict::Retry { delay, error } if delay == expected && error == "a deadlock")
            );
        }
    }

    #[test]
    fn dead_and_undecodable_are_dead_lettered_at_once() {
        assert_eq!(
            reason(verdict(&Outcome::Failed(JobError::dead("no")), 1)),
            Some(Reason::Rejected)
        );
        assert_eq!(
            reason(verdict(&Outcome::Undecodable(DecodeError::new("no")), 1)),
            Some(Reason::Undecodable)
        );
    }

    #[test]
    fn a_cut_off_attempt_is_released_and_a_lost_one_left_alone() {
        for attempt in [1, 3] {
            assert_eq!(verdict(&Outcome::CutOff, attempt), Verdict::Release);
            assert_eq!(verdict(&Outcome::LeaseLost, attempt), Verdict::Leave);
        }
    }

    #[test]
    fn the_delivery_after_the_last_allowed_one_is_dead_lettered_without_running() {
        let limits = JobLimits { max_deliveries: 5, ..LIMITS };
        assert_eq!(before_attempt(5, None, &limits), None);
        for count in [6, u64::MAX] {
            let verdict = before_attempt(count, None, &limits);
            assert_eq!(verdict.and_then(reason), Some(Reason::Crashed));
        }
    }

    #[test]
    fn a_job_that_begins_too_late_is_dead_lettered_and_one_that_began_before_goes_on() {
        let second = Duration::from_secs(1);
        let limits = JobLimits { expires: Some(60 * second), ..LIMITS };
        let decide = |waited| before_attempt(1, waited, &limits);
        assert_eq!((decide(Some(60 * second)), decide(None)), (None, None));
        assert_eq!(before_attempt(1, Some(9_999 * second), &LIMITS), None, "without a limit");
        let Some(Verdict::DeadLetter { reason, error: Some(error) }) = decide(Some(61 * second))
        else {
            panic!("it expired")
        };
        assert_eq!(
            (reason, error.as_str()),
            (Reason::Expired, "did not begin within 60s, but after 61s")
        );
    }

    #[test]
    fn unhandled_types_follow_the_choice_of_the_group() {
        let decide = |choice, count, wide| without_handler(choice, "t", count, 5, wide);
        for wide in [false, true] {
            assert_eq!(decide(Unhandled::Acknowledge, 9, wide), Verdict::Acknowledge);
            let dead = decide(Unhandled::DeadLetter, 1, wide);
            assert_eq!(reason(dead), Some(Reason::Unhandled));
        }
        assert_eq!(decide(Unhandled::Leave, 9, false), Verdict::AwaitHandler);
        assert_eq!(decide(Unhandled::Leave, 4, true), Verdict::Leave);
        assert_eq!(reason(decide(Unhandled::Leave, 5, true)), Some(Reason::Unhandled));
    }

    #[test]
    fn a_left_job_waits_until_its_type_was_not_declared_for_long() {
        let (second, after) = (Duration::from_secs(1), Duration::from_secs(600));
        let decide = |declared, undeclared_for| {
            left("t", TypeSight { declared, undeclared_for }, after, 0.5)
        };
        let delay = |verdict| match verdict {
            Verdict::Retry { delay, .. } => delay,
            other => panic!("{other:?}"),
        };
        assert_eq!(delay(decide(true, Duration::ZERO)), second);
        assert_eq!(delay(decide(true, after * 2)), second, "declared means that it waits");
        assert_eq!(delay(decide(false, Duration::ZERO)), second * 10);
        assert_eq!(delay(decide(false, after - second * 3)), second * 3);
        assert_eq!(delay(decide(false, after - second / 9)), second);
        assert_eq!(reason(decide(false, after)), Some(Reason::Unhandled));
        assert_eq!(Unhandled::default(), Unhandled::Leave);
    }

    #[test]
    fn only_a_job_that_would_be_retried_can_be_too_wide() {
        let failed = verdict(&Outcome::Failed(JobError::retry("no")), 1);
        assert_eq!(reject_if_too_wide(failed.clone(), 9, 9), failed);
        let Verdict::DeadLetter { reason, error } = reject_if_too_wide(failed, 10, 9) else {
            panic!("must be dead-lettered")
        };
        assert_eq!((reason, error.unwrap().starts_with("no (")), (Reason::Exhausted, true));
        let done = verdict(&Outcome::Done, 1);
        assert_eq!(reject_if_too_wide(done, 10, 9), Verdict::Acknowledge);
    }

    #[test]
    fn error_texts_are_escaped_and_cut() {
        let long = Outcome::Failed(JobError::retry("\u{1b}[31m".repeat(5_000)));
        let Verdict::Retry { error, .. } = verdict(&long, 1) else { panic!("must wait") };
        assert!(error.len() <= 4096 && !error.contains('\u{1b}'));
    }
}
