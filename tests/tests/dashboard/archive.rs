//! The archive of dead letters: its pages and its actions.

use std::time::Duration;

use axum::Router;
use futures_util::future::join_all;
use sqlx::Executor;
use streamjobs::{Client, GroupName, Runtime, StreamName};
use streamjobs_dashboard::Dashboard;
use streamjobs_postgres::Postgres;
use streamjobs_postgres::letters::{Request, Selection};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::postgres::{Database, PgServer};

use crate::site::{DEADLINE, Site, body, by_name, form};

/// A site with an archive that holds letters with these errors.
async fn archived(errors: &[&str]) -> (Site, Database, PgServer) {
    let site = Site::start().await;
    let server = PgServer::start().unwrap();
    let database = server.database().await;
    streamjobs_postgres::migrate(&database.owner_pool()).await.unwrap();
    database.grant("streamjobs").await;
    let postgres = Postgres::open(database.pool()).await.unwrap();
    for error in errors {
        site.store_dead_letter(error, "{\"card\":\"canary\",\"n\":12345678901234567890}");
    }
    let (stream, group) = (StreamName::new("orders").unwrap(), GroupName::new("work").unwrap());
    let archive = postgres.archive().queue(stream, group).interval(Duration::from_millis(20));
    let handlers: [streamjobs::HandlerDef; 0] = [];
    let runtime = Runtime::builder(&site.client).handlers(handlers).service(archive);
    let runtime = runtime.start().await.unwrap();
    let taken = async || site.server.length("{orders}:dead:work") == 0;
    eventually_async(DEADLINE, "all are archived", taken).await;
    let _ = runtime.shutdown().await;
    let done = site.done.clone();
    let dashboard = Dashboard::builder(client(&site).await, by_name)
        .streams([StreamName::new("orders").unwrap()])
        .archive(&postgres)
        .on_action(move |audited| done.lock().unwrap().push(audited.clone()))
        .build();
    let site = Site { app: Router::new().nest("/jobs", dashboard.router()), ..site };
    (site, database, server)
}

/// Stores a letter of the group `work` on a stream, and returns its number.
async fn letter(database: &Database, stream: &str, event: &str, error: &str) -> String {
    let insert = "INSERT INTO streamjobs.dead_letters
        (stream, group_name, letter_id, digest, reason, error, fingerprint, attempts, deliveries,
         buried_at, event_id, field_names, field_values)
        VALUES ($1, 'work', '1-' || (SELECT count(*) FROM streamjobs.dead_letters), '', 'exhausted',
                $3, 'f', 5, 5, now(), $2, '{type,data,sj-id}', '{order.placed,1,e}') RETURNING id";
    let insert = sqlx::query_scalar::<_, i64>(insert).bind(stream).bind(event).bind(error);
    insert.fetch_one(&database.pool()).await.unwrap().to_string()
}

/// The same site without a limit on its streams.
async fn unlimited(site: &Site, database: &Database) -> Router {
    let postgres = Postgres::open(database.pool()).await.unwrap();
    let dashboard = Dashboard::builder(client(site).await, by_name).archive(&postgres).build();
    Router::new().nest("/jobs", dashboard.router())
}

/// Asserts that nothing was done to the letters: they are open, and in no redrive.
async fn untouched(site: &Site, database: &Database, ids: &[&str]) {
    let ids = ids.iter().map(|id| id.parse().unwrap()).collect::<Vec<i64>>();
    let open = "SELECT count(*) FROM streamjobs.dead_letters
        WHERE id = ANY ($1) AND redriven_at IS NULL";
    let open = sqlx::query_scalar::<_, i64>(open).bind(&ids).fetch_one(&database.pool()).await;
    assert_eq!(open.unwrap(), ids.len() as i64);
    let redriven = "SELECT count(*) FROM streamjobs.redrive_letters
        WHERE letter_id = ANY ($1) AND state <> 'waiting'";
    let redriven = sqlx::query_scalar::<_, i64>(redriven).bind(&ids);
    assert_eq!(redriven.fetch_one(&database.pool()).await.unwrap(), 0);
    for lane in ["{payments}:lane:work", "{orders:p1}:lane:work"] {
        assert_eq!(site.server.length(lane), 0);
    }
}

async fn client(site: &Site) -> Client {
    Client::connect(&site.server.url()).await.unwrap()
}

const NOT_FOUND: [&str; 3] = ["order 1 not found", "order 2 not found", "order 3 not found"];

#[tokio::test]
async fn the_archive_shows_kinds_and_details_of_letters() {
    let errors = [&NOT_FOUND[..], &["<script>the bank is closed</script>"]].concat();
    let (site, _database, _server) = archived(&errors).await;
    // Archived letters count as dead letters although none is left in Redis.
    site.get("/jobs").await.is(200).says("./jobs/archive").says("<dd id=\"dead\">4</dd>");
    let group = site.get(crate::site::GROUP).await;
    group.is(200).says("archive?stream=orders&amp;group=work\">4</a>");
    let page = site.get("/jobs/archive").await;
    page.is(200).says("<span id=\"open\">4</span> open letters, 2 kinds of failure");
    page.says("work on orders")
        .says("&lt;script&gt;the bank is closed")
        .says_not("<script>the bank");
    let some = site.get("/jobs/archive?error=BANK&group=work").await;
    some.says("<span id=\"open\">1</span>").says_not("not found");
    let id =
        some.text.split("data-letter=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let one = site.get(&format!("/jobs/archive/{id}")).await;
    for page in [&page, &one] {
        crate::accessible::check("/jobs/archive", &page.text);
    }
    one.is(200).says("12345678901234567890").says("event-1").says("5 failed; delivered 5 times");
    site.get_as("blind", &format!("/jobs/archive/{id}")).await.says_not("canary").says_not("bank");
    let first = site.get("/jobs/archive?limit=3").await;
    first.says("Older letters").says_not(&format!("data-letter=\"{}\"", 1));
    site.get("/jobs/archive/999999").await.is(404);
    for bad in ["/jobs/archive/x", "/jobs/archive?before=x", "/jobs/archive?limit=-1"] {
        site.get(bad).await.is(400);
    }
    site.get_as("unknown", "/jobs/archive").await.is(403);
    for path in ["redrive", "resume", "forget"].map(|action| format!("/jobs/archive/{action}")) {
        site.post_as("unknown", &path, &[("id", &id), ("all", "1")]).await.is(403);
        let mut request = form(&path, "root", &[]);
        let headers = request.headers_mut().unwrap();
        headers.insert("sec-fetch-site", "cross-site".parse().unwrap());
        site.ask(request.body(body(&[("id", &id), ("all", "1")])).unwrap()).await.is(403);
    }
    assert_eq!(site.server.length("{orders}:lane:work"), 0);
}

#[tokio::test]
async fn archived_letters_are_redriven_after_a_dry_run_with_user_and_reason() {
    let errors = [&NOT_FOUND[..], &["the bank is closed"]].concat();
    let (site, database, _server) = archived(&errors).await;
    let path = "/jobs/archive/redrive";
    let page = site.get("/jobs/archive?error=not+found").await;
    let kind = page.text.split("data-fingerprint=\"").nth(1).unwrap().split('"').next().unwrap();
    let dry = site.post(path, &[("fingerprint", kind), ("dry_run", "1")]).await;
    dry.is(200)
        .says("This redrives 3 letters")
        .says("work on orders: 3")
        .says("Nothing has been changed yet")
        .says("archived before you press the button");
    assert_eq!(site.server.length("{orders}:lane:work"), 0);
    crate::accessible::check(path, &dry.text);
    site.post_as("guest", path, &[("all", "1")]).await.is(403);
    site.post(path, &[]).await.is(400).says("No letter is selected");
    let fields = [("fingerprint", kind), ("all", "1"), ("why", "ticket 4711")];
    let done = site.post_as("redrive", path, &fields).await;
    assert_eq!(done.is(303).notice(), "Redrove 3 jobs.");
    assert_eq!(site.server.length("{orders}:lane:work"), 3);
    let page = site.get("/jobs/archive").await;
    crate::accessible::check("/jobs/archive", &page.text);
    page.says("<span id=\"open\">1</span>").says("ticket 4711").says("finished");
    site.get("/jobs/archive?state=redriven")
        .await
        .says("order 1 not found")
        .says(">redriven</span>");
    let by = sqlx::query_scalar::<_, String>("SELECT requested_by FROM streamjobs.redrives");
    assert_eq!(by.fetch_one(&database.pool()).await.unwrap(), "redrive");
    site.post("/jobs/archive/resume", &[("redrive", "999")]).await.is(404);
    site.post("/jobs/archive/resume", &[("redrive", "x")]).await.is(400);
    let again = site.post("/jobs/archive/resume", &[("redrive", "1")]).await;
    again.is(303);
    assert_eq!(site.server.length("{orders}:lane:work"), 3, "nothing is redriven twice");
}

#[tokio::test]
async fn an_event_is_deleted_and_an_unreachable_database_is_reported() {
    let (site, _database, server) = archived(&NOT_FOUND).await;
    let page = site.get("/jobs/archive").await;
    let id =
        page.text.split("data-letter=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    site.post_as("redrive", "/jobs/archive/forget", &[("id", &id)]).await.is(403);
    site.post("/jobs/archive/forget", &[]).await.is(400);
    let gone = site.post_as("purge", "/jobs/archive/forget", &[("id", &id)]).await;
    assert_eq!(gone.is(303).notice(), "Deleted 3 letters of the event.");
    site.get("/jobs/archive").await.says("No open letters");
    server.kill();
    let page = site.get("/jobs/archive").await;
    page.is(503).says("The archive did not answer").says_not("No open letters");
    // The overview shows the values of Redis, and the error of the archive.
    let unknown = async || {
        let page = site.get("/jobs").await;
        page.is(200).says("id=\"waiting\"");
        page.text.contains("cannot count the archive of dead letters")
            || page.text.contains("did not answer within")
    };
    eventually_async(2 * DEADLINE, "the archive is reported as unreachable", unknown).await;
}

#[tokio::test]
async fn pages_of_a_locked_archive_fail_in_time_and_of_a_huge_one_show_lower_bounds() {
    let (site, database, _server) = archived(&NOT_FOUND).await;
    let mut lock = database.owner_pool().begin().await.unwrap();
    lock.execute("LOCK TABLE streamjobs.dead_letters").await.unwrap();
    let pages = join_all((0..7).map(|_| site.get("/jobs/archive"))).await;
    for page in &pages {
        page.is(503).says_not("No open letters");
    }
    drop(lock);
    let more = "INSERT INTO streamjobs.dead_letters
        (stream, group_name, letter_id, digest, reason, error, fingerprint, attempts, deliveries,
         buried_at, field_names, field_values)
        SELECT 'orders', 'work', n || '-0', '', 'exhausted', 'the bank is closed', 'f', 5, 5, now(),
               '{}', '{}' FROM generate_series(1, 10001) n";
    database.pool().execute(more).await.unwrap();
    let page = site.get("/jobs/archive").await;
    page.is(200).says("<span id=\"open\">≥ 10\u{2009}000</span> open letters, 1 kinds");
    let search = site.get("/jobs/archive?error=not+found").await;
    search.says("None of the letters that were examined matches").says("Older letters");
    let older =
        search.text.split("rel=\"next\" href=\"").nth(1).unwrap().split('"').next().unwrap();
    let older = older.replacen('.', "/jobs", 1).replace("&amp;", "&");
    site.get(&older).await.is(200).says("order 1 not found").says_not("Older letters");
    let dry = site.post("/jobs/archive/redrive", &[("dry_run", "1")]).await;
    dry.is(200).says("This redrives ≥ 10\u{2009}000 letters").says("All that match are redriven");
    let shown =
        async || site.get("/jobs").await.text.contains("<dd id=\"dead\">≥ 1\u{2009}000</dd>");
    eventually_async(2 * DEADLINE, "the overview shows a lower bound", shown).await;
}

#[tokio::test]
async fn letters_of_other_streams_are_neither_shown_nor_redriven_nor_deleted() {
    let (site, database, _server) = archived(&NOT_FOUND).await;
    // One of the event of which `orders` has letters too.
    let same = letter(&database, "payments", "event-1", "canary one").await;
    let other = letter(&database, "payments", "event-2", "canary two").await;
    // No partition of `orders`.
    let alike = letter(&database, "orders:p1", "event-3", "canary three").await;
    let all = [same.as_str(), &other, &alike];
    for path in ["/jobs/archive", "/jobs/archive?state=all", "/jobs/archive?stream=payments"] {
        let page = site.get(path).await;
        page.is(200).says_not("canary");
        for id in all {
            page.says_not(&format!("data-letter=\"{id}\""));
        }
    }
    site.get("/jobs/archive").await.says("<span id=\"open\">3</span>");
    for id in all {
        site.get(&format!("/jobs/archive/{id}")).await.is(404).says_not("canary");
        site.post("/jobs/archive/redrive", &[("id", id)]).await.is(404);
        site.post("/jobs/archive/forget", &[("id", id)]).await.is(404);
    }
    let dry = site.post("/jobs/archive/redrive", &[("dry_run", "1")]).await;
    dry.is(200).says("This redrives 3 letters").says_not("payments");
    untouched(&site, &database, &all).await;
    // A redrive that another program requested, of letters of all streams.
    let letters = Postgres::open(database.pool()).await.unwrap().dead_letters();
    let request = Request::new("alice", "of all streams");
    let wide = letters.redrive(Selection::new(), request).record().await.unwrap().to_string();
    site.get("/jobs/archive").await.says_not("of all streams");
    site.post("/jobs/archive/resume", &[("redrive", &wide)]).await.is(404);
    untouched(&site, &database, &all).await;
    // All that match, and one of each stream by number.
    let done = site.post("/jobs/archive/redrive", &[("all", "1"), ("why", "of orders")]).await;
    assert_eq!(done.is(303).notice(), "Redrove 3 jobs.");
    site.get("/jobs/archive").await.says("of orders");
    let own = site.get("/jobs/archive?state=redriven").await;
    let own = own.text.split("data-letter=\"").nth(1).unwrap().split('"').next().unwrap();
    site.post("/jobs/archive/redrive", &[("id", own), ("id", &other)]).await.is(303);
    untouched(&site, &database, &all).await;
    let gone = site.post("/jobs/archive/forget", &[("id", own)]).await;
    assert_eq!(gone.is(303).notice(), "Deleted 3 letters of the event.");
    untouched(&site, &database, &all).await;
    let site = Site { app: unlimited(&site, &database).await, ..site };
    site.get("/jobs/archive").await.says("canary one").says("canary two").says("of all streams");
    site.get(&format!("/jobs/archive/{other}")).await.is(200).says("canary two");
}

#[tokio::test]
async fn letters_of_all_partitions_of_a_shown_stream_are_shown() {
    let (site, database, _server) = archived(&[]).await;
    let id = letter(&database, "orders:p1:{1801}", "event-1", "the bank is closed").await;
    letter(&database, "payments", "event-2", "canary").await;
    let builder = Client::builder(&site.server.url()).partitions("orders", 3);
    let postgres = Postgres::open(database.pool()).await.unwrap();
    let dashboard = Dashboard::builder(builder.connect().await.unwrap(), by_name)
        .streams([StreamName::new("orders").unwrap()])
        .archive(&postgres)
        .build();
    let site = Site { app: Router::new().nest("/jobs", dashboard.router()), ..site };
    site.get("/jobs/archive").await.says("the bank is closed").says_not("canary");
    site.get(&format!("/jobs/archive/{id}")).await.is(200);
}
