//! Rows that were moved long ago and that an old snapshot keeps: they cost the relay nothing.

use std::time::{Duration, Instant};

use sqlx::{Executor, PgPool, Postgres as Pg, Transaction};
use streamjobs::Runtime;
use streamjobs_postgres::Postgres;
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::postgres::PgServer;
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::app::{App, DEADLINE, Order, quick};

fn of(customer: &str, id: &str) -> Order {
    Order { id: id.to_owned(), customer: customer.to_owned() }
}

/// A runtime with a relay, and a transaction that holds an old snapshot: it has written an event
/// before all others.
async fn with_old_snapshot() -> (App, Runtime, Transaction<'static, Pg>) {
    let app = App::start().await;
    let mut old = app.pool.begin().await.unwrap();
    app.postgres.publisher().publish_in(&mut old, &of("alice", "late")).await.unwrap();
    let relay = app.postgres.relay().poll(Duration::from_millis(20));
    let runtime = quick(Runtime::builder(&app.client).handlers([])).service(relay);
    let runtime = runtime.start().await.unwrap();
    (app, runtime, old)
}

/// What another relay leaves behind.
async fn moved(app: &App, rows: u32) {
    let write = "INSERT INTO streamjobs.outbox (stream, event_id, field_names, field_values)
        SELECT 'orders', n::text, ARRAY['type'::bytea, 'sj-id'], ARRAY['t'::bytea, 'e']
        FROM generate_series(1, $1) AS n";
    let mut transaction = app.pool.begin().await.unwrap();
    sqlx::query(write).bind(i64::from(rows)).execute(&mut *transaction).await.unwrap();
    transaction.execute("DELETE FROM streamjobs.outbox WHERE event_id <> 'late'").await.unwrap();
    transaction.commit().await.unwrap();
}

async fn publish(app: &App, order: &Order) {
    let mut connection = app.pool.acquire().await.unwrap();
    app.postgres.publisher().publish_in(&mut connection, order).await.unwrap();
    eventually_async(DEADLINE, "the outbox is empty", async || {
        app.number("SELECT count(*) FROM streamjobs.outbox").await == 0
    })
    .await;
}

fn stored(app: &App) -> Vec<String> {
    let entries = app.server.entries("orders");
    let data = entries.iter().map(|entry| entry.text("data").unwrap());
    data.map(|data| serde_json::from_str::<Order>(&data).unwrap().id).collect()
}

/// The index scans of the outbox up to now, and the blocks that were read for it.
async fn read(app: &App) -> (i64, i64) {
    let read =
        "SELECT t.idx_scan, b.heap_blks_read + b.heap_blks_hit + b.idx_blks_read + b.idx_blks_hit
        FROM pg_stat_user_tables t JOIN pg_statio_user_tables b USING (relid)
        WHERE relid = 'streamjobs.outbox'::regclass";
    sqlx::query_as(read).fetch_one(&app.pool).await.unwrap()
}

/// The blocks that the relay reads for one of its scans, over some dozens of them.
async fn blocks_per_scan(app: &App) -> i64 {
    let (scans, blocks) = read(app).await;
    let mut now = (scans, blocks);
    eventually_async(DEADLINE, "the relay looks", async || {
        now = read(app).await;
        now.0 > scans + 60
    })
    .await;
    (now.1 - blocks) / (now.0 - scans)
}

#[tokio::test]
async fn a_look_costs_the_same_however_many_rows_were_moved_under_an_old_snapshot() {
    let (app, runtime, old) = with_old_snapshot().await;
    moved(&app, 30_000).await;
    publish(&app, &of("bob", "1")).await;
    // A look from the beginning reads more than a thousand blocks.
    eventually_async(DEADLINE, "a look reads few blocks", async || {
        blocks_per_scan(&app).await < 30
    })
    .await;
    publish(&app, &of("bob", "2")).await;
    assert_eq!(stored(&app), ["1", "2"]);
    old.rollback().await.unwrap();
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_event_that_commits_late_is_moved_before_later_ones_of_its_key() {
    let (app, runtime, old) = with_old_snapshot().await;
    moved(&app, 1_000).await;
    publish(&app, &of("bob", "1")).await;
    eventually_async(DEADLINE, "the relay skips what was moved", async || {
        blocks_per_scan(&app).await < 20
    })
    .await;
    old.commit().await.unwrap();
    publish(&app, &of("alice", "2")).await;
    assert_eq!(stored(&app), ["1", "late", "2"]);
    let _ = runtime.shutdown().await;
}

/// A relay that has moved an event and is idle, on a server of its own: transactions of other tests would show in its snapshots.
async fn idle_relay() -> (App, PgServer, Runtime) {
    let server = PgServer::start().unwrap();
    let app = App::on(server.database().await).await;
    let relay = app.postgres.relay().poll(Duration::from_millis(20));
    let runtime = quick(Runtime::builder(&app.client).handlers([])).service(relay);
    let runtime = runtime.start().await.unwrap();
    publish(&app, &of("bob", "1")).await;
    // Meanwhile it notifies itself, once.
    settled(&app).await;
    (app, server, runtime)
}

/// An event in a transaction that stays open.
async fn open(app: &App, order: &Order) -> Transaction<'static, Pg> {
    let mut transaction = app.pool.begin().await.unwrap();
    app.postgres.publisher().publish_in(&mut transaction, order).await.unwrap();
    transaction
}

/// Waits until ids that were drawn before count as given out, which takes two looks with a second in between.
async fn settled(app: &App) {
    let (began, (scans, _)) = (Instant::now(), read(app).await);
    eventually_async(DEADLINE, "the relay looks for a while", async || {
        began.elapsed() > Duration::from_secs(3) && read(app).await.0 > scans + 10
    })
    .await;
}

/// A snapshot lists no transaction whose number is above all numbers that have ended.
#[tokio::test]
async fn an_event_that_commits_late_and_alone_is_moved_before_later_ones_of_its_key() {
    let (app, _server, runtime) = idle_relay().await;
    let late = open(&app, &of("alice", "late")).await;
    settled(&app).await;
    late.commit().await.unwrap();
    publish(&app, &of("alice", "2")).await;
    assert_eq!(stored(&app), ["1", "late", "2"]);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn of_transactions_at_once_the_last_to_begin_is_waited_for_as_the_first() {
    let (app, _server, runtime) = idle_relay().await;
    let first = open(&app, &of("alice", "late")).await;
    let between = open(&app, &of("bob", "2")).await;
    let last = open(&app, &of("carol", "late")).await;
    settled(&app).await;
    between.commit().await.unwrap();
    settled(&app).await;
    last.commit().await.unwrap();
    publish(&app, &of("carol", "3")).await;
    first.commit().await.unwrap();
    publish(&app, &of("alice", "4")).await;
    assert_eq!(stored(&app), ["1", "2", "late", "3", "late", "4"]);
    let _ = runtime.shutdown().await;
}

/// More rows than two batches have wait for a stream that refuses them, all behind what was moved.
#[tokio::test]
async fn a_stream_in_back_off_hides_no_other_streams_rows_from_a_look() {
    let (app, runtime, old) = with_old_snapshot().await;
    moved(&app, 1_000).await;
    publish(&app, &of("bob", "1")).await;
    app.server.command(&["SET", "taken", "another type"]);
    let rows = "INSERT INTO streamjobs.outbox (stream, event_id, field_names, field_values)
        SELECT 'taken', n::text, ARRAY['type'::bytea, 'sj-id'],
               ARRAY['t'::bytea, convert_to('e-' || n, 'UTF8')] FROM generate_series(1, 1500) AS n";
    app.pool.execute(rows).await.unwrap();
    for id in 2..=5 {
        let mut connection = app.pool.acquire().await.unwrap();
        let order = of("bob", &id.to_string());
        app.postgres.publisher().publish_in(&mut connection, &order).await.unwrap();
        eventually_async(DEADLINE, "the other stream has its event", async || {
            app.server.length("orders") == id
        })
        .await;
    }
    eventually_async(DEADLINE, "the refused rows are passed over", async || {
        blocks_per_scan(&app).await < 60
    })
    .await;
    app.server.command(&["DEL", "taken"]);
    eventually_async(DEADLINE, "all are stored", async || app.server.length("taken") == 1_500)
        .await;
    assert_eq!(stored(&app), ["1", "2", "3", "4", "5"]);
    old.rollback().await.unwrap();
    let _ = runtime.shutdown().await;
}

/// Each look at everything is slow here: longer than the relay may take until it publishes.
#[tokio::test]
async fn events_that_a_slow_look_found_are_moved() {
    let app = App::start().await;
    let proxy = FaultProxy::start(&app.database).unwrap();
    let postgres = Postgres::open(PgPool::connect(proxy.url()).await.unwrap()).await.unwrap();
    proxy.set(Mode::HoldReplyTo("WITH RECURSIVE streams".into()));
    let mut connection = app.pool.acquire().await.unwrap();
    postgres.publisher().publish_in(&mut connection, &of("alice", "1")).await.unwrap();
    let relay = postgres.relay().poll(Duration::from_millis(20));
    let runtime = quick(Runtime::builder(&app.client).handlers([])).service(relay);
    let runtime = runtime.start().await.unwrap();
    eventually_async(DEADLINE, "it looks", async || proxy.held() == 1).await;
    let began = Instant::now();
    let is_slow = async || began.elapsed() > Duration::from_secs(11);
    eventually_async(DEADLINE, "the look is slow", is_slow).await;
    proxy.set(Mode::Pass);
    proxy.set(Mode::HoldReplyTo("WITH RECURSIVE streams".into()));
    eventually_async(DEADLINE, "it is moved", async || app.server.length("orders") == 1).await;
    proxy.set(Mode::Pass);
    let _ = runtime.shutdown().await;
}
