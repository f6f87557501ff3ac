//! Who looks, what they may see, and what they may do.

use std::fmt;
use std::future::Future;

use axum::http::request::Parts;

/// Decides for every single request who sends it, and what they may see and do: the application's
/// own login, an identity that a proxy in front of it vouches for, or one of [`Auth`](crate::Auth).
///
/// Nothing is answered before it has decided; what it denies learns nothing but that. A closure is
/// one, if it needs not wait:
///
/// ```
/// use axum::http::request::Parts;
/// use streamjobs_dashboard::{Access, Action, Denied};
///
/// /// The proxy in front of the application has checked who this is.
/// fn vouched(request: &Parts) -> Result<Access, Denied> {
///     let user = request.headers.get("x-user").and_then(|user| user.to_str().ok());
///     match user.ok_or(Denied::Forbidden)? {
///         "root" => Ok(Access::read_only("root").payloads().allow_all()),
///         user => Ok(Access::read_only(user).allow(Action::Pause)),
///     }
/// }
/// ```
pub trait Authorizer: Send + Sync + 'static {
    /// What the sender of the request may see and do.
    ///
    /// # Errors
    ///
    /// Says that the sender may not even look.
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

/// Something that changes what the server holds; each needs its own permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Pausing a group in every process, and ending that.
    Pause,
    /// Asking every process of a group to look for abandoned entries now.
    Reap,
    /// Giving pending entries to another consumer.
    Claim,
    /// Making pending entries look abandoned.
    Release,
    /// Letting a job that waits for its back-off run now.
    RunNow,
    /// Putting the jobs of dead letters back.
    Redrive,
    /// Deleting dead letters.
    Purge,
    /// Removing a consumer that does not live.
    RemoveConsumer,
}

impl Action {
    /// Every action there is.
    pub const ALL: [Self; 8] = [
        Self::Pause,
        Self::Reap,
        Self::Claim,
        Self::Release,
        Self::RunNow,
        Self::Redrive,
        Self::Purge,
        Self::RemoveConsumer,
    ];

    /// The word for it in logs; it does not change between releases.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Reap => "reap",
            Self::Claim => "claim",
            Self::Release => "release",
            Self::RunNow => "run_now",
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

/// Somebody, and what they may see and do. Nothing but looking at everything except payloads, until
/// more is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Access {
    who: String,
    payloads: bool,
    actions: u16,
}

impl Access {
    /// Somebody who may look. The name stands in the audit events of what they do.
    pub fn read_only(who: impl Into<String>) -> Self {
        Self { who: who.into(), payloads: false, actions: 0 }
    }

    /// They may also see what events hold, and the errors of dead letters, which may quote it.
    pub fn payloads(mut self) -> Self {
        self.payloads = true;
        self
    }

    /// They may also do this.
    pub fn allow(mut self, action: Action) -> Self {
        self.actions |= action.bit();
        self
    }

    /// They may do everything that there is, also what a later release adds. Payloads are apart.
    pub fn allow_all(mut self) -> Self {
        self.actions = u16::MAX;
        self
    }

    /// Their name.
    #[must_use]
    pub fn who(&self) -> &str {
        &self.who
    }

    /// Whether they may see what events hold.
    #[must_use]
    pub fn sees_payloads(&self) -> bool {
        self.payloads
    }

    /// Whether they may do this.
    #[must_use]
    pub fn may(&self, action: Action) -> bool {
        self.actions & action.bit() != 0
    }
}

/// Why somebody may not even look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denied {
    /// Nobody knows who they are: 401. The value of the `WWW-Authenticate` header says how they can
    /// tell; where the application logs people in by itself, none. A text that is no header value is
    /// left out.
    Unauthorized(Option<&'static str>),
    /// Whoever they are, they may not: 403.
    Forbidden,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_allowed_that_was_not_said() {
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
    fn every_action_has_a_word_of_its_own() {
        let words = Action::ALL.map(Action::as_str);
        let distinct = words.iter().collect::<std::collections::HashSet<_>>();
        assert_eq!(distinct.len(), Action::ALL.len());
    }
}
