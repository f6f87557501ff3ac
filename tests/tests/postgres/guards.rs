//! The guard with an application's keys, child events, outages and idle handlers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::{Client, Event, Job, JobError, ResultExt, Runtime, State, handler, handlers};
use streamjobs_postgres::{GuardKey, Once, Postgres};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::postgres::{PgServer, Role};
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::app::{App, Charge, DEADLINE, Gate, Order, options, order, quick, until, write_effect};

struct ByOrder;

impl GuardKey for ByOrder {
    fn key(job: &Job) -> Result<Option<String>, JobError> {
        Ok(Some(job.read::<Order>().dead()?.id))
    }
}

#[handler(group = "billing")]
async fn charge_by_order(order: Order, tx: &mut Once<ByOrder>, job: Job) -> Result<(), JobError> {
    Ok(write_effect(tx, &order, &job).await?)
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.cancelled")]
struct Cancelled {
    id: String,
}

struct ByCancelled;

impl GuardKey for ByCancelled {
    fn key(job: &Job) -> Result<Option<String>, JobError> {
        Ok(Some(job.read::<Cancelled>().dead()?.id))
    }
}

#[handler(group = "billing")]
async fn refund(event: Cancelled, tx: &mut Once<ByCancelled>, job: Job) -> Result<(), JobError> {
    Ok(write_effect(tx, &order(event.id), &job).await?)
}

#[tokio::test]
async fn an_applications_key_makes_one_effect_of_two_entries_and_separates_event_types() {
    let app = App::start().await;
    for _ in 0..2 {
        // Written by another client, without an event id.
        let words = ["type", "order.placed", "id", "o-1", "customer", "alice"];
        app.server.command(&[&["XADD", "orders", "*"], &words[..]].concat());
    }
    app.client.publish(&Cancelled { id: "o-1".to_owned() }).await.unwrap();
    let builder = Runtime::builder(&app.client).handlers(handlers![charge_by_order, refund]);
    let builder = quick(builder.state(app.postgres.clone()).group("billing", options()));
    let runtime = builder.start().await.unwrap();
    app.drained("billing").await;
    assert_eq!((app.effects().await, app.guard_rows().await), (2, 2), "one of each type");
    let _ = runtime.shutdown().await;
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "receipts", type = "receipt.due")]
struct ReceiptDue {
    order: String,
}

#[derive(Clone)]
struct FailFirst(Client);

#[handler(group = "parents")]
async fn parent(order: Order, State(fail): State<FailFirst>, job: Job) -> Result<(), JobError> {
    for number in 0..3 {
        let child = ReceiptDue { order: order.id.clone() };
        fail.0.publish_with_id(&child, job.derived_event_id(number)).await?;
    }
    if job.is_last_attempt() { Ok(()) } else { Err(JobError::retry("after its children")) }
}

#[handler(group = "receipts")]
async fn child(receipt: ReceiptDue, tx: &mut Once, job: Job) -> Result<(), JobError> {
    Ok(write_effect(tx, &order(receipt.order), &job).await?)
}

#[tokio::test]
async fn children_of_a_job_that_is_tried_again_have_one_effect_each() {
    let app = App::start().await;
    let builder = Runtime::builder(&app.client).handlers(handlers![parent, child]);
    let builder = builder.group("parents", options()).group("receipts", options());
    let states = builder.state(app.postgres.clone()).state(FailFirst(app.client.clone()));
    let runtime = quick(states).start().await.unwrap();
    app.publish(&[order("1")]).await;
    // Five attempts with three children each.
    until("all children are done", || runtime.counters().succeeded == 1 + 15).await;
    assert_eq!(app.server.length("receipts"), 15);
    assert_eq!(app.effects().await, 3);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn jobs_wait_for_a_database_that_is_down_and_no_failure_is_counted() {
    let server = PgServer::start().unwrap();
    let mut app = App::on(server.database().await).await;
    let pool = sqlx::postgres::PgPoolOptions::new().acquire_timeout(Duration::from_secs(1));
    app.pool = pool.connect(&app.database.run_url()).await.unwrap();
    app.postgres = Postgres::open(app.pool.clone()).await.unwrap();
    let gate = Gate::shut();
    let shared = gate.clone();
    let charge = Charge::new(move |order, tx, job| {
        let gate = shared.clone();
        Box::pin(async move {
            gate.passed().await;
            Ok(write_effect(tx, &order, &job).await?)
        })
    });
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.publish(&[order("in its transaction"), order("second")]).await;
    charge.wait_for(2).await;
    server.kill();
    gate.open();
    app.publish(&[order("third")]).await;
    until("all are snoozed", || runtime.counters().snoozed >= 4).await;
    server.restart().unwrap();
    app.drained("billing").await;
    eventually_async(DEADLINE, "three effects", async || app.effects().await == 3).await;
    assert_eq!(runtime.counters().failed, 0);
    assert!(charge.runs().iter().all(|(_, attempt)| *attempt == 1), "{:?}", charge.runs());
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_guard_that_the_database_does_not_answer_snoozes_its_job() {
    let mut app = App::start().await;
    let proxy = FaultProxy::start(&app.database).unwrap();
    let options = app.database.options(Role::Run).port(proxy.port());
    let pool = sqlx::postgres::PgPoolOptions::new().acquire_timeout(Duration::from_millis(500));
    let builder = Postgres::builder(pool.connect_with(options).await.unwrap());
    app.postgres = builder.statement_timeout(Duration::from_millis(500)).open().await.unwrap();
    let charge = Charge::once();
    let runtime = app.runtime(&charge).start().await.unwrap();
    proxy.set(Mode::HoldRequest("INSERT INTO streamjobs.once".into()));
    app.publish(&[order("1")]).await;
    until("snoozed", || runtime.counters().snoozed >= 1).await;
    proxy.set(Mode::Pass);
    app.drained("billing").await;
    assert_eq!((app.effects().await, runtime.counters().failed), (1, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_handler_that_ends_its_transaction_itself_is_not_taken_for_done() {
    let app = App::start().await;
    let charge = Charge::new(|order, tx, job| {
        Box::pin(async move {
            write_effect(tx, &order, &job).await?;
            if job.attempt() == 1 {
                sqlx::raw_sql("ROLLBACK").execute(&mut **tx).await?;
            }
            Ok(())
        })
    });
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.publish(&[order("1")]).await;
    until("done", || runtime.counters().succeeded == 1).await;
    assert_eq!((runtime.counters().failed, charge.count()), (1, 2));
    assert_eq!((app.effects().await, app.guard_rows().await), (1, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_handler_that_idles_in_its_transaction_is_ended_and_fails() {
    let mut app = App::start().await;
    let strict = Postgres::builder(app.pool.clone()).idle_timeout(Duration::from_millis(400));
    app.postgres = strict.open().await.unwrap();
    let gate = Gate::shut();
    let charge = Charge::waiting_for(&gate);
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.publish(&[order("1")]).await;
    charge.wait_for(1).await;
    let idle = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'idle in transaction'";
    eventually_async(DEADLINE, "it is idle", async || app.number(idle).await == 1).await;
    eventually_async(DEADLINE, "it was ended", async || app.number(idle).await == 0).await;
    gate.open();
    app.drained("billing").await;
    assert_eq!((app.effects().await, charge.count()), (1, 2));
    assert_eq!(runtime.counters().failed, 1, "else it would be retried without end");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn jobs_wait_for_a_read_only_database_and_no_failure_is_counted() {
    let app = App::start().await;
    let name = app.database.name();
    // As on a standby, for example during a failover.
    let read_only = async |setting: &str| {
        let set = ["ALTER DATABASE \"", name, "\" ", setting].concat();
        let admin = app.database.admin_pool();
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&admin).await.unwrap();
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND usename = 'streamjobs_run'";
        sqlx::query(end).execute(&admin).await.unwrap();
    };
    read_only("SET default_transaction_read_only = on").await;
    let charge = Charge::once();
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.publish(&[order("1")]).await;
    until("snoozed", || runtime.counters().snoozed >= 2).await;
    assert_eq!((charge.count(), runtime.counters().failed), (0, 0));
    read_only("RESET default_transaction_read_only").await;
    app.drained("billing").await;
    assert_eq!((app.effects().await, runtime.counters().failed), (1, 0));
    let _ = runtime.shutdown().await;
}
