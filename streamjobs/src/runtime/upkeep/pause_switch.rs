//! Pauses and resumes one queue, makes its jobs wait for their start, and does all that follows from
//! it.

use std::sync::Arc;

use tokio::time::Instant;

use crate::runtime::observe::{QueueContext, QueueEvent};
use crate::runtime::state::{KnownBefore, LoopHealth, PauseGate, StartGate};
use crate::store::Promoted;

/// Changes the gate, the health and the report together.
#[derive(Debug)]
pub(crate) struct PauseSwitch {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) gate: Arc<PauseGate>,
    pub(crate) health: Arc<LoopHealth>,
    /// Shared by all partitions of a stream.
    pub(crate) starts: Arc<StartGate>,
}

impl PauseSwitch {
    /// Pauses or resumes in this process.
    pub(crate) fn set_here(&self, paused: bool) {
        if self.gate.is_shut_here() != paused {
            self.expect_reads_after(paused);
            self.gate.set_here(paused);
            self.report(paused, "in this process");
        }
    }

    /// Takes what the server reports about the group. Returns whether a waiting read has to end because
    /// of it.
    pub(crate) fn heard(&self, promoted: &Promoted, before: KnownBefore) -> bool {
        let (changed, queue) = (self.set_everywhere(promoted.paused), self.context.queue());
        let waits = self.starts.heard(queue, before, promoted.rate, promoted.limited);
        changed || waits
    }

    /// Takes whether the group is paused in every process. Returns whether that is a change.
    fn set_everywhere(&self, paused: bool) -> bool {
        let changed = self.gate.is_shut_everywhere() != paused;
        if changed {
            self.expect_reads_after(paused);
            self.gate.set_everywhere(paused);
            self.report(paused, "in every process");
        }
        changed
    }

    /// Called before the gate opens, so that the queue is never unhealthy in between.
    fn expect_reads_after(&self, paused: bool) {
        if !paused {
            self.health.expect_read(Instant::now());
        }
    }

    fn report(&self, paused: bool, scope: &'static str) {
        self.context.report.queue(QueueEvent::PauseChanged { paused, scope });
    }
}
