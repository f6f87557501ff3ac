//! A stream that is spread over partitions.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use streamjobs::config::{GroupOptions, Retention};
use streamjobs::error::ConnectError;
use streamjobs::{Client, EncodedEvent, Runtime, StreamName, handlers};
use streamjobs_tests::server::{RedisCluster, RedisServer};
use tokio::time::{Instant, sleep_until};

use crate::app::{DEADLINE, Gate, Order, Work, order, quick, settled, until, work};

const COUNT: u16 = 12;

async fn client(url: &str, count: u16) -> Client {
    Client::builder(url).partitions("orders", count).connect().await.unwrap()
}

fn stream() -> StreamName {
    StreamName::new("orders").unwrap()
}

/// A runtime of one group with so many slots for all partitions.
async fn runtime(client: &Client, work: &Work, slots: u32) -> Runtime {
    let options = GroupOptions::new()
        .lease(Duration::from_secs(3))
        .concurrency(NonZeroU32::new(slots).unwrap())
        .backoff(streamjobs::Backoff::fixed(Duration::from_millis(20)));
    let builder = Runtime::builder(client).handlers(handlers![self::work]).state(work.clone());
    quick(builder.group("work", options)).start().await.unwrap()
}

/// An order of a customer, whose name is the event's key.
fn order_of(customer: usize, id: usize) -> Order {
    Order { id: format!("{customer}-{id}"), customer: format!("customer-{customer}") }
}

/// The customers whose events are in each partition, and how many events there are.
fn customers(server: &RedisServer, client: &Client) -> (Vec<HashSet<String>>, usize) {
    let mut events = 0;
    let of = |stream: &StreamName| {
        let entries = server.entries(stream.as_str());
        events += entries.len();
        entries.into_iter().filter_map(|entry| entry.text("sj-key")).collect::<HashSet<_>>()
    };
    (client.partitions(&stream()).iter().map(of).collect(), events)
}

#[tokio::test]
async fn events_of_a_key_are_in_one_partition_however_they_are_published() {
    let server = RedisServer::start().unwrap();
    let client = client(&server.url(), COUNT).await;
    let all = |id| (0..100).map(|customer| order_of(customer, id)).collect::<Vec<_>>();
    for event in all(0) {
        client.publish(&event).await.unwrap();
    }
    for answer in client.publish_all(&all(1)).await {
        answer.unwrap();
    }
    let encoded = all(2).iter().map(EncodedEvent::new).collect::<Result<_, _>>().unwrap();
    for answer in client.publish_encoded(encoded).await {
        answer.unwrap();
    }
    let (customers, events) = customers(&server, &client);
    assert_eq!(events, 300);
    assert!(customers.iter().all(|customers| !customers.is_empty()), "{customers:?}");
    assert_eq!(customers.iter().map(HashSet::len).sum::<usize>(), 100, "each in one partition");
}

#[tokio::test]
async fn a_handler_works_on_all_partitions_and_what_fails_is_retried_there() {
    let server = RedisServer::start().unwrap();
    let client = client(&server.url(), COUNT).await;
    let work = Work::new(|order, job| async move {
        if order.id.ends_with("-0") && job.attempt() == 1 { Err("again".into()) } else { Ok(()) }
    });
    let runtime = runtime(&client, &work, 16).await;
    let events = (0..20).flat_map(|customer| (0..5).map(move |id| order_of(customer, id)));
    for answer in client.publish_all(&events.collect::<Vec<_>>()).await {
        answer.unwrap();
    }
    work.wait_for(120).await;
    settled(&runtime).await;
    assert_eq!((work.distinct(), work.count()), (100, 120));
    let pending = || {
        let partitions = client.partitions(&stream());
        partitions.iter().map(|name| server.pending(name.as_str(), "work").len()).sum::<usize>()
    };
    until(DEADLINE, "nothing pending", || pending() == 0).await;
    let _ = runtime.shutdown().await;
}

/// The number of slots is that of the group in this process, not of each partition; and a partition with
/// one event gets a slot although another one always has work for all of them.
#[tokio::test]
async fn partitions_share_the_slots_and_a_busy_one_starves_none() {
    let server = RedisServer::start().unwrap();
    let client = client(&server.url(), COUNT).await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, highest) = (Arc::clone(&running), Arc::clone(&most));
    let work = Work::new(move |_, _| {
        let (now, highest) = (Arc::clone(&now), Arc::clone(&highest));
        async move {
            highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep_until(Instant::now() + Duration::from_millis(2)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let busy = (0..4_000).map(|id| order_of(1, id)).collect::<Vec<_>>();
    for answer in client.publish_all(&busy).await {
        answer.unwrap();
    }
    let busy_keys = &customers(&server, &client).0;
    let busy = busy_keys.iter().position(|customers| !customers.is_empty());
    // One customer for each of the others.
    client.publish_all(&(2..40).map(|customer| order_of(customer, 0)).collect::<Vec<_>>()).await;
    let elsewhere = customers(&server, &client).0.into_iter().enumerate();
    let elsewhere = elsewhere.filter(|(place, _)| Some(*place) != busy).flat_map(|(_, all)| all);
    let elsewhere = elsewhere.map(|customer| Order { id: format!("late {customer}"), customer });
    let elsewhere = elsewhere.collect::<Vec<_>>();
    assert!(elsewhere.len() > 20);
    let runtime = runtime(&client, &work, 4).await;
    work.wait_for(60).await;
    for event in &elsewhere {
        client.publish(event).await.unwrap();
    }
    let others = || {
        let runs = work.runs();
        let others = runs.iter().filter(|run| run.order.starts_with("late "));
        others.map(|run| run.order.clone()).collect::<HashSet<_>>().len()
    };
    until(DEADLINE, "the others had their turn", || others() == elsewhere.len()).await;
    assert!(work.count() < 4_000, "before the busy partition was done");
    assert_eq!(most.load(Ordering::SeqCst), 4);
    let _ = runtime.shutdown().await;
}

/// A reader that waits has no slot, or partitions without events would take those of the others.
#[tokio::test]
async fn one_slot_serves_every_partition() {
    let server = RedisServer::start().unwrap();
    let client = client(&server.url(), 48).await;
    let work = Work::fine();
    let runtime = runtime(&client, &work, 1).await;
    for customer in 0..100 {
        client.publish(&order_of(customer, 0)).await.unwrap();
    }
    work.wait_for(100).await;
    settled(&runtime).await;
    assert_eq!(work.count(), 100);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn partitions_are_added_while_a_process_with_fewer_goes_on() {
    let server = RedisServer::start().unwrap();
    // Today's stream, with work in it.
    let before = Client::connect(&server.url()).await.unwrap();
    let (old, new) = (Work::fine(), Work::fine());
    before.publish(&order("before")).await.unwrap();
    let few = client(&server.url(), 3).await;
    let old_runtime = runtime(&few, &old, 4).await;
    old.wait_for(1).await;
    let many = client(&server.url(), COUNT).await;
    let new_runtime = runtime(&many, &new, 4).await;
    for customer in 0..50 {
        few.publish(&order_of(customer, 0)).await.unwrap();
        many.publish(&order_of(customer, 1)).await.unwrap();
    }
    until(DEADLINE, "all are done", || old.distinct() + new.distinct() >= 101).await;
    settled(&old_runtime).await;
    settled(&new_runtime).await;
    assert_eq!(old.count() + new.count(), 101);
    // It was told too few.
    let error = Client::builder(&server.url()).partitions("orders", 3).connect().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ConnectError::Setting(_)), "{error:?}");
    assert!(text.contains("orders has 12 partitions") && text.contains("told 3"), "{text}");
    let _ = old_runtime.shutdown().await;
    let _ = new_runtime.shutdown().await;
}

/// The numbers of partitions never fall, so a client that fails must not have made one larger.
#[tokio::test]
async fn a_client_that_was_told_one_number_wrong_changes_no_other() {
    let server = RedisServer::start().unwrap();
    let told = |many: &str, few: &str, count| {
        Client::builder(&server.url()).partitions(many, count).partitions(few, 2)
    };
    Client::builder(&server.url()).partitions("a", 4).partitions("b", 4).connect().await.unwrap();
    for (many, few) in [("a", "b"), ("b", "a")] {
        let error = told(many, few, 48).connect().await.unwrap_err().to_string();
        assert!(error.contains(&format!("stream {few} has 4 partitions")), "{error}");
        let count = server.query::<String>(&["HGET", &format!("{{{many}}}:partitions"), "count"]);
        assert_eq!(count, "4", "{many}");
    }
}

#[tokio::test]
async fn one_partition_is_the_stream_itself_and_leaves_no_trace() {
    let server = RedisServer::start().unwrap();
    let client = client(&server.url(), 1).await;
    assert_eq!(client.partitions(&stream()), [stream()]);
    let fine = Work::fine();
    let runtime = runtime(&client, &fine, 4).await;
    client.publish(&order(1)).await.unwrap();
    fine.wait_for(1).await;
    let _ = runtime.shutdown().await;
    let exists: usize = server.query(&["EXISTS", "{orders}:partitions"]);
    assert_eq!((exists, server.length("orders")), (0, 1));
}

#[tokio::test]
async fn numbers_that_cannot_be_are_refused_by_name() {
    let url = "redis://127.0.0.1:1";
    for (stream, count, part) in [
        ("orders", 0, "1 to 4096"),
        ("orders", 4_097, "1 to 4096"),
        ("orders:{acme}", 2, "hash tag"),
        ("a\nb", 2, "invalid stream name"),
    ] {
        let error = Client::builder(url).partitions(stream, count).connect().await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ConnectError::Setting(_)) && text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn retention_holds_for_each_partition() {
    let server = RedisServer::start().unwrap();
    let kept = std::num::NonZeroU64::new(5).unwrap();
    let builder = Client::builder(&server.url()).partitions("orders", 3);
    let client = builder.retention("orders", Retention::MaxLenExact(kept)).connect().await.unwrap();
    for id in 0..30 {
        let events = (0..9).map(|customer| order_of(customer, id)).collect::<Vec<_>>();
        for answer in client.publish_all(&events).await {
            answer.unwrap();
        }
    }
    let lengths = client.partitions(&stream()).into_iter().map(|name| server.length(name.as_str()));
    assert_eq!(lengths.collect::<Vec<_>>(), [5, 5, 5]);
}

/// Twelve partitions on three masters: each has four, and one that is moved is followed.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_lie_on_all_masters_of_a_cluster_and_move() {
    let cluster = RedisCluster::start().unwrap();
    let client = client(&cluster.url(), COUNT).await;
    let gate = Gate::default();
    let work = Work::gated(&gate);
    let runtime = runtime(&client, &work, 64).await;
    let mut on = HashMap::<u16, usize>::new();
    let partitions = client.partitions(&stream());
    for name in &partitions {
        *on.entry(cluster.master_of(RedisCluster::slot(name.as_str())).port()).or_default() += 1;
    }
    assert_eq!(on.into_values().collect::<Vec<_>>(), [4, 4, 4]);
    for customer in 0..40 {
        client.publish(&order_of(customer, 0)).await.unwrap();
    }
    work.wait_for(40).await;
    for name in partitions.iter().take(3) {
        let slot = RedisCluster::slot(name.as_str());
        let owner = cluster.master_of(slot).port();
        let to = cluster.nodes().iter().find(|node| node.port() != owner).unwrap();
        cluster.migrate(slot, to);
    }
    gate.open();
    for customer in 0..40 {
        client.publish(&order_of(customer, 1)).await.unwrap();
    }
    work.wait_for(80).await;
    settled(&runtime).await;
    assert_eq!((work.count(), runtime.counters().leases_lost), (80, 0));
    let _ = runtime.shutdown().await;
}

/// Jobs whose acknowledgements cannot be sent keep no slot that another partition could use.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_on_a_dead_master_does_not_hold_the_slots_of_the_others() {
    let cluster = RedisCluster::builder().full_coverage(false).append_only(true).start().unwrap();
    let client = client(&cluster.url(), COUNT).await;
    let gate = Gate::default();
    let work = Work::new({
        let gate = gate.clone();
        move |order, _| {
            let gate = gate.clone();
            async move {
                if order.id.ends_with("-0") {
                    gate.passed().await;
                }
                Ok(())
            }
        }
    });
    let runtime = runtime(&client, &work, 2).await;
    // Two of one customer take all slots.
    for id in ["a-0", "b-0"] {
        client.publish(&Order { id: id.to_owned(), customer: "alice".to_owned() }).await.unwrap();
    }
    work.wait_for(2).await;
    let partitions = client.partitions(&stream());
    let taken = partitions.iter().find(|name| cluster.length(name.as_str()) > 0).unwrap();
    let dead = cluster.master_of(RedisCluster::slot(taken.as_str()));
    dead.kill();
    gate.open();
    let mut elsewhere = 0;
    for customer in 0..100 {
        elsewhere += usize::from(client.publish(&order_of(customer, 1)).await.is_ok());
    }
    assert!(elsewhere > 20, "{elsewhere}");
    until(DEADLINE, "the others go on", || work.distinct() >= 2 + elsewhere).await;
    dead.restart().unwrap();
    settled(&runtime).await;
    let _ = runtime.shutdown().await;
}

/// Without the right, readers ask now and then instead.
#[tokio::test]
async fn without_the_right_to_be_told_partitions_are_read_without_a_hot_loop() {
    let server = RedisServer::start().unwrap();
    for word in ["on", ">secret", "~*", "&*", "+@all", "-client|tracking"] {
        server.command(&["ACL", "SETUSER", "worker", word]);
    }
    let url = server.url_as("worker", "secret");
    let client = client(&url, COUNT).await;
    let work = Work::fine();
    let runtime = runtime(&client, &work, 4).await;
    for customer in 0..50 {
        client.publish(&order_of(customer, 0)).await.unwrap();
    }
    work.wait_for(50).await;
    let connected = server.info("total_connections_received").unwrap();
    let connected: usize = connected.trim().parse().unwrap();
    assert!(connected < 30, "{connected} connections");
    let _ = runtime.shutdown().await;
}
