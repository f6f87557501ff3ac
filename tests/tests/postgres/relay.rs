//! The relay: each event reaches its stream, in the order of its key, despite failures.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Executor};
use streamjobs::{Client, EncodedEvent, Runtime, StreamName};
use streamjobs_postgres::{Postgres, Relay};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::app::{App, Charge, DEADLINE, Order, order, quick, until};

fn of(customer: usize, id: impl ToString) -> Order {
    Order { id: id.to_string(), customer: format!("c-{customer}") }
}

/// The orders in the stream, in its order, and the number of distinct event ids.
fn stored(app: &App, stream: &str) -> (Vec<Order>, usize) {
    let entries = app.server.entries(stream);
    let ids = entries.iter().map(|entry| entry.text("sj-id").unwrap()).collect::<BTreeSet<_>>();
    let order = |data: String| serde_json::from_str(&data).unwrap();
    (entries.iter().map(|entry| order(entry.text("data").unwrap())).collect(), ids.len())
}

fn each_customers_orders_rise(orders: &[Order]) {
    let mut last = BTreeMap::<&str, u32>::new();
    for Order { id, customer } in orders {
        let id = id.parse().unwrap();
        let before = last.insert(customer, id);
        assert!(before.is_none_or(|before| before < id), "{before:?} before {id} of {customer}");
    }
}

/// Asserts that each event is followed by all later ones, however often it was stored.
fn each_is_followed_by_its_successors(orders: &[Order]) {
    let last = |place: usize| !orders[place + 1..].contains(&orders[place]);
    let last = (0..orders.len()).filter(|place| last(*place));
    each_customers_orders_rise(&last.map(|place| orders[place].clone()).collect::<Vec<_>>());
}

async fn publish(app: &App, orders: &[Order]) {
    let mut connection = app.pool.acquire().await.unwrap();
    app.postgres.publisher().publish_all_in(&mut connection, orders).await.unwrap();
}

async fn waiting(app: &App) -> i64 {
    app.number("SELECT count(*) FROM streamjobs.outbox").await
}

async fn emptied(app: &App) {
    eventually_async(DEADLINE, "the outbox is empty", async || waiting(app).await == 0).await;
}

async fn start(client: &Client, relay: Relay) -> Runtime {
    quick(Runtime::builder(client).handlers([])).service(relay).start().await.unwrap()
}

async fn execute(app: &App, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&app.database.admin_pool()).await.unwrap();
}

/// Publishes the next order of a customer, and locks the customer's row first, as applications do.
async fn publish_next(app: &App, customer: usize) {
    let mut transaction = app.pool.begin().await.unwrap();
    let next = sqlx::query_scalar::<_, i64>(
        "UPDATE customers SET orders = orders + 1 WHERE id = $1 RETURNING orders",
    );
    let next = next.bind(customer as i64).fetch_one(&mut *transaction).await.unwrap();
    let order = of(customer, next);
    app.postgres.publisher().publish_in(&mut transaction, &order).await.unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn orders_of_one_key_keep_their_order_across_many_publishers_and_relays() {
    let app = App::start().await;
    execute(
        &app,
        "CREATE TABLE customers (id bigint PRIMARY KEY, orders bigint NOT NULL);
         INSERT INTO customers SELECT id, 0 FROM generate_series(0, 2) AS id;
         GRANT ALL ON customers TO streamjobs_run",
    )
    .await;
    let relay = || app.postgres.relay().batch(7).poll(Duration::from_millis(20));
    let relays = [start(&app.client, relay()).await, start(&app.client, relay()).await];
    join_all((0..8).map(async |publisher| {
        for number in 0..30 {
            publish_next(&app, (publisher + number) % 3).await;
        }
    }))
    .await;
    emptied(&app).await;
    let (orders, ids) = stored(&app, "orders");
    assert_eq!((orders.len(), ids), (240, 240));
    each_customers_orders_rise(&orders);
    for relay in relays {
        let _ = relay.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_at_once_store_every_event_once() {
    let app = App::start().await;
    let orders = (0..2_000).map(|id| of(id % 5, id)).collect::<Vec<_>>();
    publish(&app, &orders).await;
    let relay = app.postgres.relay().batch(50);
    join_all((0..4).map(async |_| {
        while waiting(&app).await > 0 {
            let _ = relay.sweep(&app.client).await.unwrap();
        }
    }))
    .await;
    let (stored, ids) = stored(&app, "orders");
    assert_eq!((stored.len(), ids), (2_000, 2_000));
    assert_eq!(stored, orders);
}

#[tokio::test]
async fn an_event_stored_and_not_deleted_is_stored_again_under_its_event_id() {
    let app = App::start().await;
    publish(&app, &(0..9).map(|id| of(0, id)).collect::<Vec<_>>()).await;
    execute(
        &app,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN RAISE 'dies here'; END $$;
         CREATE TRIGGER refuse BEFORE DELETE ON streamjobs.outbox EXECUTE FUNCTION refuse()",
    )
    .await;
    app.postgres.relay().sweep(&app.client).await.unwrap_err();
    assert_eq!((waiting(&app).await, stored(&app, "orders").0.len()), (9, 9));
    execute(&app, "DROP TRIGGER refuse ON streamjobs.outbox").await;
    assert_eq!(app.postgres.relay().sweep(&app.client).await.unwrap().events, 9);
    let (orders, ids) = stored(&app, "orders");
    assert_eq!((orders.len(), ids, waiting(&app).await), (18, 9, 0));
    each_is_followed_by_its_successors(&orders);
}

#[tokio::test]
async fn a_lost_reply_publishes_again_and_a_guarded_handler_does_it_once() {
    let app = App::start().await;
    let charge = Charge::once();
    let runtime = app.runtime(&charge).start().await.unwrap();
    let proxy = FaultProxy::start(&app.server).unwrap();
    let client = Client::connect(proxy.url()).await.unwrap();
    let relay = start(&client, app.postgres.relay().poll(Duration::from_millis(20))).await;
    proxy.set(Mode::LoseReplyTo("XADD".into()));
    publish(&app, &[of(0, 1)]).await;
    emptied(&app).await;
    app.drained("billing").await;
    let entries = app.server.query::<u64>(&["XLEN", "orders"]);
    assert_eq!((entries, app.effects().await, charge.count()), (2, 1, 1));
    let _ = relay.shutdown().await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn events_wait_for_a_server_that_is_away_and_keep_their_order() {
    let app = App::start().await;
    let relay = start(&app.client, app.postgres.relay().poll(Duration::from_millis(20))).await;
    app.server.kill();
    for id in 0..40 {
        publish(&app, &[of(id % 4, id)]).await;
    }
    assert_eq!(waiting(&app).await, 40);
    app.server.restart().unwrap();
    emptied(&app).await;
    let (orders, ids) = stored(&app, "orders");
    assert_eq!(ids, 40);
    each_is_followed_by_its_successors(&orders);
    let _ = relay.shutdown().await;
}

#[tokio::test]
async fn a_server_at_its_memory_limit_takes_the_rest_later_and_in_order() {
    let app = App::start().await;
    let relay = start(&app.client, app.postgres.relay().poll(Duration::from_millis(20))).await;
    let used = app.server.info("used_memory").unwrap().parse::<u64>().unwrap();
    let limit = |bytes: u64| {
        app.server.command(&["CONFIG", "SET", "maxmemory", &bytes.to_string()]);
    };
    limit(used + 500_000);
    // 10 kB each, of which some fit.
    let long = |id: usize| {
        let customer = format!("{}{}", "c".repeat(9_000), id % 3);
        Order { id: id.to_string(), customer }
    };
    publish(&app, &(0..200).map(long).collect::<Vec<_>>()).await;
    until("some fit", || app.server.length("orders") > 0).await;
    assert!(waiting(&app).await > 0);
    limit(0);
    emptied(&app).await;
    let (orders, ids) = stored(&app, "orders");
    assert_eq!(ids, 200);
    each_is_followed_by_its_successors(&orders);
    let _ = relay.shutdown().await;
}

#[tokio::test]
async fn a_notification_wakes_the_relay_and_events_without_one_are_found_by_polling() {
    let app = App::start().await;
    let relay = start(&app.client, app.postgres.relay().poll(Duration::from_secs(3_600))).await;
    listening(&app, 1).await;
    for id in 1..=3 {
        publish(&app, &[of(0, id)]).await;
        emptied(&app).await;
    }
    let _ = relay.shutdown().await;
    let relay = start(&app.client, app.postgres.relay().poll(Duration::from_millis(20))).await;
    let publisher = app.postgres.publisher().without_notify();
    let mut connection = app.pool.acquire().await.unwrap();
    publisher.publish_in(&mut connection, &of(0, 4)).await.unwrap();
    emptied(&app).await;
    assert_eq!(stored(&app, "orders").0.len(), 4);
    let _ = relay.shutdown().await;
}

/// Waits until this many connections listen.
async fn listening(app: &App, number: i64) {
    eventually_async(DEADLINE, "it listens", async || app.number(LISTENING).await == number).await;
}

const LISTENING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle'";

#[tokio::test]
async fn a_relay_listens_again_when_its_connection_died() {
    let app = App::start().await;
    let relay = start(&app.client, app.postgres.relay().poll(Duration::from_secs(3_600))).await;
    for id in 0..3 {
        listening(&app, 1).await;
        let ended = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
            WHERE datname = current_database() AND query LIKE 'LISTEN%'";
        let pool = app.database.admin_pool();
        let ended = sqlx::query_scalar::<_, i64>(ended).fetch_one(&pool).await.unwrap();
        assert_eq!(ended, 1);
        publish(&app, &[of(0, id)]).await;
        emptied(&app).await;
    }
    let _ = relay.shutdown().await;
}

#[tokio::test]
async fn another_relay_takes_over_when_the_elected_one_hangs() {
    let app = App::start().await;
    // To other relays, this looks like a relay that hangs.
    let mut hanging = app.pool.begin().await.unwrap();
    let elected =
        "SELECT pg_try_advisory_xact_lock(hashtextextended('streamjobs:outbox:streamjobs', 0))";
    let elected = sqlx::query_scalar::<_, bool>(elected).fetch_one(&mut *hanging).await.unwrap();
    assert!(elected);
    publish(&app, &[of(0, 1)]).await;
    let swept = app.postgres.relay().sweep(&app.client).await.unwrap();
    assert!(swept.elsewhere && swept.events == 0);
    let relay = start(&app.client, app.postgres.relay().poll(Duration::from_millis(20))).await;
    assert_eq!(waiting(&app).await, 1);
    drop(hanging);
    emptied(&app).await;
    let _ = relay.shutdown().await;
}

#[tokio::test]
async fn a_relay_whose_transaction_was_ended_while_it_hung_deletes_nothing() {
    let app = App::start().await;
    let relay = start(&app.client, app.postgres.relay().poll(Duration::from_millis(20))).await;
    app.server.freeze();
    publish(&app, &(0..5).map(|id| of(0, id)).collect::<Vec<_>>()).await;
    // The server does the same after 30 s.
    let end = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'idle in transaction'
            AND query LIKE 'WITH %AS%'";
    let pool = app.database.admin_pool();
    eventually_async(DEADLINE, "the relay hangs within its transaction", async || {
        sqlx::query_scalar::<_, i64>(end).fetch_one(&pool).await.unwrap() == 1
    })
    .await;
    assert_eq!(waiting(&app).await, 5);
    app.server.thaw();
    emptied(&app).await;
    let (orders, ids) = stored(&app, "orders");
    assert_eq!(ids, 5);
    each_is_followed_by_its_successors(&orders);
    let _ = relay.shutdown().await;
}

#[tokio::test]
async fn a_stream_that_refuses_everything_delays_no_other_stream() {
    let app = App::start().await;
    app.server.command(&["SET", "taken", "another type"]);
    let mut connection = app.pool.acquire().await.unwrap();
    let taken = StreamName::new("taken").unwrap();
    let encode = |order: Order| EncodedEvent::new(&order).unwrap();
    let blocked = (0..300).map(|id| encode(of(0, id)).to_stream(taken.clone()));
    let blocked = blocked.collect::<Vec<_>>();
    app.postgres.publisher().publish_encoded_in(&mut connection, &blocked).await.unwrap();
    publish(&app, &(0..300).map(|id| of(0, id)).collect::<Vec<_>>()).await;
    let relay = app.postgres.relay().batch(100).poll(Duration::from_millis(50));
    let relay = start(&app.client, relay).await;
    eventually_async(DEADLINE, "the other stream has its events", async || {
        waiting(&app).await == 300
    })
    .await;
    let (orders, ids) = stored(&app, "orders");
    assert_eq!((orders.len(), ids), (300, 300));
    each_customers_orders_rise(&orders);
    app.server.command(&["DEL", "taken"]);
    emptied(&app).await;
    let (orders, ids) = stored(&app, "taken");
    assert_eq!((orders.len(), ids), (300, 300));
    each_customers_orders_rise(&orders);
    let _ = relay.shutdown().await;
}

#[tokio::test]
async fn rows_that_are_no_events_are_refused_with_a_reason_and_delay_no_other() {
    let app = App::start().await;
    execute(
        &app,
        "INSERT INTO streamjobs.outbox (stream, event_id, field_names, field_values) VALUES
         ('or\tders', 'a', '{type,sj-id}', '{canary,a}'),
         ('orders', 'b', '{sj-id,data}', '{b,canary}'),
         ('orders', 'c', '{type,data}', '{t,canary}'),
         ('orders', 'd', '{type,sj-id}', '{canary,NULL}'),
         ('orders', 'e', '{{type,sj-id}}', '{{canary,e}}'),
         ('orders', 'f', '{}', '{}'),
         ('orders', 'g', '{type,data,sj-id}', '{t,1,g}')",
    )
    .await;
    let relay = app.postgres.relay();
    let swept = relay.sweep(&app.client).await.unwrap();
    assert_eq!((swept.events, swept.left, swept.refused), (1, 0, 6));
    let again = relay.sweep(&app.client).await.unwrap();
    assert_eq!((again.events, again.refused), (0, 0));
    let whys = "SELECT refused FROM streamjobs.outbox ORDER BY id";
    let whys = sqlx::query_scalar::<_, String>(whys).fetch_all(&app.pool).await.unwrap();
    assert!(whys.len() == 6 && whys.iter().all(|why| !why.contains("canary")), "{whys:#?}");
    execute(
        &app,
        "UPDATE streamjobs.outbox SET stream = 'orders', refused = NULL WHERE event_id = 'a'",
    )
    .await;
    assert_eq!(relay.sweep(&app.client).await.unwrap().events, 1);
    assert_eq!(app.server.length("orders"), 2);
}

#[tokio::test]
async fn a_row_that_a_program_in_another_language_wrote_is_published() {
    let app = App::start().await;
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/postgres.md");
    let page = std::fs::read_to_string(page).unwrap();
    let example = page.split("```sql\n").find(|block| block.starts_with("INSERT INTO")).unwrap();
    let example = example.split("```").next().unwrap().to_owned();
    sqlx::query(AssertSqlSafe(example)).execute(&app.pool).await.unwrap();
    assert_eq!(app.postgres.relay().sweep(&app.client).await.unwrap().events, 1);
    let entry = app.server.entries("orders").remove(0);
    let text = |name| entry.text(name).unwrap();
    assert_eq!((text("type"), text("sj-key")), ("order.placed".to_owned(), "alice".to_owned()));
    assert_eq!(text("data"), r#"{"customer":"alice"}"#);
}

#[tokio::test]
async fn an_event_too_large_for_the_relays_client_is_refused() {
    let app = App::start().await;
    let small = Client::builder(&app.server.url()).payload_bytes_max(1_000);
    let small = small.connect().await.unwrap();
    publish(&app, &[of(0, "1".repeat(2_000)), of(0, 2)]).await;
    let swept = app.postgres.relay().sweep(&small).await.unwrap();
    assert_eq!((swept.events, swept.refused), (1, 1));
    execute(&app, "UPDATE streamjobs.outbox SET refused = NULL").await;
    assert_eq!(app.postgres.relay().sweep(&app.client).await.unwrap().events, 1);
}

#[tokio::test]
async fn a_reason_that_no_column_accepts_delays_no_other_row() {
    let app = App::start().await;
    let small = Client::builder(&app.server.url()).payload_bytes_max(1_000);
    let small = small.connect().await.unwrap();
    execute(
        &app,
        r"INSERT INTO streamjobs.outbox (stream, event_id, field_names, field_values) VALUES
         ('orders', 'a', '{type,sj-id,data}',
          ARRAY['\x740074'::bytea, 'a', convert_to(repeat('x', 2000), 'UTF8')]),
         ('orders', 'b', '{type,data,sj-id}', '{t,1,b}')",
    )
    .await;
    let swept = app.postgres.relay().sweep(&small).await.unwrap();
    assert_eq!((swept.events, swept.refused), (1, 1));
}

#[tokio::test]
async fn large_events_are_moved_a_few_mebibytes_at_a_time() {
    let app = App::start().await;
    let orders = (0..24).map(|id| of(id, "1".repeat(1_000_000))).collect::<Vec<_>>();
    publish(&app, &orders).await;
    let swept = app.postgres.relay().batch(1_000).sweep(&app.client).await.unwrap();
    assert_eq!((swept.events, app.server.length("orders")), (24, 24));
}

#[tokio::test]
async fn the_last_jobs_events_are_moved_before_a_runtime_has_stopped() {
    let app = App::start().await;
    let relay = start(&app.client, app.postgres.relay().poll(Duration::from_secs(3_600))).await;
    listening(&app, 1).await;
    let mut connection = app.pool.acquire().await.unwrap();
    app.postgres.publisher().without_notify().publish_in(&mut connection, &order(1)).await.unwrap();
    let _ = relay.shutdown().await;
    assert_eq!((waiting(&app).await, app.server.length("orders")), (0, 1));
}

#[tokio::test]
async fn an_event_that_is_published_during_the_last_round_is_moved_in_one_more() {
    let app = App::start().await;
    let relay = start(&app.client, app.postgres.relay().poll(Duration::from_secs(3_600))).await;
    listening(&app, 1).await;
    // The round of the first order has read the outbox, and cannot publish for a while.
    app.server.command(&["CLIENT", "PAUSE", "2000", "WRITE"]);
    publish(&app, &[of(1, 1)]).await;
    let sending = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'idle in transaction'";
    eventually_async(DEADLINE, "it sends", async || app.number(sending).await == 1).await;
    let mut connection = app.pool.acquire().await.unwrap();
    app.postgres.publisher().without_notify().publish_in(&mut connection, &order(2)).await.unwrap();
    let _ = relay.shutdown().await;
    assert_eq!((waiting(&app).await, app.server.length("orders")), (0, 2));
}

#[tokio::test]
async fn a_relay_with_invalid_settings_does_not_start() {
    let app = App::start().await;
    let relays: [fn(&Postgres) -> Relay; 3] = [
        |postgres| postgres.relay().batch(0),
        |postgres| postgres.relay().batch(10_001),
        |postgres| postgres.relay().poll(Duration::ZERO),
    ];
    for relay in relays {
        let relay = relay(&app.postgres);
        let refused = Runtime::builder(&app.client).handlers([]).service(relay).start().await;
        let text = format!("{:?}", refused.err().unwrap());
        assert!(text.contains("relay"), "{text}");
    }
}

#[tokio::test]
async fn a_relay_with_a_single_connection_keeps_moving_events() {
    let app = App::start().await;
    let pool = app.database.pool_of(1);
    let postgres = Postgres::open(pool).await.unwrap();
    let relay = postgres.relay().poll(Duration::from_millis(20));
    let runtime = start(&app.client, relay).await;
    for round in 1..=5 {
        publish(&app, &[of(1, round)]).await;
        emptied(&app).await;
        let listening = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND query LIKE 'LISTEN%'";
        assert_eq!(app.number(listening).await, 0, "its only connection is for moving events");
    }
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_relay_that_cannot_count_the_backlog_gives_its_connection_back() {
    let app = App::start().await;
    let mut other = app.database.owner_pool().begin().await.unwrap();
    let elected =
        "SELECT pg_advisory_xact_lock(hashtextextended('streamjobs:outbox:streamjobs', 0))";
    other.execute(elected).await.unwrap();
    other.execute("LOCK TABLE streamjobs.outbox IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let relay = app.postgres.relay().poll(Duration::from_millis(20));
    let runtime = quick(Runtime::builder(&app.client).handlers([])).service(relay);
    let runtime = runtime.start().await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for count in [1, 0] {
        let is_so = async || app.number(waiting).await == count;
        eventually_async(DEADLINE, "it counts, and no longer", is_so).await;
    }
    other.rollback().await.unwrap();
    let _ = runtime.shutdown().await;
}
