//! Starts jobs on the application's own executor, a batch for each message.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model::fail_point::FailPoint;
use crate::runtime::attempt::Executor;
use crate::runtime::state::Assignment;

/// The dispatching loop of one queue.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub(crate) executor: Arc<Executor>,
    pub(crate) assignments: mpsc::Receiver<Vec<Assignment>>,
}

impl Dispatcher {
    /// Starts jobs until none can come any more. After the stop, they are released instead.
    pub(crate) async fn run(mut self, jobs: TaskTracker, stop: CancellationToken) {
        while let Some(batch) = self.assignments.recv().await {
            for assignment in batch {
                if stop.is_cancelled() {
                    self.executor.release(assignment).await;
                } else {
                    FailPoint::SpawnBefore.reached();
                    // Boxed, because a task is moved several times on its way to its executor.
                    jobs.spawn(Box::pin(Arc::clone(&self.executor).execute(assignment)));
                }
            }
        }
        self.executor.context.identity.batches.close();
    }
}
