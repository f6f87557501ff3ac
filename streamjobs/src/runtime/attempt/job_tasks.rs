//! The tasks on which the jobs of a queue run, one job at a time on each.
//!
//! Starting and ending a task costs a sixth of a small job. So a task whose job has ended waits for the next job.

use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::runtime::state::lock;

/// What runs a job.
pub(super) trait RunJob<J>: Send + Sync + 'static {
    /// Runs it to its end.
    fn run(&self, job: J) -> impl Future<Output = ()> + Send;
}

/// Starts jobs. When this is dropped, its tasks end as soon as they have no job.
pub(super) struct JobTasks<R, J> {
    runner: Arc<R>,
    tracker: TaskTracker,
    idle: Arc<Mutex<IdleTasks<J>>>,
    /// When to end the tasks that had nothing to do since the last check.
    next_look: Instant,
}

/// The tasks that wait for a job.
struct IdleTasks<J> {
    seats: Vec<Arc<Seat<J>>>,
    /// The smallest number of waiting tasks since the last check. That many tasks, from the front, had nothing to do.
    unused: usize,
    are_over: bool,
}

/// Where a task waits for its next job.
struct Seat<J> {
    next: Mutex<Next<J>>,
    task: AtomicWaker,
}

enum Next<J> {
    Wait,
    Run(J),
    End,
}

impl<R: RunJob<J>, J: Send + 'static> JobTasks<R, J> {
    pub(super) fn new(runner: Arc<R>, tracker: TaskTracker) -> Self {
        let idle = IdleTasks { seats: Vec::new(), unused: 0, are_over: false };
        let next_look = Instant::now() + TASKS_KEPT;
        Self { runner, tracker, idle: Arc::new(Mutex::new(idle)), next_look }
    }

    /// Runs a job on a task that waits, or else on a new task.
    pub(super) fn begin(&self, job: J) {
        let seat = lock(&self.idle).take();
        match seat {
            Some(seat) => seat.give(Next::Run(job)),
            None => {
                let (runner, idle) = (Arc::clone(&self.runner), Arc::clone(&self.idle));
                self.tracker.spawn(run_jobs(runner, idle, job));
            }
        }
    }
}

impl<R, J> JobTasks<R, J> {
    /// Waits for a message from a channel. Meanwhile ends tasks that had nothing to do for a while.
    pub(super) async fn receive<T>(&mut self, channel: &mut mpsc::Receiver<T>) -> Option<T> {
        while self.exist() {
            match timeout_at(self.next_look, channel.recv()).await {
                Ok(received) => return received,
                Err(_) => self.end_unused(),
            }
        }
        let received = channel.recv().await;
        self.next_look = Instant::now() + TASKS_KEPT;
        received
    }

    /// Whether there are tasks, with a job or without.
    fn exist(&self) -> bool {
        // Each task holds a clone of this.
        Arc::strong_count(&self.idle) > 1
    }

    fn end_unused(&mut self) {
        self.next_look = Instant::now() + TASKS_KEPT;
        let mut idle = lock(&self.idle);
        let unused = idle.unused.min(idle.seats.len());
        let ended = idle.seats.drain(..unused).collect::<Vec<_>>();
        idle.unused = idle.seats.len();
        drop(idle);
        end(ended);
    }
}

impl<J> IdleTasks<J> {
    /// The task that has waited for the shortest time.
    fn take(&mut self) -> Option<Arc<Seat<J>>> {
        let seat = self.seats.pop();
        self.unused = self.unused.min(self.seats.len());
        seat
    }
}

/// Ends tasks that wait.
fn end<J>(seats: Vec<Arc<Seat<J>>>) {
    for seat in seats {
        seat.give(Next::End);
    }
}

impl<R, J> Drop for JobTasks<R, J> {
    fn drop(&mut self) {
        let mut idle = lock(&self.idle);
        idle.are_over = true;
        let seats = mem::take(&mut idle.seats);
        drop(idle);
        end(seats);
    }
}

impl<J> Seat<J> {
    fn new() -> Self {
        Self { next: Mutex::new(Next::Wait), task: AtomicWaker::new() }
    }

    /// Tells the task that waits here what to do next.
    fn give(&self, next: Next<J>) {
        *lock(&self.next) = next;
        self.task.wake();
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<J>> {
        self.task.register(context.waker());
        match mem::replace(&mut *lock(&self.next), Next::Wait) {
            Next::Wait => Poll::Pending,
            Next::Run(job) => Poll::Ready(Some(job)),
            Next::End => Poll::Ready(None),
        }
    }
}

/// Runs this job, and then the jobs that it is given.
///
/// It never fetches the next job itself but waits until it is given a job, so that each job begins with a turn of its
/// own.
async fn run_jobs<R: RunJob<J>, J>(runner: Arc<R>, idle: Arc<Mutex<IdleTasks<J>>>, first: J) {
    let seat = Arc::new(Seat::new());
    let mut next = Some(first);
    while let Some(job) = next {
        // Pinned in place: it is large.
        pin!(runner.run(job)).await;
        {
            let mut idle = lock(&idle);
            if idle.are_over {
                return;
            }
            idle.seats.push(Arc::clone(&seat));
        }
        next = poll_fn(|context| seat.poll(context)).await;
    }
}

/// How long a task without a job is kept at least; it is kept at most twice as long. This is longer than the time
/// between jobs of a busy group.
const TASKS_KEPT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::task::{Id, id};
    use tokio::time::timeout;

    use super::*;

    /// Reports on which task each job runs. A job runs until the test lets it end.
    struct Recorder(mpsc::Sender<Id>);

    type Go = oneshot::Receiver<()>;

    impl RunJob<Go> for Recorder {
        async fn run(&self, job: Go) {
            self.0.try_send(id()).unwrap();
            // A job panics if its sender is gone.
            job.await.unwrap();
        }
    }

    struct Setup {
        tasks: JobTasks<Recorder, Go>,
        tracker: TaskTracker,
        ids: mpsc::Receiver<Id>,
    }

    fn setup() -> Setup {
        let ((sender, ids), tracker) = (mpsc::channel(8), TaskTracker::new());
        let tasks = JobTasks::new(Arc::new(Recorder(sender)), tracker.clone());
        Setup { tasks, tracker, ids }
    }

    impl Setup {
        /// Starts a job. Returns the task on which it runs, and the sender that lets it end.
        async fn begin(&mut self) -> (Id, oneshot::Sender<()>) {
            let (go, job) = oneshot::channel();
            self.tasks.begin(job);
            (self.ids.recv().await.unwrap(), go)
        }
    }

    async fn let_others_run() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_task_runs_one_job_after_the_other_and_none_beside_another() {
        let mut setup = setup();
        let (first, go_first) = setup.begin().await;
        let (second, go_second) = setup.begin().await;
        assert_ne!(first, second);
        go_first.send(()).unwrap();
        let_others_run().await;
        let (third, _go) = setup.begin().await;
        assert_eq!(third, first);
        go_second.send(()).unwrap();
        let_others_run().await;
        assert_eq!((setup.begin().await.0, setup.tracker.len()), (second, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_without_a_job_end_after_a_while_and_those_with_one_stay() {
        let mut setup = setup();
        let (_sender, mut channel) = mpsc::channel::<()>(1);
        let mut jobs = Vec::new();
        for _ in 0..5 {
            jobs.push(setup.begin().await);
        }
        let (kept, go_kept) = jobs.pop().unwrap();
        for (_, go) in jobs {
            go.send(()).unwrap();
        }
        let_others_run().await;
        // One task gets a job now and then; the other tasks have nothing to do.
        for _ in 0..6 {
            setup.begin().await.1.send(()).unwrap();
            let _none = timeout(TASKS_KEPT / 2, setup.tasks.receive(&mut channel)).await;
        }
        assert_eq!(setup.tracker.len(), 2);
        let _none = timeout(3 * TASKS_KEPT, setup.tasks.receive(&mut channel)).await;
        assert_eq!((setup.tracker.len(), setup.tasks.exist()), (1, true));
        go_kept.send(()).unwrap();
        let_others_run().await;
        assert_eq!(setup.begin().await.0, kept);
    }

    #[tokio::test]
    async fn at_the_end_jobs_go_on_and_their_tasks_end_with_them() {
        let mut setup = setup();
        let (_, go_first) = setup.begin().await;
        let (_, go_second) = setup.begin().await;
        go_first.send(()).unwrap();
        let_others_run().await;
        drop(setup.tasks);
        let_others_run().await;
        assert_eq!(setup.tracker.len(), 1);
        go_second.send(()).unwrap();
        setup.tracker.close();
        setup.tracker.wait().await;
    }

    #[tokio::test]
    async fn a_job_that_panics_takes_only_its_own_task_with_it() {
        let mut setup = setup();
        let (broken, go) = setup.begin().await;
        drop(go);
        let_others_run().await;
        assert!(!setup.tasks.exist());
        let (next, go) = setup.begin().await;
        assert_ne!(next, broken);
        go.send(()).unwrap();
        let_others_run().await;
        assert_eq!(setup.begin().await.0, next);
    }
}
