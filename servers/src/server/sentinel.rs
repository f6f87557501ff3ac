//! A primary, a replica and three sentinels that watch them, for tests of failover.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use std::{fs, io};

use super::form::Front;
use super::{RedisServer, named_as_server, program};
use crate::eventually::eventually;
use crate::machine::{Ending, Guardian, ServerError, on_free_port};

/// How long three sentinels may take to find each other and the replica, or to name another primary.
const AGREED: Duration = Duration::from_secs(30);

/// Three sentinels and the two servers that they watch.
///
/// A failover begins when the primary has been silent for a second.
#[derive(Debug)]
pub struct SentinelSetup {
    servers: [RedisServer; 2],
    sentinels: Vec<RedisServer>,
    password: Option<String>,
}

impl SentinelSetup {
    /// The name by which the sentinels know the primary.
    pub const NAME: &str = "jobs";

    /// Starts everything and returns when all three sentinels know each other and the replica.
    ///
    /// # Errors
    ///
    /// If there is no server program and none can be installed, or if one does not start.
    ///
    /// # Panics
    ///
    /// If the sentinels do not find each other.
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with(None)
    }

    /// Like [`start`](Self::start), with a password that the sentinels require.
    ///
    /// # Errors
    ///
    /// Like [`start`](Self::start).
    ///
    /// # Panics
    ///
    /// Like [`start`](Self::start).
    pub fn start_with(password: Option<&str>) -> Result<Self, ServerError> {
        // Otherwise a replica's first synchronization would wait five seconds for other replicas.
        let server =
            || RedisServer::builder().plain().config("repl-diskless-sync-delay", "0").start();
        let servers = [server()?, server()?];
        servers[1].follow(servers[0].port());
        let watch = Watch {
            port: servers[0].port(),
            server_password: None,
            password,
            quorum: 2,
            down_after: Duration::from_secs(1),
        };
        let start = || watch.start();
        let sentinels = vec![start()?, start()?, start()?];
        let setup = Self { servers, sentinels, password: password.map(str::to_owned) };
        eventually(AGREED, "the sentinels know each other and the replica", || setup.is_complete());
        Ok(setup)
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        self.url_of(Self::NAME)
    }

    /// The URL of a primary with another name.
    pub fn url_of(&self, name: &str) -> String {
        let sentinels = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port()));
        let sentinels = sentinels.collect::<Vec<_>>().join(",");
        let mut url = format!("redis+sentinel://{sentinels}/{name}");
        if let Some(password) = &self.password {
            write!(url, "?sentinel_password={password}").expect("a text takes all");
        }
        url
    }

    /// The first of the two servers: the primary until the first failover.
    pub fn first(&self) -> &RedisServer {
        &self.servers[0]
    }

    /// The second of the two servers: the replica until the first failover.
    pub fn second(&self) -> &RedisServer {
        &self.servers[1]
    }

    /// One of the three sentinels.
    pub fn sentinel(&self, index: usize) -> &RedisServer {
        &self.sentinels[index]
    }

    /// The port that a sentinel names.
    #[track_caller]
    pub fn named_by(&self, index: usize) -> u16 {
        let words = ["SENTINEL", "get-master-addr-by-name", Self::NAME];
        let (_, port): (String, u16) = self.sentinels[index].query(&words);
        port
    }

    /// Makes a sentinel begin a failover, as an operator does. The former primary keeps its role for
    /// about ten seconds.
    ///
    /// # Panics
    ///
    /// If the sentinel refuses.
    #[track_caller]
    pub fn fail_over(&self, index: usize) {
        self.sentinels[index].command(&["SENTINEL", "FAILOVER", Self::NAME]);
    }

    /// Returns when these sentinels name the server on this port.
    ///
    /// # Panics
    ///
    /// If they do not.
    #[track_caller]
    pub fn agreed(&self, indices: &[usize], port: u16) {
        eventually(AGREED, "the sentinels name the server", || {
            indices.iter().all(|index| self.named_by(*index) == port)
        });
    }

    fn is_complete(&self) -> bool {
        self.sentinels.iter().all(|sentinel| {
            let state: std::collections::HashMap<String, String> =
                sentinel.query(&["SENTINEL", "MASTER", Self::NAME]);
            let is = |field: &str, value: &str| state.get(field).is_some_and(|own| own == value);
            let replicas: Vec<std::collections::HashMap<String, String>> =
                sentinel.query(&["SENTINEL", "REPLICAS", Self::NAME]);
            let follows = |replica: &std::collections::HashMap<String, String>| {
                replica.get("master-link-status").is_some_and(|status| status == "ok")
            };
            is("num-other-sentinels", "2") && is("num-slaves", "1") && replicas.iter().all(follows)
        })
    }
}

/// What a sentinel watches, and how.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    /// The port on which the primary listens.
    pub(super) port: u16,
    /// The password that the primary requires.
    pub(super) server_password: Option<&'a str>,
    /// The password that the sentinel requires.
    pub(super) password: Option<&'a str>,
    /// How many sentinels have to agree that the primary is gone.
    pub(super) quorum: u16,
    /// How long the primary may be silent.
    pub(super) down_after: Duration,
}

impl Watch<'_> {
    /// Starts a sentinel that watches the primary.
    pub(super) fn start(self) -> Result<RedisServer, ServerError> {
        let program = program::find_or_install()?;
        on_free_port("Failed listening on port", |port| {
            let words = |dir: &Path| {
                let file = dir.join("sentinel.conf");
                fs::write(&file, self.settings(port, dir)?)?;
                let server = named_as_server(&program, dir)?.into_os_string();
                Ok(vec![server, file.into_os_string(), OsString::from("--sentinel")])
            };
            let guardian = Mutex::new(Guardian::start(None, &Ending::KILL, words)?);
            let sentinel = RedisServer {
                guardian,
                port,
                password: self.password.map(str::to_owned),
                socket: None,
                tls_port: None,
                bus_port: None,
                front: Front::Plain,
            };
            sentinel.ready().map(|()| sentinel)
        })
    }

    fn settings(&self, port: u16, dir: &Path) -> io::Result<String> {
        let Self { port: watched, quorum, .. } = self;
        let (name, down_after) = (SentinelSetup::NAME, self.down_after.as_millis());
        let dir = dir.to_str().ok_or_else(|| io::Error::other("the folder's path is no text"))?;
        let mut text = format!(
            "bind 127.0.0.1\nport {port}\ndir \"{dir}\"\ndaemonize no\n\
             sentinel monitor {name} 127.0.0.1 {watched} {quorum}\n\
             sentinel down-after-milliseconds {name} {down_after}\n\
             sentinel failover-timeout {name} 10000\n"
        );
        if let Some(password) = self.server_password {
            text += &format!("sentinel auth-pass {name} {password}\n");
        }
        if let Some(password) = self.password {
            text += &format!("requirepass {password}\nsentinel sentinel-pass {password}\n");
        }
        Ok(text)
    }
}
