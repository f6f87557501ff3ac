//! Groups in partitions that are added to a stream in use, on streams in memory under a paused clock.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::Publish;
use streamjobs::__store::memory::{Fault, MemoryStore, Passage, View, Watch};
use streamjobs::config::Start;
use streamjobs::stream::Unfinished;
use streamjobs::{Client, Event, Runtime, State, StreamName, handler, handlers};
use streamjobs_tests::eventually::eventually_async;

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "id")]
struct Order {
    id: String,
}

#[derive(Clone, Default)]
struct Done(Arc<Mutex<BTreeSet<String>>>);

#[handler(group = "work", start = "$")]
async fn work(order: Order, State(done): State<Done>) {
    assert!(done.0.lock().unwrap().insert(order.id));
}

/// Counts the requests for the births of groups.
#[derive(Debug, Default)]
struct Asked(Mutex<usize>);

impl Watch for Asked {
    fn passage(&self, _caller: u64, _operation: &'static str) -> Passage {
        Passage::default()
    }

    fn carried_out(&self, _caller: u64, operation: &'static str, _view: View<'_>) {
        *self.0.lock().unwrap() += usize::from(operation == "group_made");
    }
}

/// A client that stores the number of partitions, as on a server.
async fn client(store: &MemoryStore, count: u16) -> Client {
    store.partitions(&StreamName::new("orders").unwrap(), count).await.unwrap();
    let builder = Client::builder("redis://127.0.0.1").partitions("orders", count);
    streamjobs::__store::client_with(store, builder).unwrap()
}

/// Publishes to every partition.
async fn publish(client: &Client, name: &str, partitions: usize) {
    let mut reached = BTreeSet::new();
    for key in 0..40 {
        let published = client.publish(&Order { id: format!("{name}-{key}") }).await.unwrap();
        reached.insert(published.partition);
    }
    assert_eq!(reached.len(), partitions);
}

async fn start(client: &Client, done: &Done) -> Runtime {
    let builder = Runtime::builder(client).handlers(handlers![work]).state(done.clone());
    builder.start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_group_loses_nothing_over_a_growth_and_a_start_asks_once_since_when_it_exists() {
    let (store, asked, done) = (MemoryStore::new(), Arc::<Asked>::default(), Done::default());
    let store = store.watched(1, Arc::clone(&asked) as _);
    let asked = || std::mem::take(&mut *asked.0.lock().unwrap());
    let few = client(&store, 2).await;
    publish(&few, "old", 2).await;
    let old = start(&few, &done).await;
    assert_eq!(asked(), 0, "the group is new");
    let _ = old.shutdown().await;
    let many = client(&store, 8).await;
    publish(&many, "new", 8).await;
    let new = start(&many, &done).await;
    assert_eq!(asked(), 1, "for seven partitions");
    let all = async || done.0.lock().unwrap().len() >= 40;
    eventually_async(Duration::from_secs(60), "all are done", all).await;
    let _ = new.shutdown().await;
    let done = done.0.lock().unwrap();
    assert!(done.len() == 40 && done.iter().all(|id| id.starts_with("new")), "{done:?}");
}

/// Else the next start would find it in the first partition, and run old events in the others.
#[tokio::test(start_paused = true)]
async fn a_group_that_the_first_partition_keeps_is_removed_nowhere() {
    let store = MemoryStore::new();
    let many = client(&store, 4).await;
    let whole = many.stream("orders").unwrap();
    let group = whole.group("work").unwrap();
    assert!(group.create(Start::End).await.unwrap());
    let having = async || {
        let mut having = 0;
        for partition in whole.partitions() {
            having += usize::from(partition.group("work").unwrap().info().await.is_ok());
        }
        having
    };
    store.fail_next("destroy_group", Fault::Unreachable);
    group.destroy(Unfinished::Lose).await.unwrap_err();
    assert_eq!(having().await, 4);
    // As after a call that was cut off behind the first partition: another one continues.
    let first = whole.partitions().remove(0).group("work").unwrap();
    first.destroy(Unfinished::Lose).await.unwrap();
    assert_eq!(having().await, 3);
    group.destroy(Unfinished::Lose).await.unwrap();
    assert_eq!(having().await, 0);
    assert!(group.destroy(Unfinished::Lose).await.unwrap_err().to_string().contains("work"));
}
