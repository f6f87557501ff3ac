//! A database for one test.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{env, fmt, thread};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use super::{Role, Running, url_at};

/// The default maximum of connections in a pool.
const CONNECTIONS: u32 = 10;

/// How long to wait for a connection before it is an error.
const ACQUIRE: Duration = Duration::from_secs(10);

/// How many databases may wait to be dropped. Further ones stay until the server ends.
const DROPS_MAX: usize = 1000;

/// How much of a test's name is in the name of its database, which the server cuts at 63 bytes.
const NAME_MAX: usize = 48;

/// If this variable is set to a non-empty value, the server and the database of a failed test are
/// kept.
const KEEP: &str = "STREAMJOBS_KEEP_POSTGRES";

/// An empty database for one test.
///
/// It belongs to the owner role. The run role may connect, and use what the owner creates in the
/// schema `public` or permits by [`grant`](Self::grant). Other roles have no rights. The database
/// is dropped with this value, except in a panic: it then stays until the server ends, and a line
/// on standard error has its address and says how to keep it longer.
pub struct Database {
    running: Arc<Running>,
    name: String,
    admin_pool: OnceLock<PgPool>,
    owner_pool: OnceLock<PgPool>,
    run_pool: OnceLock<PgPool>,
}

impl Database {
    /// Creates a database on a running server.
    pub(super) async fn create(running: Arc<Running>) -> Self {
        let name = unique_name(thread::current().name().unwrap_or_default());
        let owner = Role::Owner.name();
        let run = Role::Run.name();
        let statements = [
            format!("CREATE DATABASE {name} OWNER {owner}"),
            format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
            format!("GRANT CONNECT ON DATABASE {name} TO {run}"),
        ];
        let made = administer(running.port, &statements).await;
        made.unwrap_or_else(|error| panic!("no database could be made on {running:?}: {error}"));
        let [admin_pool, owner_pool, run_pool] = Default::default();
        Self { running, name, admin_pool, owner_pool, run_pool }
    }

    /// Its name, which contains the name of the test that created it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL for an application: the run role.
    pub fn run_url(&self) -> String {
        self.url(Role::Run)
    }

    /// The URL for the owner role, which may change the schema.
    pub fn owner_url(&self) -> String {
        self.url(Role::Owner)
    }

    /// The URL for the superuser.
    pub fn admin_url(&self) -> String {
        self.url(Role::Admin)
    }

    /// The URL for `role`.
    pub fn url(&self, role: Role) -> String {
        self.url_at(self.port(), role)
    }

    /// Like [`url`](Self::url), for something that listens on `port` in front of the server.
    pub fn url_at(&self, port: u16, role: Role) -> String {
        url_at(port, role, &self.name)
    }

    /// The port of its server, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.running.port
    }

    /// The pool of the run role, like the one of an application; each call returns the same pool. It
    /// has at most 10 connections, opened on demand.
    pub fn pool(&self) -> PgPool {
        self.run_pool.get_or_init(|| self.pool_of(CONNECTIONS)).clone()
    }

    /// The pool of the owner role, like [`pool`](Self::pool).
    pub fn owner_pool(&self) -> PgPool {
        self.owner_pool.get_or_init(|| self.new_pool(Role::Owner, CONNECTIONS)).clone()
    }

    /// The pool of the superuser, like [`pool`](Self::pool).
    pub fn admin_pool(&self) -> PgPool {
        self.admin_pool.get_or_init(|| self.new_pool(Role::Admin, CONNECTIONS)).clone()
    }

    /// A new pool of the run role with up to `max_connections`.
    pub fn pool_of(&self, max_connections: u32) -> PgPool {
        self.new_pool(Role::Run, max_connections)
    }

    /// Connection options for `role`, for pools and connections with other settings.
    pub fn options(&self, role: Role) -> PgConnectOptions {
        options(self.port(), role, &self.name)
    }

    /// Lets the run role read and write all tables that `schema` has now, as a deployment with two
    /// roles does after a migration.
    ///
    /// # Panics
    ///
    /// If there is no such schema, or the server does not answer.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the role may or may not have the rights.
    pub async fn grant(&self, schema: &str) {
        let run = Role::Run.name();
        let statements = [
            format!("GRANT USAGE ON SCHEMA {schema} TO {run}"),
            format!(
                "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {run}"
            ),
        ];
        let owner = self.options(Role::Owner);
        let granted = execute(&owner, &statements).await;
        granted.unwrap_or_else(|error| panic!("no rights on {schema}: {error}"));
    }

    fn new_pool(&self, role: Role, max_connections: u32) -> PgPool {
        // With limits on their lifetime the pool would spawn a task, which needs an executor.
        PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(self.options(role))
    }

    /// Prints the address of a failed test's database, bypassing the capture of the test runner.
    fn report(&self) {
        let url = self.url(Role::Admin);
        let keep = env::var_os(KEEP).is_some_and(|value| !value.is_empty());
        let mut guardian = self.running.guardian();
        let kept = if keep && guardian.keep().is_ok() {
            let (pid, dir) = (guardian.pid(), guardian.dir().display().to_string());
            format!("`kill -QUIT {pid}; rm -rf {dir}` ends it")
        } else {
            format!("until this process ends; {KEEP}=1 keeps it longer")
        };
        // Without a standard error, the line is lost.
        let _ = writeln!(io::stderr(), "the failed test's database is {url} ({kept})");
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port();
        f.debug_struct("Database").field("name", &self.name).field("port", &port).finish()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if thread::panicking() {
            self.report();
        } else if let Some(cleaner) = self.running.cleaner.get() {
            // If the channel is full, or the drop fails, the database stays until the server ends.
            let _ = cleaner.try_send(self.name.clone());
        }
        // The databases of a server that is not shared are removed with it.
    }
}

/// Drops unused databases, whose names it receives, in the background, so that no test waits for
/// that. Its thread ends when the sender is dropped, or with the process.
pub(super) fn start_cleaner(port: u16) -> SyncSender<String> {
    let (names, dropped) = sync_channel(DROPS_MAX);
    thread::spawn(move || drop_all(port, &dropped));
    names
}

fn drop_all(port: u16, names: &Receiver<String>) {
    let Ok(executor) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    for name in names {
        // By force: tasks that the test left running may still have connections.
        let statement = format!("DROP DATABASE {name} WITH (FORCE)");
        let _ = executor.block_on(administer(port, &[statement]));
    }
}

/// Executes statements as the superuser, in no particular database.
async fn administer(port: u16, statements: &[String]) -> Result<(), sqlx::Error> {
    execute(&options(port, Role::Admin, "postgres"), statements).await
}

/// Executes statements one by one on a connection of their own.
async fn execute(options: &PgConnectOptions, statements: &[String]) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    for statement in statements {
        // All names in the statements come from this module.
        sqlx::raw_sql(AssertSqlSafe(statement.as_str())).execute(&mut connection).await?;
    }
    connection.close().await
}

fn options(port: u16, role: Role, database: &str) -> PgConnectOptions {
    // Without a password file: the user's own does not apply to this server.
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username(role.name())
        .database(database)
        .ssl_mode(PgSslMode::Disable)
}

/// A name for a database, unique within this process, with the name of the test in it: test runners
/// name a test's thread after the test.
fn unique_name(thread: &str) -> String {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    let name: String = thread.to_ascii_lowercase().chars().map(letter).collect();
    // All characters have one byte now. The last ones differ between tests.
    let name = &name[name.len().saturating_sub(NAME_MAX)..];
    format!("of_{name}_{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_and_unique() {
        let long = unique_name(&format!("postgres::Once::{}::ä", "x".repeat(80)));
        assert!(long.len() < 63 && long.starts_with("of_xxx"), "{long}");
        assert!(long.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_'));
        assert_ne!(unique_name("main"), unique_name("main"));
    }
}
