//! Which node has which slot.

use redis::Value;

use super::super::address::NodeAddress;
use crate::model::slot::SLOTS;
use crate::store::StoreError;
use crate::store::redis::reply;

/// The node of each slot.
#[derive(Clone, Debug)]
pub(super) struct SlotMap {
    /// Indexes into `nodes`.
    owners: Vec<Option<u16>>,
    nodes: Vec<NodeAddress>,
    replicas: Vec<NodeAddress>,
}

impl SlotMap {
    /// Reads the answer to `CLUSTER SLOTS`. A node that does not know its own address announces none; in that case its
    /// address is the one that was `asked`.
    pub(super) fn from_answer(answer: Value, asked: &NodeAddress) -> Result<Self, StoreError> {
        let owners = vec![None; usize::from(SLOTS)];
        let mut map = Self { owners, nodes: Vec::new(), replicas: Vec::new() };
        for range in reply::items(answer, CLUSTER_SLOTS)? {
            let mut items = reply::items(range, CLUSTER_SLOTS)?.into_iter();
            let mut next = || reply::next(&mut items, CLUSTER_SLOTS);
            let first = reply::number(next()?, CLUSTER_SLOTS)?;
            let last = reply::number(next()?, CLUSTER_SLOTS)?;
            let master = node(next()?, asked)?;
            for replica in items {
                let Some(replica) = node(replica, asked)? else { continue };
                if !map.replicas.contains(&replica) {
                    map.replicas.push(replica);
                }
            }
            let Some(master) = master else { continue };
            let place = map.place(master);
            for slot in first..=last.min(u64::from(SLOTS - 1)) {
                let owner = usize::try_from(slot).ok().and_then(|slot| map.owners.get_mut(slot));
                if let Some(owner) = owner {
                    *owner = Some(place);
                }
            }
        }
        Ok(map)
    }

    /// Whether no slot has a node.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&NodeAddress> {
        let place = (*self.owners.get(usize::from(slot))?)?;
        self.nodes.get(usize::from(place))
    }

    pub(super) fn set_owner(&mut self, slot: u16, node: NodeAddress) {
        let place = self.place(node);
        if let Some(owner) = self.owners.get_mut(usize::from(slot)) {
            *owner = Some(place);
        }
    }

    /// The nodes that have slots.
    pub(super) fn nodes(&self) -> &[NodeAddress] {
        &self.nodes
    }

    /// The replicas of those nodes that the cluster considers alive.
    pub(super) fn replicas(&self) -> &[NodeAddress] {
        &self.replicas
    }

    /// How many slots no node has.
    pub(super) fn slots_without_node(&self) -> usize {
        self.owners.iter().filter(|owner| owner.is_none()).count()
    }

    fn place(&mut self, node: NodeAddress) -> u16 {
        let known = self.nodes.iter().position(|known| *known == node);
        let place = known.unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        });
        // A cluster has at most as many nodes as slots.
        u16::try_from(place).unwrap_or(u16::MAX)
    }
}

/// The node in an answer; `None` if the cluster does not know its address.
fn node(value: Value, asked: &NodeAddress) -> Result<Option<NodeAddress>, StoreError> {
    let mut items = reply::items(value, CLUSTER_SLOTS)?.into_iter();
    let host = reply::next(&mut items, CLUSTER_SLOTS)?;
    let host = reply::unless_nil(host, CLUSTER_SLOTS, reply::text)?.unwrap_or_default();
    let port = reply::number(reply::next(&mut items, CLUSTER_SLOTS)?, CLUSTER_SLOTS)?;
    let port = u16::try_from(port).map_err(|_| StoreError::Protocol { command: CLUSTER_SLOTS })?;
    let host = match host.as_str() {
        "?" => return Ok(None),
        "" => asked.host.clone(),
        _ => host,
    };
    Ok(Some(NodeAddress { host, port }))
}

pub(super) const CLUSTER_SLOTS: &str = "CLUSTER SLOTS";

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> NodeAddress {
        NodeAddress { host: host.to_owned(), port }
    }

    fn map(answer: &str) -> SlotMap {
        let answer = answer.replace(' ', "\r\n");
        let answer = redis::parse_redis_value(format!("{answer}\r\n").as_bytes()).unwrap();
        SlotMap::from_answer(answer, &address("asked", 1)).unwrap()
    }

    #[test]
    fn each_slot_has_the_first_node_of_its_range() {
        let map = map("*2 *4 :0 :99 *3 $1 a :7 $2 id *3 $1 b :8 $2 id *3 :200 :16383 *2 $1 b :8");
        assert_eq!(map.owner(0), Some(&address("a", 7)));
        assert_eq!((map.owner(99), map.owner(100)), (Some(&address("a", 7)), None));
        assert_eq!(map.owner(16_383), Some(&address("b", 8)));
        assert_eq!(map.nodes(), [address("a", 7), address("b", 8)]);
        assert_eq!(map.replicas(), [address("b", 8)], "it is a master of other slots as well");
        assert_eq!(map.slots_without_node(), 100);
    }

    #[test]
    fn a_node_without_an_address_is_where_the_one_that_was_asked_is() {
        let map = map("*2 *3 :0 :0 *2 $-1 :7 *3 :1 :1 *2 $1 ? :8");
        assert_eq!(map.owner(0), Some(&address("asked", 7)));
        assert_eq!(map.owner(1), None);
    }

    #[test]
    fn one_slot_can_move() {
        let mut map = map("*1 *3 :0 :16383 *2 $1 a :7");
        map.set_owner(5, address("b", 8));
        assert_eq!((map.owner(5), map.owner(6)), (Some(&address("b", 8)), Some(&address("a", 7))));
        map.set_owner(u16::MAX, address("c", 9));
        assert!(!map.is_empty());
    }
}
