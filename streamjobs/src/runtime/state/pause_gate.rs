//! Whether a queue takes in work. A pause in this process, or in every process, shuts the gate.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The gate of one queue.
#[derive(Debug, Default)]
pub(crate) struct PauseGate {
    /// Whether this process has paused the group.
    here: AtomicBool,
    /// Whether the group is paused in every process, by the server's last answer.
    everywhere: AtomicBool,
    changed: Notify,
}

impl PauseGate {
    pub(crate) fn is_shut(&self) -> bool {
        self.is_shut_here() || self.is_shut_everywhere()
    }

    pub(crate) fn is_shut_here(&self) -> bool {
        self.here.load(Ordering::SeqCst)
    }

    pub(crate) fn is_shut_everywhere(&self) -> bool {
        self.everywhere.load(Ordering::SeqCst)
    }

    /// Pauses or resumes in this process.
    pub(crate) fn set_here(&self, shut: bool) {
        self.here.store(shut, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Records what the server reports about the group.
    pub(crate) fn set_everywhere(&self, shut: bool) {
        self.everywhere.store(shut, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Waits until work may be taken in.
    ///
    /// Cancel safe.
    pub(crate) async fn opened(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.is_shut() {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_opens_only_when_both_pauses_are_over() {
        let gate = PauseGate::default();
        gate.set_here(true);
        gate.set_everywhere(true);
        let mut opened = Box::pin(gate.opened());
        assert!(futures_util::poll!(&mut opened).is_pending());
        gate.set_here(false);
        assert!(futures_util::poll!(&mut opened).is_pending());
        gate.set_everywhere(false);
        opened.await;
        assert!(!gate.is_shut());
    }
}
