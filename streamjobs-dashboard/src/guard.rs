//! Middleware before every route: authorization, the origin check, and security headers.

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, SET_COOKIE, VARY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::access::Denied;
use crate::csrf::{TokenSource, is_same_origin};
use crate::fault::Fault;
use crate::request::RequestContext;
use crate::state::Shared;
use crate::{layout, notice};

/// Authorizes the request, refuses forms from other sites, and sets headers and cookies.
pub(crate) async fn guard(State(state): State<Shared>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let access = match state.authorizer.decide(&parts).await {
        Ok(access) => access,
        Err(denied) => return with_headers(deny(denied)),
    };
    let (ctx, token_source) = RequestContext::of(&parts, access, state);
    if !matches!(parts.method, Method::GET | Method::HEAD) && !is_same_origin(&parts) {
        let fault = Fault::forbidden("Only a page of this dashboard may send this.");
        return with_headers(layout::error_page(&ctx, &fault));
    }
    let had_notice = ctx.notice.is_some();
    let token = ctx.token.clone();
    parts.extensions.insert(ctx);
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if token_source == TokenSource::New {
        set_cookie(response.headers_mut(), &token.cookie());
    }
    // The page that shows a notice removes its cookie. A redirect sets a new notice instead.
    if had_notice && response.status() == StatusCode::OK {
        set_cookie(response.headers_mut(), &notice::clear());
    }
    with_headers(response)
}

pub(crate) fn set_cookie(headers: &mut HeaderMap, cookie: &str) {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        headers.append(SET_COOKIE, cookie);
    }
}

/// The answer to a denied request, which reveals nothing else.
fn deny(denied: Denied) -> Response {
    match denied {
        Denied::Unauthorized(challenge) => {
            let mut response =
                (StatusCode::UNAUTHORIZED, "Authentication is required.").into_response();
            // The application chose the text. Text that is not a valid header value is left out.
            if let Some(Ok(challenge)) = challenge.map(HeaderValue::from_str) {
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            response
        }
        Denied::Forbidden => {
            (StatusCode::FORBIDDEN, "You do not have access to this page.").into_response()
        }
    }
}

fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

const HEADERS: [(HeaderName, &str); 7] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    // A proxy that compresses or rewrites would hold back the events of a stream.
    (CACHE_CONTROL, "no-store, no-transform"),
    // nginx buffers what it proxies, unless the response says that it must not.
    (HeaderName::from_static("x-accel-buffering"), "no"),
    // The same address serves the page and its event stream.
    (VARY, "Accept"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_that_is_not_a_header_value_is_left_out_and_the_request_is_denied() {
        for (challenge, expected) in [
            (None, None),
            (Some("Basic realm=\"jobs\""), Some("Basic realm=\"jobs\"")),
            (Some("Basic\r\nset-cookie: a=b"), None),
            (Some("Basic realm=\u{0}"), None),
        ] {
            let response = deny(Denied::Unauthorized(challenge));
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            let header = response.headers().get(WWW_AUTHENTICATE);
            assert_eq!(header.map(|header| header.to_str().unwrap()), expected, "{challenge:?}");
        }
    }
}
