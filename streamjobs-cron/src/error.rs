//! What can be wrong, one type for each operation.

use std::error::Error;
use std::fmt;

/// Why an interval is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EveryError {
    /// The period is shorter than a second.
    TooShort,
    /// The period is longer than 365 days.
    TooLong,
    /// The period or the offset has a part of a millisecond.
    Fraction,
    /// The offset is not less than the period.
    Offset,
}

impl fmt::Display for EveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "the period is shorter than 1 second",
            Self::TooLong => "the period is longer than 365 days",
            Self::Fraction => "the period and its offset are whole milliseconds",
            Self::Offset => "the offset is not less than the period",
        })
    }
}

impl Error for EveryError {}
