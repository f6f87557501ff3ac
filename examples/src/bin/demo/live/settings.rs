//! Settings of the handlers that the page can change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How handlers behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// How long a job takes, in milliseconds.
    pub(crate) latency_ms: u64,
    /// How many attempts of a hundred fail.
    pub(crate) failure_percent: u8,
    /// Whether poison orders succeed.
    pub(crate) repaired: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self { latency_ms: 25, failure_percent: 0, repaired: false }
    }
}

impl Setting {
    /// The setting, limited to values within the handlers' timeout.
    pub(crate) fn clamped(self) -> Self {
        let latency_ms = self.latency_ms.min(LATENCY_MAX);
        Self { latency_ms, failure_percent: self.failure_percent.min(100), ..self }
    }

    pub(crate) fn latency(self) -> Duration {
        Duration::from_millis(self.latency_ms)
    }
}

/// The settings of one process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    setting: Setting,
    /// Deliveries to drop, by consumer.
    drops: HashMap<String, u32>,
}

impl Settings {
    pub(crate) fn setting(&self) -> Setting {
        self.lock().setting
    }

    pub(crate) fn set(&self, setting: Setting) {
        self.lock().setting = setting.clamped();
    }

    /// Makes a consumer drop its next deliveries, and returns how many it will drop.
    pub(crate) fn drop_next(&self, consumer: &str, count: u32) -> u32 {
        let mut state = self.lock();
        let drops = state.drops.entry(consumer.to_owned()).or_default();
        *drops = drops.saturating_add(count).min(DROPS_MAX);
        *drops
    }

    /// Whether to drop this delivery.
    pub(crate) fn take_drop(&self, consumer: &str) -> bool {
        let mut state = self.lock();
        match state.drops.get_mut(consumer) {
            Some(drops) if *drops > 0 => {
                *drops -= 1;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn drops_of(&self, consumer: &str) -> u32 {
        self.lock().drops.get(consumer).copied().unwrap_or(0)
    }

    pub(crate) fn reset(&self) {
        *self.lock() = State::default();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Half of the handlers' timeout.
const LATENCY_MAX: u64 = 30_000;
pub(crate) const DROPS_MAX: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_counted_down_by_consumer() {
        let settings = Settings::default();
        assert_eq!((settings.drop_next("a", 2), settings.drop_next("a", 1)), (2, 3));
        assert!(!settings.take_drop("b"));
        assert!((0..3).all(|_| settings.take_drop("a")) && !settings.take_drop("a"));
        assert_eq!(settings.drop_next("a", u32::MAX), DROPS_MAX);
    }

    #[test]
    fn settings_stay_within_the_timeout_of_handlers() {
        let wild = Setting { latency_ms: u64::MAX, failure_percent: 255, repaired: true };
        let held = wild.clamped();
        assert_eq!((held.latency_ms, held.failure_percent), (LATENCY_MAX, 100));
    }
}
