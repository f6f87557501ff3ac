//! In front of everything: who asks, what every answer says to the browser, and whose form it is.

use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, SET_COOKIE, VARY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::access::Denied;
use crate::csrf::{Brought, is_same_origin};
use crate::fault::Fault;
use crate::layout;
use crate::notice;
use crate::state::Shared;
use crate::visit::Visit;

/// Lets in whom the authorizer lets in, and refuses forms that other sites sent.
pub(crate) async fn guard(
    axum::extract::State(state): axum::extract::State<Shared>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let access = match state.authorizer.decide(&parts).await {
        Ok(access) => access,
        Err(denied) => return with_headers(deny(denied)),
    };
    let (visit, brought) = Visit::of(&parts, access);
    if !matches!(parts.method, Method::GET | Method::HEAD) && !is_same_origin(&parts) {
        let foreign = Fault::forbidden("Only a page of this dashboard may send this.");
        return with_headers(layout::failed(&visit, &state, &foreign));
    }
    let had_notice = visit.notice.is_some();
    let token = visit.token.clone();
    parts.extensions.insert(visit);
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if brought == Brought::No {
        set_cookie(response.headers_mut(), &token.cookie());
    }
    // An answer that leaves a notice has its own cookie; one that showed it takes it away.
    if had_notice && response.status() == StatusCode::OK {
        set_cookie(response.headers_mut(), &notice::forget());
    }
    with_headers(response)
}

pub(crate) fn set_cookie(headers: &mut HeaderMap, cookie: &str) {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        headers.append(SET_COOKIE, cookie);
    }
}

/// Whoever is denied learns nothing but that.
fn deny(denied: Denied) -> Response {
    match denied {
        Denied::Unauthorized(challenge) => {
            let mut response = (StatusCode::UNAUTHORIZED, "You have to log in.").into_response();
            // The text is the application's own. One that is no header is left out.
            if let Some(Ok(challenge)) = challenge.map(HeaderValue::from_str) {
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            response
        }
        Denied::Forbidden => (StatusCode::FORBIDDEN, "You may not look at this.").into_response(),
    }
}

fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

const HEADERS: [(HeaderName, &str); 6] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    // One address gives the page, and what follows it.
    (VARY, "Accept"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_that_is_no_header_is_left_out_and_nobody_is_let_in() {
        for (challenge, told) in [
            (None, None),
            (Some("Basic realm=\"jobs\""), Some("Basic realm=\"jobs\"")),
            (Some("Basic\r\nset-cookie: a=b"), None),
            (Some("Basic realm=\u{0}"), None),
        ] {
            let response = deny(Denied::Unauthorized(challenge));
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            let header = response.headers().get(WWW_AUTHENTICATE);
            assert_eq!(header.map(|header| header.to_str().unwrap()), told, "{challenge:?}");
        }
    }
}
