//! Batches with completion: what interrupts an end, what is added late, and members that cannot end by themselves.

use streamjobs::{HandlerDef, Job, JobError, Runtime, State, StreamName, handler, handlers};
use streamjobs_postgres::batches::EndMember;
use streamjobs_postgres::letters::{Request, Selection};
use streamjobs_postgres::{OnceMember, Postgres};
use streamjobs_tests::eventually::eventually_async;

use crate::app::{App, DEADLINE, Gate, Order, options, order, quick, until};
use crate::completion::{
    BOTH, Script, album, batch, billing, completed, id, member, publish, published, status,
};

async fn start(app: &App, script: &Script, handlers: [HandlerDef; 1]) -> Runtime {
    let builder = Runtime::builder(&app.client).handlers(handlers);
    let builder = builder.state(script.clone()).state(app.postgres.clone());
    quick(builder.group("billing", options())).start().await.unwrap()
}

#[handler(group = "billing", wrap = EndMember, timeout = "200ms")]
async fn brief(order: Order, State(script): State<Script>) {
    script.runs.lock().unwrap().push(order.id);
}

/// The work is done, and its time is over before the member has ended: the job is no success, and comes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_time_ends_before_its_member_has_ended_comes_again() {
    let (app, script) = (App::start().await, Script::default());
    publish(&app, &["a"]).await;
    let mut held = app.pool.begin().await.unwrap();
    let hold = "SELECT FROM streamjobs.batches WHERE id = 'album-7' FOR UPDATE";
    sqlx::query(hold).execute(&mut *held).await.unwrap();
    let runtime = start(&app, &script, handlers![brief]).await;
    until("it runs again", || script.count() >= 2).await;
    assert_eq!(status(&app).await.unfinished, 1);
    held.rollback().await.unwrap();
    completed(&app).await;
    app.drained("billing").await;
    assert_eq!(published(&app).await, BOTH);
    let _ = runtime.shutdown().await;
}

#[handler(group = "billing", timeout = "300ms", max_attempts = 2)]
async fn brief_member(
    order: Order,
    tx: &mut OnceMember,
    State(script): State<Script>,
    job: Job,
) -> Result<(), JobError> {
    script.play(&order, tx, &job).await
}

/// It waits for the batch, and no wait of a job that is done is a failure of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_done_before_waits_uncounted_until_its_member_can_end() {
    let (app, script) = (App::start().await, Script::default());
    let done = "INSERT INTO streamjobs.once
            (group_name, key, stream, entry_id, published_at, payload_hash, done_at)
        VALUES ('billing', 'a', 'orders', '1-0', now(), '', now())";
    sqlx::query(done).execute(&app.pool).await.unwrap();
    publish(&app, &["a"]).await;
    let mut held = app.pool.begin().await.unwrap();
    let hold = "SELECT FROM streamjobs.batches WHERE id = 'album-7' FOR UPDATE";
    sqlx::query(hold).execute(&mut *held).await.unwrap();
    let runtime = start(&app, &script, handlers![brief_member]).await;
    let ended = || {
        let counters = runtime.counters();
        counters.snoozed >= 3 || counters.failed >= 2
    };
    until("it has been tried some times", ended).await;
    assert_eq!(status(&app).await.unfinished, 1);
    held.rollback().await.unwrap();
    completed(&app).await;
    app.drained("billing").await;
    assert_eq!((runtime.counters().failed, script.count()), (0, 0));
    assert_eq!(published(&app).await, BOTH);
    assert!(app.server.entries("{orders}:dead:billing").is_empty());
    let _ = runtime.shutdown().await;
}

/// Adds a member as code that is no member does.
#[handler(group = "billing")]
async fn adding_openly(
    order: Order,
    tx: &mut OnceMember,
    State(postgres): State<Postgres>,
    State(script): State<Script>,
    job: Job,
) -> Result<(), JobError> {
    let more = [id(&format!("{}-more", order.id))];
    postgres.batches().add_in(tx, &album(), job.group(), &more).await?;
    script.play(&order, tx, &job).await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_add_to_an_open_batch_and_end_at_once_do_not_wait_for_each_other() {
    let app = App::start().await;
    let (gate, batches) = (Gate::shut(), app.postgres.batches());
    let script = Script::gated(&gate);
    let mut connection = app.pool.acquire().await.unwrap();
    batches.open_in(&mut connection, &batch()).await.unwrap();
    batches.add_in(&mut connection, &album(), &billing(), &[id("a"), id("b")]).await.unwrap();
    for member in ["a", "b"] {
        app.client.publish_with_id(&order(member), id(member)).await.unwrap();
    }
    let runtime = start(&app, &script, handlers![adding_openly]).await;
    until("both have added", || script.count() == 2).await;
    gate.open();
    app.drained("billing").await;
    let status = status(&app).await;
    assert_eq!((status.members, status.unfinished), (4, 2));
    assert_eq!((script.count(), app.effects().await), (2, 2), "no run was a deadlock");
    let _ = runtime.shutdown().await;
}

/// `a` adds a member when it is not bad.
#[handler(group = "billing")]
async fn adding_late(
    order: Order,
    tx: &mut OnceMember,
    State(postgres): State<Postgres>,
    State(script): State<Script>,
    job: Job,
) -> Result<(), JobError> {
    script.play(&order, tx, &job).await?;
    if order.id == "a" {
        let late = [id("late")];
        postgres.batches().add_from_in(tx, &job, &album(), job.group(), &late).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_member_that_is_redriven_adds_members_and_success_waits_for_them() {
    let (app, script) = (App::start().await, Script::default());
    script.bad.lock().unwrap().push("a".to_owned());
    publish(&app, &["a"]).await;
    let runtime = start(&app, &script, handlers![adding_late]).await;
    app.drained("billing").await;
    let archive = app.postgres.archive().queue(StreamName::new("orders").unwrap(), billing());
    assert_eq!(archive.sweep(&app.client).await.unwrap().stored, 1);
    assert_eq!(published(&app).await, ["album.processed"]);
    script.bad.lock().unwrap().clear();
    let request = Request::new("alice", "the picture is back");
    let letters = app.postgres.dead_letters();
    let redriven = letters.redrive(Selection::new(), request).start(&app.client).await;
    assert_eq!(redriven.unwrap().done, 1);
    let added = async || status(&app).await.members == 2;
    eventually_async(DEADLINE, "it has added", added).await;
    app.drained("billing").await;
    let waiting = status(&app).await;
    assert_eq!((waiting.unfinished, waiting.dead, waiting.succeeded_at), (1, 0, None));
    app.client.publish_with_id(&order("late"), id("late")).await.unwrap();
    let succeeded = async || status(&app).await.succeeded_at.is_some();
    eventually_async(DEADLINE, "it succeeds", succeeded).await;
    assert_eq!(published(&app).await, BOTH);
    let _ = runtime.shutdown().await;
}

/// The letter of a trimmed payload has no event id: nothing but an operator can say which member it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_payload_was_trimmed_is_ended_by_hand() {
    let (app, script) = (App::start().await, Script::default());
    app.server.command(&["XGROUP", "CREATE", "orders", "billing", "0", "MKSTREAM"]);
    publish(&app, &["a", "b"]).await;
    let read = ["XREADGROUP", "GROUP", "billing", "gone", "COUNT", "1", "STREAMS", "orders", ">"];
    app.server.command(&read);
    let first = app.server.entries("orders")[0].id.clone();
    app.server.command(&["XDEL", "orders", &first]);
    let runtime = start(&app, &script, handlers![member]).await;
    until("its letter", || !app.server.entries("{orders}:dead:billing").is_empty()).await;
    app.drained("billing").await;
    let letter = &app.server.entries("{orders}:dead:billing")[0];
    assert_eq!(letter.text("sj-dead-reason").unwrap(), "trimmed");
    assert!(letter.text("sj-dead-event").is_none(), "an archive cannot end its member");
    let stuck = status(&app).await;
    assert_eq!((stuck.unfinished, stuck.completed_at), (1, None));

    let batches = app.postgres.batches();
    let mut connection = app.pool.acquire().await.unwrap();
    let mut end = async |event: &str, dead| {
        let (album, event) = (album(), id(event));
        batches.end_in(&mut connection, &album, &billing(), &event, dead).await.unwrap()
    };
    assert!(!end("c", true).await, "no such member");
    assert!(end("a", true).await);
    assert!(!end("a", true).await, "it has ended");
    assert_eq!(published(&app).await, ["album.processed"]);
    let dead = status(&app).await;
    assert_eq!((dead.unfinished, dead.dead, dead.succeeded_at), (0, 1, None));
    assert!(end("a", false).await, "it was done elsewhere");
    assert!(!end("a", true).await, "what is done stays done");
    assert_eq!(published(&app).await, BOTH);
    let _ = runtime.shutdown().await;
}

/// The statistics are of a table with many unfinished members: the end of the last one reads an index all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_reads_no_members_that_have_ended() {
    let (app, script) = (App::start().await, Script::default());
    publish(&app, &["a"]).await;
    let owner = app.database.owner_pool();
    for sql in [
        "INSERT INTO streamjobs.batch_members (batch_id, group_name, event_id, ended_at)
         SELECT 'album-7', 'billing', 'e-' || number, NULL FROM generate_series(1, 100000) AS number",
        "ANALYZE streamjobs.batch_members",
        "UPDATE streamjobs.batch_members SET ended_at = now()
         WHERE ended_at IS NULL AND event_id <> 'a'",
    ] {
        sqlx::query(sql).execute(&owner).await.unwrap();
    }
    let runtime = start(&app, &script, handlers![member]).await;
    completed(&app).await;
    let scans = "SELECT idx_scan FROM pg_stat_user_indexes
        WHERE indexrelname = 'batch_members_unfinished'";
    let used = async || app.number(scans).await > 0;
    eventually_async(DEADLINE, "it has read the index of unfinished members", used).await;
    assert_eq!(published(&app).await, BOTH);
    let _ = runtime.shutdown().await;
}
