//! A private Postgres for one test, for all tests of one process, or for one demo.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::eventually::{eventually, poll};
use crate::machine::{Ending, Guardian, ServerError};
use crate::signal;

mod builder;
mod cluster;
mod database;
mod install;
mod program;

pub use self::builder::PgServerBuilder;
pub use self::database::Database;

/// How long a server may take until it answers, on a machine that does much else.
const READY: Duration = Duration::from_secs(20);

/// How long a server may take to end that was asked to. It closes all connections and writes all
/// it has in memory.
const STOPPED: Duration = Duration::from_secs(30);

/// How long the kernel may take to end what was killed: something may be in the middle of a write.
const KILLED: Duration = Duration::from_secs(10);

/// The server's files in its folder.
const DATA: &str = "data";

/// A server takes its last leave by `SIGQUIT`: it ends without writing anything more, but unlike
/// after a `SIGKILL` it has seen its children end and has freed its shared memory, of which a
/// machine has a few thousand pieces only. Before it has written its number it has neither, and
/// may not even have learnt what `SIGQUIT` means to it. One that was killed left the piece whose
/// number is in line 7 of its file.
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

/// Who connects. Each has the password of nobody: the server trusts this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// `streamjobs_admin`, the superuser: for what tests do to the server itself.
    Admin,
    /// `streamjobs_migrate`, the owner of the databases, who may change their schemas.
    Owner,
    /// `streamjobs_run`, who may read and write rows as far as the owner lets it: what an
    /// application runs as.
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

/// A private Postgres, reachable from this machine only, that starts within a few hundred
/// milliseconds.
///
/// It ends with its folder when this and all its [`Database`]s are dropped and when this process
/// ends, by an abort or a `SIGKILL` as well. It is the one in the folder that
/// `STREAMJOBS_POSTGRES_BIN` names, else one that is installed, else one that is fetched now, which
/// one line on standard error announces. It never runs as root: if we do, it runs as the user
/// `postgres` or `nobody`.
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
    /// Starts a server of one's own, to be killed, stopped and frozen at will.
    ///
    /// # Errors
    ///
    /// If there is no server program and none can be had, or if it does not start.
    pub fn start() -> Result<Self, ServerError> {
        Self::builder().start()
    }

    /// Begins to describe a server with settings of its own.
    pub fn builder() -> PgServerBuilder {
        PgServerBuilder::default()
    }

    /// The server of all tests in this process that need a database and no server, started when
    /// it is first asked for. Nobody may stop it.
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

    /// Makes a database that is empty and nobody else's.
    ///
    /// # Panics
    ///
    /// If the server does not answer.
    ///
    /// # Cancel safety
    ///
    /// When it is dropped, the server may keep the database until the server ends.
    pub async fn database(&self) -> Database {
        Database::create(Arc::clone(&self.running)).await
    }

    /// Where `role` connects to the database called `database`.
    pub fn url(&self, role: Role, database: &str) -> String {
        url_at(self.port(), role, database)
    }

    /// The port it listens on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.running.port
    }

    /// The id of the server's first process, another one after each [`restart`](Self::restart).
    pub fn pid(&self) -> u32 {
        self.running.guardian().pid()
    }

    /// The ids of the server's processes, the first one first, connections' included.
    pub fn processes(&self) -> Vec<u32> {
        let pid = self.pid();
        [vec![pid], signal::children(pid)].concat()
    }

    /// The folder it keeps its files in, which goes when it does.
    pub fn dir(&self) -> PathBuf {
        self.running.guardian().dir().to_path_buf()
    }

    /// All it has logged so far.
    pub fn log(&self) -> String {
        self.running.guardian().log()
    }

    /// Ends all processes of the server at once (`SIGKILL`) and returns when they are gone.
    ///
    /// What was committed is back after a [`restart`](Self::restart), what was not is not. Port and
    /// folder stay reserved.
    ///
    /// # Panics
    ///
    /// If the server is shared, or the shell that keeps it is gone.
    pub fn kill(&self) {
        let mut guardian = self.running.own_guardian();
        if guardian.alive() {
            let pid = guardian.pid();
            // Its children would go on for as long as they are busy, and the next server refuses to
            // start meanwhile. While it stands still there are no new ones, and it does not answer
            // the death of one by ending the others in its own way.
            signal::freeze(pid);
            let children = signal::children(pid);
            signal::send_all(&children, "KILL");
            eventually(KILLED, "all of the server's processes have ended", || {
                !children.iter().any(|child| signal::is_running(*child))
            });
        }
        guardian.kill().expect("the guardian obeys");
    }

    /// Shuts it down in order, closing all connections, and returns when it has ended.
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

    /// Starts it again on the same port and folder, after a [`kill`](Self::kill) if it runs, and
    /// returns when it answers. All that was committed is back.
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

    /// Stops all its processes in their tracks (`SIGSTOP`): connections stay open and nothing
    /// answers.
    ///
    /// # Panics
    ///
    /// If the server is shared or not running.
    pub fn freeze(&self) {
        let pid = self.running.own_guardian().pid();
        // It first, so that it makes no more processes.
        signal::freeze(pid);
        let children = signal::children(pid);
        signal::send_all(&children, "STOP");
        eventually(KILLED, "all of the server's processes are frozen", || {
            children.iter().all(|child| signal::is_frozen(*child) || !signal::is_running(*child))
        });
    }

    /// Lets it go on after [`freeze`](Self::freeze).
    ///
    /// # Panics
    ///
    /// If the server is not running.
    pub fn thaw(&self) {
        self.running.thaw();
    }
}

/// A server, for as long as somebody uses it.
struct Running {
    guardian: Mutex<Guardian>,
    port: u16,
    /// Drops databases, if this is the shared server, whose databases would else gather.
    cleaner: OnceLock<database::Cleaner>,
}

impl Running {
    fn share(&self) {
        self.cleaner.get_or_init(|| database::Cleaner::start(self.port));
    }

    /// The guardian, also after a panic in another thread, since orders are complete or not given.
    fn guardian(&self) -> MutexGuard<'_, Guardian> {
        self.guardian.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guardian of a server that is one test's alone.
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

    /// Blocks until the server answers and is the one we started.
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
        // Its frozen children would not hear that it ends, and it would wait for them.
        if signal::is_frozen(self.guardian().pid()) {
            self.thaw();
        }
    }
}

/// Where `role` connects to a database of the server at `port`, or at what is in front of it.
fn url_at(port: u16, role: Role, database: &str) -> String {
    format!("postgres://{}@127.0.0.1:{port}/{database}", role.name())
}

/// Whether the server in `dir` is process `pid` and says that it takes connections, which is also
/// what its own tools go by.
fn is_ready(dir: &Path, pid: u32) -> bool {
    let file = fs::read_to_string(dir.join(DATA).join("postmaster.pid")).unwrap_or_default();
    let mut lines = file.lines().map(str::trim);
    lines.next() == Some(&pid.to_string()) && lines.nth(6) == Some("ready")
}
