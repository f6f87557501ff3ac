//! Event types that some processes of a group do not know, on streams in memory under a paused clock:
//! each job runs in a process that declares its type, whenever that starts, or becomes a dead letter
//! when no process has declared it for long.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::{Fault, MemoryStore};
use streamjobs::__store::{GroupUpkeep, Queue};
use streamjobs::config::{GroupOptions, Unhandled};
use streamjobs::dead_letter::{DeadLetter, Reason};
use streamjobs::stream::Group;
use streamjobs::{ConsumerName, Event, GroupName, Runtime, State, StreamName, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Placed {}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.shipped")]
struct Shipped {
    id: usize,
}

/// Which orders were shipped, in the order of their runs.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Vec<usize>>>);

impl Runs {
    fn sorted(&self) -> Vec<usize> {
        let mut runs = self.0.lock().unwrap().clone();
        runs.sort_unstable();
        runs
    }

    async fn until(&self, count: usize) {
        let limit = Duration::from_secs(300);
        let done = async || self.0.lock().unwrap().len() >= count;
        eventually_async(limit, "all have run", done).await;
    }
}

#[handler(group = "work")]
async fn placed(_order: Placed) {}

#[handler(group = "work")]
async fn shipped(order: Shipped, State(runs): State<Runs>) {
    runs.0.lock().unwrap().push(order.id);
}

fn queue() -> Queue {
    let (stream, group) = (StreamName::new("orders"), GroupName::new("work"));
    Queue { stream: stream.unwrap(), group: group.unwrap() }
}

async fn publish(store: &MemoryStore, count: usize) {
    let client = streamjobs::__store::client(store);
    for id in 0..count {
        client.publish(&Shipped { id }).await.unwrap();
    }
}

/// A process that does not know `order.shipped`.
async fn older(store: &MemoryStore, options: GroupOptions) -> Runtime {
    let client = streamjobs::__store::client(store);
    let builder = Runtime::builder(&client).handlers(handlers![placed]);
    builder.group("work", options).start().await.unwrap()
}

/// A process that knows both types.
async fn newer(store: &MemoryStore, runs: &Runs) -> Runtime {
    let client = streamjobs::__store::client(store);
    let builder = Runtime::builder(&client).handlers(handlers![placed, shipped]);
    builder.state(runs.clone()).start().await.unwrap()
}

async fn letters(store: &MemoryStore) -> Vec<DeadLetter> {
    let client = streamjobs::__store::client(store);
    let letters = client.dead_letters("orders", "work").unwrap();
    letters.list(None, 1_000).await.unwrap().letters
}

fn store_group(store: &MemoryStore) -> Group {
    let client = streamjobs::__store::client(store);
    client.stream("orders").unwrap().group("work").unwrap()
}

async fn wait(seconds: u64) {
    sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn in_a_rolling_deploy_every_event_of_a_new_type_runs_in_the_new_process() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let options = GroupOptions::new();
    let mut old = Vec::new();
    for _ in 0..3 {
        old.push(older(&store, options).await);
    }
    let new = newer(&store, &runs).await;
    publish(&store, 200).await;
    runs.until(200).await;
    wait(60).await;
    assert_eq!(runs.sorted(), (0..200).collect::<Vec<_>>(), "each has run once");
    assert_eq!(letters(&store).await.len(), 0, "dead letters");
    let met = old.iter().map(|old| old.counters().unhandled).sum::<u64>();
    assert!(met > 0, "an older process met the type");
    for runtime in old.into_iter().chain([new]) {
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_type_that_no_process_declares_is_dead_lettered_after_the_time_across_restarts() {
    let (store, options) = (MemoryStore::new(), GroupOptions::new());
    let mut old = older(&store, options).await;
    publish(&store, 5).await;
    for minute in 0..9 {
        wait(59).await;
        assert_eq!(letters(&store).await.len(), 0, "dead letters after {minute} minutes");
        let problems = store_group(&store).diagnose().await.unwrap().to_string();
        assert!(problems.contains("no live process has a handler for event types order.shipped"));
        let _ = old.shutdown().await;
        old = older(&store, options).await;
    }
    wait(90).await;
    let dead = letters(&store).await;
    assert_eq!(dead.len(), 5);
    for letter in dead {
        assert_eq!((letter.reason, letter.attempts), (Reason::Unhandled, 0));
        assert_eq!(letter.event_type(), Some("order.shipped"));
        let data = letter.fields.iter().find(|(name, _)| name == "data").unwrap();
        assert!(data.1.starts_with(b"{\"id\":"), "the payload is kept");
    }
    let _ = old.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_time_is_an_option_and_counts_from_the_last_declaration() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let options = GroupOptions::new().unhandled_after(Duration::from_secs(120));
    let old = older(&store, options).await;
    let new = newer(&store, &runs).await;
    publish(&store, 20).await;
    runs.until(20).await;
    wait(600).await;
    let _ = new.shutdown().await;
    publish(&store, 1).await;
    wait(100).await;
    assert_eq!(letters(&store).await.len(), 0, "the last declaration is not old enough");
    wait(120).await;
    assert_eq!(letters(&store).await.len(), 1);
    let _ = old.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn jobs_wait_for_a_process_with_the_handler_that_starts_later() {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let old = older(&store, GroupOptions::new()).await;
    publish(&store, 50).await;
    wait(300).await;
    assert_eq!(runs.sorted(), [] as [usize; 0]);
    let new = newer(&store, &runs).await;
    runs.until(50).await;
    wait(30).await;
    assert_eq!(runs.sorted(), (0..50).collect::<Vec<_>>());
    assert_eq!(letters(&store).await.len(), 0);
    assert_eq!(store_group(&store).diagnose().await.unwrap().to_string(), "healthy");
    let _ = (old.shutdown().await, new.shutdown().await);
}

#[tokio::test(start_paused = true)]
async fn while_a_process_lives_that_does_not_say_its_types_jobs_wait() {
    let store = MemoryStore::new();
    let old = older(&store, GroupOptions::new()).await;
    publish(&store, 3).await;
    let (queue, unsaid) = (queue(), ConsumerName::new("unsaid").unwrap());
    for _ in 0..240 {
        store.heartbeat(&queue, &unsaid, r#"{"beat_every":10000}"#).await.unwrap();
        wait(10).await;
    }
    assert_eq!(letters(&store).await.len(), 0, "after 40 minutes");
    wait(700).await;
    assert_eq!(letters(&store).await.len(), 3, "after that process has died");
    let _ = old.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_of_types_that_was_cut_may_have_any() {
    let store = MemoryStore::new();
    let old = older(&store, GroupOptions::new()).await;
    publish(&store, 3).await;
    let (queue, cut) = (queue(), ConsumerName::new("cut").unwrap());
    for _ in 0..120 {
        let about = r#"{"beat_every":10000,"types":["a"],"types_cut":true}"#;
        store.heartbeat(&queue, &cut, about).await.unwrap();
        wait(10).await;
    }
    assert_eq!(letters(&store).await.len(), 0, "after 20 minutes");
    let _ = old.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn lost_answers_neither_lose_a_job_nor_run_it_twice() {
    for fault in [Fault::AnswerLost, Fault::RequestLost, Fault::Unreachable] {
        for step in ["sight_type", "schedule_retry", "heartbeat", "promote"] {
            let (store, runs) = (MemoryStore::new(), Runs::default());
            let old = older(&store, GroupOptions::new()).await;
            for _ in 0..5 {
                store.fail_next(step, fault);
            }
            publish(&store, 10).await;
            wait(60).await;
            let new = newer(&store, &runs).await;
            runs.until(10).await;
            wait(60).await;
            assert_eq!(runs.sorted(), (0..10).collect::<Vec<_>>(), "{step}, {fault:?}");
            assert_eq!(letters(&store).await.len(), 0, "{step}, {fault:?}");
            let _ = (old.shutdown().await, new.shutdown().await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_other_choices_do_what_their_names_say() {
    for (choice, dead) in [(Unhandled::Acknowledge, 0), (Unhandled::DeadLetter, 4)] {
        let store = MemoryStore::new();
        let old = older(&store, GroupOptions::new().unhandled(choice)).await;
        publish(&store, 4).await;
        wait(5).await;
        assert_eq!(letters(&store).await.len(), dead, "{choice:?}");
        let info = store_group(&store).info().await.unwrap();
        assert_eq!((info.pending, info.retrying, old.counters().unhandled), (0, 0, 4));
        let _ = old.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_left_keeps_no_slot_when_the_group_can_remember_nothing() {
    let store = MemoryStore::new();
    let options = GroupOptions::new().concurrency(std::num::NonZeroU32::MIN);
    for _ in 0..100 {
        store.fail_next("sight_type", Fault::Refused);
    }
    let old = older(&store, options).await;
    publish(&store, 3).await;
    streamjobs::__store::client(&store).publish(&Placed {}).await.unwrap();
    let succeeded = async || old.counters().succeeded == 1;
    eventually_async(Duration::from_secs(30), "the other job has run", succeeded).await;
    assert_eq!(letters(&store).await.len(), 0);
    let _ = old.shutdown().await;
}
