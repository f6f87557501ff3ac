//! What the doctor finds in a cluster: about each node, and about all of them.

use streamjobs::doctor::{Check, Checkup, Finding, Severity};
use streamjobs::{Client, StreamName};
use streamjobs_tests::server::{RedisCluster, RedisServer};

use super::{App, STREAMS};
use crate::app::{DEADLINE, Work, until};

async fn examined(url: &str) -> Checkup {
    let client = Client::connect(url).await.unwrap();
    client.doctor_for(STREAMS.map(|stream| (stream, "work"))).await.unwrap()
}

/// The one finding that begins like this.
#[track_caller]
fn found<'c>(checkup: &'c Checkup, what: &str) -> &'c Finding {
    let mut found = checkup.findings.iter().filter(|finding| finding.what.starts_with(what));
    let first = found.next().unwrap_or_else(|| panic!("{what} is not found: {checkup}"));
    assert_eq!(found.next(), None, "{what} is found once");
    first
}

fn address(node: &RedisServer) -> String {
    format!("127.0.0.1:{}", node.port())
}

/// Sets it on all nodes.
fn set(cluster: &RedisCluster, name: &str, value: &str) {
    for node in cluster.nodes() {
        node.command(&["CONFIG", "SET", name, value]);
    }
}

#[tokio::test]
async fn every_master_is_examined_and_what_all_have_is_said_once() {
    let cluster = RedisCluster::start().unwrap();
    let [_, second, third] = cluster.nodes() else { panic!("three masters") };
    set(&cluster, "appendonly", "yes");
    third.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let checkup = examined(&cluster.url()).await;
    for node in cluster.nodes() {
        assert!(checkup.server.contains(&address(node)), "{checkup}");
    }
    let evicting = found(&checkup, "maxmemory-policy is allkeys-lru");
    assert_eq!(evicting.nodes.as_ref().unwrap().nodes, [address(third)]);
    let flushed = found(&checkup, "appendfsync is everysec");
    assert_eq!(flushed.nodes.as_ref().unwrap().to_string(), "all 3 nodes");
    assert!(checkup.to_string().contains("appendfsync is everysec (on all 3 nodes)"), "{checkup}");
    second.command(&["CONFIG", "SET", "appendonly", "no"]);
    let checkup = examined(&cluster.url()).await;
    let forgetful = found(&checkup, "nothing is written to disk");
    assert_eq!(forgetful.nodes.as_ref().unwrap().nodes, [address(second)]);
}

#[tokio::test]
async fn masters_without_replicas_are_found_with_what_they_stop() {
    let cluster = RedisCluster::start().unwrap();
    let checkup = examined(&cluster.url()).await;
    let alone = found(&checkup, "the node of the cluster has no replica");
    assert_eq!(alone.nodes.as_ref().unwrap().to_string(), "all 3 nodes");
    assert!(alone.meaning.contains("all nodes refuse"), "{alone}");
    set(&cluster, "cluster-require-full-coverage", "no");
    let checkup = examined(&cluster.url()).await;
    let alone = found(&checkup, "the node of the cluster has no replica");
    assert!(alone.meaning.contains("its streams wait"), "{alone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failover_loses_and_interrupts_is_found() {
    let app = App::start(RedisCluster::builder().replicas(1).start().unwrap(), Work::fine()).await;
    let url = app.cluster.url();
    let checkup = examined(&url).await;
    let loss = found(&checkup, "min-replicas-to-write is 0, and a replica can become the master");
    assert_eq!(loss.severity, Severity::Warning);
    found(&checkup, "cluster-require-full-coverage is yes");
    // A failover takes 3.5 s and the lease of the group is 3 s, as its heartbeat says.
    let slow = found(&checkup, "cluster-node-timeout is 2s, and the shortest lease is 3s");
    assert_eq!((slow.severity, &slow.nodes), (Severity::Warning, &None));
    let _ = app.runtime.shutdown().await;
    set(&app.cluster, "min-replicas-to-write", "1");
    set(&app.cluster, "cluster-require-full-coverage", "no");
    // Without a process, the default lease counts.
    let checkup = examined(&url).await;
    let of_the_cluster = [Check::Cluster, Check::Replicas];
    let left = checkup.findings.iter().filter(|found| of_the_cluster.contains(&found.check));
    assert_eq!(left.collect::<Vec<_>>(), Vec::<&Finding>::new(), "{checkup}");
}

#[tokio::test]
async fn slots_without_a_node_and_a_cluster_that_is_down_are_critical() {
    let cluster = RedisCluster::start().unwrap();
    for node in cluster.nodes() {
        node.command(&["CLUSTER", "DELSLOTS", "0", "1"]);
    }
    let is_down = || {
        cluster
            .nodes()
            .iter()
            .all(|node| node.query::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:fail"))
    };
    until(DEADLINE, "the cluster is down", is_down).await;
    let checkup = examined(&cluster.url()).await;
    assert_eq!(found(&checkup, "2 slots have no node").severity, Severity::Critical);
    let down = found(&checkup, "the node says that the cluster is down");
    assert_eq!(down.nodes.as_ref().unwrap().to_string(), "all 3 nodes");
}

/// A node that hangs, and one that announces an address at which it does not listen.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_cannot_be_reached_are_named_and_the_others_examined() {
    let cluster = RedisCluster::builder().replicas(1).full_coverage(false).start().unwrap();
    // The one that hangs is not replaced.
    set(&cluster, "cluster-replica-no-failover", "yes");
    let client = Client::connect(&cluster.url()).await.unwrap();
    let hung = cluster.master_of(RedisCluster::slot("bills"));
    let master = cluster.master_of(RedisCluster::slot("orders"));
    let [moved] = cluster.replicas_of(master)[..] else { panic!("it has a replica") };
    // Nothing listens on port 1.
    moved.command(&["CONFIG", "SET", "cluster-announce-port", "1"]);
    let knows = |node: &RedisServer| {
        let slots = node.query::<redis::Value>(&["CLUSTER", "SLOTS"]);
        format!("{slots:?}").contains("int(1)")
    };
    let others = || cluster.nodes().iter().filter(|node| node.port() != moved.port());
    until(DEADLINE, "all others know", || others().all(knows)).await;
    hung.freeze();
    let queues = STREAMS.map(|stream| (stream, "work"));
    let checkup = client.doctor_for(queues).await.unwrap();
    let gone = found(&checkup, &format!("the master {} cannot be reached", address(hung)));
    assert_eq!(gone.severity, Severity::Critical);
    let replica = found(&checkup, "the replica 127.0.0.1:1 cannot be reached");
    assert_eq!(replica.severity, Severity::Warning);
    let others = found(&checkup, "nothing is written to disk").nodes.as_ref().unwrap();
    assert_eq!(others.nodes.len(), 2, "{checkup}");
    hung.thaw();
}

#[tokio::test]
async fn rights_are_checked_on_each_node_and_on_the_partitions() {
    let cluster = RedisCluster::start().unwrap();
    let client = Client::builder(&cluster.url()).partitions("orders", 3).connect().await.unwrap();
    for node in cluster.nodes() {
        let keys = ["~orders", "~{orders}:*"];
        let user = ["ACL", "SETUSER", "bob", "on", ">canary", "+@all"];
        node.command(&[&user[..], &keys].concat());
    }
    let [first, others @ ..] = cluster.nodes() else { panic!("three masters") };
    for node in others {
        node.command(&["ACL", "SETUSER", "bob", "~orders:p[0-9]*"]);
    }
    let url = cluster.url().replace("://", "://bob:canary@");
    let user = Client::connect(&url).await.unwrap();
    let checkup = user.doctor_for([("orders", "work")]).await.unwrap();
    let last = client.partitions(&StreamName::new("orders").unwrap()).pop().unwrap();
    let finding = checkup.findings.iter().find(|finding| {
        finding.check == Check::Rights && finding.what.ends_with(&format!("on {last}"))
    });
    let nodes = finding.unwrap_or_else(|| panic!("{checkup}")).nodes.clone().unwrap().nodes;
    assert_eq!(nodes, [address(first)]);
}
