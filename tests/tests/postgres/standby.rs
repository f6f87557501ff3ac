//! Commits that wait for a synchronous standby that is away: no setting of Postgres bounds them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::Executor;
use streamjobs::{Event, JobError, Runtime, State, handler, handlers};
use streamjobs_postgres::{OnceMark, Postgres};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::postgres::PgServer;

use crate::app::{App, Charge, DEADLINE, Gate, Order, charge, options, order, quick, until};

const CONNECTIONS: u32 = 3;

/// A database of its own server, with a small pool and short limits.
async fn app() -> (App, PgServer) {
    let server = PgServer::start().unwrap();
    let mut app = App::on(server.database().await).await;
    app.pool = app.database.pool_of(CONNECTIONS);
    let builder = Postgres::builder(app.pool.clone());
    let builder = builder.statement_timeout(Duration::from_millis(500));
    app.postgres = builder.lock_timeout(Duration::from_millis(200)).open().await.unwrap();
    (app, server)
}

/// Sets the standbys whose confirmation a commit waits for.
async fn wait_for_standby(app: &App, name: &'static str) {
    let admin = app.database.admin_pool();
    let set = match name {
        "" => "ALTER SYSTEM RESET synchronous_standby_names",
        _ => "ALTER SYSTEM SET synchronous_standby_names = 'absent'",
    };
    admin.execute(set).await.unwrap();
    admin.execute("SELECT pg_reload_conf()").await.unwrap();
    eventually_async(DEADLINE, "the setting is in effect", async || {
        let setting = sqlx::query_scalar::<_, String>("SHOW synchronous_standby_names");
        setting.fetch_one(&admin).await.unwrap() == name
    })
    .await;
}

/// The sessions whose commit waits for the standby.
async fn waiting(app: &App) -> i64 {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    sqlx::query_scalar(waiting).fetch_one(&app.database.admin_pool()).await.unwrap()
}

/// Waits until all connections of the pool can be used at once.
async fn all_connections_are_back(app: &App) {
    eventually_async(DEADLINE, "all connections are back", async || {
        let taken = join_all((0..CONNECTIONS).map(|_| app.pool.acquire())).await;
        taken.iter().all(Result::is_ok)
    })
    .await;
    assert_eq!(waiting(app).await, 0);
}

/// An event whose handler needs no database.
#[derive(Debug, Event, serde::Serialize, serde::Deserialize)]
#[event(stream = "orders", type = "order.seen")]
struct Seen {}

#[handler(group = "billing")]
async fn seen(_: Seen, State(count): State<Arc<AtomicUsize>>) -> Result<(), JobError> {
    count.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

#[tokio::test]
async fn a_commit_that_waits_for_an_absent_standby_gives_its_slot_back_and_counts_no_failure() {
    let (app, _server) = app().await;
    let (charged, count) = (Charge::once(), Arc::<AtomicUsize>::default());
    let builder = Runtime::builder(&app.client).handlers(handlers![charge, seen]);
    let builder = builder.state(charged.clone()).state(app.postgres.clone()).state(count.clone());
    let one_slot = options().concurrency(NonZeroU32::new(1).unwrap());
    let runtime = quick(builder.group("billing", one_slot)).start().await.unwrap();
    wait_for_standby(&app, "absent").await;
    app.publish(&[order("1")]).await;
    charged.wait_for(1).await;
    app.client.publish(&Seen {}).await.unwrap();
    until("the only slot is free again", || count.load(Ordering::SeqCst) == 1).await;
    assert!(runtime.counters().snoozed > 0);
    // The next attempts wait for the row and not for the standby.
    let snoozed = runtime.counters().snoozed;
    until("it is tried again", || runtime.counters().snoozed > snoozed + 1).await;
    assert_eq!((waiting(&app).await, app.pool.size() <= CONNECTIONS), (1, true));
    wait_for_standby(&app, "").await;
    app.drained("billing").await;
    all_connections_are_back(&app).await;
    assert_eq!((app.effects().await, app.guard_rows().await, charged.count()), (1, 1, 1));
    let counters = runtime.counters();
    assert_eq!((counters.failed, counters.leases_lost, counters.dead_lettered), (0, 0, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn jobs_that_wait_for_an_absent_standby_take_no_more_connections_than_the_pool_has() {
    let (app, _server) = app().await;
    let charged = Charge::once();
    let runtime = app.runtime(&charged).start().await.unwrap();
    wait_for_standby(&app, "absent").await;
    app.publish(&(0..8).map(order).collect::<Vec<_>>()).await;
    until("they are put off", || runtime.counters().snoozed >= 8).await;
    assert!(waiting(&app).await <= i64::from(CONNECTIONS));
    wait_for_standby(&app, "").await;
    app.drained("billing").await;
    all_connections_are_back(&app).await;
    assert_eq!((app.effects().await, app.guard_rows().await), (8, 8));
    let counters = runtime.counters();
    assert_eq!((counters.failed, counters.leases_lost, counters.dead_lettered), (0, 0, 0));
    let _ = runtime.shutdown().await;
}

#[derive(Clone)]
struct Mails {
    sent: Arc<AtomicUsize>,
    gate: Gate,
}

#[handler(group = "mails", timeout = "8s")]
async fn mail(_: Order, mark: &mut OnceMark, State(mails): State<Mails>) -> Result<(), JobError> {
    let _mark = mark.key();
    mails.sent.fetch_add(1, Ordering::SeqCst);
    mails.gate.passed().await;
    Ok(())
}

#[tokio::test]
async fn marks_that_wait_for_an_absent_standby_count_no_failure_and_repeat_no_work() {
    let (app, _server) = app().await;
    let mails = Mails { sent: Arc::default(), gate: Gate::shut() };
    let builder = Runtime::builder(&app.client).handlers(handlers![mail]);
    let builder = builder.state(app.postgres.clone()).state(mails.clone());
    let runtime = quick(builder.group("mails", options())).start().await.unwrap();
    app.publish(&[order("1")]).await;
    until("it is sent", || mails.sent.load(Ordering::SeqCst) == 1).await;
    wait_for_standby(&app, "absent").await;
    // The mark of this one says that it begins, and that of the other one that it is done.
    app.publish(&[order("2")]).await;
    mails.gate.open();
    until("both are put off", || runtime.counters().snoozed >= 2).await;
    assert_eq!(mails.sent.load(Ordering::SeqCst), 1);
    wait_for_standby(&app, "").await;
    app.drained("mails").await;
    until("both are done", || runtime.counters().succeeded == 2).await;
    assert_eq!((mails.sent.load(Ordering::SeqCst), runtime.counters().failed), (2, 0));
    all_connections_are_back(&app).await;
    let _ = runtime.shutdown().await;
}

#[handler(group = "notes", timeout = "1s")]
async fn note(_: Order, mark: &mut OnceMark) -> Result<(), JobError> {
    let _mark = mark.key();
    Ok(())
}

#[tokio::test]
async fn attempts_at_a_mark_that_waits_for_an_absent_standby_give_their_connections_back() {
    let (app, _server) = app().await;
    let builder = Runtime::builder(&app.client).handlers(handlers![note]);
    let builder = builder.state(app.postgres.clone()).group("notes", options());
    let runtime = quick(builder).start().await.unwrap();
    wait_for_standby(&app, "absent").await;
    app.publish(&[order("1")]).await;
    // The commit of the first attempt is waited for, and each later one is due up to 15 s after it.
    let tried = || runtime.counters().snoozed >= 3;
    eventually_async(3 * DEADLINE, "it is tried again", async || tried()).await;
    let locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    eventually_async(DEADLINE, "no session waits for the mark", async || {
        let admin = app.database.admin_pool();
        sqlx::query_scalar::<_, i64>(locked).fetch_one(&admin).await.unwrap() == 0
    })
    .await;
    assert_eq!(waiting(&app).await, 1);
    wait_for_standby(&app, "").await;
    app.drained("notes").await;
    all_connections_are_back(&app).await;
    assert_eq!((runtime.counters().succeeded, runtime.counters().failed), (1, 0));
    let _ = runtime.shutdown().await;
}
