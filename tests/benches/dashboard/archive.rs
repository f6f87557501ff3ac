//! An archive with many letters.

use sqlx::{Executor as _, PgPool};
use streamjobs_postgres::Postgres;
use streamjobs_tests::postgres::PgServer;
use streamjobs_tests::server::RedisServer;

use crate::Sizes;
use crate::site::{Known, Site, heading};

pub async fn measure(sizes: Sizes) -> Vec<String> {
    let server = PgServer::builder().config("shared_buffers", "128MB").start().unwrap();
    let database = server.database().await;
    let owner = database.owner_pool();
    streamjobs_postgres::migrate(&owner).await.unwrap();
    database.grant("streamjobs").await;
    fill(&owner, sizes.archived).await;
    let version = one(&owner, "SELECT version()").await;
    println!("{}", version.split(" on ").next().unwrap());
    let middle = one(&owner, "SELECT (max(id) / 2)::text FROM streamjobs.dead_letters").await;
    let kind = one(&owner, "SELECT min(fingerprint) FROM streamjobs.dead_letters").await;
    let postgres = Postgres::open(database.pool()).await.unwrap();
    let redis = RedisServer::start().unwrap();
    let streams = (0..STREAMS).map(|number| format!("stream-{number}")).collect::<Vec<_>>();
    for stream in &streams {
        for group in 0..GROUPS {
            let group = format!("group-{group}");
            redis.command(&["XGROUP", "CREATE", stream, &group, "0", "MKSTREAM"]);
        }
    }
    let site = Site::start(redis, &streams, Some(postgres)).await;
    let (streams, groups) = (STREAMS, STREAMS * GROUPS);
    heading(&format!(
        "An archive of {} letters of {groups} groups on {streams} streams, one in three open.",
        sizes.archived
    ));
    let report = move || report(&site, &middle, &kind);
    tokio::task::spawn_blocking(report).await.unwrap()
}

fn report(site: &Site, middle: &str, kind: &str) -> Vec<String> {
    let mut paths = vec![
        "/jobs".to_owned(),
        "/jobs/alerts".into(),
        "/jobs/streams/stream-0".into(),
        "/jobs/streams/stream-0/groups/group-0".into(),
        "/jobs/archive?limit=200".into(),
        format!("/jobs/archive/{middle}"),
    ];
    let group = "stream=stream-0&group=group-0";
    let kind = format!("fingerprint={kind}");
    let filters = [
        "stream=stream-3".to_owned(),
        "group=group-3".into(),
        group.into(),
        "stream=stream-0&group=none".into(),
        "type=order.placed".into(),
        "type=none".into(),
        "error=number+1".into(),
        "error=none".into(),
        kind.clone(),
        format!("{kind}&{group}"),
        format!("{group}&error=none"),
    ];
    for filter in filters {
        paths.push(format!("/jobs/archive?limit=200&{filter}"));
        for state in ["redriven", "known_done", "all"] {
            paths.push(format!("/jobs/archive?limit=200&{filter}&state={state}"));
        }
        paths.push(format!("/jobs/archive?limit=200&{filter}&before={middle}"));
    }
    paths.iter().filter_map(|path| site.measure(path, Known::Nothing, LOADS)).collect()
}

/// Most letters are of few groups and kinds, as in practice. All of one kind and group are redriven.
async fn fill(owner: &PgPool, letters: usize) {
    for from in (0..letters).step_by(LOT) {
        let to = (from + LOT).min(letters);
        sqlx::query(LETTERS).bind(from as i64).bind(to as i64).execute(owner).await.unwrap();
    }
    owner.execute(REDRIVES).await.unwrap();
    owner.execute("VACUUM ANALYZE streamjobs.dead_letters").await.unwrap();
}

async fn one(pool: &PgPool, statement: &'static str) -> String {
    sqlx::query_scalar(statement).fetch_one(pool).await.unwrap()
}

const LOADS: usize = 10;
const LOT: usize = 50_000;
const STREAMS: usize = 20;
const GROUPS: usize = 5;

const LETTERS: &str = "INSERT INTO streamjobs.dead_letters (stream, group_name, letter_id, digest, event_id, event_type,
        reason, error, fingerprint, attempts, deliveries, consumer, entry_id, origin_id, buried_at, field_names, field_values,
        payload, history, known_done, redriven_at)
    SELECT 'stream-' || (n % 7) * (n % 3), 'group-' || (n % 5), n || '-0', decode(md5(n::text), 'hex'), 'event-' || n,
        'order.' || CASE WHEN n % 1000 = 0 THEN 'placed' ELSE 'kind-' || n % 13 END,
        CASE WHEN n % 4 = 0 THEN 'rejected' ELSE 'exhausted' END,
        'order number ' || n || ' was refused by the bank', md5((n % 41 * (n % 37))::text), 5, 5, 'web-' || n % 9,
        n || '-0', n || '-0', now() - make_interval(secs => $2 - n),
        ARRAY['type', 'data', 'sj-id']::bytea[],
        ARRAY['order.placed', '{\"order_id\":\"o-1\",\"amount\":\"49.50\"}', 'event-' || n]::bytea[],
        '{\"order_id\":\"o-1\",\"amount\":\"49.50\"}',
        '[{\"n\":1,\"end\":\"failed\",\"at\":1764000000000,\"ms\":3200,\"by\":\"web-1\",\"error\":\"refused\"}]',
        n % 3 = 1 AND n % 2 = 0, CASE WHEN n % 3 = 2 OR n % 3 = 1 AND n % 2 = 1 THEN now() END
    FROM generate_series($1::bigint, $2::bigint - 1) n";
const REDRIVES: &str = "INSERT INTO streamjobs.redrives
        (requested_by, reason, selection, again, token, state, finished_at, letters, done)
    SELECT 'ops', 'the bank is back', '{}', false, n::text, 'finished', now(), 500, 500 FROM generate_series(1, 10000) n";
