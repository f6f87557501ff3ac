//! Where a client connects: to the server of an address, or to the primary that Sentinel names.

use std::fmt;
use std::sync::Arc;

use redis::{RedisResult, ServerError};

use super::address::{Address, NodeAddress};
use super::deadlines::CONNECT_DEADLINE;
use super::dial::within;
use super::error::is_wrong_server;
use super::sentinel::Sentinel;
use super::server::Server;
use crate::model::config::ConnectionOptions;
use crate::model::error::ConnectError;

/// Where a client connects. `Debug` and `Display` never show a password.
///
/// Clones share what is known about the primary.
#[derive(Clone)]
pub(crate) enum Endpoint {
    /// The server at an address.
    Fixed(Box<Address>),
    /// The primary that Sentinel knows by a name.
    Named(Arc<Sentinel>),
    /// A node of a cluster.
    Node(Box<Address>),
}

impl Endpoint {
    /// Reads an address of either kind.
    ///
    /// Its errors quote no part of the address: each part of a broken address could be the password.
    pub(crate) fn new(url: &str, options: ConnectionOptions) -> Result<Self, ConnectError> {
        Ok(match url.strip_prefix("redis+sentinel://") {
            None => Self::Fixed(Box::new(Address::new(url)?.with(options)?)),
            Some(text) => Self::Named(Arc::new(Sentinel::new(text, options)?)),
        })
    }

    /// A node of a cluster.
    pub(crate) fn of_node(address: Address) -> Self {
        Self::Node(Box::new(address))
    }

    /// The address of the node, in a cluster.
    pub(crate) fn node(&self) -> Option<NodeAddress> {
        match self {
            Self::Node(address) => address.node(),
            Self::Fixed(_) | Self::Named(_) => None,
        }
    }

    /// Whether to give up a connection after a refusal, because another server has to be found. In a cluster, `MOVED`
    /// and `CLUSTERDOWN` are no such refusals, because it is known where the other nodes are.
    pub(crate) fn is_left_after(&self, error: &ServerError) -> bool {
        let is_redirected = || matches!(error.code(), "MOVED" | "CLUSTERDOWN");
        match self {
            Self::Node(_) if is_redirected() => false,
            _ => is_wrong_server(error),
        }
    }

    /// The user that logs in, or the last one that did.
    pub(crate) fn user(&self) -> String {
        match self {
            Self::Fixed(address) | Self::Node(address) => address.user(),
            Self::Named(sentinel) => sentinel.user(),
        }
    }

    /// Whether another server can take the place of the connected one.
    pub(crate) fn fails_over(&self) -> bool {
        matches!(self, Self::Named(_))
    }

    /// Opens a connection with this function, to the server or to the primary, which is looked up each
    /// time. The address that the function gets has the user and password in force now. The function has
    /// to check the role if [`Server::ask_role`] asks for it, and the connection has to be given up at the
    /// end of the server's tenure as primary.
    pub(crate) async fn connect<T, F>(&self, open: impl Fn(Server) -> F) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        // These futures are boxed, because they are large and connecting is rare.
        match self {
            Self::Fixed(address) => {
                let opening = Box::pin(async {
                    open(Server::fixed(address.with_credentials().await?)).await
                });
                within(CONNECT_DEADLINE, opening).await
            }
            Self::Node(address) => {
                let opening =
                    Box::pin(async { open(Server::node(address.with_credentials().await?)).await });
                within(CONNECT_DEADLINE, opening).await
            }
            // Sentinel has deadlines of its own.
            Self::Named(sentinel) => Box::pin(sentinel.connect(open)).await,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) | Self::Node(address) => fmt::Display::fmt(address, f),
            Self::Named(sentinel) => fmt::Display::fmt(sentinel, f),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) | Self::Node(address) => fmt::Debug::fmt(address, f),
            Self::Named(sentinel) => fmt::Debug::fmt(sentinel, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentinel_address_shows_name_and_sentinels_and_no_password() {
        let url = "redis+sentinel://alice:canary@a,b:7/jobs/2?sentinel_password=canary";
        let endpoint = Endpoint::new(url, ConnectionOptions::default()).unwrap();
        assert_eq!(endpoint.to_string(), "jobs (Sentinel a:26379, b:7)");
        let text = format!("{endpoint:?}");
        assert!(text.contains("alice") && text.contains("database: 2"), "{text}");
        assert!(!text.contains("canary"), "{text}");
        assert_eq!((endpoint.user().as_str(), endpoint.fails_over()), ("alice", true));
    }

    #[test]
    fn an_address_without_a_sentinel_is_what_it_was() {
        let endpoint =
            Endpoint::new("redis://bob:canary@h:1/2", ConnectionOptions::default()).unwrap();
        assert_eq!((endpoint.to_string().as_str(), endpoint.user().as_str()), ("h:1", "bob"));
        assert!(!endpoint.fails_over());
        for (url, part) in [
            ("redis+sentinel:/canary", "does not begin with"),
            ("rediss+sentinel://canary/m", "TLS"),
            ("redis+sentinel://canary", "name the primary"),
        ] {
            let error = Endpoint::new(url, ConnectionOptions::default()).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("canary"), "{error}");
        }
    }
}
