//! A private Redis for one test or one demo.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use self::form::{Form, Front};
use crate::machine::{Ending, Guardian, free_port, on_free_port};
use crate::{eventually, signal};

mod cluster;
mod demo;
mod form;
mod inspect;
mod program;
mod replica;
mod sentinel;
mod tls;

pub use self::cluster::{NodeState, RedisCluster, RedisClusterBuilder};
pub use self::demo::{DemoServer, GivenServer};
pub use self::inspect::{ClientRow, EntryRow, PendingRow};
pub use self::sentinel::SentinelSetup;
pub use self::tls::ServerTls;
pub use crate::machine::ServerError;

/// How long a server may take until it answers, on a machine that is busy with other things.
const READY: Duration = Duration::from_secs(10);

/// The name of the Unix socket in the server's folder.
const SOCKET: &str = "redis.sock";

/// A private Redis, reachable from this machine only, that starts within tens of milliseconds.
///
/// It ends, and its folder is removed, when this is dropped and when this process ends, even by an
/// abort or a `SIGKILL`. The program is the one that `STREAMJOBS_REDIS_SERVER` names, or else an
/// installed Redis or Valkey, or else one that is installed now, which one line on standard error
/// announces.
///
/// `STREAMJOBS_TEST_TOPOLOGY` gives it another form: with `cluster` it is a Redis Cluster of one node,
/// with `sentinel` it has a Sentinel of its own. [`url`](Self::url) then is the address for that form.
///
/// ```
/// use streamjobs_servers::server::RedisServer;
///
/// let server = RedisServer::start()?;
/// server.command(&["XADD", "orders", "*", "type", "order.placed"]);
/// assert_eq!(server.length("orders"), 1);
/// # Ok::<(), streamjobs_servers::server::ServerError>(())
/// ```
pub struct RedisServer {
    guardian: Mutex<Guardian>,
    port: u16,
    password: Option<String>,
    socket: Option<PathBuf>,
    tls_port: Option<u16>,
    bus_port: Option<u16>,
    front: Front,
}

impl RedisServer {
    /// Starts a server that keeps nothing on disk.
    ///
    /// # Errors
    ///
    /// If there is no server program and none can be installed, or if it does not start.
    pub fn start() -> Result<Self, ServerError> {
        Self::builder().start()
    }

    /// A builder for a server with other settings.
    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::default()
    }

    /// The URL for a plain connection to this server, password included, whatever its form.
    pub fn plain_url(&self) -> String {
        match &self.password {
            Some(password) => format!("redis://:{password}@127.0.0.1:{}", self.port),
            None => format!("redis://127.0.0.1:{}", self.port),
        }
    }

    /// The URL for connections through its Unix socket, if it was started with one.
    pub fn unix_url(&self) -> Option<String> {
        let socket = self.socket.as_ref()?.display();
        Some(match &self.password {
            Some(password) => format!("redis+unix://{socket}?pass={password}"),
            None => format!("redis+unix://{socket}"),
        })
    }

    /// The port it listens on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The id of the server's process. It changes with each [`restart`](Self::restart).
    pub fn pid(&self) -> u32 {
        self.guardian().pid()
    }

    /// The folder with its files, which is removed when the server ends.
    pub fn dir(&self) -> PathBuf {
        self.guardian().dir().to_path_buf()
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        self.guardian().log()
    }

    /// Ends the server's process at once (`SIGKILL`) and returns when it is gone.
    ///
    /// Port and folder stay reserved for [`restart`](Self::restart).
    ///
    /// # Panics
    ///
    /// If the shell that keeps the server is gone.
    pub fn kill(&self) {
        self.guardian().kill().expect("the guardian obeys");
    }

    /// Starts it again on the same port and folder, after a [`kill`](Self::kill) if it runs, and
    /// returns when it answers.
    ///
    /// Its data is back only if it was [`append_only`](RedisServerBuilder::append_only).
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn restart(&self) -> Result<(), ServerError> {
        self.kill();
        self.prepare()?;
        self.guardian().start_again()?;
        self.ready()
    }

    /// Freezes it (`SIGSTOP`): connections stay open and nothing answers.
    ///
    /// # Panics
    ///
    /// If it is not running.
    pub fn freeze(&self) {
        signal::freeze(self.pid());
    }

    /// Lets it continue after [`freeze`](Self::freeze).
    ///
    /// # Panics
    ///
    /// If it is not running.
    pub fn thaw(&self) {
        signal::thaw(self.pid());
    }

    /// Blocks until the server answers and is the one that was started here.
    fn ready(&self) -> Result<(), ServerError> {
        let answered = eventually::poll(READY, || match self.is_ours() {
            true => Some(true),
            false => (!self.guardian().alive()).then_some(false),
        });
        match answered {
            Some(true) => {
                self.take_all_slots();
                Ok(())
            }
            Some(false) => Err(ServerError::Ended { log: self.log() }),
            None => Err(ServerError::Silent { log: self.log() }),
        }
    }

    /// Whether the process that listens on the port is our own, with its data loaded.
    fn is_ours(&self) -> bool {
        // Another server may have taken the port in between; then ours is about to end.
        let info: String = self.try_query(&["INFO", "server"]).unwrap_or_default();
        let pid = inspect::value_of(&info, "process_id");
        // A server that still loads its data answers `INFO` but refuses `PING`.
        pid == Some(self.pid().to_string()) && self.try_query::<()>(&["PING"]).is_ok()
    }

    /// The guardian, even after a panic in another thread: an order is sent completely or not at all.
    fn guardian(&self) -> MutexGuard<'_, Guardian> {
        self.guardian.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RedisServer {
    /// Leaves the password out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisServer")
            .field("port", &self.port)
            .field("pid", &self.pid())
            .field("dir", &self.dir())
            .finish_non_exhaustive()
    }
}

/// The settings with which a [`RedisServer`] is started.
#[derive(Default)]
#[must_use]
pub struct RedisServerBuilder {
    append_only: bool,
    unix_socket: bool,
    password: Option<String>,
    config: Vec<(String, String)>,
    renamed: Vec<[String; 2]>,
    tls: Option<ServerTls>,
    cluster_node: bool,
    no_cluster: bool,
    form: Option<Form>,
}

impl RedisServerBuilder {
    /// Whether each write is also logged to disk, so that it survives a
    /// [`restart`](RedisServer::restart). Default: no.
    pub fn append_only(mut self, append_only: bool) -> Self {
        self.append_only = append_only;
        self
    }

    /// Whether it listens on a Unix socket too. Default: no.
    pub fn unix_socket(mut self, unix_socket: bool) -> Self {
        self.unix_socket = unix_socket;
        self
    }

    /// The password that clients must give. It must consist of characters that need no escape in a
    /// URL. Default: none is required.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Adds a setting as in redis.conf: `.config("maxmemory", "1mb")`.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.push((name.into(), value.into()));
        self
    }

    /// Gives a command another name, or none: `.rename("CLIENT", "")`.
    pub fn rename(mut self, command: impl Into<String>, name: impl Into<String>) -> Self {
        self.renamed.push([command.into(), name.into()]);
        self
    }

    /// Keeps it a plain server, whatever `STREAMJOBS_TEST_TOPOLOGY` says. For a server whose clients
    /// connect in a special way, such as a Unix socket or TLS.
    pub fn plain(self) -> Self {
        self.form(Form::Plain)
    }

    /// Keeps it out of a cluster, whatever `STREAMJOBS_TEST_TOPOLOGY` says. For a server that has to
    /// follow another server, which a cluster node cannot do by itself, or that has more than one
    /// database.
    pub fn no_cluster(mut self) -> Self {
        self.no_cluster = true;
        self
    }

    fn form(mut self, form: Form) -> Self {
        self.form = Some(form);
        self
    }

    /// Makes it a node of a cluster that it has not joined yet.
    fn cluster_node(mut self) -> Self {
        self.cluster_node = true;
        self.plain()
    }

    /// Starts the server and returns when it answers.
    ///
    /// # Errors
    ///
    /// If there is no server program and none can be installed, or if it does not start.
    pub fn start(mut self) -> Result<RedisServer, ServerError> {
        let program = program::find_or_install()?;
        let form = match self.form.map_or_else(Form::of_environment, Ok)? {
            Form::Cluster if self.no_cluster => Form::Plain,
            form => form,
        };
        self.cluster_node |= form == Form::Cluster;
        let mut server =
            on_free_port("Failed listening on port", |port| self.start_on(&program, form, port))?;
        if form == Form::Sentinel {
            server.front = Front::sentinel(&server)?;
        }
        Ok(server)
    }

    fn start_on(&self, program: &Path, form: Form, port: u16) -> Result<RedisServer, ServerError> {
        let tls_port = self.tls.as_ref().map(|_| free_port()).transpose()?;
        // The usual bus port, 10000 above the port, may be taken, or above the highest possible port.
        let bus_port = self.cluster_node.then(free_port).transpose()?;
        let words = |dir: &Path| {
            let mut words = vec![named_as_server(program, dir)?.into_os_string()];
            words.extend(self.settings(port, bus_port, dir).into_iter().map(OsString::from));
            if let (Some(tls), Some(port)) = (&self.tls, tls_port) {
                words.extend(tls.settings(port, dir)?.into_iter().map(OsString::from));
            }
            if let (Form::Cluster, Some(bus_port)) = (form, bus_port) {
                form::write_lone_node(dir, port, bus_port)?;
            }
            Ok(words)
        };
        let guardian = Guardian::start(None, &Ending::KILL, words)?;
        let socket = self.unix_socket.then(|| guardian.dir().join(SOCKET));
        let (guardian, password) = (Mutex::new(guardian), self.password.clone());
        let front = if form == Form::Cluster { Front::cluster() } else { Front::Plain };
        let server = RedisServer { guardian, port, password, socket, tls_port, bus_port, front };
        server.ready().map(|()| server)
    }

    /// The server's command line. If a setting is given twice, the last one counts.
    fn settings(&self, port: u16, bus_port: Option<u16>, dir: &Path) -> Vec<String> {
        let append_only = if self.append_only { "yes" } else { "no" };
        let (port, dir) = (port.to_string(), dir.display().to_string());
        let mut settings = vec![
            ("bind", "127.0.0.1"),
            ("port", &port),
            ("dir", &dir),
            ("save", ""),
            ("appendonly", append_only),
            ("daemonize", "no"),
        ];
        if self.unix_socket {
            settings.push(("unixsocket", SOCKET));
        }
        let bus_port = bus_port.map(|port| port.to_string());
        if let Some(bus_port) = &bus_port {
            settings.extend([
                ("cluster-enabled", "yes"),
                ("cluster-config-file", form::NODES),
                ("cluster-port", bus_port),
            ]);
        }
        settings.extend(self.password.as_deref().map(|password| ("requirepass", password)));
        settings.extend(self.config.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let words = |(name, value): (&str, &str)| [format!("--{name}"), value.to_owned()];
        let renamed = self.renamed.iter().flat_map(|[command, name]| {
            ["--rename-command".to_owned(), command.clone(), name.clone()]
        });
        settings.into_iter().flat_map(words).chain(renamed).collect()
    }
}

impl fmt::Debug for RedisServerBuilder {
    /// Leaves out the values, which may contain passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.config.iter().map(|(name, _)| name).collect();
        f.debug_struct("RedisServerBuilder")
            .field("append_only", &self.append_only)
            .field("unix_socket", &self.unix_socket)
            .field("config", &names)
            .field("renamed", &self.renamed)
            .finish_non_exhaustive()
    }
}

/// A name with which `program` acts as a server.
///
/// Debian's tools package ships the server as `redis-check-rdb`: it is the same program, which acts by
/// the name with which it is called. Other programs keep their own path, which a script may need.
fn named_as_server(program: &Path, dir: &Path) -> io::Result<PathBuf> {
    if !program.to_string_lossy().ends_with("-check-rdb") {
        return Ok(program.to_path_buf());
    }
    let alias = dir.join("redis-server");
    symlink(program, &alias)?;
    Ok(alias)
}
