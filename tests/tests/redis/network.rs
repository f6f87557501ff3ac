use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::{Client, Runtime, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::proxy::{FaultProxy, Mode};
use tokio::time::Instant;

use crate::app::{App, DEADLINE, Gate, Work, options, order, quick, until, work};

/// A runtime that reaches the server through a proxy; the tests reach it directly.
async fn behind_proxy(app: &App, counted: &Work, lease: Duration) -> (FaultProxy, Runtime) {
    reading_for(app, counted, lease, Duration::from_millis(200)).await
}

/// The same, with reads that wait for so long.
async fn reading_for(
    app: &App,
    counted: &Work,
    lease: Duration,
    block: Duration,
) -> (FaultProxy, Runtime) {
    let proxy = FaultProxy::start(&app.server).unwrap();
    let client = Client::connect(proxy.url()).await.unwrap();
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(counted.clone());
    let builder = quick(builder.group("work", options().lease(lease))).block(block);
    let runtime = builder.read_margin(Duration::from_millis(300)).start().await.unwrap();
    app.client.publish(&order("first")).await.unwrap();
    counted.wait_for(1).await;
    app.drained("work").await;
    (proxy, runtime)
}

#[tokio::test]
async fn a_killed_connection_is_opened_again_without_a_busy_loop() {
    let app = App::start().await;
    let counted = Work::fine();
    let (proxy, runtime) = behind_proxy(&app, &counted, Duration::from_millis(600)).await;
    let before = proxy.connections();
    for round in 1..=5 {
        if round % 2 == 0 {
            proxy.sever()
        } else {
            drop(app.server.command(&["CLIENT", "KILL", "TYPE", "normal"]))
        }
        let next = order(format!("round {round}"));
        eventually_async(DEADLINE, "published", async || app.client.publish(&next).await.is_ok())
            .await;
        until(DEADLINE, "read again", || counted.distinct() == 1 + round).await;
        app.drained("work").await;
    }
    // One connection each for reading, for the rest, and for the client, in every round, and a few
    // that met the end of another.
    let attempts = proxy.connections() - before;
    assert!(attempts <= 25, "{attempts} attempts in five rounds");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_lost_reply_to_a_read_costs_neither_a_job_nor_a_delivery() {
    let app = App::start().await;
    let counted = Work::fine();
    // Nothing here waits for the lease: what the lost reply carried is found by asking.
    let (proxy, runtime) = behind_proxy(&app, &counted, Duration::from_secs(60)).await;
    for round in 1..=5 {
        proxy.set(Mode::LoseReply);
        app.client.publish(&order(round)).await.unwrap();
        until(DEADLINE, "delivered, the reply lost", || {
            app.pending("work") > 0 || counted.count() > round
        })
        .await;
        proxy.set(Mode::Pass);
        counted.wait_for(1 + round).await;
        app.drained("work").await;
    }
    assert_eq!((counted.count(), counted.distinct()), (6, 6));
    assert!(counted.runs().iter().all(|run| run.delivery_count == 1), "uncounted");
    assert_eq!(runtime.counters().dead_lettered, 0);
    drop(runtime);
}

#[tokio::test]
async fn a_black_hole_is_noticed_by_the_read_deadline() {
    let app = App::start().await;
    let counted = Work::fine();
    let (proxy, runtime) = behind_proxy(&app, &counted, Duration::from_millis(600)).await;
    let before = runtime.counters().server_errors;
    let from = Instant::now();
    proxy.set(Mode::BlackHole);
    until(DEADLINE, "noticed", || runtime.counters().server_errors > before).await;
    // Block 200 ms, margin 300 ms, and a second for the machine.
    assert!(from.elapsed() < Duration::from_millis(1_500), "noticed after {:?}", from.elapsed());
    until(DEADLINE, "red", || !runtime.health().is_healthy()).await;
    proxy.set(Mode::Pass);
    proxy.sever();
    app.client.publish(&order("second")).await.unwrap();
    counted.wait_for(2).await;
    app.drained("work").await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_read_that_blocks_longer_than_asked_is_given_up_by_our_own_clock() {
    let app = App::start().await;
    let counted = Work::fine();
    let (proxy, runtime) = behind_proxy(&app, &counted, Duration::from_secs(30)).await;
    let before = (runtime.counters().server_errors, proxy.connections());
    let from = Instant::now();
    proxy.set(Mode::HoldReplyTo("XREADGROUP".to_owned()));
    until(DEADLINE, "given up three times", || proxy.connections() >= before.1 + 3).await;
    let rounds = proxy.connections() - before.1;
    // Block and margin are half a second for each, so three cannot come in a burst.
    assert!(from.elapsed() > Duration::from_millis(500), "{rounds} in {:?}", from.elapsed());
    assert!(runtime.counters().server_errors - before.0 <= 10, "no storm of errors");
    proxy.set(Mode::Pass);
    app.client.publish(&order("second")).await.unwrap();
    counted.wait_for(2).await;
    app.drained("work").await;
    assert_eq!((counted.distinct(), runtime.counters().failed), (2, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn what_a_ghost_of_a_lost_connection_received_is_not_lost() {
    let app = App::start().await;
    let counted = Work::fine();
    let (lease, block) = (Duration::from_secs(30), Duration::from_secs(10));
    let (proxy, runtime) = reading_for(&app, &counted, lease, block).await;
    let waiting = || app.server.client_list().iter().any(|client| client.flags.contains('b'));
    until(DEADLINE, "a read waits on the server", waiting).await;
    // The server still serves the waiting read of a connection that no process reads.
    proxy.set(Mode::DropReplies);
    app.client.publish(&order("for the ghost")).await.unwrap();
    until(DEADLINE, "delivered to the ghost", || app.pending("work") == 1).await;
    proxy.set(Mode::Pass);
    proxy.sever();
    counted.wait_for(2).await;
    app.drained("work").await;
    assert_eq!(counted.distinct(), 2);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_reply_cut_at_any_byte_loses_nothing() {
    let app = App::start().await;
    let counted = Work::fine();
    let (proxy, runtime) = behind_proxy(&app, &counted, Duration::from_millis(600)).await;
    for (round, bytes) in (1..300).step_by(13).enumerate() {
        proxy.set(Mode::CutReplies { after: bytes });
        app.client.publish(&order(format!("cut at {bytes}"))).await.unwrap();
        until(DEADLINE, "delivered", || app.undelivered("work") == 0).await;
        proxy.set(Mode::Pass);
        until(DEADLINE, "done", || counted.distinct() == round + 2).await;
    }
    app.drained("work").await;
    assert_eq!(app.server.length("{orders}:dead:work"), 0);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_acknowledgement_whose_reply_is_lost_runs_nothing_again() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = {
        let gate = gate.clone();
        Work::new(move |order, _| {
            let gate = gate.clone();
            async move {
                if order.id == "second" {
                    gate.passed().await;
                }
                Ok(())
            }
        })
    };
    let (proxy, runtime) = behind_proxy(&app, &gated, Duration::from_secs(60)).await;
    app.client.publish(&order("second")).await.unwrap();
    gated.wait_for(2).await;
    proxy.set(Mode::DropReplies);
    gate.open();
    until(DEADLINE, "acknowledged, the reply lost", || app.pending("work") == 0).await;
    proxy.set(Mode::Pass);
    proxy.sever();
    let settled = || runtime.counters().acknowledged + runtime.counters().acknowledged_late == 2;
    until(DEADLINE, "the repeat is answered", settled).await;
    assert_eq!((gated.count(), runtime.counters().failed), (2, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_batch_of_acknowledgements_cut_off_leads_to_redelivery_not_to_loss() {
    let app = App::start().await;
    let counted = Work::fine();
    let (proxy, runtime) = behind_proxy(&app, &counted, Duration::from_millis(600)).await;
    for round in 0..10 {
        let batch = (0..50).map(|number| order(format!("{round}/{number}"))).collect::<Vec<_>>();
        app.client.publish_all(&batch).await;
        proxy.sever();
    }
    until(DEADLINE, "all done", || counted.distinct() == 501).await;
    app.drained("work").await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_slow_network_slows_down_and_loses_no_lease() {
    let app = App::start().await;
    let counted = Work::new(|_, _| async {
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(2)).await;
        Ok(())
    });
    let proxy = FaultProxy::start(&app.server).unwrap();
    let client = Client::connect(proxy.url()).await.unwrap();
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(counted.clone());
    let runtime = quick(builder.group("work", options().lease(Duration::from_millis(1_500))))
        .start()
        .await
        .unwrap();
    proxy.set(Mode::Delay(Duration::from_millis(100)));
    app.publish(8).await;
    app.drained("work").await;
    assert_eq!((counted.count(), runtime.counters().leases_lost), (8, 0));
    let _ = runtime.shutdown().await;
}

/// A job whose payload goes while it runs, and that ends when the server has renewed it and its
/// process has not heard of that yet.
async fn ending_before_the_renewal_is_heard(
    app: &App,
    work: &Work,
    gate: &Gate,
) -> (FaultProxy, Runtime) {
    let proxy = FaultProxy::start(&app.server).unwrap();
    let client = Client::connect(proxy.url()).await.unwrap();
    // The connection that renews is slow. The one that reads is not, and takes acknowledgements
    // along while no slot is free.
    proxy.set_next(1, Mode::Delay(Duration::from_millis(200)));
    let group = options().lease(Duration::from_secs(3)).concurrency(NonZeroU32::MIN);
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(work.clone());
    let runtime = quick(builder.group("work", group)).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    work.wait_for(1).await;
    app.server.command(&["XTRIM", "orders", "MAXLEN", "0"]);
    until(DEADLINE, "noticed", || app.server.length("{orders}:dead:work") == 1).await;
    gate.open();
    (proxy, runtime)
}

#[tokio::test]
async fn a_failure_before_the_renewal_is_heard_is_scheduled_for_retry_with_its_payload() {
    let app = App::start().await;
    let gate = Gate::default();
    let held = gate.clone();
    let flaky = Work::new(move |_, job| {
        let held = held.clone();
        async move {
            held.passed().await;
            if job.attempt() == 1 { Err("once more".into()) } else { Ok(()) }
        }
    });
    let (_proxy, runtime) = ending_before_the_renewal_is_heard(&app, &flaky, &gate).await;
    until(DEADLINE, "tried again", || flaky.count() == 2).await;
    app.drained("work").await;
    until(DEADLINE, "no letter is left", || app.server.length("{orders}:dead:work") == 0).await;
    let counters = runtime.counters();
    assert_eq!((counters.retried, counters.refused_late, counters.trimmed), (1, 0, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_success_before_the_renewal_is_heard_leaves_no_letter() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let (_proxy, runtime) = ending_before_the_renewal_is_heard(&app, &gated, &gate).await;
    until(DEADLINE, "the letter is taken back", || app.server.length("{orders}:dead:work") == 0)
        .await;
    let counters = runtime.counters();
    assert_eq!((gated.count(), counters.succeeded, counters.trimmed), (1, 1, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn what_a_read_brings_after_a_stop_is_released_at_once() {
    let app = App::start().await;
    let counted = Work::fine();
    // A lease far longer than the test: nothing here may wait for it.
    let (lease, block) = (Duration::from_secs(3_600), Duration::from_secs(10));
    let (proxy, runtime) = reading_for(&app, &counted, lease, block).await;
    proxy.set(Mode::HoldReplyTo("XREADGROUP".into()));
    // The read that waits now was sent before; its answer passes, and the next one is held.
    app.client.publish(&order("passes")).await.unwrap();
    counted.wait_for(2).await;
    app.drained("work").await;
    app.client.publish(&order("on its way")).await.unwrap();
    until(DEADLINE, "delivered, and the answer held", || {
        app.pending("work") == 1 && proxy.held() > 0
    })
    .await;
    let woken = app.calls("client|unblock");
    let release = async {
        until(DEADLINE, "the stop has come to the reader", || app.calls("client|unblock") > woken)
            .await;
        proxy.set(Mode::Pass);
    };
    let (report, ()) = tokio::join!(runtime.shutdown(), release);
    assert_eq!((report.released, report.abandoned.len()), (1, 0), "{report:?}");
    let fresh = Work::fine();
    let options = options().lease(lease);
    let staying = app.bare(&fresh).group("work", options).start().await.unwrap();
    fresh.wait_for(1).await;
    assert_eq!(fresh.runs().first().map(|run| run.delivery_count), Some(1), "uncounted");
    let _ = staying.shutdown().await;
}
