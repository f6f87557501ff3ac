//! Authorizers for applications without a login of their own.

use std::fmt;
use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::header::{AUTHORIZATION, FORWARDED, HOST};
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;

use crate::access::{Access, Authorizer, Denied};

/// Authorizers for applications without a login of their own.
pub struct Auth {
    method: Method,
    access: Access,
}

enum Method {
    /// User name and password, as browsers send them.
    Basic(String),
    Loopback,
}

impl Auth {
    /// HTTP basic authentication with one user name and one password. The user name is that of
    /// `access`, which also says what the user may see and do.
    ///
    /// The browser sends the password with every request: use TLS, or only local connections. There
    /// is no limit on attempts, so choose a long random password.
    pub fn basic(password: &str, access: Access) -> Self {
        Self { method: Method::Basic(format!("{}:{password}", access.who())), access }
    }

    /// No authentication, for local development: only browsers on this machine have access.
    ///
    /// A request is accepted if the peer's address is a loopback address, the `Host` header names this
    /// machine, and no header shows that a proxy forwarded it. All other requests are denied. Serve
    /// the application with `into_make_service_with_connect_info::<SocketAddr>()`; without it, the
    /// peer's address is unknown and every request is denied.
    pub fn loopback_only(access: Access) -> Self {
        Self { method: Method::Loopback, access }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            Method::Basic(_) => "basic",
            Method::Loopback => "none",
        };
        f.debug_struct("Auth").field("method", &method).field("access", &self.access).finish()
    }
}

impl Authorizer for Auth {
    async fn authorize(&self, request: &Parts) -> Result<Access, Denied> {
        match &self.method {
            Method::Basic(expected) if !has_credentials(request, expected) => {
                Err(Denied::Unauthorized(Some(CHALLENGE)))
            }
            Method::Loopback if !is_local(request) => Err(Denied::Forbidden),
            _ => Ok(self.access.clone()),
        }
    }
}

/// Whether the request has these credentials, compared in constant time.
fn has_credentials(request: &Parts, expected: &str) -> bool {
    let header = request.headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok());
    let encoded = header.and_then(|header| {
        let (scheme, encoded) = header.split_once(' ')?;
        scheme.eq_ignore_ascii_case("basic").then_some(encoded.trim())
    });
    let given = encoded.and_then(|encoded| STANDARD.decode(encoded).ok());
    given.is_some_and(|given| given.ct_eq(expected.as_bytes()).into())
}

/// Whether the request comes from a browser on this machine. The host name is checked because of
/// DNS rebinding: another site can make its own name resolve to this machine.
fn is_local(request: &Parts) -> bool {
    let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
    let is_loopback = peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
    let forwarded = request.headers.contains_key(FORWARDED)
        || request.headers.keys().any(|name| name.as_str().starts_with("x-forwarded-"))
        || request.headers.contains_key("x-real-ip");
    let host = request.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri.host());
    is_loopback && !forwarded && host.is_some_and(is_this_machine)
}

fn is_this_machine(host: &str) -> bool {
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

const CHALLENGE: &str = "Basic realm=\"streamjobs\", charset=\"UTF-8\"";

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn request(headers: &[(&str, &str)], peer: Option<&str>) -> Parts {
        let mut request = Request::builder().uri("/jobs");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        if let Some(peer) = peer {
            parts.extensions.insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
        }
        parts
    }

    fn basic(text: &str) -> bool {
        let header = format!("bAsIc {}", STANDARD.encode(text));
        has_credentials(&request(&[("authorization", &header)], None), "alice:pass:word")
    }

    #[test]
    fn only_the_exact_name_and_password_are_accepted() {
        assert!(basic("alice:pass:word"));
        for wrong in ["alice:pass", "Alice:pass:word", "alice", "", "alice:pass:word "] {
            assert!(!basic(wrong), "{wrong}");
        }
        for header in ["Basic !!!", "Bearer YWxpY2U6cGFzczp3b3Jk", "Basic"] {
            assert!(!has_credentials(
                &request(&[("authorization", header)], None),
                "alice:pass:word"
            ));
        }
        assert!(!has_credentials(&request(&[], None), "alice:pass:word"));
    }

    #[test]
    fn without_a_login_only_browsers_on_this_machine_are_served() {
        let local = Some("127.0.0.1:5000");
        for host in ["localhost", "localhost:8083", "127.0.0.1:1", "[::1]:80", "[::1]"] {
            assert!(is_local(&request(&[("host", host)], local)), "{host}");
        }
        assert!(is_local(&request(&[("host", "localhost")], Some("[::ffff:127.0.0.1]:9"))));
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "10.0.0.1"]
        {
            assert!(!is_local(&request(&[("host", host)], local)), "{host}");
        }
        assert!(!is_local(&request(&[("host", "localhost")], Some("10.0.0.1:5"))));
        assert!(!is_local(&request(&[("host", "localhost")], None)), "the peer is unknown");
        for header in ["forwarded", "x-forwarded-for", "X-Forwarded-Host", "x-real-ip"] {
            assert!(
                !is_local(&request(&[("host", "localhost"), (header, "x")], local)),
                "{header}"
            );
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let auth = Auth::basic("canary", Access::read_only("alice"));
        assert!(!format!("{auth:?}").contains("canary"), "{auth:?}");
    }
}
