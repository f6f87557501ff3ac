//! The event of schedules whose handlers need no payload of their own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::model::entry::Fields;
use crate::model::event::codec::{decode, encode_json};
use crate::model::event::{DecodeError, EncodeError, Event, Payload};

/// The event that a schedule without an event of its own publishes: one occurrence.
///
/// ```
/// use streamjobs::schedule::Tick;
/// use streamjobs::handler;
///
/// #[handler(group = "reports")]
/// async fn nightly(tick: Tick) {
///     println!("{} of {:?}, {} missed before", tick.schedule, tick.occurrence(), tick.missed);
/// }
/// ```
///
/// # Delivery
///
/// The event id is derived from the stream, the schedule and the occurrence. So an occurrence that a failover of the
/// server has undone, and that is published again, has the same event id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tick {
    /// The name of the schedule.
    pub schedule: String,
    /// The time of the occurrence, in milliseconds since 1970. For a run by hand, the time of that run.
    pub at: u64,
    /// How many occurrences before this one were missed and are not published.
    #[serde(default)]
    pub missed: u64,
    /// How late it was published, in milliseconds, by the process's estimate of the server's clock.
    #[serde(default)]
    pub late: u64,
}

impl Tick {
    pub(crate) fn new(schedule: &str, at: u64, missed: u64, late: u64) -> Self {
        Self { schedule: schedule.to_owned(), at, missed, late }
    }

    /// The time of the occurrence.
    #[must_use]
    pub fn occurrence(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.at)
    }

    /// How late it was published.
    #[must_use]
    pub fn lateness(&self) -> Duration {
        Duration::from_millis(self.late)
    }
}

impl Event for Tick {
    const STREAM: &'static str = "ticks";
    const TYPES: &'static [&'static str] = &[TICK];

    fn event_type(&self) -> &'static str {
        TICK
    }

    fn encode(&self) -> Result<Fields, EncodeError> {
        encode_json(self)
    }

    /// Accepts any event type, because the ticks of a handler's own schedule have a type of their own.
    fn decode(_event_type: &str, payload: Payload<'_>) -> Result<Self, DecodeError> {
        decode(payload)
    }
}

const TICK: &str = "schedule.tick";
