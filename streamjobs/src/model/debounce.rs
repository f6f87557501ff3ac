//! Debouncing: while an event waits, another event that counts as the same replaces it.

use std::time::Duration;

use crate::model::event::Event;
use crate::model::name::{EventId, NameError};
use crate::model::unique::{self, Same, UniqueDigest, UniqueFault};

/// How an event replaces a waiting event that counts as the same, for
/// [`Client::publish_debounced`](crate::Client::publish_debounced).
///
/// [`Unique`](crate::unique::Unique) says which events count as the same.
///
/// ```
/// use std::time::Duration;
/// use streamjobs::unique::Debounce;
///
/// // A second after the last publication, but at the latest a minute after the first one.
/// let quiet = Debounce::new(Duration::from_secs(1), Duration::from_secs(60));
/// // At most once a minute, with the newest payload.
/// let minute = Duration::from_secs(60);
/// let throttled = Debounce::new(minute, minute).keep_time();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Debounce {
    same: Same,
    delay: Duration,
    wait_max: Duration,
    keeps_time: bool,
}

/// When a debounced event is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebounceTimes {
    /// How long after a publication it is due, if no other publication follows.
    pub delay: Duration,
    /// How long after the first publication it is due at the latest.
    pub wait_max: Duration,
    /// Whether it stays due at the time that the first publication set.
    pub keeps_time: bool,
}

impl Debounce {
    /// The event waits for `delay`. An event that counts as the same and is published meanwhile replaces it and
    /// restarts the delay, but no event is due later than `max_wait` after the first publication. Without that bound,
    /// an event that is published again and again before it is due would never run.
    ///
    /// Both times are from a millisecond to a hundred years, and `max_wait` is not below `delay`.
    pub fn new(delay: Duration, max_wait: Duration) -> Self {
        Self { same: Same::Fields, delay, wait_max: max_wait, keeps_time: false }
    }

    /// A publication that replaces a waiting event keeps that event's time: the first publication decides when, the
    /// last one decides what. By default a replacement restarts the delay.
    pub fn keep_time(mut self) -> Self {
        self.keeps_time = true;
        self
    }

    /// Compares this text instead of fields of the event, in addition to the event type and the event's own key.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.same = Same::Key(key.into());
        self
    }

    /// Checked times.
    pub(crate) fn times(&self) -> Result<DebounceTimes, UniqueFault> {
        let (delay, wait_max) =
            (unique::time("the delay", self.delay)?, unique::time("max_wait", self.wait_max)?);
        match wait_max < delay {
            true => Err(UniqueFault::WaitBelowDelay { delay, wait_max }),
            false => Ok(DebounceTimes { delay, wait_max, keeps_time: self.keeps_time }),
        }
    }

    /// The digest of an event.
    pub(crate) fn digest<E: Event>(&self, event: &E) -> Result<UniqueDigest, UniqueFault> {
        self.same.digest(event)
    }
}

/// The name under which a debounced event of this digest waits.
pub(crate) fn waiting_name(digest: &UniqueDigest) -> Result<EventId, NameError> {
    EventId::new(format!("{WAITING}{digest}"))
}

/// The prefix of the name of a debounced event that waits.
const WAITING: &str = "unique:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_cannot_be_meant_are_refused_by_name() {
        let second = Duration::from_secs(1);
        let debounce = |debounce: Debounce| debounce.times().unwrap_err().to_string();
        assert!(debounce(Debounce::new(Duration::ZERO, second)).contains("delay"));
        assert!(debounce(Debounce::new(second, Duration::MAX)).contains("max_wait"));
        assert!(debounce(Debounce::new(second * 2, second)).contains("shorter than the delay 2s"));
        let times = Debounce::new(second, second).keep_time().times().unwrap();
        assert!(times.keeps_time && times.delay == second);
    }

    #[test]
    fn a_debounced_event_waits_under_a_name_of_its_digest() {
        let digest = UniqueDigest::of_key("a", None, "x").unwrap();
        assert_eq!(waiting_name(&digest).unwrap().as_str(), format!("unique:{digest}"));
    }
}
