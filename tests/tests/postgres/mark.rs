//! Marks in the database for work outside of it.

use std::sync::{Arc, Mutex};

use sqlx::PgPool;
use streamjobs::once::conformance;
use streamjobs::{EventId, Job, JobError, Runtime, State, handler, handlers};
use streamjobs_postgres::{OnceMark, Postgres};
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::app::{App, Gate, Order, options, order, quick, until};

/// The sent mails, and a gate that blocks the sending.
#[derive(Clone)]
struct Mail {
    sent: Arc<Mutex<Vec<(String, bool)>>>,
    gate: Gate,
}

impl Mail {
    fn new() -> Self {
        Self { sent: Arc::default(), gate: Gate::shut() }
    }

    fn sent(&self) -> Vec<(String, bool)> {
        self.sent.lock().unwrap().clone()
    }
}

#[handler(group = "billing", timeout = "20s")]
async fn mail(
    order: Order,
    mark: &mut OnceMark,
    State(mail): State<Mail>,
    job: Job,
) -> Result<(), JobError> {
    mail.sent.lock().unwrap().push((order.id.clone(), mark.is_takeover()));
    if order.id == "fails" && job.attempt() == 1 {
        return Err(JobError::retry("the mail server is busy"));
    }
    mail.gate.passed().await;
    Ok(())
}

async fn runtime(app: &App, mail: &Mail) -> Runtime {
    let builder = Runtime::builder(&app.client).handlers(handlers![self::mail]);
    let builder = builder.state(app.postgres.clone()).state(mail.clone());
    quick(builder.group("billing", options())).start().await.unwrap()
}

#[tokio::test]
async fn marks_in_the_database_keep_their_contract() {
    let app = App::start().await;
    conformance::check::<Postgres, _>(&app.client, app.postgres.clone()).await.unwrap();
}

#[tokio::test]
async fn an_event_that_is_published_twice_is_worked_on_once() {
    let (app, mail) = (App::start().await, Mail::new());
    let runtime = runtime(&app, &mail).await;
    let id = EventId::new("e-1").unwrap();
    for _ in 0..3 {
        app.client.publish_with_id(&order("1"), id.clone()).await.unwrap();
    }
    until("two are snoozed", || runtime.counters().snoozed >= 2).await;
    assert_eq!(mail.sent(), [("1".to_owned(), false)], "the others wait for the running one");
    mail.gate.open();
    app.drained("billing").await;
    app.client.publish_with_id(&order("1"), id).await.unwrap();
    until("all four ended", || runtime.counters().succeeded == 4).await;
    assert_eq!(mail.sent().len(), 1);
    assert_eq!(app.guard_rows().await, 1);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn failed_work_begins_again() {
    let (app, mail) = (App::start().await, Mail::new());
    mail.gate.open();
    let runtime = runtime(&app, &mail).await;
    app.publish(&[order("fails")]).await;
    app.drained("billing").await;
    until("it succeeded", || runtime.counters().succeeded == 1).await;
    assert_eq!(mail.sent(), vec![("fails".to_owned(), false); 2]);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_mark_that_cannot_be_removed_delays_its_job_for_seconds_only() {
    let (mut app, mail) = (App::start().await, Mail::new());
    let proxy = FaultProxy::start(&app.database).unwrap();
    let pool = PgPool::connect(proxy.url()).await.unwrap();
    app.postgres = Postgres::open(pool).await.unwrap();
    let runtime = runtime(&app, &mail).await;
    proxy.set(Mode::HoldRequest("DELETE FROM streamjobs.once".into()));
    app.publish(&[order("fails")]).await;
    let sent = [("fails".to_owned(), false), ("fails".to_owned(), true)];
    until("tried again", || mail.sent() == sent).await;
    mail.gate.open();
    app.drained("billing").await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn work_whose_process_died_is_taken_over_at_once() {
    let (app, mail) = (App::start().await, Mail::new());
    mail.gate.open();
    let id = EventId::new("e-1").unwrap();
    let published = app.client.publish_with_id(&order("1"), id).await.unwrap();
    // The mark that a process leaves when it dies during its work.
    sqlx::query(
        "INSERT INTO streamjobs.once (group_name, key, stream, entry_id, published_at,
            payload_hash, owner, expires_at) VALUES ('billing', 'e-1', 'orders', $1, now(), '', 'dead', now() + '1 hour')",
    )
    .bind(published.entry_id.to_string())
    .execute(&app.pool)
    .await
    .unwrap();
    let runtime = runtime(&app, &mail).await;
    app.drained("billing").await;
    assert_eq!(mail.sent(), [("1".to_owned(), true)]);
    let open = "SELECT count(*) FROM streamjobs.once WHERE done_at IS NULL";
    assert_eq!((app.guard_rows().await, app.number(open).await), (1, 0));
    let _ = runtime.shutdown().await;
}
