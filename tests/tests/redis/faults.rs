//! Faults of the server that last for a while: nothing is lost, nothing runs twice.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use streamjobs::{Client, Event, Job, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;
use tokio::task::JoinSet;

use crate::app::{App, DEADLINE, Gate, Work, options, order, quick, settled, until, work};

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_waited_for_and_charges_no_job() {
    let server = || {
        let builder = RedisServer::builder().no_cluster().config("repl-diskless-sync-delay", "0");
        builder.start().unwrap()
    };
    let (app, primary) = (App::on(server()).await, server());
    let (gate, gated, runtime) = five_held(&app).await;
    // It follows a server that follows it first, so that both have the same data.
    primary.follow(app.server.port());
    primary.promote();
    app.server.follow(primary.port());
    gate.open();
    until(DEADLINE, "refused", || runtime.counters().server_errors > 0).await;
    app.server.promote();
    app.drained("work").await;
    settled(&runtime).await;
    let counters = runtime.counters();
    assert_eq!((gated.count(), counters.failed, counters.dead_lettered), (5, 0, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn writes_that_are_paused_are_waited_for_and_nothing_runs_again() {
    let app = App::start().await;
    let (gate, gated, runtime) = five_held(&app).await;
    app.server.command(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    gate.open();
    let client = app.client.clone();
    let mut later = JoinSet::new();
    later.spawn(async move { client.publish(&order("later")).await });
    until(DEADLINE, "all handlers returned", || runtime.counters().succeeded == 5).await;
    assert_eq!((app.pending("work"), app.server.length("orders")), (5, 5), "held back");
    assert!(later.try_join_next().is_none());
    app.server.command(&["CLIENT", "UNPAUSE"]);
    later.join_next().await.unwrap().unwrap().unwrap();
    gated.wait_for(6).await;
    app.drained("work").await;
    settled(&runtime).await;
    assert_eq!((gated.count(), runtime.counters().failed), (6, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_server_without_room_for_connections_is_retried_with_back_off_and_fails_no_job() {
    let app = App::start().await;
    let (gate, gated, runtime) = five_held(&app).await;
    // This connection is there before the limit is, so that it can be lifted again.
    let mut held = redis::Client::open(app.server.plain_url()).unwrap().get_connection().unwrap();
    let mut ask = |words: &[&str]| -> redis::Value {
        redis::cmd(words[0]).arg(&words[1..]).query(&mut held).unwrap()
    };
    ask(&["CONFIG", "SET", "maxclients", "1"]);
    ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let since = Instant::now();
    gate.open();
    let mut refused = 0;
    until(DEADLINE, "refused twenty times", || {
        let info: String = redis::from_redis_value(ask(&["INFO", "stats"])).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("rejected_connections:"));
        refused = line.unwrap().trim().parse().unwrap();
        refused >= 20
    })
    .await;
    assert!(since.elapsed() > Duration::from_secs(1), "{refused} in {:?}", since.elapsed());
    ask(&["CONFIG", "SET", "maxclients", "1000"]);
    nothing_was_charged(&app, &gated, runtime).await;
}

#[tokio::test]
async fn a_long_script_of_another_tenant_is_waited_for_and_charges_no_job() {
    let app = App::start().await;
    let (gate, gated, runtime) = five_held(&app).await;
    app.server.command(&["CONFIG", "SET", "busy-reply-threshold", "50"]);
    let mut tenant = redis::Client::open(app.server.plain_url()).unwrap().get_connection().unwrap();
    let script = std::thread::spawn(move || {
        redis::cmd("EVAL").arg("while true do end").arg(0).query::<redis::Value>(&mut tenant)
    });
    let busy = || app.server.try_query::<redis::Value>(&["PING"]);
    until(DEADLINE, "busy", || busy().is_err_and(|error| error.code() == Some("BUSY"))).await;
    gate.open();
    until(DEADLINE, "refused", || runtime.counters().server_errors > 0).await;
    app.server.command(&["SCRIPT", "KILL"]);
    assert!(script.join().unwrap().is_err(), "it was killed");
    nothing_was_charged(&app, &gated, runtime).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loads_its_data_is_waited_for_and_charges_no_job() {
    // It loads its keys slowly, and answers after each thousand of them.
    let server = RedisServer::builder()
        .append_only(true)
        .config("appendfsync", "always")
        .config("aof-use-rdb-preamble", "no")
        .config("key-load-delay", "100")
        .start()
        .unwrap();
    let app = App::on(server).await;
    let (gate, gated, runtime) = five_held(&app).await;
    let fill = "for i = 1, 20000 do redis.call('SET', 'key' .. i, 'x') end";
    app.server.command(&["EVAL", fill, "0"]);
    app.server.kill();
    gate.open();
    tokio::task::block_in_place(|| app.server.restart()).unwrap();
    assert!(app.server.info("errorstat_LOADING").is_some(), "it was asked while it loaded");
    nothing_was_charged(&app, &gated, runtime).await;
}

#[tokio::test]
async fn rights_revoked_under_a_runtime_stop_it_without_a_hot_loop_until_they_are_back() {
    let app = App::start().await;
    app.server.command(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all"]);
    let url = app.server.url_as("app", "secret");
    let app = App { client: Client::connect(&url).await.unwrap(), ..app };
    let (gate, gated, runtime) = five_held(&app).await;
    for right in ["xreadgroup", "xack", "evalsha"] {
        app.server.command(&["ACL", "SETUSER", "app", &format!("-{right}")]);
    }
    app.server.command(&["CONFIG", "RESETSTAT"]);
    let since = Instant::now();
    gate.open();
    until(DEADLINE, "refused ten times", || runtime.counters().server_errors >= 10).await;
    let told = app.server.info("errorstat_NOPERM").unwrap();
    let refused: f64 = told.trim_start_matches("count=").parse().unwrap();
    // Reading, acknowledging and renewing go on by themselves, each with a back-off of its own.
    let bound = since.elapsed().as_secs_f64().mul_add(60.0, 30.0);
    assert!(refused < bound, "{refused} refusals");
    assert_eq!(app.pending("work"), 5, "what is done cannot be acknowledged");
    app.server.command(&["ACL", "SETUSER", "app", "+@all"]);
    nothing_was_charged(&app, &gated, runtime).await;
}

#[tokio::test]
async fn a_server_that_forgot_everything_gets_its_groups_back_and_no_consumer_is_stuck() {
    let app = App::start().await;
    let (gate, gated, runtime) = five_held(&app).await;
    app.server.kill();
    app.server.restart().unwrap();
    assert_eq!(app.server.length("orders"), 0, "it keeps nothing on disk");
    let next = order("next");
    eventually_async(DEADLINE, "published", async || app.client.publish(&next).await.is_ok()).await;
    // Before the gate opens: what is lost holds up nothing that is new.
    gated.wait_for(6).await;
    gate.open();
    app.drained("work").await;
    settled(&runtime).await;
    let counters = runtime.counters();
    assert!(counters.groups_recreated >= 1, "it is told: {counters:?}");
    assert_eq!((counters.failed, counters.dead_lettered), (0, 0));
    assert_eq!(gated.runs().iter().filter(|run| run.order == "next").count(), 1);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_broken_stream_stops_no_other_one() {
    let app = App::start().await;
    let fine = Work::fine();
    let builder = Runtime::builder(&app.client).handlers(handlers![work, bill]);
    let builder = quick(builder.state(fine.clone()).group("work", options()));
    let runtime = builder.group("bills", options()).start().await.unwrap();
    app.client.publish(&Bill { id: "first".to_owned() }).await.unwrap();
    fine.wait_for(1).await;
    app.server.command(&["SET", "bills", "no stream any more"]);
    until(DEADLINE, "refused", || runtime.counters().server_errors > 0).await;
    app.publish(50).await;
    fine.wait_for(51).await;
    app.drained("work").await;
    app.server.command(&["DEL", "bills"]);
    app.client.publish(&Bill { id: "last".to_owned() }).await.unwrap();
    fine.wait_for(52).await;
    assert_eq!(runtime.counters().failed, 0);
    let _ = runtime.shutdown().await;
}

/// The event of a second stream.
#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "bills", type = "bill.sent")]
struct Bill {
    id: String,
}

#[handler(group = "bills")]
async fn bill(bill: Bill, State(work): State<Work>, job: Job) -> Result<(), JobError> {
    work.run(order(bill.id), job).await
}

/// A runtime whose handlers hold five jobs of a long lease until the gate opens.
async fn five_held(app: &App) -> (Gate, Work, Runtime) {
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let long = options().lease(Duration::from_secs(30));
    let runtime = app.bare(&gated).group("work", long).start().await.unwrap();
    app.publish(5).await;
    gated.wait_for(5).await;
    (gate, gated, runtime)
}

/// The five jobs come to their end, and each has run once.
async fn nothing_was_charged(app: &App, gated: &Work, runtime: Runtime) {
    app.drained("work").await;
    settled(&runtime).await;
    let counters = runtime.counters();
    assert_eq!((gated.count(), counters.failed, counters.dead_lettered), (5, 0, 0), "{counters:?}");
    assert_eq!(counters.leases_lost, 0);
    let _ = runtime.shutdown().await;
}
