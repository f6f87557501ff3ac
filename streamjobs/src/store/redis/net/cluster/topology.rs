//! What is known of a cluster, and the connections to its nodes.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard as StdGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::address::{Address, NodeAddress};
use super::super::deadlines::CONNECT_DEADLINE;
use super::super::endpoint::Endpoint;
use super::super::error::{not_connected, unreachable_because};
use super::super::node::Node;
use super::slot_map::SlotMap;
use crate::model::cause::chain;
use crate::model::config::ConnectionOptions;
use crate::model::error::ConnectError;
use crate::model::refusal::Refusal;
use crate::store::StoreError;
use crate::store::redis::script::Scripts;

/// A cluster as one store uses it, with connections of its own.
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    scripts: Scripts,
    nodes: Mutex<HashMap<NodeAddress, Node>>,
    /// Held while the map is asked for, so that callers who wait at the same time ask only once.
    asking: Mutex<Asking>,
    /// The version of the map after which connections to other nodes were dropped.
    seen: AtomicU64,
}

/// The nodes of a cluster, as the cluster announces them.
pub(crate) struct Survey {
    /// The nodes that have slots.
    pub(crate) masters: Vec<(NodeAddress, Node)>,
    pub(crate) replicas: Vec<(NodeAddress, Node)>,
    pub(crate) slots_without_node: usize,
}

type Asking = Arc<tokio::sync::Mutex<()>>;

/// What all stores of a client know of the cluster.
struct Shared {
    /// The first seed, with the credentials for every node.
    first: Address,
    seeds: Vec<NodeAddress>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    map: Option<SlotMap>,
    /// How many maps were learned.
    version: u64,
    /// Whether the map may be wrong by now.
    is_stale: bool,
    /// How many pieces of news about the cluster have arrived.
    news: u64,
    /// Where single slots are according to a node's answer, each with the number of that news.
    moved: HashMap<u16, (NodeAddress, u64)>,
    /// The node to ask first.
    hint: Option<NodeAddress>,
    asked: Option<Instant>,
    /// Why no node could be asked at that time.
    fault: Option<String>,
    /// Nodes that did not answer or are cut off from the others, and when that was noticed.
    doubtful: HashMap<NodeAddress, Instant>,
}

impl Known {
    fn heard(&mut self) -> u64 {
        self.is_stale = true;
        self.news += 1;
        self.news
    }

    fn is_doubtful(&self, node: &NodeAddress) -> bool {
        self.doubtful.get(node).is_some_and(|since| since.elapsed() < DOUBT)
    }
}

impl Cluster {
    /// Reads what follows the scheme of an address, which is `redis` or `rediss` without `+cluster`.
    pub(crate) fn new(
        scheme: &str,
        text: &str,
        options: &ConnectionOptions,
        scripts: Scripts,
    ) -> Result<Self, ConnectError> {
        let mut seeds = seeds(scheme, text, options)?;
        let nodes = seeds.iter().filter_map(Address::node).collect();
        let shared = Shared { first: seeds.swap_remove(0), seeds: nodes, known: Mutex::default() };
        Ok(Self::of(Arc::new(shared), scripts))
    }

    fn of(shared: Arc<Shared>, scripts: Scripts) -> Self {
        Self {
            shared,
            scripts,
            nodes: Mutex::default(),
            asking: Mutex::default(),
            seen: AtomicU64::new(0),
        }
    }

    /// The same cluster, with other connections.
    pub(crate) fn fork(&self) -> Self {
        Self::of(Arc::clone(&self.shared), self.scripts)
    }

    /// The node that has a slot. While the map may be wrong, one task asks for a new map, and the others use the old
    /// map.
    pub(crate) async fn owner(&self, slot: u16) -> Result<(NodeAddress, Node), StoreError> {
        self.forget_others();
        let Some((known, is_current)) = self.shared.owner(slot) else {
            return self.owner_anew(slot).await;
        };
        if !is_current && let Ok(turn) = self.asking().try_lock_owned() {
            // The old map may be right all the same.
            let _failed = self.refresh(turn).await.is_err();
            return self.owner_known(slot);
        }
        Ok(self.named(known))
    }

    /// The node that has a slot, after asking for the map again.
    pub(super) async fn owner_anew(&self, slot: u16) -> Result<(NodeAddress, Node), StoreError> {
        let refreshed = self.refresh(self.turn().await).await;
        self.owner_known(slot).map_err(|unknown| refreshed.err().unwrap_or(unknown))
    }

    fn owner_known(&self, slot: u16) -> Result<(NodeAddress, Node), StoreError> {
        let known = self.shared.owner(slot).map(|(known, _)| self.named(known));
        known.ok_or_else(|| unreachable_because(format!("no node of the cluster has slot {slot}")))
    }

    /// Every node that has slots.
    pub(crate) async fn owners(&self) -> Result<Vec<(NodeAddress, Node)>, StoreError> {
        if self.shared.nodes().is_empty() {
            self.refresh(self.turn().await).await?;
        }
        Ok(self.shared.nodes().into_iter().map(|node| self.named(node)).collect())
    }

    /// What one node reports about all others now.
    pub(crate) async fn survey(&self) -> Result<Survey, StoreError> {
        let refreshed = self.refresh(self.turn().await).await;
        let Some(map) = self.shared.known().map.clone() else {
            return Err(refreshed.err().unwrap_or_else(not_connected));
        };
        // Connections to replicas are used for nothing else.
        let replica = |address: &NodeAddress| {
            (address.clone(), Node::new(self.shared.endpoint(address), self.scripts))
        };
        Ok(Survey {
            masters: map.nodes().iter().map(|address| self.named(address.clone())).collect(),
            replicas: map.replicas().iter().map(replica).collect(),
            slots_without_node: map.slots_without_node(),
        })
    }

    /// Records that a slot is at another node, as a node has answered.
    pub(crate) fn moved(&self, slot: u16, to: NodeAddress) {
        let mut known = self.shared.known();
        // Slots are rarely moved alone, so the map may be wrong about other slots.
        let number = known.heard();
        if let Some(map) = &mut known.map {
            map.set_owner(slot, to.clone());
        }
        known.doubtful.remove(&to);
        known.moved.insert(slot, (to.clone(), number));
        known.hint = Some(to);
    }

    /// Records that the map may be wrong.
    pub(crate) fn suspect(&self) {
        self.shared.known().heard();
    }

    /// Records that the map may be wrong, and that this node should not be asked first.
    pub(super) fn suspect_node(&self, node: &NodeAddress) {
        let mut known = self.shared.known();
        known.heard();
        known.doubtful.insert(node.clone(), Instant::now());
    }

    fn named(&self, address: NodeAddress) -> (NodeAddress, Node) {
        let node = self.node(&address);
        (address, node)
    }

    /// A node, whether it has slots or not.
    pub(super) fn node(&self, address: &NodeAddress) -> Node {
        let mut nodes = self.nodes();
        if let Some(node) = nodes.get(address) {
            return node.clone();
        }
        let node = Node::new(self.shared.endpoint(address), self.scripts);
        nodes.insert(address.clone(), node.clone());
        node
    }

    /// The turn to ask for the map. A task that has the turn asks for five seconds at most. If it has the turn for
    /// longer, its executor is blocked, and those who wait take turns without it.
    async fn turn(&self) -> OwnedMutexGuard<()> {
        loop {
            let asking = self.asking();
            if let Ok(turn) = timeout(TURN_DEADLINE, Arc::clone(&asking).lock_owned()).await {
                return turn;
            }
            let mut now = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
            if Arc::ptr_eq(&now, &asking) {
                *now = Asking::default();
            }
        }
    }

    fn asking(&self) -> Asking {
        Arc::clone(&self.asking.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks one node after the other for the map until one answers, giving each only a short time at
    /// first. Does nothing if the map was asked for a moment ago.
    async fn refresh(&self, _turn: OwnedMutexGuard<()>) -> Result<(), StoreError> {
        if self.shared.was_asked_within(ASKED_AGAIN) {
            let fault = self.shared.known().fault.clone();
            return fault.map_or(Ok(()), |fault| Err(unreachable_because(fault)));
        }
        let (mut said, mut refused) = (Vec::new(), None);
        let until = Instant::now() + CONNECT_DEADLINE;
        for limit in [MAP_DEADLINE, CONNECT_DEADLINE] {
            said.clear();
            for address in self.candidates() {
                let before = self.shared.known().news;
                match timeout_at(until.min(Instant::now() + limit), self.ask(&address)).await {
                    Ok(Ok(map)) => {
                        self.shared.learn(map, before, &address);
                        self.forget_others();
                        return Ok(());
                    }
                    Ok(Err(error)) => {
                        said.push(format!("{address}: {}", chain(&error)));
                        // All nodes have the same users.
                        if Refusal::of(&error) == Some(Refusal::Login) {
                            let text = error.source().map(ToString::to_string);
                            refused = Some(text.unwrap_or_else(|| error.to_string()));
                        }
                    }
                    Err(_) => said.push(format!("{address}: it did not answer in time")),
                }
                self.shared.known().doubtful.insert(address, Instant::now());
            }
        }
        let fault = match refused {
            Some(refused) => refused,
            None => format!("no node of the cluster could be asked: {}", said.join("; ")),
        };
        let mut known = self.shared.known();
        known.asked = Some(Instant::now());
        known.fault = Some(fault.clone());
        Err(unreachable_because(fault))
    }

    async fn ask(&self, address: &NodeAddress) -> Result<SlotMap, StoreError> {
        let mut command = redis::cmd("CLUSTER");
        let answer = self.node(address).link.command(command.arg("SLOTS")).await?;
        let map = SlotMap::from_answer(answer, address)?;
        if map.is_empty() {
            return Err(unreachable_because("it knows of no slots".to_owned()));
        }
        Ok(map)
    }

    /// The nodes to ask, in order: the node that said that a slot moved, the nodes with a connection, all others, and
    /// last the nodes that did not answer.
    fn candidates(&self) -> Vec<NodeAddress> {
        let mut nodes = self.shared.nodes();
        fastrand::shuffle(&mut nodes);
        let mut known = self.shared.known();
        let hint = known.hint.take();
        let mut all = Vec::new();
        for address in
            nodes.into_iter().chain(self.shared.seeds.iter().cloned()).chain(hint.clone())
        {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        let nodes = self.nodes();
        let is_connected =
            |address: &NodeAddress| nodes.get(address).is_some_and(|node| node.link.is_connected());
        all.sort_by_key(|address| {
            (known.is_doubtful(address), Some(address) != hint.as_ref(), !is_connected(address))
        });
        all
    }

    fn nodes(&self) -> StdGuard<'_, HashMap<NodeAddress, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the connections to nodes that have no slots any more, after a new map was learned.
    fn forget_others(&self) {
        let version = self.shared.known().version;
        if self.seen.swap(version, Ordering::AcqRel) != version {
            let known = self.shared.nodes();
            self.nodes().retain(|address, _| known.contains(address));
        }
    }
}

impl Shared {
    fn known(&self) -> StdGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node that has a slot as far as is known, and whether the map is up to date.
    fn owner(&self, slot: u16) -> Option<(NodeAddress, bool)> {
        let known = self.known();
        let owner = known.map.as_ref()?.owner(slot)?.clone();
        Some((owner, !known.is_stale))
    }

    fn nodes(&self) -> Vec<NodeAddress> {
        self.known().map.as_ref().map(|map| map.nodes().to_vec()).unwrap_or_default()
    }

    /// Takes the map of a node that was asked after this many pieces of news. Later news takes
    /// precedence over it.
    fn learn(&self, mut map: SlotMap, after: u64, by: &NodeAddress) {
        let mut known = self.known();
        known.moved.retain(|_, (_, number)| *number > after);
        for (slot, (node, _)) in &known.moved {
            map.set_owner(*slot, node.clone());
        }
        known.is_stale = known.news != after;
        known.map = Some(map);
        known.version += 1;
        known.asked = Some(Instant::now());
        known.fault = None;
        known.doubtful.remove(by);
        known.doubtful.retain(|_, since| since.elapsed() < DOUBT);
    }

    fn was_asked_within(&self, time: Duration) -> bool {
        self.known().asked.is_some_and(|asked| asked.elapsed() < time)
    }

    /// The endpoint of a node: with the user and the TLS settings of the seeds.
    fn endpoint(&self, node: &NodeAddress) -> Endpoint {
        Endpoint::of_node(self.first.clone().moved_to(node.host.clone(), node.port))
    }
}

/// The seeds of an address, each as an address of its own.
fn seeds(
    scheme: &str,
    text: &str,
    options: &ConnectionOptions,
) -> Result<Vec<Address>, ConnectError> {
    let (place, path) = match text.find(['/', '?', '#']) {
        Some(end) => text.split_at(end),
        None => (text, ""),
    };
    let (login, hosts) = match place.rsplit_once('@') {
        Some((login, hosts)) => (format!("{login}@"), hosts),
        None => (String::new(), place),
    };
    let hosts = hosts.split(',').collect::<Vec<_>>();
    if hosts.len() > SEEDS_MAX {
        return Err(ConnectError::Address(format!("it has more than {SEEDS_MAX} nodes")));
    }
    let seed = |host: &&str| {
        Address::new(&format!("{scheme}://{login}{host}{path}"))?.with(options.clone())
    };
    hosts.iter().map(seed).collect()
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds = self.shared.seeds.iter().map(ToString::to_string).collect::<Vec<_>>();
        write!(f, "cluster {}", seeds.join(", "))
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("first", &self.shared.first)
            .field("seeds", &self.shared.seeds)
            .field("nodes", &self.shared.nodes())
            .finish_non_exhaustive()
    }
}

/// For how long a node that did not answer is asked after the others.
const DOUBT: Duration = Duration::from_secs(10);
/// How long one node may take at first to answer with its map, connecting included.
const MAP_DEADLINE: Duration = Duration::from_secs(1);
/// How long to wait for the turn to ask. Longer than any task asks whose executor is not blocked.
const TURN_DEADLINE: Duration = CONNECT_DEADLINE.saturating_add(Duration::from_secs(1));
/// How soon the map may be asked for again.
const ASKED_AGAIN: Duration = Duration::from_millis(200);
const SEEDS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_executor_that_is_blocked_while_it_asks_does_not_stop_the_others() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let seed = listener.local_addr().unwrap().to_string();
        let cluster = Cluster::new("redis", &seed, &ConnectionOptions::default(), &[]).unwrap();
        // It has begun to ask, and is not polled again.
        let mut blocked = pin!(cluster.owner_anew(1));
        assert!(futures_util::poll!(&mut blocked).is_pending());
        let others = [cluster.owner_anew(1), cluster.owner_anew(2)];
        let waiting = timeout(3 * TURN_DEADLINE, futures_util::future::join_all(others));
        for answer in waiting.await.expect("it ends by itself") {
            assert!(matches!(answer, Err(StoreError::Unreachable(_))), "{:?}", answer.err());
        }
    }
}
