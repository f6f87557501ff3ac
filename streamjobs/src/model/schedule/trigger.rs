//! When a schedule is due.

use std::fmt;

use streamjobs_cron::{Cron, Every, NextError, Zone};

/// What determines the occurrences.
#[derive(Clone, Debug)]
pub(crate) enum Trigger {
    /// An expression on the clock of a zone.
    Cron { cron: Box<Cron>, zone: Zone },
    /// The multiples of an interval since 1970, with an offset.
    Every(Every),
}

impl Trigger {
    /// The first occurrence after this time; `None` without one within eight years.
    pub(crate) fn next_after(&self, after: u64) -> Result<Option<u64>, NextError> {
        match self {
            Self::Cron { cron, zone } => cron.next_after(zone, after),
            Self::Every(every) => Ok(Some(every.next_after(after))),
        }
    }

    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Cron { cron, zone } => format!("{} ({})", cron.in_words(), zone.name()),
            Self::Every(every) => every.in_words(),
        }
    }
}

/// The expression, or the interval as in `5m+30s`.
impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron { cron, .. } => cron.fmt(f),
            Self::Every(every) => every.fmt(f),
        }
    }
}
