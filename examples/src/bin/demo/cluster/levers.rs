//! The levers: what is done to the nodes of the cluster under load.

use std::time::{Duration, Instant};

use streamjobs_tests::server::{NodeState, RedisCluster, RedisServer};
use thiserror::Error;
use tokio::time::sleep;

use crate::AnyError;
use crate::cluster::app::{App, Partition};

/// Why a lever was not pulled, or what came of it.
#[derive(Debug, Error)]
pub(crate) enum LeverError {
    #[error("another lever is being pulled")]
    Busy,
    #[error("no node listens on port {0}")]
    NoNode(u16),
    #[error("{0}")]
    Refused(String),
    #[error("{0} within {WAITED_MAX:?}")]
    NotSeen(String),
    #[error(transparent)]
    Cluster(AnyError),
}

impl From<AnyError> for LeverError {
    fn from(error: AnyError) -> Self {
        Self::Cluster(error)
    }
}

fn refused<T>(why: impl Into<String>) -> Result<T, LeverError> {
    Err(LeverError::Refused(why.into()))
}

impl App {
    /// Kills a master, and returns the port of the replica that has taken over.
    pub(crate) async fn kill(&self, port: u16) -> Result<u16, LeverError> {
        let _turn = self.lever.try_lock().map_err(|_| LeverError::Busy)?;
        let nodes = self.nodes().await?;
        let master = node(&nodes, port)?;
        if !master.is_master() {
            return refused(format!("{port} is not a master that lives"));
        }
        if !nodes.iter().any(|node| node.lives && node.follows == Some(port)) {
            return refused(format!("{port} has no replica: its partitions would wait for it"));
        }
        let own = self.partitions.iter().filter(|partition| master.owns(partition.slot));
        let own = own.cloned().collect::<Vec<_>>();
        let Some(Partition { slot, .. }) = own.first() else {
            return refused(format!("{port} has no partition"));
        };
        let begun = Instant::now();
        self.book.lock().killed(own.iter().map(|partition| partition.name.to_string()), begun);
        self.on_server(port, RedisServer::kill).await?;
        let otherwise = format!("no replica of {port} took over");
        let took_over =
            |nodes: &[NodeState]| nodes.iter().any(|node| node.is_master() && node.owns(*slot));
        let nodes = self.until(&otherwise, took_over).await?;
        let heir = nodes.iter().find(|node| node.owns(*slot)).map_or(port, |node| node.port);
        self.tell(&format!(
            "killed the master {port}: its replica {heir} took over after {:.1} s",
            begun.elapsed().as_secs_f64()
        ));
        Ok(heir)
    }

    /// Starts a node that was killed. It comes back as a replica, and has copied all when this returns.
    pub(crate) async fn bring_back(&self, port: u16) -> Result<(), LeverError> {
        let _turn = self.lever.try_lock().map_err(|_| LeverError::Busy)?;
        if node(&self.nodes().await?, port)?.lives {
            return refused(format!("{port} lives"));
        }
        self.on_server(port, RedisServer::restart).await?.map_err(AnyError::from)?;
        let end = Instant::now() + WAITED_MAX;
        loop {
            let link = self.on_server(port, |server| server.info("master_link_status")).await?;
            if link.as_deref() == Some("up") {
                break;
            }
            if Instant::now() > end {
                return Err(LeverError::NotSeen(format!("{port} did not follow its master")));
            }
            sleep(LOOK_AGAIN).await;
        }
        self.tell(&format!("brought {port} back, as a replica"));
        Ok(())
    }

    /// Moves the slot of a partition to another master.
    pub(crate) async fn reshard(&self, partition: usize, to: u16) -> Result<(), LeverError> {
        let _turn = self.lever.try_lock().map_err(|_| LeverError::Busy)?;
        let Some(Partition { slot, .. }) = self.partitions.get(partition) else {
            return refused(format!("there is no partition {partition}"));
        };
        let nodes = self.nodes().await?;
        let target = node(&nodes, to)?;
        if !target.is_master() {
            return refused(format!("{to} is not a master that lives"));
        }
        if target.owns(*slot) {
            return refused(format!("partition {partition} is there already"));
        }
        if !nodes.iter().any(|node| node.is_master() && node.owns(*slot)) {
            return refused(format!("partition {partition} has no living master now"));
        }
        self.move_slot(partition, *slot, to).await
    }

    /// Starts a further master, and moves its share of the partitions there. Returns its port.
    pub(crate) async fn add_node(&self) -> Result<u16, LeverError> {
        let _turn = self.lever.try_lock().map_err(|_| LeverError::Busy)?;
        let nodes = self.nodes().await?;
        if let Some(dead) = nodes.iter().find(|node| !node.lives) {
            return refused(format!("bring {} back first", dead.port));
        }
        if nodes.len() >= NODES_MAX {
            return refused(format!("at most {NODES_MAX} nodes can run"));
        }
        let mut cluster = self.cluster.clone().write_owned().await;
        let adding = tokio::task::spawn_blocking(move || cluster.add_node()).await;
        adding.map_err(AnyError::from)?.map_err(AnyError::from)?;
        let nodes = self.nodes().await?;
        let port = nodes.last().ok_or(LeverError::NoNode(0))?.port;
        self.tell(&format!("added the node {port}"));
        for partition in share(&self.partitions, &nodes) {
            let slot = self.partitions.get(partition).map_or(0, |partition| partition.slot);
            self.move_slot(partition, slot, port).await?;
        }
        Ok(port)
    }

    async fn move_slot(&self, partition: usize, slot: u16, to: u16) -> Result<(), LeverError> {
        let begun = Instant::now();
        let moving = move |cluster: &RedisCluster| {
            let Some(to) = cluster.nodes().iter().find(|node| node.port() == to) else { return };
            // Older servers move it key by key.
            if cluster.migrate_atomically(slot..=slot, to).is_none() {
                cluster.migrate(slot, to);
            }
        };
        self.on_cluster(moving).await?;
        let took = begun.elapsed().as_millis();
        self.tell(&format!("moved partition {partition} to {to} in {took} ms"));
        Ok(())
    }

    async fn on_server<T: Send + 'static>(
        &self,
        port: u16,
        act: impl FnOnce(&RedisServer) -> T + Send + 'static,
    ) -> Result<T, LeverError> {
        let acting = move |cluster: &RedisCluster| {
            cluster.nodes().iter().find(|node| node.port() == port).map(act)
        };
        self.on_cluster(acting).await?.ok_or(LeverError::NoNode(port))
    }

    /// Waits until the nodes are like this, and returns them.
    async fn until(
        &self,
        otherwise: &str,
        is_so: impl Fn(&[NodeState]) -> bool,
    ) -> Result<Vec<NodeState>, LeverError> {
        let end = Instant::now() + WAITED_MAX;
        loop {
            let nodes = self.nodes().await?;
            if is_so(&nodes) {
                return Ok(nodes);
            }
            if Instant::now() > end {
                return Err(LeverError::NotSeen(otherwise.to_owned()));
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

fn node(nodes: &[NodeState], port: u16) -> Result<&NodeState, LeverError> {
    nodes.iter().find(|node| node.port == port).ok_or(LeverError::NoNode(port))
}

/// The partitions that a further master takes from the others, so that all have about the same number.
fn share(partitions: &[Partition], nodes: &[NodeState]) -> Vec<usize> {
    let masters = nodes.iter().filter(|node| node.is_master());
    let mut owned = masters
        .map(|master| {
            let own = partitions.iter().enumerate();
            let own = own.filter(|(_, partition)| master.owns(partition.slot));
            own.map(|(place, _)| place).collect::<Vec<_>>()
        })
        .collect::<Vec<_>>();
    let mut taken = Vec::new();
    while taken.len() < partitions.len() / owned.len().max(1) {
        let Some(largest) = owned.iter_mut().max_by_key(|own| own.len()) else { break };
        let Some(partition) = largest.pop() else { break };
        taken.push(partition);
    }
    taken
}

/// A failover takes about 3.5 s, and much longer on a machine that does much else.
const WAITED_MAX: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const NODES_MAX: usize = 10;
