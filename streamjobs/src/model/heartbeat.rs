//! What a consumer says about itself with every beat, and whether it lives by that.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a consumer says about itself. Read totally: what an older or newer version does not say has
/// its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Heartbeat {
    /// The machine.
    pub(crate) host: String,
    /// The process id there.
    pub(crate) process: u32,
    /// This crate's version.
    pub(crate) version: String,
    /// When the consumer started, by the server's clock in milliseconds.
    pub(crate) started: u64,
    /// How often it beats, in milliseconds.
    pub(crate) beat_every: u64,
    /// Jobs that it holds.
    pub(crate) in_flight: u64,
    /// Jobs that it may hold at once.
    pub(crate) slots: u64,
    /// Handlers that succeeded since it started; older versions do not say.
    pub(crate) done: Option<u64>,
    /// Attempts that failed since it started.
    pub(crate) failed: Option<u64>,
    /// Entries that it claimed from others since it started.
    pub(crate) claimed: Option<u64>,
}

impl Heartbeat {
    /// What this process says: `started` is the server's clock in milliseconds.
    pub(crate) fn this_process(started: u64, beat_every: Duration) -> Self {
        // A machine without a readable name is still one.
        let host = hostname::get().map(|name| name.to_string_lossy().into_owned());
        Self {
            host: host.unwrap_or_default(),
            process: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            ..Self::default()
        }
        .with_interval(beat_every)
    }

    /// What a consumer says whose beats come at another pace from now on.
    pub(crate) fn with_interval(self, interval: Duration) -> Self {
        let beat_every = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        Self { beat_every, ..self }
    }

    pub(crate) fn write(&self) -> String {
        // Numbers and texts can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Whether a consumer with a beat of this age lives: it may have missed two.
    pub(crate) fn lives(&self, age: Duration) -> bool {
        let every = match self.beat_every {
            0 => BEAT_EVERY,
            every => Duration::from_millis(every),
        };
        age <= every.saturating_mul(3).saturating_add(BEAT_MARGIN)
    }
}

/// What is assumed of a consumer that does not say how often it beats.
const BEAT_EVERY: Duration = Duration::from_secs(10);
/// Jitter, and a slow answer.
const BEAT_MARGIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_what_is_missing_has_its_default() {
        let about = Heartbeat::this_process(7, Duration::from_secs(3));
        assert!(about.process > 0 && !about.version.is_empty());
        assert_eq!(Heartbeat::read(&about.write()), Some(about));
        assert_eq!(
            Heartbeat::read(r#"{"host":"a","new":1}"#).map(|about| about.host),
            Some("a".into())
        );
        assert_eq!(Heartbeat::read("nonsense"), None);
    }

    #[test]
    fn a_consumer_lives_until_it_has_missed_two_beats() {
        let about = Heartbeat { beat_every: 3_000, ..Heartbeat::default() };
        assert!(about.lives(Duration::from_secs(10)) && !about.lives(Duration::from_secs(11)));
        assert!(Heartbeat::default().lives(Duration::from_secs(31)));
    }
}
