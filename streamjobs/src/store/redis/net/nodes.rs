//! The servers of a store: one, or the nodes of a cluster.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::cluster::{Cluster, Survey};
use super::deadlines::CONNECT_DEADLINE;
use super::endpoint::Endpoint;
use super::links::Pinned;
use super::node::Node;
use super::places::Place;
use super::route::Route;
use crate::model::cause::BoxError;
use crate::model::config::ConnectionOptions;
use crate::model::error::ConnectError;
use crate::model::slot::slot_of;
use crate::store::StoreError;
use crate::store::redis::script::Scripts;

/// The servers of a store. Clones share connections.
#[derive(Clone)]
pub(crate) enum Nodes {
    One(Node),
    Cluster(Arc<Cluster>),
}

impl Nodes {
    /// Reads an address of any kind.
    ///
    /// Its errors quote no part of the address: each part of a broken address could be the password.
    pub(crate) fn new(
        url: &str,
        options: ConnectionOptions,
        scripts: Scripts,
    ) -> Result<Self, ConnectError> {
        let cluster = |scheme| url.strip_prefix(scheme)?.strip_prefix("+cluster://");
        for scheme in ["redis", "rediss"] {
            if let Some(text) = cluster(scheme) {
                let cluster = Cluster::new(scheme, text, &options, scripts)?;
                return Ok(Self::Cluster(Arc::new(cluster)));
            }
        }
        Ok(Self::One(Node::new(Endpoint::new(url, options)?, scripts)))
    }

    /// The same servers, with other connections.
    pub(crate) fn fork(&self) -> Self {
        match self {
            Self::One(Node { link, .. }) => {
                Self::One(Node::new(link.endpoint().clone(), link.all_scripts()))
            }
            Self::Cluster(cluster) => Self::Cluster(Arc::new(cluster.fork())),
        }
    }

    /// The route to the server that has a key.
    pub(crate) fn route(&self, key: &str) -> Route {
        match self {
            Self::One(node) => Route::One(node.clone()),
            Self::Cluster(cluster) => Route::Slot(Arc::clone(cluster), slot_of(key)),
        }
    }

    /// The connection to the only server, with a place for a request of this many bytes, if there is one
    /// now.
    pub(crate) fn place_now(&self, bytes: usize) -> Option<(Pinned, Place)> {
        match self {
            Self::One(node) => node.link.place_now(bytes),
            Self::Cluster(_) => None,
        }
    }

    /// One of the servers, for requests that any of them can answer.
    pub(crate) async fn any(&self) -> Result<Node, StoreError> {
        match self {
            Self::One(node) => Ok(node.clone()),
            Self::Cluster(cluster) => {
                let first = cluster.owners().await?.into_iter().next();
                first.map(|(_, node)| node).ok_or_else(super::error::not_connected)
            }
        }
    }

    /// What the cluster reports about its nodes now; `None` without a cluster.
    pub(crate) async fn survey(&self) -> Result<Option<Survey>, StoreError> {
        match self {
            Self::One(_) => Ok(None),
            Self::Cluster(cluster) => cluster.survey().await.map(Some),
        }
    }

    /// Connects to all servers, and checks that they can be used. In a cluster, an error names its server.
    pub(crate) async fn check(&self) -> Result<(), BoxError> {
        match self {
            Self::One(node) => node.check().await,
            Self::Cluster(cluster) => {
                let until = Instant::now() + CHECK_DEADLINE;
                for (address, node) in cluster.owners().await? {
                    // A node behind address translation may give no answer, not even a refusal.
                    let checked = timeout_at(until, node.check()).await;
                    if let Err(error) = checked.unwrap_or_else(|elapsed| Err(elapsed.into())) {
                        return Err(NodeFailed { address: address.to_string(), error }.into());
                    }
                }
                Ok(())
            }
        }
    }
}

/// A node of a cluster that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use node {address}, an address that the cluster announces")]
struct NodeFailed {
    address: String,
    #[source]
    error: BoxError,
}

/// How long the check of one node may take: shorter than the time for connecting, so that the error names the node.
const CHECK_DEADLINE: Duration = CONNECT_DEADLINE.saturating_sub(Duration::from_millis(500));

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(node) => fmt::Display::fmt(node.link.endpoint(), f),
            Self::Cluster(cluster) => fmt::Display::fmt(cluster, f),
        }
    }
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(node) => fmt::Debug::fmt(&node.link, f),
            Self::Cluster(cluster) => fmt::Debug::fmt(cluster, f),
        }
    }
}
