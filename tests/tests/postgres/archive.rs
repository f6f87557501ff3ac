use std::num::NonZeroU32;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use streamjobs::config::GroupOptions;
use streamjobs::{
    Client, Event, GroupName, JobError, Runtime, RuntimeBuilder, StreamName, handler, handlers,
};
use streamjobs_postgres::letters::{Request, Selection};
use streamjobs_postgres::{Archive, Postgres};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::postgres::{Database, PgServer, Role};
use streamjobs_tests::proxy::{FaultProxy, Mode};
use streamjobs_tests::server::RedisServer;

use crate::app::{commits, prepare, watch_commits};

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Placed {
    id: u32,
    customer: String,
}

#[handler(group = "billing", max_attempts = 1)]
async fn reject(order: Placed) -> Result<(), JobError> {
    Err(JobError::retry(format!("order {} of '{}' has\0no price", order.id, order.customer)))
}

/// A private Redis, a private database with the schema, and the archive between them.
pub struct Desk {
    pub redis: RedisServer,
    pub client: Client,
    pub database: Database,
    pub pool: PgPool,
    pub postgres: Postgres,
}

impl Desk {
    pub async fn new() -> Self {
        Self::on(PgServer::shared().database().await).await
    }

    async fn on(database: Database) -> Self {
        Self::between(RedisServer::start().unwrap(), database).await
    }

    async fn between(redis: RedisServer, database: Database) -> Self {
        let client = Client::connect(&redis.url()).await.unwrap();
        prepare(&database).await;
        let postgres = open(database.options(Role::Run)).await;
        Self { redis, client, pool: database.pool(), database, postgres }
    }

    pub fn archive(&self) -> Archive {
        archive_of(&self.postgres)
    }

    pub async fn archive_through(&self, proxy: &FaultProxy) -> Archive {
        let options = self.database.options(Role::Run).port(proxy.port());
        archive_of(&open(options).await)
    }

    fn runtime(&self) -> RuntimeBuilder {
        let options = GroupOptions::new().concurrency(NonZeroU32::new(8).unwrap());
        Runtime::builder(&self.client)
            .handlers(handlers![reject])
            .group("billing", options)
            .block(Duration::from_millis(100))
            .promote_interval(Duration::from_millis(20))
    }

    /// Dead-letters this many jobs as a runtime does.
    pub fn store_dead_letter(&self, from: usize, count: usize) {
        const STORE_DEAD_LETTER: &str = "for i = ARGV[1], ARGV[1] + ARGV[2] - 1 do \
            redis.call('XADD', KEYS[1], '*', 'sj-dead-reason', 'rejected', \
              'sj-dead-error', 'order ' .. i .. ' has no price', 'sj-dead-attempts', '1', \
              'sj-dead-deliveries', '1', 'sj-dead-event', 'e-' .. i, 'type', 'order.placed', \
              'data', '{\"id\":' .. i .. '}', 'sj-id', 'e-' .. i) end";
        let (from, count) = (from.to_string(), count.to_string());
        self.redis.command(&["EVAL", STORE_DEAD_LETTER, "1", DEAD, &from, &count]);
    }

    /// Writes a dead letter with these fields.
    fn write(&self, id: &str, fields: &[(&str, &str)]) {
        let fields = fields.iter().flat_map(|(name, value)| [*name, *value]);
        self.redis.command(&["XADD", DEAD, id].into_iter().chain(fields).collect::<Vec<_>>());
    }

    pub fn left(&self) -> usize {
        self.redis.length(DEAD)
    }

    pub async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    async fn rows(&self) -> i64 {
        self.number("SELECT count(*) FROM streamjobs.dead_letters").await
    }

    async fn owner(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.database.owner_pool()).await.unwrap();
    }
}

fn archive_of(postgres: &Postgres) -> Archive {
    let (stream, group) = (StreamName::new("orders").unwrap(), GroupName::new("billing").unwrap());
    postgres.archive().queue(stream, group).interval(Duration::from_millis(20))
}

/// An archive needs no more than one connection.
async fn open(options: PgConnectOptions) -> Postgres {
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(10));
    Postgres::open(pool.connect_lazy_with(options)).await.unwrap()
}

#[tokio::test]
async fn a_dead_letter_becomes_a_row_with_all_that_is_known_and_leaves_its_stream() {
    let desk = Desk::new().await;
    let runtime = desk.runtime().service(desk.archive()).start().await.unwrap();
    let before = SystemTime::now() - Duration::from_secs(60);
    let order = Placed { id: 7, customer: "alice".to_owned() };
    let published = desk.client.publish(&order).await.unwrap();
    eventually_async(DEADLINE, "archived", async || desk.rows().await == 1).await;
    eventually_async(DEADLINE, "removed", async || desk.left() == 0).await;
    let texts = sqlx::query_as::<_, (Vec<Option<String>>,)>(
        "SELECT ARRAY[stream, group_name, event_id, event_type, reason, error, entry_id, origin_id,
             attempts::text, deliveries::text, payload->>'customer', known_done::text]
         FROM streamjobs.dead_letters",
    );
    let (texts,) = texts.fetch_one(&desk.pool).await.unwrap();
    let entry = published.entry_id.to_string();
    let error = "order 7 of 'alice' has\\u{0}no price";
    let expected = [
        "orders",
        "billing",
        published.event_id.as_str(),
        "order.placed",
        "exhausted",
        error,
        &entry,
        &entry,
        "1",
        "1",
        "alice",
        "false",
    ];
    assert_eq!(texts.iter().map(|text| text.as_deref().unwrap()).collect::<Vec<_>>(), expected);
    let fields = "SELECT field_names, field_values FROM streamjobs.dead_letters";
    let fields = sqlx::query_as::<_, (Vec<Vec<u8>>, Vec<Vec<u8>>)>(fields);
    let (names, values) = fields.fetch_one(&desk.pool).await.unwrap();
    let entry = desk.redis.entries("orders").remove(0);
    assert_eq!(names.into_iter().zip(values).collect::<Vec<_>>(), entry.fields);
    let ordered = "SELECT count(*) FROM streamjobs.dead_letters
        WHERE published_at = to_timestamp(split_part(origin_id, '-', 1)::numeric / 1000)
          AND published_at <= first_delivery AND first_delivery <= last_delivery
          AND last_delivery <= buried_at AND buried_at <= archived_at + interval '5 seconds'
          AND consumer <> '' AND length(fingerprint) = 16";
    assert_eq!(desk.number(ordered).await, 1);
    let young = sqlx::query_scalar::<_, bool>(
        "SELECT published_at > to_timestamp($1) FROM streamjobs.dead_letters",
    );
    let seconds = before.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(young.bind(seconds).fetch_one(&desk.pool).await.unwrap());
    let _ = runtime.shutdown().await;
    the_past_attempts_are_stored_and_go_on(&desk).await;
}

/// Of the only letter, also after a redrive.
async fn the_past_attempts_are_stored_and_go_on(desk: &Desk) {
    let history = "SELECT count(*) FROM streamjobs.open_dead_letters
        WHERE jsonb_array_length(history) = 1 AND history -> 0 ->> 'end' = 'failed'
          AND history -> 0 ->> 'error' = error AND history -> 0 ->> 'by' = consumer";
    assert_eq!(desk.number(history).await, 1);
    let letters = desk.postgres.dead_letters();
    let page = letters.list(&Selection::new(), None, 1).await.unwrap();
    let letter = letters.get(page.letters[0].id).await.unwrap().unwrap();
    assert_eq!(letter.history().attempts.len(), 1);
    let redrive = letters.redrive(Selection::new(), Request::new("alice", "again"));
    assert_eq!(redrive.start(&desk.client).await.unwrap().done, 1);
    let job = desk.redis.entries("{orders}:lane:billing").remove(0);
    assert_eq!(job.text("sj-history").as_deref(), Some(letter.history().as_text()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_letters_survive_two_stops_of_the_database() {
    let postgres = PgServer::start().unwrap();
    let desk = Desk::on(postgres.database().await).await;
    let runtime = desk.runtime().service(desk.archive()).start().await.unwrap();
    for round in 0..2 {
        desk.store_dead_letter(round * 5_000, 4_000);
        let stored = 4_000 * round as i64;
        eventually_async(DEADLINE, "under way", async || desk.rows().await > stored).await;
        tokio::task::block_in_place(|| postgres.stop());
        desk.store_dead_letter(round * 5_000 + 4_000, 1_000);
        assert!(desk.left() >= 1_000, "new dead letters wait in Redis");
        postgres.restart().unwrap();
    }
    eventually_async(DEADLINE, "all removed", async || desk.left() == 0).await;
    assert_eq!(desk.rows().await, 10_000);
    let events = "SELECT count(DISTINCT event_id) FROM streamjobs.dead_letters";
    assert_eq!(desk.number(events).await, 10_000);
    let _ = runtime.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_comes_back_costs_no_letter_and_doubles_none() {
    // Otherwise, while the disk is busy, a killed server can lose what it has answered within two seconds.
    let redis = RedisServer::builder().append_only(true).config("appendfsync", "always");
    let redis = redis.start().unwrap();
    let desk = Desk::between(redis, PgServer::shared().database().await).await;
    let runtime = desk.runtime().service(desk.archive()).start().await.unwrap();
    for from in [0, 2_000] {
        desk.store_dead_letter(from, 2_000);
        let stored = from as i64;
        eventually_async(DEADLINE, "under way", async || desk.rows().await > stored).await;
        desk.redis.kill();
        desk.redis.restart().unwrap();
    }
    eventually_async(DEADLINE, "all removed", async || desk.left() == 0).await;
    assert_eq!(desk.rows().await, 4_000);
    let events = "SELECT count(DISTINCT event_id) FROM streamjobs.dead_letters";
    assert_eq!(desk.number(events).await, 4_000);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn letters_whose_commit_was_not_confirmed_are_one_row_each() {
    let desk = Desk::new().await;
    let proxy = FaultProxy::start(&desk.database).unwrap();
    let archive = desk.archive_through(&proxy).await.lease(Duration::from_secs(3_600));
    let runtime = desk.runtime().service(archive).start().await.unwrap();
    proxy.set(Mode::LoseReplyTo("COMMIT".to_owned()));
    desk.store_dead_letter(0, 100);
    eventually_async(DEADLINE, "removed", async || desk.left() == 0).await;
    assert_eq!((desk.rows().await, proxy.faults()), (100, 1), "kept and retried at once");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn what_was_purged_during_an_outage_does_not_come_up_in_the_table() {
    let desk = Desk::new().await;
    let proxy = FaultProxy::start(&desk.database).unwrap();
    let archive = desk.archive_through(&proxy).await.lease(Duration::from_millis(10));
    let runtime = desk.runtime().service(archive).start().await.unwrap();
    proxy.set(Mode::Refuse);
    proxy.sever();
    desk.store_dead_letter(0, 2);
    eventually_async(DEADLINE, "taken in vain", async || proxy.faults() >= 1).await;
    let letters = desk.client.dead_letters("orders", "billing").unwrap();
    let first = letters.list(None, 1).await.unwrap().letters.remove(0);
    assert_eq!(letters.purge(&[first.id]).await.unwrap(), 1);
    let faults = proxy.faults();
    eventually_async(DEADLINE, "taken again", async || proxy.faults() >= faults + 2).await;
    proxy.set(Mode::Pass);
    eventually_async(DEADLINE, "removed", async || desk.left() == 0).await;
    let events = "SELECT string_agg(event_id, ' ') FROM streamjobs.dead_letters";
    let events = sqlx::query_scalar::<_, String>(events).fetch_one(&desk.pool).await.unwrap();
    assert_eq!(events, "e-1");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_letter_that_was_stored_and_not_removed_is_one_row() {
    let desk = Desk::new().await;
    desk.store_dead_letter(0, 3);
    let user: Vec<&str> = "ACL SETUSER archiver on >pass ~* &* +@all -xack".split(' ').collect();
    desk.redis.command(&user);
    let client = Client::connect(&desk.redis.url_as("archiver", "pass")).await.unwrap();
    // To other processes, this looks like a crash after the commit.
    let dying = desk.archive();
    assert!(dying.sweep(&client).await.is_err());
    assert_eq!((desk.rows().await, desk.left()), (3, 3), "stored first");
    let sweep = async || {
        let heir = desk.archive().lease(Duration::from_millis(10));
        heir.sweep(&desk.client).await.unwrap().stored_before == 3
    };
    eventually_async(DEADLINE, "taken after the lease", sweep).await;
    assert_eq!((desk.rows().await, desk.left()), (3, 0), "one row each, removed second");
}

#[tokio::test]
async fn every_payload_is_archived_as_it_was_sent_byte_for_byte() {
    let desk = Desk::new().await;
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let big = format!("\"{}\"", "x".repeat(4 << 20));
    let corpus: [(&[u8], bool); 20] = [
        (b"", false),
        (b"{\"a\":", false),
        (b"{} {}", false),
        (b"{\"id\":1}", true),
        (b"{\"id\":1,\"id\":2}", true),
        (b"18446744073709551616", true),
        (b"1e999", false),
        (b"1e200000", false),
        (b"-0.0", true),
        (b"\"\\ud800\"", false),
        (b"\"\\ud83d\\ude00\"", true),
        (b"\"\\u0000\"", false),
        (b"{\"\\u0000\":1}", false),
        (b"\"\0\"", false),
        (b"\"\xff\xfe\"", false),
        (b"\xf0\x9f\x92\xa9", false),
        (b"'; DROP TABLE streamjobs.dead_letters; --", false),
        (b"{\"$serde_json::private::Number\":\"1e200000\"}", true),
        (deep.as_bytes(), false),
        (big.as_bytes(), false),
    ];
    let runtime = desk.runtime().service(desk.archive()).start().await.unwrap();
    let mut sent = Vec::new();
    for (data, _) in corpus {
        let words: [&[u8]; 9] =
            [b"XADD", b"orders", b"*", b"type", b"order.placed", b"data", data, b"", b"\xff\0"];
        sent.push((desk.redis.query::<String>(&words), data));
    }
    let wide = vec!["x".to_owned(); 2 * 1_500];
    let words = ["XADD".to_owned(), "orders".to_owned(), "*".to_owned()].into_iter().chain(wide);
    desk.redis.command(&words.collect::<Vec<_>>());
    let count = corpus.len() as i64 + 1;
    eventually_async(DEADLINE, "archived", async || desk.rows().await == count).await;
    let undecodable = "SELECT count(*) FROM streamjobs.dead_letters WHERE reason = 'undecodable'";
    assert!(desk.number(undecodable).await > 15);
    for ((id, data), (_, viewed)) in sent.into_iter().zip(corpus) {
        let row = sqlx::query_as::<_, (Vec<Vec<u8>>, Vec<Vec<u8>>, bool)>(
            "SELECT field_names, field_values, payload IS NOT NULL
             FROM streamjobs.dead_letters WHERE entry_id = $1",
        );
        let (names, values, view) = row.bind(&id).fetch_one(&desk.pool).await.unwrap();
        assert_eq!(names, [&b"type"[..], b"data", b""]);
        assert_eq!(values, [b"order.placed", data, b"\xff\0"]);
        assert_eq!(view, viewed, "{:?}", String::from_utf8_lossy(&data[..data.len().min(40)]));
    }
    let wide = "SELECT cardinality(field_names)::bigint FROM streamjobs.dead_letters
        WHERE event_type IS NULL";
    assert_eq!(desk.number(wide).await, 1_500);
    eventually_async(DEADLINE, "removed", async || desk.left() == 0).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_lost_job_that_the_guard_knows_as_done_is_not_lost() {
    let desk = Desk::new().await;
    let rows = "INSERT INTO streamjobs.once
            (group_name, key, stream, entry_id, published_at, payload_hash, owner, expires_at, done_at)
        SELECT group_name, key, 'orders', entry_id,
            'epoch'::timestamptz + make_interval(secs => split_part(entry_id, '-', 1)::int / 1000.0),
            '', 'x', now(), done_at
        FROM (VALUES ('billing', 'done-key', '1-0', now()), ('billing', 'by-entry', '2-0', now()),
            ('billing', 'running', '3-0', NULL), ('mail', 'other', '4-0', now()),
            ('billing', E'order.placed\no-7', '7-0', now()))
            AS done (group_name, key, entry_id, done_at)";
    sqlx::query(rows).execute(&desk.pool).await.unwrap();
    let letter = |id: &str, reason: &str, event: Option<&str>, origin: &str| {
        let mut fields = vec![("sj-dead-reason", reason), ("sj-dead-origin", origin)];
        fields.extend(event.map(|event| ("sj-dead-event", event)));
        desk.write(id, &fields);
    };
    letter("1-0", "crashed", Some("done-key"), "9-0");
    letter("2-0", "trimmed", None, "2-0");
    letter("3-0", "trimmed", Some("running"), "3-0");
    letter("4-0", "trimmed", Some("other"), "4-0");
    letter("5-0", "rejected", Some("done-key"), "1-0");
    // After a failover, a server can give an id to another entry.
    letter("6-0", "crashed", Some("fresh"), "1-0");
    letter("7-0", "exhausted", Some("done-key"), "9-0");
    // One has the payload for which the application's own key was done.
    let hash = "UPDATE streamjobs.once SET payload_hash = '\\xc4317384a63eeeb79c63c9ff7eee7d8c'
        WHERE entry_id = '7-0'";
    sqlx::query(hash).execute(&desk.pool).await.unwrap();
    for (id, order) in [("8-0", "o-7"), ("9-0", "o-8")] {
        let event = format!("event-{order}");
        let fields = [("sj-dead-reason", "crashed"), ("sj-dead-origin", "7-0")];
        let fields = fields.into_iter().chain([("sj-dead-event", event.as_str())]);
        let payload = [("type", "order.placed"), ("order_id", order), ("sj-id", event.as_str())];
        desk.write(id, &fields.chain(payload).collect::<Vec<_>>());
    }
    let report = desk.archive().sweep(&desk.client).await.unwrap();
    assert_eq!((report.stored, report.known_done), (9, 5));
    let known = "SELECT string_agg(letter_id, ' ' ORDER BY letter_id) FROM streamjobs.dead_letters
        WHERE known_done";
    let known = sqlx::query_scalar::<_, String>(known).fetch_one(&desk.pool).await.unwrap();
    assert_eq!(known, "1-0 2-0 5-0 7-0 8-0");
    assert_eq!(desk.number("SELECT count(*) FROM streamjobs.open_dead_letters").await, 4);
}

#[tokio::test]
async fn two_archives_at_once_move_every_letter_once() {
    let desk = Desk::new().await;
    desk.store_dead_letter(0, 3_000);
    let (one, other) = (desk.archive().batch(50), desk.archive().batch(70));
    let (one, other) = tokio::join!(one.sweep(&desk.client), other.sweep(&desk.client));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.stored + other.stored, 3_000);
    assert!(one.stored > 0 && other.stored > 0, "{one:?} {other:?}");
    assert_eq!((desk.rows().await, desk.left()), (3_000, 0));
}

#[tokio::test]
async fn another_letter_with_a_reused_id_is_stored_too() {
    let desk = Desk::new().await;
    let letter = |event| [("sj-dead-reason", "rejected"), ("sj-dead-event", event)];
    for event in ["a", "b", "b"] {
        desk.write("5-0", &letter(event));
        let report = desk.archive().sweep(&desk.client).await.unwrap();
        assert_eq!(report.stored + report.stored_before, 1);
        // After a failover or a flush, a server can assign the same ids again.
        desk.redis.command(&["FLUSHALL"]);
    }
    assert_eq!(desk.rows().await, 2, "a letter that is stored twice is one row");
}

#[tokio::test]
async fn a_letter_that_the_database_refuses_delays_no_other() {
    let desk = Desk::new().await;
    desk.owner(
        "ALTER TABLE streamjobs.dead_letters ADD CHECK (event_id <> 'e-5'),
             ADD CHECK (NOT (event_id = 'e-6' AND payload IS NOT NULL))",
    )
    .await;
    desk.store_dead_letter(0, 10);
    let report = desk.archive().sweep(&desk.client).await.unwrap();
    assert_eq!((report.stored, report.refused), (9, 1));
    assert_eq!((desk.rows().await, desk.left()), (9, 1), "it stays in its stream");
    let bare = "SELECT count(*) FROM streamjobs.dead_letters
        WHERE payload IS NULL AND event_id = 'e-6' AND cardinality(field_names) = 3";
    assert_eq!(desk.number(bare).await, 1, "one whose JSON is refused is stored without it");
    desk.owner("ALTER TABLE streamjobs.dead_letters DROP CONSTRAINT dead_letters_event_id_check")
        .await;
    let patient = desk.archive().lease(Duration::from_millis(10));
    eventually_async(DEADLINE, "taken again", async || {
        patient.sweep(&desk.client).await.unwrap().stored == 1
    })
    .await;
    assert_eq!((desk.rows().await, desk.left()), (10, 0));
}

#[tokio::test]
async fn a_letter_that_left_redis_survives_a_crash_of_the_database() {
    let settings = PgServer::builder()
        .config("synchronous_commit", "off")
        .config("wal_writer_delay", "10s")
        .start();
    let postgres = settings.unwrap();
    let desk = Desk::on(postgres.database().await).await;
    desk.store_dead_letter(0, 100);
    let report = desk.archive().sweep(&desk.client).await.unwrap();
    assert_eq!((report.stored, desk.left()), (100, 0));
    postgres.kill();
    postgres.restart().unwrap();
    eventually_async(DEADLINE, "up again", async || {
        sqlx::query("SELECT 1").execute(&desk.pool).await.is_ok()
    })
    .await;
    assert_eq!(desk.rows().await, 100);
}

#[tokio::test]
async fn letters_leave_redis_only_after_a_commit_that_waits_for_the_disk() {
    let desk = Desk::new().await;
    watch_commits(&desk.database, "dead_letters").await;
    let options = desk.database.options(Role::Run).options([("synchronous_commit", "off")]);
    desk.store_dead_letter(0, 1);
    let report = archive_of(&open(options).await).sweep(&desk.client).await.unwrap();
    assert_eq!((report.stored, desk.left()), (1, 0));
    assert_eq!(commits(&desk.pool).await, ["on"]);
}

#[tokio::test]
async fn a_sweep_continues_past_letters_that_must_wait() {
    let desk = Desk::new().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().to_string();
    desk.redis.command(&["HSET", "{orders}:group:billing", "beat:alive", &now]);
    for _ in 0..40 {
        desk.write("*", &[("sj-dead-reason", "trimmed"), ("sj-dead-consumer", "alive")]);
    }
    desk.store_dead_letter(0, 3);
    let report = desk.archive().sweep(&desk.client).await.unwrap();
    assert_eq!((report.stored, desk.left()), (3, 40));
}

#[tokio::test]
async fn letters_of_the_last_jobs_are_moved_at_the_stop() {
    let desk = Desk::new().await;
    let archive = desk.postgres.archive().interval(Duration::from_secs(3_600));
    let runtime = desk.runtime().service(archive).start().await.unwrap();
    desk.store_dead_letter(0, 1);
    eventually_async(DEADLINE, "the first round", async || desk.rows().await == 1).await;
    desk.client.publish(&Placed { id: 1, customer: "bob".to_owned() }).await.unwrap();
    eventually_async(DEADLINE, "dead-lettered", async || desk.left() == 1).await;
    let _ = runtime.shutdown().await;
    assert_eq!((desk.rows().await, desk.left()), (2, 0));
}

const DEAD: &str = "{orders}:dead:billing";
pub const DEADLINE: Duration = Duration::from_secs(60);
