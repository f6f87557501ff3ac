//! One consumer of a group: its loops on every stream that the group reads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::OnceCell;

use crate::model::name::{ConsumerName, GroupName};
use crate::runtime::consumer::{
    LoopSupervisor, QueueHandle, QueueLoops, ShutdownReport, StopTokens, Tasks, TokioHandles,
};
use crate::runtime::observe::Tally;

/// A consumer whose loops are wired and not started.
#[derive(Debug)]
pub(crate) struct NewConsumer {
    pub(crate) consumer: RunningConsumer,
    /// The loops of each queue, in the order of the consumer's queues.
    pub(crate) loops: Vec<QueueLoops>,
}

impl NewConsumer {
    /// Starts the loops of every queue.
    pub(crate) fn start(self) -> RunningConsumer {
        let Self { consumer, loops } = self;
        let (queues, tokens) = (consumer.queues.clone(), consumer.tokens.clone());
        let supervisor = LoopSupervisor { queues, tokens };
        for (queue, loops) in consumer.queues.iter().zip(loops) {
            loops.start(queue, &supervisor, &consumer.tasks, &consumer.handles);
        }
        consumer
    }
}

/// A running consumer. All of its tokens and trackers are its own, so that it can be stopped alone.
pub(crate) struct RunningConsumer {
    pub(crate) name: ConsumerName,
    pub(crate) group: GroupName,
    /// The group's queues, one for each stream.
    pub(crate) queues: Vec<Arc<QueueHandle>>,
    /// Counts for this consumer alone.
    pub(crate) tally: Arc<Tally>,
    pub(crate) handles: TokioHandles,
    pub(crate) tokens: StopTokens,
    pub(crate) tasks: Tasks,
    /// Its stop has begun, and it takes in no more work.
    pub(crate) leaving: AtomicBool,
    /// The report of its stop, which every caller gets.
    pub(crate) stopped: OnceCell<ShutdownReport>,
}

impl RunningConsumer {
    /// Jobs in flight, over all queues.
    pub(crate) fn in_flight(&self) -> usize {
        self.queues.iter().map(|queue| queue.in_flight.len()).sum()
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Has the reapers scan for idle entries without waiting for their interval.
    pub(crate) fn reap_now(&self) {
        for queue in &self.queues {
            queue.reap.request();
        }
    }

    /// Ends the readers' present waits, so that they see what has changed. Does not wait until the
    /// waits have ended.
    pub(crate) fn unblock_readers(&self) {
        for queue in &self.queues {
            let queue = Arc::clone(queue);
            let unblock = async move { queue.unblock_reader().await };
            self.tasks.keeping.spawn_on(unblock, &self.handles.io);
        }
    }

    /// Ends everything without waiting: running handlers are cancelled, and other consumers claim
    /// what is in flight when its lease ends.
    pub(crate) fn abandon(&self) {
        self.tokens.cancel();
        self.cancel_handlers();
    }

    pub(crate) fn cancel_handlers(&self) {
        for queue in &self.queues {
            queue.in_flight.cut_off();
        }
    }
}

impl fmt::Debug for RunningConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningConsumer")
            .field("name", &self.name)
            .field("queues", &self.queues.len())
            .finish_non_exhaustive()
    }
}
