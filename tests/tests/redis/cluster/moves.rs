//! Slots that move from one master to another.

use std::time::Duration;

use streamjobs::Client;
use streamjobs_tests::server::RedisCluster;
use tokio::time::{Instant, sleep_until};

use super::{App, LEASE, other_master};
use crate::app::{DEADLINE, Order, Work, order, until};

/// In each state of a slot that is moved by hand, jobs are published, done and acknowledged: before its
/// keys are moved, when some of them are on either node, when all are on the new one, and after.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_moved_step_by_step_costs_no_job_its_lease() {
    let slow = Work::new(|_, _| async {
        sleep_until(Instant::now() + Duration::from_millis(5)).await;
        Ok(())
    });
    let app = App::start(RedisCluster::start().unwrap(), slow).await;
    let (slot, mut published) = (RedisCluster::slot("orders"), 0);
    let to = other_master(&app.cluster, "orders");
    let step = async |published: &mut usize| {
        for id in *published..*published + 10 {
            app.publish("orders", id).await;
        }
        *published += 10;
    };
    step(&mut published).await;
    app.cluster.begin_migration(slot, to);
    step(&mut published).await;
    app.cluster.move_keys(slot, to);
    step(&mut published).await;
    // Jobs that are done while the slot is on its way.
    until(DEADLINE, "done on the way", || app.work.distinct() >= published).await;
    app.cluster.end_migration(slot, to);
    step(&mut published).await;
    app.done(published).await;
    assert_eq!(to.length("orders"), published);
    app.all_ran_once(published);
    app.stop().await;
}

/// Jobs of two leases run while their slot moves away and back, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_back_and_forth_loses_no_lease_and_no_group() {
    let long = Work::new(|order: Order, _| async move {
        let wait = if order.id.ends_with('0') { 6_000 } else { 20 };
        sleep_until(Instant::now() + Duration::from_millis(wait)).await;
        Ok(())
    });
    let app = App::start(RedisCluster::start().unwrap(), long).await;
    let slot = RedisCluster::slot("orders");
    for round in 0..8 {
        let to = other_master(&app.cluster, "orders");
        app.cluster.begin_migration(slot, to);
        for id in round * 5..round * 5 + 5 {
            app.publish("orders", id).await;
        }
        app.cluster.move_keys(slot, to);
        app.publish("bills", round).await;
        app.cluster.end_migration(slot, to);
        until(DEADLINE, "some are done", || app.work.distinct() > round * 5).await;
    }
    app.done(48).await;
    app.all_ran_once(48);
    app.stop().await;
}

/// Most queues have no dead letters, and while the slot is on its way, scripts that name a key that does
/// not exist are refused.
#[tokio::test(flavor = "multi_thread")]
async fn leases_last_while_a_slot_is_on_its_way_for_longer_than_a_lease() {
    let long = Work::new(|_, _| async {
        sleep_until(Instant::now() + LEASE + Duration::from_secs(1)).await;
        Ok(())
    });
    let app = App::start(RedisCluster::start().unwrap(), long).await;
    let (slot, to) = (RedisCluster::slot("orders"), other_master(&app.cluster, "orders"));
    let five = async |first: usize| {
        for id in first..first + 5 {
            app.publish("orders", id).await;
        }
        until(DEADLINE, "started", || app.work.distinct() == first + 5).await;
    };
    five(0).await;
    app.cluster.begin_migration(slot, to);
    let is_done = |done: u64| app.runtime.counters().succeeded == done;
    until(DEADLINE, "done on the old node", || is_done(5)).await;
    five(5).await;
    app.cluster.move_keys(slot, to);
    until(DEADLINE, "done on the new node", || is_done(10)).await;
    app.cluster.end_migration(slot, to);
    five(10).await;
    app.done(15).await;
    app.all_ran_once(15);
    app.stop().await;
}

/// The server says neither that the key is elsewhere nor to try again: only, at the end, that it has
/// moved.
#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_in_one_step_are_followed() {
    let app = App::start(RedisCluster::start().unwrap(), Work::fine()).await;
    let slot = RedisCluster::slot("orders");
    for round in 0..4 {
        let to = other_master(&app.cluster, "orders");
        if app.cluster.migrate_atomically(slot..=slot, to).is_none() {
            println!("this server moves slots key by key only");
            break;
        }
        for id in round * 5..round * 5 + 5 {
            app.publish("orders", id).await;
        }
        app.done(round * 5 + 5).await;
        app.all_ran_once(round * 5 + 5);
    }
    app.stop().await;
}

/// Chunks of a batch are on their way to the old node when the slot moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_stored_once_and_in_order_while_its_slot_moves() {
    let cluster = RedisCluster::start().unwrap();
    let client = Client::connect(&cluster.url()).await.unwrap();
    let orders = (0..20_000).map(order).collect::<Vec<_>>();
    client.publish(&order("first")).await.unwrap();
    let slot = RedisCluster::slot("orders");
    let publishing = client.publish_all(&orders);
    let moving = async {
        tokio::task::yield_now().await;
        tokio::task::block_in_place(|| {
            let to = other_master(&cluster, "orders");
            cluster.migrate(slot, to);
        });
    };
    let (answers, ()) = tokio::join!(publishing, moving);
    let refused = answers.iter().filter(|answer| answer.is_err()).count();
    assert_eq!(refused, 0, "{:?}", answers.iter().find(|answer| answer.is_err()));
    let entries = cluster.master_of(slot).entries("orders");
    let stored = entries.iter().skip(1).map(|entry| entry.text("data").unwrap());
    let expected = orders.iter().map(|order| serde_json::to_string(order).unwrap());
    assert!(stored.eq(expected), "stored once each, in order");
}
