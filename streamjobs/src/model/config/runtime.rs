//! Settings of a runtime.

use std::num::NonZeroU64;
use std::time::Duration;

use super::AlertRules;
use crate::model::cause::shown;

/// How the runtime as a whole behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RuntimeConfig {
    pub(crate) block: Duration,
    pub(crate) read_margin: Duration,
    pub(crate) grace: Duration,
    pub(crate) promote_interval: Duration,
    pub(crate) janitor_interval: Duration,
    pub(crate) watch_interval: Duration,
    pub(crate) dead_letters_max: Option<NonZeroU64>,
    pub(crate) alerts: AlertRules,
    /// Whether metrics distinguish the partitions of a stream.
    pub(crate) partition_metrics: bool,
    /// Whether the work of groups is noted for charts.
    pub(crate) trends: bool,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            block: Duration::from_secs(3),
            read_margin: Duration::from_secs(2),
            grace: Duration::from_secs(25),
            promote_interval: Duration::from_millis(500),
            janitor_interval: Duration::from_secs(10),
            watch_interval: Duration::from_secs(5),
            dead_letters_max: None,
            alerts: AlertRules::default(),
            partition_metrics: false,
            trends: true,
        }
    }
}

impl RuntimeConfig {
    /// What is wrong with the settings, relations between them included.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut within = |name: &str, value: Duration, min: Duration, max: Duration| {
            if value < min || value > max {
                let (value, min, max) = (shown(value), shown(min), shown(max));
                faults.push(format!("{name} {value} is not between {min} and {max}"));
            }
        };
        let (millisecond, minute) = (Duration::from_millis(1), Duration::from_secs(60));
        let (hour, read) = (minute * 60, self.block + self.read_margin);
        within("block", self.block, millisecond, minute);
        within("read_deadline", read, self.block + READ_MARGIN_MIN, minute * 2);
        within("grace", self.grace, Duration::ZERO, hour * 24);
        within("promote_interval", self.promote_interval, millisecond, minute);
        within("janitor_interval", self.janitor_interval, millisecond, hour);
        within("watch_interval", self.watch_interval, millisecond * 10, hour);
        faults
    }
}

/// With a read margin below this, reads are cut off while the server still answers them.
const READ_MARGIN_MIN: Duration = Duration::from_millis(100);
