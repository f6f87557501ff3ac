use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamjobs::stream::Problem;
use streamjobs::{EntryId, Job, JobError};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::proxy::{FaultProxy, Mode};
use tokio::time::{Instant, sleep_until};

use crate::app::{App, DEADLINE, Gate, LEASE, Work, options, order, until};

/// Keeps a handler busy for a number of leases; the time is the work itself.
async fn busy(leases: u32) {
    sleep_until(Instant::now() + LEASE * leases).await;
}

#[tokio::test]
async fn a_handler_of_twenty_leases_runs_once_beside_four_idle_processes() {
    let app = App::start().await;
    let short = options().lease(Duration::from_millis(300));
    let long = Work::new(|_, _| async {
        sleep_until(Instant::now() + Duration::from_millis(300) * 20).await;
        Ok(())
    });
    let mut runtimes = Vec::new();
    for _ in 0..5 {
        runtimes.push(app.bare(&long).group("work", short).start().await.unwrap());
    }
    app.client.publish(&order(1)).await.unwrap();
    long.wait_for(1).await;
    until(DEADLINE, "seen while it runs", || app.server.pending("orders", "work").len() == 1).await;
    app.drained("work").await;
    assert_eq!(long.count(), 1);
    let counters = runtimes.iter().map(|runtime| runtime.counters());
    let (claimed, lost) =
        counters.fold((0, 0), |sum, next| (sum.0 + next.claimed, sum.1 + next.leases_lost));
    assert_eq!((claimed, lost), (0, 0));
    for runtime in runtimes {
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn renewals_do_not_raise_the_delivery_count() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.runtime(&gated).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    gated.wait_for(1).await;
    // The server's own count of renewals is the event waited for.
    until(DEADLINE, "ten renewals", || app.calls("xclaim") >= 10).await;
    let pending = app.server.pending("orders", "work");
    assert_eq!((pending[0].deliveries, pending[0].idle < LEASE), (1, true));
    gate.open();
    app.drained("work").await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_thousand_handlers_of_five_leases_run_once_each() {
    let app = App::start().await;
    let long = Work::new(|_, _| async {
        busy(5).await;
        Ok(())
    });
    let many = options().concurrency(NonZeroU32::new(1_000).unwrap());
    let one = app.bare(&long).group("work", many).start().await.unwrap();
    let two = app
        .bare(&Work::fine())
        .group("work", many.concurrency(NonZeroU32::MIN))
        .start()
        .await
        .unwrap();
    app.publish(1_000).await;
    app.drained("work").await;
    assert_eq!((one.counters().leases_lost, two.counters().claimed), (0, 0));
    assert_eq!(one.counters().succeeded + two.counters().succeeded, 1_000);
    let _ = (one.shutdown().await, two.shutdown().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_that_block_every_worker_thread_lose_no_lease() {
    let app = App::start().await;
    let blocking = Work::new(|_, _| async {
        let until = std::time::Instant::now() + LEASE * 3;
        let (_never, wait) = std::sync::mpsc::sync_channel::<()>(0);
        let _timeout = wait.recv_timeout(until.duration_since(std::time::Instant::now()));
        Ok(())
    });
    let busy = app.runtime(&blocking).start().await.unwrap();
    app.publish(2).await;
    let (done, drained) = std::sync::mpsc::sync_channel(1);
    // Both worker threads are blocked now and then, so the second process watches from its own.
    let url = app.server.url();
    let watcher = std::thread::spawn(move || {
        let idle = Work::fine();
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        executor.block_on(async {
            let client = streamjobs::Client::connect(&url).await.unwrap();
            let builder = streamjobs::Runtime::builder(&client)
                .handlers(streamjobs::handlers![crate::app::work]);
            let runtime = crate::app::quick(builder.state(idle.clone()).group("work", options()))
                .start()
                .await
                .unwrap();
            while drained.try_recv().is_err() {
                tokio::time::sleep_until(Instant::now() + Duration::from_millis(20)).await;
            }
            let claimed = runtime.counters().claimed;
            let _ = runtime.shutdown().await;
            (claimed, idle.count())
        })
    });
    app.drained("work").await;
    done.send(()).unwrap();
    let (claimed, elsewhere) = watcher.join().unwrap();
    assert_eq!((claimed, blocking.count() + elsewhere, busy.counters().leases_lost), (0, 2, 0));
    let _ = busy.shutdown().await;
}

#[tokio::test]
async fn a_job_that_was_taken_over_is_told_and_nothing_it_does_counts() {
    let app = App::start().await;
    let (told, mut lost) = tokio::sync::mpsc::channel(1);
    let stubborn = Work::new(move |_, job| {
        let told = told.clone();
        async move {
            job.cancelled().cancelled().await;
            told.send(job.lease_lost()).await.unwrap();
            Err("this failure must not count".into())
        }
    });
    let runtime = app.runtime(&stubborn).start().await.unwrap();
    let id = app.client.publish(&order(1)).await.unwrap().entry_id.to_string();
    stubborn.wait_for(1).await;
    app.server.command(&["XCLAIM", "orders", "work", "thief", "0", &id]);
    assert!(lost.recv().await.unwrap(), "the handler learns why");
    until(DEADLINE, "counted", || runtime.counters().leases_lost == 1).await;
    let pending = app.server.pending("orders", "work");
    assert_eq!(
        (pending.len(), pending[0].consumer.as_str(), pending[0].deliveries),
        (1, "thief", 2)
    );
    assert_eq!((app.number(&["ZCARD", "{orders}:retry:work"]), runtime.counters().retried), (0, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_consumer_of_other_software_that_claims_before_a_lease_has_ended_is_named() {
    let app = App::start().await;
    let gate = Gate::default();
    let long = options().lease(Duration::from_secs(3));
    let runtime = app.bare(&Work::gated(&gate)).group("work", long).start().await.unwrap();
    app.publish(2).await;
    until(DEADLINE, "both run", || app.pending("work") == 2).await;
    let rows = app.server.pending("orders", "work");
    let group = app.client.stream("orders").unwrap().group("work").unwrap();
    let problems = async || group.diagnose().await.unwrap().problems;
    // What an operator releases was not taken early.
    let released = group.release([rows[0].id.parse::<EntryId>().unwrap()]).await.unwrap();
    assert_eq!(released.moved.len(), 1);
    until(DEADLINE, "the first is claimed again", || runtime.counters().claimed == 1).await;
    app.server.command(&["XCLAIM", "orders", "work", "peer-7", "0", &rows[1].id]);
    eventually_async(DEADLINE, "diagnose names it", async || {
        let problems = problems().await;
        let named = |problem: &Problem| {
            matches!(problem, Problem::ClaimedEarly { consumer } if consumer == "peer-7")
        };
        assert!(problems.iter().all(named), "and no other: {problems:?}");
        problems.len() == 1
    })
    .await;
    assert_eq!(runtime.counters().leases_lost, 1);
    gate.open();
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_late_success_is_acknowledged_and_counted_as_late() {
    let app = App::start().await;
    let gate = Gate::default();
    let deaf = {
        let gate = gate.clone();
        // A handler that ignores its token until it is done.
        Work::new(move |_, _| {
            let gate = gate.clone();
            async move {
                gate.passed().await;
                Ok(())
            }
        })
    };
    let runtime = app
        .bare(&deaf)
        .group("work", options().lease(Duration::from_secs(60)))
        .start()
        .await
        .unwrap();
    let id = app.client.publish(&order(1)).await.unwrap().entry_id.to_string();
    deaf.wait_for(1).await;
    app.server.command(&["XACK", "orders", "work", &id]);
    gate.open();
    until(DEADLINE, "late", || runtime.counters().acknowledged_late == 1).await;
    assert_eq!(
        (runtime.counters().succeeded, runtime.counters().acknowledged, runtime.counters().failed),
        (1, 0, 0)
    );
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_process_that_cannot_renew_stops_by_its_own_clock_before_others_may_claim() {
    let app = App::start().await;
    let proxy = FaultProxy::start(&app.server).unwrap();
    let client = streamjobs::Client::connect(proxy.url()).await.unwrap();
    let (told, mut lost) = tokio::sync::mpsc::channel(1);
    let cut_off = Work::new(move |_, job| {
        let told = told.clone();
        async move {
            job.cancelled().cancelled().await;
            told.send(Instant::now()).await.unwrap();
            Ok(())
        }
    });
    let lease = Duration::from_secs(2);
    let builder =
        streamjobs::Runtime::builder(&client).handlers(streamjobs::handlers![crate::app::work]);
    let builder = builder.state(cut_off.clone()).group("work", options().lease(lease));
    let runtime = crate::app::quick(builder).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    cut_off.wait_for(1).await;
    let from = Instant::now();
    proxy.set(Mode::BlackHole);
    let stopped = lost.recv().await.unwrap();
    assert!(stopped < from + lease, "stopped after {:?}", stopped - from);
    let idle = app.server.pending("orders", "work")[0].idle;
    assert!(idle < lease, "it could not be claimed before: {idle:?}");
    proxy.set(Mode::Pass);
    drop(runtime);
}

/// Who works on which order at the moment, over all processes of a test.
#[derive(Clone, Default)]
struct Live {
    orders: Arc<Mutex<HashMap<String, usize>>>,
    overlaps: Arc<AtomicUsize>,
}

impl Live {
    /// Works until the gate opens or the attempt is told to stop, and counts who else does.
    async fn work(self, gate: Gate, id: String, job: Job) -> Result<(), JobError> {
        let others = {
            let mut orders = self.orders.lock().unwrap();
            let running = orders.entry(id.clone()).or_default();
            *running += 1;
            *running - 1
        };
        self.overlaps.fetch_add(others, Ordering::SeqCst);
        let finished = tokio::select! {
            () = gate.passed() => true,
            () = job.cancelled().cancelled() => false,
        };
        *self.orders.lock().unwrap().get_mut(&id).unwrap() -= 1;
        if finished { Ok(()) } else { Err("told to stop".into()) }
    }

    fn running(&self) -> usize {
        self.orders.lock().unwrap().values().sum()
    }
}

#[tokio::test]
async fn no_live_owner_loses_a_job_when_the_server_hangs_for_four_leases() {
    let app = App::start().await;
    let (gate, live) = (Gate::default(), Live::default());
    let working = {
        let (gate, live) = (gate.clone(), live.clone());
        Work::new(move |order, job| live.clone().work(gate.clone(), order.id, job))
    };
    // Every hang costs a delivery, and this is not about the limit.
    let many = options().max_deliveries(NonZeroU32::new(100).unwrap());
    let mut runtimes = Vec::new();
    for _ in 0..3 {
        let builder = app.bare(&working).group("work", many);
        runtimes.push(builder.read_margin(Duration::from_secs(5)).start().await.unwrap());
    }
    app.publish(5).await;
    until(DEADLINE, "all running", || live.running() == 5).await;
    for _round in 0..5 {
        app.server.freeze();
        // The hang is what is tested: nothing tells of its end but the clock.
        sleep_until(Instant::now() + LEASE * 4).await;
        assert_eq!(live.running(), 0, "every owner stopped by its own clock");
        app.server.thaw();
        until(DEADLINE, "all running again", || live.running() == 5).await;
    }
    assert_eq!(live.overlaps.load(Ordering::SeqCst), 0, "stolen from the living");
    gate.open();
    app.drained("work").await;
    assert_eq!(app.server.length("{orders}:dead:work"), 0);
    for runtime in runtimes {
        let _ = runtime.shutdown().await;
    }
}
