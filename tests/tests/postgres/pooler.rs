//! Behind a PgBouncer that assigns connections per transaction, which forbids named statements.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use streamjobs::once::conformance;
use streamjobs::{EncodedEvent, EventId, JobError, Runtime, handlers};
use streamjobs_postgres::letters::{RedriveState, Request, Selection};
use streamjobs_postgres::{Keep, Postgres, migrate};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::logs;
use streamjobs_tests::postgres::{Database, PgServer, Pooler, Role};
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::app::{App, Charge, DEADLINE, Order, order, quick, until};
use crate::rows::Row;

/// A pool of an application behind the pooler.
fn pool(pooler: &Pooler, database: &Database, role: Role, connections: u32) -> PgPool {
    let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(DEADLINE);
    pool.connect_lazy_with(pooler.options(database, role))
}

/// An application behind a pooler that has this many connections to the server.
async fn behind(connections: u32) -> (App, Pooler) {
    let mut app = App::start().await;
    let pooler = Pooler::builder(&app.database).connections(connections).start().unwrap();
    let pool = pool(&pooler, &app.database, Role::Run, 20);
    app.postgres = Postgres::open(pool).await.unwrap();
    (app, pooler)
}

/// Writes one effect as an application behind a pooler must: without a named statement.
fn charge() -> Charge {
    Charge::new(|order, tx, job| {
        Box::pin(async move {
            sqlx::query("INSERT INTO effects (order_id, event_id) VALUES ($1, $2)")
                .persistent(false)
                .bind(&order.id)
                .bind(job.event_id().as_str())
                .execute(&mut **tx)
                .await?;
            if order.id == "rejected" { Err(JobError::dead("no price")) } else { Ok(()) }
        })
    })
}

fn orders(count: usize) -> Vec<Order> {
    (0..count).map(order).collect()
}

#[tokio::test]
async fn migrations_at_once_and_opening_leave_no_statement_on_the_servers_connection() {
    let database = PgServer::shared().database().await;
    let pooler = Pooler::builder(&database).connections(1).start().unwrap();
    let owners = [(); 3].map(|()| pool(&pooler, &database, Role::Owner, 1));
    for migrated in join_all(owners.iter().map(migrate)).await {
        migrated.unwrap();
    }
    for owner in &owners {
        migrate(owner).await.unwrap();
        Postgres::open(owner.clone()).await.unwrap();
    }
    let left = owners[0].fetch_all("SELECT name FROM pg_prepared_statements WHERE name <> ''");
    assert_eq!(left.await.unwrap().len(), 0);
    database.grant("streamjobs").await;
    Postgres::open(pool(&pooler, &database, Role::Run, 1)).await.unwrap();
}

/// What `docs/postgres.md` says of the one setting that sqlx sends and PgBouncer refuses.
#[tokio::test]
async fn a_startup_parameter_is_refused_unless_the_client_or_the_pooler_leaves_it_out() {
    let database = PgServer::shared().database().await;
    let ignoring = ("ignore_startup_parameters", "extra_float_digits");
    for (setting, accepted) in [(None, false), (Some(ignoring), true)] {
        let builder = Pooler::builder(&database);
        let builder =
            setting.into_iter().fold(builder, |builder, (name, value)| builder.config(name, value));
        let pooler = builder.start().unwrap();
        let plain = database.options(Role::Run).port(pooler.port());
        let connected = PgConnection::connect_with(&plain).await;
        let refused = connected.as_ref().err().map(ToString::to_string).unwrap_or_default();
        assert_eq!(
            (connected.is_ok(), refused.contains("extra_float_digits")),
            (accepted, !accepted)
        );
        PgConnection::connect_with(&pooler.options(&database, Role::Run)).await.unwrap();
    }
}

#[tokio::test]
async fn guarded_jobs_have_one_effect_each_and_none_fails() {
    let (app, _pooler) = behind(3).await;
    let (charge, again) = (charge(), charge());
    let runtimes =
        [app.runtime(&charge).start().await.unwrap(), app.runtime(&again).start().await.unwrap()];
    app.publish(&orders(60)).await;
    for number in 0..10 {
        let id = EventId::new(format!("twice-{number}")).unwrap();
        for _ in 0..2 {
            app.client.publish_with_id(&order(number), id.clone()).await.unwrap();
        }
    }
    app.drained("billing").await;
    assert_eq!((app.effects().await, app.guard_rows().await), (70, 70));
    for runtime in runtimes {
        assert_eq!(runtime.counters().failed, 0);
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn marks_keep_their_contract_behind_a_pooler() {
    let (app, _pooler) = behind(1).await;
    conformance::check::<Postgres, _>(&app.client, app.postgres.clone()).await.unwrap();
}

#[tokio::test]
async fn dead_letters_are_archived_found_redriven_and_pruned() {
    let (app, _pooler) = behind(2).await;
    let charge = charge();
    let archive = app.postgres.archive().interval(Duration::from_millis(20));
    let runtime = app.runtime(&charge).service(archive).start().await.unwrap();
    app.publish(&[order("rejected"), order("fine"), order("rejected")]).await;
    let letters = app.postgres.dead_letters();
    let rejected = Selection::new().group("billing").error_contains("no price");
    let archived = async || letters.count(&rejected).await.unwrap() == 2;
    eventually_async(DEADLINE, "archived", archived).await;
    let page = letters.list(&rejected.clone().payload_has("$.id"), None, 10).await.unwrap();
    assert_eq!(page.letters.len(), 2);
    let id = page.letters[0].id;
    assert_eq!(letters.get(id).await.unwrap().as_ref(), Some(&page.letters[0]));
    assert_eq!(letters.counts_by_group(&rejected).await.unwrap()[0].letters, 2);
    assert_eq!(letters.counts_by_fingerprint(&rejected).await.unwrap()[0].letters, 2);

    let redrive = letters.redrive(Selection::new().ids([id]), Request::new("alice", "test"));
    assert_eq!(redrive.dry_run().await.unwrap().letters, 1);
    let redriven = redrive.start(&app.client).await.unwrap();
    assert_eq!((redriven.state, redriven.done), (RedriveState::Finished, 1));
    assert_eq!(letters.redrives(None, 10).await.unwrap(), std::slice::from_ref(&redriven));
    assert_eq!(letters.outcomes(redriven.id, None, 10).await.unwrap().len(), 1);
    until("it ran again", || charge.count() == 4).await;
    let _ = runtime.shutdown().await;

    let old = "UPDATE streamjobs.once SET done_at = done_at - interval '30 days', \
        published_at = published_at - interval '30 days'";
    sqlx::raw_sql(old).execute(&app.pool).await.unwrap();
    let pruned = app.postgres.pruner(Keep::default()).sweep(&app.client).await.unwrap();
    assert_eq!((pruned.once, app.guard_rows().await), (1, 0));
    let event = page.letters[0].event_id.clone().unwrap();
    assert!(letters.forget(&EventId::new(event).unwrap()).await.unwrap() >= 1);
}

#[tokio::test]
async fn clients_that_share_a_connection_never_get_each_others_answers() {
    let (app, pooler) = behind(1).await;
    for number in 1..=4 {
        let group = ["billing", "mail"][usize::from(number % 4 == 0)];
        Row { group, ..Row::new(number) }.insert(&app.pool).await;
    }
    // Each with a connection of its own to the pooler, and one from there to the server.
    let clients = join_all((0..6).map(async |_| {
        let pool = pool(&pooler, &app.database, Role::Run, 1);
        Postgres::open(pool).await.unwrap().dead_letters()
    }))
    .await;
    join_all(clients.iter().enumerate().map(async |(place, letters)| {
        let (group, count) = [("billing", 3), ("mail", 1), ("stock", 0)][place % 3];
        let selection = Selection::new().group(group);
        for _ in 0..40 {
            assert_eq!(letters.count(&selection).await.unwrap(), count, "of {group}");
            let found = letters.list(&selection, None, 10).await.unwrap().letters;
            assert!(found.iter().all(|letter| letter.group == group), "of {group}: {found:?}");
            assert_eq!(found.len() as u64, count);
        }
    }))
    .await;
}

#[tokio::test]
async fn the_relay_says_that_no_notification_arrives_and_polls() {
    let lines = Warnings::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let _guard = logs::of_this_thread(subscriber);
    let (app, _pooler) = behind(2).await;
    let relay = app.postgres.relay().poll(Duration::from_millis(20));
    let builder = quick(Runtime::builder(&app.client).handlers(handlers![]));
    let relay = builder.service(relay).start().await.unwrap();
    let publisher = app.postgres.publisher();
    // The notification that it sends itself before that can fail a statement of another client.
    until("it says so", || lines.with("no notification arrives").len() == 1).await;
    // By itself, and in a transaction of the application.
    let mut connection = app.postgres.pool().acquire().await.unwrap();
    publisher.publish_all_in(&mut connection, &orders(3)).await.unwrap();
    drop(connection);
    let mut transaction = app.postgres.pool().begin().await.unwrap();
    publisher.publish_in(&mut transaction, &order(3)).await.unwrap();
    transaction.commit().await.unwrap();
    until("they are moved", || app.server.length("orders") == 4).await;
    let empty = async || publisher.backlog().await.unwrap().events == 0;
    eventually_async(DEADLINE, "their rows are deleted", empty).await;
    let all = async || app.postgres.pool().num_idle() as u32 == app.postgres.pool().size();
    eventually_async(DEADLINE, "it keeps no connection to listen", all).await;
    let mut connection = app.postgres.pool().acquire().await.unwrap();
    publisher.publish_in(&mut connection, &order(4)).await.unwrap();
    until("it polls", || app.server.length("orders") == 5).await;
    assert_eq!(lines.with("").len(), 1, "{lines:?}");
    let _ = relay.shutdown().await;
}

#[tokio::test]
async fn a_relay_that_is_not_to_listen_polls_and_sends_itself_no_notification() {
    let lines = Warnings::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let _guard = logs::of_this_thread(subscriber);
    let (app, _pooler) = behind(1).await;
    let relay = app.postgres.relay().without_listen().poll(Duration::from_millis(20));
    let builder = quick(Runtime::builder(&app.client).handlers(handlers![]));
    let relay = builder.service(relay).start().await.unwrap();
    for number in 1..=5 {
        let mut connection = app.postgres.pool().acquire().await.unwrap();
        app.postgres.publisher().publish_in(&mut connection, &order(number)).await.unwrap();
        until("it is moved", || app.server.length("orders") == number).await;
    }
    let mut connection = app.postgres.pool().acquire().await.unwrap();
    let channels = sqlx::raw_sql("SELECT pg_listening_channels()");
    assert_eq!(channels.fetch_all(&mut *connection).await.unwrap().len(), 0);
    assert!(lines.with("").is_empty(), "{lines:?}");
    let _ = relay.shutdown().await;
}

#[tokio::test]
async fn an_event_published_in_a_transaction_that_sqlx_does_not_know_is_part_of_it() {
    let app = App::start().await;
    let publisher = app.postgres.publisher();
    let waiting = async || publisher.backlog().await.unwrap().events;
    let mut connection = app.pool.acquire().await.unwrap();
    let publish = async |connection: &mut PgConnection| {
        let events = orders(2);
        let events = events.iter().map(EncodedEvent::new).collect::<Result<Vec<_>, _>>();
        publisher.publish_encoded_in(connection, &events.unwrap()).await.unwrap();
    };
    connection.execute("BEGIN").await.unwrap();
    publish(&mut connection).await;
    connection.execute("ROLLBACK").await.unwrap();
    assert_eq!(waiting().await, 0);
    connection.execute("BEGIN").await.unwrap();
    publish(&mut connection).await;
    assert_eq!(waiting().await, 0, "not committed by the publisher");
    connection.execute("COMMIT").await.unwrap();
    assert_eq!(waiting().await, 2);
    publish(&mut connection).await;
    assert_eq!(waiting().await, 4, "by itself without a transaction");
}

/// The messages of the framework that are warnings or worse.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    pub fn with(&self, text: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.contains(text)).cloned().collect()
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() <= Level::WARN && metadata.target().starts_with("streamjobs_postgres")
        {
            let mut message = Message(String::new());
            event.record(&mut message);
            self.0.lock().unwrap().push(message.0);
        }
    }
}
