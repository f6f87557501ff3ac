//! How the page is to be served.

use std::net::IpAddr;
use std::time::Duration;

/// Where dead letters are archived: an address may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Store {
    Private,
    Given(String),
}

/// How the page is to be served.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// A loopback address.
    pub(crate) host: IpAddr,
    /// None for any that is free.
    pub(crate) port: u16,
    /// None for a private server. It may hold a password.
    pub(crate) redis_url: Option<String>,
    pub(crate) stream_key: String,
    /// Entries of history that are kept; 0 for all.
    pub(crate) maxlen: u64,
    pub(crate) lease: Duration,
    pub(crate) reset: bool,
    /// None leaves dead letters in Redis.
    pub(crate) archive: Option<Store>,
}

impl std::fmt::Debug for Options {
    /// Leaves out the address, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// An address as it may be shown: user and password come before an `@` or, in that of a socket, behind
/// a `?`.
pub(crate) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("redis", url));
    let place = match scheme {
        "redis" | "rediss" => rest.rsplit_once('@').map_or(rest, |(_, place)| place),
        _ => rest,
    };
    let place = place.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_who_asks_and_how() {
        for (url, shown) in [
            ("redis://h", "redis://h"),
            ("redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379/2"),
            ("rediss://user:canary@[::1]:1/3", "rediss://[::1]:1/3"),
            ("redis://:can@ary@h/1?protocol=resp3", "redis://h/1"),
            ("unix:///run/r.sock?db=1&user=u&pass=can@ary", "unix:///run/r.sock"),
            ("redis+unix:///run/@r.sock?pass=canary", "redis+unix:///run/@r.sock"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
