//! Authorizers for applications that have none of their own.

use std::fmt;
use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::header::{AUTHORIZATION, FORWARDED, HOST};
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;

use crate::access::{Access, Authorizer, Denied};

/// Authorizers for applications that have none of their own.
pub struct Auth {
    way: Way,
    access: Access,
}

enum Way {
    /// The name and the password as browsers send them.
    Basic(String),
    Loopback,
}

impl Auth {
    /// One name and one password, which the browser asks for: HTTP basic authentication. What they
    /// may see and do stands in the access, whose name is the user's.
    ///
    /// The browser sends the password with every request, so use it behind TLS, or on one machine.
    /// Guessing is not slowed down: take a password that is a long random text.
    pub fn basic(password: &str, access: Access) -> Self {
        Self { way: Way::Basic(format!("{}:{password}", access.who())), access }
    }

    /// Nobody is asked who they are: for a laptop.
    ///
    /// Only browsers on this machine are served: the peer's address is a loopback one, the request
    /// names this machine as its host, and no proxy has passed it on. All others are denied, and so
    /// is everybody if the application does not tell who its peers are, as
    /// `into_make_service_with_connect_info::<SocketAddr>()` does.
    pub fn none_i_know(access: Access) -> Self {
        Self { way: Way::Loopback, access }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.way {
            Way::Basic(_) => "basic",
            Way::Loopback => "none",
        };
        f.debug_struct("Auth").field("way", &way).field("access", &self.access).finish()
    }
}

impl Authorizer for Auth {
    async fn authorize(&self, request: &Parts) -> Result<Access, Denied> {
        let may = match &self.way {
            Way::Basic(expected) => knows(request, expected),
            Way::Loopback => is_local(request),
        };
        match (may, &self.way) {
            (true, _) => Ok(self.access.clone()),
            (false, Way::Basic(_)) => Err(Denied::Unauthorized(Some(CHALLENGE))),
            (false, Way::Loopback) => Err(Denied::Forbidden),
        }
    }
}

/// Whether the request brings these credentials. It takes as long wherever they differ.
fn knows(request: &Parts, expected: &str) -> bool {
    let header = request.headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok());
    let encoded = header.and_then(|header| {
        let (scheme, encoded) = header.split_once(' ')?;
        scheme.eq_ignore_ascii_case("basic").then_some(encoded.trim())
    });
    let given = encoded.and_then(|encoded| STANDARD.decode(encoded).ok());
    given.is_some_and(|given| given.ct_eq(expected.as_bytes()).into())
}

/// Whether a browser on this machine asks for something on this machine. The host's name is looked
/// at because a page elsewhere can make its own name mean this machine.
fn is_local(request: &Parts) -> bool {
    let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
    let near = peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
    let passed_on = request.headers.contains_key(FORWARDED)
        || request.headers.keys().any(|name| name.as_str().starts_with("x-forwarded-"))
        || request.headers.contains_key("x-real-ip");
    let host = request.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri.host());
    near && !passed_on && host.is_some_and(is_this_machine)
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
        knows(&request(&[("authorization", &header)], None), "alice:pass:word")
    }

    #[test]
    fn only_the_very_name_and_password_are_let_in() {
        assert!(basic("alice:pass:word"));
        for wrong in ["alice:pass", "Alice:pass:word", "alice", "", "alice:pass:word "] {
            assert!(!basic(wrong), "{wrong}");
        }
        for header in ["Basic !!!", "Bearer YWxpY2U6cGFzczp3b3Jk", "Basic"] {
            assert!(!knows(&request(&[("authorization", header)], None), "alice:pass:word"));
        }
        assert!(!knows(&request(&[], None), "alice:pass:word"));
    }

    #[test]
    fn without_a_login_only_browsers_of_this_machine_are_served() {
        let near = Some("127.0.0.1:5000");
        for host in ["localhost", "localhost:8083", "127.0.0.1:1", "[::1]:80", "[::1]"] {
            assert!(is_local(&request(&[("host", host)], near)), "{host}");
        }
        assert!(is_local(&request(&[("host", "localhost")], Some("[::ffff:127.0.0.1]:9"))));
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "10.0.0.1"]
        {
            assert!(!is_local(&request(&[("host", host)], near)), "{host}");
        }
        assert!(!is_local(&request(&[("host", "localhost")], Some("10.0.0.1:5"))));
        assert!(!is_local(&request(&[("host", "localhost")], None)), "nobody says who asks");
        for header in ["forwarded", "x-forwarded-for", "X-Forwarded-Host", "x-real-ip"] {
            assert!(!is_local(&request(&[("host", "localhost"), (header, "x")], near)), "{header}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let auth = Auth::basic("canary", Access::read_only("alice"));
        assert!(!format!("{auth:?}").contains("canary"), "{auth:?}");
    }
}
