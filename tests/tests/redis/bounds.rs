//! What stays bounded however much there is: attempts, memory, and the cost of renewals.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use streamjobs::__store::{Inlet, Queue};
use streamjobs::config::Start;
use streamjobs::{ConsumerName, GroupName, JobError, StreamName};

use crate::app::{App, DEADLINE, Gate, Work, options, order, orders, settled, until};

#[tokio::test]
async fn a_group_set_back_runs_no_running_job_again_and_no_attempt_beyond_the_last() {
    let app = App::start().await;
    let gate = Gate::default();
    let held = gate.clone();
    let work = Work::new(move |order, job| {
        let gate = held.clone();
        async move {
            if order.id == "held" || job.attempt() == 2 {
                gate.passed().await;
            }
            if order.id == "bad" { Err::<(), JobError>("no".into()) } else { Ok(()) }
        }
    });
    let three = options().max_attempts(NonZeroU32::new(3).unwrap());
    let runtime = app.bare(&work).group("work", three).start().await.unwrap();
    for id in ["held", "bad"] {
        app.client.publish(&order(id)).await.unwrap();
    }
    work.wait_for(3).await;
    app.server.command(&["XGROUP", "SETID", "orders", "work", "0"]);
    until(DEADLINE, "delivered again", || runtime.counters().delivered_again > 0).await;
    gate.open();
    app.drained("work").await;
    settled(&runtime).await;
    let attempts = |id: &str| -> Vec<u32> {
        work.runs().iter().filter(|run| run.order == id).map(|run| run.attempt).collect()
    };
    assert_eq!(attempts("held"), [1]);
    let mut bad = attempts("bad");
    bad.sort_unstable();
    // To go back is to ask for what waits for retry once more: each of the two has its own record.
    assert_eq!(bad, [1, 1, 2, 2, 3, 3]);
    assert_eq!(app.server.length("{orders}:dead:work"), 2);
    let _ = runtime.shutdown().await;
}

/// However many slots are free: one answer of hundreds of large entries would be large itself.
#[tokio::test]
async fn of_large_payloads_about_a_mebibyte_is_read_at_once() {
    let app = App::start().await;
    let large = "x".repeat(256 * 1024);
    for id in 0..120 {
        app.client.publish(&order(format!("{id} {large}"))).await.unwrap();
    }
    let counted = Work::fine();
    let many = options().concurrency(NonZeroU32::new(500).unwrap());
    let runtime = app.bare(&counted).group("work", many).start().await.unwrap();
    counted.wait_for(120).await;
    app.drained("work").await;
    // The size of the first ones is unknown: 64 at most. Then four at a time.
    let reads = app.calls("xreadgroup");
    assert!(reads > (120 - 64) / 4, "{reads} reads for 120 entries of 256 KiB");
    let _ = runtime.shutdown().await;
}

/// Memory is bounded by slots times the largest payload, since no more is read than has a slot.
#[tokio::test]
async fn of_large_payloads_no_more_is_read_than_there_are_slots() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let large = "x".repeat(1024 * 1024 - 1024);
    for id in 0..40 {
        app.client.publish(&order(format!("{id} {large}"))).await.unwrap();
    }
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0"]);
    app.server.command(&["CONFIG", "RESETSTAT"]);
    let four = options().concurrency(NonZeroU32::new(4).unwrap());
    let runtime = app.bare(&gated).group("work", four).start().await.unwrap();
    gated.wait_for(4).await;
    let sent: usize = app.server.info("total_net_output_bytes").unwrap().parse().unwrap();
    assert!(sent < 6 * large.len(), "{sent} bytes for four slots");
    assert_eq!(app.pending("work"), 4);
    gate.open();
    app.drained("work").await;
    assert_eq!((gated.count(), gated.distinct()), (40, 40));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn the_bytes_of_renewals_grow_with_the_jobs_and_their_calls_hardly_do() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let lease = Duration::from_secs(6);
    let wide = options().lease(lease).concurrency(NonZeroU32::new(10_000).unwrap());
    let runtime = app.bare(&gated).group("work", wide).start().await.unwrap();
    let mut costs = Vec::new();
    for more in [0, 1_000, 9_000] {
        let running = gated.count() + more;
        for batch in orders(more).chunks(1_000) {
            app.client.publish_all(batch).await;
        }
        gated.wait_for(running).await;
        app.server.command(&["CONFIG", "RESETSTAT"]);
        let since = Instant::now();
        until(DEADLINE, "a lease has passed", || since.elapsed() > lease).await;
        let bytes: f64 = app.server.info("total_net_input_bytes").unwrap().parse().unwrap();
        costs.push((app.calls("evalsha"), bytes / since.elapsed().as_secs_f64()));
    }
    println!("calls in a lease and bytes in a second, of 0, 1,000 and 10,000 jobs: {costs:?}");
    let [(calls_none, bytes_none), (_, bytes_few), (calls_many, bytes_many)] = costs[..] else {
        panic!("three were measured");
    };
    let growth = (bytes_many - bytes_none) / (bytes_few - bytes_none);
    assert!((5.0..15.0).contains(&growth), "ten times the jobs cost {growth} times the bytes");
    assert!(calls_many < calls_none + 500, "they go in batches");
    assert_eq!((runtime.counters().leases_lost, runtime.counters().claimed), (0, 0));
    gate.open();
    until(DEADLINE, "all done", || runtime.counters().succeeded == 10_000).await;
    let _ = runtime.shutdown().await;
}

/// Payloads that a script copies inside the server are not seen on the wire, so the command that
/// copies them is counted.
#[tokio::test]
async fn what_runs_regularly_copies_no_payload_of_the_ends_of_the_stream() {
    let app = App::start().await;
    let work = Work::fine();
    let runtime = app.runtime(&work).watch_interval(Duration::from_millis(50)).start();
    let runtime = runtime.await.unwrap();
    app.publish(20).await;
    app.drained("work").await;
    app.server.command(&["CONFIG", "RESETSTAT"]);
    let client_stream = app.client.stream("orders").unwrap();
    // Only a heartbeat writes to the group's hash of an idle group, and only the watcher asks for the
    // stream's memory.
    until(DEADLINE, "heartbeats and looks at the stream", || {
        app.calls("hset") >= 5 && app.calls("memory|usage") >= 3
    })
    .await;
    client_stream.groups().await.unwrap();
    let sizes = client_stream.sizes().await.unwrap();
    assert_eq!((sizes.length, sizes.added, sizes.groups), (20, 20, 1));
    assert_eq!(app.calls("xinfo|stream"), 0);
    client_stream.info().await.unwrap();
    assert_eq!(app.calls("xinfo|stream"), 1, "the count works");
    let _ = runtime.shutdown().await;
}

/// What the loops ask for at intervals, between payloads of a megabyte that wait and that are done.
#[tokio::test]
async fn the_bytes_of_what_runs_regularly_do_not_grow_with_the_payloads() {
    let app = App::start().await;
    let payload = "x".repeat(1_000_000);
    let add = ["XADD", "orders", "*", "type", "order.placed", "data", &payload];
    (0..5).for_each(|_| drop(app.server.command(&add)));
    let (store, queue) = (streamjobs::__store::of(&app.client), queue());
    store.prepare(&queue, Start::Beginning).await.unwrap();
    let read = ["XREADGROUP", "GROUP", "work", "me", "COUNT", "3", "STREAMS", "orders", ">"];
    app.server.command(&read);
    let me = ConsumerName::new("me").unwrap();
    // The first time the scripts are loaded.
    store.heartbeat(&queue, &me, "{}").await.unwrap();
    app.server.command(&["CONFIG", "RESETSTAT"]);
    let sent = || app.server.info("total_net_output_bytes").unwrap().parse::<u64>().unwrap();
    let lease = Duration::from_secs(60);
    let mut last = sent();
    for round in 0..3 {
        store.heartbeat(&queue, &me, "{}").await.unwrap();
        store.promote(&queue, &me, 100).await.unwrap();
        store.has_idle(&queue, Inlet::STREAM, lease, Duration::ZERO).await.unwrap();
        let facts = store.group_facts(&queue).await.unwrap();
        store.consumers(&queue).await.unwrap();
        store.stream_sizes(&queue.stream).await.unwrap();
        store.oldest_unfinished(&queue).await.unwrap();
        let now = sent();
        assert!(now - last < 20_000, "round {round}: {} bytes", now - last);
        assert_eq!((facts.lag, facts.pending), (Some(2), 3));
        last = now;
    }
    assert_eq!(app.calls("xinfo|stream"), 0);
}

/// How large an entry is is known only when it was copied, so small ones say nothing of the next.
#[tokio::test]
async fn large_entries_behind_small_ones_are_copied_a_few_at_once() {
    let app = App::start().await;
    let add = |key: &str, payload: &str| {
        let fields = ["type", "order.placed", "sj-dead-error", "no", "data", payload];
        app.server.command(&[&["XADD", key, "*"], &fields[..]].concat());
    };
    let large = "x".repeat(1_000_000);
    (0..63).for_each(|_| add("orders", "small"));
    (0..50).for_each(|_| add("orders", &large));
    add("{orders}:dead:work", "small");
    (0..20).for_each(|_| add("{orders}:dead:work", &large));
    let (store, queue) = (streamjobs::__store::of(&app.client), queue());
    store.prepare(&queue, Start::End).await.unwrap();
    let facts = store.group_facts(&queue).await.unwrap();
    assert!((2..=6).contains(&facts.new_dead_letters), "{}", facts.new_dead_letters);
    assert_eq!(facts.dead_letters, Some(21));
    let stream = app.client.stream("orders").unwrap();
    let page = stream.previews(.., 1_000, 100).await.unwrap();
    // Eight megabytes, and a page more at most.
    let shown = page.entries.len();
    assert!((64..63 + 9 + 8).contains(&shown) && page.more_after.is_some(), "{shown}");
}

fn queue() -> Queue {
    Queue { stream: StreamName::new("orders").unwrap(), group: GroupName::new("work").unwrap() }
}
