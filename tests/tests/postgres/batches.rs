//! Guarded batch handlers: one transaction for the jobs of a run, each with its guard row. The examples of
//! `docs/batches.md` run here as they are printed.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{Connection, Executor};
use streamjobs::config::GroupOptions;
use streamjobs::{
    Backoff, Batch, Event, EventId, JobError, Runtime, RuntimeBuilder, State, handler, handlers,
};
use streamjobs_postgres::Once;
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::printed::assert_printed;

use crate::app::{App, DEADLINE, Gate, Order, options, order, quick, until, write_effect};

/// The orders of each run.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Vec<Vec<String>>>>);

impl Runs {
    fn sizes(&self) -> Vec<usize> {
        self.0.lock().unwrap().iter().map(Vec::len).collect()
    }
}

/// Writes one effect for each order; one that is called `bad` fails at its first attempt, with its effect.
#[handler(group = "billing", batch = 50, wait = "100ms")]
async fn charge_all(
    batch: Batch<Order>,
    tx: &mut Once,
    State(runs): State<Runs>,
    State(gate): State<Gate>,
) -> Result<(), JobError> {
    let orders = batch.iter().map(|item| item.event().id.clone()).collect();
    runs.0.lock().unwrap().push(orders);
    for item in &batch {
        let mut savepoint = tx.begin().await?;
        write_effect(&mut savepoint, item.event(), item.job()).await?;
        if item.event().id == "bad" && item.job().attempt() == 1 {
            savepoint.rollback().await?;
            item.fail("not yet");
        } else {
            savepoint.commit().await?;
        }
    }
    if batch.iter().any(|item| item.event().id == "waits") {
        gate.passed().await;
    }
    match batch.iter().any(|item| item.event().id == "fails") && batch.len() > 1 {
        true => Err("the whole run fails".into()),
        false => Ok(()),
    }
}

struct Stage {
    app: App,
    runs: Runs,
    gate: Gate,
}

impl Stage {
    async fn new() -> Self {
        Self { app: App::start().await, runs: Runs::default(), gate: Gate::shut() }
    }

    fn builder(&self) -> RuntimeBuilder {
        let options = options().concurrency(NonZeroU32::new(100).unwrap());
        let builder = Runtime::builder(&self.app.client).handlers(handlers![charge_all]);
        let builder = builder.state(self.app.postgres.clone()).state(self.runs.clone());
        quick(builder.state(self.gate.clone()).group("billing", options))
    }

    async fn publish(&self, orders: &[(&str, &str)]) {
        for (event, name) in orders {
            let id = EventId::new(*event).unwrap();
            self.app.client.publish_with_id(&order(name), id).await.unwrap();
        }
    }

    async fn done(&self, events: u64, effects: i64) -> Runtime {
        let runtime = self.builder().start().await.unwrap();
        until("all are acknowledged", || runtime.counters().acknowledged == events).await;
        self.app.drained("billing").await;
        assert_eq!((self.app.effects().await, self.app.guard_rows().await), (effects, effects));
        runtime
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_run_are_done_once_in_one_transaction() {
    let stage = Stage::new().await;
    stage.app.publish(&(0..120).map(order).collect::<Vec<_>>()).await;
    let runtime = stage.done(120, 120).await;
    assert_eq!(stage.runs.sizes().iter().sum::<usize>(), 120);
    assert!(stage.runs.sizes().contains(&50), "{:?}", stage.runs.sizes());
    assert_eq!(runtime.counters().failed, 0);
    let _ = runtime.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_before_or_is_in_the_run_twice_has_one_effect() {
    let stage = Stage::new().await;
    stage.publish(&[("e-1", "one")]).await;
    let first = stage.done(1, 1).await;
    let _ = first.shutdown().await;
    stage.publish(&[("e-1", "one"), ("e-2", "two"), ("e-2", "two"), ("e-3", "three")]).await;
    let runtime = stage.done(5 - 1, 3).await;
    assert_eq!(stage.runs.sizes(), [1, 2], "e-1 was done, and the second e-2 waits for the first");
    let counters = runtime.counters();
    assert_eq!((counters.failed, counters.snoozed), (0, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_has_no_guard_row_and_runs_again_and_a_failed_run_leaves_nothing() {
    let stage = Stage::new().await;
    stage.publish(&[("e-1", "one"), ("e-2", "bad"), ("e-3", "three")]).await;
    let first = stage.done(3, 3).await;
    assert_eq!((stage.runs.sizes(), first.counters().failed), (vec![3, 1], 1));
    let _ = first.shutdown().await;
    stage.publish(&[("e-4", "four"), ("e-5", "fails")]).await;
    let second = stage.done(2, 5).await;
    assert_eq!((stage.runs.sizes(), second.counters().failed), (vec![3, 1, 2, 1, 1], 0));
    let _ = second.shutdown().await;
}

/// Two runs with the same events, in opposite order, at the same time: neither waits for the other for good.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_another_run_works_on_waits_for_it() {
    let stage = Stage::new().await;
    stage.publish(&[("e-1", "waits"), ("e-2", "two")]).await;
    let runtime = stage.builder().start().await.unwrap();
    until("the first run goes on", || stage.runs.sizes() == [2]).await;
    stage.publish(&[("e-2", "two"), ("e-3", "three"), ("e-1", "waits")]).await;
    until("all are in flight", || stage.app.pending() == 5).await;
    stage.gate.open();
    until("all are acknowledged", || runtime.counters().acknowledged == 5).await;
    assert_eq!((stage.app.effects().await, runtime.counters().failed), (3, 0));
    let _ = runtime.shutdown().await;
}

/// What was committed before the process died, or its session, is not done again.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_session_is_killed_runs_again_and_has_its_effects_once() {
    let stage = Stage::new().await;
    stage.publish(&[("e-1", "waits"), ("e-2", "two")]).await;
    let runtime = stage.builder().start().await.unwrap();
    until("the run goes on", || stage.runs.sizes() == [2]).await;
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in%'";
    stage.app.database.admin_pool().execute(sql).await.unwrap();
    stage.gate.open();
    until("all are acknowledged", || runtime.counters().acknowledged == 2).await;
    assert_eq!((stage.app.effects().await, stage.app.guard_rows().await), (2, 2));
    assert_eq!(runtime.counters().failed, 0);
    let _ = runtime.shutdown().await;
}

/// An index that refuses one page.
#[derive(Clone, Default)]
struct Index(Arc<Mutex<Vec<String>>>);

impl Index {
    async fn put(&self, urls: &[&str]) -> Result<Vec<Option<&'static str>>, JobError> {
        tokio::task::yield_now().await;
        let accepted = |url: &&&str| !url.starts_with("private");
        self.0.lock().unwrap().extend(urls.iter().filter(accepted).map(ToString::to_string));
        let refused = |url: &&str| url.starts_with("private").then_some("the index refuses it");
        Ok(urls.iter().map(refused).collect())
    }
}

// page: begin
#[derive(Event, Serialize, Deserialize)]
#[event(stream = "pages", type = "page.changed")]
struct PageChanged {
    url: String,
}

#[handler(group = "search", concurrency = 200, batch = 100, wait = "200ms", timeout = "30s")]
async fn reindex(batch: Batch<PageChanged>, State(index): State<Index>) -> Result<(), JobError> {
    let urls = batch.iter().map(|item| item.event().url.as_str()).collect::<Vec<_>>();
    let refused = index.put(&urls).await?;
    for (item, refusal) in batch.iter().zip(refused) {
        if let Some(why) = refusal {
            item.fail(why);
        }
    }
    Ok(())
}
// page: end

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "payments", type = "payment.received")]
struct Payment {
    account: String,
    cents: i64,
}

// page: begin
#[handler(group = "ledger", concurrency = 100, batch = 100)]
async fn book(batch: Batch<Payment>, tx: &mut Once) -> Result<(), JobError> {
    let accounts = batch.iter().map(|item| item.event().account.as_str()).collect::<Vec<_>>();
    let cents = batch.iter().map(|item| item.event().cents).collect::<Vec<_>>();
    sqlx::query("INSERT INTO payments SELECT * FROM UNNEST($1::text[], $2::bigint[])")
        .bind(&accounts)
        .bind(&cents)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
// page: end

#[tokio::test]
async fn the_examples_of_the_page_run() {
    assert_printed(include_str!("../../../docs/batches.md"), include_str!("batches.rs"));
    let app = App::start().await;
    let sql = "CREATE TABLE payments (account text, cents bigint);
               GRANT SELECT, INSERT ON payments TO streamjobs_run";
    sqlx::raw_sql(sql).execute(&app.database.owner_pool()).await.unwrap();
    let index = Index::default();
    let builder = Runtime::builder(&app.client).handlers(handlers![reindex, book]);
    let once =
        GroupOptions::new().max_attempts(NonZeroU32::MIN).backoff(Backoff::fixed(Duration::ZERO));
    let builder = builder.state(index.clone()).state(app.postgres.clone());
    let runtime = builder.group("search", once).start().await.unwrap();
    for number in 0..30 {
        let kind = if number == 7 { "private" } else { "public" };
        app.client.publish(&PageChanged { url: format!("{kind}/{number}") }).await.unwrap();
        let account = format!("a-{}", number % 3);
        app.client.publish(&Payment { account, cents: number }).await.unwrap();
    }
    let booked = async || app.number("SELECT count(*) FROM payments").await == 30;
    eventually_async(DEADLINE, "all are booked", booked).await;
    until("29 are indexed", || index.0.lock().unwrap().len() == 29).await;
    until("one is dead", || runtime.counters().dead_lettered == 1).await;
    let _ = runtime.shutdown().await;
}
