//! The lease of an attempt, shared by its handler and the loops of its queue.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Whether an attempt may continue: shared by the attempt and the loop that renews its lease.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Made at the first use, because most attempts end without a token.
    token: OnceLock<CancellationToken>,
    lost: AtomicBool,
    over: AtomicBool,
    /// The job was cancelled.
    cancelled: AtomicBool,
    /// The attempt has returned.
    ended: AtomicBool,
    /// How long an attempt has between the token and the drop of its future.
    pub(super) window: Duration,
    /// How long after its last renewal the lease is lost.
    fence: Duration,
    /// The moment from which the lease's end is counted.
    made: Instant,
    /// How long after `made` the lease is lost unless it is renewed, in milliseconds.
    ends: AtomicU64,
}

/// An end that never comes.
const ENDLESS: u64 = u64::MAX;

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(ENDLESS)
}

impl Lease {
    /// A lease without an end, for jobs that are on no server.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn endless(window: Duration, fence: Duration) -> Self {
        Self::lasting(window, fence, Instant::now(), ENDLESS)
    }

    /// The lease of a delivery, counted from the time at which the request for it was sent.
    pub(crate) fn since(sent: Instant, window: Duration, fence: Duration) -> Self {
        Self::lasting(window, fence, sent, milliseconds(fence))
    }

    fn lasting(window: Duration, fence: Duration, made: Instant, ends: u64) -> Self {
        Self {
            token: OnceLock::new(),
            lost: AtomicBool::new(false),
            over: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            window,
            fence,
            made,
            ends: AtomicU64::new(ends),
        }
    }

    /// Notes that the lease was renewed by a request that was sent at this time.
    pub(crate) fn prove(&self, renewed_at: Instant) {
        let end = (renewed_at + self.fence).saturating_duration_since(self.made);
        self.ends.store(milliseconds(end), Ordering::SeqCst);
    }

    /// Called when the server no longer knows the entry, which then cannot be delivered to another
    /// consumer.
    pub(crate) fn set_untracked(&self) {
        self.ends.store(ENDLESS, Ordering::SeqCst);
    }

    /// Whether the attempt must stop: its lease was declared lost, or has expired unnoticed because the
    /// process stood still.
    pub(crate) fn is_over(&self) -> bool {
        let ends = self.ends.load(Ordering::SeqCst);
        self.is_lost() || (ends != ENDLESS && self.made.elapsed() >= Duration::from_millis(ends))
    }

    /// Whether the entry may have passed to another consumer, or the server may not know it any more.
    pub(crate) fn may_have_passed(&self) -> bool {
        self.ends.load(Ordering::SeqCst) == ENDLESS || self.is_over()
    }

    /// Declares an expired lease lost; true if it was not declared before.
    pub(crate) fn lapse(&self) -> bool {
        let is_new = !self.is_lost() && self.is_over();
        if is_new {
            self.lose();
        }
        is_new
    }

    /// Declares the lease lost and cancels the attempt.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
        self.cut_off();
    }

    /// Cancels the attempt.
    pub(crate) fn cut_off(&self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(token) = self.token.get() {
            token.cancel();
        }
    }

    /// Cancels the attempt because its job was cancelled; true if it was not cancelled before.
    pub(crate) fn cancel(&self) -> bool {
        let is_new = !self.cancelled.swap(true, Ordering::SeqCst);
        if is_new {
            self.cut_off();
        }
        is_new
    }

    /// Whether the job was cancelled while the attempt ran.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Whether the attempt is to end: its lease is over, the process stops, or the job was cancelled.
    pub(crate) fn has_to_stop(&self) -> bool {
        self.over.load(Ordering::SeqCst) || self.is_over()
    }

    /// Whether the attempt was told to end.
    pub(super) fn is_cut_off(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// The attempt has returned.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    pub(super) fn token(&self) -> &CancellationToken {
        let token = self.token.get_or_init(CancellationToken::new);
        // If the attempt was cancelled before there was a token, the new token is cancelled here.
        if self.over.load(Ordering::SeqCst) {
            token.cancel();
        }
        token
    }
}
