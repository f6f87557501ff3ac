//! Notes of jobs that are done, kept for a while for inspection.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;

use crate::model::cause::shown;
use crate::model::entry::{Entry, EntryAddress, EntryId, Fields};

/// How long notes of jobs that are done are kept, and how many at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepDone {
    /// How long a note is kept.
    pub time: Duration,
    /// How many notes of one group on one partition are kept.
    pub most: NonZeroU32,
}

impl KeepDone {
    /// The setting with this time, and with the default number if none is given.
    pub(crate) fn new(time: Duration, most: Option<NonZeroU32>) -> Self {
        Self { time, most: most.unwrap_or(MOST) }
    }

    /// What is wrong with the setting.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.time < TIME_MIN || self.time > TIME_MAX {
            let [time, min, max] = [self.time, TIME_MIN, TIME_MAX].map(shown);
            faults.push(format!("keep_done {time} is not between {min} and {max}"));
        }
        if self.most > MOST_MAX {
            faults.push(format!("keep_done_max {} is more than {MOST_MAX}", self.most));
        }
        faults
    }
}

/// A job that is done, before it is noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoneNote {
    /// The event id.
    pub event_id: String,
    /// The event type.
    pub event_type: Option<String>,
    /// The key of the event.
    pub key: Option<String>,
    /// The entry that was published.
    pub origin: EntryId,
    /// When the attempt that completed it began, by the server's clock in milliseconds.
    pub began: u64,
    /// How long it ran.
    pub took: Duration,
    /// The number of the attempt.
    pub attempt: u32,
    /// The consumer that ran it.
    pub process: String,
}

impl DoneNote {
    /// The fields of the note's entry.
    pub(crate) fn fields(&self) -> Fields {
        let took = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        let mut fields = Fields::with_capacity(8);
        let mut push = |name: &'static str, value: String| {
            fields.push((Bytes::from_static(name.as_bytes()), value.into()));
        };
        push(ID, self.event_id.clone());
        push(TYPE, cut(self.event_type.as_deref().unwrap_or_default()));
        push(KEY, cut(self.key.as_deref().unwrap_or_default()));
        push(ORIGIN, self.origin.to_string());
        push(BEGAN, self.began.to_string());
        push(TOOK, took.to_string());
        push(ATTEMPT, self.attempt.to_string());
        push(PROCESS, cut(&self.process));
        fields
    }
}

/// A job that is done, as it was noted. Its handler has the option `keep_done`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FinishedJob {
    /// The id of the note; its milliseconds are when it was written, by the server's clock.
    pub id: EntryId,
    /// The number of its partition; `None` if the stream has only one.
    pub partition: Option<u16>,
    /// The event id.
    pub event_id: String,
    /// The event type, if the entry has one, cut to 200 bytes. The key is cut in the same way.
    pub event_type: Option<String>,
    /// The key of the event, if it has one.
    pub key: Option<String>,
    /// The entry that was published. The milliseconds of its id are when it was published, by the server's clock.
    pub origin: Option<EntryId>,
    /// When the attempt that completed it began, by the server's clock in milliseconds since 1970.
    pub began: u64,
    /// How long that attempt ran.
    pub took: Duration,
    /// The number of that attempt: the failures before it plus 1.
    pub attempt: u32,
    /// The consumer that ran it: its process.
    pub process: String,
}

impl FinishedJob {
    /// Where the note is, for the page that begins after it.
    #[must_use]
    pub fn address(&self) -> EntryAddress {
        EntryAddress { id: self.id, partition: self.partition }
    }

    /// When its handler had returned, by the server's clock in milliseconds since 1970.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.began.saturating_add(u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX))
    }

    /// Reads a note; `None` for an entry of another form. Parts of it that cannot be read count as zero or absent.
    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        let text = |name: &str| entry.text(name).filter(|text| !text.is_empty());
        let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Some(Self {
            id: entry.id(),
            partition: entry.address().partition,
            event_id: text(ID)?.to_owned(),
            event_type: text(TYPE).map(str::to_owned),
            key: text(KEY).map(str::to_owned),
            origin: text(ORIGIN).and_then(|id| id.parse().ok()),
            began: number(BEGAN),
            took: Duration::from_millis(number(TOOK)),
            attempt: u32::try_from(number(ATTEMPT)).unwrap_or(u32::MAX),
            process: text(PROCESS).unwrap_or_default().to_owned(),
        })
    }
}

/// `done in 3.2s by web-1, attempt 2`, without the time of day, which programs show in their own way.
impl fmt::Display for FinishedJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "done in {:?} by {}, attempt {}", self.took, self.process, self.attempt)
    }
}

/// The beginning of a text, cut at a character.
fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

const ID: &str = "id";
const TYPE: &str = "type";
const KEY: &str = "key";
const ORIGIN: &str = "origin";
const BEGAN: &str = "at";
const TOOK: &str = "ms";
const ATTEMPT: &str = "attempt";
const PROCESS: &str = "by";
const TEXT_BYTES_MAX: usize = 200;
/// How many notes are kept by default.
const MOST: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
const MOST_MAX: NonZeroU32 = NonZeroU32::new(1_000_000).unwrap();
const TIME_MIN: Duration = Duration::from_secs(1);
const TIME_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> DoneNote {
        DoneNote {
            event_id: "e-1".to_owned(),
            event_type: Some("order.placed".to_owned()),
            key: None,
            origin: EntryId::new(5, 1),
            began: 1_764_000_000_000,
            took: Duration::from_millis(3_200),
            attempt: 2,
            process: "web-1".to_owned(),
        }
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let job = FinishedJob::of(&Entry::new(EntryId::new(9, 0), note().fields())).unwrap();
        let DoneNote { event_id, event_type, key, origin, began, took, attempt, process } = note();
        assert_eq!((job.event_id, job.event_type, job.key), (event_id, event_type, key));
        assert_eq!((job.origin, job.began, job.took), (Some(origin), began, took));
        assert_eq!((job.attempt, job.process), (attempt, process));
        let long = DoneNote { key: Some("ä".repeat(300)), ..note() };
        let job = FinishedJob::of(&Entry::new(EntryId::ZERO, long.fields())).unwrap();
        assert_eq!(job.key.map(|key| key.len()), Some(200));
        assert_eq!(FinishedJob::of(&Entry::new(EntryId::ZERO, Fields::new())), None);
    }

    #[test]
    fn times_and_numbers_have_limits() {
        let faults = |time, most| KeepDone::new(time, NonZeroU32::new(most)).faults();
        assert!(faults(Duration::from_secs(1), 0).is_empty());
        assert_eq!(KeepDone::new(TIME_MIN, None).most.get(), 10_000);
        assert!(faults(Duration::ZERO, 9)[0].contains("keep_done 0ns is not between 1s"));
        assert_eq!(faults(TIME_MAX * 2, 2_000_000).len(), 2);
    }
}
