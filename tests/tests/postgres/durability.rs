//! Committed work is on disk, whatever a session or a handler has set.

use sqlx::Executor;
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::postgres::PgServer;

use crate::app::{App, Charge, DEADLINE, order, until, write_effect};

#[tokio::test]
async fn what_a_guarded_handler_committed_survives_the_servers_crash() {
    let server = PgServer::builder().fsync(true).config("wal_writer_delay", "10s");
    let server = server.config("synchronous_commit", "off").start().unwrap();
    let app = App::on(server.database().await).await;
    let charge = Charge::new(|order, tx, job| {
        Box::pin(async move {
            // Neither the server's setting nor the handler's takes effect.
            (&mut **tx).execute("SET LOCAL synchronous_commit = off").await?;
            Ok(write_effect(tx, &order, &job).await?)
        })
    });
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.publish(&[order("1")]).await;
    until("done", || runtime.counters().succeeded == 1).await;
    server.kill();
    let _ = runtime.shutdown().await;
    server.restart().unwrap();
    eventually_async(DEADLINE, "the pool is back", async || {
        sqlx::query("SELECT 1").execute(&app.pool).await.is_ok()
    })
    .await;
    assert_eq!((app.effects().await, app.guard_rows().await), (1, 1));
}

#[tokio::test]
async fn a_guarded_commit_waits_for_the_disk_whatever_the_session_says() {
    let app = App::start().await;
    // A deferred trigger runs at the commit, and records the setting that applies to it.
    let owner = app.database.owner_pool();
    sqlx::raw_sql(
        "CREATE TABLE commits (setting text NOT NULL);
         GRANT SELECT, INSERT ON commits TO streamjobs_run;
         CREATE FUNCTION record_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO commits VALUES (current_setting('synchronous_commit'));
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER record_commit AFTER INSERT ON effects
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION record_commit()",
    )
    .execute(&owner)
    .await
    .unwrap();
    let charge = Charge::new(|order, tx, job| {
        Box::pin(async move {
            (&mut **tx).execute("SET LOCAL synchronous_commit = off").await?;
            Ok(write_effect(tx, &order, &job).await?)
        })
    });
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.publish(&[order("1"), order("2")]).await;
    app.drained("billing").await;
    assert_eq!(app.number("SELECT count(*) FROM commits WHERE setting = 'on'").await, 2);
    let _ = runtime.shutdown().await;
}
