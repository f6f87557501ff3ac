//! Private Postgres servers, their databases and their end.

use std::path::Path;
use std::time::Duration;

use sqlx::{Connection, PgConnection, PgPool};
use streamjobs_tests::eventually::{eventually, eventually_async};
use streamjobs_tests::postgres::{Database, PgServer, Role};
use streamjobs_tests::process::{Worker, is_running};
use streamjobs_tests::server::ServerError;

use super::DEADLINE;

/// How long to listen before believing that nothing comes.
const SILENCE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn server_answers_on_its_own_port_and_has_its_own_files() {
    let server = PgServer::start().unwrap();
    let database = server.database().await;
    let data = setting(&database, "data_directory").await;
    assert_eq!(Path::new(&data).parent(), Some(server.dir().as_path()));
    assert_eq!(setting(&database, "port").await, server.port().to_string());
    assert_eq!(setting(&database, "listen_addresses").await, "127.0.0.1");
    assert_eq!(setting(&database, "max_connections").await, "200");
}

#[tokio::test]
async fn shared_server_is_the_same_for_all_and_nobodys_to_stop() {
    let server = PgServer::shared();
    assert_eq!(server.pid(), PgServer::shared().pid());
    for harm in [PgServer::kill, PgServer::stop, PgServer::freeze] {
        let refused = std::thread::scope(|scope| scope.spawn(|| harm(server)).join());
        assert!(refused.is_err());
    }
    assert_eq!(count(&server.database().await.pool(), "SELECT 1").await, 1);
}

#[tokio::test]
async fn database_is_fresh_and_nobody_elses() {
    let server = PgServer::shared();
    let (one, other) = tokio::join!(server.database(), server.database());
    execute(&one.owner_pool(), "CREATE TABLE orders (id int)").await.unwrap();
    let tables = "SELECT count(*)::int FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(count(&one.pool(), tables).await, 1);
    assert_eq!(count(&other.pool(), tables).await, 0);
    assert!(one.name().contains("database_is_fresh"), "{}", one.name());
}

#[tokio::test]
async fn url_of_a_role_connects_as_that_role_to_that_database() {
    let database = PgServer::shared().database().await;
    let urls = [database.run_url(), database.owner_url(), database.admin_url()];
    for (url, role) in urls.iter().zip([Role::Run, Role::Owner, Role::Admin]) {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let who = sqlx::query_as("SELECT user::text, current_database()::text");
        let (user, name): (String, String) = who.fetch_one(&mut connection).await.unwrap();
        assert_eq!((user.as_str(), name.as_str()), (role.name(), database.name()));
    }
}

#[tokio::test]
async fn run_and_owner_roles_are_no_superusers_and_make_no_databases_or_roles() {
    let database = PgServer::shared().database().await;
    let rights = "SELECT count(*)::int FROM pg_roles WHERE rolname = user AND \
        NOT (rolsuper OR rolcreatedb OR rolcreaterole OR rolbypassrls OR rolreplication)";
    for pool in [database.pool(), database.owner_pool()] {
        assert_eq!(count(&pool, rights).await, 1);
    }
}

#[tokio::test]
async fn run_role_changes_rows_where_it_may_and_no_schema() {
    let database = PgServer::shared().database().await;
    let (owner, run) = (database.owner_pool(), database.pool());
    for ddl in ["CREATE TABLE mine (id int)", "CREATE SCHEMA mine", "CREATE TEMP TABLE t (id int)"]
    {
        assert_eq!(refusal(&run, ddl).await, "42501", "{ddl}");
    }
    execute(&owner, "CREATE TABLE charges (id serial, amount int)").await.unwrap();
    execute(&run, "INSERT INTO charges (amount) VALUES (1)").await.unwrap();
    assert_eq!(refusal(&run, "DROP TABLE charges").await, "42501");
    execute(&owner, "CREATE SCHEMA streamjobs").await.unwrap();
    execute(&owner, "CREATE TABLE streamjobs.once (id int)").await.unwrap();
    let insert = "INSERT INTO streamjobs.once VALUES (1)";
    assert_eq!(refusal(&run, insert).await, "42501");
    database.grant("streamjobs").await;
    execute(&run, insert).await.unwrap();
}

#[tokio::test]
async fn pool_has_as_many_connections_as_asked_for() {
    let database = PgServer::shared().database().await;
    let pool = database.pool_of(1);
    let _held = pool.acquire().await.unwrap();
    assert_eq!((pool.size(), pool.options().get_max_connections()), (1, 1));
    assert!(pool.try_acquire().is_none());
}

#[tokio::test]
async fn database_of_the_shared_server_goes_when_its_test_succeeds() {
    let server = PgServer::shared();
    let (kept, gone) = (server.database().await, server.database().await);
    let name = gone.name().to_owned();
    // Still in use, as by a task that a test left behind.
    let pool = gone.pool();
    assert_eq!(count(&pool, "SELECT 1").await, 1);
    drop(gone);
    eventually_async(DEADLINE, "the database is dropped", async || !exists(&kept, &name).await)
        .await;
}

#[tokio::test]
async fn database_stays_when_its_test_fails() {
    let server = PgServer::shared();
    let (kept, failed) = (server.database().await, server.database().await);
    let later = server.database().await;
    let name = failed.name().to_owned();
    let test = std::thread::spawn(move || {
        let _database = failed;
        panic!("as a failed test does");
    });
    assert!(test.join().is_err());
    // Databases are dropped in their order: this one would be gone before the next one is.
    let next = later.name().to_owned();
    drop(later);
    eventually_async(DEADLINE, "the next is dropped", async || !exists(&kept, &next).await).await;
    assert!(exists(&kept, &name).await);
}

#[test]
fn server_and_its_folder_go_when_dropped_frozen_or_not() {
    for frozen in [false, true] {
        let server = PgServer::start().unwrap();
        let (processes, dir) = (server.processes(), server.dir());
        assert!(processes.len() > 1 && dir.is_dir());
        if frozen {
            server.freeze();
        }
        drop(server);
        assert!(!processes.into_iter().any(is_running) && !dir.exists());
    }
}

#[tokio::test]
async fn server_lives_as_long_as_its_databases() {
    let server = PgServer::start().unwrap();
    let (database, pid) = (server.database().await, server.pid());
    drop(server);
    assert_eq!(count(&database.pool(), "SELECT 1").await, 1);
    drop(database);
    assert!(!is_running(pid));
}

#[test]
fn server_and_its_folder_go_when_their_process_is_killed() {
    let builder = Worker::builder(env!("CARGO_BIN_EXE_abandon")).arg("postgres");
    let mut helper = builder.start().unwrap();
    let printed = helper.wait_for(|line| line.contains('/'), DEADLINE);
    let (pid, dir) = printed.split_once(' ').unwrap();
    let pid = pid.parse().unwrap();
    assert!(is_running(pid));
    helper.kill();
    eventually(DEADLINE, "the server ends", || !is_running(pid));
    eventually(DEADLINE, "the folder goes", || !Path::new(dir).exists());
}

/// One connection is idle and one is busy, which is the one that would live on by itself.
#[tokio::test]
async fn killed_server_leaves_no_process_and_restarts_with_what_was_committed() {
    let server = PgServer::builder().fsync(true).start().unwrap();
    let database = server.database().await;
    assert_eq!(setting(&database, "fsync").await, "on");
    execute(&database.owner_pool(), "CREATE TABLE charges (id int)").await.unwrap();
    let pool = database.pool();
    execute(&pool, "INSERT INTO charges VALUES (1)").await.unwrap();
    let mut open = pool.begin().await.unwrap();
    sqlx::query("INSERT INTO charges VALUES (2)").execute(&mut *open).await.unwrap();
    let busy = tokio::task::JoinSet::from_iter([execute_forever(database.admin_pool())]);
    let active = "SELECT count(*)::int FROM pg_stat_activity WHERE query LIKE 'DO %'";
    let admin = database.admin_pool();
    eventually_async(DEADLINE, "one is busy", async || count(&admin, active).await == 1).await;
    let (processes, port) = (server.processes(), server.port());
    server.kill();
    assert!(processes.len() > 3 && !processes.into_iter().any(is_running));
    assert!(busy.join_all().await[0].is_err());
    assert!(PgConnection::connect(&database.run_url()).await.is_err());
    for _ in 0..2 {
        server.restart().unwrap();
        assert_eq!(server.port(), port);
        assert_eq!(count(&database.pool_of(1), "SELECT count(*)::int FROM charges").await, 1);
    }
}

/// Each machine has a few thousand pieces of such memory, which outlive all processes.
#[cfg(target_os = "linux")]
#[test]
fn killed_server_leaves_no_shared_memory_when_dropped() {
    let server = PgServer::start().unwrap();
    let file = std::fs::read_to_string(server.dir().join("data/postmaster.pid")).unwrap();
    let piece = file.lines().nth(6).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let pieces = || std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let exists = || pieces().lines().any(|line| line.split_whitespace().nth(1) == Some(&piece));
    server.kill();
    assert!(exists());
    drop(server);
    assert!(!exists());
}

#[tokio::test]
async fn stopped_server_closes_connections_in_order_and_restarts() {
    let server = PgServer::start().unwrap();
    let database = server.database().await;
    let mut held = database.pool().acquire().await.unwrap();
    server.stop();
    let closed = sqlx::query("SELECT 1").execute(&mut *held).await.unwrap_err();
    assert_eq!(code(&closed), "57P01", "{closed}");
    server.restart().unwrap();
    assert_eq!(count(&database.pool_of(1), "SELECT 1").await, 1);
    assert!(server.log().contains("database system was shut down at"), "{}", server.log());
}

#[tokio::test]
async fn frozen_server_answers_once_thawed() {
    let server = PgServer::start().unwrap();
    let pool = server.database().await.pool();
    let mut held = pool.acquire().await.unwrap();
    server.freeze();
    let mut question = Box::pin(sqlx::query("SELECT 1").execute(&mut *held));
    assert!(tokio::time::timeout(SILENCE, &mut question).await.is_err());
    server.thaw();
    question.await.unwrap();
}

#[tokio::test]
async fn settings_reach_the_server() {
    let server = PgServer::builder().config("deadlock_timeout", "50ms").start().unwrap();
    let database = server.database().await;
    assert_eq!(setting(&database, "deadlock_timeout").await, "50ms");
}

#[test]
fn server_that_rejects_a_setting_says_so_at_once() {
    let error = PgServer::builder().config("no_such_setting", "1").start().unwrap_err();
    assert!(matches!(error, ServerError::Ended { .. }), "{error:?}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

/// Keeps one connection computing, without a wait in which it would notice anything.
async fn execute_forever(pool: PgPool) -> Result<(), sqlx::Error> {
    execute(&pool, "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$").await
}

async fn execute(pool: &PgPool, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(statement).execute(pool).await.map(drop)
}

/// The code with which the server refuses a statement.
async fn refusal(pool: &PgPool, statement: &'static str) -> String {
    code(&execute(pool, statement).await.unwrap_err())
}

fn code(error: &sqlx::Error) -> String {
    error.as_database_error().unwrap().code().unwrap().into_owned()
}

async fn count(pool: &PgPool, question: &'static str) -> i32 {
    sqlx::query_scalar(question).fetch_one(pool).await.unwrap()
}

async fn setting(database: &Database, name: &str) -> String {
    let question = sqlx::query_scalar("SELECT current_setting($1)").bind(name);
    question.fetch_one(&database.admin_pool()).await.unwrap()
}

async fn exists(database: &Database, name: &str) -> bool {
    let question = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)");
    question.bind(name).fetch_one(&database.admin_pool()).await.unwrap()
}
