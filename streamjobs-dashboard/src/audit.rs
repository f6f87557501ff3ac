//! Who did what: an event in the log, a call into the application, and a list on a page.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::access::Action;

/// Something that somebody did, or tried to do, through the dashboard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audited {
    /// When it was over.
    pub at: SystemTime,
    /// Who did it: the name of their [`Access`](crate::Access).
    pub who: String,
    /// What they did.
    pub action: Action,
    /// The stream, and the group on it; none for what the archive holds of several.
    pub place: Option<(String, String)>,
    /// To what they did it, in words: entries, a consumer, a selection.
    pub target: String,
    /// What came of it, in words. An error may leave open whether it was done.
    pub outcome: Result<String, String>,
}

/// What the application does with each of them.
pub(crate) type OnAction = Arc<dyn Fn(&Audited) + Send + Sync>;

/// Who did what through this dashboard, as far back as is kept.
#[derive(Default)]
pub(crate) struct Audit {
    kept: Mutex<VecDeque<Audited>>,
    pub(crate) on_action: Option<OnAction>,
}

impl Audit {
    /// Tells the log, the application and the page.
    pub(crate) fn note(&self, done: Audited) {
        let (stream, group) = done.place.as_ref().map_or(("", ""), |(s, g)| (s, g));
        match &done.outcome {
            Ok(outcome) => tracing::info!(
                target: TARGET,
                who = done.who, action = %done.action, stream, group, target = done.target, outcome,
                "done through the dashboard"
            ),
            Err(error) => tracing::warn!(
                target: TARGET,
                who = done.who, action = %done.action, stream, group, target = done.target, error,
                "failed through the dashboard"
            ),
        }
        if let Some(tell) = &self.on_action {
            // A deed that was cut off is noted while its request unwinds: a second panic would end
            // the process. One callback that panics is no reason to end a request either.
            let told = catch_unwind(AssertUnwindSafe(|| tell(&done)));
            if told.is_err() {
                tracing::error!(
                    target: TARGET,
                    who = done.who, action = %done.action, stream, group, target = done.target,
                    "what the application does with an action has panicked"
                );
            }
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT_MAX - 1);
        kept.push_front(done);
    }

    /// What is kept, newest first.
    pub(crate) fn latest(&self) -> Vec<Audited> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").finish_non_exhaustive()
    }
}

/// The target of the audit events, for a filter that keeps them apart from other logs.
const TARGET: &str = "streamjobs::audit";
const KEPT_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn audit() -> Audit {
        Audit { on_action: Some(Arc::new(|_| panic!("by the application"))), ..Audit::default() }
    }

    fn deed(who: &str) -> Audited {
        Audited {
            at: SystemTime::UNIX_EPOCH,
            who: who.to_owned(),
            action: Action::Pause,
            place: None,
            target: "pause".to_owned(),
            outcome: Ok("done".to_owned()),
        }
    }

    #[test]
    fn a_deed_is_kept_although_the_application_panics_over_it() {
        let audit = audit();
        audit.note(deed("alice"));
        audit.note(deed("bob"));
        assert_eq!(audit.latest(), [deed("bob"), deed("alice")]);
    }

    #[test]
    fn a_deed_can_be_noted_while_a_request_unwinds() {
        struct Begun(Audit);
        impl Drop for Begun {
            fn drop(&mut self) {
                self.0.note(deed("alice"));
            }
        }
        // Without the catch, this process aborts.
        let ended = catch_unwind(|| {
            let _begun = Begun(audit());
            panic!("by a page");
        });
        assert!(ended.is_err());
    }
}
