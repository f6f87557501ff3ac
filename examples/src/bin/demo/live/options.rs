//! Options of the demo page.

use std::net::IpAddr;
use std::time::Duration;

/// Where dead letters are archived. An address can contain a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Store {
    Private,
    Given(String),
}

/// Where a page is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// A loopback address.
    pub(crate) host: IpAddr,
    /// 0 for any free port.
    pub(crate) port: u16,
}

/// Options of the demo page.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) place: Place,
    /// `None` for a private server. Can contain a password.
    pub(crate) redis_url: Option<String>,
    pub(crate) stream_key: String,
    /// Entries of history to keep; 0 for all.
    pub(crate) maxlen: u64,
    pub(crate) lease: Duration,
    pub(crate) reset: bool,
    /// `None` leaves dead letters in Redis.
    pub(crate) archive: Option<Store>,
}

impl std::fmt::Debug for Options {
    /// Omits the address, which can contain a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("place", &self.place).finish_non_exhaustive()
    }
}

/// An address without user and password. They are before an `@` or, for a socket, after a `?`.
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
    fn an_address_is_shown_without_user_and_password() {
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
