//! Somebody who was let in, and how to answer them.

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::StatusCode;
use axum::http::header::ACCEPT;
use axum::http::request::Parts;

use crate::access::Access;
use crate::base::Base;
use crate::csrf::{Brought, Token};
use crate::notice;

/// Somebody who was let in, and how to answer them.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) access: Access,
    pub(crate) base: Base,
    pub(crate) token: Token,
    /// They follow the page instead of asking for it once.
    pub(crate) follows: bool,
    /// What came of the last thing that they did.
    pub(crate) notice: Option<notice::Notice>,
}

impl<S: Send + Sync> FromRequestParts<S> for Visit {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        // The guard stands in front of every route. Where it did not, nobody is let in.
        parts.extensions.get::<Self>().cloned().ok_or(StatusCode::FORBIDDEN)
    }
}

impl Visit {
    pub(crate) fn of(parts: &Parts, access: Access) -> (Self, Brought) {
        let (token, brought) = Token::of(&parts.headers);
        let asked =
            parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
        let accept = parts.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let follows = accept.is_some_and(|accept| accept.starts_with("text/event-stream"));
        let notice = notice::read(&parts.headers);
        let base = Base::of(asked.path(), parts.uri.path());
        (Self { access, base, token, follows, notice }, brought)
    }
}
