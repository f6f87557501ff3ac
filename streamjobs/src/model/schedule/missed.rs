//! What is done about occurrences that no process has published in time.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is done about missed occurrences: those that were due while all processes were down, or while no process that
/// declares the schedule lived.
///
/// | Policy | Published | Counted as missed |
/// |---|---|---|
/// | `One` (default) | the latest, which says how many were missed before it | all but that one |
/// | `None` | those that are at most a minute old | the others |
/// | `All` | each, the oldest first: the newest `max`, and none older than `within` | the others |
///
/// Under each policy, a schedule that is seen for the first time begins after now. So does a schedule whose
/// expression, zone, interval or payload has changed, or that was resumed after a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missed {
    /// Only the latest missed occurrence.
    #[default]
    One,
    /// No missed occurrence.
    None,
    /// Each missed occurrence, within bounds.
    All {
        /// How many are published at most, the newest of them. A number above 10,000 counts as
        /// 10,000.
        max: NonZeroU32,
        /// The greatest age of an occurrence that is still published.
        within: Duration,
    },
}

impl Missed {
    /// How many of the newest are published at most.
    pub(super) fn count_max(self) -> usize {
        match self {
            Self::One => 1,
            Self::None => COUNT_MAX,
            Self::All { max, .. } => usize::try_from(max.get()).unwrap_or(COUNT_MAX).min(COUNT_MAX),
        }
    }

    /// The greatest age of an occurrence that is still published, in milliseconds.
    pub(super) fn age_max(self) -> u64 {
        match self {
            Self::One => u64::MAX,
            Self::None => LATE,
            Self::All { within, .. } => u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// The policy as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum StoredMissed {
    One,
    None,
    All { max: NonZeroU32, within: u64 },
}

impl From<Missed> for StoredMissed {
    fn from(missed: Missed) -> Self {
        match missed {
            Missed::One => Self::One,
            Missed::None => Self::None,
            Missed::All { max, .. } => Self::All { max, within: missed.age_max() },
        }
    }
}

impl From<StoredMissed> for Missed {
    fn from(stored: StoredMissed) -> Self {
        match stored {
            StoredMissed::One => Self::One,
            StoredMissed::None => Self::None,
            StoredMissed::All { max, within } => {
                Self::All { max, within: Duration::from_millis(within) }
            }
        }
    }
}

const COUNT_MAX: usize = 10_000;
/// An occurrence that is older than this, in milliseconds, has been missed.
const LATE: u64 = 60_000;
