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
