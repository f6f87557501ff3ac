//! Three masters with a replica each, and a stream that is spread over partitions.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU16, AtomicUsize};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use streamjobs::error::ConnectError;
use streamjobs::{Client, StreamName};
use streamjobs_tests::eventually::eventually;
use streamjobs_tests::history::{Deed, Line};
use streamjobs_tests::proof;
use streamjobs_tests::server::{RedisCluster, RedisServer};

use crate::options::{CLUSTER_GROUPS, Group};

/// How long a node may be silent until the others consider it dead.
pub(crate) const NODE_TIMEOUT: Duration = Duration::from_secs(4);

/// How long nodes may take until everything is as before.
const WHOLE: Duration = Duration::from_secs(60);

/// How many partitions are asked at once for what waits there.
const SAMPLED_AT_ONCE: usize = 4;

/// By how many milliseconds before the end of a master its replica may lack what the master confirmed:
/// much more than a replica that follows ever lacks.
const BEHIND: u64 = 10_000;

/// A cluster's nodes and partitions.
pub(crate) struct Cluster {
    pub(crate) nodes: RedisCluster,
    /// The streams, in the order of the partitions.
    pub(crate) partitions: Vec<String>,
    /// The port of the node to which something is being done: 0 for none.
    pub(crate) away: AtomicU16,
    /// How often a master took long to answer although nothing was done to it.
    pub(crate) slow: AtomicUsize,
    sampled: Mutex<Sampled>,
    takeovers: Mutex<Vec<Takeover>>,
}

/// How much waited in each partition when it was last asked, and which partition is asked next.
#[derive(Default)]
struct Sampled {
    waiting: BTreeMap<usize, usize>,
    next: usize,
}

/// Which of the last entries that a former master had confirmed the new master has.
struct Takeover {
    streams: Vec<String>,
    /// When these entries were created, in milliseconds since 1970.
    made: RangeInclusive<u64>,
    /// Streams and ids.
    kept: HashSet<(String, String)>,
}

impl Cluster {
    /// Starts all nodes.
    pub(crate) fn new(count: u16) -> Self {
        // Nothing is written to disk, which nodes would wait for: a node that comes back is a replica,
        // and gets everything from its master.
        let builder = RedisCluster::builder().replicas(1);
        // Partitions of living masters must not notice that another master has died.
        let nodes = builder.node_timeout(NODE_TIMEOUT).full_coverage(false).start().unwrap();
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = executor.block_on(client(&nodes, count)).unwrap();
        let partitions = client.partitions(&StreamName::new(CLUSTER_GROUPS[0].stream).unwrap());
        let partitions = partitions.iter().map(ToString::to_string).collect();
        let (sampled, takeovers) = (Mutex::default(), Mutex::default());
        let (away, slow) = (AtomicU16::new(0), AtomicUsize::new(0));
        Self { nodes, partitions, away, slow, sampled, takeovers }
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        self.nodes.url()
    }

    /// Connects as producers do.
    pub(crate) async fn connect(&self) -> Result<Client, ConnectError> {
        client(&self.nodes, u16::try_from(self.partitions.len()).unwrap()).await
    }

    /// The partition of a key, computed as `docs/partitions.md` says.
    pub(crate) fn partition_of(&self, key: &str) -> &str {
        let hash = usize::try_from(crc32(key.as_bytes())).unwrap();
        &self.partitions[hash % self.partitions.len()]
    }

    /// The server's name and version.
    pub(crate) fn version(&self) -> Option<String> {
        let node = self.nodes.nodes().first()?;
        let valkey = node.info("valkey_version").map(|version| format!("valkey {version}"));
        valkey.or_else(|| node.info("redis_version"))
    }

    /// The master of a partition.
    pub(crate) fn master_of(&self, stream: &str) -> &RedisServer {
        self.nodes.master_of(RedisCluster::slot(stream))
    }

    /// The partitions of each master, by its port.
    pub(crate) fn by_master(&self) -> BTreeMap<u16, Vec<String>> {
        let mut masters: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for stream in &self.partitions {
            masters.entry(self.master_of(stream).port()).or_default().push(stream.clone());
        }
        masters
    }

    /// The only replica of a master, once it follows.
    pub(crate) fn replica_of(&self, master: &RedisServer) -> Option<&RedisServer> {
        let follows = |node: &&RedisServer| replication(node).contains("master_link_status:up");
        self.nodes.replicas_of(master).into_iter().find(follows)
    }

    /// All masters that answer.
    pub(crate) fn masters(&self) -> impl Iterator<Item = &RedisServer> {
        let leads = |node: &&RedisServer| replication(node).contains("role:master");
        self.nodes.nodes().iter().filter(leads)
    }

    /// Returns when each master has a replica that follows, and all nodes know it as one.
    pub(crate) fn await_whole(&self) {
        let nodes = self.nodes.nodes();
        eventually(WHOLE, "each master has a replica that follows", || {
            let masters = self.masters().collect::<Vec<_>>();
            let all = masters.len() * 2 == nodes.len();
            let knows = |node: &RedisServer| {
                let view: String = node.try_query(&["CLUSTER", "NODES"]).unwrap_or_default();
                view.lines().filter(|line| line.contains("slave")).count() == masters.len()
            };
            all && nodes.iter().all(knows)
                && masters.into_iter().all(|master| self.replica_of(master).is_some())
        });
    }

    /// Runs a command on each node that answers.
    pub(crate) fn on_each(&self, words: &[&str]) {
        for node in self.nodes.nodes() {
            let _away = node.try_query::<redis::Value>(words).is_err();
        }
    }

    /// Notes which of the entries that were made up to a moment a new master has, for some partitions.
    /// At that moment the former master was still there.
    pub(crate) fn note_takeover(&self, streams: Vec<String>, until: u64) {
        let made = until.saturating_sub(BEHIND)..=until;
        let (from, to) = (made.start().to_string(), made.end().to_string());
        let mut kept = HashSet::new();
        for stream in &streams {
            type Row = (String, Vec<Vec<u8>>);
            let rows: Vec<Row> = self.nodes.query(stream, &["XRANGE", stream, &from, &to]);
            kept.extend(rows.into_iter().map(|(id, _)| (stream.clone(), id)));
        }
        let mut takeovers = self.takeovers.lock().unwrap_or_else(PoisonError::into_inner);
        takeovers.push(Takeover { streams, made, kept });
    }

    /// The confirmed jobs whose entries a new master lacked.
    pub(crate) fn lost(&self, lines: &[Line]) -> Vec<String> {
        let takeovers = self.takeovers.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = |line: &Line| match &line.deed {
            Deed::Stored { job, stream, entry } => {
                let misses = |takeover: &Takeover| takeover.misses(stream, entry);
                takeovers.iter().any(misses).then(|| job.clone())
            }
            _ => None,
        };
        lines.iter().filter_map(lost).collect()
    }

    /// Asks some partitions how much waits there. Returns how much waited in all partitions when each
    /// was last asked.
    pub(crate) fn sample(&self, group: &Group) -> usize {
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..SAMPLED_AT_ONCE {
            let place = sampled.next % self.partitions.len();
            sampled.next = place + 1;
            if let Some(waiting) = self.unfinished_in(&self.partitions[place], group) {
                sampled.waiting.insert(place, waiting);
            }
        }
        sampled.waiting.values().sum()
    }

    /// How much is unfinished in all partitions, if all of them answer.
    pub(crate) fn unfinished(&self, group: &Group) -> Option<usize> {
        self.partitions.iter().map(|stream| self.unfinished_in(stream, group)).sum()
    }

    /// The partitions in which something is unfinished, and how much.
    pub(crate) fn left(&self, group: &Group) -> Vec<(&str, Option<usize>)> {
        let left = |stream| (stream, self.unfinished_in(stream, group));
        let all = self.partitions.iter().map(|stream| left(stream.as_str()));
        all.filter(|(_, count)| *count != Some(0)).collect()
    }

    fn unfinished_in(&self, stream: &str, group: &Group) -> Option<usize> {
        proof::unfinished(self.master_of(stream), stream, group.name).ok()
    }

    /// The dead letters of all partitions.
    pub(crate) fn letters(&self, group: &Group) -> Vec<(String, String)> {
        let letters = |stream| proof::letters(self.master_of(stream), stream, group.name);
        self.partitions.iter().flat_map(|stream| letters(stream.as_str())).collect()
    }
}

impl Takeover {
    /// Whether the new master should have had an entry and did not.
    fn misses(&self, stream: &String, entry: &str) -> bool {
        let made = entry.split_once('-').and_then(|(made, _)| made.parse().ok());
        made.is_some_and(|made| self.made.contains(&made))
            && self.streams.contains(stream)
            && !self.kept.contains(&(stream.clone(), entry.to_owned()))
    }
}

async fn client(nodes: &RedisCluster, count: u16) -> Result<Client, ConnectError> {
    let builder = Client::builder(&nodes.url());
    builder.partitions(CLUSTER_GROUPS[0].stream, count).connect().await
}

/// What a node reports about its master or its replicas; empty if it does not answer.
fn replication(node: &RedisServer) -> String {
    node.try_query(&["INFO", "replication"]).unwrap_or_default()
}

/// CRC-32 as zlib computes it.
fn crc32(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0xedb8_8320 }
        })
    });
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_documentation() {
        assert_eq!([crc32(b""), crc32(b"alice")], [0, 663_665_735]);
    }
}
