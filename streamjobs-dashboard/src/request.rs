//! What a page knows about an authorized request.

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::StatusCode;
use axum::http::header::ACCEPT;
use axum::http::request::Parts;

use crate::access::Access;
use crate::base::Base;
use crate::csrf::{Token, TokenSource};
use crate::notice;
use crate::state::Shared;

/// An authorized request: who sent it, what the answer depends on, and the state that all pages share.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    pub(crate) state: Shared,
    pub(crate) access: Access,
    pub(crate) base: Base,
    pub(crate) token: Token,
    /// Whether the browser asks for an event stream of the page's changes, not for the page.
    pub(crate) follows: bool,
    /// The result of the user's last action, shown once.
    pub(crate) notice: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        // The guard runs before every route. Without it, the request is refused.
        parts.extensions.get::<Self>().cloned().ok_or(StatusCode::FORBIDDEN)
    }
}

impl RequestContext {
    pub(crate) fn of(parts: &Parts, access: Access, state: Shared) -> (Self, TokenSource) {
        let (token, source) = Token::of(&parts.headers);
        let asked =
            parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
        let accept = parts.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let follows = accept.is_some_and(|accept| accept.starts_with("text/event-stream"));
        let notice = notice::read(&parts.headers);
        let base = Base::of(asked.path(), parts.uri.path());
        (Self { state, access, base, token, follows, notice }, source)
    }
}
