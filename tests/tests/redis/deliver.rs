use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::{Duration, UNIX_EPOCH};

use streamjobs::config::{GroupOptions, Start};
use streamjobs::{Entry, EntryId, Runtime, State, handler, handlers};

use crate::app::{App, DEADLINE, Gate, Work, both, options, order, quick, settled, until, work};

#[tokio::test]
async fn every_group_gets_every_event_once() {
    let app = App::start().await;
    let (one, two) = (Work::fine(), Work::fine());
    let runtime = both(&app, &one, &two).start().await.unwrap();
    app.publish(100).await;
    app.drained("work").await;
    app.drained("other").await;
    assert_eq!((one.count(), one.distinct()), (100, 100));
    assert_eq!((two.count(), two.distinct()), (100, 100));
    assert_eq!(app.server.length("orders"), 100, "acknowledged entries stay for replay");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn processes_of_one_group_share_its_jobs_without_coordination() {
    let app = App::start().await;
    let shared = Work::new(|_, _| async {
        tokio::task::yield_now().await;
        Ok(())
    });
    let few = options().concurrency(NonZeroU32::new(4).unwrap());
    let one = app.bare(&shared).group("work", few).start().await.unwrap();
    let two = app.bare(&shared).group("work", few).start().await.unwrap();
    app.publish(1_000).await;
    app.drained("work").await;
    let consumers = shared.runs().into_iter().map(|run| run.consumer).collect::<HashSet<_>>();
    assert_eq!((shared.count(), shared.distinct(), consumers.len()), (1_000, 1_000, 2));
    let _ = (one.shutdown().await, two.shutdown().await);
}

#[tokio::test]
async fn a_job_is_acknowledged_only_after_its_handler_returned() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.runtime(&gated).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    gated.wait_for(1).await;
    assert_eq!(app.pending("work"), 1);
    assert_eq!(app.calls("xack"), 0);
    gate.open();
    app.drained("work").await;
    settled(&runtime).await;
    assert_eq!(runtime.counters().acknowledged, 1);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_job_knows_the_clock_of_its_server() {
    let app = App::start().await;
    let (seen, mut times) = tokio::sync::mpsc::channel(4);
    let looking = Work::new(move |_, job| {
        let seen = seen.clone();
        async move {
            seen.send(job.now()).await.unwrap();
            Ok(())
        }
    });
    let runtime = app.runtime(&looking).start().await.unwrap();
    let stored = app.client.publish(&order(1)).await.unwrap().entry_id.milliseconds();
    let told = times.recv().await.unwrap().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let after = app.client.publish(&order(2)).await.unwrap().entry_id.milliseconds();
    let (told, error) = (u64::try_from(told).unwrap(), 20);
    assert!(stored - error <= told && told <= after + error, "{stored} {told} {after}");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_handler_learns_who_and_what_it_is() {
    let app = App::start().await;
    let (seen, mut jobs) = tokio::sync::mpsc::channel(4);
    let looking = Work::new(move |_, job| {
        let seen = seen.clone();
        async move {
            seen.send(job).await.unwrap();
            Ok(())
        }
    });
    let runtime = app.runtime(&looking).start().await.unwrap();
    let published = app.client.publish(&order(1)).await.unwrap();
    let job = jobs.recv().await.unwrap();
    assert_eq!((job.entry_id(), job.event_id()), (published.entry_id, &published.event_id));
    assert_eq!((job.stream().as_str(), job.group().as_str()), ("orders", "work"));
    assert_eq!((job.attempt(), job.delivery_count(), job.is_first_delivery()), (1, 1, true));
    assert_eq!(job.consumer(), runtime.consumer());
    assert!(!job.lease_lost() && job.deadline().is_none() && job.origin().is_none());
    job.client().publish(&order(2)).await.unwrap();
    jobs.recv().await.unwrap();
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_group_begins_where_its_start_says_and_then_keeps_its_own_place() {
    for (start, expected) in
        [(Start::Beginning, 3), (Start::End, 1), (Start::After(EntryId::ZERO), 3)]
    {
        let app = App::start().await;
        app.publish(2).await;
        let counted = Work::fine();
        let runtime =
            app.bare(&counted).group("work", options().start(start)).start().await.unwrap();
        app.client.publish(&order("later")).await.unwrap();
        app.drained("work").await;
        assert_eq!(counted.count(), expected, "{start:?}");
        let _ = runtime.shutdown().await;
        // Another start of the group changes nothing for it.
        let again = Work::fine();
        let runtime = app
            .bare(&again)
            .group("work", options().start(Start::Beginning))
            .start()
            .await
            .unwrap();
        app.client.publish(&order("last")).await.unwrap();
        app.drained("work").await;
        assert_eq!(again.count(), 1, "{start:?}");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_start_after_an_entry_skips_it_and_what_came_before() {
    let app = App::start().await;
    app.publish(2).await;
    let second = app.client.publish(&order("second")).await.unwrap().entry_id;
    app.client.publish(&order("third")).await.unwrap();
    let counted = Work::fine();
    let runtime = app
        .bare(&counted)
        .group("work", options().start(Start::After(second)))
        .start()
        .await
        .unwrap();
    app.drained("work").await;
    assert_eq!(counted.runs().iter().map(|run| run.order.as_str()).collect::<Vec<_>>(), ["third"]);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn looking_at_the_history_changes_nothing_for_a_group() {
    let app = App::start().await;
    let counted = Work::fine();
    let runtime = app.runtime(&counted).start().await.unwrap();
    app.publish(5).await;
    app.drained("work").await;
    let cursor = app.cursor("work");
    assert_eq!(app.server.entries("orders").len(), 5);
    app.server.command(&["XREAD", "COUNT", "5", "STREAMS", "orders", "0"]);
    assert_eq!((app.cursor("work"), app.pending("work"), counted.count()), (cursor, 0, 5));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_saturated_group_does_not_delay_another_one() {
    let app = App::start().await;
    let gate = Gate::default();
    let (stuck, free) = (Work::gated(&gate), Work::fine());
    let runtime = both(&app, &stuck, &free).start().await.unwrap();
    app.publish(200).await;
    app.drained("other").await;
    assert_eq!((free.count(), stuck.count()), (200, 16), "one group has all its slots taken");
    gate.open();
    app.drained("work").await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_process_never_holds_more_than_it_has_slots() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let three = options().concurrency(NonZeroU32::new(3).unwrap());
    let runtime = app.bare(&gated).group("work", three).start().await.unwrap();
    app.publish(50).await;
    gated.wait_for(3).await;
    assert_eq!((app.pending("work"), gated.count()), (3, 3));
    gate.open();
    app.drained("work").await;
    assert_eq!(gated.count(), 50);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn one_connection_waits_for_each_group_and_one_does_the_rest() {
    let app = App::start().await;
    let before = app.connections();
    let (one, two) = (Work::fine(), Work::fine());
    let runtime = both(&app, &one, &two).start().await.unwrap();
    app.publish(10).await;
    app.drained("work").await;
    app.drained("other").await;
    assert_eq!(app.connections() - before, 3, "two readers and one for everything else");
    let _ = runtime.shutdown().await;
    until(DEADLINE, "connections closed", || app.connections() == before).await;
}

#[tokio::test]
async fn an_acknowledgement_does_not_wait_behind_a_blocked_read() {
    let app = App::start().await;
    let counted = Work::fine();
    let runtime = app.bare(&counted).group("work", options().lease(Duration::from_secs(30)));
    let runtime = runtime.block(Duration::from_secs(10)).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    counted.wait_for(1).await;
    // The reader is waiting again by now or soon; the entry is gone long before its wait ends.
    let acknowledged = until(Duration::from_secs(5), "acknowledged", || app.pending("work") == 0);
    acknowledged.await;
    settled(&runtime).await;
    assert_eq!(runtime.counters().acknowledged, 1);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn every_start_has_a_name_of_its_own_even_with_an_equal_prefix() {
    let app = App::start().await;
    let counted = Work::fine();
    let one = app.runtime(&counted).consumer_prefix("web").start().await.unwrap();
    let two = app.runtime(&counted).consumer_prefix("web").start().await.unwrap();
    assert!(
        one.consumer().as_str().starts_with("web-") && two.consumer().as_str().starts_with("web-")
    );
    assert_ne!(one.consumer(), two.consumer());
    let _ = (one.shutdown().await, two.shutdown().await);
}

#[tokio::test]
async fn a_handler_of_one_stream_can_read_a_stream_for_each_tenant() {
    let app = App::start().await;
    let counted = Work::fine();
    let keys = ["orders:{acme}", "orders:{globex}"];
    let runtime = app.runtime(&counted).read_keys("orders", keys).start().await.unwrap();
    for (number, key) in keys.into_iter().enumerate() {
        let stream = streamjobs::StreamName::new(key).unwrap();
        app.client
            .publish_to(&stream, &order(number), streamjobs::EventId::generate())
            .await
            .unwrap();
    }
    counted.wait_for(2).await;
    until(DEADLINE, "both acknowledged", || runtime.counters().acknowledged == 2).await;
    assert_eq!(app.number(&["EXISTS", "orders"]), 0, "the declared stream itself is not touched");
    assert_eq!(
        app.number(&["EXISTS", "orders:{acme}:group:work"]),
        1,
        "helper keys share the slot"
    );
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_deployment_can_run_the_pool_of_one_group() {
    let app = App::start().await;
    let counted = Work::fine();
    let builder = Runtime::builder(&app.client).handlers(handlers![work, crate::app::other]);
    let runtime =
        quick(builder.state(counted.clone())).only_groups(["work"]).start().await.unwrap();
    app.publish(3).await;
    app.drained("work").await;
    let groups: Vec<redis::Value> =
        redis::from_redis_value(app.server.command(&["XINFO", "GROUPS", "orders"])).unwrap();
    assert_eq!((counted.count(), groups.len()), (3, 1));
    let _ = runtime.shutdown().await;
}

#[derive(Clone)]
struct Entries(tokio::sync::mpsc::Sender<Entry>);

#[handler(group = "audit", stream = "orders")]
async fn audit(entry: Entry, State(seen): State<Entries>) {
    let _closed = seen.0.send(entry).await.is_err();
}

#[tokio::test]
async fn a_raw_handler_takes_whatever_the_stream_carries() {
    let app = App::start().await;
    let (seen, mut entries) = tokio::sync::mpsc::channel(4);
    let builder = Runtime::builder(&app.client).handlers(handlers![audit]).state(Entries(seen));
    let runtime = quick(builder).start().await.unwrap();
    app.server.command(&["XADD", "orders", "*", "a", "1", "a", "2"]);
    let entry = entries.recv().await.unwrap();
    let fields =
        entry.fields().iter().map(|(name, value)| (&name[..], &value[..])).collect::<Vec<_>>();
    assert_eq!(fields, [(&b"a"[..], &b"1"[..]), (b"a", b"2")], "order and repeated names are kept");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_entry_of_another_client_runs_handlers_under_a_stable_id() {
    let app = App::start().await;
    let flaky =
        Work::new(
            |_, job| async move { if job.attempt() == 1 { Err("again".into()) } else { Ok(()) } },
        );
    let runtime = app.runtime(&flaky).start().await.unwrap();
    app.server.command(&[
        "XADD",
        "orders",
        "*",
        "type",
        "order.placed",
        "ts_ms",
        "17",
        "id",
        "7",
        "customer",
        "bob",
    ]);
    flaky.wait_for(2).await;
    app.drained("work").await;
    let runs = flaky.runs();
    assert_eq!((runs[0].order.as_str(), runs[1].attempt), ("7", 2));
    assert_eq!(runs[0].event_id, runs[1].event_id, "the id survives the retry");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn health_is_green_only_while_the_reading_connection_reads() {
    let app = App::start().await;
    let counted = Work::fine();
    let short = GroupOptions::new().lease(Duration::from_millis(600));
    let runtime = app.bare(&counted).group("work", short).read_margin(Duration::from_millis(150));
    let runtime = runtime.start().await.unwrap();
    until(DEADLINE, "first read", || runtime.health().is_healthy()).await;
    app.server.freeze();
    until(DEADLINE, "red while the server hangs", || !runtime.health().is_healthy()).await;
    app.server.thaw();
    until(DEADLINE, "green again", || runtime.health().is_healthy()).await;
    let queue = &runtime.health().queues[0];
    assert_eq!(
        (queue.stream.as_str(), queue.group.as_str(), queue.in_flight),
        ("orders", "work", 0)
    );
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_slow_job_takes_one_slot_and_delays_no_other_job() {
    let app = App::start().await;
    let gate = Gate::default();
    let held = gate.clone();
    let mixed = Work::new(move |order, _| {
        let held = held.clone();
        async move {
            if order.id == "slow" {
                held.passed().await;
            }
            Ok(())
        }
    });
    let runtime = app.runtime(&mixed).start().await.unwrap();
    app.client.publish(&order("slow")).await.unwrap();
    app.publish(500).await;
    until(DEADLINE, "all others are done", || app.pending("work") == 1 && mixed.count() == 501)
        .await;
    gate.open();
    app.drained("work").await;
    let _ = runtime.shutdown().await;
}
