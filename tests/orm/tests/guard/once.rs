//! An effect once for each event in the transactions of both libraries, whatever happens to attempts and sessions.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor};
use streamjobs::{EventId, GroupName, JobError, Runtime, handler, handlers};
use streamjobs_postgres::batches::{BatchId, NewBatch};
use streamjobs_postgres::{Once, SchemaName};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::proxy::Mode;

use crate::app::{App, BOTH, DEADLINE, Gate, Library, Order, Plan, Step, until};
use crate::with_sea_orm::{application, charge_sea_member};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_deliveries_at_once_have_one_effect() {
    for library in BOTH {
        let app = App::start().await;
        for _ in 0..50 {
            app.publish("e-1").await;
        }
        app.publish("e-2").await;
        let runtime = app.printed(library).start().await.unwrap();
        app.drained(library).await;
        assert_eq!((app.effects().await, app.guard_rows().await), (2, 2), "{library:?}");
        assert_eq!(runtime.counters().failed, 0, "{library:?}");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_second_attempt_waits_for_the_first_and_does_not_run() {
    for library in BOTH {
        let app = App::start().await;
        let gate = Gate::shut();
        let plan = Plan::of([Step::Wait(gate.clone())]);
        let runtime = app.planned(library, &plan).start().await.unwrap();
        app.publish("e-1").await;
        until("the first runs", || plan.runs() == 1).await;
        app.publish("e-1").await;
        waits_for_a_lock(&app).await;
        gate.open();
        app.drained(library).await;
        assert_eq!((app.effects().await, plan.runs()), (1, 1), "{library:?}");
        assert_eq!(runtime.counters().failed, 0, "{library:?}");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_wait_that_takes_too_long_is_no_failed_attempt() {
    for library in BOTH {
        let impatient = Duration::from_millis(20);
        let app = App::start().await.with(|builder| builder.lock_timeout(impatient)).await;
        let gate = Gate::shut();
        let plan = Plan::of([Step::Wait(gate.clone())]);
        let runtime = app.planned(library, &plan).start().await.unwrap();
        app.publish("e-1").await;
        until("the first runs", || plan.runs() == 1).await;
        app.publish("e-1").await;
        until("the second was snoozed", || runtime.counters().snoozed >= 1).await;
        gate.open();
        app.drained(library).await;
        assert_eq!((app.effects().await, plan.runs()), (1, 1), "{library:?}");
        assert_eq!(runtime.counters().failed, 0, "{library:?}");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn what_a_failed_attempt_wrote_is_rolled_back_and_written_by_the_next() {
    for library in BOTH {
        let app = App::start().await;
        let plan = Plan::of([Step::Fail, Step::Sql("SELECT 1 / 0")]);
        let runtime = app.planned(library, &plan).start().await.unwrap();
        app.publish("e-1").await;
        app.drained(library).await;
        assert_eq!((app.effects().await, app.guard_rows().await), (1, 1), "{library:?}");
        assert_eq!((plan.runs(), runtime.counters().failed), (3, 2), "{library:?}");
        let _ = runtime.shutdown().await;
    }
}

/// After a `ROLLBACK`, its work and the guard row are gone; after a `COMMIT`, they are there.
#[tokio::test]
async fn an_attempt_that_ends_its_transaction_fails() {
    for library in BOTH {
        for (end, runs) in [("ROLLBACK", 2), ("COMMIT", 1)] {
            let app = App::start().await;
            let plan = Plan::of([Step::Ignore(end)]);
            let runtime = app.planned(library, &plan).start().await.unwrap();
            app.publish("e-1").await;
            app.drained(library).await;
            assert_eq!((app.effects().await, app.guard_rows().await), (1, 1), "{library:?} {end}");
            assert_eq!((plan.runs(), runtime.counters().failed), (runs, 1), "{library:?} {end}");
            let _ = runtime.shutdown().await;
        }
    }
}

#[tokio::test]
async fn a_rollback_without_a_reply_frees_the_slot() {
    for library in BOTH {
        let app = App::start().await;
        let plan = Plan::of([Step::Fail]);
        let runtime = app.planned(library, &plan).start().await.unwrap();
        app.proxy.set(Mode::HoldReplyTo("ROLLBACK".into()));
        app.publish("e-1").await;
        until("the attempt has failed", || runtime.counters().failed >= 1).await;
        app.drained(library).await;
        assert_eq!((app.effects().await, app.guard_rows().await), (1, 1), "{library:?}");
        assert_eq!((plan.runs(), runtime.counters().failed), (2, 1), "{library:?}");
        app.proxy.set(Mode::Pass);
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn an_attempt_that_ignores_a_failed_statement_commits_nothing_and_fails() {
    for library in BOTH {
        let app = App::start().await;
        let plan = Plan::of([Step::Ignore("SELECT 1 / 0")]);
        let runtime = app.planned(library, &plan).start().await.unwrap();
        app.publish("e-1").await;
        app.drained(library).await;
        assert_eq!((app.effects().await, app.guard_rows().await), (1, 1), "{library:?}");
        assert_eq!((plan.runs(), runtime.counters().failed), (2, 1), "{library:?}");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_conflict_in_a_statement_of_the_handler_is_no_failed_attempt() {
    for library in BOTH {
        let app = App::start().await;
        let conflict = "DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END $$";
        let plan = Plan::of([Step::Sql(conflict), Step::Nested(conflict)]);
        let runtime = app.planned(library, &plan).start().await.unwrap();
        app.publish("e-1").await;
        app.drained(library).await;
        assert_eq!((app.effects().await, plan.runs()), (1, 3), "{library:?}");
        assert_eq!(runtime.counters().failed, 0, "{library:?}");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn when_the_reply_to_a_commit_is_lost_the_effect_stays_one() {
    for library in BOTH {
        let app = App::start().await;
        let gate = Gate::shut();
        let plan = Plan::of([Step::Wait(gate.clone())]);
        let runtime = app.planned(library, &plan).start().await.unwrap();
        app.publish("e-1").await;
        until("the attempt is in its transaction", || plan.runs() == 1).await;
        app.proxy.set(Mode::LoseReplyTo("COMMIT".into()));
        gate.open();
        app.drained(library).await;
        assert_eq!((app.effects().await, app.guard_rows().await), (1, 1), "{library:?}");
        assert_eq!((plan.runs(), runtime.counters().failed), (1, 0), "{library:?}");
        assert!(runtime.counters().snoozed >= 1, "{library:?}");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_commit_without_a_reply_frees_the_slot_and_is_found_by_the_next_attempt() {
    for library in BOTH {
        let short = Duration::from_millis(200);
        let app = App::start().await.with(|builder| builder.statement_timeout(short)).await;
        let gate = Gate::shut();
        let plan = Plan::of([Step::Wait(gate.clone())]);
        let runtime = app.planned(library, &plan).start().await.unwrap();
        app.publish("e-1").await;
        until("the attempt is in its transaction", || plan.runs() == 1).await;
        app.proxy.set(Mode::HoldReplyTo("COMMIT".into()));
        gate.open();
        until("the wait was given up", || runtime.counters().snoozed >= 1).await;
        // Its connection is kept, so that the pool does not open one after another.
        let kept = match library {
            Library::SeaOrm => app.sea.get_postgres_connection_pool().size(),
            Library::Diesel => app.diesel.state().connections,
        };
        assert!(kept >= 1, "{library:?}");
        app.proxy.set(Mode::Pass);
        app.drained(library).await;
        assert_eq!((app.effects().await, app.guard_rows().await), (1, 1), "{library:?}");
        assert_eq!((plan.runs(), runtime.counters().failed), (1, 0), "{library:?}");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn when_the_session_of_an_attempt_is_killed_the_next_one_runs() {
    for library in BOTH {
        let app = App::start().await;
        let kill = "SELECT pg_terminate_backend(pg_backend_pid())";
        let plan = Plan::of([Step::Sql(kill)]);
        let runtime = app.planned(library, &plan).start().await.unwrap();
        app.publish("e-1").await;
        app.drained(library).await;
        assert_eq!((app.effects().await, app.guard_rows().await), (1, 1), "{library:?}");
        assert_eq!(plan.runs(), 2, "{library:?}");
        if library == Library::SeaOrm {
            assert_eq!(runtime.counters().failed, 0, "diesel-async does not tell it from others");
        }
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_missing_right_is_no_failed_attempt() {
    for library in BOTH {
        let app = App::start().await;
        let owner = app.database.owner_pool();
        owner.execute("REVOKE INSERT ON streamjobs.once FROM streamjobs_run").await.unwrap();
        let runtime = app.printed(library).start().await.unwrap();
        app.publish("e-1").await;
        until("the job was snoozed", || runtime.counters().snoozed >= 1).await;
        owner.execute("GRANT INSERT ON streamjobs.once TO streamjobs_run").await.unwrap();
        app.drained(library).await;
        assert_eq!((app.effects().await, runtime.counters().failed), (1, 0), "{library:?}");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn the_guard_is_in_the_schema_of_the_handle() {
    for library in BOTH {
        let app = App::in_schema(SchemaName::new("jobs").unwrap()).await;
        for _ in 0..2 {
            app.publish("e-1").await;
        }
        let runtime = app.printed(library).start().await.unwrap();
        app.drained(library).await;
        assert_eq!((app.effects().await, app.guard_rows().await), (1, 1), "{library:?}");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_mark_of_another_attempt_is_waited_for_and_taken_over_when_it_expires() {
    for library in BOTH {
        let app = App::start().await;
        let mark = "INSERT INTO streamjobs.once (group_name, key, stream, entry_id, published_at,
                payload_hash, owner, expires_at)
            VALUES ('GROUP', 'e-1', 'orders', '1-0', now(), '', 'other', now() + interval '3 s')";
        let mark = mark.replace("GROUP", library.group());
        // Nothing slow stands between the mark and the job that finds it.
        let (owner, runtime) = (app.database.owner_pool(), app.printed(library).start().await);
        let runtime = runtime.unwrap();
        owner.execute(AssertSqlSafe(mark)).await.unwrap();
        app.publish("e-1").await;
        until("the job was snoozed", || runtime.counters().snoozed >= 1).await;
        assert_eq!(app.effects().await, 0, "{library:?}");
        app.drained(library).await;
        app.publish("e-1").await;
        app.drained(library).await;
        assert_eq!((app.effects().await, app.guard_rows().await), (1, 1), "{library:?}");
        assert_eq!(app.number("SELECT count(*) FROM streamjobs.once WHERE owner IS NULL").await, 1);
        assert_eq!(runtime.counters().failed, 0, "{library:?}");
        let _ = runtime.shutdown().await;
    }
}

#[handler(group = "sea")]
async fn charge_sqlx(order: Order, tx: &mut Once) -> Result<(), JobError> {
    let charge = sqlx::query("INSERT INTO charges (order_id, cents) VALUES ($1, $2)");
    charge.bind(order.id).bind(order.cents).execute(&mut **tx).await?;
    Ok(())
}

/// A handler can change its library while events of both versions of the program are on their way.
#[tokio::test]
async fn the_guard_rows_are_those_of_once() {
    let app = App::start().await;
    let group = Library::SeaOrm;
    let sqlx = || Runtime::builder(&app.client).state(app.postgres.clone());
    for (event, is_first) in [("e-1", true), ("e-2", false)] {
        for is_sqlx in [is_first, !is_first] {
            app.publish(event).await;
            let runtime = match is_sqlx {
                true => sqlx().handlers(handlers![charge_sqlx]).start().await,
                false => app.printed(group).start().await,
            };
            let runtime = runtime.unwrap();
            app.drained(group).await;
            let _ = runtime.shutdown().await;
        }
    }
    assert_eq!((app.effects().await, app.guard_rows().await), (2, 2));
}

/// The attempt gives up before its own time is over. Its connection must not come back to a pool in a transaction of
/// which the library does not know.
#[tokio::test]
async fn an_attempt_that_leaves_at_the_begin_leaves_no_transaction_behind() {
    for library in BOTH {
        let mut app = App::start().await;
        app.timeout = Duration::from_secs(1);
        let runtime = app.printed(library).start().await.unwrap();
        app.proxy.set(Mode::HoldReplyTo("BEGIN".into()));
        app.publish("e-1").await;
        until("the attempt has left", || runtime.counters().snoozed >= 1).await;
        app.proxy.set(Mode::Pass);
        app.drained(library).await;
        assert_eq!((app.effects().await, app.guard_rows().await), (1, 1), "{library:?}");
        assert_eq!(runtime.counters().failed, 0, "{library:?}");
        let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND state LIKE 'idle in transaction%'";
        let none_open = async || app.number(open).await == 0;
        eventually_async(DEADLINE, "no transaction is open", none_open).await;
        let _ = runtime.shutdown().await;
    }
}

/// Of diesel-async. A connection of SeaORM comes back in a task of its own, and the next job may come first.
#[tokio::test]
async fn a_skipped_job_keeps_its_connection_in_the_pool() {
    let (app, library) = (App::start().await, Library::Diesel);
    let runtime = app.printed(library).start().await.unwrap();
    app.publish("e-1").await;
    app.drained(library).await;
    let connections = app.proxy.connections();
    for _ in 0..5 {
        app.publish("e-1").await;
        app.drained(library).await;
    }
    assert_eq!((app.proxy.connections(), app.effects().await), (connections, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn the_member_of_a_batch_ends_after_its_commit() {
    let app = App::start().await;
    let (batches, id) = (app.postgres.batches(), BatchId::new("album-7").unwrap());
    let mut transaction = app.database.pool().begin().await.unwrap();
    assert!(batches.open_in(&mut transaction, &NewBatch::new(id.clone())).await.unwrap());
    let group = GroupName::new("sea").unwrap();
    let member = [EventId::new("e-1").unwrap()];
    assert_eq!(batches.add_in(&mut transaction, &id, &group, &member).await.unwrap(), 1);
    assert!(batches.close_in(&mut transaction, &id).await.unwrap());
    transaction.commit().await.unwrap();
    let builder = Runtime::builder(&app.client).handlers(handlers![charge_sea_member]);
    let runtime = app.quick(builder, Library::SeaOrm).start().await.unwrap();
    app.publish("e-1").await;
    eventually_async(DEADLINE, "the batch has completed", async || {
        batches.status(&id).await.unwrap().unwrap().succeeded_at.is_some()
    })
    .await;
    assert_eq!(app.effects().await, 1);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn the_application_of_the_page_charges_once() {
    let app = App::start().await;
    for _ in 0..2 {
        app.publish("e-1").await;
    }
    let runtime = application(&app.client, app.proxy.url()).await.unwrap();
    app.drained(Library::SeaOrm).await;
    assert_eq!((app.effects().await, app.guard_rows().await), (1, 1));
    let _ = runtime.shutdown().await;
}

/// Waits until a transaction waits for another one.
async fn waits_for_a_lock(app: &App) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock'";
    eventually_async(DEADLINE, "a second attempt waits", async || app.number(waiting).await >= 1)
        .await;
}
