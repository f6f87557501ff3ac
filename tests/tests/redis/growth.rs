//! Groups in partitions that are added to a stream in use.

use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::config::{GroupOptions, Start};
use streamjobs::{Client, Runtime, StreamName, handlers};
use streamjobs_tests::server::{RedisCluster, RedisServer};

use crate::app::{DEADLINE, Order, Work, quick, settled, until};

async fn client(url: &str, count: u16) -> Client {
    Client::builder(url).partitions("orders", count).connect().await.unwrap()
}

/// A runtime of a group that begins at the end of its stream.
async fn runtime(client: &Client, work: &Work) -> Runtime {
    let options = GroupOptions::new()
        .lease(Duration::from_secs(3))
        .start(Start::End)
        .concurrency(NonZeroU32::new(4).unwrap());
    let handlers = handlers![crate::app::work];
    let builder = Runtime::builder(client).handlers(handlers).state(work.clone());
    quick(builder.group("work", options)).start().await.unwrap()
}

/// Publishes so many events of as many keys: how many went to each partition.
async fn publish(client: &Client, name: &str, count: usize) -> Vec<usize> {
    let mut parts = vec![0; stream_of(client).len()];
    for key in 0..count {
        let event = Order { id: format!("{name}-{key}"), customer: format!("key-{key}") };
        let published = client.publish(&event).await.unwrap();
        parts[usize::from(published.partition.unwrap_or(0))] += 1;
    }
    parts
}

/// Waits until so many events have run, and nothing is left: each ran once, and was published as this.
async fn only(runtime: &Runtime, work: &Work, count: usize, name: &str) {
    until(DEADLINE, "all are done", || work.distinct() >= count).await;
    settled(runtime).await;
    let runs = work.runs();
    assert!(runs.iter().all(|run| run.order.starts_with(name)), "{runs:?}");
    assert_eq!((work.distinct(), work.count()), (count, count), "{runs:?}");
}

/// The group is stopped while the partitions are added and used. `meanwhile` is called before it comes back.
async fn nothing_is_lost_over_a_growth(url: &str, meanwhile: impl FnOnce()) {
    let few = client(url, 2).await;
    let work = Work::fine();
    let old = runtime(&few, &work).await;
    publish(&few, "work-before", 10).await;
    work.wait_for(10).await;
    let _ = old.shutdown().await;
    let many = client(url, 4).await;
    let parts = publish(&many, "work-after", 40).await;
    assert!(parts.iter().all(|events| *events > 0), "{parts:?}");
    meanwhile();
    let new = runtime(&many, &work).await;
    only(&new, &work, 50, "work").await;
    let _ = new.shutdown().await;
}

#[tokio::test]
async fn a_stopped_group_that_starts_at_the_end_loses_nothing_over_a_growth() {
    let server = RedisServer::start().unwrap();
    nothing_is_lost_over_a_growth(&server.url(), || {}).await;
}

/// They do not write since when a group exists.
#[tokio::test]
async fn a_group_of_an_older_version_loses_nothing_over_a_growth() {
    let server = RedisServer::start().unwrap();
    let forget = || {
        let removed: usize = server.query(&["HDEL", "{orders}:group:work", "made"]);
        assert_eq!(removed, 1);
    };
    nothing_is_lost_over_a_growth(&server.url(), forget).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_group_on_a_cluster_loses_nothing_over_a_growth() {
    let cluster = RedisCluster::start().unwrap();
    nothing_is_lost_over_a_growth(&cluster.url(), || {}).await;
}

/// Right after the growth, and by two processes at once: it gets nothing of what was published before it, in
/// any partition.
async fn a_new_group_gets_no_old_events(url: &str) {
    publish(&client(url, 2).await, "old", 10).await;
    let many = client(url, 4).await;
    let parts = publish(&many, "old", 40).await;
    assert!(parts.iter().all(|events| *events > 0), "{parts:?}");
    let (work, again) = (Work::fine(), client(url, 4).await);
    let (one, other) = tokio::join!(runtime(&many, &work), runtime(&again, &work));
    publish(&many, "new", 40).await;
    until(DEADLINE, "the new ones are done", || work.distinct() >= 40).await;
    settled(&other).await;
    only(&one, &work, 40, "new").await;
    let _ = one.shutdown().await;
    let _ = other.shutdown().await;
}

#[tokio::test]
async fn a_group_that_is_newer_than_the_growth_starts_at_the_end() {
    let server = RedisServer::start().unwrap();
    a_new_group_gets_no_old_events(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_group_on_a_cluster_starts_at_the_end_of_added_partitions() {
    let cluster = RedisCluster::start().unwrap();
    a_new_group_gets_no_old_events(&cluster.url()).await;
}

/// As after a process that died while it made its groups: those of the later partitions are missing.
#[tokio::test]
async fn a_start_that_was_cut_off_loses_nothing_that_came_since_it_began() {
    let server = RedisServer::start().unwrap();
    let many = client(&server.url(), 4).await;
    publish(&many, "old", 40).await;
    let group = many.stream("orders").unwrap().group("work").unwrap();
    assert!(group.create(Start::End).await.unwrap());
    for partition in &stream_of(&many)[1..] {
        server.command(&["XGROUP", "DESTROY", partition.as_str(), "work"]);
        server.command(&["DEL", &format!("{partition}:group:work")]);
    }
    let made: String = server.query(&["HGET", "{orders}:group:work", "made"]);
    let made: u64 = made.split(' ').next().unwrap().parse().unwrap();
    let now = || {
        let [seconds, micros] = server.query::<[u64; 2]>(&["TIME"]);
        seconds * 1_000 + micros / 1_000
    };
    until(DEADLINE, "the millisecond of its creation is over", || now() > made).await;
    publish(&many, "new", 40).await;
    let work = Work::fine();
    let running = runtime(&many, &work).await;
    only(&running, &work, 40, "new").await;
    let _ = running.shutdown().await;
}

/// A group that is created by hand begins where its processes would.
#[tokio::test]
async fn a_group_is_created_in_added_partitions_with_what_came_since_it_exists() {
    let server = RedisServer::start().unwrap();
    let few = client(&server.url(), 2).await;
    publish(&few, "old", 10).await;
    let group = |client: &Client, name| client.stream("orders").unwrap().group(name).unwrap();
    assert!(group(&few, "work").create(Start::End).await.unwrap());
    let many = client(&server.url(), 4).await;
    let parts = publish(&many, "new", 40).await;
    for (name, lag) in [("work", 40), ("other", 0)] {
        assert!(group(&many, name).create(Start::End).await.unwrap());
        assert!(!group(&many, name).create(Start::End).await.unwrap());
        assert_eq!(group(&many, name).info().await.unwrap().lag, Some(lag), "{name}: {parts:?}");
    }
}

fn stream_of(client: &Client) -> Vec<StreamName> {
    client.partitions(&StreamName::new("orders").unwrap())
}

async fn create(client: &Client, name: &str) -> bool {
    let group = client.stream("orders").unwrap().group(name).unwrap();
    group.create(Start::End).await.unwrap()
}

/// How many events of all partitions a group has not got to.
async fn backlog(client: &Client, name: &str) -> u64 {
    let group = client.stream("orders").unwrap().group(name).unwrap();
    let info = group.info().await.unwrap();
    assert!(info.backlog.exact && info.without_group == 0, "{info:?}");
    info.backlog.entries
}

/// As where the clock of its server was ahead before.
fn add_ahead(server: &RedisServer, partitions: &[StreamName]) {
    for partition in partitions {
        server.command(&["XADD", partition.as_str(), "9000000000000-0", "f", "v"]);
    }
}

#[tokio::test]
async fn a_new_group_gets_no_old_events_where_ids_are_ahead_of_the_clock() {
    let server = RedisServer::start().unwrap();
    let many = client(&server.url(), 4).await;
    add_ahead(&server, &stream_of(&many)[1..]);
    assert!(create(&many, "other").await);
    assert_eq!(backlog(&many, "other").await, 0);
    let work = Work::fine();
    let running = runtime(&many, &work).await;
    publish(&many, "new", 40).await;
    only(&running, &work, 40, "new").await;
    let _ = running.shutdown().await;
}

#[tokio::test]
async fn a_new_group_of_a_user_that_may_not_ask_for_the_time_gets_no_old_events() {
    let server = RedisServer::start().unwrap();
    server.command(&["ACL", "SETUSER", "bob", "on", ">secret", "~*", "&*", "+@all", "-time"]);
    let all = client(&server.url(), 4).await;
    let many = client(&server.url_as("bob", "secret"), 4).await;
    publish(&many, "old", 40).await;
    assert!(create(&many, "work").await);
    assert_eq!(backlog(&all, "work").await, 0);
    assert_eq!(server.query::<String>(&["HGET", "{orders}:group:work", "made"]), "0 4 4");
    // As after a process that died while it created the group.
    let third = stream_of(&many)[2].clone();
    server.command(&["XGROUP", "DESTROY", third.as_str(), "work"]);
    server.command(&["DEL", &format!("{third}:group:work")]);
    assert!(create(&many, "work").await);
    assert_eq!(backlog(&all, "work").await, 0);
    let more = client(&server.url(), 8).await;
    let parts = publish(&more, "new", 40).await;
    assert!(parts.iter().all(|events| *events > 0), "{parts:?}");
    assert!(create(&more, "work").await);
    assert_eq!(backlog(&more, "work").await, 40);
}

/// It knows of how many partitions the stream consists.
#[tokio::test]
async fn a_group_that_is_created_in_one_partition_alone_is_new_in_the_others() {
    let server = RedisServer::start().unwrap();
    let many = client(&server.url(), 4).await;
    publish(&many, "old", 40).await;
    let parts = many.stream("orders").unwrap().partitions();
    for (name, number) in [("first", 0), ("third", 2)] {
        assert!(parts[number].group(name).unwrap().create(Start::End).await.unwrap());
        assert!(create(&many, name).await);
        assert_eq!(backlog(&many, name).await, 0, "{name}");
    }
    let more = client(&server.url(), 8).await;
    let counts = publish(&more, "new", 40).await;
    let parts = more.stream("orders").unwrap().partitions();
    let sixth = parts[6].group("first").unwrap();
    assert!(sixth.create(Start::End).await.unwrap());
    let backlog = sixth.info().await.unwrap().backlog.entries;
    assert_eq!(usize::try_from(backlog).unwrap(), counts[6], "{counts:?}");
}

/// It was not told of the partitions, and the server knows of them.
#[tokio::test]
async fn a_group_of_a_client_without_partitions_loses_nothing_and_gets_no_old_events() {
    let server = RedisServer::start().unwrap();
    let many = client(&server.url(), 4).await;
    for partition in stream_of(&many) {
        server.command(&["XADD", partition.as_str(), "5-0", "f", "v"]);
    }
    let untold = Client::connect(&server.url()).await.unwrap();
    assert!(create(&untold, "work").await);
    publish(&many, "new", 40).await;
    assert!(create(&many, "work").await);
    assert_eq!(backlog(&many, "work").await, 40);
}

#[tokio::test]
async fn a_group_is_created_nowhere_if_the_first_partition_fails() {
    let server = RedisServer::start().unwrap();
    let many = client(&server.url(), 4).await;
    server.command(&["SET", "orders", "text"]);
    let group = many.stream("orders").unwrap().group("work").unwrap();
    let error = group.create(Start::End).await.unwrap_err().to_string();
    assert!(error.contains("stream orders:") || error.contains("stream orders "), "{error}");
    for partition in &stream_of(&many)[1..] {
        assert_eq!(server.query::<usize>(&["EXISTS", partition.as_str()]), 0, "{partition}");
    }
}

/// What it would say of a group matters only where the group does not exist.
#[tokio::test]
async fn a_missing_right_to_the_groups_hash_does_not_prevent_a_start() {
    let server = RedisServer::start().unwrap();
    let all = client(&server.url(), 3).await;
    assert!(create(&all, "work").await);
    server.command(&["HDEL", "{orders}:group:work", "made"]);
    server.command(&["ACL", "SETUSER", "bob", "on", ">secret", "~*", "&*", "+@all", "-hexists"]);
    let limited = client(&server.url_as("bob", "secret"), 3).await;
    let work = Work::fine();
    let running = runtime(&limited, &work).await;
    publish(&all, "new", 20).await;
    only(&running, &work, 20, "new").await;
    let _ = running.shutdown().await;
}
