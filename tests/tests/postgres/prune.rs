//! Pruning: old rows are deleted in batches, and rows that a job may still need stay.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use streamjobs::config::Retention;
use streamjobs::{Client, EncodedEvent, EventId};
use streamjobs_postgres::{Keep, Postgres, Pruned, Pruner};
use streamjobs_tests::eventually::eventually_async;

use crate::app::{App, Charge, DEADLINE, order};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Writes guard rows of work that a group did this many days ago.
async fn done(app: &App, group: &str, days: i32, rows: i64) {
    sqlx::query(
        "INSERT INTO streamjobs.once (group_name, key, stream, entry_id, published_at,
            payload_hash, done_at)
         SELECT $1, gen_random_uuid()::text, 'orders', '1795000000000-0', at,
                decode('00112233445566778899aabbccddeeff', 'hex'), at
         FROM generate_series(1, $3) AS n,
            LATERAL (SELECT clock_timestamp() - make_interval(days => $2)
                - make_interval(secs => n / 1000.0) AS at) AS past",
    )
    .bind(group)
    .bind(days)
    .bind(rows)
    .execute(&app.pool)
    .await
    .unwrap();
}

async fn rows_of(app: &App, group: &str) -> i64 {
    let rows = sqlx::query_scalar("SELECT count(*) FROM streamjobs.once WHERE group_name = $1");
    rows.bind(group).fetch_one(&app.pool).await.unwrap()
}

/// Adds an order as if it had been published this many days ago.
fn publish_in_the_past(app: &App, days: u32) {
    let then = SystemTime::now() - days * DAY;
    let id = format!("{}-0", then.duration_since(UNIX_EPOCH).unwrap().as_millis());
    let event = EncodedEvent::with_id(&order("old"), EventId::new("old").unwrap()).unwrap();
    let mut words = vec![b"XADD".to_vec(), b"orders".to_vec(), id.into_bytes()];
    words.extend(event.fields().iter().flat_map(|(name, value)| [name.to_vec(), value.to_vec()]));
    app.server.command(&words);
}

#[tokio::test]
async fn a_hundred_thousand_old_rows_go_in_batches_and_younger_ones_stay() {
    let app = App::start().await;
    done(&app, "billing", 8, 100_000).await;
    done(&app, "billing", 6, 1_000).await;
    sqlx::raw_sql(
        "CREATE TABLE batches (rows bigint);
         CREATE FUNCTION count_batch() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN INSERT INTO public.batches SELECT count(*) FROM gone; RETURN NULL; END $$;
         CREATE TRIGGER count_batch AFTER DELETE ON streamjobs.once
             REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION count_batch();
         GRANT SELECT ON batches TO streamjobs_run",
    )
    .execute(&app.database.admin_pool())
    .await
    .unwrap();
    let pruned = app.postgres.pruner(Keep::default()).sweep(&app.client).await.unwrap();
    assert_eq!((pruned.once, pruned.retained, rows_of(&app, "billing").await), (100_000, 0, 1_000));
    assert_eq!(app.number("SELECT count(*) FROM batches WHERE rows > 0").await, 20);
    assert_eq!(app.number("SELECT max(rows) FROM batches").await, 5_000);
}

#[tokio::test]
async fn rows_younger_than_the_oldest_unfinished_job_of_their_group_stay() {
    let app = App::start().await;
    app.server.command(&["XGROUP", "CREATE", "orders", "billing", "0", "MKSTREAM"]);
    publish_in_the_past(&app, 10);
    for group in ["billing", "mail"] {
        done(&app, group, 9, 30).await;
        done(&app, group, 11, 30).await;
    }
    let pruner = app.postgres.pruner(Keep::default().batch(7));
    let pruned = pruner.sweep(&app.client).await.unwrap();
    assert_eq!((pruned.once, pruned.retained), (90, 1));
    assert_eq!((rows_of(&app, "billing").await, rows_of(&app, "mail").await), (30, 0));
    let charge = Charge::once();
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.drained("billing").await;
    let pruned = pruner.sweep(&app.client).await.unwrap();
    assert_eq!((pruned.once, pruned.retained), (30, 0));
    // Guard rows of recent work stay: its events could be delivered again.
    assert_eq!((rows_of(&app, "billing").await, charge.count()), (1, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn no_row_is_deleted_while_redis_cannot_be_asked() {
    let app = App::start().await;
    done(&app, "billing", 30, 10).await;
    app.server.kill();
    let pruner = app.postgres.pruner(Keep::default());
    let pruned = pruner.sweep(&app.client).await.unwrap();
    assert_eq!((pruned.once, pruned.retained, rows_of(&app, "billing").await), (0, 1, 10));
    app.server.restart().unwrap();
    eventually_async(DEADLINE, "the rows are deleted", async || {
        pruner.sweep(&app.client).await.unwrap().once == 10
    })
    .await;
}

#[tokio::test]
async fn expired_marks_are_deleted_and_those_of_running_work_stay() {
    let app = App::start().await;
    let left = "INSERT INTO streamjobs.once
            (group_name, key, stream, entry_id, published_at, payload_hash, owner, expires_at)
        SELECT 'mail', n::text, 'orders', '1-0', 'epoch', '\\x00', 'gone',
               clock_timestamp() - make_interval(days => 10 - n)
        FROM generate_series(0, 12) AS n";
    sqlx::query(left).execute(&app.pool).await.unwrap();
    let pruned = app.postgres.pruner(Keep::default()).sweep(&app.client).await.unwrap();
    assert_eq!((pruned.once, rows_of(&app, "mail").await), (4, 9));
}

#[tokio::test]
async fn dead_letters_stay_unless_said_otherwise() {
    let app = App::start().await;
    let letters = "INSERT INTO streamjobs.dead_letters
            (stream, group_name, letter_id, digest, reason, fingerprint, attempts, deliveries,
             buried_at, archived_at, field_names, field_values)
        SELECT 'orders', 'billing', n::text, '\\x00', 'exhausted', 'f', 1, 1,
               clock_timestamp() - make_interval(days => n),
               clock_timestamp() - make_interval(days => CASE WHEN n = 100 THEN 1 ELSE n END),
               '{}', '{}'
        FROM generate_series(1, 100) AS n";
    sqlx::query(letters).execute(&app.pool).await.unwrap();
    let keep = Keep::default();
    assert_eq!(app.postgres.pruner(keep.clone()).sweep(&app.client).await.unwrap().letters, 0);
    let pruner = app.postgres.pruner(keep.letters(30 * DAY).batch(9));
    // One of the 71 was archived yesterday.
    assert_eq!(pruner.sweep(&app.client).await.unwrap().letters, 70);
    assert_eq!(app.number("SELECT count(*) FROM streamjobs.dead_letters").await, 30);
}

#[tokio::test]
async fn rows_with_an_unlimited_age_stay_and_the_rest_is_deleted() {
    let app = App::start().await;
    done(&app, "billing", 30, 3).await;
    let unlimited = Keep::default().done(Duration::MAX).letters(Duration::MAX);
    let mut nothing = Pruned::default();
    nothing.unfinished_batches = Some(0);
    assert_eq!(app.postgres.pruner(unlimited).sweep(&app.client).await.unwrap(), nothing);
    let week = Keep::default().letters(Duration::MAX);
    assert_eq!(app.postgres.pruner(week).sweep(&app.client).await.unwrap().once, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn pruners_at_once_do_not_block_each_other_and_delete_all() {
    let app = App::start().await;
    done(&app, "billing", 8, 3_000).await;
    let pruner = app.postgres.pruner(Keep::default().batch(50));
    let sweep = async || {
        while rows_of(&app, "billing").await > 0 {
            pruner.sweep(&app.client).await.unwrap();
        }
    };
    tokio::join!(sweep(), sweep(), sweep());
    assert_eq!(app.guard_rows().await, 0);
}

#[tokio::test]
async fn a_runtime_with_a_pruner_deletes_old_rows() {
    let app = App::start().await;
    done(&app, "billing", 8, 100).await;
    let pruner = app.postgres.pruner(Keep::default().interval(Duration::from_secs(1)));
    let runtime = app.runtime(&Charge::once()).service(pruner).start().await.unwrap();
    eventually_async(DEADLINE, "the rows are deleted", async || app.guard_rows().await == 0).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_runtime_that_would_prune_sooner_than_it_delivers_does_not_start() {
    let app = App::start().await;
    let client = Client::builder(&app.server.url())
        .retention("orders", Retention::MaxAge(14 * DAY))
        .connect()
        .await
        .unwrap();
    let other = App { client, ..app };
    let start = async |pruner: Pruner| other.runtime(&Charge::once()).service(pruner).start().await;
    let refused = start(other.postgres.pruner(Keep::default())).await.err().unwrap();
    let text = format!("{refused:?}");
    assert!(text.contains("orders") && text.contains("billing"), "{text}");
    let runtime = start(other.postgres.pruner(Keep::default().done(30 * DAY))).await.unwrap();
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_pruner_with_invalid_settings_does_not_start() {
    let app = App::start().await;
    let pruners: [fn(&Postgres) -> Pruner; 4] = [
        |postgres| postgres.pruner(Keep::default().batch(0)),
        |postgres| postgres.pruner(Keep::default().interval(Duration::ZERO)),
        |postgres| postgres.pruner(Keep::default().done(Duration::from_secs(1))),
        |postgres| postgres.pruner(Keep::default().letters(Duration::ZERO)),
    ];
    for pruner in pruners {
        let pruner = pruner(&app.postgres);
        let refused = app.runtime(&Charge::once()).service(pruner).start().await;
        let text = format!("{:?}", refused.err().unwrap());
        assert!(text.contains("pruner"), "{text}");
    }
}
