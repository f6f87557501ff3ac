//! The heartbeat: what a consumer writes about itself, and whether that shows it to be alive.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::limit::{CodeLimit, HoldRule};
use crate::model::rate::Rate;

/// What a consumer writes about itself. Fields that an older or newer version does not write have
/// their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Heartbeat {
    /// The host name.
    pub(crate) host: String,
    /// The process id on that host.
    pub(crate) process: u32,
    /// This crate's version.
    pub(crate) version: String,
    /// When the consumer started, by the server's clock in milliseconds.
    pub(crate) started: u64,
    /// The interval between heartbeats, in milliseconds. The name in the store is older than this field's name.
    #[serde(rename = "beat_every")]
    pub(crate) interval_millis: u64,
    /// The lease of its entries, in milliseconds. Other processes claim entries that were not renewed for that long,
    /// whatever their own lease is. Zero from versions that do not write it.
    #[serde(rename = "lease")]
    pub(crate) lease_millis: u64,
    /// Jobs in flight that have a slot.
    pub(crate) in_flight: u64,
    /// Jobs in flight without a slot, because the server refuses their retry or dead letter.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) refused: u64,
    /// Jobs that may be in flight at once.
    pub(crate) slots: u64,
    /// Handlers that succeeded since it started; older versions do not write it.
    pub(crate) done: Option<u64>,
    /// Attempts that failed since it started.
    pub(crate) failed: Option<u64>,
    /// Handlers that succeeded within the last five minutes; older versions do not write it.
    pub(crate) recent_done: Option<u64>,
    /// Attempts that failed within the last five minutes.
    pub(crate) recent_failed: Option<u64>,
    /// Entries that it claimed from others since it started.
    pub(crate) claimed: Option<u64>,
    /// The consumer that, within the last five minutes, claimed a running job although the job's lease had not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) claimed_early_by: Option<String>,
    /// The event types that it has handlers for, sorted; `*` is a handler that takes every type. Older
    /// versions do not write them, and may have a handler for any type.
    pub(crate) types: Option<Vec<String>>,
    /// The limit on the group's jobs over all processes, as this process states it. `None` without a limit, and from
    /// versions without limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<String>,
    /// The limit whose number operators can change, as it is in the code. `None` without such a limit, and from
    /// versions that do not follow such changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<String>,
    /// The rate in the code, in its stored form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<String>,
    /// The set of slots that it shares with other groups of its process. `None` if its slots are its own, and from
    /// versions that know none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shared: Option<SharedHere>,
    /// Whether the list leaves out some types, so that the consumer may have a handler for any type.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) types_cut: bool,
}

/// A set of shared slots as one of its groups sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SharedHere {
    /// Its name.
    pub(crate) set: String,
    /// The weight of the group.
    pub(crate) weight: u32,
    /// How many slots the set has.
    pub(crate) slots: u64,
    /// How many are in use.
    pub(crate) in_use: u64,
}

impl Heartbeat {
    /// The heartbeat of this process: `started` is the server's clock in milliseconds.
    pub(crate) fn this_process(started: u64, interval: Duration, lease: Duration) -> Self {
        // A host may have no readable name.
        let host = hostname::get().map(|name| name.to_string_lossy().into_owned());
        Self {
            host: host.unwrap_or_default(),
            process: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            lease_millis: milliseconds(lease),
            ..Self::default()
        }
        .with_interval(interval)
    }

    /// The same heartbeat with the limit of the group over all processes.
    pub(crate) fn with_limit(self, limit: Option<HoldRule>) -> Self {
        let changeable = limit.and_then(CodeLimit::of);
        Self { limits: limit.map(HoldRule::text), limit: changeable.map(CodeLimit::stored), ..self }
    }

    /// The same heartbeat with another interval from now on.
    pub(crate) fn with_interval(self, interval: Duration) -> Self {
        Self { interval_millis: milliseconds(interval), ..self }
    }

    /// The same heartbeat with the event types that the consumer has handlers for.
    pub(crate) fn with_types<'a>(self, types: impl IntoIterator<Item = &'a str>) -> Self {
        let all = types.into_iter().collect::<BTreeSet<_>>();
        let mut bytes = 0;
        let listed = all.iter().take(TYPES_MAX).take_while(|name| {
            bytes += name.len();
            bytes <= TYPES_BYTES_MAX
        });
        let listed = listed.map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Self { types_cut: listed.len() < all.len(), types: Some(listed), ..self }
    }

    /// The same heartbeat with the rate in the code.
    pub(crate) fn with_rate(self, rate: Option<Rate>) -> Self {
        Self { rate: rate.map(|rate| rate.stored()), ..self }
    }

    /// The rate in the code.
    pub(crate) fn rate(&self) -> Option<Rate> {
        Rate::read(self.rate.as_deref()?)
    }

    pub(crate) fn write(&self) -> String {
        // Serializing numbers and strings does not fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// How long its entries must be idle before others may claim them; `default` if the heartbeat does not say.
    pub(crate) fn lease(&self, default: Duration) -> Duration {
        match self.lease_millis {
            // A version that does not write its lease sends three or more heartbeats in each lease.
            0 => default.max(Duration::from_millis(self.interval_millis.saturating_mul(3))),
            lease => Duration::from_millis(lease),
        }
    }

    /// Whether a consumer whose last heartbeat has this age is alive: it may have missed two heartbeats.
    pub(crate) fn is_alive(&self, age: Duration) -> bool {
        age <= self.valid_for()
    }

    /// How long after this heartbeat the consumer counts as alive.
    pub(crate) fn valid_for(&self) -> Duration {
        let interval = match self.interval_millis {
            0 => INTERVAL_DEFAULT,
            interval => Duration::from_millis(interval),
        };
        interval.saturating_mul(3).saturating_add(MARGIN)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The interval that is assumed for a consumer that does not write its own.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// Added to three intervals, after which a consumer without another heartbeat counts as dead: an allowance for jitter
/// and a slow answer.
const MARGIN: Duration = Duration::from_secs(1);
/// A heartbeat lists at most this many event types.
const TYPES_MAX: usize = 200;
/// The names of the listed event types have at most this many bytes together.
const TYPES_BYTES_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_read_as_written_and_missing_fields_have_defaults() {
        let heartbeat = Heartbeat::this_process(7, Duration::from_secs(3), Duration::from_secs(9));
        assert!(heartbeat.process > 0 && !heartbeat.version.is_empty());
        assert_eq!(Heartbeat::read(&heartbeat.write()), Some(heartbeat));
        assert_eq!(
            Heartbeat::read(r#"{"host":"a","new":1}"#).map(|heartbeat| heartbeat.host),
            Some("a".into())
        );
        assert_eq!(Heartbeat::read("nonsense"), None);
    }

    #[test]
    fn event_types_are_sorted_and_a_list_that_is_cut_says_so() {
        let few = Heartbeat::default().with_types(["b", "a", "*"]);
        assert_eq!(few.types.as_deref(), Some(&["*".into(), "a".into(), "b".into()][..]));
        assert!(!few.types_cut && !few.write().contains("types_cut"));
        assert_eq!(Heartbeat::read("{}").unwrap().types, None, "an older version");
        let names = (0..300).map(|number| format!("{number:03}")).collect::<Vec<_>>();
        let many = Heartbeat::default().with_types(names.iter().map(String::as_str));
        assert!(many.types_cut && many.types.as_ref().unwrap().len() == 200);
        assert_eq!(Heartbeat::read(&many.write()), Some(many));
        let long = ["x".repeat(5_000), "y".repeat(5_000)];
        let long = Heartbeat::default().with_types(long.iter().map(String::as_str));
        assert!(long.types_cut && long.types.unwrap().len() == 1);
    }

    #[test]
    fn a_consumer_is_alive_until_it_has_missed_two_heartbeats() {
        let heartbeat = Heartbeat { interval_millis: 3_000, ..Heartbeat::default() };
        assert!(
            heartbeat.is_alive(Duration::from_secs(10))
                && !heartbeat.is_alive(Duration::from_secs(11))
        );
        assert!(Heartbeat::default().is_alive(Duration::from_secs(31)));
    }
}
