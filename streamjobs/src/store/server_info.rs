//! What a server reports about itself: version, state, settings, the user's rights, its clock.

use std::time::Duration;

use async_trait::async_trait;

use super::types::{Queue, Result, ServerTime};
use crate::model::name::StreamName;
use crate::model::version::Release;

/// Reports what the server is and how it is set up.
#[async_trait]
pub trait ServerInfo: Send + Sync {
    /// Reads everything that the doctor examines; changes nothing. In a cluster, it asks every node that
    /// has slots. It tries rights on the keys of these queues, or on an example key if there are no
    /// queues.
    async fn facts(&self, queues: &[Queue]) -> Result<Facts>;

    /// What the user may not do on the keys of these queues; changes nothing.
    async fn rights(&self, queues: &[Queue]) -> Result<Rights>;

    /// The clock of the server that has a stream.
    async fn now(&self, stream: &StreamName) -> Result<ServerTime>;
}

/// What the server reported, or why it refused.
pub type Reported<T> = Result<T, String>;

/// What the servers of a client report.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The server, or the nodes of the cluster that have slots and answered: at least one.
    pub servers: Vec<ServerFacts>,
    /// The cluster as a whole, if there is one.
    pub cluster: Option<ClusterFacts>,
}

/// What is known of a cluster beside what its nodes report about themselves.
#[derive(Clone, Debug, Default)]
pub struct ClusterFacts {
    /// How many slots no node has.
    pub slots_without_node: usize,
    /// Nodes that could not be asked.
    pub unreachable: Vec<UnreachableNode>,
}

/// A node that could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreachableNode {
    /// Its address, as the cluster announces it.
    pub address: String,
    /// Whether it is a replica.
    pub is_replica: bool,
    /// Why it could not be asked.
    pub why: String,
}

/// What a server reports about itself.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// Its address.
    pub address: String,
    /// The user of the connection.
    pub user: String,
    /// Whether a replica can take its place, as Sentinel decides.
    pub fails_over: bool,
    /// Whether the node says that its cluster can be used; `None` without a cluster.
    pub cluster_ok: Option<Reported<bool>>,
    /// Its version and state.
    pub state: Reported<ServerState>,
    /// Settings that its state does not show.
    pub settings: Reported<ServerSettings>,
    /// What the user may not do.
    pub rights: Reported<Rights>,
    /// Its clock, compared with this machine's.
    pub clock: Reported<ClockOffset>,
}

/// The version and state of a server; `None` for what it does not report.
#[derive(Clone, Debug, Default)]
pub struct ServerState {
    /// Its product and version.
    pub release: Option<Release>,
    /// Whether it is a replica.
    pub replica: Option<bool>,
    /// Whether it is a node of a cluster.
    pub cluster: Option<bool>,
    /// How many replicas it has.
    pub replicas: Option<u64>,
    /// How many connections are open.
    pub connections: Option<u64>,
    /// How many connections it accepts.
    pub connections_max: Option<u64>,
    /// How many bytes of memory it uses.
    pub memory: Option<u64>,
    /// How many bytes of memory it may use; zero means no limit.
    pub memory_max: Option<u64>,
    /// Its eviction policy at that limit.
    pub eviction: Option<String>,
    /// Whether the append-only file is enabled.
    pub append_only: Option<bool>,
    /// Whether the last write to the append-only file succeeded.
    pub append_ok: Option<bool>,
    /// Whether the last rewrite of the append-only file succeeded.
    pub rewrite_ok: Option<bool>,
    /// Whether the last snapshot succeeded.
    pub snapshot_ok: Option<bool>,
}

/// Settings of a server; `None` for what it does not report.
#[derive(Clone, Debug, Default)]
pub struct ServerSettings {
    /// Whether snapshots are written regularly.
    pub snapshots: Option<bool>,
    /// When the append-only file is flushed to disk: `always`, `everysec` or `no`.
    pub fsync: Option<String>,
    /// After how long idle connections are closed; zero means never.
    pub idle_timeout: Option<Duration>,
    /// How many replicas have to be connected for writes to be accepted.
    pub replicas_to_write: Option<u64>,
    /// How many entries a node of a stream holds at most; zero means any number.
    pub node_entries_max: Option<u64>,
    /// After how long a silence the other nodes of a cluster consider a master dead.
    pub node_timeout: Option<Duration>,
    /// Whether all nodes of a cluster refuse to serve while a slot has no living master.
    pub full_coverage: Option<bool>,
    /// Whether a node answers reads while its cluster is down.
    pub reads_when_down: Option<bool>,
}

/// What the user may not do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// The user of the connection.
    pub user: String,
    /// The missing commands that the server does not know: renamed or disabled ones.
    pub unknown: Vec<&'static str>,
    /// Commands that touch no key.
    pub missing: Vec<&'static str>,
    /// What is refused on each key.
    pub keys: Vec<KeyRights>,
    /// Whether the keys belong to the queues of the request.
    pub named: bool,
}

/// What the user may not do to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRights {
    /// The key.
    pub key: String,
    /// Commands that are refused on it.
    pub missing: Vec<&'static str>,
    /// How many commands were tried.
    pub tried: usize,
    /// Whether publishing to it is allowed.
    pub publishing: bool,
}

/// The difference between the server's clock and this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// The difference.
    pub apart: Duration,
    /// By how much the difference may be wrong: half of the round trip.
    pub error: Duration,
    /// Whether the server's clock is ahead.
    pub ahead: bool,
}
