//! Views of the archive: bounded in rows, time and connections, so that pages stop no job.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use sqlx::{Executor, PgPool};
use streamjobs::dead_letter::Reason;
use streamjobs_postgres::Postgres;
use streamjobs_postgres::letters::{LetterId, LetterState, QueryError, Request, Selection, View};
use streamjobs_tests::eventually::eventually_async;
use tokio::task::JoinSet;

use crate::app::{App, Charge, DEADLINE, order};
use crate::rows::{Archive, Row};

/// Letters of 3 streams and 7 groups with 99 fingerprints, of which 9 in 10 were redriven.
const FILL: &str = "INSERT INTO streamjobs.dead_letters
    (stream, group_name, letter_id, digest, event_id, event_type, reason, error, fingerprint,
     attempts, deliveries, buried_at, field_names, field_values, payload, redriven_at)
    SELECT 'orders' || n % 3, 'group' || n % 7, n || '-0', '', 'e-' || n, 'order.placed',
           'exhausted', 'order ' || n || ' not found', 'f' || n % 99, 5, 5,
           to_timestamp(1700000000 + n), '{data}', '{x}', '{\"amount\": 1}',
           CASE WHEN n % 10 <> 0 THEN now() END
    FROM generate_series(1, $1) n";

/// A view with one connection, and that connection's pool.
async fn filled(letters: i64) -> (Archive, View, PgPool) {
    let archive = Archive::start().await;
    sqlx::query(FILL).bind(letters).execute(&archive.pool).await.unwrap();
    archive.database.owner_pool().execute("ANALYZE streamjobs.dead_letters").await.unwrap();
    let pool = archive.database.pool_of(1);
    let view = Postgres::open(pool.clone()).await.unwrap().dead_letters().view();
    (archive, view, pool)
}

/// The rows and index entries of the archive that were read up to now.
async fn read(pool: &PgPool) -> i64 {
    pool.execute("SELECT pg_stat_force_next_flush()").await.unwrap();
    // Another transaction, since statistics are written at the end of one.
    let read = "SELECT (SELECT seq_tup_read FROM pg_stat_user_tables
             WHERE relid = 'streamjobs.dead_letters'::regclass)
         + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes
             WHERE relid = 'streamjobs.dead_letters'::regclass)::bigint";
    sqlx::query_scalar(read).fetch_one(pool).await.unwrap()
}

fn selections() -> Vec<Selection> {
    vec![
        Selection::new(),
        Selection::new().stream("orders1"),
        Selection::new().stream("orders1").group("group2"),
        Selection::new().stream("orders1").group("group2").state(LetterState::All),
        Selection::new().fingerprint("f7"),
        Selection::new().fingerprint("f7").state(LetterState::All),
        Selection::new().event_id("e-7").state(LetterState::All),
        Selection::new().state(LetterState::All),
        Selection::new().state(LetterState::Redriven).event_type("order.placed"),
        Selection::new().reason(Reason::Rejected),
        Selection::new().error_contains("no such text"),
        Selection::new().payload_matches("$.amount > 9").state(LetterState::All),
    ]
}

#[tokio::test]
async fn a_page_reads_as_many_rows_however_many_letters_there_are() {
    let (_archive, view, pool) = filled(100_000).await;
    let mut before = read(&pool).await;
    for selection in selections() {
        let page = view.list(&selection, None, 50).await.unwrap();
        let now = read(&pool).await;
        let few = if page.letters.len() == 50 { 2_000 } else { 20_200 };
        assert!(now - before <= few, "{} rows for a page of {selection:?}", now - before);
        view.kinds(&selection).await.unwrap();
        let counted = read(&pool).await;
        assert!(counted - now <= 21_000, "{} rows for kinds of {selection:?}", counted - now);
        view.plan(&selection).await.unwrap();
        let planned = read(&pool).await;
        assert!(planned - counted <= 20_200, "{} rows for {selection:?}", planned - counted);
        before = planned;
    }
    let open = view.open().await.unwrap().by_group;
    // 21 groups have about 480 open letters each.
    let rows = read(&pool).await - before;
    assert!((10_000..=10_200).contains(&rows), "{rows} rows for {} groups", open.len());
    assert_eq!(open.iter().map(|open| open.letters).sum::<u64>(), 10_000);
}

#[tokio::test]
async fn counts_of_a_view_say_that_there_are_more() {
    let (archive, view, _pool) = filled(25_000).await;
    let kinds = view.kinds(&Selection::new().state(LetterState::All)).await.unwrap();
    assert_eq!((kinds.letters, kinds.more), (10_000, true));
    let kinds = view.kinds(&Selection::new()).await.unwrap();
    assert_eq!((kinds.letters, kinds.more), (2_500, false));
    let exact = archive.letters.counts_by_fingerprint(&Selection::new()).await.unwrap();
    assert_eq!(kinds.kinds, exact);
    let plan = view.plan(&Selection::new()).await.unwrap();
    let request = Request::new("alice", "a test");
    let exact = archive.letters.redrive(Selection::new(), request).dry_run().await.unwrap();
    assert_eq!((plan.letters, plan.by_group), (exact.letters, exact.by_group));
    assert_eq!((plan.more, plan.not_runnable), (false, exact.not_runnable));
    let reopen = "UPDATE streamjobs.dead_letters SET redriven_at = NULL
        WHERE stream = 'orders1' AND group_name = 'group2'";
    archive.pool.execute(reopen).await.unwrap();
    let open = view.open().await.unwrap();
    assert!(!open.more);
    let open = open.by_group;
    let many = open.iter().find(|open| open.stream == "orders1" && open.group == "group2").unwrap();
    assert_eq!((many.letters, many.more, open.len()), (1_000, true, 21));
}

#[tokio::test]
async fn open_letters_of_too_many_groups_are_said_to_be_cut() {
    let (archive, view, _pool) = filled(2_000).await;
    for (listed, more) in [(200, false), (200, true)] {
        let spread = "UPDATE streamjobs.dead_letters SET group_name = id::text";
        archive.pool.execute(spread).await.unwrap();
        let open = view.open().await.unwrap();
        assert_eq!((open.by_group.len(), open.more), (listed, more));
        // One more that is open.
        sqlx::query(FILL).bind(10_i64).execute(&archive.pool).await.unwrap();
    }
}

#[tokio::test]
async fn a_search_goes_on_behind_the_letters_that_were_looked_at() {
    let (archive, view, _pool) = filled(25_000).await;
    let rare = "UPDATE streamjobs.dead_letters SET error = 'the bank is closed'
        WHERE event_id IN ('e-7', 'e-12000', 'e-24000')";
    archive.pool.execute(rare).await.unwrap();
    let search = Selection::new().error_contains("BANK").state(LetterState::All);
    let (mut found, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let page = view.list(&search, after, 50).await.unwrap();
        found.extend(page.letters.iter().filter_map(|letter| letter.event_id.clone()));
        pages += 1;
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert_eq!((found, pages), (vec!["e-24000".into(), "e-12000".into(), "e-7".into()], 3));
}

#[tokio::test]
async fn a_view_shows_payloads_of_one_letter_and_not_of_a_list() {
    let archive = Archive::start().await;
    let ids = archive.fill(3).await;
    let view = archive.letters.view();
    let page = view.list(&Selection::new(), None, 2).await.unwrap();
    assert_eq!((page.letters.len(), page.next.is_some()), (2, true));
    assert!(page.letters.iter().all(|letter| letter.payload().is_none()));
    let one = view.get(ids[0]).await.unwrap().unwrap();
    assert_eq!(Some(one), archive.letters.get(ids[0]).await.unwrap());
    assert_eq!(view.get(LetterId::new(-1)).await.unwrap(), None);
    let bad = view.list(&Selection::new().payload_has("$["), None, 2).await.unwrap_err();
    assert!(matches!(bad, QueryError::Selection(_)), "{bad}");
    Row::new(9).insert(&archive.pool).await;
    let request = Request::new("alice", "a test");
    let redrive = archive.letters.redrive(Selection::new(), request).record().await.unwrap();
    assert_eq!(view.redrives(9).await.unwrap(), archive.letters.redrives(None, 9).await.unwrap());
    assert_eq!(view.redrives(9).await.unwrap()[0].id, redrive);
}

/// The sessions that wait for the lock of a table.
async fn waiting(app: &App) -> BTreeSet<i32> {
    let waiting = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let pool = app.database.admin_pool();
    sqlx::query_scalar(waiting).fetch_all(&pool).await.unwrap().into_iter().collect()
}

#[tokio::test]
async fn while_the_archive_is_locked_its_viewers_take_two_connections_and_jobs_go_on() {
    let app = App::with_connections(4).await;
    let charge = Charge::once();
    let runtime = app.runtime(&charge).start().await.unwrap();
    let mut lock = app.database.owner_pool().begin().await.unwrap();
    lock.execute("LOCK TABLE streamjobs.dead_letters").await.unwrap();
    let mut viewers = JoinSet::new();
    for _ in 0..6 {
        let view = app.postgres.dead_letters().view();
        viewers.spawn(async move {
            loop {
                view.list(&Selection::new(), None, 50).await.unwrap_err();
            }
        });
    }
    eventually_async(DEADLINE, "two wait", async || waiting(&app).await.len() == 2).await;
    for number in 0..40 {
        app.publish(&[order(number)]).await;
        assert!(waiting(&app).await.len() <= 2);
    }
    app.drained("billing").await;
    assert_eq!((app.effects().await, runtime.counters().snoozed), (40, 0));
    viewers.shutdown().await;
    drop(lock);
    let view = app.postgres.dead_letters().view();
    eventually_async(DEADLINE, "pages are shown again", async || {
        view.list(&Selection::new(), None, 50).await.is_ok()
    })
    .await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_view_whose_caller_left_leaves_its_place_in_the_pool_at_once() {
    let app = App::with_connections(1).await;
    let mut lock = app.database.owner_pool().begin().await.unwrap();
    lock.execute("LOCK TABLE streamjobs.dead_letters").await.unwrap();
    let view = app.postgres.dead_letters().view();
    let mut leaving = JoinSet::new();
    leaving.spawn(async move { view.list(&Selection::new(), None, 50).await });
    let mut asked = BTreeSet::new();
    eventually_async(DEADLINE, "it waits", async || {
        asked = waiting(&app).await;
        asked.len() == 1
    })
    .await;
    leaving.abort_all();
    let pid = sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()").fetch_one(&app.pool).await;
    assert!(!asked.contains(&pid.unwrap()), "the connection was not waited for");
}

#[tokio::test]
async fn viewers_that_get_no_turn_are_told_that_the_archive_is_busy() {
    let app = App::with_connections(3).await;
    let mut lock = app.database.owner_pool().begin().await.unwrap();
    lock.execute("LOCK TABLE streamjobs.dead_letters").await.unwrap();
    let view = app.postgres.dead_letters().view();
    let open = Selection::new();
    let asked = (0..8).map(|_| view.kinds(&open));
    let told = join_all(asked).await.into_iter().map(|asked| asked.unwrap_err().to_string());
    let told = told.collect::<Vec<_>>();
    assert!(told.iter().any(|told| told.contains("busy")), "{told:#?}");
    // All of the pool is in use.
    let taken = join_all((0..3).map(|_| app.pool.acquire())).await;
    let busy = view.open().await.unwrap_err();
    assert!(matches!(busy, QueryError::Busy { .. }), "{busy}");
    drop(taken);
}

/// An index entry that a scan passes over is not counted as read, but its block is.
#[tokio::test]
async fn a_page_of_a_group_with_few_letters_reads_none_of_those_before_it() {
    let (_archive, view, pool) = filled(100_000).await;
    // Behind all groups of the stream, between two, and before all.
    for group in ["group9", "group3x", "group"] {
        for state in [LetterState::Open, LetterState::All] {
            let selection = Selection::new().stream("orders1").group(group).state(state);
            let before = blocks(&pool).await;
            assert!(view.list(&selection, None, 50).await.unwrap().letters.is_empty());
            assert!(view.kinds(&selection).await.unwrap().kinds.is_empty());
            view.plan(&selection).await.unwrap();
            let read = blocks(&pool).await - before;
            assert!(read <= 60, "{read} blocks for {selection:?}");
        }
    }
}

#[tokio::test]
async fn a_count_of_open_letters_passes_over_none_of_the_next_group() {
    let (archive, view, pool) = filled(1_000).await;
    let more = "INSERT INTO streamjobs.dead_letters
        (stream, group_name, letter_id, digest, event_id, event_type, reason, error, fingerprint,
         attempts, deliveries, buried_at, field_names, field_values)
        SELECT 'orders1', CASE WHEN n <= 10 THEN 'group7-' || n ELSE 'group8' END, n || '-1', '', 'e-' || n,
               'order.placed', 'exhausted', 'not found', 'f', 5, 5, now(), '{data}', '{x}'
        FROM generate_series(1, 60000) n";
    archive.pool.execute(more).await.unwrap();
    archive.database.owner_pool().execute("ANALYZE streamjobs.dead_letters").await.unwrap();
    let before = blocks(&pool).await;
    let open = view.open().await.unwrap();
    let read = blocks(&pool).await - before;
    assert_eq!(open.by_group.len(), 3 * 7 + 11);
    assert!(read <= 600, "{read} blocks");
}

/// The blocks of the archive's indexes that were looked at up to now.
async fn blocks(pool: &PgPool) -> i64 {
    pool.execute("SELECT pg_stat_force_next_flush()").await.unwrap();
    let read = "SELECT sum(idx_blks_read + idx_blks_hit)::bigint FROM pg_statio_user_indexes
         WHERE relid = 'streamjobs.dead_letters'::regclass";
    sqlx::query_scalar(read).fetch_one(pool).await.unwrap()
}
