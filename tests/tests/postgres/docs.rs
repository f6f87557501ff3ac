//! Runs the SQL and the code of the pages as they are printed.

use std::path::Path;

use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor, PgPool};
use streamjobs::Client;
use streamjobs_postgres::Postgres;
use streamjobs_postgres::letters::{Page, Redrive, RedrivePlan, Request, Selection};
use streamjobs_tests::postgres::{PgServer, Role};

use crate::rows::{Archive, Row};

/// One block of SQL in a page, and the output that the page prints for it.
struct Block {
    sql: String,
    output: Option<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let fenced = |text: &str| text.split("```").next().unwrap().to_owned();
    let block = |rest: &str| {
        let after = rest.split_once("```\n").map(|(_, after)| after.trim_start()).unwrap_or("");
        Block { sql: fenced(rest), output: after.strip_prefix("```text\n").map(fenced) }
    };
    text.split("```sql\n").skip(1).map(block).collect()
}

/// The role that runs a block, from the comment in its first line; the application's by default.
fn runs_as(sql: &str) -> &'static str {
    match sql.lines().next().and_then(|line| line.strip_prefix("-- by ")) {
        Some(who) if who.starts_with("an administrator") => Role::Admin.name(),
        Some(who) if who.starts_with("the role that migrates") => "shop_migrate",
        Some(role) => panic!("unknown role: {role}"),
        None => "shop_run",
    }
}

/// A server without the roles of the page, with the database `shop`.
struct Shop {
    server: PgServer,
}

impl Shop {
    async fn start() -> Self {
        let server = PgServer::start().unwrap();
        let shop = Self { server };
        shop.pool_to("postgres", Role::Admin.name()).execute("CREATE DATABASE shop").await.unwrap();
        shop
    }

    fn pool(&self, role: &str) -> PgPool {
        self.pool_to("shop", role)
    }

    fn pool_to(&self, database: &str, role: &str) -> PgPool {
        let url = self.server.url(Role::Admin, database);
        let options = url.parse::<PgConnectOptions>().unwrap().username(role);
        let options = options.options([("TimeZone", "UTC")]);
        PgPoolOptions::new().max_connections(2).connect_lazy_with(options)
    }

    async fn run(&self, sql: &str) {
        let run = self.pool(runs_as(sql)).execute(AssertSqlSafe(sql.to_owned())).await;
        run.unwrap_or_else(|error| panic!("{error}\n{sql}"));
    }

    /// The rows of a query, each value as text, in the order of the printed header.
    async fn query(&self, sql: &str, header: &[&str]) -> Vec<Vec<String>> {
        let query = sql.trim().trim_end_matches(';');
        let query = format!("SELECT to_jsonb(q) FROM (\n{query}\n) q");
        let rows = sqlx::query_scalar::<_, Value>(AssertSqlSafe(query));
        let rows = rows.fetch_all(&self.pool(runs_as(sql))).await.unwrap();
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        rows.iter().map(|row| header.iter().map(|name| text(&row[*name])).collect()).collect()
    }
}

/// The cells of a table as `psql` prints it.
fn cells(line: &str) -> Vec<&str> {
    line.split('|').map(str::trim).collect()
}

async fn sample(pool: &PgPool) {
    let declined = Row {
        error: Some("card declined: insufficient funds"),
        fingerprint: "8d1f0c6a2b9e4471",
        ..Row::new(1)
    };
    let rows = [
        declined.clone(),
        Row { number: 2, event_id: Some(String::from("e-2")), ..declined.clone() },
        Row { number: 1_500, event_id: Some(String::from("e-3")), ..declined },
        Row {
            stream: "orders",
            group: "notifications",
            reason: "crashed",
            error: None,
            fingerprint: "3b7e5512c0d9aa10",
            ..Row::new(4)
        },
        Row { redriven: true, ..Row::new(5) },
    ];
    for row in rows {
        row.insert(pool).await;
    }
    let orders = "CREATE TABLE public.orders (event_id text PRIMARY KEY, customer text NOT NULL)";
    pool.execute(orders).await.unwrap();
    pool.execute("INSERT INTO public.orders VALUES ('e-1', 'alice'), ('e-2', 'bob')")
        .await
        .unwrap();
}

#[tokio::test]
async fn every_sql_example_runs_and_returns_what_is_printed() {
    let shop = Shop::start().await;
    let all = ["docs/postgres.md", "docs/once.md"].map(blocks);
    let (roles, queries) =
        all.iter().flatten().partition::<Vec<_>, _>(|block| runs_as(&block.sql) != "shop_run");
    assert!(!roles.is_empty() && !queries.is_empty());
    // The first two blocks create the roles; the later ones need the tables.
    for (place, block) in roles.iter().enumerate() {
        if place == 2 {
            streamjobs_postgres::migrate(&shop.pool("shop_migrate")).await.unwrap();
        }
        shop.run(&block.sql).await;
    }
    Postgres::open(shop.pool("shop_run")).await.unwrap();
    shop.pool(Role::Admin.name())
        .execute("GRANT CREATE ON SCHEMA public TO shop_run")
        .await
        .unwrap();
    sample(&shop.pool("shop_run")).await;
    for Block { sql, output } in queries {
        let Some(output) = output else {
            shop.run(sql).await;
            continue;
        };
        let mut lines = output.lines().filter(|line| !line.starts_with('-') && !line.is_empty());
        let header = cells(lines.next().unwrap());
        let printed = lines.map(cells).collect::<Vec<_>>();
        assert_eq!(shop.query(sql, &header).await, printed, "{sql}");
    }
}

async fn query_and_redrive(
    postgres: Postgres,
    client: Client,
) -> Result<(Page, RedrivePlan, Redrive), Box<dyn std::error::Error>> {
    // docs: begin
    let letters = postgres.dead_letters();
    let declined = Selection::new()
        .stream("orders")
        .group("billing")
        .error_contains("card declined")
        .payload_matches("$.amount > 100");
    let page = letters.list(&declined, None, 50).await?;
    let kinds = letters.counts_by_fingerprint(&Selection::new()).await?;
    let groups = letters.counts_by_group(&declined).await?;
    // docs: end
    assert_eq!((kinds.len(), groups.len()), (1, 1));
    // docs: begin
    let request = Request::new("alice", "the bank is back, ticket 4711");
    let redrive =
        letters.redrive(declined, request).rate(50.try_into()?).stop_after(10.try_into()?);
    let plan = redrive.dry_run().await?;
    let report = redrive.start(&client).await?;
    // docs: end
    Ok((page, plan, report))
}

#[tokio::test]
async fn the_examples_of_query_and_redrive_do_what_the_page_says() {
    let (archive, _server, client) = Archive::with_redis().await;
    archive.fill(1).await;
    Row { payload: Some("{\"amount\":700}"), ..Row::new(2) }.insert(&archive.pool).await;
    let postgres = Postgres::open(archive.pool.clone()).await.unwrap();
    let (page, plan, report) = query_and_redrive(postgres, client).await.unwrap();
    assert_eq!((page.letters.len(), plan.letters, report.done), (1, 1, 1));
}

#[test]
fn the_page_prints_the_examples_that_are_run_here() {
    let bare = |code: &str| {
        let lines = code.lines().map(|line| line.split("   //").next().unwrap_or_default());
        let lines = lines.map(|line| line.split("  // ").next().unwrap_or_default());
        lines.flat_map(str::chars).filter(|letter| !letter.is_whitespace()).collect::<String>()
    };
    let page = include_str!("../../../docs/postgres.md");
    let printed = page.split("```rust\n").skip(1).filter_map(|part| part.split("```").next());
    let printed = printed.map(bare).collect::<Vec<_>>();
    let run = include_str!("docs.rs").split("    // docs: begin\n").skip(1);
    let run = run.filter_map(|part| part.split("    // docs: end").next()).map(bare);
    // The markers in this function's own code are not examples.
    let run = run.filter(|example| example.starts_with("let")).collect::<Vec<_>>();
    assert_eq!(run.len(), 2);
    for example in run {
        assert!(printed.contains(&example), "{example} is not among {printed:#?}");
    }
}
