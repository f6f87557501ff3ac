//! Pauses and resumes one queue, with all that follows from it.

use std::sync::Arc;

use tokio::time::Instant;

use crate::runtime::observe::{QueueContext, QueueEvent};
use crate::runtime::state::{LoopHealth, PauseGate};

/// Moves the gate, the health and the report together.
#[derive(Debug)]
pub(crate) struct PauseSwitch {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) gate: Arc<PauseGate>,
    pub(crate) health: Arc<LoopHealth>,
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

    /// Follows what the server says of the group: whether that is a change.
    pub(crate) fn set_everywhere(&self, paused: bool) -> bool {
        let changed = self.gate.is_shut_everywhere() != paused;
        if changed {
            self.expect_reads_after(paused);
            self.gate.set_everywhere(paused);
            self.report(paused, "in every process");
        }
        changed
    }

    /// Before the gate opens, so that the queue is never unhealthy in between.
    fn expect_reads_after(&self, paused: bool) {
        if !paused {
            self.health.expect_read(Instant::now());
        }
    }

    fn report(&self, paused: bool, scope: &'static str) {
        self.context.report.queue(QueueEvent::PauseChanged { paused, scope });
    }
}
