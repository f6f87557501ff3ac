//! The guard: an effect once for each event, whatever happens to attempts, sessions and settings.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::{Connection, Executor};
use streamjobs::{EventId, JobError};
use streamjobs_postgres::Postgres;
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::proxy::{FaultProxy, Mode};
use streamjobs_tests::server::RedisServer;

use crate::app::{App, Charge, DEADLINE, Gate, options, order, until, write_effect};

fn id(name: &str) -> EventId {
    EventId::new(name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_concurrent_deliveries_have_one_effect_and_one_guard_row() {
    let app = App::with_connections(60).await;
    for _ in 0..50 {
        app.client.publish_with_id(&order("o-1"), id("e-1")).await.unwrap();
    }
    let charge = Charge::once();
    let wide = options().concurrency(NonZeroU32::new(50).unwrap());
    let runtime = app.runtime(&charge).group("billing", wide).start().await.unwrap();
    app.drained("billing").await;
    assert_eq!((app.effects().await, app.guard_rows().await, charge.count()), (1, 1, 1));
    assert_eq!(runtime.counters().failed, 0);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_second_attempt_waits_and_skips_when_the_first_commits() {
    let app = App::start().await;
    let gate = Gate::shut();
    let charge = Charge::waiting_for(&gate);
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.client.publish_with_id(&order("o-1"), id("e-1")).await.unwrap();
    charge.wait_for(1).await;
    app.client.publish_with_id(&order("o-1"), id("e-1")).await.unwrap();
    waits_for_a_lock(&app, 1).await;
    gate.open();
    app.drained("billing").await;
    assert_eq!((app.effects().await, charge.count()), (1, 1));
    assert_eq!(runtime.counters().failed, 0);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_second_attempt_waits_and_runs_when_the_first_fails() {
    let app = App::start().await;
    let gate = Gate::shut();
    let (shared, runs) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
    let charge = Charge::new(move |order, tx, job| {
        let (gate, run) = (shared.clone(), runs.fetch_add(1, Ordering::SeqCst));
        Box::pin(async move {
            write_effect(tx, &order, &job).await?;
            if run == 0 {
                gate.passed().await;
                return Err(JobError::dead("the first attempt fails"));
            }
            Ok(())
        })
    });
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.client.publish_with_id(&order("o-1"), id("e-1")).await.unwrap();
    charge.wait_for(1).await;
    app.client.publish_with_id(&order("o-1"), id("e-1")).await.unwrap();
    waits_for_a_lock(&app, 1).await;
    gate.open();
    app.drained("billing").await;
    assert_eq!((app.effects().await, app.guard_rows().await, charge.count()), (1, 1, 2));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_wait_for_a_lock_that_takes_too_long_is_no_failed_attempt() {
    let mut app = App::start().await;
    let impatient = Postgres::builder(app.pool.clone()).lock_timeout(Duration::from_millis(20));
    app.postgres = impatient.open().await.unwrap();
    let gate = Gate::shut();
    let charge = Charge::waiting_for(&gate);
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.client.publish_with_id(&order("o-1"), id("e-1")).await.unwrap();
    charge.wait_for(1).await;
    app.client.publish_with_id(&order("o-1"), id("e-1")).await.unwrap();
    until("the second was snoozed", || runtime.counters().snoozed >= 2).await;
    gate.open();
    app.drained("billing").await;
    assert_eq!((app.effects().await, runtime.counters().failed), (1, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn when_the_session_of_an_attempt_is_killed_the_next_one_runs() {
    let app = App::start().await;
    let (gate, sessions) = (Gate::shut(), Arc::new(Mutex::new(Vec::new())));
    let (shared, known) = (gate.clone(), Arc::clone(&sessions));
    let charge = Charge::new(move |order, tx, job| {
        let (gate, known) = (shared.clone(), Arc::clone(&known));
        Box::pin(async move {
            write_effect(tx, &order, &job).await?;
            let session = sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()");
            let session = session.fetch_one(&mut **tx).await?;
            let first = {
                let mut known = known.lock().unwrap();
                known.push(session);
                known.len() == 1
            };
            if first {
                gate.passed().await;
            }
            Ok(())
        })
    });
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.client.publish_with_id(&order("o-1"), id("e-1")).await.unwrap();
    until("the first attempt is in its transaction", || !sessions.lock().unwrap().is_empty()).await;
    app.client.publish_with_id(&order("o-1"), id("e-1")).await.unwrap();
    waits_for_a_lock(&app, 1).await;
    let first = sessions.lock().unwrap()[0];
    let admin = app.database.admin_pool();
    sqlx::query("SELECT pg_terminate_backend($1)").bind(first).execute(&admin).await.unwrap();
    until("the second attempt runs", || charge.count() == 2).await;
    gate.open();
    app.drained("billing").await;
    assert_eq!((app.effects().await, app.guard_rows().await), (1, 1));
    assert_eq!(runtime.counters().failed, 0, "a killed session counts as no failure");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_stricter_isolation_of_the_session_makes_no_attempt_fail() {
    for level in ["repeatable read", "serializable"] {
        let app = App::start().await;
        let name = app.database.name();
        let set =
            ["ALTER DATABASE \"", name, "\" SET default_transaction_isolation = '", level, "'"];
        let admin = app.database.admin_pool();
        admin.execute(sqlx::AssertSqlSafe(set.concat())).await.unwrap();
        let pool = app.database.pool_of(20);
        let app = App { postgres: Postgres::open(pool.clone()).await.unwrap(), pool, ..app };
        let default = app
            .number(
                "SELECT count(*) FROM pg_settings
            WHERE name = 'default_transaction_isolation' AND setting <> 'read committed'",
            )
            .await;
        assert_eq!(default, 1, "the pool's sessions are {level} by default");
        for _ in 0..10 {
            app.client.publish_with_id(&order("o-1"), id("e-1")).await.unwrap();
        }
        let charge = Charge::once();
        let runtime = app.runtime(&charge).start().await.unwrap();
        app.drained("billing").await;
        let counters = runtime.counters();
        assert_eq!((app.effects().await, counters.failed, counters.snoozed), (1, 0, 0), "{level}");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_deadlock_of_two_handlers_is_no_failed_attempt() {
    let app = App::start().await;
    let owner = app.database.owner_pool();
    sqlx::raw_sql(
        "CREATE TABLE accounts (id text PRIMARY KEY, cents bigint NOT NULL);
         INSERT INTO accounts VALUES ('a', 0), ('b', 0);
         GRANT SELECT, UPDATE ON accounts TO streamjobs_run",
    )
    .execute(&owner)
    .await
    .unwrap();
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let (met, runs) = (Arc::clone(&both), Arc::new(AtomicUsize::new(0)));
    let charge = Charge::new(move |order, tx, job| {
        let (met, run) = (Arc::clone(&met), runs.fetch_add(1, Ordering::SeqCst));
        Box::pin(async move {
            let update = "UPDATE accounts SET cents = cents + 1 WHERE id = $1";
            let (first, second) = if order.id == "1" { ("a", "b") } else { ("b", "a") };
            sqlx::query(update).bind(first).execute(&mut **tx).await?;
            if run < 2 {
                met.wait().await;
            }
            sqlx::query(update).bind(second).execute(&mut **tx).await?;
            Ok(write_effect(tx, &order, &job).await?)
        })
    });
    app.publish(&[order("1"), order("2")]).await;
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.drained("billing").await;
    let counters = runtime.counters();
    assert_eq!((app.effects().await, counters.failed), (2, 0));
    assert!(counters.snoozed >= 1, "one of the two was the deadlock's victim");
    assert_eq!(app.number("SELECT sum(cents)::bigint FROM accounts").await, 4);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_exhausted_pool_is_no_failed_attempt() {
    let app = App::start().await;
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(1))
        .connect(&app.database.run_url())
        .await
        .unwrap();
    let app = App { postgres: Postgres::open(pool.clone()).await.unwrap(), ..app };
    let taken = pool.acquire().await.unwrap();
    let charge = Charge::once();
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.publish(&[order("1")]).await;
    until("snoozed twice", || runtime.counters().snoozed >= 2).await;
    drop(taken);
    app.drained("billing").await;
    assert_eq!((app.effects().await, runtime.counters().failed), (1, 0));
    assert_eq!(charge.runs(), [(String::from("1"), 1)], "still the first attempt");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_handler_that_wants_the_only_connection_of_the_pool_fails_and_nothing_hangs() {
    let app = App::start().await;
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(1))
        .connect(&app.database.run_url())
        .await
        .unwrap();
    let app = App { postgres: Postgres::open(pool.clone()).await.unwrap(), ..app };
    let charge = Charge::new(move |_, _, _| {
        let pool = pool.clone();
        Box::pin(async move {
            let second = pool.acquire().await.map_err(JobError::dead)?;
            drop(second);
            Ok(())
        })
    });
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.publish(&[order("1")]).await;
    app.drained("billing").await;
    let letters =
        app.client.dead_letters("orders", "billing").unwrap().list(None, 1).await.unwrap();
    let error = letters.letters[0].error.clone().unwrap();
    assert!(error.contains("timed out") && error.contains("connection"), "{error}");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_error_that_the_handler_hides_does_not_make_the_job_done() {
    let app = App::start().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let charge = Charge::new(move |order, tx, job| {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            write_effect(tx, &order, &job).await?;
            if run == 0 {
                let refused = (&mut **tx).execute("SELECT 1 / 0").await;
                assert!(refused.is_err());
            }
            Ok(())
        })
    });
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.publish(&[order("1")]).await;
    app.drained("billing").await;
    assert_eq!((app.effects().await, app.guard_rows().await, charge.count()), (1, 1, 2));
    assert_eq!(runtime.counters().failed, 1, "the first attempt could not be committed");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_attempt_that_lost_its_lease_does_not_commit() {
    let app = App::start().await;
    let gate = Gate::shut();
    let shared = gate.clone();
    let charge = Charge::new(move |order, tx, job| {
        let gate = shared.clone();
        Box::pin(async move {
            write_effect(tx, &order, &job).await?;
            job.cancelled().cancelled().await;
            gate.open();
            Ok(())
        })
    });
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.publish(&[order("1")]).await;
    charge.wait_for(1).await;
    let entry = app.server.pending("orders", "billing").remove(0).id;
    app.server.command(&["XCLAIM", "orders", "billing", "thief", "0", &entry]);
    gate.passed().await;
    until("the attempt is over", || runtime.counters().leases_lost == 1).await;
    let idle = || runtime.health().queues.iter().all(|queue| queue.in_flight == 0);
    until("its slot is free", idle).await;
    assert_eq!((app.effects().await, app.guard_rows().await), (0, 0));
    assert_eq!(app.pending(), 1, "the other attempt has it");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_transaction_that_the_handler_begins_is_a_savepoint() {
    let app = App::start().await;
    let charge = Charge::new(|order, tx, job| {
        Box::pin(async move {
            write_effect(tx, &order, &job).await?;
            let mut inner = tx.begin().await?;
            write_effect(&mut inner, &order, &job).await?;
            inner.rollback().await?;
            let mut inner = tx.begin().await?;
            write_effect(&mut inner, &order, &job).await?;
            inner.commit().await?;
            if job.attempt() == 1 { Err(JobError::retry("once more")) } else { Ok(()) }
        })
    });
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.publish(&[order("1")]).await;
    app.drained("billing").await;
    assert_eq!(app.effects().await, 2, "two of three from the attempt that succeeded");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_event_whose_publishing_was_unconfirmed_has_one_effect_when_published_again() {
    let app = App::start().await;
    let proxy = FaultProxy::start(&app.server).unwrap();
    let shaky = streamjobs::Client::connect(proxy.url()).await.unwrap();
    proxy.set(Mode::LoseReplyTo("XADD".into()));
    let error = shaky.publish_with_id(&order("1"), id("e-1")).await.unwrap_err();
    assert!(error.is_unconfirmed());
    app.client.publish_with_id(&order("1"), id("e-1")).await.unwrap();
    assert_eq!(app.server.length("orders"), 2, "both are stored");
    let charge = Charge::once();
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.drained("billing").await;
    assert_eq!((app.effects().await, charge.count()), (1, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_entry_id_that_the_server_gives_twice_skips_nothing() {
    let app = App::start().await;
    let charge = Charge::once();
    let runtime = app.runtime(&charge).start().await.unwrap();
    let add = |event: &str| {
        let data = format!("{{\"id\":\"{event}\",\"customer\":\"a\"}}");
        let words =
            ["XADD", "orders", "7-1", "type", "order.placed", "data", &data, "sj-id", event];
        app.server.command(&words);
    };
    add("e-1");
    until("the first is done", || runtime.counters().succeeded == 1).await;
    // As after a failover to a server whose clock is behind: the data is lost, and the id is free.
    app.server.command(&["FLUSHALL"]);
    add("e-2");
    until("the second is done", || charge.count() == 2).await;
    app.drained("billing").await;
    assert_eq!(app.effects().await, 2);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn when_a_failover_undoes_the_acknowledgement_the_effect_stays_one() {
    let app = App::start().await;
    let (gate, started) = (Gate::shut(), Charge::once());
    let shared = gate.clone();
    let charge = Charge::new(move |order, tx, job| {
        let gate = shared.clone();
        Box::pin(async move {
            gate.passed().await;
            Ok(write_effect(tx, &order, &job).await?)
        })
    });
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.publish(&[order("1")]).await;
    charge.wait_for(1).await;
    // The state of a replica that lags: the entry is pending, with the old owner and count.
    let lagging = RedisServer::start().unwrap();
    copy(&app.server, &lagging, "orders");
    gate.open();
    until("done", || runtime.counters().succeeded == 1).await;
    let _ = runtime.shutdown().await;
    assert_eq!(lagging.pending("orders", "billing").len(), 1);
    let client = streamjobs::Client::connect(&lagging.url()).await.unwrap();
    let app = App { server: lagging, client, ..app };
    let runtime = app.runtime(&started).start().await.unwrap();
    app.drained("billing").await;
    until("skipped", || runtime.counters().succeeded == 1).await;
    assert_eq!((app.effects().await, started.count()), (1, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn another_payload_under_a_known_event_id_is_skipped() {
    let app = App::start().await;
    let charge = Charge::once();
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.client.publish_with_id(&order("1"), id("e-1")).await.unwrap();
    app.drained("billing").await;
    app.client.publish_with_id(&order("2"), id("e-1")).await.unwrap();
    app.drained("billing").await;
    until("skipped", || runtime.counters().succeeded == 2).await;
    assert_eq!((app.effects().await, charge.count()), (1, 1));
    let hash = app.number("SELECT count(*) FROM streamjobs.once WHERE length(payload_hash) = 16");
    assert_eq!(hash.await, 1);
    let _ = runtime.shutdown().await;
}

/// Waits until this many sessions wait for another transaction.
async fn waits_for_a_lock(app: &App, sessions: i64) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually_async(DEADLINE, "a session waits", async || app.number(waiting).await >= sessions)
        .await;
}

/// Copies a key, including groups and pending entries.
fn copy(from: &RedisServer, to: &RedisServer, key: &str) {
    let open = |server: &RedisServer| {
        redis::Client::open(server.plain_url()).unwrap().get_connection().unwrap()
    };
    let dump: Vec<u8> = redis::cmd("DUMP").arg(key).query(&mut open(from)).unwrap();
    let restore = redis::cmd("RESTORE").arg(key).arg(0).arg(dump).to_owned();
    restore.query::<()>(&mut open(to)).unwrap();
}
