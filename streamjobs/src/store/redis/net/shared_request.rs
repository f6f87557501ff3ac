//! A request whose answer several callers wait for.

use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

/// The request that is running, if there is one. Held weakly: it ends when no caller waits for it.
pub(super) struct SharedRequest<T: Clone>(Mutex<Option<WeakShared<BoxFuture<'static, T>>>>);

impl<T: Clone> SharedRequest<T> {
    /// The running request, or a new one.
    pub(super) fn join(
        &self,
        send: impl FnOnce() -> BoxFuture<'static, T>,
    ) -> Shared<BoxFuture<'static, T>> {
        let mut present = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        present.as_ref().and_then(WeakShared::upgrade).unwrap_or_else(|| {
            let sent = send().shared();
            *present = sent.downgrade();
            sent
        })
    }
}

impl<T: Clone> Default for SharedRequest<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn callers_that_come_meanwhile_wait_for_the_same_request() {
        let (request, sent) = (SharedRequest::default(), Arc::new(AtomicUsize::new(0)));
        let join = || {
            let sent = Arc::clone(&sent);
            request.join(|| {
                let answer = async move {
                    let number = sent.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    number
                };
                answer.boxed()
            })
        };
        assert_eq!(tokio::join!(join(), join()), (0, 0));
        assert_eq!(join().await, 1, "the first was over");
        drop(join());
        assert_eq!(join().await, 2, "none waited for the one before");
    }
}
