//! What a server reports about itself.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures_util::future::{join, join_all};

use super::net::{Capabilities, Info, Link, Mode, NodeAddress, Route, Survey, rights};
use super::{RedisStore, reply};
use crate::model::cause::{chain, shown};
use crate::model::name::StreamName;
use crate::store::server_info::{
    ClockOffset, ClusterFacts, Facts, Reported, Rights, ServerFacts, ServerSettings, ServerState,
    UnreachableNode,
};
use crate::store::types::Result;
use crate::store::{Queue, ServerInfo, ServerTime, StoreError};

/// Settings and their values, as the server reports them.
type Said = HashMap<String, String>;

#[async_trait]
impl ServerInfo for RedisStore {
    async fn facts(&self, queues: &[Queue]) -> Result<Facts> {
        if let Some(survey) = self.nodes.survey().await? {
            return facts_of_nodes(&survey, queues).await;
        }
        let server = facts_of(&self.link_of(queues).await?, queues).await?;
        Ok(Facts { servers: vec![server], cluster: None })
    }

    async fn rights(&self, queues: &[Queue]) -> Result<Rights> {
        rights::rights(&self.link_of(queues).await?, queues).await
    }

    async fn now(&self, stream: &StreamName) -> Result<ServerTime> {
        match self.at(stream.as_str()) {
            Route::One(node) => time(&node.link).await,
            Route::Slot(..) => self.clock_of_slot(stream).await,
        }
    }
}

impl RedisStore {
    /// The server that has the first of the queues; without queues, any server.
    async fn link_of(&self, queues: &[Queue]) -> Result<Link> {
        match queues.first() {
            Some(queue) => Ok(self.at(queue.stream.as_str()).node().await?.link),
            None => Ok(self.nodes.any().await?.link),
        }
    }
}

async fn facts_of(link: &Link, queues: &[Queue]) -> Result<ServerFacts> {
    let is_node = link.endpoint().node().is_some();
    Ok(ServerFacts {
        address: link.endpoint().to_string(),
        user: link.endpoint().user(),
        fails_over: link.endpoint().fails_over(),
        cluster_ok: if is_node { Some(reported(cluster_ok(link).await)?) } else { None },
        state: reported(state(link).await)?,
        settings: reported(settings(link).await)?,
        clock: reported(clock(link).await)?,
        rights: reported(rights::rights(link, queues).await)?,
    })
}

/// Asks all masters at once, and tries whether their replicas can be reached. Fails if no master
/// answers: the report would be empty.
async fn facts_of_nodes(survey: &Survey, queues: &[Queue]) -> Result<Facts> {
    let masters = survey.masters.iter();
    let masters = join_all(masters.map(|(_, node)| in_time(facts_of(&node.link, queues))));
    let ping = redis::cmd("PING");
    let replicas = survey.replicas.iter();
    let replicas = join_all(replicas.map(|(_, node)| in_time(node.link.command(&ping))));
    let (masters, replicas) = join(masters, replicas).await;
    let (mut servers, mut unreachable, mut first) = (Vec::new(), Vec::new(), None);
    for ((address, _), answer) in survey.masters.iter().zip(masters) {
        match answer {
            Ok(facts) => servers.push(facts),
            Err(error) => {
                unreachable.push(unreachable_node(address, false, &error));
                first.get_or_insert(error);
            }
        }
    }
    if let (true, Some(error)) = (servers.is_empty(), first) {
        return Err(error);
    }
    for ((address, _), answer) in survey.replicas.iter().zip(replicas) {
        match answer {
            // The replica was reached.
            Ok(_) | Err(StoreError::Refused { .. }) => {}
            Err(error) => unreachable.push(unreachable_node(address, true, &error)),
        }
    }
    let slots_without_node = survey.slots_without_node;
    Ok(Facts { servers, cluster: Some(ClusterFacts { slots_without_node, unreachable }) })
}

fn unreachable_node(
    address: &NodeAddress,
    is_replica: bool,
    error: &StoreError,
) -> UnreachableNode {
    UnreachableNode { address: address.to_string(), is_replica, why: chain(error) }
}

/// A node behind address translation may give no answer, not even a refusal.
async fn in_time<T>(asking: impl Future<Output = Result<T>>) -> Result<T> {
    let answer = tokio::time::timeout(NODE_DEADLINE, asking).await;
    answer.unwrap_or_else(|_| {
        let why = format!("it did not answer within {}", shown(NODE_DEADLINE));
        Err(StoreError::Unreachable(why.into()))
    })
}

/// Whether a node says that its cluster can be used.
async fn cluster_ok(link: &Link) -> Result<bool> {
    allowed(link, CLUSTER_INFO, &["cluster", "info"]).await?;
    let mut command = redis::cmd("CLUSTER");
    let text = reply::text(link.command(command.arg("INFO")).await?, CLUSTER_INFO)?;
    let state = Info::new(&text).text("cluster_state").map(|state| state == "ok");
    state.ok_or(StoreError::Protocol { command: CLUSTER_INFO })
}

/// Checks first, because a refused attempt would appear in the server's log of refusals.
async fn allowed(link: &Link, name: &str, words: &[&str]) -> Result<()> {
    if rights::may_run(link, words).await? {
        return Ok(());
    }
    let text = format!("user {} has no right to run {name}", link.endpoint().user());
    Err(StoreError::Refused { code: "NOPERM".to_owned(), text })
}

async fn time(link: &Link) -> Result<ServerTime> {
    let [seconds, microseconds] = reply::tuple(link.command(&redis::cmd(TIME)).await?, TIME)?;
    let (seconds, microseconds) =
        (reply::number(seconds, TIME)?, reply::number(microseconds, TIME)?);
    Ok(ServerTime(seconds.saturating_mul(1000).saturating_add(microseconds / 1000)))
}

async fn clock(link: &Link) -> Result<ClockOffset> {
    let before = our_clock();
    let server = time(link).await?;
    Ok(offset(before, server, our_clock()))
}

/// A refusal becomes part of the report; if the server does not answer, the whole request fails.
fn reported<T>(answer: Result<T>) -> Result<Reported<T>> {
    match answer {
        Ok(value) => Ok(Ok(value)),
        Err(error @ (StoreError::Unreachable(_) | StoreError::AnswerLost(_))) => Err(error),
        Err(refusal) => Ok(Err(refusal.to_string())),
    }
}

async fn state(link: &Link) -> Result<ServerState> {
    let capabilities = link.capabilities().await?;
    let mut command = redis::cmd(INFO);
    command.arg(&["clients", "memory", "persistence", "replication"]);
    let text = reply::text(link.command(&command).await?, INFO)?;
    Ok(state_of(&capabilities, &Info::new(&text)))
}

/// The state that the answers to `INFO` describe.
pub(super) fn state_of(capabilities: &Capabilities, info: &Info) -> ServerState {
    let ok = |name: &str| info.text(name).map(|status| status == "ok");
    ServerState {
        release: capabilities.release.clone(),
        replica: info.text("role").map(|role| role != "master"),
        cluster: capabilities.mode.map(|mode| mode == Mode::Cluster),
        replicas: info.number("connected_slaves"),
        connections: info.number("connected_clients"),
        connections_max: info.number("maxclients"),
        memory: info.number("used_memory"),
        memory_max: info.number("maxmemory"),
        eviction: info.text("maxmemory_policy").map(str::to_owned),
        append_only: info.number("aof_enabled").map(|enabled| enabled > 0),
        append_ok: ok("aof_last_write_status"),
        rewrite_ok: ok("aof_last_bgrewrite_status"),
        snapshot_ok: ok("rdb_last_bgsave_status"),
    }
}

async fn settings(link: &Link) -> Result<ServerSettings> {
    allowed(link, CONFIG_GET, &["config", "get", "save"]).await?;
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg(SETTINGS);
    let fields = reply::fields(link.command(&command).await?, CONFIG_GET)?.unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = fields.iter().map(|(name, value)| (text(name), text(value)));
    Ok(settings_of(&said.collect()))
}

fn settings_of(said: &Said) -> ServerSettings {
    let number = |name: &str| said.get(name)?.parse::<u64>().ok();
    let yes = |name: &str| said.get(name).map(|value| value == "yes");
    ServerSettings {
        snapshots: said.get("save").map(|points| !points.is_empty()),
        fsync: said.get("appendfsync").cloned(),
        idle_timeout: number("timeout").map(Duration::from_secs),
        replicas_to_write: number("min-replicas-to-write"),
        node_entries_max: number(NODE_ENTRIES_MAX),
        node_timeout: number(NODE_TIMEOUT).map(Duration::from_millis),
        full_coverage: yes(FULL_COVERAGE),
        reads_when_down: yes(READS_WHEN_DOWN),
    }
}

/// If our clock is set back during the round trip, the round trip counts as zero.
fn offset(before: Duration, server: ServerTime, after: Duration) -> ClockOffset {
    let error = after.saturating_sub(before) / 2;
    let (ours, server) = (before + error, Duration::from_millis(server.0));
    ClockOffset { apart: ours.abs_diff(server), error, ahead: server > ours }
}

fn our_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

const INFO: &str = "INFO";
const TIME: &str = "TIME";
const NODE_ENTRIES_MAX: &str = "stream-node-max-entries";
const NODE_TIMEOUT: &str = "cluster-node-timeout";
const FULL_COVERAGE: &str = "cluster-require-full-coverage";
const READS_WHEN_DOWN: &str = "cluster-allow-reads-when-down";
const SETTINGS: &[&str] = &[
    "save",
    "appendfsync",
    "timeout",
    "min-replicas-to-write",
    NODE_ENTRIES_MAX,
    NODE_TIMEOUT,
    FULL_COVERAGE,
    READS_WHEN_DOWN,
];
const CONFIG_GET: &str = "CONFIG GET";
const CLUSTER_INFO: &str = "CLUSTER INFO";
/// How long one node may take to answer: shorter than the doctor's own deadline, so that a node
/// that does not answer is named.
const NODE_DEADLINE: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(&str, &str)]) -> Said {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_not_said_is_not_made_up() {
        let info = Info::new("role:slave\r\nmaxmemory:0\r\nused_memory:x\r\n");
        let state = state_of(&Capabilities::from_info(&info), &info);
        assert_eq!((state.replica, state.memory_max, state.memory), (Some(true), Some(0), None));
        assert_eq!((state.append_only, state.cluster, state.eviction), (None, None, None));
        let settings = settings_of(&said(&[("save", ""), ("timeout", "30")]));
        assert_eq!(settings.snapshots, Some(false));
        assert_eq!(settings.idle_timeout, Some(Duration::from_secs(30)));
        assert_eq!((settings.fsync, settings.replicas_to_write), (None, None));
        assert_eq!((settings.node_timeout, settings.full_coverage), (None, None));
        let settings = settings_of(&said(&[(NODE_TIMEOUT, "1500"), (FULL_COVERAGE, "no")]));
        assert_eq!(settings.node_timeout, Some(Duration::from_millis(1500)));
        assert_eq!((settings.full_coverage, settings.reads_when_down), (Some(false), None));
    }

    #[test]
    fn the_clocks_are_compared_at_the_middle_of_the_round_trip() {
        let at = Duration::from_millis;
        let level = offset(at(1_000), ServerTime(1_100), at(1_200));
        assert_eq!(level, ClockOffset { apart: at(0), error: at(100), ahead: false });
        let ahead = offset(at(1_000), ServerTime(9_000), at(1_000));
        assert_eq!(ahead, ClockOffset { apart: at(8_000), error: at(0), ahead: true });
        assert_eq!(offset(at(2_000), ServerTime(2_000), at(1_000)).error, at(0));
    }

    #[test]
    fn a_refusal_is_reported_and_silence_is_an_error() {
        let refused = StoreError::Refused { code: "NOPERM".into(), text: "no".into() };
        assert_eq!(
            reported::<()>(Err(refused)).unwrap().unwrap_err(),
            "the server refused: NOPERM no"
        );
        assert!(reported::<()>(Err(StoreError::Unreachable("gone".into()))).is_err());
        assert!(reported::<()>(Err(StoreError::AnswerLost("gone".into()))).is_err());
    }
}
