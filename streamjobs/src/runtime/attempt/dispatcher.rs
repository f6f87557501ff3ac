//! Starts jobs on the application's own executor; each message brings a batch of them.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model::fail_point::FailPoint;
use crate::runtime::attempt::Executor;
use crate::runtime::attempt::job_tasks::JobTasks;
use crate::runtime::state::Assignment;

/// The dispatching loop of one queue.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub(crate) executor: Arc<Executor>,
    pub(crate) assignments: mpsc::Receiver<Vec<Assignment>>,
}

impl Dispatcher {
    /// Starts jobs until no more can come. After the stop, it releases them instead.
    pub(crate) async fn run(self, jobs: TaskTracker, stop: CancellationToken) {
        let Self { executor, mut assignments } = self;
        let mut tasks = JobTasks::new(Arc::clone(&executor), jobs);
        while let Some(batch) = tasks.receive(&mut assignments).await {
            for assignment in batch {
                if stop.is_cancelled() {
                    executor.release(assignment).await;
                } else {
                    FailPoint::SpawnBefore.reached();
                    tasks.begin(assignment);
                }
            }
        }
        executor.context.identity.batches.close();
    }
}
