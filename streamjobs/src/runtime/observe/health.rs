//! Whether the runtime reads, and whether all of its loops run.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::observe::QueueContext;
use crate::runtime::state::{Clock, InFlight, LoopHealth, PauseGate};

/// The state of one group on one stream, for one consumer of this process. For a stream with partitions it covers all
/// of them: the worst age, and the sum of the jobs in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueHealth {
    /// The stream.
    pub stream: String,
    /// The group.
    pub group: String,
    /// The consumer of this process that reads.
    pub consumer: String,
    /// The partitions of the stream: 1 if it is not spread.
    pub partitions: u16,
    /// How long ago the read connection last had an answer; `None` before the first.
    pub last_read: Option<Duration>,
    /// How old the last answer may be: the block time and the margin for the answer.
    pub last_read_max: Duration,
    /// How long ago the server last answered a renewal or a request for its clock.
    pub last_answer: Duration,
    /// Whether nothing is read now because every slot is taken, or because no job of the group may start yet: by its
    /// rate, or because the service that its jobs call has asked the group to wait.
    pub saturated: bool,
    /// Whether nothing is read now because the group is paused, here or in every process.
    pub paused: bool,
    /// Jobs in flight here.
    pub in_flight: usize,
    /// The streams of the partitions that are not healthy; the stream itself if it is not spread.
    pub unhealthy: Vec<String>,
    /// Whether the queue is healthy. It is healthy if two conditions are met. First, the read connection has read
    /// within `last_read_max`; or else the server still answers, and every slot is taken, no job may start, or the
    /// group is paused. Second, no loop has ended by a fault of this crate, which is logged as an error.
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
    /// Builds the health from the state of each partition. Partitions of one stream and consumer come one after the
    /// other.
    pub(crate) fn of(partitions: impl Iterator<Item = QueueHealth>) -> Self {
        let mut queues = Vec::<QueueHealth>::new();
        for partition in partitions {
            match queues.last_mut().filter(|last| last.is_same_queue(&partition)) {
                Some(last) => last.add(partition),
                None => queues.push(partition),
            }
        }
        Self { queues }
    }

    /// Whether every queue is healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.queues.iter().all(|queue| queue.healthy)
    }
}

impl QueueHealth {
    fn is_same_queue(&self, other: &Self) -> bool {
        let names = |of: &Self| [of.stream.clone(), of.group.clone(), of.consumer.clone()];
        names(self) == names(other)
    }

    /// Merges another partition into this one.
    fn add(&mut self, other: Self) {
        self.partitions += other.partitions;
        self.last_read = self.last_read.zip(other.last_read).map(|(one, other)| one.max(other));
        self.last_read_max = self.last_read_max.max(other.last_read_max);
        self.last_answer = self.last_answer.max(other.last_answer);
        self.saturated |= other.saturated;
        self.paused |= other.paused;
        self.in_flight += other.in_flight;
        self.unhealthy.extend(other.unhealthy);
        self.healthy &= other.healthy;
    }
}

/// Finds the health of one queue, from what its loops note.
#[derive(Debug)]
pub(crate) struct HealthProbe {
    pub(crate) context: Arc<QueueContext>,
    /// How long after the block time an answer may arrive.
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
        let healthy = (reads || ((saturated || paused) && answers)) && !self.loops.is_broken();
        QueueHealth {
            stream: self.context.whole.to_string(),
            partitions: 1,
            group: queue.group.to_string(),
            consumer: self.context.consumer().to_string(),
            last_read,
            last_read_max,
            last_answer,
            saturated,
            paused,
            in_flight: self.in_flight.len(),
            unhealthy: (!healthy).then(|| queue.stream.to_string()).into_iter().collect(),
            healthy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(stream: &str, healthy: bool, last_read: Option<u64>) -> QueueHealth {
        QueueHealth {
            stream: stream.to_owned(),
            group: "mail".to_owned(),
            consumer: "a".to_owned(),
            partitions: 1,
            last_read: last_read.map(Duration::from_secs),
            last_read_max: Duration::from_secs(5),
            last_answer: Duration::from_secs(1),
            saturated: false,
            paused: false,
            in_flight: 2,
            unhealthy: (!healthy).then(|| "orders:p1:{1801}".to_owned()).into_iter().collect(),
            healthy,
        }
    }

    #[test]
    fn a_stream_is_as_healthy_as_its_worst_partition() {
        let parts = [
            part("orders", true, Some(1)),
            part("orders", false, Some(9)),
            part("orders", true, Some(2)),
            part("bills", true, None),
        ];
        let health = Health::of(parts.into_iter());
        assert!(!health.is_healthy());
        let [orders, bills] = &health.queues[..] else { panic!("{health:?}") };
        assert_eq!((orders.partitions, orders.in_flight, orders.healthy), (3, 6, false));
        assert_eq!(orders.last_read, Some(Duration::from_secs(9)));
        assert_eq!(orders.unhealthy, ["orders:p1:{1801}"]);
        assert!(bills.healthy && bills.partitions == 1 && bills.unhealthy.is_empty());
    }
}
