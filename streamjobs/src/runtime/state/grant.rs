//! Starts that the server has granted to a process.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::Starts;

/// Starts that the server has granted, in the order of their times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    pub(super) starts: Starts,
    pub(super) answered: Instant,
    /// How many of them are used, or too old.
    pub(super) used: u32,
    /// How many of these were too old, since the last one that was used.
    pub(super) late: u32,
    pub(super) number: u64,
}

impl Default for Grant {
    fn default() -> Self {
        Self { starts: Starts::default(), answered: Instant::now(), used: 0, late: 0, number: 0 }
    }
}

impl Grant {
    pub(super) fn time_of(&self, number: u32) -> Instant {
        let later = self.starts.interval.saturating_mul(number);
        let offset = Duration::from_micros(self.starts.offset.unsigned_abs());
        let after = match self.starts.offset < 0 {
            true => later.saturating_sub(offset),
            false => later.saturating_add(offset),
        };
        self.answered + after
    }

    pub(super) fn rest(&self) -> u32 {
        self.starts.count.saturating_sub(self.used)
    }

    /// Takes starts whose time has come. Half of the slack is left for the way to the job.
    pub(super) fn take(&mut self, now: Instant, wanted: u32) -> u32 {
        let late = (self.starts.slack / 2).max(LATE_MIN);
        while self.rest() > 0 && self.time_of(self.used) + late < now {
            (self.used, self.late) = (self.used + 1, self.late + 1);
        }
        let mut taken = 0;
        while taken < wanted && self.rest() > 0 && self.time_of(self.used) <= now {
            (taken, self.used, self.late) = (taken + 1, self.used + 1, 0);
        }
        taken
    }
}

/// Timers and the way to the reader take a few milliseconds, even if the slack is zero.
const LATE_MIN: Duration = Duration::from_millis(10);
