use std::time::{Duration, Instant};

use streamjobs::doctor::{Check, Checkup, Severity};
use streamjobs::error::DoctorError;
use streamjobs::testing::Streams;
use streamjobs::{Client, StreamName};
use streamjobs_tests::server::{RedisServer, RedisServerBuilder};

use crate::app::{DEADLINE, until};

/// A server that keeps what it is given.
fn careful() -> RedisServer {
    keeping(RedisServer::builder())
}

/// As [`careful`], and alone: the doctor says more of a cluster and of a Sentinel.
fn plain() -> RedisServer {
    keeping(RedisServer::builder().plain())
}

fn keeping(builder: RedisServerBuilder) -> RedisServer {
    builder.append_only(true).config("appendfsync", "always").start().unwrap()
}

async fn examined(url: &str) -> Checkup {
    let client = Client::connect(url).await.unwrap();
    client.doctor_for([("orders", "work")]).await.unwrap()
}

/// What is found of one check.
fn of(checkup: &Checkup, check: Check) -> Vec<(Severity, &str)> {
    let findings = checkup.findings.iter().filter(|finding| finding.check == check);
    findings.map(|finding| (finding.severity, finding.what.as_str())).collect()
}

/// A user with these rights on the keys of the stream `orders`: how it connects.
fn user(server: &RedisServer, rights: &[&str]) -> String {
    let words = ["ACL", "SETUSER", "bob", "reset", "on", ">canary", "~orders", "~{orders}:*"];
    server.command(&[&words, rights, server.form_rights()].concat());
    server.url_as("bob", "canary")
}

/// Every command that the documentation of the store lists.
const NEEDED: [&str; 38] = [
    "xadd",
    "xreadgroup",
    "xack",
    "xdel",
    "xrange",
    "xlen",
    "xtrim",
    "xpending",
    "xclaim",
    "xgroup|create",
    "xgroup|setid",
    "xgroup|delconsumer",
    "xinfo|stream",
    "xinfo|groups",
    "xinfo|consumers",
    "hsetnx",
    "hget",
    "hdel",
    "hlen",
    "zadd",
    "zrem",
    "zcard",
    "zrange",
    "zrangebyscore",
    "hset",
    "hgetall",
    "hexists",
    "hincrby",
    "ping",
    "info",
    "time",
    "evalsha",
    "script|load",
    "multi",
    "exec",
    "client|id",
    "client|unblock",
    "client|setname",
];

fn needed_but(left_out: &str) -> Vec<String> {
    let needed = NEEDED.iter().filter(|name| **name != left_out);
    needed.map(|name| format!("+{name}")).collect()
}

#[tokio::test]
async fn a_server_that_keeps_jobs_gives_no_warning() {
    let server = plain();
    let checkup = examined(&server.url()).await;
    let version = server.info("valkey_version").or_else(|| server.info("redis_version")).unwrap();
    let server_text = format!(" {version} at 127.0.0.1:{} as user default", server.port());
    assert!(checkup.server.ends_with(&server_text), "{checkup}");
    // What is wrong with the release itself is the table's business, and depends on the machine.
    let of_the_release = [Check::KnownFault, Check::Security];
    let others = checkup.findings.iter().filter(|found| !of_the_release.contains(&found.check));
    assert!(others.map(|found| found.severity).max() <= Some(Severity::Info), "{checkup}");
    assert_eq!(of(&checkup, Check::Unchecked), [], "{checkup}");
    assert_eq!(server.command(&["DBSIZE"]), redis::Value::Int(0), "nothing was written");
}

#[tokio::test]
async fn a_server_that_forgets_at_a_restart_is_critical() {
    let server = RedisServer::start().unwrap();
    let checkup = examined(&server.url()).await;
    assert_eq!(checkup.findings[0].check, Check::Persistence, "the worst comes first");
    assert_eq!(checkup.worst(), Some(Severity::Critical));
    server.command(&["CONFIG", "SET", "save", "3600 1"]);
    let persistence = examined(&server.url()).await;
    assert_eq!(of(&persistence, Check::Persistence)[0].0, Severity::Warning);
}

#[tokio::test]
async fn a_server_that_may_evict_streams_is_critical_and_its_policy_named() {
    let server = careful();
    server.command(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]);
    let checkup = examined(&server.url()).await;
    let expected = [(Severity::Critical, "maxmemory-policy is allkeys-lru")];
    assert_eq!(of(&checkup, Check::Eviction), expected);
    assert!(checkup.to_string().contains("-> set maxmemory-policy to noeviction"));
}

#[tokio::test]
async fn limits_that_are_nearly_reached_are_told() {
    let server = careful();
    server.command(&["CONFIG", "SET", "maxmemory", "1", "timeout", "30"]);
    let checkup = examined(&server.url()).await;
    assert_eq!(of(&checkup, Check::Memory)[0].0, Severity::Critical);
    let expected = [(Severity::Info, "connections that are idle for 30s are closed")];
    assert_eq!(of(&checkup, Check::IdleTimeout), expected);
}

#[tokio::test]
async fn nodes_without_a_limit_of_entries_are_told() {
    let server = careful();
    let found = async || {
        let checkup = examined(&server.url()).await;
        let nodes = checkup.findings.iter().filter(|found| found.what.contains("node-max-entries"));
        nodes.map(|found| (found.severity, found.what.clone())).collect::<Vec<_>>()
    };
    assert_eq!(found().await, []);
    server.command(&["CONFIG", "SET", "stream-node-max-entries", "0"]);
    let what = "stream-node-max-entries is 0".to_owned();
    assert_eq!(found().await, [(Severity::Warning, what)]);
}

#[tokio::test]
async fn a_cursor_beyond_the_end_is_critical_and_shown_with_the_last_id() {
    let server = careful();
    let last = server.command(&["XADD", "orders", "*", "a", "b"]);
    let redis::Value::BulkString(last) = last else { panic!("{last:?}") };
    let last = String::from_utf8(last).unwrap();
    server.command(&["XGROUP", "CREATE", "orders", "work", "0"]);
    let beyond = last.replace('-', "0-");
    let text =
        format!("group work on stream orders reads after {beyond}, beyond the last id {last}");
    let found = async || {
        let checkup = examined(&server.url()).await;
        let found = checkup.findings.iter().find(|found| found.what == text);
        found.map(|found| found.severity)
    };
    assert_eq!(found().await, None);
    server.command(&["XGROUP", "SETID", "orders", "work", &beyond]);
    assert_eq!(found().await, Some(Severity::Critical));
}

/// The client that asks was not told of partitions: the server knows how many there are.
#[tokio::test]
async fn cursors_are_checked_on_all_partitions() {
    let server = careful();
    let owner = Client::builder(&server.url()).partitions("orders", 6).connect().await.unwrap();
    let partitions = owner.partitions(&StreamName::new("orders").unwrap());
    for partition in &partitions {
        let name = partition.as_str();
        server.command(&["XGROUP", "CREATE", name, "work", "0", "MKSTREAM"]);
    }
    assert_eq!(of(&examined(&server.url()).await, Check::Cursor), []);
    // In the year 5138.
    server.command(&["XGROUP", "SETID", partitions[4].as_str(), "work", "99999999999999-0"]);
    let checkup = examined(&server.url()).await;
    let [(severity, what)] = of(&checkup, Check::Cursor)[..] else { panic!("{checkup}") };
    assert_eq!(severity, Severity::Critical);
    assert!(what.starts_with(&format!("group work on stream {} reads", partitions[4])), "{what}");
}

#[tokio::test]
async fn a_replica_is_critical() {
    let (primary, server) = (plain(), plain());
    server.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    let up = || server.info("master_link_status").as_deref() == Some("up");
    until(DEADLINE, "replicated", up).await;
    let checkup = examined(&server.url()).await;
    assert_eq!(of(&checkup, Check::Role), [(Severity::Critical, "the server is a replica")]);
    assert_eq!(of(&examined(&primary.url()).await, Check::Role), []);
}

#[tokio::test]
async fn a_server_that_waits_for_replicas_is_critical() {
    let server = careful();
    server.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let checkup = examined(&server.url()).await;
    let expected =
        [(Severity::Critical, "min-replicas-to-write is 1, and 0 replicas are connected")];
    assert_eq!(of(&checkup, Check::Replicas), expected);
}

#[tokio::test]
async fn a_user_with_the_listed_rights_lacks_none() {
    let server = careful();
    let needed = needed_but("");
    let needed = needed.iter().map(String::as_str).collect::<Vec<_>>();
    let checkup = examined(&user(&server, &needed)).await;
    assert_eq!(of(&checkup, Check::Rights), [], "{checkup}");
    let unchecked = of(&checkup, Check::Unchecked);
    // The settings; and of a cluster, whether it can be used.
    let optional = ["CONFIG GET", "CLUSTER INFO"];
    let is_optional = |what: &str| {
        what.contains("NOPERM") && optional.iter().any(|command| what.contains(command))
    };
    assert!(unchecked.iter().all(|(_, what)| is_optional(what)), "{checkup}");
    assert!(unchecked.iter().any(|(_, what)| what.contains("CONFIG GET")), "{checkup}");
    assert!(!checkup.to_string().contains("canary") && checkup.server.ends_with("user bob"));
}

#[tokio::test]
async fn every_right_that_is_missing_is_named() {
    let server = careful();
    // Without these, no client connects, or no other right can be asked for.
    let basic = ["ping", "info", "evalsha", "script|load"];
    for left_out in NEEDED.iter().filter(|name| !basic.contains(name)) {
        let rights = needed_but(left_out);
        let rights = rights.iter().map(String::as_str).collect::<Vec<_>>();
        let checkup = examined(&user(&server, &rights)).await;
        let found = of(&checkup, Check::Rights);
        let named = format!("user bob has no right to run {}", left_out.to_uppercase());
        assert!(!found.is_empty(), "{left_out}: {checkup}");
        for (severity, what) in found {
            assert!(severity == Severity::Critical && what.starts_with(&named), "{what}");
        }
        let remedy = format!("ACL SETUSER bob +{left_out}");
        assert!(checkup.to_string().contains(&remedy), "{checkup}");
    }
}

#[tokio::test]
async fn scripts_that_are_refused_are_one_critical_finding() {
    let server = careful();
    let rights = needed_but("evalsha");
    let rights = rights.iter().map(String::as_str).collect::<Vec<_>>();
    let checkup = examined(&user(&server, &rights)).await;
    let found = of(&checkup, Check::Rights);
    assert_eq!(found.len(), 1);
    assert!(found[0].0 == Severity::Critical && found[0].1.contains("evalsha"), "{checkup}");
}

#[tokio::test]
async fn keys_that_the_user_may_not_touch_are_named() {
    let server = careful();
    let url = user(&server, &["+@all"]);
    let client = Client::connect(&url).await.unwrap();
    let checkup = client.doctor_for([("payments", "work")]).await.unwrap();
    let found = of(&checkup, Check::Rights);
    assert_eq!(found[0], (Severity::Critical, "user bob has no rights on payments"));
    assert_eq!(found.len(), 6, "the stream and the keys beside it: {checkup}");
    let unnamed = client.doctor_for([]).await.unwrap();
    assert_eq!(of(&unnamed, Check::Rights), []);
    assert!(of(&unnamed, Check::Unchecked)[0].1.contains("could not be checked"));
}

#[tokio::test]
async fn a_server_that_cannot_be_asked_is_an_error_within_the_deadline() {
    let server = careful();
    let client = Client::connect(&server.url()).await.unwrap();
    assert!(matches!(client.doctor_for([("", "work")]).await, Err(DoctorError::Name(_))));
    for stop in [RedisServer::freeze, RedisServer::kill] {
        stop(&server);
        let begin = Instant::now();
        let error = client.doctor().await.unwrap_err();
        assert!(matches!(error, DoctorError::Server(_)), "{error:?}");
        assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn streams_in_memory_stand_in_for_a_server_that_is_set_up_well() {
    let streams = Streams::new();
    let checkup = streams.client().doctor().await.unwrap();
    assert_eq!(checkup.findings, []);
    streams.stop();
    assert!(streams.client().doctor().await.is_err());
}
