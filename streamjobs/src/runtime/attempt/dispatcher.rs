//! Starts jobs on the application's own executor, a batch for each message.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model::fail_point::FailPoint;
use crate::runtime::attempt::executor;
use crate::runtime::consumer::queue::{Assignment, QueueContext, Settlement};

/// The dispatching loop of one queue.
pub(crate) struct Dispatcher {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) assignments: mpsc::Receiver<Vec<Assignment>>,
    pub(crate) settlements: mpsc::Sender<Settlement>,
    pub(crate) jobs: TaskTracker,
}

impl Dispatcher {
    /// Starts what comes until nothing can come any more. After the stop, jobs are handed back
    /// instead of started.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Some(batch) = self.assignments.recv().await {
            for assignment in batch {
                let (context, settlements) = (Arc::clone(&self.context), self.settlements.clone());
                if stop.is_cancelled() {
                    executor::release(&context, assignment, &settlements).await;
                } else {
                    FailPoint::SpawnBefore.reached();
                    // Boxed, because a task is moved several times on its way to its executor.
                    let job = Box::pin(executor::execute(context, assignment, settlements));
                    self.jobs.spawn(job);
                }
            }
        }
    }
}
