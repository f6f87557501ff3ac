//! Which starts the rate of a group has granted, in memory.

use crate::model::rate::Pace;
use crate::store::rates::{DECLARED_MICROS, Rate};

/// Up to when starts of a group's jobs are granted, and at which rate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GrantedUpTo {
    /// In microseconds.
    pub(super) tat: u64,
    /// The rate in force from the code, when its process joined the group, and when such a process last
    /// asked, both in microseconds.
    pub(super) declared: Option<(Rate, u64, u64)>,
}

impl GrantedUpTo {
    /// The rate in force from the code, if its processes have asked lately.
    pub(super) fn declared(&self, clock: u64) -> Option<(Rate, u64)> {
        let (rate, by, seen) = self.declared?;
        let valid = DECLARED_MICROS + 2 * micros(Pace::of(&rate).interval);
        (clock.abs_diff(seen) <= valid).then_some((rate, by))
    }
}

/// Microseconds of a clock, or between two readings. The values stay far below those that a float cannot
/// represent exactly.
pub(super) fn exact(micros: u64) -> f64 {
    micros as f64
}

/// Back to microseconds. A value below zero becomes zero.
pub(super) fn micros(exact: f64) -> u64 {
    exact as u64
}
