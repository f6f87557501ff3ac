//! What can be wrong, one type for each operation.

use std::error::Error;
use std::fmt;
use std::ops::Range;

/// Why a text is not a cron expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronError {
    position: Range<usize>,
    message: String,
}

/// Why a text is not the name of a time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneError {
    message: String,
}

/// Why the next occurrence could not be computed. This error never means that there is no further
/// occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextError {
    after_ms: u64,
}

/// Why an expression is refused for a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckError {
    /// There is no occurrence within eight years.
    Never,
    /// The next occurrence could not be computed.
    Unknown(NextError),
}

/// Why an interval is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EveryError {
    /// The period is shorter than a second.
    TooShort,
    /// The period is longer than 365 days.
    TooLong,
    /// The period or the offset is not a whole number of milliseconds.
    Fraction,
    /// The offset is not less than the period.
    Offset,
}

impl CronError {
    pub(crate) fn new(position: Range<usize>, message: String) -> Self {
        Self { position, message }
    }

    /// Where the fault is, in bytes of the text that was read.
    #[must_use]
    pub fn position(&self) -> Range<usize> {
        self.position.clone()
    }

    /// The text, and below it a line of carets under the fault, for terminals and compilers.
    ///
    /// `text` is the text that was read. Control characters are shown as spaces.
    ///
    /// ```
    /// let text = "0 25 * * *";
    /// let error = streamjobs_cron::Cron::parse(text).unwrap_err();
    /// assert_eq!(error.mark(text), "0 25 * * *\n  ^^");
    /// ```
    #[must_use]
    pub fn mark(&self, text: &str) -> String {
        let shown = |letter: char| if letter.is_control() { ' ' } else { letter };
        let mut marked = text.chars().map(shown).collect::<String>();
        let count = |from: usize, to: usize| {
            text.char_indices().filter(|(at, _)| (from..to).contains(at)).count()
        };
        let before = count(0, self.position.start);
        let carets = count(self.position.start, self.position.end).max(1);
        marked.push('\n');
        marked.extend(std::iter::repeat_n(' ', before));
        marked.extend(std::iter::repeat_n('^', carets));
        marked
    }
}

impl ZoneError {
    pub(crate) fn new(message: String) -> Self {
        Self { message }
    }
}

impl NextError {
    pub(crate) fn new(after_ms: u64) -> Self {
        Self { after_ms }
    }
}

impl fmt::Display for CronError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Display for NextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no occurrence can be computed after {} ms since 1970", self.after_ms)
    }
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("it has no occurrence within eight years"),
            Self::Unknown(error) => error.fmt(f),
        }
    }
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

impl Error for CronError {}
impl Error for ZoneError {}
impl Error for NextError {}
impl Error for CheckError {}
impl Error for EveryError {}
