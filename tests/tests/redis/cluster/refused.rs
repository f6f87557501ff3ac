//! Addresses and nodes that cannot be used are named, with what to do.

use std::time::Duration;

use streamjobs::Client;
use streamjobs::error::ConnectError;
use streamjobs_tests::server::{RedisCluster, RedisServer};

use crate::app::{DEADLINE, order, until};

/// The error of connecting there, which shows no password.
async fn refused(url: &str) -> String {
    let error = Client::connect(url).await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("canary"), "{shown}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_node_and_what_is_a_node_is_told_apart() {
    let cluster = RedisCluster::start().unwrap();
    let node = &cluster.nodes()[0];
    let error = refused(&node.plain_url()).await;
    assert!(error.contains("redis+cluster://"), "{error}");
    let server = RedisServer::start().unwrap();
    let plain = server.plain_url().replace("redis://", "redis+cluster://");
    if !server.url().starts_with("redis+cluster") {
        let error = refused(&plain).await;
        assert!(error.contains("not a node of a cluster"), "{error}");
    }
    // One seed that answers is enough, whatever the others are.
    let dead = "127.0.0.1:1";
    let url = format!("redis+cluster://{dead},127.0.0.1:{}", node.port());
    Client::connect(&url).await.unwrap().publish(&order(1)).await.unwrap();
}

#[tokio::test]
async fn seeds_that_do_not_answer_are_each_named() {
    let error = refused("redis+cluster://alice:canary@127.0.0.1:1,127.0.0.1:2").await;
    for part in ["127.0.0.1:1", "127.0.0.1:2", "no node of the cluster"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn addresses_that_are_not_of_the_form_are_refused() {
    for url in [
        "redis+cluster://",
        "redis+cluster://alice:canary@",
        "redis+cluster://alice:canary@h,",
        "redis+cluster://h:0,canary",
        "redis+cluster://h:canary",
        "redis+cluster://h,g/canary",
        "redis+cluster://h,g?canary=1",
        "redis+cluster://alice:12#canary@h",
        "redis+cluster:/canary",
    ] {
        let error = Client::connect(url).await.unwrap_err();
        assert!(matches!(error, ConnectError::Address(_)), "{url}: {error}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{url}: {error}");
    }
    let many = format!("redis+cluster://{}", ["h"; 33].join(","));
    assert!(refused(&many).await.contains("more than 32"));
}

/// Redis has one database in a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn another_database_than_the_first_is_refused_by_the_server_in_its_words() {
    let cluster = RedisCluster::start().unwrap();
    let error = refused(&format!("{}/3", cluster.url())).await;
    assert!(error.contains("SELECT") || error.contains("DB index"), "{error}");
}

/// Behind NAT or in containers, nodes announce addresses that lead nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_announces_an_address_that_cannot_be_reached_is_named() {
    let cluster = RedisCluster::start().unwrap();
    let node = &cluster.nodes()[1];
    node.command(&["CONFIG", "SET", "cluster-announce-port", "1"]);
    let is_known = || {
        cluster.nodes().iter().all(|node| {
            let view = node.query::<String>(&["CLUSTER", "NODES"]);
            view.contains("127.0.0.1:1@")
        })
    };
    until(DEADLINE, "all nodes have heard of it", is_known).await;
    let error = refused(&cluster.url()).await;
    assert!(error.contains("127.0.0.1:1,") && error.contains("announces"), "{error}");
}

/// One that is behind a firewall, or stands still, does not even refuse.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_is_named() {
    let builder = RedisCluster::builder().node_timeout(Duration::from_secs(30));
    let cluster = builder.start().unwrap();
    let node = &cluster.nodes()[2];
    node.freeze();
    let error = refused(&cluster.url()).await;
    node.thaw();
    let address = format!("node 127.0.0.1:{}", node.port());
    assert!(error.contains(&address) && error.contains("announces"), "{error}");
}
