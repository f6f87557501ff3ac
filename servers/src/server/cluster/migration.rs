//! Moves slots between the masters of a cluster, in each of the possible ways.

use std::ops::RangeInclusive;

use redis::RedisError;

use super::{RedisCluster, is_living, row_of};
use crate::server::RedisServer;

/// How many keys are moved at once.
const KEYS_AT_ONCE: &str = "100";

/// How long the two nodes may take to move one batch, in milliseconds.
const BATCH: &str = "5000";

/// Moving slots. While a slot moves, some of its keys are on one node and some on the other.
impl RedisCluster {
    /// Moves a slot with all its keys to the master `to`, as cluster tools do.
    ///
    /// # Panics
    ///
    /// Like its steps [`begin_migration`](Self::begin_migration), [`move_keys`](Self::move_keys) and
    /// [`end_migration`](Self::end_migration).
    #[track_caller]
    pub fn migrate(&self, slot: u16, to: &RedisServer) {
        self.begin_migration(slot, to);
        self.move_keys(slot, to);
        self.end_migration(slot, to);
    }

    /// Tells the slot's master and the master `to` that the slot moves. From then on, a command with
    /// a key that is not on the former is answered with `ASK`, and a command with several such keys
    /// with `TRYAGAIN`.
    ///
    /// # Panics
    ///
    /// If `to` has the slot already, or if one of the two refuses.
    #[track_caller]
    pub fn begin_migration(&self, slot: u16, to: &RedisServer) {
        let from = self.master_of(slot);
        assert_ne!(from.port(), to.port(), "slot {slot} is there already");
        let word = slot.to_string();
        // In the reverse order, clients would be sent to a node that sends them back.
        to.command(&["CLUSTER", "SETSLOT", &word, "IMPORTING", &id_of(from)]);
        from.command(&["CLUSTER", "SETSLOT", &word, "MIGRATING", &id_of(to)]);
    }

    /// Moves all keys of a slot to the master `to` and returns how many there were.
    ///
    /// # Panics
    ///
    /// If a node refuses. It refuses with `BUSYKEY` if a client created one of the keys on `to`
    /// before the key was moved there.
    #[track_caller]
    pub fn move_keys(&self, slot: u16, to: &RedisServer) -> usize {
        let (from, slot, port) = (self.master_of(slot), slot.to_string(), to.port().to_string());
        let mut moved = 0;
        loop {
            let keys: Vec<Vec<u8>> = from.query(&["CLUSTER", "GETKEYSINSLOT", &slot, KEYS_AT_ONCE]);
            if keys.is_empty() {
                return moved;
            }
            moved += keys.len();
            let words = ["MIGRATE", "127.0.0.1", &port, "", "0", BATCH, "KEYS"];
            let words = words.into_iter().map(|word| word.as_bytes().to_vec());
            from.command(&words.chain(keys).collect::<Vec<_>>());
        }
    }

    /// Makes the master `to` the owner of a slot whose keys have all been moved there, and returns
    /// when all nodes know it.
    ///
    /// # Panics
    ///
    /// If a node refuses. A node that still has keys of the slot does.
    #[track_caller]
    pub fn end_migration(&self, slot: u16, to: &RedisServer) {
        let from = self.master_of(slot);
        let view = self.view();
        let masters = view.iter().filter(|row| row.is_master).filter_map(|row| self.at(row.port));
        let others = masters.filter(|node| ![from.port(), to.port()].contains(&node.port()));
        let (word, id) = (slot.to_string(), id_of(to));
        // If the former owner were told first, and `to` not at all, no node would have the slot.
        for node in [to, from].into_iter().chain(others).filter(|node| is_living(node)) {
            node.command(&["CLUSTER", "SETSLOT", &word, "NODE", &id]);
        }
        self.await_owner(slot..=slot, to);
    }

    /// Moves slots of one master to the master `to`, in one step that clients see as a `MOVED`, and
    /// returns when all nodes know it; `None` if the server cannot do that. Redis can from 8.4 on,
    /// Valkey from 9 on.
    ///
    /// # Panics
    ///
    /// If a node refuses, or if the slots do not arrive.
    #[track_caller]
    pub fn migrate_atomically(&self, slots: RangeInclusive<u16>, to: &RedisServer) -> Option<()> {
        let (first, last) = (slots.start().to_string(), slots.end().to_string());
        let import = ["CLUSTER", "MIGRATION", "IMPORT", &first, &last];
        if !is_begun(to.try_query::<String>(&import)) {
            let from = self.master_of(*slots.start());
            let id = id_of(to);
            let export = ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", &first, &last, "NODE", &id];
            if !is_begun(from.try_query::<String>(&export)) {
                return None;
            }
        }
        self.await_owner(slots, to);
        Some(())
    }

    #[track_caller]
    fn await_owner(&self, slots: RangeInclusive<u16>, to: &RedisServer) {
        self.await_view("all nodes know the new owner of the slots", |view| {
            row_of(view, to).is_some_and(|row| slots.clone().all(|slot| row.owns(slot)))
        });
    }
}

fn id_of(node: &RedisServer) -> String {
    node.query(&["CLUSTER", "MYID"])
}

/// Whether the server has begun to move slots; false if it does not know the command.
#[track_caller]
fn is_begun(answer: Result<String, RedisError>) -> bool {
    match answer {
        Ok(_) => true,
        Err(error) if error.to_string().to_lowercase().contains("unknown subcommand") => false,
        Err(error) => panic!("the slots cannot be moved: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "orders";

    /// Creates a stream with a group that has one entry pending.
    fn fill(cluster: &RedisCluster) {
        let consume = ["XREADGROUP", "GROUP", "billing", "one", "COUNT", "1", "STREAMS", KEY, ">"];
        cluster.command(KEY, &["XGROUP", "CREATE", KEY, "billing", "$", "MKSTREAM"]);
        cluster.command(KEY, &["XADD", KEY, "*", "type", "order.placed"]);
        cluster.query::<redis::Value>(KEY, &consume);
    }

    /// Asserts that `node` has the stream and its pending entry.
    #[track_caller]
    fn assert_there(cluster: &RedisCluster, node: &RedisServer) {
        assert_eq!(cluster.master_of(RedisCluster::slot(KEY)).port(), node.port());
        assert_eq!(node.length(KEY), 1);
        assert_eq!(node.pending(KEY, "billing").len(), 1);
    }

    /// The master of the stream, and another master.
    fn ends(cluster: &RedisCluster) -> (&RedisServer, &RedisServer) {
        let from = cluster.master_of(RedisCluster::slot(KEY));
        let to = cluster.nodes().iter().find(|node| node.port() != from.port());
        (from, to.expect("there are three masters"))
    }

    /// Whether the server has a version that can do this, according to its release notes.
    fn can_move_at_once(node: &RedisServer) -> bool {
        let version = |field: &str| {
            let text = node.info(field)?;
            let mut numbers = text.split('.').map(|part| part.parse::<u16>().ok());
            Some((numbers.next()??, numbers.next()??))
        };
        match version("valkey_version") {
            Some(version) => version >= (9, 0),
            None => version("redis_version").expect("it has a version") >= (8, 4),
        }
    }

    #[test]
    fn a_slot_moves_with_its_stream_and_group_and_comes_back() {
        let cluster = RedisCluster::start().expect("it starts");
        fill(&cluster);
        let slot = RedisCluster::slot(KEY);
        let (from, to) = ends(&cluster);
        cluster.migrate(slot, to);
        assert_there(&cluster, to);

        cluster.begin_migration(slot, from);
        assert_eq!(cluster.length(KEY), 1);
        assert_eq!(cluster.move_keys(slot, from), 1);
        assert_eq!(cluster.length(KEY), 1, "the command went to where ASK said");
        cluster.end_migration(slot, from);
        assert_there(&cluster, from);
    }

    #[test]
    fn slots_move_in_one_step_where_the_server_can() {
        let cluster = RedisCluster::start().expect("it starts");
        fill(&cluster);
        let slot = RedisCluster::slot(KEY);
        let (from, to) = ends(&cluster);
        if !can_move_at_once(from) {
            assert_eq!(cluster.migrate_atomically(slot..=slot, to), None);
            return assert_there(&cluster, from);
        }
        for node in [to, from] {
            assert_eq!(cluster.migrate_atomically(slot..=slot, node), Some(()));
            assert_there(&cluster, node);
        }
    }
}
