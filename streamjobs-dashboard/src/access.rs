//! Who sends a request, and what they may see and do.

use std::fmt;
use std::future::Future;

use axum::http::request::Parts;

/// Identifies the sender of each request and decides what they may see and do.
///
/// Implement it over the application's own login or over an identity that a proxy adds to requests,
/// or use [`Auth`](crate::Auth). It is called for every request before anything else; a denied
/// request gets a status code and no other information. A closure that does not need to wait
/// implements it:
///
/// ```
/// use axum::http::request::Parts;
/// use streamjobs_dashboard::{Access, Action, Denied};
///
/// /// The proxy in front of the application has authenticated the user.
/// fn from_proxy(request: &Parts) -> Result<Access, Denied> {
///     let user = request.headers.get("x-user").and_then(|user| user.to_str().ok());
///     match user.ok_or(Denied::Forbidden)? {
///         "root" => Ok(Access::read_only("root").payloads().allow_all()),
///         user => Ok(Access::read_only(user).allow(Action::Pause)),
///     }
/// }
/// ```
pub trait Authorizer: Send + Sync + 'static {
    /// Decides what the sender of the request may see and do.
    ///
    /// # Errors
    ///
    /// The sender may not see the dashboard at all.
    fn authorize(&self, request: &Parts) -> impl Future<Output = Result<Access, Denied>> + Send;
}

impl<F> Authorizer for F
where
    F: Fn(&Parts) -> Result<Access, Denied> + Send + Sync + 'static,
{
    fn authorize(&self, request: &Parts) -> impl Future<Output = Result<Access, Denied>> + Send {
        std::future::ready(self(request))
    }
}

/// An operation that changes data on the server. Each needs a permission of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Pause and resume a group in every process, or a schedule; set, lift and reset the rate of a group; set and reset
    /// its limit over all processes.
    Pause,
    /// Ask every process of a group to claim idle entries now.
    Reap,
    /// Move pending entries to another consumer.
    Claim,
    /// Release pending entries, so that any consumer can claim them at once.
    Release,
    /// Run a job that waits for a retry, or a scheduled event, now; publish an event of a schedule now.
    RunNow,
    /// Cancel scheduled events.
    CancelScheduled,
    /// Cancel the jobs of an event, for one group or for all, and undo that. An event that waits until
    /// it is due is removed.
    Cancel,
    /// Redrive dead letters.
    Redrive,
    /// Delete dead letters.
    Purge,
    /// Remove a consumer that is not alive.
    RemoveConsumer,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 10] = [
        Self::Pause,
        Self::Reap,
        Self::Claim,
        Self::Release,
        Self::RunNow,
        Self::CancelScheduled,
        Self::Cancel,
        Self::Redrive,
        Self::Purge,
        Self::RemoveConsumer,
    ];

    /// The action's name in logs. It is stable between releases.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Reap => "reap",
            Self::Claim => "claim",
            Self::Release => "release",
            Self::RunNow => "run_now",
            Self::CancelScheduled => "cancel_scheduled",
            Self::Cancel => "cancel",
            Self::Redrive => "redrive",
            Self::Purge => "purge",
            Self::RemoveConsumer => "remove_consumer",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A user, and what they may see and do. By default, everything except payloads is visible and no
/// action is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Access {
    who: String,
    payloads: bool,
    actions: u16,
}

impl Access {
    /// A user with this name who may see everything except payloads. Audit events carry the name.
    pub fn read_only(who: impl Into<String>) -> Self {
        Self { who: who.into(), payloads: false, actions: 0 }
    }

    /// Also shows payloads of events, and errors of failed jobs, which may quote payloads.
    pub fn payloads(mut self) -> Self {
        self.payloads = true;
        self
    }

    /// Also allows this action.
    pub fn allow(mut self, action: Action) -> Self {
        self.actions |= action.bit();
        self
    }

    /// Allows every action, including those that later releases add. Payloads are a separate permission.
    pub fn allow_all(mut self) -> Self {
        self.actions = u16::MAX;
        self
    }

    /// The user's name.
    #[must_use]
    pub fn who(&self) -> &str {
        &self.who
    }

    /// Whether the user may see payloads.
    #[must_use]
    pub fn sees_payloads(&self) -> bool {
        self.payloads
    }

    /// Whether the user may do this.
    #[must_use]
    pub fn may(&self, action: Action) -> bool {
        self.actions & action.bit() != 0
    }
}

/// Why a request is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denied {
    /// The sender is unknown: 401, with this value of the `WWW-Authenticate` header. `None` sends no
    /// such header, for applications with a login page of their own. Text that is not a valid header
    /// value is left out.
    Unauthorized(Option<&'static str>),
    /// The sender is known and has no access: 403.
    Forbidden,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_granted_is_allowed() {
        let access = Access::read_only("alice");
        assert!(!access.sees_payloads());
        assert!(Action::ALL.iter().all(|action| !access.may(*action)));
        for allowed in Action::ALL {
            let one = access.clone().allow(allowed);
            let may = Action::ALL.into_iter().filter(|action| one.may(*action));
            assert_eq!(may.collect::<Vec<_>>(), [allowed]);
        }
        let all = access.allow_all();
        assert!(Action::ALL.iter().all(|action| all.may(*action)) && !all.sees_payloads());
        assert_eq!(all.who(), "alice");
    }

    #[test]
    fn every_action_has_a_name_of_its_own() {
        let words = Action::ALL.map(Action::as_str);
        let distinct = words.iter().collect::<std::collections::HashSet<_>>();
        assert_eq!(distinct.len(), Action::ALL.len());
    }
}
