//! The audit trail of actions: a log event, a callback, and a list on the alerts page.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::access::Action;
use crate::format::beginning;

/// An action that a user took, or tried to take, through the dashboard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audited {
    /// When it ended.
    pub at: SystemTime,
    /// The user: the name in their [`Access`](crate::Access).
    pub who: String,
    /// The action.
    pub action: Action,
    /// The stream and the group. `None` for actions on the archive, which may span several, on
    /// scheduled events, which belong to no group, and on the jobs of all groups.
    pub queue: Option<(String, String)>,
    /// What it was applied to, as text: entries, a consumer, a selection. At most about 1,000 bytes of it are kept,
    /// and of each name above at most about 200.
    pub target: String,
    /// The result, as text. After an error, the action may have been applied in part.
    pub outcome: Result<String, String>,
}

/// The application's callback for each action.
pub(crate) type OnAction = Arc<dyn Fn(&Audited) + Send + Sync>;

/// The latest actions.
#[derive(Default)]
pub(crate) struct Audit {
    kept: Mutex<VecDeque<Audited>>,
    pub(crate) on_action: Option<OnAction>,
}

impl Audit {
    /// Writes the log event, calls the application, and keeps the action for the page.
    ///
    /// Names from a request are cut: a request without the permission is recorded too, and its names can
    /// have any length.
    pub(crate) fn record(&self, mut done: Audited) {
        cut(&mut done.target, TARGET_MAX);
        if let Some((stream, group)) = &mut done.queue {
            cut(stream, NAME_MAX);
            cut(group, NAME_MAX);
        }
        let (stream, group) = done.queue.as_ref().map_or(("", ""), |(s, g)| (s, g));
        match &done.outcome {
            Ok(outcome) => tracing::info!(
                target: TARGET,
                who = done.who, action = %done.action, stream, group, target = done.target, outcome,
                "dashboard action done"
            ),
            Err(error) => tracing::warn!(
                target: TARGET,
                who = done.who, action = %done.action, stream, group, target = done.target, error,
                "dashboard action failed"
            ),
        }
        if let Some(on_action) = &self.on_action {
            // This may run while a request unwinds, where a second panic would abort the process. A
            // callback that panics does not fail the request either.
            let called = catch_unwind(AssertUnwindSafe(|| on_action(&done)));
            if called.is_err() {
                tracing::error!(
                    target: TARGET,
                    who = done.who, action = %done.action, stream, group, target = done.target,
                    "the on_action callback panicked"
                );
            }
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT_MAX - 1);
        kept.push_front(done);
    }

    /// The kept actions, newest first.
    pub(crate) fn latest(&self) -> Vec<Audited> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").finish_non_exhaustive()
    }
}

/// Cuts a text that is too long to its beginning.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        *text = format!("{}…", beginning(text, bytes_max));
    }
}

/// The target of audit events, so that a filter can route them separately.
const TARGET: &str = "streamjobs::audit";
const KEPT_MAX: usize = 100;
/// How many bytes a recorded target may have: a valid target is shorter, except with a long reason of a redrive.
const TARGET_MAX: usize = 1_050;
/// How many bytes a name may have: valid names have at most this many.
const NAME_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn audit() -> Audit {
        Audit { on_action: Some(Arc::new(|_| panic!("by the application"))), ..Audit::default() }
    }

    fn audited(who: &str) -> Audited {
        Audited {
            at: SystemTime::UNIX_EPOCH,
            who: who.to_owned(),
            action: Action::Pause,
            queue: None,
            target: "pause".to_owned(),
            outcome: Ok("done".to_owned()),
        }
    }

    #[test]
    fn an_action_is_kept_when_the_callback_panics() {
        let audit = audit();
        audit.record(audited("alice"));
        audit.record(audited("bob"));
        assert_eq!(audit.latest(), [audited("bob"), audited("alice")]);
    }

    #[test]
    fn what_a_request_names_is_cut() {
        let (audit, long) = (Audit::default(), "é".repeat(30_000));
        let queue = Some((long.clone(), long.clone()));
        audit.record(Audited { queue, target: long, ..audited("alice") });
        let kept = audit.latest().remove(0);
        let (stream, group) = kept.queue.unwrap();
        let lengths = [stream, group, kept.target].map(|text| text.len());
        assert_eq!(lengths, [203, 203, 1_053], "with an ellipsis of three bytes");
    }

    #[test]
    fn an_action_can_be_recorded_while_a_request_unwinds() {
        struct AuditGuard(Audit);
        impl Drop for AuditGuard {
            fn drop(&mut self) {
                self.0.record(audited("alice"));
            }
        }
        // Without `catch_unwind`, the second panic aborts the process.
        let ended = catch_unwind(|| {
            let _begun = AuditGuard(audit());
            panic!("by a page");
        });
        assert!(ended.is_err());
    }
}
