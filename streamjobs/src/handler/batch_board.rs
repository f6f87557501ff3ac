//! Where the jobs of a queue meet to run together.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The batches of one queue that are being filled, by the type of their members. The type is enough, because no two
/// handlers of a queue take the same event.
#[derive(Default)]
pub(crate) struct BatchBoard {
    /// Each is a `Weak<SharedRun<M>>`, so that a run is kept only while a job waits for it.
    filling: Mutex<HashMap<TypeId, Box<dyn Any + Send>>>,
    /// No further job will come.
    closed: CancellationToken,
}

/// A run that several jobs wait for. It has a task of its own, so task-local values that a job's middleware has set
/// are missing there. It is dropped with the last job that holds it.
pub(crate) struct SharedRun<M> {
    members: Arc<Members<M>>,
    ended: CancellationToken,
    _task: JoinSet<()>,
}

/// The jobs that have joined a run.
pub(crate) struct Members<M> {
    /// `None` once the run has begun.
    joined: Mutex<Option<Vec<M>>>,
    full: Notify,
    closed: CancellationToken,
    pub(crate) stage: Arc<RunStage>,
}

/// The stage of a run, shared by its jobs and its steps.
#[derive(Debug)]
pub(crate) struct RunStage {
    /// Jobs that wait for its end.
    waiting: AtomicUsize,
    /// No job waits any more.
    abandoned: CancellationToken,
    /// Resources are being settled, which no job interrupts.
    settling: AtomicBool,
    /// Whether all jobs took part when the settling began.
    is_whole: OnceLock<bool>,
    /// A resource, and not the handler, has failed the run.
    resource_failed: AtomicBool,
}

impl BatchBoard {
    /// Called when no further job will come, so that batches do not wait for further jobs.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Joins the run that is being filled, or begins one.
    pub(crate) fn join<M, F>(
        &self,
        member: &M,
        size: usize,
        begin: impl FnOnce(Arc<Members<M>>) -> F,
    ) -> Arc<SharedRun<M>>
    where
        M: Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let known = filling.get(&TypeId::of::<M>());
        let known = known.and_then(|known| known.downcast_ref::<Weak<SharedRun<M>>>());
        let known = known.and_then(Weak::upgrade);
        if let Some(run) = known.clone().filter(|run| run.members.add(member, size)) {
            return run;
        }
        let members = Arc::new(Members {
            joined: Mutex::new(Some(vec![member.clone()])),
            full: Notify::new(),
            closed: self.closed.clone(),
            stage: Arc::new(RunStage::of_one()),
        });
        let ended = CancellationToken::new();
        // Even if the run panics: its jobs must not wait without end.
        let (at_end, begun) = (ended.clone().drop_guard(), begin(Arc::clone(&members)));
        let mut task = JoinSet::new();
        task.spawn(async move {
            begun.await;
            drop(at_end);
        });
        let run = Arc::new(SharedRun { members, ended, _task: task });
        filling.insert(TypeId::of::<M>(), Box::new(Arc::downgrade(&run)));
        // A run that ends here drops what its handler holds, which may take time.
        drop(filling);
        drop(known);
        run
    }
}

impl<M> SharedRun<M> {
    pub(crate) fn stage(&self) -> &RunStage {
        &self.members.stage
    }

    /// Waits until the run has ended.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl<M: Clone> Members<M> {
    /// Adds a job; false if the batch is full or its run has begun.
    fn add(&self, member: &M, size: usize) -> bool {
        let mut joined = self.lock();
        let has_room = |joined: &&mut Vec<M>| joined.len() < size && !self.stage.is_abandoned();
        let Some(joined) = joined.as_mut().filter(has_room) else {
            return false;
        };
        joined.push(member.clone());
        self.stage.waiting.fetch_add(1, Ordering::SeqCst);
        if joined.len() == size {
            self.full.notify_one();
        }
        true
    }

    /// Waits until the batch is full, no further job can come, no job waits, or this time is over; after that no job
    /// can join.
    pub(crate) async fn filled(&self, wait: Duration) -> Vec<M> {
        tokio::select! {
            biased;
            () = self.full.notified() => {}
            () = self.closed.cancelled() => {}
            () = self.stage.abandoned() => {}
            () = tokio::time::sleep(wait) => {}
        }
        self.lock().take().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<M>>> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunStage {
    /// A run for which one job waits.
    pub(crate) fn of_one() -> Self {
        Self {
            waiting: AtomicUsize::new(1),
            abandoned: CancellationToken::new(),
            settling: AtomicBool::new(false),
            is_whole: OnceLock::new(),
            resource_failed: AtomicBool::new(false),
        }
    }

    /// Called when a job does not wait any more.
    pub(crate) fn leave(&self) {
        if self.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.abandoned.cancel();
        }
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.is_cancelled()
    }

    /// Waits until no job waits.
    pub(crate) async fn abandoned(&self) {
        self.abandoned.cancelled().await;
    }

    /// From now on, a job that would leave waits for the end. Returns whether the run is whole. This is decided once,
    /// because one of several resources must not be rolled back after another was committed.
    pub(crate) fn settle(&self, is_whole: impl FnOnce() -> bool) -> bool {
        self.settling.store(true, Ordering::SeqCst);
        *self.is_whole.get_or_init(is_whole)
    }

    pub(crate) fn is_settling(&self) -> bool {
        self.settling.load(Ordering::SeqCst)
    }

    pub(crate) fn fail_by_resource(&self) {
        self.resource_failed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_failed_by_resource(&self) -> bool {
        self.resource_failed.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for BatchBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchBoard").finish_non_exhaustive()
    }
}
