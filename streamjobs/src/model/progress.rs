//! The progress of a running job, as its handler reports it.

use std::fmt;
use std::time::Duration;

/// The progress of a running job: the last report of its handler with [`Job::progress`](crate::Job::progress).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How much is done.
    pub done: u64,
    /// How much there is to do; `None` if the handler does not know.
    pub of: Option<u64>,
    /// What it is doing.
    pub text: String,
    /// How long ago it was written.
    pub age: Duration,
}

/// A handler's report, before it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    done: u64,
    of: Option<u64>,
    text: String,
}

impl Reported {
    /// Cuts the text at a character, and replaces control characters by spaces.
    #[must_use]
    pub fn new(done: u64, of: Option<u64>, text: &str) -> Self {
        let mut cut = String::new();
        for character in text.chars() {
            if cut.len() + character.len_utf8() > TEXT_BYTES_MAX {
                break;
            }
            cut.push(if character.is_control() { ' ' } else { character });
        }
        Self { done, of, text: cut }
    }

    /// The report in one line, as it is stored.
    #[must_use]
    pub fn line(&self) -> String {
        let of = self.of.map_or_else(|| "-".to_owned(), |of| of.to_string());
        format!("{} {of} {}", self.done, self.text)
    }
}

/// Without its age: `3/10 pages are written`, or `3 pages are written`.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, of, text, .. } = self;
        match of {
            Some(of) => write!(f, "{done}/{of}")?,
            None => write!(f, "{done}")?,
        }
        if text.is_empty() { Ok(()) } else { write!(f, " {text}") }
    }
}

impl Progress {
    /// Reads a stored line; `None` for a line of another form, which another client has written.
    pub(crate) fn read(line: &str, age: Duration) -> Option<Self> {
        let (done, rest) = line.split_once(' ')?;
        let (of, text) = rest.split_once(' ')?;
        let of = if of == "-" { None } else { Some(of.parse().ok()?) };
        let Reported { done, of, text } = Reported::new(done.parse().ok()?, of, text);
        Some(Self { done, of, text, age })
    }
}

/// The longest text of a progress, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Progress> {
        Progress::read(line, Duration::from_secs(2))
    }

    #[test]
    fn what_is_written_is_read() {
        for (of, text) in [(Some(10), "pages of a - b"), (None, ""), (Some(0), "ä 1 2")] {
            let line = Reported::new(3, of, text).line();
            let (text, age) = (text.to_owned(), Duration::from_secs(2));
            assert_eq!(read(&line), Some(Progress { done: 3, of, text, age }));
        }
        for line in ["", "3", "3 4", "x 4 text", "3 x text", "-1 4 text"] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn a_text_is_one_line_and_cut_at_a_character() {
        let cut = Reported::new(1, None, &"ä".repeat(150)).text;
        assert_eq!(cut, "ä".repeat(100));
        assert_eq!(Reported::new(1, None, &format!("x{}", "ä".repeat(150))).text.len(), 199);
        assert_eq!(Reported::new(1, None, "a\nb\u{0}c").line(), "1 - a b c");
        let long = format!("1 2 {}", "x".repeat(5_000));
        assert_eq!(read(&long).map(|progress| progress.text.len()), Some(200));
    }
}
