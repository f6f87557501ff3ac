//! Large payloads on a slow link, or at a limit of the server: leases are renewed, and all is settled.

use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::TryStreamExt;
use streamjobs::{Backoff, Client, EntryId, JobError, Runtime, handlers};
use streamjobs_tests::proxy::{FaultProxy, Mode};
use tokio::time::{Instant, sleep_until};

use crate::app::{App, Order, Work, options, order, quick, work};

fn large(id: usize, bytes: usize) -> Order {
    Order { id: id.to_string(), customer: "x".repeat(bytes) }
}

#[tokio::test]
async fn jobs_keep_their_leases_while_large_payloads_are_on_their_way() {
    let app = App::start().await;
    let proxy = FaultProxy::start(&app.server).unwrap();
    let lease = Duration::from_millis(1_500);
    // Two healthy jobs of three leases beside sixteen that fail at once.
    let mixed = Work::new(move |order, _| async move {
        if !order.customer.starts_with('x') {
            sleep_until(Instant::now() + lease * 3).await;
            return Ok(());
        }
        Err(JobError::retry("not now"))
    });
    let client = Client::connect(proxy.url()).await.unwrap();
    let slots = options().lease(lease).concurrency(NonZeroU32::new(18).unwrap());
    let slots = slots.max_attempts(NonZeroU32::new(2).unwrap());
    let slots = slots.backoff(Backoff::fixed(Duration::from_millis(20)));
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(mixed.clone());
    let runtime = quick(builder.group("work", slots)).start().await.unwrap();
    proxy.set(Mode::Limit(2_500_000));
    for id in 0..2 {
        app.client.publish(&order(format!("healthy {id}"))).await.unwrap();
    }
    mixed.wait_for(2).await;
    for id in 0..16 {
        app.client.publish(&large(id, 300_000)).await.unwrap();
    }
    app.drained("work").await;
    let counters = runtime.counters();
    assert_eq!((counters.leases_lost, counters.claimed), (0, 0), "{counters:?}");
    assert_eq!(mixed.count(), 2 + 16 * 2, "each healthy job ran once");
    assert_eq!(app.server.length("{orders}:dead:work"), 16);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_read_that_is_too_large_for_the_server_is_made_smaller() {
    let app = App::start().await;
    let fine = Work::fine();
    for id in 0..16 {
        app.client.publish(&large(id, 350_000)).await.unwrap();
    }
    app.server.command(&["CONFIG", "SET", "client-output-buffer-limit", "normal 1mb 1mb 1"]);
    let runtime = app.runtime(&fine).start().await.unwrap();
    app.drained("work").await;
    assert_eq!(fine.distinct(), 16);
    let _ = runtime.shutdown().await;
}

/// A megabit a second: what is ahead of the small event takes longer than a small request may.
#[tokio::test]
async fn a_small_event_behind_large_ones_on_a_slow_link_is_stored_and_the_connection_stays() {
    let app = App::start().await;
    let proxy = FaultProxy::start(&app.server).unwrap();
    let client = Client::connect(proxy.url()).await.unwrap();
    client.publish(&order("first")).await.unwrap();
    let ours = || {
        let clients = app.server.client_list().into_iter();
        clients.filter(|row| row.name == "streamjobs").map(|row| row.id).collect::<Vec<_>>()
    };
    let connected = ours();
    proxy.set(Mode::Limit(125_000));
    let (ahead, small) = (large(0, 350_000), order("small"));
    let (one, other) = tokio::join!(client.publish(&ahead), client.publish(&small));
    one.unwrap();
    other.unwrap();
    assert_eq!(ours(), connected, "no connection was opened");
    assert_eq!(app.server.length("orders"), 3);
}

#[tokio::test]
async fn a_tail_and_a_replay_read_less_at_once_where_the_server_limits_answers() {
    let app = App::start().await;
    for id in 0..60 {
        app.client.publish(&large(id, 200_000)).await.unwrap();
    }
    app.server.command(&["CONFIG", "SET", "client-output-buffer-limit", "normal 4mb 4mb 1"]);
    let stream = app.client.stream("orders").unwrap();
    let all = stream.replay(..).map_ok(|entry| entry.address()).try_collect::<Vec<_>>().await;
    let all = all.unwrap();
    assert_eq!(all.len(), 60);
    let mut tail = stream.tail_after(EntryId::ZERO).await.unwrap();
    for expected in all {
        assert_eq!(tail.next().await.unwrap().address(), expected);
    }
}
