//! Named points at which a test may stop, break or end the process.
//!
//! Without the feature `fail-points`, reaching one has no cost.

/// A point between two steps of a job, at which a process may die without losing the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailPoint {
    /// A read has returned entries that are not registered yet.
    ReadAfterReply,
    /// A job is about to be started.
    SpawnBefore,
    /// The handler is about to run.
    HandlerBefore,
    /// The handler has succeeded, and the outcome is not processed yet.
    HandlerAfterOk,
    /// The guard row is written in its transaction.
    GuardAfterInsert,
    /// The guard's transaction is about to be committed.
    GuardBeforeCommit,
    /// The guard's transaction is committed.
    GuardAfterCommit,
    /// Acknowledgements are about to be sent.
    AckBeforeSend,
    /// Acknowledgements have been answered.
    AckAfterSend,
    /// A dead letter is about to be stored.
    DeadBeforeStore,
    /// A dead letter is stored and its entry acknowledged.
    DeadAfterStore,
    /// The reaper has claimed entries that are not registered yet.
    ClaimAfterReply,
    /// A job is about to be released.
    ReleaseBefore,
    /// A shutdown has ended the intake, and jobs are still running.
    ShutdownMidDrain,
}

impl FailPoint {
    /// All points, in the order of a job's life.
    pub const ALL: [Self; 14] = [
        Self::ReadAfterReply,
        Self::SpawnBefore,
        Self::HandlerBefore,
        Self::HandlerAfterOk,
        Self::GuardAfterInsert,
        Self::GuardBeforeCommit,
        Self::GuardAfterCommit,
        Self::AckBeforeSend,
        Self::AckAfterSend,
        Self::DeadBeforeStore,
        Self::DeadAfterStore,
        Self::ClaimAfterReply,
        Self::ReleaseBefore,
        Self::ShutdownMidDrain,
    ];

    /// Its name, such as `read.after_reply`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadAfterReply => "read.after_reply",
            Self::SpawnBefore => "spawn.before",
            Self::HandlerBefore => "handler.before",
            Self::HandlerAfterOk => "handler.after_ok",
            Self::GuardAfterInsert => "guard.after_insert",
            Self::GuardBeforeCommit => "guard.before_commit",
            Self::GuardAfterCommit => "guard.after_commit",
            Self::AckBeforeSend => "ack.before_send",
            Self::AckAfterSend => "ack.after_send",
            Self::DeadBeforeStore => "dead.before_store",
            Self::DeadAfterStore => "dead.after_store",
            Self::ClaimAfterReply => "claim.after_reply",
            Self::ReleaseBefore => "release.before",
            Self::ShutdownMidDrain => "shutdown.mid_drain",
        }
    }

    /// Calls the hook of this process, if there is one.
    #[inline]
    #[cfg_attr(
        not(feature = "fail-points"),
        allow(clippy::unused_self, reason = "without the feature there is no hook")
    )]
    pub fn reached(self) {
        #[cfg(feature = "fail-points")]
        if let Some(hook) = HOOK.get() {
            hook(self);
        }
    }
}

#[cfg(feature = "fail-points")]
type Hook = Box<dyn Fn(FailPoint) + Send + Sync>;

#[cfg(feature = "fail-points")]
static HOOK: std::sync::OnceLock<Hook> = std::sync::OnceLock::new();

/// Sets the hook that is called at every fail point of this process, on the thread that reaches it.
/// Later calls change nothing. The hook may block, panic or end the process.
#[cfg(feature = "fail-points")]
pub fn on_fail_point(hook: impl Fn(FailPoint) + Send + Sync + 'static) {
    let _first = HOOK.set(Box::new(hook)).is_ok();
}
