//! Starts the nodes of a cluster and lets them find each other.

use std::time::Duration;

use super::slot::SLOTS;
use super::view::view_of;
use super::{AGREED, RedisCluster};
use crate::eventually::eventually;
use crate::server::{RedisServer, ServerError};

/// The settings with which a [`RedisCluster`] is started.
#[derive(Debug)]
#[must_use]
pub struct RedisClusterBuilder {
    masters: u16,
    replicas: u16,
    node_timeout: Duration,
    full_coverage: bool,
    append_only: bool,
}

impl RedisClusterBuilder {
    pub(super) fn new() -> Self {
        Self {
            masters: 3,
            replicas: 0,
            node_timeout: Duration::from_secs(2),
            full_coverage: true,
            append_only: false,
        }
    }

    /// How many masters share the slots. Default: 3, the smallest number that can elect a replica
    /// when one of them dies.
    pub fn masters(mut self, masters: u16) -> Self {
        self.masters = masters;
        self
    }

    /// How many replicas each master has. Default: 0.
    pub fn replicas(mut self, each: u16) -> Self {
        self.replicas = each;
        self
    }

    /// How long a node may be silent until the others consider it dead; a replica takes over about a
    /// second and a half later. Default: 2 seconds.
    pub fn node_timeout(mut self, node_timeout: Duration) -> Self {
        self.node_timeout = node_timeout;
        self
    }

    /// Whether all nodes refuse commands while any slot has no living master. Default: yes.
    pub fn full_coverage(mut self, full_coverage: bool) -> Self {
        self.full_coverage = full_coverage;
        self
    }

    /// Whether the nodes log each write to disk, so that it survives a restart. Default: no.
    pub fn append_only(mut self, append_only: bool) -> Self {
        self.append_only = append_only;
        self
    }

    /// Starts the nodes and returns when each of them knows all others and every replica has all
    /// data of its master. That takes two to four seconds.
    ///
    /// # Errors
    ///
    /// If there is no server program and none can be installed, or if one does not start.
    ///
    /// # Panics
    ///
    /// If the nodes do not find each other.
    pub fn start(self) -> Result<RedisCluster, ServerError> {
        assert!(self.masters > 0, "a cluster has at least one master");
        let count = self.masters * (1 + self.replicas);
        let nodes = (0..count).map(|_| self.start_node()).collect::<Result<Vec<_>, _>>()?;
        let (masters, replicas) = nodes.split_at(self.masters.into());
        share_slots(masters);
        for (node, epoch) in nodes.iter().zip(1..) {
            // Nodes that start with the same configuration epoch need some time to agree on which is
            // right.
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &u16::to_string(&epoch)]);
        }
        for node in &nodes[1..] {
            meet(&nodes[0], node);
        }
        await_agreement(&nodes);
        follow_in_turn(replicas, masters);
        Ok(RedisCluster { nodes, builder: self })
    }

    /// How long a node may be silent.
    pub(super) fn silence_max(&self) -> Duration {
        self.node_timeout
    }

    /// Starts a node that does not know any other one.
    pub(super) fn start_node(&self) -> Result<RedisServer, ServerError> {
        RedisServer::builder()
            .cluster_node()
            .append_only(self.append_only)
            .config("cluster-node-timeout", self.node_timeout.as_millis().to_string())
            .config("cluster-require-full-coverage", if self.full_coverage { "yes" } else { "no" })
            // Otherwise a master that has given away its last slot becomes a replica, and replicas
            // move to masters that have none: a test would not find the nodes as it has arranged
            // them.
            .config("cluster-allow-replica-migration", "no")
            // Otherwise a replica's first synchronization would wait five seconds for other
            // replicas.
            .config("repl-diskless-sync-delay", "0")
            .start()
    }
}

/// Gives each master a range of slots, all of about the same size.
fn share_slots(masters: &[RedisServer]) {
    let count = masters.len();
    let first = |index: usize| usize::from(SLOTS) * index / count;
    for (index, master) in masters.iter().enumerate() {
        let (first, last) = (first(index).to_string(), (first(index + 1) - 1).to_string());
        master.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
    }
}

/// Introduces `node` to `known`, which tells all others.
pub(super) fn meet(known: &RedisServer, node: &RedisServer) {
    let bus_port = node.bus_port.expect("a node of a cluster has one");
    let (port, bus_port) = (node.port().to_string(), bus_port.to_string());
    known.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]);
}

/// Returns when each of `nodes` knows all of them, and a master for each slot.
pub(super) fn await_agreement(nodes: &[RedisServer]) {
    eventually(AGREED, "all nodes of the cluster know each other and all slots", || {
        nodes.iter().all(|node| {
            let info: String = node.try_query(&["CLUSTER", "INFO"]).unwrap_or_default();
            let says = |line: &str| info.lines().any(|own| own == line);
            let view = view_of(node);
            let knows = |other: &RedisServer| {
                view.iter().any(|row| row.port == other.port() && row.is_known)
            };
            says("cluster_state:ok")
                && says(&format!("cluster_slots_assigned:{SLOTS}"))
                && nodes.iter().all(knows)
        })
    });
}

/// Distributes the replicas over the masters and returns when all nodes know of it and each replica
/// has all data of its master.
fn follow_in_turn(replicas: &[RedisServer], masters: &[RedisServer]) {
    for (replica, master) in replicas.iter().zip(masters.iter().cycle()) {
        let id: String = master.query(&["CLUSTER", "MYID"]);
        replica.command(&["CLUSTER", "REPLICATE", &id]);
    }
    eventually(AGREED, "all replicas have all of their masters", || {
        replicas.iter().all(|replica| replica.info("master_link_status").as_deref() == Some("up"))
    });
    eventually(AGREED, "all nodes know which ones are replicas", || {
        let follows = |node: &RedisServer| {
            let view = view_of(node);
            let following = view.iter().filter(|row| row.master.is_some());
            following.count() == replicas.len()
        };
        masters.iter().chain(replicas).all(follows)
    });
}
