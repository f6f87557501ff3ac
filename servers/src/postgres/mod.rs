//! A private Postgres server for one test, for all tests of one process, or for a demo.

use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use std::{fmt, fs};

use crate::eventually::{eventually, poll};
use crate::machine::{Ending, Guardian, ServerError};
use crate::signal;

mod builder;
mod cluster;
mod database;
mod install;
mod pooler;
mod program;
mod tls;

pub use self::builder::PgServerBuilder;
pub use self::database::Database;
pub use self::pooler::{Pooler, PoolerBuilder};

/// The longest time until a server accepts connections, on a loaded machine.
const READY: Duration = Duration::from_secs(20);

/// The longest time for an orderly stop, in which the server closes all connections and writes its
/// buffers to disk.
const STOPPED: Duration = Duration::from_secs(30);

/// The longest time until killed processes have ended: one may be in the middle of a write.
const KILLED: Duration = Duration::from_secs(10);

/// The data directory within the server's folder.
const DATA: &str = "data";

/// A server is ended with `SIGQUIT`. It then writes nothing more, but unlike after a `SIGKILL` it
/// waits for its children and frees its shared memory, of which a machine has only a few thousand
/// segments. Before `postmaster.pid` exists it has neither children nor shared memory, and may not
/// handle `SIGQUIT` yet, so it is killed. After a kill, the segment whose id is in line 7 of
/// `postmaster.pid` is removed.
const ENDING: Ending = Ending {
    farewell: r#"
        if read -r first <"$dir/data/postmaster.pid" && [ "$first" = "$pid" ]
        then kill -QUIT "$pid"; else kill -9 "$pid"; fi
        kill -CONT "$pid"
    "#,
    afterwards: r#"
        line=0
        while read -r key piece; do
          line=$((line + 1))
          if [ $line = 7 ]; then ipcrm -m "$piece"; fi
        done <"$dir/data/postmaster.pid"
    "#,
};

/// The role of a connection. No password is needed: the server trusts local connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// `streamjobs_admin`, the superuser, for administration of the server.
    Admin,
    /// `streamjobs_migrate`, the owner of the databases, which may change their schemas.
    Owner,
    /// `streamjobs_run`, the role of an application, which may read and write rows where the owner
    /// grants that.
    Run,
}

impl Role {
    /// Its name on the server.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "streamjobs_admin",
            Self::Owner => "streamjobs_migrate",
            Self::Run => "streamjobs_run",
        }
    }
}

/// A private Postgres server, reachable only from this machine, that starts within a few hundred
/// milliseconds.
///
/// The server ends, and its folder is removed, when this and all its [`Database`]s are dropped, and
/// when this process ends, even by an abort or a `SIGKILL`. Its programs come from the folder that
/// `STREAMJOBS_POSTGRES_BIN` names, or else are installed ones, or else are downloaded, which one
/// line on standard error announces. It never runs as root: if this process does, the server runs
/// as the user `postgres`, or as one without rights.
///
/// ```
/// use streamjobs_servers::postgres::PgServer;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let database = PgServer::shared().database().await;
/// let user: String = sqlx::query_scalar("SELECT user::text").fetch_one(&database.pool()).await?;
/// assert_eq!(user, "streamjobs_run");
/// # Ok::<(), sqlx::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PgServer {
    running: Arc<Running>,
}

impl PgServer {
    /// Starts a server for one test, which may kill, stop and freeze it.
    ///
    /// # Errors
    ///
    /// If no server program is found or can be installed, or if it does not start.
    pub fn start() -> Result<Self, ServerError> {
        Self::builder().start()
    }

    /// A builder for a server with other settings.
    pub fn builder() -> PgServerBuilder {
        PgServerBuilder::default()
    }

    /// The server that the tests of this process share, started at the first call. It cannot be
    /// stopped.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<PgServer> = OnceLock::new();
        SHARED.get_or_init(|| {
            let server = Self::start().expect("a private Postgres starts");
            server.running.share();
            server
        })
    }

    /// Creates an empty database for one test.
    ///
    /// # Panics
    ///
    /// If the server does not answer.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the server may keep the database until the server ends.
    pub async fn database(&self) -> Database {
        Database::create(Arc::clone(&self.running)).await
    }

    /// The URL by which `role` connects to `database`.
    pub fn url(&self, role: Role, database: &str) -> String {
        url_at(self.port(), role, database)
    }

    /// The port it listens on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.running.port
    }

    /// The id of the server's main process. It changes with each [`restart`](Self::restart).
    pub fn pid(&self) -> u32 {
        self.running.guardian().pid()
    }

    /// The ids of all processes of the server, the main one first.
    pub fn processes(&self) -> Vec<u32> {
        let pid = self.pid();
        [vec![pid], signal::children(pid)].concat()
    }

    /// The folder with its files, which is removed when the server ends.
    pub fn dir(&self) -> PathBuf {
        self.running.guardian().dir().to_path_buf()
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        self.running.guardian().log()
    }

    /// Kills all processes of the server (`SIGKILL`) and returns when they have ended.
    ///
    /// After a [`restart`](Self::restart), the server has exactly the committed data. Port and
    /// folder stay reserved.
    ///
    /// # Panics
    ///
    /// If the server is shared, or the shell that keeps it is gone.
    pub fn kill(&self) {
        let mut guardian = self.running.own_guardian();
        if guardian.alive() {
            let pid = guardian.pid();
            // Busy children would continue, and the next server does not start while they run. The
            // main process is frozen first, so that it starts no new ones and does not react to the
            // death of a child.
            signal::freeze(pid);
            let children = signal::children(pid);
            signal::send_all(&children, "KILL");
            eventually(KILLED, "all of the server's processes have ended", || {
                !children.iter().any(|child| signal::is_running(*child))
            });
        }
        guardian.kill().expect("the guardian obeys");
    }

    /// Stops the server in an orderly way, which closes all connections, and returns when it has
    /// ended.
    ///
    /// # Panics
    ///
    /// If the server is shared, is not running, or does not end.
    pub fn stop(&self) {
        let mut guardian = self.running.own_guardian();
        signal::send(guardian.pid(), "INT");
        let ended = poll(STOPPED, || (!guardian.alive()).then_some(()));
        assert!(ended.is_some(), "the server did not stop; its log:\n{}", guardian.log());
    }

    /// Starts the server again on the same port and folder, after a [`kill`](Self::kill) if it
    /// runs, and returns when it accepts connections. It has all committed data.
    ///
    /// # Errors
    ///
    /// If it does not start.
    ///
    /// # Panics
    ///
    /// If the server is shared.
    pub fn restart(&self) -> Result<(), ServerError> {
        self.kill();
        self.running.own_guardian().start_again()?;
        self.running.ready()
    }

    /// Freezes all processes of the server (`SIGSTOP`): connections stay open without replies.
    ///
    /// # Panics
    ///
    /// If the server is shared or not running.
    pub fn freeze(&self) {
        let pid = self.running.own_guardian().pid();
        // The main process first, so that it starts no more children.
        signal::freeze(pid);
        let children = signal::children(pid);
        signal::send_all(&children, "STOP");
        eventually(KILLED, "all of the server's processes are frozen", || {
            children.iter().all(|child| signal::is_frozen(*child) || !signal::is_running(*child))
        });
    }

    /// Resumes the processes after [`freeze`](Self::freeze).
    ///
    /// # Panics
    ///
    /// If the server is not running.
    pub fn thaw(&self) {
        self.running.thaw();
    }
}

/// A running server, shared by its handles.
struct Running {
    guardian: Mutex<Guardian>,
    port: u16,
    /// Drops the databases of the shared server, which would otherwise accumulate.
    cleaner: OnceLock<SyncSender<String>>,
}

impl Running {
    fn share(&self) {
        self.cleaner.get_or_init(|| database::start_cleaner(self.port));
    }

    /// The guardian. A panic in another thread does not matter: a command is sent completely or not
    /// at all.
    fn guardian(&self) -> MutexGuard<'_, Guardian> {
        self.guardian.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guardian of a server that is not shared.
    #[track_caller]
    fn own_guardian(&self) -> MutexGuard<'_, Guardian> {
        assert!(self.cleaner.get().is_none(), "other tests use the shared server: start your own");
        self.guardian()
    }

    fn thaw(&self) {
        let pid = self.guardian().pid();
        signal::send_all(&signal::children(pid), "CONT");
        signal::thaw(pid);
    }

    /// Blocks until the server that was started here accepts connections.
    fn ready(&self) -> Result<(), ServerError> {
        let mut guardian = self.guardian();
        let answered = poll(READY, || match is_ready(guardian.dir(), guardian.pid()) {
            true => Some(true),
            false => (!guardian.alive()).then_some(false),
        });
        match answered {
            Some(true) => Ok(()),
            Some(false) => Err(ServerError::Ended { log: guardian.log() }),
            None => Err(ServerError::Silent { log: guardian.log() }),
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guardian = self.guardian();
        f.debug_struct("Running")
            .field("port", &self.port)
            .field("pid", &guardian.pid())
            .field("dir", &guardian.dir())
            .finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Frozen children would not receive the signal to end, and the server would wait for them.
        if signal::is_frozen(self.guardian().pid()) {
            self.thaw();
        }
    }
}

/// The URL by which `role` connects to a database of the server, or of a proxy, at `port`.
fn url_at(port: u16, role: Role, database: &str) -> String {
    format!("postgres://{}@127.0.0.1:{port}/{database}", role.name())
}

/// Whether the server in `dir` is process `pid` and accepts connections, by the file that `pg_ctl`
/// reads as well.
fn is_ready(dir: &Path, pid: u32) -> bool {
    let file = fs::read_to_string(dir.join(DATA).join("postmaster.pid")).unwrap_or_default();
    let mut lines = file.lines().map(str::trim);
    lines.next() == Some(&pid.to_string()) && lines.nth(6) == Some("ready")
}
