//! One scrape after a scripted history of the Postgres crate, compared with its page and with the
//! history.
//!
//! The test runs in a process of its own, because a process has one recorder.

use std::time::Duration;

use sqlx::PgPool;
use streamjobs::{Client, EventId, GroupName, Runtime, StreamName, handlers};
use streamjobs_postgres::{Keep, Postgres, Relay};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::process::runs_alone;
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::app::{App, Charge, DEADLINE, order, until};
use crate::scrape::{Scrape, recorder};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const TICK: Duration = Duration::from_millis(20);

#[tokio::test]
async fn one_scrape_shows_every_metric_and_equals_the_history_of_the_run() {
    if !runs_alone(
        module_path!(),
        "one_scrape_shows_every_metric_and_equals_the_history_of_the_run",
    ) {
        return;
    }
    recorder();
    let app = App::start().await;
    let charge = Charge::once();
    let runtime = app.runtime(&charge).service(app.postgres.archive().interval(TICK));
    let runtime = runtime.start().await.unwrap();
    a_duplicate_with_another_payload_is_skipped(&app).await;
    letters_are_archived_but_one(&app).await;
    let relay = app.postgres.relay().poll(TICK);
    the_outbox_is_relayed_except_for_bad_rows(&app, &relay).await;
    old_rows_are_pruned(&app).await;
    let _ = runtime.shutdown().await;
    every_service_meets_a_database_that_refuses(&app, relay).await;
    a_commit_is_not_confirmed().await;
    let scrape = Scrape::take();
    scrape.agrees_with("docs/postgres.md", &["streamjobs_postgres_"]);
    let sum =
        |name: &str, labels: &[_]| scrape.sum(&["streamjobs_postgres_", name].concat(), labels);
    let billing = [("stream", "orders"), ("group", "billing")];
    assert_eq!(sum("payload_mismatch_total", &billing), 1);
    assert_eq!(sum("commits_unconfirmed_total", &billing), 1);
    let archived = |reason| sum("archived_total", &[billing[0], billing[1], ("reason", reason)]);
    assert_eq!(["rejected", "crashed", "trimmed"].map(archived), [2, 1, 0]);
    assert_eq!(sum("archive_refused_total", &billing), 1);
    let relayed = |stream| sum("outbox_relayed_total", &[("stream", stream)]);
    assert_eq!(["receipts", "broken"].map(relayed), [2, 0]);
    let failed = |stream| sum("outbox_failed_total", &[("stream", stream)]);
    assert_eq!((failed("receipts"), failed("broken") > 0), (0, true));
    assert_eq!(sum("outbox_refused_total", &[]), 1);
    assert_eq!((sum("outbox_events", &[]), sum("outbox_age_seconds", &[]) / 3_600), (1, 2));
    let pruned = |table| sum("pruned_total", &[("table", table)]);
    assert_eq!(["once", "dead_letters"].map(pruned), [5, 4]);
    assert!(["archive", "relay", "pruner"].map(errors).iter().all(|errors| *errors > 0));
}

async fn execute(app: &App, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&app.database.owner_pool()).await.unwrap();
}

/// Publishes two payloads under one event id.
async fn a_duplicate_with_another_payload_is_skipped(app: &App) {
    let id = EventId::new("twice").unwrap();
    for number in [1, 2] {
        app.client.publish_with_id(&order(number), id.clone()).await.unwrap();
        app.drained("billing").await;
    }
}

/// Three are stored; a constraint refuses the fourth.
async fn letters_are_archived_but_one(app: &App) {
    execute(
        app,
        "ALTER TABLE streamjobs.dead_letters ADD CHECK (consumer IS DISTINCT FROM 'refused')",
    )
    .await;
    let letters =
        [("rejected", "one"), ("rejected", "two"), ("crashed", "one"), ("rejected", "refused")];
    for (reason, consumer) in letters {
        let fields = ["sj-dead-reason", reason, "sj-dead-consumer", consumer, "type", "t"];
        let add = ["XADD", "{orders}:dead:billing", "*"];
        app.server.command(&[&add[..], &fields].concat());
    }
    eventually_async(DEADLINE, "archived", async || {
        let rows = app.number("SELECT count(*) FROM streamjobs.dead_letters").await;
        let refused = Scrape::take().sum("streamjobs_postgres_archive_refused_total", &[]);
        (rows, refused) == (3, 1)
    })
    .await;
}

/// Two events are stored, one waits because its key has another type, and one row is not an event.
async fn the_outbox_is_relayed_except_for_bad_rows(app: &App, relay: &Relay) {
    app.server.command(&["SET", "broken", "x"]);
    execute(
        app,
        "INSERT INTO streamjobs.outbox (stream, event_id, field_names, field_values) VALUES
         ('receipts', 'f', '{}', '{}')",
    )
    .await;
    let publisher = app.postgres.publisher();
    let mut connection = app.pool.acquire().await.unwrap();
    for (stream, id) in [("receipts", "a"), ("receipts", "b"), ("broken", "c")] {
        let (stream, id) = (StreamName::new(stream).unwrap(), EventId::new(id).unwrap());
        publisher.publish_in_to(&mut connection, stream, &order(1), id).await.unwrap();
    }
    execute(
        app,
        "UPDATE streamjobs.outbox SET published_at = clock_timestamp() - interval '2 hours'
         WHERE stream = 'broken'",
    )
    .await;
    let runtime = Runtime::builder(&app.client)
        .handlers(handlers![])
        .service(relay.clone())
        .start()
        .await
        .unwrap();
    eventually_async(DEADLINE, "relayed", async || {
        let rows = app.number("SELECT count(*) FROM streamjobs.outbox").await;
        rows == 2 && Scrape::take().sum("streamjobs_postgres_outbox_events", &[]) == 1
    })
    .await;
    let _ = runtime.shutdown().await;
}

/// Deletes the old guard rows of five jobs, and four old dead letters.
async fn old_rows_are_pruned(app: &App) {
    execute(
        app,
        "INSERT INTO streamjobs.once
             (group_name, key, stream, entry_id, published_at, payload_hash, done_at)
         SELECT 'billing', 'old-' || n, 'orders', n || '-0', at, '\\x00', at
         FROM generate_series(1, 5) AS n, (SELECT clock_timestamp() - interval '30 days') AS t (at);
         INSERT INTO streamjobs.dead_letters
             (stream, group_name, letter_id, digest, reason, fingerprint, attempts, deliveries,
              buried_at, archived_at, field_names, field_values)
         SELECT 'orders', 'billing', n::text, '\\x00', 'exhausted', 'f', 1, 1,
                clock_timestamp() - interval '60 days', clock_timestamp() - interval '60 days',
                '{}', '{}' FROM generate_series(1, 4) AS n",
    )
    .await;
    let pruner = app.postgres.pruner(Keep::default().letters(30 * DAY));
    let pruned = pruner.sweep(&app.client).await.unwrap();
    assert_eq!((pruned.once, pruned.letters), (5, 4));
}

async fn every_service_meets_a_database_that_refuses(app: &App, relay: Relay) {
    execute(app, "REVOKE ALL ON ALL TABLES IN SCHEMA streamjobs FROM streamjobs_run").await;
    let fields = ["sj-dead-reason", "rejected", "type", "t"];
    app.server.command(&[&["XADD", "{orders}:dead:billing", "*"][..], &fields].concat());
    let runtime = services(&app.client, &app.postgres, relay).await;
    eventually_async(DEADLINE, "refused", async || {
        ["archive", "relay", "pruner"].map(errors).iter().all(|errors| *errors > 0)
    })
    .await;
    let _ = runtime.shutdown().await;
}

async fn a_commit_is_not_confirmed() {
    let mut app = App::start().await;
    let proxy = FaultProxy::start(&app.database).unwrap();
    let builder = Postgres::builder(PgPool::connect(proxy.url()).await.unwrap());
    app.postgres = builder.statement_timeout(Duration::from_millis(500)).open().await.unwrap();
    let runtime = app.runtime(&Charge::once()).start().await.unwrap();
    proxy.set(Mode::HoldRequest("COMMIT AND CHAIN".into()));
    app.publish(&[order(1)]).await;
    until("it is put off", || runtime.counters().snoozed == 1).await;
    proxy.set(Mode::Pass);
    app.drained("billing").await;
    let _ = runtime.shutdown().await;
}

async fn services(client: &Client, postgres: &Postgres, relay: Relay) -> Runtime {
    let (stream, group) = (StreamName::new("orders"), GroupName::new("billing"));
    let archive = postgres.archive().queue(stream.unwrap(), group.unwrap()).interval(TICK);
    let pruner = postgres.pruner(Keep::default().interval(Duration::from_secs(1)));
    let builder = Runtime::builder(client)
        .handlers(handlers![])
        .service(archive)
        .service(relay)
        .service(pruner);
    builder.start().await.unwrap()
}

fn errors(service: &str) -> u64 {
    Scrape::take().sum("streamjobs_postgres_errors_total", &[("service", service)])
}
