//! Batches with completion: one completion, whatever happens to members, transactions and connections.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::Connection;
use streamjobs::{
    Event, EventId, GroupName, Job, JobError, Runtime, RuntimeBuilder, State, StreamName, handler,
    handlers,
};
use streamjobs_postgres::batches::{BatchError, BatchId, BatchStatus, EndMember, NewBatch};
use streamjobs_postgres::letters::{Request, Selection};
use streamjobs_postgres::{Keep, OnceMember, Postgres};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::app::{App, DEADLINE, Gate, Order, options, order, quick, until, write_effect};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "albums", type = "album.processed")]
struct Processed {
    album: String,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "albums", type = "album.complete")]
struct Complete {
    album: String,
}

/// What the members do in one test.
#[derive(Clone, Default)]
pub struct Script {
    pub runs: Arc<Mutex<Vec<String>>>,
    /// Orders that fail for good.
    pub bad: Arc<Mutex<Vec<String>>>,
    /// Holds all of them, in their transactions.
    gate: Option<Gate>,
}

impl Script {
    pub fn gated(gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..Self::default() }
    }

    pub fn count(&self) -> usize {
        self.runs.lock().unwrap().len()
    }

    pub async fn play(
        &self,
        order: &Order,
        tx: &mut sqlx::PgConnection,
        job: &Job,
    ) -> Result<(), JobError> {
        write_effect(tx, order, job).await?;
        self.runs.lock().unwrap().push(order.id.clone());
        if let Some(gate) = &self.gate {
            gate.passed().await;
        }
        if self.bad.lock().unwrap().contains(&order.id) {
            return Err(JobError::dead("no such picture"));
        }
        Ok(())
    }
}

#[handler(group = "billing")]
pub async fn member(
    order: Order,
    tx: &mut OnceMember,
    State(script): State<Script>,
    job: Job,
) -> Result<(), JobError> {
    script.play(&order, tx, &job).await
}

/// Adds a member for each member whose name says so.
#[handler(group = "billing")]
async fn adding(
    order: Order,
    tx: &mut OnceMember,
    State(postgres): State<Postgres>,
    job: Job,
) -> Result<(), JobError> {
    write_effect(tx, &order, &job).await?;
    if let Some((_, rest)) = order.id.split_once('+') {
        let more = crate::app::order(rest);
        let added = [postgres.publisher().publish_in(tx, &more).await?];
        let batches = postgres.batches();
        assert_eq!(batches.add_from_in(tx, &job, &album(), job.group(), &added).await?, 1);
    }
    Ok(())
}

/// A handler without a guard.
#[handler(group = "billing", wrap = EndMember)]
async fn unguarded(order: Order, State(script): State<Script>) {
    script.runs.lock().unwrap().push(order.id);
}

pub fn album() -> BatchId {
    BatchId::new("album-7").unwrap()
}

pub fn billing() -> GroupName {
    GroupName::new("billing").unwrap()
}

pub fn id(name: &str) -> EventId {
    EventId::new(name).unwrap()
}

pub fn batch() -> NewBatch {
    let event = || "seven".to_owned();
    let batch = NewBatch::new(album()).on_completed(&Processed { album: event() }).unwrap();
    batch.on_succeeded(&Complete { album: event() }).unwrap()
}

/// Opens a batch of these members, closes it, and publishes their events.
pub async fn publish(app: &App, members: &[&str]) {
    let batches = app.postgres.batches();
    let ids = members.iter().map(|member| id(member)).collect::<Vec<_>>();
    let mut transaction = app.pool.begin().await.unwrap();
    assert!(batches.open_in(&mut transaction, &batch()).await.unwrap());
    let added = batches.add_in(&mut transaction, &album(), &billing(), &ids).await.unwrap();
    assert_eq!(added, members.len() as u64);
    assert!(batches.close_in(&mut transaction, &album()).await.unwrap());
    transaction.commit().await.unwrap();
    for member in members {
        app.client.publish_with_id(&order(member), id(member)).await.unwrap();
    }
}

fn runtime(app: &App, script: &Script) -> RuntimeBuilder {
    let builder = Runtime::builder(&app.client).handlers(handlers![member]);
    quick(builder.state(script.clone()).state(app.postgres.clone()).group("billing", options()))
}

pub async fn status(app: &App) -> BatchStatus {
    app.postgres.batches().status(&album()).await.unwrap().unwrap()
}

pub async fn completed(app: &App) {
    let completed = async || status(app).await.completed_at.is_some();
    eventually_async(DEADLINE, "the batch has completed", completed).await;
}

/// The event types that the batch has published, in their order.
pub async fn published(app: &App) -> Vec<String> {
    assert_eq!(app.postgres.relay().sweep(&app.client).await.unwrap().refused, 0);
    let entries = app.server.entries("albums");
    entries.into_iter().map(|entry| entry.text("type").unwrap()).collect()
}

pub const BOTH: [&str; 2] = ["album.processed", "album.complete"];

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_last_member_publishes_one_completion_over_any_delivery() {
    let (app, script) = (App::start().await, Script::default());
    publish(&app, &["a", "b", "c"]).await;
    // Each is delivered twice, under its id.
    for member in ["a", "b", "c"] {
        app.client.publish_with_id(&order(member), id(member)).await.unwrap();
    }
    let runtime = runtime(&app, &script).start().await.unwrap();
    completed(&app).await;
    app.drained("billing").await;
    assert_eq!(published(&app).await, BOTH);
    let entries = app.server.entries("albums");
    let ids = entries.iter().map(|entry| entry.text("sj-id").unwrap()).collect::<Vec<_>>();
    let (done, clean) = (album().completed_event_id(), album().succeeded_event_id());
    assert_eq!(ids, [done.to_string(), clean.to_string()]);
    assert!(entries[0].text("data").unwrap().contains("seven"));
    let status = status(&app).await;
    assert_eq!((status.members, status.unfinished, status.dead), (3, 0, 0));
    assert!(status.succeeded_at.is_some() && status.completed_at >= status.closed_at);
    assert_eq!((script.count(), app.effects().await), (3, 3));
    let _ = runtime.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_member_completes_its_batch_and_its_redrive_makes_it_a_success_once() {
    let (app, script) = (App::start().await, Script::default());
    script.bad.lock().unwrap().push("b".to_owned());
    publish(&app, &["a", "b", "c"]).await;
    let runtime = runtime(&app, &script).start().await.unwrap();
    app.drained("billing").await;
    let status_before = status(&app).await;
    assert_eq!((status_before.unfinished, status_before.completed_at), (1, None));
    let archive = || app.postgres.archive().queue(StreamName::new("orders").unwrap(), billing());
    assert_eq!(archive().sweep(&app.client).await.unwrap().stored, 1);
    assert_eq!(published(&app).await, ["album.processed"]);
    let dead = status(&app).await;
    assert_eq!((dead.unfinished, dead.dead, dead.succeeded_at), (0, 1, None));

    let letters = app.postgres.dead_letters();
    let redrive = async || {
        let request = Request::new("alice", "the picture is back");
        let redriven = letters.redrive(Selection::new(), request).start(&app.client).await;
        assert_eq!(redriven.unwrap().done, 1);
        app.drained("billing").await;
        assert_eq!(archive().sweep(&app.client).await.unwrap().refused, 0);
    };
    // It dies again: still completed once, and no success.
    redrive().await;
    assert_eq!(published(&app).await, ["album.processed"]);
    assert_eq!(status(&app).await.dead, 1);
    script.bad.lock().unwrap().clear();
    redrive().await;
    assert_eq!(published(&app).await, BOTH);
    let clean = status(&app).await;
    assert_eq!((clean.dead, clean.completed_at), (0, dead.completed_at));
    assert!(clean.succeeded_at > clean.completed_at);
    // Told once more, nothing changes.
    app.client.publish_with_id(&order("b"), id("b")).await.unwrap();
    app.drained("billing").await;
    assert_eq!(
        (published(&app).await, status(&app).await.dead),
        (BOTH.map(String::from).to_vec(), 0)
    );
    let _ = runtime.shutdown().await;
}

/// All members are in their transactions at the same time, and commit at the same time, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_end_at_the_same_time_have_one_completion() {
    let app = App::start().await;
    for round in 0..10 {
        let gate = Gate::shut();
        let script = Script::gated(&gate);
        for table in ["TRUNCATE streamjobs.batches CASCADE", "TRUNCATE streamjobs.once"] {
            sqlx::query(table).execute(&app.database.owner_pool()).await.unwrap();
        }
        let names = (0..8).map(|member| format!("{round}-{member}")).collect::<Vec<_>>();
        publish(&app, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let runtime = runtime(&app, &script).start().await.unwrap();
        until("all are in their transactions", || script.count() == 8).await;
        gate.open();
        completed(&app).await;
        app.drained("billing").await;
        let status = status(&app).await;
        assert_eq!((status.unfinished, status.dead), (0, 0));
        assert_eq!(published(&app).await.len(), 2 * (round + 1));
        assert_eq!(runtime.counters().failed, 0, "no two of them wait for each other");
        let _ = runtime.shutdown().await;
    }
}

/// By hand: the second waits for the first, and sees what it did.
#[tokio::test]
async fn the_second_of_two_ends_waits_for_the_first_and_completes() {
    let app = App::start().await;
    publish(&app, &["a", "b"]).await;
    let end = "SELECT FROM streamjobs.batches WHERE id = 'album-7' FOR NO KEY UPDATE";
    let mut first = app.pool.begin().await.unwrap();
    sqlx::query(end).execute(&mut *first).await.unwrap();
    let script = Script::default();
    let runtime = runtime(&app, &script).start().await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually_async(DEADLINE, "both wait", async || app.number(waiting).await == 2).await;
    assert_eq!(
        (status(&app).await.unfinished, app.effects().await),
        (2, 0),
        "nothing is committed"
    );
    first.rollback().await.unwrap();
    completed(&app).await;
    assert_eq!(published(&app).await, BOTH);
    let _ = runtime.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_rolls_its_end_back_with_its_effects() {
    let app = App::start().await;
    publish(&app, &["a"]).await;
    let gate = Gate::shut();
    let script = Script::gated(&gate);
    let runtime = runtime(&app, &script).start().await.unwrap();
    until("it runs", || script.count() == 1).await;
    // The session of the attempt is killed in its transaction.
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'idle in transaction'";
    let killed: i64 = sqlx::query_scalar(kill).fetch_one(&app.database.admin_pool()).await.unwrap();
    assert_eq!(killed, 1);
    assert_eq!((status(&app).await.unfinished, app.effects().await), (1, 0));
    gate.open();
    completed(&app).await;
    app.drained("billing").await;
    assert_eq!((published(&app).await.len(), app.effects().await), (2, 1));
    let _ = runtime.shutdown().await;
}

/// The reply to the commit of the last member is lost: it is committed, and the job runs no second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_is_lost_completes_once() {
    let mut app = App::start().await;
    let proxy = FaultProxy::start(&app.database).unwrap();
    publish(&app, &["a"]).await;
    let direct = app.postgres.clone();
    let options = app.database.options(streamjobs_tests::postgres::Role::Run).port(proxy.port());
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(4).connect_lazy_with(options);
    app.postgres = Postgres::open(pool).await.unwrap();
    proxy.set(Mode::LoseReplyTo("COMMIT AND CHAIN".to_owned()));
    let (script, faults) = (Script::default(), proxy.faults());
    let runtime = runtime(&app, &script).start().await.unwrap();
    until("a reply is lost", || proxy.faults() > faults).await;
    proxy.set(Mode::Pass);
    app.postgres = direct;
    completed(&app).await;
    app.drained("billing").await;
    assert_eq!(published(&app).await, BOTH);
    assert_eq!((app.effects().await, script.count()), (1, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_empty_batch_completes_at_its_close_and_an_open_one_does_not() {
    let app = App::start().await;
    let (batches, mut connection) = (app.postgres.batches(), app.pool.acquire().await.unwrap());
    assert!(batches.open_in(&mut connection, &batch()).await.unwrap());
    assert!(!batches.open_in(&mut connection, &batch()).await.unwrap(), "it is there");
    assert!(published(&app).await.is_empty());
    let mut rolled_back = app.pool.begin().await.unwrap();
    assert!(batches.close_in(&mut rolled_back, &album()).await.unwrap());
    rolled_back.rollback().await.unwrap();
    assert_eq!((published(&app).await.len(), status(&app).await.closed_at), (0, None));
    assert!(batches.close_in(&mut connection, &album()).await.unwrap());
    assert_eq!(published(&app).await, BOTH);
    assert!(!batches.close_in(&mut connection, &album()).await.unwrap());
    assert_eq!(published(&app).await, BOTH, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_adds_members_before_its_own_end() {
    let app = App::start().await;
    publish(&app, &["a+b+c", "d"]).await;
    let builder = Runtime::builder(&app.client).handlers(handlers![adding]);
    let builder = builder.state(app.postgres.clone()).service(app.postgres.relay());
    let runtime = quick(builder.group("billing", options())).start().await.unwrap();
    completed(&app).await;
    let status = status(&app).await;
    // a+b+c adds b+c, which adds c.
    assert_eq!((status.members, status.unfinished), (4, 0));
    assert_eq!(app.effects().await, 4);
    app.drained("billing").await;
    let relayed = async || app.server.entries("albums").len() == 2;
    eventually_async(DEADLINE, "published", relayed).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_added_or_closed_is_refused_by_name() {
    let app = App::start().await;
    let (batches, other) = (app.postgres.batches(), BatchId::generate());
    publish(&app, &["a"]).await;
    let mut transaction = app.pool.begin().await.unwrap();
    let added = batches.add_in(&mut transaction, &album(), &billing(), &[id("b")]).await;
    assert!(matches!(added, Err(BatchError::Closed { .. })), "{added:?}");
    let missing = batches.close_in(&mut transaction, &other).await.unwrap_err();
    assert_eq!(missing.to_string(), format!("there is no batch {other}"));
    // The transaction can go on.
    assert!(batches.open_in(&mut transaction, &NewBatch::new(other.clone())).await.unwrap());
    assert_eq!(batches.add_in(&mut transaction, &other, &billing(), &[id("b")]).await.unwrap(), 1);
    assert_eq!(batches.add_in(&mut transaction, &other, &billing(), &[id("b")]).await.unwrap(), 0);
    transaction.commit().await.unwrap();
    let mut connection = app.pool.acquire().await.unwrap();
    let mut snapshot =
        connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    let refused = batches.close_in(&mut snapshot, &other).await;
    assert!(matches!(refused, Err(BatchError::Isolation { .. })), "{refused:?}");
}

/// What adds and has not committed keeps a close waiting, which then sees the new member.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_waits_for_members_that_are_being_added() {
    let app = App::start().await;
    let batches = app.postgres.batches();
    let mut connection = app.pool.acquire().await.unwrap();
    batches.open_in(&mut connection, &batch()).await.unwrap();
    let mut adding = app.pool.begin().await.unwrap();
    batches.add_in(&mut adding, &album(), &billing(), &[id("a")]).await.unwrap();
    let closing = async {
        let mut connection = app.pool.acquire().await.unwrap();
        batches.close_in(&mut connection, &album()).await.unwrap()
    };
    let committing = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually_async(DEADLINE, "it waits", async || app.number(waiting).await == 1).await;
        adding.commit().await.unwrap();
    };
    let (closed, ()) = tokio::join!(closing, committing);
    assert!(closed);
    let status = status(&app).await;
    assert_eq!((status.members, status.unfinished, status.completed_at), (1, 1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_without_a_guard_ends_its_member_at_least_once() {
    let (app, script) = (App::start().await, Script::default());
    publish(&app, &["a", "b"]).await;
    let builder = Runtime::builder(&app.client).handlers(handlers![unguarded]);
    let builder = builder.state(script.clone()).state(app.postgres.clone());
    let runtime = quick(builder.group("billing", options())).start().await.unwrap();
    completed(&app).await;
    app.client.publish_with_id(&order("a"), id("a")).await.unwrap();
    until("it runs again", || script.count() == 3).await;
    app.drained("billing").await;
    assert_eq!(published(&app).await, BOTH);
    let _ = runtime.shutdown().await;
}

/// A job that was done under its guard before it was added ends when it is delivered again.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_done_before_ends_when_it_is_delivered_again() {
    let (app, script) = (App::start().await, Script::default());
    app.client.publish_with_id(&order("a"), id("a")).await.unwrap();
    let runtime = runtime(&app, &script).start().await.unwrap();
    app.drained("billing").await;
    publish(&app, &["a"]).await;
    completed(&app).await;
    assert_eq!((script.count(), app.effects().await), (1, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn old_batches_are_pruned_and_those_that_do_not_end_are_listed() {
    let app = App::start().await;
    let batches = app.postgres.batches();
    let mut connection = app.pool.acquire().await.unwrap();
    for name in ["old", "stuck", "new"] {
        let batch = NewBatch::new(BatchId::new(name).unwrap());
        batches.open_in(&mut connection, &batch).await.unwrap();
        let members = [id(name)];
        batches
            .add_in(&mut connection, &BatchId::new(name).unwrap(), &billing(), &members)
            .await
            .unwrap();
    }
    for sql in [
        "UPDATE streamjobs.batch_members SET ended_at = now() WHERE batch_id = 'old'",
        "UPDATE streamjobs.batches SET closed_at = now(), completed_at = now() - interval '40 days',
            opened_at = now() - interval '41 days' WHERE id = 'old'",
        "UPDATE streamjobs.batches SET opened_at = now() - interval '2 days' WHERE id = 'stuck'",
    ] {
        sqlx::query(sql).execute(&mut *connection).await.unwrap();
    }
    let day = Duration::from_secs(24 * 60 * 60);
    let stuck = batches.unfinished(day, 10).await.unwrap();
    let names = stuck.iter().map(|batch| (batch.id.as_str(), batch.members, batch.unfinished));
    assert_eq!(names.collect::<Vec<_>>(), [("stuck", 1, 1)]);
    let view = "SELECT count(*) FROM streamjobs.unfinished_batches WHERE unfinished = 1";
    assert_eq!(app.number(view).await, 2);
    let pruner = app.postgres.pruner(Keep::default());
    let pruned = pruner.sweep(&app.client).await.unwrap();
    assert_eq!((pruned.batches, pruned.unfinished_batches), (1, Some(1)));
    assert_eq!(app.number("SELECT count(*) FROM streamjobs.batches").await, 2);
    assert_eq!(app.number("SELECT count(*) FROM streamjobs.batch_members").await, 2);
}
