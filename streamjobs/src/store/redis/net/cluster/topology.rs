//! What is known of a cluster, and the connections to its nodes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::super::address::{Address, NodeAddress};
use super::super::endpoint::Endpoint;
use super::super::error::unreachable_because;
use super::super::node::Node;
use super::slot_map::SlotMap;
use crate::model::cause::chain;
use crate::model::config::ConnectionOptions;
use crate::model::error::ConnectError;
use crate::store::StoreError;
use crate::store::redis::script::Scripts;

/// A cluster as one store uses it: with connections of its own.
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    scripts: Scripts,
    nodes: Mutex<HashMap<NodeAddress, Node>>,
    /// Held while the map is asked for: what others wait for is asked for once.
    asking: tokio::sync::Mutex<()>,
}

/// What all stores of a client know of the cluster.
struct Shared {
    /// The first seed, with what logs in at every node.
    first: Address,
    seeds: Vec<NodeAddress>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    map: Option<SlotMap>,
    /// The map may be wrong by now.
    is_stale: bool,
    /// Who knows better than others.
    hint: Option<NodeAddress>,
    asked: Option<Instant>,
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
        Self { shared, scripts, nodes: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// The same cluster with other connections.
    pub(crate) fn fork(&self) -> Self {
        Self::of(Arc::clone(&self.shared), self.scripts)
    }

    /// The node that has a slot.
    pub(crate) async fn owner(&self, slot: u16) -> Result<(NodeAddress, Node), StoreError> {
        if let Some(known) = self.shared.owner(slot, false) {
            return Ok(self.named(known));
        }
        let refreshed = self.refresh().await;
        // What is known may be right all the same.
        match (self.shared.owner(slot, true), refreshed) {
            (Some(known), _) => Ok(self.named(known)),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => {
                Err(unreachable_because(format!("no node of the cluster has slot {slot}")))
            }
        }
    }

    /// Every node that has slots.
    pub(crate) async fn owners(&self) -> Result<Vec<(NodeAddress, Node)>, StoreError> {
        if self.shared.nodes().is_empty() {
            self.refresh().await?;
        }
        Ok(self.shared.nodes().into_iter().map(|node| self.named(node)).collect())
    }

    /// A slot is at another node, as one has said.
    pub(crate) fn moved(&self, slot: u16, to: NodeAddress) {
        let mut known = self.shared.known();
        if let Some(map) = &mut known.map {
            map.set_owner(slot, to.clone());
        }
        known.hint = Some(to);
        // Slots are rarely moved alone.
        known.is_stale = true;
    }

    /// What is known of the cluster may be wrong.
    pub(crate) fn suspect(&self) {
        self.shared.known().is_stale = true;
    }

    fn named(&self, address: NodeAddress) -> (NodeAddress, Node) {
        let node = self.node(&address);
        (address, node)
    }

    /// A node, whether it has slots or not.
    pub(super) fn node(&self, address: &NodeAddress) -> Node {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get(address) {
            return node.clone();
        }
        let node = Node::new(self.shared.endpoint(address), self.scripts);
        nodes.insert(address.clone(), node.clone());
        node
    }

    /// Asks one node after the other for the map, until one has it. Does nothing if that was done a
    /// moment ago.
    async fn refresh(&self) -> Result<(), StoreError> {
        let _turn = self.asking.lock().await;
        if self.shared.was_asked_within(ASKED_AGAIN) {
            return Ok(());
        }
        let mut said = Vec::new();
        for address in self.candidates() {
            let link = self.node(&address).link;
            let mut command = redis::cmd("CLUSTER");
            let asked = timeout(MAP_DEADLINE, link.command(command.arg("SLOTS"))).await;
            let map = match asked {
                Ok(answer) => answer.and_then(|answer| SlotMap::from_answer(answer, &address)),
                Err(elapsed) => Err(StoreError::AnswerLost(elapsed.into())),
            };
            match map {
                Ok(map) if map.is_empty() => said.push(format!("{address}: it knows of no slots")),
                Ok(map) => {
                    self.shared.learn(map);
                    self.forget_others();
                    return Ok(());
                }
                Err(error) => said.push(format!("{address}: {}", chain(&error))),
            }
        }
        self.shared.known().asked = Some(Instant::now());
        Err(unreachable_because(format!(
            "no node of the cluster could be asked: {}",
            said.join("; ")
        )))
    }

    /// Whom to ask, in turn: who said that a slot moved, those with a connection, all others.
    fn candidates(&self) -> Vec<NodeAddress> {
        let mut known = self.shared.nodes();
        fastrand::shuffle(&mut known);
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_connected =
            |address: &NodeAddress| nodes.get(address).is_some_and(|node| node.link.is_connected());
        known.sort_by_key(|address| !is_connected(address));
        let hint = self.shared.known().hint.take();
        let seeds = self.shared.seeds.iter().cloned();
        let mut all = Vec::new();
        for address in hint.into_iter().chain(known).chain(seeds) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }

    /// Drops the connections to nodes that have no slots any more.
    fn forget_others(&self) {
        let known = self.shared.nodes();
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|address, _| known.contains(address));
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node that has a slot, as far as it is known.
    fn owner(&self, slot: u16, even_if_stale: bool) -> Option<NodeAddress> {
        let known = self.known();
        let may_be_used = even_if_stale || !known.is_stale;
        known.map.as_ref().filter(|_| may_be_used)?.owner(slot).cloned()
    }

    fn nodes(&self) -> Vec<NodeAddress> {
        self.known().map.as_ref().map(|map| map.nodes().to_vec()).unwrap_or_default()
    }

    fn learn(&self, map: SlotMap) {
        *self.known() =
            Known { map: Some(map), is_stale: false, hint: None, asked: Some(Instant::now()) };
    }

    fn was_asked_within(&self, time: Duration) -> bool {
        self.known().asked.is_some_and(|asked| asked.elapsed() < time)
    }

    /// Where a node is connected to: with the user and the TLS of the seeds.
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

/// How long one node may take to answer with its map, connecting included.
const MAP_DEADLINE: Duration = Duration::from_secs(1);
/// How soon the map is asked for again.
const ASKED_AGAIN: Duration = Duration::from_millis(200);
const SEEDS_MAX: usize = 32;
