//! A stream whose partitions are on all masters, seen and changed as one.

use std::collections::{HashMap, HashSet};

use futures_util::TryStreamExt;
use streamjobs::config::Start;
use streamjobs::stream::{Cut, EntryAddress, PendingQuery, StreamError, Unfinished};
use streamjobs::{Client, ConsumerName};
use streamjobs_tests::server::RedisCluster;

use crate::app::Order;

const COUNT: u16 = 12;

fn order(id: usize) -> Order {
    Order { id: id.to_string(), customer: format!("customer-{id}") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_all_masters_is_seen_and_changed_as_one() {
    let cluster = RedisCluster::builder().full_coverage(false).append_only(true).start().unwrap();
    let builder = Client::builder(&cluster.url()).partitions("orders", COUNT);
    let client = builder.connect().await.unwrap();
    let stream = client.stream("orders").unwrap();
    let group = stream.group("work").unwrap();
    assert!(group.create(Start::Beginning).await.unwrap());
    let mut tail = stream.tail().await.unwrap();
    for answer in client.publish_all(&(0..100).map(order).collect::<Vec<_>>()).await {
        answer.unwrap();
    }
    assert_eq!(stream.length().await.unwrap(), 100);
    let info = group.info().await.unwrap();
    assert_eq!((info.backlog.entries, info.partitions, info.without_group), (100, COUNT, 0));
    let history = stream.replay(..).map_ok(|entry| entry.address()).try_collect::<Vec<_>>();
    let history = history.await.unwrap();
    assert!(history.len() == 100 && history.is_sorted());
    let mut followed = HashSet::new();
    while followed.len() < 100 {
        followed.insert(tail.next().await.unwrap().address());
    }
    assert_eq!(followed, history.iter().copied().collect());
    // Each entry is pending in its partition, which is where it changes hands.
    for part in stream.partitions() {
        let name = part.name().as_str();
        let words = ["XREADGROUP", "GROUP", "work", "theirs", "STREAMS", name, ">"];
        let _: redis::Value = cluster.query(name, &words);
    }
    let (mut rows, mut query) = (Vec::<EntryAddress>::new(), PendingQuery::new().limit(7));
    loop {
        let page = group.pending(query.clone()).await.unwrap();
        rows.extend(page.entries.iter().map(|row| row.address()));
        let Some(next) = page.next else { break };
        query = query.after(next);
    }
    assert_eq!(rows, history);
    let mine = ConsumerName::new("mine").unwrap();
    let moved = group.claim(&rows, &mine).await.unwrap();
    assert_eq!(moved.moved.len(), 100);
    assert_eq!(group.acknowledge(&rows).await.unwrap(), 100);
    let trimmed = stream.trim_exactly(Cut::Length(1), Unfinished::Keep).await.unwrap();
    assert_eq!((trimmed.length, trimmed.removed), (u64::from(COUNT), 100 - u64::from(COUNT)));
    // What cannot be reached is named, and the rest is done.
    let mut on = HashMap::<u16, HashSet<String>>::new();
    for part in stream.partitions() {
        let name = part.name().to_string();
        let port = cluster.master_of(RedisCluster::slot(&name)).port();
        on.entry(port).or_default().insert(name);
    }
    let dead = cluster.master_of(RedisCluster::slot("orders"));
    let lost = on.remove(&dead.port()).unwrap();
    dead.kill();
    let error = group.pause().await.unwrap_err();
    assert!(
        matches!(&error, StreamError::Server { stream, .. } if lost.contains(stream)),
        "{error}"
    );
    let mut paused = HashSet::new();
    for part in stream.partitions() {
        if let Ok(info) = part.group("work").unwrap().info().await {
            assert_eq!(info.paused_in, 1, "{}", part.name());
            paused.insert(part.name().to_string());
        }
    }
    assert_eq!(paused, on.into_values().flatten().collect());
}
