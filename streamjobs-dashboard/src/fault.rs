//! Errors as pages show them.

use axum::http::StatusCode;
use streamjobs::NameError;
use streamjobs::error::DeadLetterError;
use streamjobs::schedule::SchedulesError;
use streamjobs::stream::StreamError;

/// Why a page cannot be shown, or an action failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    pub(crate) heading: &'static str,
    /// The message for the page. It may name streams, groups and entries, never a payload.
    pub(crate) text: String,
}

impl Fault {
    /// The request is invalid. The message is fixed, so that input is never echoed.
    pub(crate) fn bad_request(text: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Bad request", text)
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", text)
    }

    pub(crate) fn forbidden(text: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Not allowed", text)
    }

    /// The current state forbids the action.
    pub(crate) fn conflict(text: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Not possible now", text)
    }

    /// Redis cannot be read.
    pub(crate) fn redis(text: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Redis did not answer", text)
    }

    /// Redis failed or refused a part of an action.
    pub(crate) fn incomplete(text: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Redis request failed", text)
    }

    /// The database of the archive cannot be read.
    #[cfg(feature = "postgres")]
    pub(crate) fn archive(text: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "The archive did not answer", text)
    }

    /// There are more requests than the dashboard serves at once.
    pub(crate) fn overloaded(text: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "The dashboard is overloaded", text)
    }

    fn new(status: StatusCode, heading: &'static str, text: impl Into<String>) -> Self {
        Self { status, heading, text: text.into() }
    }

    /// The error with its causes in one line. A cause is not repeated if the text before it ends with that cause.
    pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
        let mut text = error.to_string();
        let mut source = error.source();
        for _ in 0..CAUSES_MAX {
            let Some(cause) = source else { break };
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        text
    }
}

impl From<StreamError> for Fault {
    fn from(error: StreamError) -> Self {
        let (text, is_unanswered) = (Self::error_chain(&error), error.is_unanswered());
        match error {
            StreamError::Missing { .. }
            | StreamError::GroupMissing { .. }
            | StreamError::NoPartition { .. } => Self::not_found(text),
            StreamError::Unfinished { .. }
            | StreamError::Alive { .. }
            | StreamError::Ambiguous { .. }
            | StreamError::NoLimit { .. } => Self::conflict(text),
            StreamError::LimitReason { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "Bad request", text)
            }
            StreamError::Name(name) => name.into(),
            _ if !is_unanswered => Self::incomplete(text),
            _ => Self::redis(text),
        }
    }
}

impl From<SchedulesError> for Fault {
    fn from(error: SchedulesError) -> Self {
        let text = Self::error_chain(&error);
        match error {
            SchedulesError::Missing { .. } => Self::not_found(text),
            SchedulesError::DeclaredInCode { .. }
            | SchedulesError::Unreadable { .. }
            | SchedulesError::Changed { .. } => Self::conflict(text),
            SchedulesError::Name(name) => name.into(),
            _ => Self::redis(text),
        }
    }
}

impl From<NameError> for Fault {
    fn from(_: NameError) -> Self {
        Self::bad_request("Invalid name of a stream, a group or a consumer.")
    }
}

impl From<DeadLetterError> for Fault {
    fn from(error: DeadLetterError) -> Self {
        let text = Self::error_chain(&error);
        match error {
            DeadLetterError::Unknown { .. } | DeadLetterError::NoPartition { .. } => {
                Self::not_found(text)
            }
            DeadLetterError::NotRunnable { .. } | DeadLetterError::Ambiguous { .. } => {
                Self::conflict(text)
            }
            DeadLetterError::Name(name) => name.into(),
            _ => Self::redis(text),
        }
    }
}

/// How many causes of an error are followed; an error may be its own cause.
const CAUSES_MAX: usize = 32;
