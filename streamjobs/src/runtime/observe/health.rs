//! Whether the runtime reads, and whether all of its loops run.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::observe::QueueContext;
use crate::runtime::state::{Clock, InFlight, LoopHealth, PauseGate};

/// The state of one group on one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueHealth {
    /// The stream.
    pub stream: String,
    /// The group.
    pub group: String,
    /// The consumer of this process that reads.
    pub consumer: String,
    /// How long ago the read connection last had an answer; none before the first.
    pub last_read: Option<Duration>,
    /// How old the last answer may be: the block time and the margin for the answer.
    pub last_read_max: Duration,
    /// How long ago the server last answered a renewal or a request for its clock.
    pub last_answer: Duration,
    /// Whether every slot is taken, so that nothing is read now.
    pub saturated: bool,
    /// Whether the group is paused, here or in every process, so that nothing is read now.
    pub paused: bool,
    /// Jobs in flight here.
    pub in_flight: usize,
    /// Whether the queue is healthy. Two conditions must hold. The read connection has read within
    /// `last_read_max`, or every slot is taken or the group is paused and the server still answers.
    /// And no loop has ended by a fault of this crate, which is logged as an error.
    pub healthy: bool,
}

/// The state of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Every group on every stream.
    pub queues: Vec<QueueHealth>,
}

impl Health {
    /// Whether every queue is healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.queues.iter().all(|queue| queue.healthy)
    }
}

/// Finds the health of one queue, from what its loops note.
#[derive(Debug)]
pub(crate) struct HealthProbe {
    pub(crate) context: Arc<QueueContext>,
    /// How long after the block time an answer may take.
    pub(crate) read_margin: Duration,
    pub(crate) loops: Arc<LoopHealth>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) gate: Arc<PauseGate>,
    pub(crate) in_flight: Arc<InFlight>,
}

impl HealthProbe {
    pub(crate) fn health_at(&self, now: Instant) -> QueueHealth {
        let (queue, config) = (self.context.queue(), &self.context.config);
        let (last_read, saturated) = self.loops.last_read(now);
        let last_read_max = config.block + self.read_margin;
        let last_answer = self.clock.silence(now);
        let reads = last_read.is_some_and(|age| age <= last_read_max)
            || self.loops.is_beginning(now, last_read_max);
        let paused = self.gate.is_shut();
        let answers = last_answer <= config.lease / 2;
        QueueHealth {
            stream: queue.stream.to_string(),
            group: queue.group.to_string(),
            consumer: self.context.consumer().to_string(),
            last_read,
            last_read_max,
            last_answer,
            saturated,
            paused,
            in_flight: self.in_flight.len(),
            healthy: (reads || ((saturated || paused) && answers)) && !self.loops.is_broken(),
        }
    }
}
