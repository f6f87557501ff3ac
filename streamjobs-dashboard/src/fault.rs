//! Why a page cannot be shown, or an action was not done: what the browser is told of it.

use axum::http::StatusCode;
use streamjobs::NameError;
use streamjobs::error::DeadLetterError;
use streamjobs::stream::StreamError;

/// Why a page cannot be shown, or an action was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    /// In words, for the page. It may name streams, groups and entries, and never a payload.
    pub(crate) text: String,
}

impl Fault {
    /// What was asked for makes no sense. The text is fixed, so that nothing sent comes back.
    pub(crate) fn bad_request(text: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.to_owned() }
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, text: text.into() }
    }

    pub(crate) fn forbidden(text: &'static str) -> Self {
        Self { status: StatusCode::FORBIDDEN, text: text.to_owned() }
    }

    /// It would be wrong to do it now.
    pub(crate) fn conflict(text: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, text: text.into() }
    }

    /// What is behind the page could not be asked.
    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text: text.into() }
    }

    /// The error with all of its causes in one line.
    pub(crate) fn in_words(error: &dyn std::error::Error) -> String {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl From<StreamError> for Fault {
    fn from(error: StreamError) -> Self {
        let text = Self::in_words(&error);
        match error {
            StreamError::Missing { .. } | StreamError::GroupMissing { .. } => Self::not_found(text),
            StreamError::Unfinished { .. } | StreamError::Alive { .. } => Self::conflict(text),
            StreamError::Name(name) => name.into(),
            _ => Self::unavailable(text),
        }
    }
}

impl From<NameError> for Fault {
    fn from(_: NameError) -> Self {
        Self::bad_request("that is no name of a stream, a group or a consumer")
    }
}

impl From<DeadLetterError> for Fault {
    fn from(error: DeadLetterError) -> Self {
        let text = Self::in_words(&error);
        match error {
            DeadLetterError::Unknown { .. } => Self::not_found(text),
            DeadLetterError::NotRunnable { .. } => Self::conflict(text),
            DeadLetterError::Name(name) => name.into(),
            _ => Self::unavailable(text),
        }
    }
}
