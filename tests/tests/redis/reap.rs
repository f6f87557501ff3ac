use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::app::{App, DEADLINE, Gate, LEASE, Work, options, order, settled, until};

/// Delivers entries to a consumer that is gone, as a process does that dies with jobs in flight.
fn deliver_to_the_dead(app: &App, count: usize) {
    // The group may be there.
    let _exists = app
        .server
        .try_query::<redis::Value>(&["XGROUP", "CREATE", "orders", "work", "0", "MKSTREAM"]);
    let count = count.to_string();
    app.server.command(&[
        "XREADGROUP",
        "GROUP",
        "work",
        "dead",
        "COUNT",
        &count,
        "STREAMS",
        "orders",
        ">",
    ]);
}

#[tokio::test]
async fn entries_of_a_dead_process_are_done_without_anybody_asking() {
    let app = App::start().await;
    app.publish(20).await;
    deliver_to_the_dead(&app, 20);
    let counted = Work::fine();
    let runtime = app.runtime(&counted).start().await.unwrap();
    app.drained("work").await;
    assert_eq!((counted.count(), counted.distinct()), (20, 20));
    assert!(
        counted.runs().iter().all(|run| run.attempt == 1 && run.delivery_count == 2 && !run.first)
    );
    assert_eq!(runtime.counters().claimed, 20);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn no_more_is_claimed_than_there_are_slots_so_nothing_runs_twice() {
    let app = App::start().await;
    app.publish(300).await;
    deliver_to_the_dead(&app, 300);
    let slow = Work::new(|_, _| async {
        sleep_until(Instant::now() + Duration::from_millis(25)).await;
        Ok(())
    });
    let ten = options().lease(Duration::from_secs(1)).concurrency(NonZeroU32::new(10).unwrap());
    let one = app.bare(&slow).group("work", ten).start().await.unwrap();
    let two = app.bare(&slow).group("work", ten).start().await.unwrap();
    app.drained("work").await;
    assert_eq!((slow.count(), slow.distinct()), (300, 300));
    let _ = (one.shutdown().await, two.shutdown().await);
}

#[tokio::test]
async fn an_old_entry_behind_twenty_thousand_fresh_ones_is_found() {
    let app = App::start().await;
    app.publish(20_000).await;
    app.client.publish(&order("old")).await.unwrap();
    deliver_to_the_dead(&app, 20_001);
    let old = app.server.entries("orders").pop().unwrap().id;
    app.server.age("orders", "work", &old, Duration::from_secs(3600));
    let counted = Work::fine();
    // The lease is longer than the test, so that only the one entry is old enough.
    let runtime = app.bare(&counted).group("work", options().lease(Duration::from_secs(60)));
    let runtime = runtime.start().await.unwrap();
    // A release makes the reaper scan without waiting for its interval.
    let nudge = || app.server.command(&["HINCRBY", "{orders}:group:work", "released", "1"]);
    until(DEADLINE, "found", || {
        nudge();
        counted.count() == 1
    })
    .await;
    assert_eq!(counted.runs()[0].order, "old");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn fresh_work_keeps_flowing_while_a_dead_process_is_cleaned_up() {
    let app = App::start().await;
    app.publish(50).await;
    deliver_to_the_dead(&app, 50);
    let counted = Work::fine();
    let runtime = app.runtime(&counted).start().await.unwrap();
    let fresh = (1_000..1_500).map(order).collect::<Vec<_>>();
    app.client.publish_all(&fresh).await;
    app.drained("work").await;
    assert_eq!((counted.count(), counted.distinct()), (550, 550));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn dead_entries_are_claimed_even_while_every_slot_is_in_demand() {
    let app = App::start().await;
    app.publish(4).await;
    deliver_to_the_dead(&app, 4);
    let steady = Work::new(|_, _| async {
        sleep_until(Instant::now() + Duration::from_millis(2)).await;
        Ok(())
    });
    let two = options().concurrency(NonZeroU32::new(2).unwrap());
    let backlog = (1_000..6_000).map(order).collect::<Vec<_>>();
    app.client.publish_all(&backlog).await;
    let runtime = app.bare(&steady).group("work", two).start().await.unwrap();
    until(DEADLINE, "all four claimed", || runtime.counters().claimed == 4).await;
    assert!(steady.count() < 5_000, "there was still a backlog");
    drop(runtime);
}

#[tokio::test]
async fn an_entry_in_flight_here_is_not_run_again_when_it_is_delivered_again() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.runtime(&gated).start().await.unwrap();
    let id = app.client.publish(&order(1)).await.unwrap().entry_id.to_string();
    gated.wait_for(1).await;
    // The entry seems idle to the reaper of its own process, as it does when renewals fail.
    until(DEADLINE, "delivered again", || {
        app.server.age("orders", "work", &id, Duration::from_secs(60));
        runtime.counters().delivered_again > 0
    })
    .await;
    assert_eq!(gated.count(), 1);
    gate.open();
    app.drained("work").await;
    settled(&runtime).await;
    assert_eq!(
        (gated.count(), runtime.counters().succeeded, runtime.counters().leases_lost),
        (1, 1, 0)
    );
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn recovery_comes_within_lease_claim_interval_and_a_second() {
    let app = App::start().await;
    app.publish(5).await;
    let counted = Work::fine();
    let runtime = app.runtime(&counted).start().await.unwrap();
    app.drained("work").await;
    app.client.publish_all(&(10..15).map(order).collect::<Vec<_>>()).await;
    drop(runtime);
    let fresh = Work::fine();
    let started = Instant::now();
    app.publish(10).await;
    deliver_to_the_dead(&app, 100);
    let dead = app.pending("work");
    let runtime = app.runtime(&fresh).start().await.unwrap();
    fresh.wait_for(dead).await;
    let bound = LEASE + LEASE.mul_f64(0.4) + Duration::from_secs(1);
    assert!(started.elapsed() < bound + Duration::from_millis(500), "took {:?}", started.elapsed());
    let _ = runtime.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_does_not_claim_what_it_still_works_on_without_a_lease() {
    let app = App::start().await;
    let (release, blocked) = std::sync::mpsc::sync_channel::<()>(0);
    let blocked = std::sync::Arc::new(std::sync::Mutex::new(blocked));
    // It blocks its thread, so nothing can end it when its lease is lost.
    let deaf = Work::new(move |_, job| {
        let blocked = blocked.clone();
        async move {
            if job.delivery_count() == 1 {
                let _released = blocked.lock().unwrap().recv();
                return Err("too late".into());
            }
            Ok(())
        }
    });
    let runtime = app.runtime(&deaf).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    deaf.wait_for(1).await;
    app.server.freeze();
    until(DEADLINE, "its lease is lost", || runtime.counters().leases_lost == 1).await;
    app.server.thaw();
    // Whatever claims it, or renews it, would make it young again.
    let idle = || app.server.pending("orders", "work")[0].idle;
    until(DEADLINE, "swept again and again", || idle() > LEASE * 3).await;
    let pending = app.server.pending("orders", "work");
    assert_eq!((pending.len(), pending[0].deliveries), (1, 1), "no delivery is counted meanwhile");
    assert_eq!((deaf.count(), runtime.counters().claimed), (1, 0));
    drop(release);
    deaf.wait_for(2).await;
    app.drained("work").await;
    settled(&runtime).await;
    assert_eq!((deaf.count(), runtime.counters().claimed), (2, 1));
    let _ = runtime.shutdown().await;
}
