//! Requests and replies that a proxy holds while a test does something else.

use sqlx::{Connection, PgConnection, PgPool};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::postgres::{Database, PgServer, Role};
use streamjobs_tests::proxy::{FaultProxy, Mode};
use streamjobs_tests::server::RedisServer;
use tokio::task::JoinSet;

use super::DEADLINE;

const INSERT: &str = "INSERT INTO charges VALUES (1)";

#[tokio::test]
async fn held_request_has_not_reached_the_server_until_the_mode_changes() {
    let server = RedisServer::builder().plain().start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let increment = |url: String| async move {
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd("INCR").arg("key").query_async::<usize>(&mut connection).await
    };
    proxy.set(Mode::HoldRequest("INCR".into()));
    let mut asked = JoinSet::from_iter([increment(proxy.url().to_owned())]);
    held(&proxy).await;
    assert_eq!(server.query::<usize>(&["EXISTS", "key"]), 0);
    // From before to after in one go: the same request is now one whose reply is held.
    proxy.set(Mode::HoldReplyTo("INCR".into()));
    eventually_async(DEADLINE, "it is carried out", async || {
        server.query::<usize>(&["EXISTS", "key"]) == 1
    })
    .await;
    held(&proxy).await;
    assert!(asked.try_join_next().is_none());
    proxy.set(Mode::Pass);
    assert_eq!(asked.join_next().await.unwrap().unwrap(), Ok(1));
    assert_eq!(proxy.held(), 0);
}

#[tokio::test]
async fn commit_that_is_held_and_then_cut_off_has_not_happened() {
    let (database, proxy) = start().await;
    proxy.set(Mode::HoldRequest("COMMIT".into()));
    let mut client = JoinSet::from_iter([charge(proxy.url().to_owned())]);
    held(&proxy).await;
    assert_eq!(charges(&database.pool()).await, 0);
    proxy.sever();
    assert!(client.join_next().await.unwrap().unwrap().is_err());
    eventually_async(DEADLINE, "the server has given it up", async || idle(&database).await).await;
    assert_eq!(charges(&database.pool()).await, 0);
}

/// The worst of all cases: nobody knows, and it happens later.
#[tokio::test]
async fn commit_that_is_held_happens_after_the_death_of_its_client() {
    let (database, proxy) = start().await;
    proxy.set(Mode::HoldRequest("COMMIT".into()));
    let mut client = JoinSet::from_iter([charge(proxy.url().to_owned())]);
    held(&proxy).await;
    client.shutdown().await;
    assert_eq!(charges(&database.pool()).await, 0);
    proxy.set(Mode::Pass);
    eventually_async(DEADLINE, "it is committed", async || charges(&database.pool()).await == 1)
        .await;
}

#[tokio::test]
async fn commit_whose_reply_is_held_has_happened_though_its_client_never_learns() {
    let (database, proxy) = start().await;
    proxy.set(Mode::HoldReplyTo("COMMIT".into()));
    let mut client = JoinSet::from_iter([charge(proxy.url().to_owned())]);
    held(&proxy).await;
    assert_eq!(charges(&database.pool()).await, 1);
    proxy.sever();
    assert!(client.join_next().await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn commit_whose_reply_is_lost_has_happened() {
    let (database, proxy) = start().await;
    proxy.set(Mode::LoseReplyTo("COMMIT".into()));
    assert!(charge(proxy.url().to_owned()).await.is_err());
    assert_eq!((charges(&database.pool()).await, proxy.faults()), (1, 1));
    charge(proxy.url().to_owned()).await.unwrap();
    assert_eq!(charges(&database.pool()).await, 2);
}

/// The client sends a statement's text only the first time, and then before it is carried out.
#[tokio::test]
async fn statement_is_held_where_it_is_carried_out_and_each_time() {
    let (database, proxy) = start().await;
    let options = database.options(Role::Run).port(proxy.port());
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    for done in 0..3 {
        proxy.set(Mode::HoldRequest("INSERT INTO charges".into()));
        let mut insert = Box::pin(sqlx::query(INSERT).execute(&mut connection));
        tokio::select! {
            early = &mut insert => panic!("it was not held: {early:?}"),
            () = held(&proxy) => assert_eq!(charges(&database.pool()).await, done),
        }
        proxy.set(Mode::HoldReplyTo("INSERT INTO charges".into()));
        tokio::select! {
            early = &mut insert => panic!("its reply was not held: {early:?}"),
            () = charged(&database, done + 1) => {}
        }
        proxy.set(Mode::Pass);
        insert.await.unwrap();
    }
}

async fn start() -> (Database, FaultProxy) {
    let database = PgServer::shared().database().await;
    let table = sqlx::raw_sql("CREATE TABLE charges (id int)");
    table.execute(&database.owner_pool()).await.unwrap();
    let proxy = FaultProxy::start(&database).unwrap();
    (database, proxy)
}

/// One transaction on a connection of its own.
async fn charge(url: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(&url).await?;
    let mut transaction = connection.begin().await?;
    sqlx::query(INSERT).execute(&mut *transaction).await?;
    transaction.commit().await
}

async fn held(proxy: &FaultProxy) {
    eventually_async(DEADLINE, "something is held", async || proxy.held() == 1).await;
}

async fn charged(database: &Database, count: i64) {
    let charged = async || charges(&database.pool()).await == count;
    eventually_async(DEADLINE, "it is carried out", charged).await;
}

async fn charges(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM charges").fetch_one(pool).await.unwrap()
}

/// Whether nobody is in a transaction in this database but the one who asks.
async fn idle(database: &Database) -> bool {
    let question = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() \
        AND xact_start IS NOT NULL AND pid <> pg_backend_pid()";
    sqlx::query_scalar(question).fetch_one(&database.admin_pool()).await.unwrap()
}
