use std::time::Duration;

use crate::app::{App, DEADLINE, Gate, Work, options, order, until};

#[tokio::test]
async fn two_starters_of_one_group_both_succeed() {
    let app = App::start().await;
    let fine = Work::fine();
    let (one, two) = tokio::join!(app.runtime(&fine).start(), app.runtime(&fine).start());
    let (one, two) = (one.unwrap(), two.unwrap());
    app.publish(10).await;
    app.drained("work").await;
    assert_eq!(fine.count(), 10);
    let _ = (one.shutdown().await, two.shutdown().await);
}

#[tokio::test]
async fn a_flushed_server_gets_its_groups_back_and_loses_nothing_published_after() {
    let app = App::start().await;
    let fine = Work::fine();
    let runtime = app.runtime(&fine).start().await.unwrap();
    app.publish(5).await;
    app.drained("work").await;
    app.server.command(&["FLUSHALL"]);
    app.client.publish_all(&(10..15).map(order).collect::<Vec<_>>()).await;
    fine.wait_for(10).await;
    app.drained("work").await;
    assert_eq!((fine.count(), fine.distinct()), (10, 10));
    let counters = runtime.counters();
    assert!(counters.groups_recreated >= 1 && counters.server_errors < 20, "{counters:?}");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_deleted_stream_under_a_waiting_reader_is_no_tight_loop() {
    let app = App::start().await;
    let fine = Work::fine();
    let runtime = app.runtime(&fine).start().await.unwrap();
    app.publish(1).await;
    app.drained("work").await;
    for round in 1..=3 {
        app.server.command(&["DEL", "orders"]);
        app.client.publish(&order(format!("after {round}"))).await.unwrap();
        fine.wait_for(1 + round).await;
    }
    let counters = runtime.counters();
    assert!(counters.server_errors < 30, "{counters:?}");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_destroyed_group_is_made_again_at_its_durable_floor() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = {
        let gate = gate.clone();
        Work::new(move |order, _| {
            let gate = gate.clone();
            async move {
                if order.id == "held" {
                    gate.passed().await;
                }
                Ok(())
            }
        })
    };
    let runtime = app.runtime(&gated).start().await.unwrap();
    app.publish(100).await;
    app.drained("work").await;
    let cursor = app.cursor("work");
    let floor = || {
        let stored = app.server.command(&["HGET", "{orders}:group:work", "floor"]);
        redis::from_redis_value::<Option<String>>(stored).unwrap().unwrap_or_default()
    };
    until(DEADLINE, "the floor is recorded", || floor() == cursor).await;
    app.server.command(&["XGROUP", "DESTROY", "orders", "work"]);
    app.client.publish(&order("later")).await.unwrap();
    gated.wait_for(101).await;
    app.drained("work").await;
    assert_eq!(gated.count(), 101, "what was done for certain is not done again");
    assert_eq!(runtime.counters().groups_recreated, 1);
    gate.open();
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_running_handler_finishes_in_peace_when_its_group_is_lost() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.runtime(&gated).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    gated.wait_for(1).await;
    app.server.command(&["FLUSHALL"]);
    until(DEADLINE, "restored", || runtime.counters().groups_recreated == 1).await;
    // A whole lease of renewals later the handler still runs.
    let renewals = app.calls("xclaim") + app.calls("time");
    until(DEADLINE, "renewal ticks", || app.calls("xclaim") + app.calls("time") > renewals + 12)
        .await;
    gate.open();
    until(DEADLINE, "finished", || runtime.counters().succeeded == 1).await;
    assert_eq!((runtime.counters().leases_lost, gated.count()), (0, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_stream_made_again_by_a_producer_without_the_group_loses_nothing() {
    let app = App::start().await;
    let fine = Work::fine();
    let runtime = app.runtime(&fine).start().await.unwrap();
    app.publish(1).await;
    app.drained("work").await;
    app.server.command(&["FLUSHALL"]);
    // The producer is quicker than the reader.
    let mut again = redis::pipe();
    again.atomic().cmd("FLUSHALL").ignore();
    for id in ["a", "b", "c"] {
        again.cmd("XADD").arg("orders").arg("*").arg("type").arg("order.placed").arg("id").arg(id);
        again.arg("customer").arg("x").ignore();
    }
    app.run_pipeline(&again);
    fine.wait_for(4).await;
    app.drained("work").await;
    assert_eq!(fine.distinct(), 4);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn dead_names_go_when_they_hold_nothing_and_live_ones_stay_on_a_quiet_stream() {
    let app = App::start().await;
    let fine = Work::fine();
    let idle = app.runtime(&fine).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    app.drained("work").await;
    for number in 0..1_000 {
        let name = format!("dead-{number}");
        app.server.command(&["XGROUP", "CREATECONSUMER", "orders", "work", &name]);
        // They were last heard of long ago.
        app.server.command(&["HSET", "{orders}:group:work", &format!("beat:{name}"), "1"]);
    }
    let busy = app.client.publish(&order("held by the dead")).await.unwrap();
    fine.wait_for(2).await;
    app.drained("work").await;
    let consumers = || -> Vec<String> {
        let rows: Vec<std::collections::HashMap<String, redis::Value>> =
            redis::from_redis_value(app.server.command(&["XINFO", "CONSUMERS", "orders", "work"]))
                .unwrap();
        rows.into_iter().map(|row| redis::from_redis_value(row["name"].clone()).unwrap()).collect()
    };
    until(DEADLINE, "the dead are gone", || consumers().len() == 1).await;
    assert_eq!(consumers(), [idle.consumer().to_string()]);
    until(DEADLINE, "counted", || idle.counters().consumers_retired == 1_000).await;
    assert_ne!(busy.entry_id.milliseconds(), 0);
    let _ = idle.shutdown().await;
}

#[tokio::test]
async fn a_consumer_with_pending_entries_is_never_removed() {
    let app = App::start().await;
    app.publish(3).await;
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0"]);
    app.server.command(&["XREADGROUP", "GROUP", "work", "dead", "STREAMS", "orders", ">"]);
    app.server.command(&["HSET", "{orders}:group:work", "beat:dead", "1"]);
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    // A lease longer than the test: the dead one's entries are not claimed, so it has to stay.
    let long = options().lease(Duration::from_secs(3600));
    let runtime = app.bare(&gated).group("work", long).start().await.unwrap();
    let heartbeats = || app.calls("hset");
    let before = heartbeats();
    until(DEADLINE, "the next heartbeat", || heartbeats() > before + 3).await;
    assert_eq!(
        app.server.pending("orders", "work").iter().filter(|row| row.consumer == "dead").count(),
        3
    );
    drop(runtime);
}
