//! Masters that are replaced or die.

use streamjobs_tests::server::{RedisCluster, RedisServer};

use super::{
    STREAM, Version, Wire, all, ask, assert_does, code, group_field, make_stream, waiting_read,
};
use crate::app::{DEADLINE, until};

const ADD: [&str; 5] = ["XADD", STREAM, "*", "type", "order.placed"];

/// Three masters with a replica each, and a stream with a group.
fn with_replicas() -> RedisCluster {
    let cluster = RedisCluster::builder().replicas(1).start().unwrap();
    make_stream(&cluster);
    cluster
}

/// The master of the stream and its replica.
fn pair(cluster: &RedisCluster) -> (&RedisServer, &RedisServer) {
    let master = cluster.master_of(RedisCluster::slot(STREAM));
    (master, cluster.replicas_of(master)[0])
}

/// Waits until the replica has what its master has.
async fn replicated((master, replica): (&RedisServer, &RedisServer)) {
    let is_replicated = || replica.info("master_repl_offset") == master.info("master_repl_offset");
    until(DEADLINE, "replicated", is_replicated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_replaced_by_hand_ends_its_waiting_reads_and_redirects() {
    let cluster = with_replicas();
    let (old, new) = pair(&cluster);
    let (version, mut read) = (Version::of(old), waiting_read(old).await);
    replicated((old, new)).await;
    cluster.fail_over(new);
    assert_does(version, "a waiting read", &code(&read.receive()), |version| {
        let is_redirected = version.is_valkey_from((9, 0));
        if is_redirected { "MOVED" } else { "UNBLOCKED" }.to_owned()
    });
    let seen = vec![ask(old, &["XLEN", STREAM]), ask(old, &ADD)];
    assert_does(version, "a read and a write", &seen, all(["MOVED", "MOVED"]));
    let seen = Wire::to(old).codes(&[&["READONLY"], &["XLEN", STREAM], &ADD]);
    assert_does(version, "the same after READONLY", &seen, all(["OK", "OK", "MOVED"]));
}

/// A write that arrives before the old master has learnt of the new one is confirmed, wakes the read that
/// waits there, and is lost with the rest of what the old master alone has. Whether one arrives in time
/// is chance: what waits in the socket of a process that stood still may be read first or last.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_master_that_was_replaced_confirms_no_write_that_lasts() {
    let cluster = with_replicas();
    let (old, new) = pair(&cluster);
    let mut read = waiting_read(old).await;
    replicated((old, new)).await;
    let mut writer = Wire::to(old);
    old.freeze();
    writer.send(&ADD);
    until(DEADLINE, "replaced", || new.info("role").as_deref() == Some("master")).await;
    old.thaw();
    let (first, mut confirmed) = (code(&writer.receive()), 0);
    println!("{:?} answers {first} to a write that waited in its socket", Version::of(old));
    until(DEADLINE, "the old master redirects", || match ask(old, &ADD).as_str() {
        "MOVED" => true,
        "OK" => {
            confirmed += 1;
            false
        }
        "CLUSTERDOWN" => false,
        other => panic!("{other}"),
    })
    .await;
    println!("and confirms {confirmed} more");
    assert!(["OK", "MOVED", "CLUSTERDOWN"].contains(&first.as_str()), "{first}");
    let ended = code(&read.receive());
    let is_woken = first == "OK" || confirmed > 0;
    let expected: &[_] = if is_woken { &["OK"] } else { &["UNBLOCKED", "MOVED", "CLUSTERDOWN"] };
    assert!(expected.contains(&ended.as_str()), "{ended}");
    let follows = || old.info("master_link_status").as_deref() == Some("up");
    until(DEADLINE, "the old master follows the new one", follows).await;
    assert_eq!(new.length(STREAM), 0, "nothing of it has lasted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_group_has_read_is_known_to_a_new_master_on_newer_servers() {
    let cluster = with_replicas();
    let (old, new) = pair(&cluster);
    for _ in 0..5 {
        old.command(&ADD);
    }
    old.command(&["XREADGROUP", "GROUP", "work", "me", "STREAMS", STREAM, ">"]);
    assert_eq!(group_field::<Option<u64>>(old, "entries-read"), Some(5));
    replicated((old, new)).await;
    cluster.fail_over(new);
    assert_eq!(new.pending(STREAM, "work").len(), 5);
    let seen = group_field::<Option<u64>>(new, "entries-read");
    assert_does(Version::of(new), "entries-read", &seen, |version| {
        (!version.is_redis_before((7, 4))).then_some(5)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_unknown_to_a_new_master() {
    let cluster = with_replicas();
    let (old, new) = pair(&cluster);
    let digest: String = old.query(&["SCRIPT", "LOAD", "return 1"]);
    let run = ["EVALSHA", &digest, "1", STREAM];
    let write = "return redis.call('XADD', KEYS[1], '*', 'type', 'order.placed')";
    old.command(&["EVAL", write, "1", STREAM]);
    assert_eq!(ask(old, &run), "OK");
    replicated((old, new)).await;
    cluster.fail_over(new);
    assert_eq!(new.length(STREAM), 1);
    assert_does(Version::of(new), "EVALSHA", &ask(new, &run), |_| "NOSCRIPT".to_owned());
}

/// Where all slots have to be served, which is the default.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_master_takes_all_others_down_with_reads_that_wait_there() {
    let cluster = RedisCluster::start().unwrap();
    make_stream(&cluster);
    let (node, dead) = super::ends(&cluster);
    let mut read = waiting_read(node).await;
    dead.kill();
    until(DEADLINE, "the cluster is down", || ask(node, &["XLEN", STREAM]) != "OK").await;
    let seen = vec![
        ask(node, &["XLEN", STREAM]),
        ask(node, &ADD),
        code(&read.receive()),
        ask(node, &["PING"]),
        ask(node, &["EVAL", "return 1", "0"]),
    ];
    let expected = all(["CLUSTERDOWN", "CLUSTERDOWN", "CLUSTERDOWN", "OK", "OK"]);
    assert_does(Version::of(node), "another master is dead", &seen, expected);
}
