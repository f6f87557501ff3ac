//! The settings of a private Postgres server.

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use super::cluster::Cluster;
use super::tls::PgTls;
use super::{DATA, ENDING, PgServer, Running};
use crate::machine::{Guardian, ServerError, on_free_port};

/// The default settings. The server uses little memory, because many run at once, and need not
/// survive a crash of the machine.
const SETTINGS: [(&str, &str); 8] = [
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "200"),
    ("shared_buffers", "16MB"),
    // In the server's folder, which is removed even after a `SIGKILL`.
    ("dynamic_shared_memory_type", "mmap"),
    ("jit", "off"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
    ("log_timezone", "GMT"),
    ("logging_collector", "off"),
];

/// A builder for a [`PgServer`].
#[derive(Debug, Default)]
#[must_use]
pub struct PgServerBuilder {
    fsync: bool,
    config: Vec<(String, String)>,
    pub(super) tls: Option<PgTls>,
}

impl PgServerBuilder {
    /// Whether the server waits for the disk, as in production. Default: no, which is many times
    /// faster. Committed data survives a [`kill`](PgServer::kill) in any case, because the kernel
    /// has it. Without this setting, a page can be half written after a kill.
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.fsync = fsync;
        self
    }

    /// Adds a setting as in `postgresql.conf`: `.config("deadlock_timeout", "50ms")`.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.push((name.into(), value.into()));
        self
    }

    /// Starts the server and returns when it accepts connections.
    ///
    /// # Errors
    ///
    /// If no server program is found or can be installed, or if it does not start.
    pub fn start(self) -> Result<PgServer, ServerError> {
        let cluster = Cluster::find_or_make()?;
        on_free_port("could not create any TCP/IP sockets", |port| {
            let words = |dir: &Path| {
                let data = dir.join(DATA);
                cluster.copy_to(&data)?;
                if let Some(tls) = &self.tls {
                    tls.write(&data, cluster.account())?;
                }
                Ok(self.words(&cluster, port, dir))
            };
            let guardian = Mutex::new(Guardian::start(cluster.account(), &ENDING, words)?);
            let running = Arc::new(Running { guardian, port, cleaner: OnceLock::new() });
            running.ready().map(|()| PgServer { running })
        })
    }

    /// The server's command line. If a setting is given twice, the last one counts.
    fn words(&self, cluster: &Cluster, port: u16, dir: &Path) -> Vec<OsString> {
        let port = port.to_string();
        let socket = dir.display().to_string();
        let switch = if self.fsync { "on" } else { "off" };
        let given = self.config.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let settings = SETTINGS.into_iter().chain([
            ("ssl", if self.tls.is_some() { "on" } else { "off" }),
            ("port", port.as_str()),
            ("unix_socket_directories", &socket),
            ("fsync", switch),
            // A process can be killed while it writes a page, which is then half written.
            ("full_page_writes", switch),
        ]);
        let mut words = cluster.words();
        words.extend(["-D".into(), dir.join(DATA).into_os_string()]);
        for (name, value) in settings.chain(given) {
            words.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        words
    }
}
