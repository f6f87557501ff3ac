//! A private Redis Cluster for one test or one demo.

use std::time::{Duration, Instant};

use redis::{FromRedisValue, RedisResult};

use self::slot::slot_of;
use self::view::{Row, view_of};
use super::{RedisServer, ServerError};
use crate::eventually::{eventually, poll};
use crate::signal;

mod builder;
mod migration;
mod slot;
mod state;
mod view;

pub use self::builder::RedisClusterBuilder;
pub use self::state::NodeState;

/// How long nodes may take to find each other, to move slots or to make a replica the master.
const AGREED: Duration = Duration::from_secs(30);

/// How long a replica tries to take over after it is asked to; the server gives up after five seconds.
const TAKING_OVER: Duration = Duration::from_secs(6);

/// A private Redis Cluster, reachable from this machine only.
///
/// Each node is a [`RedisServer`], which a test may [`kill`](RedisServer::kill),
/// [`freeze`](RedisServer::freeze) and [`restart`](RedisServer::restart).
///
/// ```
/// use streamjobs_servers::server::RedisCluster;
///
/// let cluster = RedisCluster::start()?;
/// cluster.command("orders", &["XADD", "orders", "*", "type", "order.placed"]);
/// assert_eq!(cluster.length("orders"), 1);
/// # Ok::<(), streamjobs_servers::server::ServerError>(())
/// ```
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    builder: RedisClusterBuilder,
}

impl RedisCluster {
    /// Starts three masters without replicas, which share the slots.
    ///
    /// # Errors
    ///
    /// If there is no server program and none can be installed, or if one does not start.
    ///
    /// # Panics
    ///
    /// If the nodes do not find each other.
    pub fn start() -> Result<Self, ServerError> {
        Self::builder().start()
    }

    /// A builder for a cluster with other settings.
    pub fn builder() -> RedisClusterBuilder {
        RedisClusterBuilder::new()
    }

    /// The slot of `key`.
    pub fn slot(key: &str) -> u16 {
        slot_of(key)
    }

    /// The URL for clients: all nodes, including those that were killed.
    pub fn url(&self) -> String {
        let nodes = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port()));
        format!("redis+cluster://{}", nodes.collect::<Vec<_>>().join(","))
    }

    /// All nodes: the masters with which it was started, their replicas, and nodes that were added.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The master of `slot`, as a living node sees it. A master that was killed is returned until a
    /// replica has taken over.
    ///
    /// # Panics
    ///
    /// If no node lives or the slot has no master.
    #[track_caller]
    pub fn master_of(&self, slot: u16) -> &RedisServer {
        let view = self.view();
        let owner = view.iter().find(|row| row.is_master && row.owns(slot));
        let owner = owner.and_then(|row| self.at(row.port));
        owner.unwrap_or_else(|| panic!("slot {slot} has no master: {view:?}"))
    }

    /// The living replicas of `master`, by their own reports.
    pub fn replicas_of(&self, master: &RedisServer) -> Vec<&RedisServer> {
        let id = row_of(&self.view(), master).map(|row| row.id.clone());
        let follows = |node: &&RedisServer| {
            let view = view_of(node);
            let master = row_of(&view, node).and_then(|row| row.master.as_ref());
            master.is_some() && master == id.as_ref()
        };
        self.living().filter(follows).collect()
    }

    /// Runs one command on the master of `key` and returns the reply as text.
    ///
    /// # Panics
    ///
    /// If the master does not answer or refuses, or if the reply is not text.
    #[track_caller]
    pub fn command(&self, key: &str, words: &[impl AsRef<[u8]>]) -> String {
        self.query(key, words)
    }

    /// Runs one command on the master of `key` and returns the reply as a `T`.
    ///
    /// # Panics
    ///
    /// If the master does not answer or refuses, or if the reply is not a `T`.
    #[track_caller]
    pub fn query<T: FromRedisValue>(&self, key: &str, words: &[impl AsRef<[u8]>]) -> T {
        self.try_query(key, words).unwrap_or_else(|error| {
            let name = words.first().map(|word| String::from_utf8_lossy(word.as_ref()));
            panic!("{} failed on the master of {key}: {error}", name.unwrap_or_default())
        })
    }

    /// Runs one command on the master of `key`, which may be refused. It follows `MOVED` and `ASK`,
    /// and is repeated for a while if the nodes say that they cannot serve the slot now.
    ///
    /// # Errors
    ///
    /// If the master cannot be reached, does not answer in time, refuses, or answers with something
    /// that is not a `T`.
    #[track_caller]
    pub fn try_query<T: FromRedisValue>(
        &self,
        key: &str,
        words: &[impl AsRef<[u8]>],
    ) -> RedisResult<T> {
        let mut last = None;
        let answer = poll(AGREED, || match self.query_once(Self::slot(key), words) {
            Err(error) if error.is_cluster_error() => {
                last = Some(error);
                None
            }
            answer => Some(answer),
        });
        answer.unwrap_or_else(|| Err(last.expect("it was asked at least once")))
    }

    /// The number of entries in the stream `key`; 0 if the stream does not exist.
    #[track_caller]
    pub fn length(&self, key: &str) -> usize {
        self.query(key, &["XLEN", key])
    }

    /// Makes a replica take over as an operator would, and returns it when all nodes know it as the
    /// master. `node` is that replica, or a master of which a replica is to take over, even one that
    /// was killed.
    ///
    /// This takes less than a second, except on a replica that was the master a moment ago: Redis lets
    /// a node win again only after four node timeouts, and at the earliest after four seconds. If it
    /// is asked before that, it becomes master for a moment, the others do not follow, and it is asked
    /// again. Valkey has no such limit.
    ///
    /// # Panics
    ///
    /// If the master has no living replica, or if none takes over.
    #[track_caller]
    pub fn fail_over<'a>(&'a self, node: &'a RedisServer) -> &'a RedisServer {
        // The others may not yet know its role after the previous failover.
        let view = if is_living(node) { view_of(node) } else { self.view() };
        let row = row_of(&view, node).expect("the node is one of this cluster");
        let master_id = row.master.as_ref().unwrap_or(&row.id);
        let master = view.iter().find(|row| row.id == *master_id);
        let master =
            master.and_then(|row| self.at(row.port)).expect("the master is of this cluster");
        let replica = match row.is_master {
            true => self.replicas_of(node).into_iter().next().expect("the master has a replica"),
            false => node,
        };
        // No node votes for a replica that it does not know as a replica.
        self.await_view("all nodes know whose replica it is", |view| {
            row_of(view, replica).is_some_and(|row| row.master.as_ref() == Some(master_id))
        });
        self.take_over(replica, is_living(master));
        replica
    }

    /// Starts one more master, which has no slots, and returns its index in [`nodes`](Self::nodes)
    /// when all others know it.
    ///
    /// # Errors
    ///
    /// If it does not start.
    ///
    /// # Panics
    ///
    /// If a node is not alive, or if they do not find each other.
    pub fn add_node(&mut self) -> Result<usize, ServerError> {
        let node = self.builder.start_node()?;
        builder::meet(&self.nodes[0], &node);
        self.nodes.push(node);
        builder::await_agreement(&self.nodes);
        Ok(self.nodes.len() - 1)
    }

    /// Asks a replica to become the master until all nodes know it as that.
    #[track_caller]
    fn take_over(&self, replica: &RedisServer, master_lives: bool) {
        let words = ["CLUSTER", "FAILOVER", "FORCE"];
        // Without the last word the master has to hand over, so that no write is lost.
        let words = if master_lives { &words[..2] } else { &words };
        let leads = |node| {
            let view = view_of(node);
            row_of(&view, replica).is_some_and(|row| row.is_master && row.owns_any())
        };
        let mut asked: Option<Instant> = None;
        let deadline = AGREED + 4 * self.builder.silence_max();
        eventually(deadline, "all nodes know the replica as the master", || {
            if asked.is_none_or(|asked| asked.elapsed() > TAKING_OVER) {
                // It refuses if it has become the master since it was last asked.
                let _ = replica.try_query::<()>(words);
                asked = Some(Instant::now());
            }
            self.living().all(leads)
        });
    }

    fn query_once<T: FromRedisValue>(
        &self,
        slot: u16,
        words: &[impl AsRef<[u8]>],
    ) -> RedisResult<T> {
        let answer = self.master_of(slot).try_query(words);
        let Err(error) = &answer else { return answer };
        let place = error.redirect_node().and_then(|(place, _)| place.rsplit_once(':'));
        let node = place.and_then(|(_, port)| self.at(port.parse().ok()?));
        match (node, error.code()) {
            (Some(node), Some("ASK")) => node.query_asking(words),
            (Some(node), _) => node.try_query(words),
            (None, _) => answer,
        }
    }

    /// The node that listens on `port`.
    fn at(&self, port: u16) -> Option<&RedisServer> {
        self.nodes.iter().find(|node| node.port() == port)
    }

    /// The nodes that would answer.
    fn living(&self) -> impl Iterator<Item = &RedisServer> {
        self.nodes.iter().filter(|node| is_living(node))
    }

    /// What a living node knows about the cluster.
    #[track_caller]
    fn view(&self) -> Vec<Row> {
        let view = self.living().map(view_of).find(|view| !view.is_empty());
        view.expect("a node of the cluster lives")
    }

    /// Returns when all living nodes see the cluster in a way that `is_so` accepts.
    #[track_caller]
    fn await_view(&self, what: &str, is_so: impl Fn(&[Row]) -> bool) {
        eventually(AGREED, what, || self.living().all(|node| is_so(&view_of(node))));
    }
}

/// The row about `node` in a view.
fn row_of<'a>(view: &'a [Row], node: &RedisServer) -> Option<&'a Row> {
    view.iter().find(|row| row.port == node.port())
}

fn is_living(node: &RedisServer) -> bool {
    signal::is_running(node.pid()) && !signal::is_frozen(node.pid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_masters_share_the_slots_and_a_fourth_may_join() {
        let mut cluster = RedisCluster::start().expect("it starts");
        let mut ports = Vec::new();
        for key in ["orders", "orders{1}", "orders{2}", "orders{3}", "orders{4}"] {
            let slot: u16 = cluster.query(key, &["CLUSTER", "KEYSLOT", key]);
            assert_eq!(RedisCluster::slot(key), slot, "{key}");
            cluster.command(key, &["XADD", key, "*", "type", "order.placed"]);
            assert_eq!(cluster.length(key), 1);
            let owner = cluster.master_of(slot);
            assert_eq!(owner.length(key), 1);
            ports.push(owner.port());
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 3, "the keys are on all nodes");

        let joined = cluster.add_node().expect("it starts");
        assert_eq!(joined, 3);
        assert_eq!(cluster.nodes()[joined].query::<usize>(&["DBSIZE"]), 0);
        assert_eq!(cluster.url().matches("127.0.0.1:").count(), 4);
    }

    #[test]
    fn a_replica_takes_over_by_hand_and_when_its_master_dies() {
        let cluster = RedisCluster::builder().replicas(1).start().expect("it starts");
        let key = "orders";
        cluster.command(key, &["XADD", key, "*", "type", "order.placed"]);
        let first = cluster.master_of(RedisCluster::slot(key));

        let second = cluster.fail_over(first);
        assert_ne!(first.port(), second.port());
        assert_eq!(cluster.master_of(RedisCluster::slot(key)).port(), second.port());
        assert_eq!(cluster.length(key), 1);
        await_replica(&cluster, second);

        second.kill();
        eventually(AGREED, "the cluster has noticed", || {
            cluster.master_of(RedisCluster::slot(key)).port() == first.port()
        });
        assert_eq!(cluster.length(key), 1);

        second.restart().expect("it starts again");
        await_replica(&cluster, first);
    }

    #[test]
    fn two_nodes_may_take_over_from_each_other_in_turn() {
        let cluster = RedisCluster::builder().replicas(1).start().expect("it starts");
        let mut master = cluster.master_of(0);
        for _ in 0..3 {
            await_replica(&cluster, master);
            let replica = cluster.replicas_of(master)[0];
            master = cluster.fail_over(replica);
            assert_eq!(master.port(), replica.port());
            assert_eq!(cluster.master_of(0).port(), replica.port());
        }
    }

    #[test]
    fn a_replica_takes_over_by_hand_from_a_master_that_died() {
        let cluster = RedisCluster::builder().replicas(1).start().expect("it starts");
        let first = cluster.master_of(0);
        first.kill();
        let second = cluster.fail_over(first);
        assert_eq!(cluster.master_of(0).port(), second.port());
        assert_eq!(second.info("role").as_deref(), Some("master"));
    }

    /// Returns when the only replica of `master` has all its data.
    fn await_replica(cluster: &RedisCluster, master: &RedisServer) {
        eventually(AGREED, "the former master follows", || {
            let replicas = cluster.replicas_of(master);
            let up = |node: &RedisServer| node.info("master_link_status").as_deref() == Some("up");
            replicas.len() == 1 && replicas.into_iter().all(up)
        });
    }
}
