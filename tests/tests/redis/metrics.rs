//! One scrape after a scripted history, held against the documentation and against the history.
//!
//! Each test runs in a process of its own, because a process has one recorder.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use streamjobs::config::Unhandled;
use streamjobs::runtime::Counters;
use streamjobs::service::{BoxFuture, Service, ServiceContext};
use streamjobs::testing::Streams;
use streamjobs::{
    Begin, Client, Entry, Job, JobError, JobResource, ResultExt, Runtime, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::process::runs_alone;
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::app::{App, DEADLINE, Gate, Order, Work, options, order, quick, until};
use crate::scrape::{Scrape, recorder};

/// What observers and services did, which belong to no stream.
fn agrees_beside_streams(scrape: &Scrape, counters: &Counters) {
    let sum = |name: &str, labels: &[(&str, &str)]| scrape.sum(name, labels);
    let restless = [("service", "restless")];
    for (counted, shown, what) in [
        (counters.services_ended, sum("streamjobs_services_ended_total", &restless), "services"),
        (counters.observer_panics, sum("streamjobs_observer_panics_total", &[]), "panics"),
        (counters.observations_dropped, sum("streamjobs_observations_dropped_total", &[]), "drops"),
    ] {
        assert_eq!(counted, shown, "{what}");
    }
}

/// Every count of the runtime is in the scrape, over all of its groups.
fn agrees_with_counters(scrape: &Scrape, counters: &Counters) {
    agrees_beside_streams(scrape, counters);
    let sum = |name: &str| scrape.sum(name, &[("stream", "orders")]);
    let one = |name: &str, label: &str, value: &str| {
        scrape.sum(name, &[("stream", "orders"), (label, value)])
    };
    let finished = |outcome| one("streamjobs_jobs_finished_total", "outcome", outcome);
    let reclaimed = |reason| one("streamjobs_claimed_total", "reason", reason);
    for (counted, shown, what) in [
        (counters.delivered, sum("messaging_client_consumed_messages_total"), "delivered"),
        (counters.succeeded, finished("ok") + finished("duplicate"), "succeeded"),
        (counters.failed, sum("streamjobs_attempts_failed_total"), "failed"),
        (counters.snoozed, sum("streamjobs_attempts_snoozed_total"), "snoozed"),
        (counters.acknowledged, sum("streamjobs_acknowledged_total"), "acknowledged"),
        (counters.acknowledged_late, sum("streamjobs_acknowledged_late_total"), "late"),
        (counters.retried, finished("retry"), "retrying"),
        (counters.dead_lettered, finished("dead"), "dead-lettered"),
        (counters.dead_lettered, sum("streamjobs_dead_letters_total"), "dead-lettered, by reason"),
        (counters.claimed, reclaimed("idle"), "claimed"),
        (counters.recovered, reclaimed("lost_reply"), "recovered"),
        (
            counters.delivered_again,
            one("streamjobs_duplicates_total", "stage", "delivery"),
            "delivered_again",
        ),
        (counters.leases_lost, sum("streamjobs_lease_lost_total"), "leases_lost"),
        (counters.refused_late, sum("streamjobs_refused_late_total"), "refused_late"),
        (counters.trimmed, sum("streamjobs_payloads_trimmed_total"), "trimmed"),
        (counters.removed_in_flight, sum("streamjobs_removed_in_flight_total"), "removed"),
        (counters.left, sum("streamjobs_payloads_unstored_total"), "left"),
        (counters.released, finished("cancelled"), "released"),
        (counters.unhandled, sum("streamjobs_unhandled_total"), "unhandled"),
        (counters.results_lost, sum("streamjobs_results_lost_total"), "results lost"),
        (counters.groups_recreated, sum("streamjobs_group_recreated_total"), "groups_recreated"),
        (counters.retries_restored, sum("streamjobs_retries_restored_total"), "retries"),
        (counters.retries_stranded, sum("streamjobs_retries_stranded_total"), "stranded"),
        (counters.parked, sum("streamjobs_parked_total"), "parked"),
        (counters.places_freed, sum("streamjobs_limit_places_freed_total"), "places freed"),
        (counters.scheduled_entered, sum("streamjobs_scheduled_entered_total"), "entered"),
        (counters.scheduled_lost, sum("streamjobs_scheduled_lost_total"), "lost events"),
        (counters.scheduled_restored, sum("streamjobs_scheduled_restored_total"), "placed again"),
        (counters.scheduled_stranded, sum("streamjobs_scheduled_stranded_total"), "left events"),
        (counters.schedules_fired, sum("streamjobs_schedules_fired_total"), "fired"),
        (counters.schedules_missed, sum("streamjobs_schedules_missed_total"), "missed"),
        (counters.schedules_skipped, sum("streamjobs_schedules_skipped_total"), "skipped"),
        (counters.schedules_lost, sum("streamjobs_schedules_lost_total"), "lost schedules"),
        (counters.schedules_not_fired, sum("streamjobs_schedules_not_fired_total"), "not fired"),
        (counters.claims_refused, sum("streamjobs_claims_refused_total"), "claims_refused"),
        (counters.starts_awaited, sum("streamjobs_starts_awaited_total"), "starts"),
        (counters.limited, sum("streamjobs_attempts_limited_total"), "limited"),
        (counters.server_errors, sum("streamjobs_redis_errors_total"), "server_errors"),
        (counters.reconnects, sum("streamjobs_redis_reconnects_total"), "reconnects"),
        (counters.read_timeouts, sum("streamjobs_read_timeouts_total"), "read_timeouts"),
        (counters.entries_trimmed, sum("streamjobs_entries_trimmed_total"), "entries_trimmed"),
        (counters.consumers_retired, sum("streamjobs_consumers_removed_total"), "retired"),
    ] {
        assert_eq!(counted, shown, "{what}");
    }
    let ended = sum("streamjobs_jobs_finished_total") + sum("streamjobs_running");
    assert_eq!(ended, counters.delivered - counters.delivered_again, "every job ends once");
}

/// A guard that knows one order as done.
struct Guard;

impl JobResource for Guard {
    async fn begin(job: &Job) -> Result<Begin<Self>, JobError> {
        let data = job.entry().text("data").unwrap_or_default();
        let known = data.contains("\"known\"");
        Ok(if known { Begin::AlreadyDone } else { Begin::Run(Self) })
    }

    async fn commit(self) -> Result<(), JobError> {
        Ok(())
    }

    async fn rollback(self) {}
}

#[handler(group = "guarded")]
async fn guarded(_order: Order, _guard: &mut Guard) {}

/// A service that panics once, returns once, and then stays.
#[derive(Default)]
struct Restless(AtomicUsize);

impl Service for Restless {
    fn name(&self) -> &'static str {
        "restless"
    }

    fn run(&self, context: ServiceContext) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0 => panic!("once"),
                1 => {}
                _ => context.stop().cancelled().await,
            }
        })
    }
}

/// What becomes of each order, by its id and its attempt.
fn script(gate: &Gate) -> Work {
    let gate = gate.clone();
    Work::new(move |order, job| {
        let gate = gate.clone();
        async move {
            match (order.id.as_str(), job.attempt()) {
                ("twice", 1) | ("never", _) => Err("not now".into()),
                ("panics", 1) => panic!("as the script says"),
                ("later", 1) if job.is_first_delivery() => {
                    Err("locked").later(Duration::from_millis(1))
                }
                ("rejected", _) => Err::<(), _>("never").dead(),
                ("stolen", 1) if job.delivery_count() == 1 => {
                    job.cancelled().cancelled().await;
                    std::future::pending().await
                }
                ("gated", _) => {
                    gate.passed().await;
                    Ok(())
                }
                _ => Ok(()),
            }
        }
    })
}

/// Publishes one order and waits for the end of its jobs.
async fn live(app: &App, id: &str) {
    app.client.publish(&order(id)).await.unwrap();
    app.drained("work").await;
    app.drained("guarded").await;
}

#[tokio::test]
async fn one_scrape_shows_every_metric_and_equals_the_history_of_the_run() {
    if !runs_alone(
        module_path!(),
        "one_scrape_shows_every_metric_and_equals_the_history_of_the_run",
    ) {
        return;
    }
    recorder();
    let (app, gate) = (App::start().await, Gate::default());
    // A process dies with one entry in flight.
    live_and_die(&app).await;
    let work = script(&gate);
    // Long enough that a slow machine loses no lease that the script does not take.
    let twice = options().lease(LEASE).max_attempts(NonZeroU32::new(2).unwrap());
    let twice = twice.unhandled(Unhandled::Acknowledge);
    let builder = Runtime::builder(&app.client).handlers(handlers![crate::app::work, guarded]);
    let builder = quick(builder.state(work.clone()).group("work", twice));
    let builder = builder.watch_interval(Duration::from_millis(50));
    let guarded = options().lease(LEASE).unhandled(Unhandled::Acknowledge);
    let builder = builder.group("guarded", guarded).service(Restless::default());
    let builder = builder.observe(|seen| assert!(seen.attempt() < 2, "an observer"));
    let runtime = builder.start().await.unwrap();
    // Another one, on streams in memory, has what no stream of the script has.
    let beside = Runtime::builder(&Streams::new().client()).handlers(handlers![sharing]);
    let beside = beside.shared_slots("shared", NonZeroU32::new(7).unwrap()).start().await.unwrap();
    for id in ["one", "two", "twice", "never", "panics", "later", "rejected", "known"] {
        live(&app, id).await;
    }
    app.server.command(&["XADD", "orders", "*", "type", "order.placed", "data", "{"]);
    app.server.command(&["XADD", "orders", "*", "type", "order.lost", "data", "{}"]);
    // Another consumer takes a job over, and dies.
    let stolen = app.client.publish(&order("stolen")).await.unwrap().entry_id.to_string();
    until(DEADLINE, "started", || started(&work, "stolen") == 1).await;
    app.server.command(&["XCLAIM", "orders", "work", "thief", "0", &stolen]);
    until(DEADLINE, "taken back", || started(&work, "stolen") == 2).await;
    app.drained("work").await;
    app.drained("guarded").await;
    // The runtime loses its connections, and then a group that is done up to its end.
    app.server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    until(DEADLINE, "connected again", || runtime.counters().reconnects >= 2).await;
    live(&app, "after the connections").await;
    floor_is_at_the_end(&app).await;
    app.server.command(&["XGROUP", "DESTROY", "orders", "work"]);
    until(DEADLINE, "recreated", || runtime.counters().groups_recreated == 1).await;
    live(&app, "after the group").await;
    app.client.publish(&order("gated")).await.unwrap();
    until(DEADLINE, "started", || started(&work, "gated") == 1).await;
    app.drained("guarded").await;
    until(DEADLINE, "only one in flight", || in_flight(&runtime) == 1).await;
    until(DEADLINE, "the service is at rest", || runtime.counters().services_ended == 2).await;
    shows_what_the_server_says(&app).await;
    let (scrape, counters) = scrape_at_rest(&runtime).await;
    scrape.agrees_with("docs/metrics.md", &["streamjobs_", "messaging_"]);
    agrees_with_counters(&scrape, &counters);
    equals_history(&scrape, &work);
    gate.open();
    let _ = (runtime.shutdown().await, beside.shutdown().await);
}

#[handler(group = "sharing", stream = "shared", slots = "shared")]
async fn sharing(_: Entry) {}

/// Publishes an order that is delivered to a process which then disappears.
async fn live_and_die(app: &App) {
    app.client.publish(&order("orphan")).await.unwrap();
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0"]);
    let read = ["XREADGROUP", "GROUP", "work", "dead", "STREAMS", "orders", ">"];
    app.server.command(&read);
}

fn started(work: &Work, order: &str) -> usize {
    work.runs().iter().filter(|run| run.order == order).count()
}

fn in_flight(runtime: &Runtime) -> usize {
    runtime.health().queues.iter().map(|queue| queue.in_flight).sum()
}

/// Waits until a group that is lost now would be recreated behind everything.
async fn floor_is_at_the_end(app: &App) {
    let key = "{orders}:group:work";
    let last = app.cursor("work");
    let at_end = || {
        let values: Vec<String> =
            redis::from_redis_value(app.server.command(&["HVALS", key])).unwrap();
        values.contains(&last)
    };
    until(DEADLINE, "the floor at the end", at_end).await;
}

/// Waits until the gauges of the server's view say what is there: three dead letters, and the order
/// that still runs.
async fn shows_what_the_server_says(app: &App) {
    let group = [("stream", "orders"), ("group", "work")];
    eventually_async(DEADLINE, "the server's view", async || {
        let scrape = Scrape::take();
        let jobs = |state| scrape.sum("streamjobs_jobs", &[group[0], group[1], ("state", state)]);
        let of_group = |name| scrape.sum(name, &group);
        let length = scrape.sum("streamjobs_stream_entries", &[("stream", "orders")]);
        ["waiting", "pending", "retrying", "dead"].map(jobs) == [0, 1, 0, 3]
            && of_group("streamjobs_group_lag") == 0
            && of_group("streamjobs_group_lag_known") == 1
            && of_group("streamjobs_paused") == 0
            && length == app.server.length("orders") as u64
            && scrape.sum("streamjobs_stream_bytes", &[("stream", "orders")]) > 100
    })
    .await;
}

/// A scrape between two readings of the counters that agree: the loops go on counting.
async fn scrape_at_rest(runtime: &Runtime) -> (Scrape, Counters) {
    let mut taken = None;
    eventually_async(DEADLINE, "a moment of rest", async || {
        let (before, scrape) = (runtime.counters(), Scrape::take());
        let rest = before == runtime.counters();
        taken = rest.then_some((scrape, before));
        rest
    })
    .await;
    taken.unwrap()
}

fn equals_history(scrape: &Scrape, work: &Work) {
    let sum = |name: &str, label: &str, value: &str| {
        scrape.sum(name, &[("stream", "orders"), ("group", "work"), (label, value)])
    };
    for (outcome, jobs) in [
        // One, two, twice, panics, later, known, stolen, the orphan, and those after the connections and
        // the group. The gated one still runs.
        ("ok", 10),
        ("retry", 4),
        ("dead", 3),
        ("unhandled", 1),
        ("lost_lease", 1),
        ("duplicate", 0),
        ("cancelled", 0),
    ] {
        assert_eq!(sum("streamjobs_jobs_finished_total", "outcome", outcome), jobs, "{outcome}");
    }
    for (reason, jobs) in [("exhausted", 1), ("rejected", 1), ("undecodable", 1), ("crashed", 0)] {
        assert_eq!(sum("streamjobs_dead_letters_total", "reason", reason), jobs, "{reason}");
    }
    assert_eq!(sum("streamjobs_attempts_failed_total", "reason", "error"), 4);
    assert_eq!(sum("streamjobs_attempts_failed_total", "reason", "panic"), 1);
    assert_eq!(sum("streamjobs_attempts_snoozed_total", "group", "work"), 1);
    assert_eq!(sum("streamjobs_claimed_total", "reason", "idle"), 2, "the orphan and the stolen");
    assert_eq!(sum("streamjobs_lease_lost_total", "group", "work"), 1);
    for reason in ["panic", "returned"] {
        let ended = [("service", "restless"), ("reason", reason)];
        assert_eq!(scrape.sum("streamjobs_services_ended_total", &ended), 1, "{reason}");
    }
    assert!(scrape.sum("streamjobs_observer_panics_total", &[]) > 0);
    let shared = ["streamjobs_shared_slots", "streamjobs_shared_slots_in_use"];
    assert_eq!(shared.map(|name| scrape.sum(name, &[("slots", "shared")])), [7, 0]);
    let gauges = ["streamjobs_running", "streamjobs_buffered", "streamjobs_slots"];
    assert_eq!(gauges.map(|name| sum(name, "group", "work")), [1, 0, 16]);
    // The gated order still runs, and an entry that cannot be read is no run that the handler saw.
    let runs = sum("messaging_process_duration_seconds_count", "handler", "order.placed");
    assert_eq!(runs, work.count() as u64 - 1 + 1);
    // Four retries came from the lane. First deliveries are all others but the two claims.
    assert_eq!(sum("streamjobs_schedule_lateness_seconds_count", "group", "work"), 4);
    let queued = sum("streamjobs_queue_time_seconds_count", "group", "work");
    assert_eq!(queued, work.count() as u64 + 1 - 4 - 2);
    let sent = scrape
        .sum("messaging_client_sent_messages_total", &[("outcome", "ok"), ("stream", "orders")]);
    assert_eq!(sent, 13);
    let known = [("group", "guarded"), ("stage", "handle")];
    assert_eq!(scrape.sum("streamjobs_duplicates_total", &known), 1);
}

#[handler(group = "gauged", stream = "gauges")]
async fn wait_without_end(_entry: streamjobs::Entry) {
    std::future::pending().await
}

/// The server stalls: nothing comes back, and no connection breaks.
#[tokio::test]
async fn a_read_without_a_reply_in_time_is_counted() {
    if !runs_alone(module_path!(), "a_read_without_a_reply_in_time_is_counted") {
        return;
    }
    recorder();
    let app = App::start().await;
    let proxy = FaultProxy::start(&app.server).unwrap();
    let client = Client::connect(proxy.url()).await.unwrap();
    let work = Work::fine();
    let builder = Runtime::builder(&client).handlers(handlers![crate::app::work]);
    let runtime = quick(builder.state(work.clone())).start().await.unwrap();
    app.client.publish(&order("one")).await.unwrap();
    work.wait_for(1).await;
    let counted = || Scrape::take().sum("streamjobs_read_timeouts_total", &[("group", "work")]);
    assert_eq!((counted(), runtime.counters().read_timeouts), (0, 0));
    proxy.set(Mode::BlackHole);
    until(DEADLINE, "counted", || runtime.counters().read_timeouts > 0).await;
    proxy.set(Mode::Pass);
    app.client.publish(&order("two")).await.unwrap();
    work.wait_for(2).await;
    assert_eq!(counted(), runtime.counters().read_timeouts);
    let _ = runtime.shutdown().await;
}

#[derive(streamjobs::Event, serde::Serialize, serde::Deserialize)]
#[event(stream = "gauges", type = "gauge")]
struct Tick {}

#[tokio::test(start_paused = true)]
async fn gauges_go_back_to_nothing_when_a_runtime_is_gone() {
    if !runs_alone(module_path!(), "gauges_go_back_to_nothing_when_a_runtime_is_gone") {
        return;
    }
    recorder();
    let client = Streams::new().client();
    let start = || {
        let builder = Runtime::builder(&client).handlers(handlers![wait_without_end]);
        builder.grace(Duration::from_secs(1)).start()
    };
    let (one, two) = (start().await.unwrap(), start().await.unwrap());
    for answer in client.publish_all(&[Tick {}, Tick {}, Tick {}]).await {
        answer.unwrap();
    }
    let shown = |name: &str| Scrape::take().sum(name, &[("stream", "gauges")]);
    until(DEADLINE, "all run", || shown("streamjobs_running") == 3).await;
    assert_eq!((shown("streamjobs_slots"), shown("streamjobs_buffered")), (32, 0));
    let report = one.shutdown().await;
    assert!(report.abandoned.is_empty());
    drop(two);
    for name in ["streamjobs_running", "streamjobs_buffered", "streamjobs_slots"] {
        until(DEADLINE, name, || shown(name) == 0).await;
    }
    let cancelled = [("stream", "gauges"), ("outcome", "cancelled")];
    let cancelled = Scrape::take().sum("streamjobs_jobs_finished_total", &cancelled);
    assert!(cancelled >= report.released, "{cancelled} of {}", report.released);
}

const LEASE: Duration = Duration::from_secs(3);
