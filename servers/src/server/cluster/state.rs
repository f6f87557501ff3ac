//! The state of a cluster's nodes, for a page that shows them.

use std::ops::RangeInclusive;

use super::{RedisCluster, is_living};

/// One node of a cluster, as a living node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeState {
    /// The port on which it listens.
    pub port: u16,
    /// Whether its process runs.
    pub lives: bool,
    /// The port of its master, if it is a replica.
    pub follows: Option<u16>,
    slots: Vec<RangeInclusive<u16>>,
}

impl NodeState {
    /// Whether it is the master of a slot. A master that was killed is until a replica has taken
    /// over.
    pub fn owns(&self, slot: u16) -> bool {
        self.slots.iter().any(|range| range.contains(&slot))
    }

    /// Whether it is a living master, with or without slots.
    pub fn is_master(&self) -> bool {
        self.lives && self.follows.is_none()
    }
}

impl RedisCluster {
    /// All nodes, in the order of [`nodes`](Self::nodes).
    ///
    /// # Panics
    ///
    /// If no node lives.
    #[track_caller]
    pub fn states(&self) -> Vec<NodeState> {
        let view = self.view();
        let state = |node: &crate::server::RedisServer| {
            let row = view.iter().find(|row| row.port == node.port());
            let master = row.and_then(|row| row.master.as_ref());
            let master = master.and_then(|id| view.iter().find(|row| row.id == *id));
            NodeState {
                port: node.port(),
                lives: is_living(node),
                follows: master.map(|master| master.port),
                slots: row.map(|row| row.slots.clone()).unwrap_or_default(),
            }
        };
        self.nodes().iter().map(state).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually::eventually;
    use crate::server::cluster::AGREED;

    #[test]
    fn masters_replicas_and_the_dead_are_told_apart() {
        let cluster = RedisCluster::builder().replicas(1).start().expect("it starts");
        let states = cluster.states();
        let (masters, replicas) = states.split_at(3);
        assert!(masters.iter().all(NodeState::is_master));
        assert_eq!(replicas[0].follows, Some(masters[0].port));
        assert!(masters[0].owns(0) && !masters[1].owns(0) && !replicas[0].owns(0));
        cluster.nodes()[0].kill();
        assert!(!cluster.states()[0].lives);
        eventually(AGREED, "its replica is the master", || {
            let states = cluster.states();
            states[3].is_master() && states[3].owns(0) && !states[0].owns(0)
        });
    }
}
