//! The past attempts at a job, which travel with it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::entry::Fields;
use crate::model::outcome::Outcome;

/// The end of an attempt that left its job not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttemptEnd {
    /// Its handler returned an error.
    Failed,
    /// Its handler returned a permanent failure.
    Rejected,
    /// Its handler panicked.
    Panicked,
    /// It exceeded its timeout.
    TimedOut,
    /// The entry could not be decoded.
    Undecodable,
    /// Its handler snoozed the job, which does not count as a failure.
    Snoozed,
    /// Its handler snoozed the job until an operator has repaired something.
    Blocked,
    /// The other side has a limit, because of which all jobs of the group waited.
    Limited,
    /// The job was cancelled.
    Cancelled,
    /// A shutdown ended it, after another client had removed its entry.
    Released,
    /// A newer release wrote how it ended, in a word that this release does not know.
    Other,
}

impl AttemptEnd {
    /// How an outcome is recorded; `None` if the job is done after the attempt, or if another attempt has replaced
    /// it.
    pub(crate) fn of(outcome: &Outcome) -> Option<Self> {
        Some(match outcome {
            Outcome::Done | Outcome::AlreadyDone | Outcome::LeaseLost => return None,
            Outcome::Failed(error) if error.is_limited() => Self::Limited,
            Outcome::Failed(error) if error.is_blocked() => Self::Blocked,
            Outcome::Failed(error) if error.is_later() => Self::Snoozed,
            Outcome::Failed(error) if error.is_dead() => Self::Rejected,
            Outcome::Failed(_) => Self::Failed,
            Outcome::Undecodable(_) => Self::Undecodable,
            Outcome::Panicked(_) => Self::Panicked,
            Outcome::TimedOut(_) => Self::TimedOut,
            Outcome::CutOff => Self::Released,
            Outcome::Cancelled => Self::Cancelled,
        })
    }

    /// The end as one word, which does not change between releases.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed_out",
            Self::Undecodable => "undecodable",
            Self::Snoozed => "snoozed",
            Self::Blocked => "blocked",
            Self::Limited => "limited",
            Self::Cancelled => "cancelled",
            Self::Released => "released",
            Self::Other => "other",
        }
    }

    fn parse(word: &str) -> Self {
        ALL.into_iter().find(|end| end.as_str() == word).unwrap_or(Self::Other)
    }
}

/// An attempt at a job that is over.
///
/// `Debug` does not show the error, which may quote the payload.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PastAttempt {
    /// The number of the attempt, as in [`Job::attempt`](crate::Job::attempt). A redrive starts the count again, and a
    /// snoozed attempt has the same number as the attempt after it.
    pub attempt: u32,
    /// How it ended.
    pub end: AttemptEnd,
    /// When it began, by the server's clock in milliseconds since 1970.
    pub began: u64,
    /// How long it ran.
    pub took: Duration,
    /// The consumer that ran it: its process.
    pub process: String,
    /// How often the entry had been delivered, this delivery included. Each delivery before this one ended without a
    /// report: its process died, or lost its lease.
    pub delivery_count: u64,
    /// When the job was to run again, by the server's clock in milliseconds since 1970; `None` if it became a dead
    /// letter.
    pub retry_at: Option<u64>,
    /// Its error, cut after 500 bytes.
    pub error: Option<String>,
}

impl PastAttempt {
    /// Deliveries of the same entry before this attempt that ended without a report.
    #[must_use]
    pub fn lost_before(&self) -> u64 {
        self.delivery_count.saturating_sub(1)
    }

    fn of(line: Line<'_>) -> Self {
        Self {
            attempt: line.attempt,
            end: AttemptEnd::parse(&line.end),
            began: line.at,
            took: Duration::from_millis(line.ms),
            process: line.by.into_owned(),
            delivery_count: line.deliveries,
            retry_at: line.next,
            error: line.error.map(Cow::into_owned),
        }
    }
}

impl fmt::Debug for PastAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PastAttempt")
            .field("attempt", &self.attempt)
            .field("end", &self.end)
            .field("began", &self.began)
            .field("took", &self.took)
            .field("process", &self.process)
            .field("delivery_count", &self.delivery_count)
            .field("retry_at", &self.retry_at)
            .finish_non_exhaustive()
    }
}

/// The last attempts at a job, at most ten, oldest first. The history continues after a redrive.
///
/// `Debug` does not show the errors.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttemptHistory {
    /// The attempts.
    pub attempts: Vec<PastAttempt>,
    /// How many attempts came before these.
    pub left_out: u64,
    /// The attempts as stored: a line of JSON for each.
    text: String,
}

impl AttemptHistory {
    /// Reads the text of [`as_text`](Self::as_text). It leaves out unreadable lines, lines of more than 2 KiB, and
    /// all but the last ten.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let mut lines = text.lines().filter_map(Line::read).collect::<Vec<_>>();
        let first = lines.len().saturating_sub(ATTEMPTS_MAX);
        let lines = lines.split_off(first);
        let left_out = lines.first().map_or(0, |line| line.n.saturating_sub(1));
        let text = lines.iter().filter_map(Line::write).collect::<Vec<_>>().join("\n");
        Self { attempts: lines.into_iter().map(PastAttempt::of).collect(), left_out, text }
    }

    /// The history as text, for an archive.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.text
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Adds the history to the archived fields of a dead letter, so that it continues after a
    /// redrive. Without attempts, nothing is changed.
    pub fn carry(&self, fields: &mut Fields) {
        if self.is_empty() {
            return;
        }
        fields.retain(|(name, _)| name != HISTORY.as_bytes());
        fields.push((Bytes::from_static(HISTORY.as_bytes()), self.text.clone().into()));
    }

    /// The history made of the lines that a job carries, and the line that its dead letter adds.
    pub(crate) fn of(carried: Option<&str>, last: Option<&str>) -> Self {
        match (carried, last) {
            (None, None) => Self::default(),
            (Some(text), None) | (None, Some(text)) => Self::from_text(text),
            (Some(carried), Some(last)) => Self::from_text(&format!("{carried}\n{last}")),
        }
    }
}

impl fmt::Debug for AttemptHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptHistory")
            .field("attempts", &self.attempts)
            .field("left_out", &self.left_out)
            .finish_non_exhaustive()
    }
}

/// An attempt that has just ended, before it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) attempt: u32,
    pub(crate) end: AttemptEnd,
    pub(crate) began: u64,
    pub(crate) took: Duration,
    pub(crate) process: &'a str,
    pub(crate) delivery_count: u64,
    pub(crate) retry_at: Option<u64>,
    pub(crate) error: Option<&'a str>,
}

impl Ended<'_> {
    /// The line of this attempt, which follows the lines that the job carries.
    pub(crate) fn line(&self, carried: Option<&str>) -> String {
        let before = carried.and_then(|text| text.lines().rev().find_map(Line::read));
        let mut line = Line {
            n: before.map_or(1, |line| line.n.saturating_add(1)),
            attempt: self.attempt,
            end: self.end.as_str().into(),
            at: self.began,
            ms: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            by: cut(self.process, PROCESS_BYTES_MAX).into(),
            deliveries: self.delivery_count,
            next: self.retry_at,
            error: self.error.map(|error| cut(error, ERROR_BYTES_MAX).into()),
        };
        let written = line.write().unwrap_or_default();
        if written.len() <= LINE_BYTES_MAX {
            return written;
        }
        // JSON writes a control character as six bytes.
        line.error = self.error.map(|error| cut(error, ERROR_BYTES_MAX / 4).into());
        line.write().unwrap_or_default()
    }

    /// The lines that the job carries from now on. If there are too many, the oldest are dropped.
    pub(crate) fn lines(&self, carried: Option<&str>) -> String {
        let last = self.line(carried);
        let before = carried.unwrap_or_default().lines();
        let kept = before.filter(|line| (1..=LINE_BYTES_MAX).contains(&line.len()));
        let mut kept = kept.collect::<Vec<_>>();
        kept.push(&last);
        let first = kept.len().saturating_sub(ATTEMPTS_MAX);
        kept.get(first..).unwrap_or_default().join("\n")
    }
}

/// What is stored of one attempt. Members that a newer release adds are ignored.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    /// Its number among all attempts at the job, from 1.
    n: u64,
    attempt: u32,
    #[serde(borrow)]
    end: Cow<'a, str>,
    at: u64,
    ms: u64,
    #[serde(borrow)]
    by: Cow<'a, str>,
    deliveries: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
}

impl<'a> Line<'a> {
    fn read(text: &'a str) -> Option<Self> {
        (text.len() <= LINE_BYTES_MAX).then(|| serde_json::from_str(text).ok()).flatten()
    }

    fn write(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }
}

/// The beginning of a text, cut at a character.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The field of a job with its past attempts.
pub(crate) const HISTORY: &str = "sj-history";
/// How many attempts a job carries at most.
const ATTEMPTS_MAX: usize = 10;
const ERROR_BYTES_MAX: usize = 500;
const PROCESS_BYTES_MAX: usize = 128;
/// The longest line that is read, longer than any that is written: an error that JSON would lengthen too much is cut
/// further.
const LINE_BYTES_MAX: usize = 2 * 1024;
const ALL: [AttemptEnd; 10] = [
    AttemptEnd::Failed,
    AttemptEnd::Rejected,
    AttemptEnd::Panicked,
    AttemptEnd::TimedOut,
    AttemptEnd::Undecodable,
    AttemptEnd::Snoozed,
    AttemptEnd::Blocked,
    AttemptEnd::Limited,
    AttemptEnd::Cancelled,
    AttemptEnd::Released,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::JobError;

    const SECOND: Duration = Duration::from_secs(1);

    fn ended(attempt: u32, error: &str) -> Ended<'_> {
        Ended {
            attempt,
            end: AttemptEnd::Failed,
            began: 1_764_000_000_000 + u64::from(attempt),
            took: Duration::from_millis(3_200),
            process: "web-1",
            delivery_count: 2,
            retry_at: Some(1_764_000_005_000),
            error: Some(error),
        }
    }

    #[test]
    fn an_attempt_is_read_as_it_was_written() {
        let text = ended(1, "order \"7\" is\\gone").lines(None);
        assert!(!text.contains('\n'), "{text}");
        let history = AttemptHistory::from_text(&text);
        assert_eq!((history.left_out, history.as_text()), (0, &*text));
        let [attempt] = &history.attempts[..] else { panic!("one attempt") };
        assert_eq!((attempt.attempt, attempt.end), (1, AttemptEnd::Failed));
        assert_eq!(
            (attempt.began, attempt.took),
            (1_764_000_000_001, Duration::from_millis(3_200))
        );
        assert_eq!((attempt.process.as_str(), attempt.lost_before()), ("web-1", 1));
        assert_eq!(attempt.retry_at, Some(1_764_000_005_000));
        assert_eq!(attempt.error.as_deref(), Some("order \"7\" is\\gone"));
        assert!(!format!("{history:?}").contains("gone"), "{history:?}");
    }

    #[test]
    fn the_last_ten_attempts_are_kept_and_the_others_counted() {
        let mut text = None;
        for attempt in 1..=13 {
            text = Some(ended(attempt, "no").lines(text.as_deref()));
        }
        let history = AttemptHistory::of(text.as_deref(), None);
        assert_eq!(history.left_out, 3);
        let attempts = history.attempts.iter().map(|attempt| attempt.attempt);
        assert_eq!(attempts.collect::<Vec<_>>(), (4..=13).collect::<Vec<_>>());
        let last = ended(14, "no").line(text.as_deref());
        let of_letter = AttemptHistory::of(text.as_deref(), Some(&last));
        assert_eq!((of_letter.left_out, of_letter.attempts.len()), (4, 10));
        assert_eq!(of_letter.attempts.last().map(|attempt| attempt.attempt), Some(14));
    }

    #[test]
    fn errors_are_cut_at_a_character_and_lines_have_a_limit() {
        let text = ended(1, &"\\\"ä".repeat(400)).lines(None);
        assert!(text.len() <= LINE_BYTES_MAX, "{}", text.len());
        let history = AttemptHistory::from_text(&text);
        let error = history.attempts[0].error.as_deref().unwrap();
        assert!((498..=500).contains(&error.len()), "{}", error.len());
        let text = ended(1, &"\u{1b}".repeat(500)).lines(None);
        assert!(text.len() <= LINE_BYTES_MAX, "{}", text.len());
        let history = AttemptHistory::from_text(&text);
        assert_eq!(history.attempts[0].error.as_deref().unwrap().len(), 125);
    }

    #[test]
    fn what_cannot_be_read_is_left_out_and_what_is_new_ignored() {
        let newer =
            r#"{"n":4,"attempt":2,"end":"eaten","at":5,"ms":6,"by":"w","deliveries":1,"x":[]}"#;
        let long = format!(r#"{{"n":1,"by":"{}"}}"#, "x".repeat(LINE_BYTES_MAX));
        for noise in ["", "x", "{}", "null", r#"{"n":-1}"#, &long] {
            let text = format!("{noise}\n{newer}\n");
            let history = AttemptHistory::from_text(&text);
            assert_eq!((history.attempts.len(), history.left_out), (1, 3), "{noise}");
            assert_eq!(history.attempts[0].end, AttemptEnd::Other);
            assert!(AttemptHistory::from_text(noise).is_empty());
            let lines = ended(3, "no").lines(Some(&text));
            assert_eq!(AttemptHistory::from_text(&lines).attempts.len(), 2, "{lines}");
            assert!(lines.contains(r#""n":5"#), "{lines}");
        }
    }

    #[test]
    fn every_outcome_that_does_not_end_a_job_well_has_a_word_of_its_own() {
        let failed = |error| AttemptEnd::of(&Outcome::Failed(error)).map(AttemptEnd::as_str);
        assert_eq!(failed(JobError::retry("x")), Some("failed"));
        assert_eq!(failed(JobError::retry_after(SECOND, "x")), Some("failed"));
        assert_eq!(failed(JobError::later(SECOND, "x")), Some("snoozed"));
        assert_eq!(failed(JobError::blocked(SECOND, "x")), Some("blocked"));
        assert_eq!(failed(JobError::limited(SECOND, "x")), Some("limited"));
        assert_eq!(failed(JobError::dead("x")), Some("rejected"));
        for outcome in [Outcome::Done, Outcome::AlreadyDone, Outcome::LeaseLost] {
            assert_eq!(AttemptEnd::of(&outcome), None);
        }
        for end in ALL {
            assert_eq!(AttemptEnd::parse(end.as_str()), end);
        }
    }

    #[test]
    fn archived_fields_carry_it_once() {
        let text = ended(1, "no").lines(None);
        let mut fields = vec![("type".into(), "t".into()), (HISTORY.into(), "old".into())];
        AttemptHistory::default().carry(&mut fields);
        assert_eq!(fields[1].1, "old");
        AttemptHistory::from_text(&text).carry(&mut fields);
        assert_eq!((fields.len(), &fields[1].1[..]), (2, text.as_bytes()));
    }
}
