//! Calls whose callers leave before the server has replied.

use std::pin::Pin;

use futures_util::FutureExt;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use streamjobs_postgres::Postgres;
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::app::{App, DEADLINE};

/// Polls a call until the proxy holds the reply to its `BEGIN`, and drops it then.
async fn leave_at_begin<T>(proxy: &FaultProxy, call: Pin<Box<dyn Future<Output = T> + Send + '_>>) {
    proxy.set(Mode::HoldReplyTo("BEGIN".into()));
    tokio::select! {
        _ = call => panic!("the reply was not held"),
        () = eventually_async(DEADLINE, "the reply is held", async || proxy.held() == 1) => {}
    }
    proxy.set(Mode::Pass);
}

/// Writes a row by itself on the only connection of the pool.
async fn write_effect(pool: &PgPool) {
    let insert = sqlx::query("INSERT INTO effects (order_id, event_id) VALUES ('1', '1')");
    insert.execute(pool).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_leaves_at_the_begin_leaves_no_transaction_on_its_connection() {
    let app = App::start().await;
    let proxy = FaultProxy::start(&app.database).unwrap();
    let pool = PgPoolOptions::new().max_connections(1).connect(proxy.url()).await.unwrap();
    let postgres = Postgres::open(pool.clone()).await.unwrap();

    leave_at_begin(&proxy, postgres.relay().sweep(&app.client).boxed()).await;
    write_effect(&pool).await;
    assert_eq!(app.effects().await, 1, "beside a transaction that writes");

    leave_at_begin(&proxy, postgres.publisher().backlog().boxed()).await;
    write_effect(&pool).await;
    assert_eq!(app.effects().await, 2, "beside a transaction that reads");

    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND state LIKE 'idle in transaction%'";
    assert_eq!(app.number(open).await, 0);
}
