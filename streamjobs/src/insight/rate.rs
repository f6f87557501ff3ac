//! The rate of a group, as it is shown.

use std::time::Duration;

use crate::model::rate::{Rate, SetRate};
use crate::store::RateFacts;

/// The rate of a group at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateInfo {
    /// The rate in the code of the process that started last. `None` if that code has none, or if no process has
    /// asked for a start for about a minute.
    pub declared: Option<Rate>,
    /// What an operator has set in its place.
    pub set: Option<SetRate>,
    /// How long until the earliest start that is not granted yet; zero if that is possible at once.
    pub next: Duration,
    /// How long no job starts, because a job has met a limit of the other side
    /// ([`JobError::limited`](crate::JobError::limited)).
    pub limited: Option<Duration>,
    /// Whether the starts that were granted so far use up the rate until now, or until a later
    /// time.
    pub(crate) is_used: bool,
}

impl RateInfo {
    /// `None` if there is nothing to show.
    pub(crate) fn of(facts: &RateFacts) -> Option<Self> {
        let RateFacts { declared, set, next, ahead, limited } = *facts;
        let is_used = !ahead.is_zero();
        let told = declared.is_some() || set.is_some() || limited.is_some();
        told.then_some(Self { declared, set, next, limited, is_used })
    }

    /// The rate that is in force; `None` if there is no limit.
    #[must_use]
    pub fn in_force(&self) -> Option<Rate> {
        match self.set {
            Some(SetRate::At(rate)) => Some(rate),
            Some(SetRate::Unlimited) => None,
            None => self.declared,
        }
    }

    /// Whether jobs that wait do so because their start is not allowed yet.
    pub(crate) fn holds_back(&self) -> bool {
        self.limited.is_some() || self.in_force().is_some() && self.is_used
    }
}
