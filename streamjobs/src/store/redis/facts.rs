//! Asks a server what it is and how it is set up.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::net::{Link, rights};
use super::{now, reply};
use crate::model::version::{Product, Release};
use crate::store::facts::{ClockOffset, Reported, ServerFacts, ServerSettings, ServerState};
use crate::store::{Queue, ServerTime, StoreError};

/// Names and values as the server says them.
type Said = HashMap<String, String>;

pub(super) async fn facts(link: &Link, queues: &[Queue]) -> Result<ServerFacts, StoreError> {
    Ok(ServerFacts {
        address: link.address().to_string(),
        user: link.address().user().to_owned(),
        state: told(state(link).await)?,
        settings: told(settings(link).await)?,
        clock: told(clock(link).await)?,
        rights: told(rights::rights(link, queues).await)?,
    })
}

/// A refusal is an answer; a server that does not answer is none.
fn told<T>(answer: Result<T, StoreError>) -> Result<Reported<T>, StoreError> {
    match answer {
        Ok(value) => Ok(Ok(value)),
        Err(error @ (StoreError::Unreachable(_) | StoreError::AnswerLost(_))) => Err(error),
        Err(refusal) => Ok(Err(refusal.to_string())),
    }
}

async fn state(link: &Link) -> Result<ServerState, StoreError> {
    let mut command = redis::cmd(INFO);
    command.arg(&["server", "clients", "memory", "persistence", "replication", "cluster"]);
    let text = reply::text(link.command(&command).await?, INFO)?;
    Ok(state_in(&text))
}

/// Reads the lines of an answer to `INFO`.
pub(super) fn state_in(text: &str) -> ServerState {
    let lines = text.lines().filter_map(|line| line.trim_end().split_once(':'));
    let pairs = lines.map(|(name, value)| (name.to_owned(), value.to_owned()));
    state_of(&pairs.collect())
}

fn state_of(said: &Said) -> ServerState {
    let text = |name: &str| said.get(name).map(String::as_str);
    let number = |name: &str| text(name)?.parse::<u64>().ok();
    let ok = |name: &str| text(name).map(|status| status == "ok");
    ServerState {
        release: release(said),
        replica: text("role").map(|role| role != "master"),
        cluster: number("cluster_enabled").map(|enabled| enabled > 0),
        replicas: number("connected_slaves"),
        connections: number("connected_clients"),
        connections_max: number("maxclients"),
        memory: number("used_memory"),
        memory_max: number("maxmemory"),
        eviction: text("maxmemory_policy").map(str::to_owned),
        append_only: number("aof_enabled").map(|enabled| enabled > 0),
        append_ok: ok("aof_last_write_status"),
        rewrite_ok: ok("aof_last_bgrewrite_status"),
        snapshot_ok: ok("rdb_last_bgsave_status"),
    }
}

/// Redis does not say its name. Others say theirs, and beside it the version of Redis that they
/// stand for.
fn release(said: &Said) -> Option<Release> {
    let product = match said.get("server_name").map(String::as_str) {
        None | Some("redis") => Product::Redis,
        Some("valkey") => Product::Valkey,
        Some(other) => Product::Other(other.to_owned()),
    };
    let version = match product {
        Product::Valkey => said.get("valkey_version"),
        _ => said.get("redis_version"),
    };
    Some(Release { product, version: version?.parse().ok()? })
}

async fn settings(link: &Link) -> Result<ServerSettings, StoreError> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg(&["save", "appendfsync", "timeout", "min-replicas-to-write"]);
    let fields = reply::fields(link.command(&command).await?, CONFIG_GET)?.unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = fields.iter().map(|(name, value)| (text(name), text(value)));
    Ok(settings_of(&said.collect()))
}

fn settings_of(said: &Said) -> ServerSettings {
    let number = |name: &str| said.get(name)?.parse::<u64>().ok();
    ServerSettings {
        snapshots: said.get("save").map(|points| !points.is_empty()),
        fsync: said.get("appendfsync").cloned(),
        idle_timeout: number("timeout").map(Duration::from_secs),
        replicas_to_write: number("min-replicas-to-write"),
    }
}

async fn clock(link: &Link) -> Result<ClockOffset, StoreError> {
    let before = our_clock();
    let server = now(link).await?;
    Ok(offset(before, server, our_clock()))
}

/// Our clock may be set while we ask: then the round trip seems to take no time.
fn offset(before: Duration, server: ServerTime, after: Duration) -> ClockOffset {
    let error = after.saturating_sub(before) / 2;
    let (ours, server) = (before + error, Duration::from_millis(server.0));
    ClockOffset { apart: ours.abs_diff(server), error, ahead: server > ours }
}

fn our_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

const INFO: &str = "INFO";
const CONFIG_GET: &str = "CONFIG GET";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::version::Version;

    fn said(pairs: &[(&str, &str)]) -> Said {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_server_is_what_it_calls_itself_by_its_own_count() {
        let of = |pairs: &[(&str, &str)]| release(&said(pairs));
        let redis = of(&[("redis_version", "7.0.15")]).unwrap();
        assert_eq!(redis, Release { product: Product::Redis, version: Version(7, 0, 15) });
        let valkey =
            [("redis_version", "7.2.4"), ("server_name", "valkey"), ("valkey_version", "9.1.2")];
        assert_eq!(of(&valkey).unwrap().to_string(), "Valkey 9.1.2");
        let other = of(&[("redis_version", "6.2.0"), ("server_name", "x")]).unwrap();
        assert_eq!(other.to_string(), "x 6.2.0");
        assert_eq!(of(&[("redis_version", "unstable")]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn what_is_not_said_is_not_made_up() {
        let state = state_of(&said(&[("role", "slave"), ("maxmemory", "0"), ("used_memory", "x")]));
        assert_eq!((state.replica, state.memory_max, state.memory), (Some(true), Some(0), None));
        assert_eq!((state.append_only, state.cluster, state.eviction), (None, None, None));
        let settings = settings_of(&said(&[("save", ""), ("timeout", "30")]));
        assert_eq!(settings.snapshots, Some(false));
        assert_eq!(settings.idle_timeout, Some(Duration::from_secs(30)));
        assert_eq!((settings.fsync, settings.replicas_to_write), (None, None));
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
    fn a_refusal_is_told_and_silence_is_an_error() {
        let refused = StoreError::Refused { code: "NOPERM".into(), text: "no".into() };
        assert_eq!(told::<()>(Err(refused)).unwrap().unwrap_err(), "the server refused: NOPERM no");
        assert!(told::<()>(Err(StoreError::Unreachable("gone".into()))).is_err());
        assert!(told::<()>(Err(StoreError::AnswerLost("gone".into()))).is_err());
    }
}
