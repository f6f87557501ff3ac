//! A private PgBouncer in front of a private Postgres.

use std::ffi::OsString;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, fmt, fs, io};

use sqlx::postgres::PgConnectOptions;

use super::{Database, Role};
use crate::eventually::poll;
use crate::machine::{
    Account, Ending, Guardian, Missing, ServerError, can_download, download, folder, is_ours,
    is_program, libraries, on_free_port, which,
};

/// The texts about a missing pooler.
static PGBOUNCER: Missing = Missing {
    program: "PgBouncer",
    variable: "STREAMJOBS_PGBOUNCER",
    advice: "run `sudo apt-get install pgbouncer` (Debian, Ubuntu), `brew install pgbouncer` \
        (macOS), `sudo dnf install pgbouncer` (Fedora), `sudo apk add pgbouncer` (Alpine) or \
        `sudo pacman -S pgbouncer` (Arch), or set STREAMJOBS_PGBOUNCER to the program's path",
    outcome: Mutex::new(None),
};

/// The longest time until it accepts connections, on a loaded machine.
const READY: Duration = Duration::from_secs(20);

/// A private PgBouncer in front of a private Postgres, reachable only from this machine.
///
/// It assigns its server connections per transaction unless [`PoolerBuilder::config`] says
/// otherwise. It ends, and its folder is removed, when this is dropped and when this process ends.
/// The program is the one that `STREAMJOBS_PGBOUNCER` names, or else an installed one, or else is
/// downloaded, which one line on standard error announces.
pub struct Pooler {
    guardian: Mutex<Guardian>,
    port: u16,
}

/// A builder for a [`Pooler`].
#[derive(Debug)]
#[must_use]
pub struct PoolerBuilder {
    server_port: u16,
    connections: u32,
    config: Vec<(String, String)>,
}

impl Pooler {
    /// Starts a pooler in front of the server of a database, with its default settings.
    ///
    /// # Errors
    ///
    /// If no program is found or can be installed, or if it does not start.
    pub fn start(database: &Database) -> Result<Self, ServerError> {
        Self::builder(database).start()
    }

    /// A builder for a pooler in front of the server of a database.
    pub fn builder(database: &Database) -> PoolerBuilder {
        PoolerBuilder { server_port: database.port(), connections: 4, config: Vec::new() }
    }

    /// The port it listens on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connection options for `role` of a database behind the pooler, with the one setting that
    /// every client of a PgBouncer with default settings needs: no `extra_float_digits`.
    pub fn options(&self, database: &Database, role: Role) -> PgConnectOptions {
        database.options(role).port(self.port).extra_float_digits(None)
    }

    /// The pooler's log so far.
    pub fn log(&self) -> String {
        self.guardian.lock().unwrap_or_else(PoisonError::into_inner).log()
    }
}

impl fmt::Debug for Pooler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooler").field("port", &self.port).finish_non_exhaustive()
    }
}

impl PoolerBuilder {
    /// How many connections it opens to the server for each role and database. Default: 4. With 1,
    /// all its clients share one.
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// Adds a setting as in `pgbouncer.ini`: `.config("pool_mode", "session")`. If a setting is
    /// given twice, the last one counts.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.push((name.into(), value.into()));
        self
    }

    /// Starts the pooler and returns when it accepts connections.
    ///
    /// # Errors
    ///
    /// If no program is found or can be installed, or if it does not start.
    pub fn start(self) -> Result<Pooler, ServerError> {
        let program = Program::find_or_install()?;
        let account = Account::instead_of_root()?;
        on_free_port("cannot listen", |port| {
            let words = |dir: &Path| {
                self.write(dir, port, account)?;
                let ini = dir.join(INI).into_os_string();
                Ok([vec![ENV.into()], program.words(), vec![ini]].concat())
            };
            let mut guardian = Guardian::start(account, &Ending::KILL, words)?;
            let answered = poll(READY, || match TcpStream::connect(("127.0.0.1", port)).is_ok() {
                true => guardian.alive().then_some(true).or(Some(false)),
                false => (!guardian.alive()).then_some(false),
            });
            match answered {
                Some(true) => Ok(Pooler { guardian: Mutex::new(guardian), port }),
                Some(false) => Err(ServerError::Ended { log: guardian.log() }),
                None => Err(ServerError::Silent { log: guardian.log() }),
            }
        })
    }

    /// Writes the files that it reads.
    fn write(&self, dir: &Path, port: u16, account: Option<Account>) -> io::Result<()> {
        let users = [Role::Admin, Role::Owner, Role::Run];
        let users = users.map(|role| format!("\"{}\" \"\"\n", role.name())).concat();
        let users_file = dir.join("users.txt");
        let given = self.config.iter().map(|(name, value)| format!("{name} = {value}\n"));
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\n\
             pool_mode = transaction\ndefault_pool_size = {}\nmax_client_conn = 200\n{}",
            self.server_port,
            users_file.display(),
            self.connections,
            given.collect::<String>(),
        );
        for (path, text) in [(users_file, users), (dir.join(INI), text)] {
            fs::write(&path, text)?;
            if let Some(account) = account {
                account.own(&path)?;
            }
        }
        Ok(())
    }
}

/// The program, and the folder of the libraries that the loader does not find by itself.
struct Program {
    path: PathBuf,
    libraries: OsString,
}

impl Program {
    fn find_or_install() -> Result<Self, ServerError> {
        let variable = PGBOUNCER.variable;
        if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
            let path = std::path::absolute(path)?;
            let wrong = |path| ServerError::NotAProgram { variable, path, wanted: "program" };
            return Self::of(path.clone(), OsString::new()).ok_or_else(|| wrong(path));
        }
        let installed = || Self::of(which("pgbouncer")?, OsString::new());
        PGBOUNCER.find_or_install(|| installed().or_else(Self::fetched), Self::install)
    }

    /// The program that an earlier call of any process downloaded.
    fn fetched() -> Option<Self> {
        let folder = folder("pgbouncer").ok()?;
        is_ours(&folder)?.then_some(())?;
        Self::of(folder.join("usr/sbin/pgbouncer"), libraries(&folder))
    }

    fn install() -> Result<(), ServerError> {
        if can_download() {
            let folder = folder("pgbouncer")?;
            PGBOUNCER.announce(&format!("downloading Debian's into {}", folder.display()));
            return download(&PGBOUNCER, ["pgbouncer", ""], &folder);
        }
        if which("brew").is_some() {
            PGBOUNCER.announce("installing pgbouncer with brew");
            let brew = ["env", "HOMEBREW_NO_AUTO_UPDATE=1", "brew", "install", "pgbouncer"];
            return PGBOUNCER.run(&brew);
        }
        Err(PGBOUNCER.not_found())
    }

    /// The program at this path, if it runs.
    fn of(path: PathBuf, libraries: OsString) -> Option<Self> {
        let program = is_program(&path).then_some(Self { path, libraries })?;
        let output = Command::new(ENV).args(program.words()).arg("--version").output();
        output.is_ok_and(|output| output.status.success()).then_some(program)
    }

    /// The arguments with which [`ENV`] runs it.
    fn words(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        if !self.libraries.is_empty() {
            let mut word = OsString::from("LD_LIBRARY_PATH=");
            word.push(&self.libraries);
            words.push(word);
        }
        words.push(self.path.clone().into_os_string());
        words
    }
}

const ENV: &str = "/usr/bin/env";

/// The file with the settings.
const INI: &str = "pgbouncer.ini";
