//! Where the jobs of a queue meet to run together.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The batches of one queue that are being filled, by the type of their members: no two handlers of a queue take
/// the same event.
#[derive(Default)]
pub(crate) struct BatchBoard {
    filling: Mutex<HashMap<TypeId, Box<dyn Any + Send>>>,
    /// No further job will come.
    closed: CancellationToken,
}

/// A batch that jobs may join, and the run that begins when it is full or its time is over.
struct Filling<M> {
    members: Arc<Members<M>>,
    /// Weak, so that a run ends when all its jobs have left it.
    run: WeakShared<BoxFuture<'static, ()>>,
}

/// The jobs that have joined a batch.
pub(crate) struct Members<M> {
    /// None once the run has begun.
    joined: Mutex<Option<Vec<M>>>,
    full: Notify,
    closed: CancellationToken,
}

impl BatchBoard {
    /// No further job will come: batches do not wait for one any more.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Joins the batch that is being filled, or begins one: the run to wait for, which all its jobs share.
    pub(crate) fn join<M: Clone + Send + 'static>(
        &self,
        member: &M,
        size: usize,
        begin: impl FnOnce(Arc<Members<M>>) -> BoxFuture<'static, ()>,
    ) -> Shared<BoxFuture<'static, ()>> {
        let mut filling = self.lock();
        let known = filling.get(&TypeId::of::<M>()).and_then(|known| known.downcast_ref());
        let joined = known.and_then(|Filling { members, run }: &Filling<M>| {
            let run = run.upgrade()?;
            members.add(member, size).then_some(run)
        });
        if let Some(run) = joined {
            return run;
        }
        let members = Arc::new(Members {
            joined: Mutex::new(Some(vec![member.clone()])),
            full: Notify::new(),
            closed: self.closed.clone(),
        });
        let run = begin(Arc::clone(&members)).shared();
        if let Some(weak) = run.downgrade() {
            filling.insert(TypeId::of::<M>(), Box::new(Filling { members, run: weak }));
        }
        run
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TypeId, Box<dyn Any + Send>>> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Clone> Members<M> {
    /// Adds a job; false if the batch is full or its run has begun.
    fn add(&self, member: &M, size: usize) -> bool {
        let mut joined = self.lock();
        let Some(joined) = joined.as_mut().filter(|joined| joined.len() < size) else {
            return false;
        };
        joined.push(member.clone());
        if joined.len() == size {
            self.full.notify_one();
        }
        true
    }

    /// Waits until the batch is full, no job can come, or this time is over, and lets no further job join.
    pub(crate) async fn filled(&self, wait: Duration) -> Vec<M> {
        tokio::select! {
            biased;
            () = self.full.notified() => {}
            () = self.closed.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
        self.lock().take().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<M>>> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BatchBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchBoard").finish_non_exhaustive()
    }
}
