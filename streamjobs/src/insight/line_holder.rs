//! The job that has the place for which other jobs of its key wait.

use std::fmt;
use std::time::Duration;

use crate::model::cause::bounded_text;
use crate::model::entry::EntryId;
use crate::store::{HeldPlace, LineFacts};

/// The job whose place the longest line of a group waits for. `Display` says what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LineHolder {
    /// The key of the line.
    pub key: String,
    /// Jobs that wait in the line.
    pub jobs: u64,
    /// The job. If there are several, this is the one that has had its place for the longest time. `None` if no such
    /// job was found.
    pub holder: Option<Holder>,
    /// How many places of the group were examined, on the partition of the line.
    pub looked: u64,
    /// Whether these are all places of the group on that partition.
    pub complete: bool,
}

/// A job that has a place in its group's limit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Its event id; `None` if its entry has no event id, or is gone.
    pub event_id: Option<String>,
    /// Its entry in the stream, or in the lane if it [waited](Self::waited) before.
    pub entry: EntryId,
    /// Whether it waited in a line, or for a retry, before it got this place.
    pub waited: bool,
    /// The longest time for which it can have had the place: the time since its entry was written, by the server's
    /// clock.
    pub since: Duration,
    /// Where it is.
    pub state: HolderState,
}

/// Where a job with a place is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HolderState {
    /// It was delivered to a consumer: it runs, or waits for a slot there.
    Pending {
        /// The consumer.
        consumer: String,
        /// How long it has not been renewed; `None` if another client released it.
        idle: Option<Duration>,
    },
    /// It is released: the next claim takes it.
    Released,
    /// It waits for a retry, and keeps its place.
    Retrying {
        /// How long until it is due.
        due_in: Duration,
    },
    /// It is moving from one list to another, or is gone: a place without a job is soon freed.
    Moving,
}

impl LineHolder {
    pub(crate) fn of(facts: LineFacts) -> Self {
        let LineFacts { now, key, jobs, place, looked, complete } = facts;
        let holder = place.map(|place| Holder::of(place, now.0));
        Self { key, jobs, holder, looked, complete }
    }
}

impl Holder {
    fn of(place: HeldPlace, now: u64) -> Self {
        let HeldPlace { inlet, entry, event_id, consumer, idle, due } = place;
        let state = match (consumer, due) {
            (Some(consumer), _) if consumer.is_empty() => HolderState::Released,
            (Some(consumer), _) => HolderState::Pending { consumer, idle },
            (None, Some(due)) => {
                HolderState::Retrying { due_in: Duration::from_millis(due.saturating_sub(now)) }
            }
            (None, None) => HolderState::Moving,
        };
        let since = Duration::from_millis(now.saturating_sub(entry.milliseconds()));
        Self { event_id, entry, waited: inlet.is_lane(), since, state }
    }
}

impl HolderState {
    /// One word, stable: `pending`, `released`, `retrying` or `moving`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Released => "released",
            Self::Retrying { .. } => "retrying",
            Self::Moving => "moving",
        }
    }
}

impl fmt::Display for LineHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holder {
            Some(holder) => holder.fmt(f),
            None if self.complete => f.write_str("place no job has now"),
            None => write!(f, "job is not among the {} places that were examined", self.looked),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.event_id {
            Some(id) => write!(f, "job {}", bounded_text(id))?,
            None => write!(f, "job of entry {}", self.entry)?,
        }
        match &self.state {
            HolderState::Pending { consumer, .. } => write!(f, " runs in {consumer}")?,
            HolderState::Released => f.write_str(" is released, to be claimed,")?,
            HolderState::Retrying { due_in } => {
                write!(f, " waits for its retry, due in {} s,", due_in.as_secs())?;
            }
            HolderState::Moving => f.write_str(" is not pending")?,
        }
        write!(f, " and has had its place for {} s at most", self.since.as_secs())?;
        match &self.state {
            HolderState::Pending { idle: Some(idle), .. } if *idle >= IDLE_MIN => {
                write!(f, ", not renewed for {} s", idle.as_secs())
            }
            _ => Ok(()),
        }
    }
}

/// An idle time above this is mentioned. Entries in flight are renewed at a third of their lease.
const IDLE_MIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Inlet, ServerTime};

    fn said(place: Option<HeldPlace>, complete: bool) -> String {
        let facts = LineFacts {
            now: ServerTime(200_000),
            key: "c-7".to_owned(),
            jobs: 12,
            place,
            looked: 2_000,
            complete,
        };
        LineHolder::of(facts).to_string()
    }

    #[test]
    fn each_state_of_a_holder_is_told_in_words() {
        let place = HeldPlace {
            inlet: Inlet::STREAM,
            entry: EntryId::new(20_000, 0),
            event_id: Some("e-1".to_owned()),
            consumer: Some("a".to_owned()),
            idle: Some(Duration::from_secs(2)),
            due: None,
        };
        let of = |place: HeldPlace| said(Some(place), true);
        assert_eq!(of(place.clone()), "job e-1 runs in a and has had its place for 180 s at most");
        let silent = HeldPlace { idle: Some(Duration::from_secs(90)), ..place.clone() };
        assert!(of(silent).ends_with(" at most, not renewed for 90 s"));
        let released = HeldPlace { consumer: Some(String::new()), ..place.clone() };
        assert!(of(released).starts_with("job e-1 is released, to be claimed, and has "));
        let retrying = HeldPlace { consumer: None, due: Some(208_000), ..place.clone() };
        assert!(of(retrying).starts_with("job e-1 waits for its retry, due in 8 s, and has "));
        let gone = HeldPlace { consumer: None, event_id: None, ..place };
        assert!(of(gone).starts_with("job of entry 20000-0 is not pending and has "));
        assert_eq!(said(None, true), "place no job has now");
        assert_eq!(said(None, false), "job is not among the 2000 places that were examined");
    }
}
