//! The form of a server: plain, a cluster of one node, or behind a Sentinel of its own.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, fs, io};

use super::sentinel::{SentinelSetup, Watch};
use super::{READY, RedisServer, ServerError};
use crate::eventually::eventually;

/// The variable that selects the form in which the tests run.
const VARIABLE: &str = "STREAMJOBS_TEST_TOPOLOGY";

/// The file in its folder in which a node of a cluster stores what it knows about the others.
pub(super) const NODES: &str = "nodes.conf";

/// How long a server may be silent before its own Sentinel starts a failover: longer than any test,
/// because there is no replica that could take over.
const NEVER: Duration = Duration::from_hours(24);

/// The form that a server is started in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Cluster,
    Sentinel,
}

impl Form {
    /// The form that the environment asks for.
    pub(super) fn of_environment() -> Result<Self, ServerError> {
        let named = env::var(VARIABLE).unwrap_or_default();
        Self::named(&named).ok_or_else(|| {
            let wrong = format!("{VARIABLE} is {named:?}, which is neither cluster nor sentinel");
            io::Error::other(wrong).into()
        })
    }

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "" | "plain" => Self::Plain,
            "cluster" => Self::Cluster,
            "sentinel" => Self::Sentinel,
            _ => return None,
        })
    }
}

/// What clients of a server connect to first.
#[derive(Debug)]
pub(super) enum Front {
    /// The server.
    Plain,
    /// The server, which announces itself as the only node of a cluster.
    Cluster {
        /// The port that it announces, if it is not its own.
        announced: Mutex<Option<u16>>,
    },
    /// A Sentinel that names the server.
    Sentinel(Box<RedisServer>),
}

impl Front {
    pub(super) fn cluster() -> Self {
        Self::Cluster { announced: Mutex::new(None) }
    }

    /// Starts a Sentinel in front of `server`.
    pub(super) fn sentinel(server: &RedisServer) -> Result<Self, ServerError> {
        let watch = Watch {
            port: server.port,
            server_password: server.password.as_deref(),
            password: None,
            quorum: 1,
            down_after: NEVER,
        };
        Ok(Self::Sentinel(Box::new(watch.start()?)))
    }
}

impl RedisServer {
    /// The URL for clients, password included.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// Like [`url`](Self::url), for another user; an empty name means the default user.
    ///
    /// The rights that the user needs in addition to those for a plain server are in
    /// [`form_rights`](Self::form_rights).
    pub fn url_as(&self, user: &str, password: &str) -> String {
        self.url_with(&format!("{user}:{password}@"), self.port)
    }

    /// Like [`url`](Self::url), without a login.
    pub fn url_without_login(&self) -> String {
        self.url_with("", self.port)
    }

    /// The rights, in the syntax of `ACL SETUSER`, that a user needs because of this server's form.
    pub fn form_rights(&self) -> &'static [&'static str] {
        match self.front {
            Front::Plain => &[],
            Front::Cluster { .. } => &["+cluster|slots", "+asking"],
            Front::Sentinel(_) => &["+role"],
        }
    }

    /// Like [`url`](Self::url), for something that listens on `port` in front of the server.
    ///
    /// Clients of a cluster and of a Sentinel are told where to go. So from then on, a cluster of
    /// one node announces `port` to all its clients, and a Sentinel knows a second primary with
    /// this port.
    pub fn url_at(&self, port: u16) -> String {
        let login = self.password.as_ref().map(|password| format!(":{password}@"));
        self.url_with(&login.unwrap_or_default(), port)
    }

    /// Returns when this server's Sentinel, if it has one, has connected to what listens on `port`.
    ///
    /// # Panics
    ///
    /// If it does not connect.
    pub fn await_sentinel(&self, port: u16) {
        let Front::Sentinel(sentinel) = &self.front else { return };
        let name = self.name_at(sentinel, port);
        eventually(READY, "the Sentinel watches what is in front of the server", || {
            let known = sentinel.query::<HashMap<String, String>>(&["SENTINEL", "MASTER", &name]);
            known.get("flags").is_some_and(|flags| flags == "master")
        });
    }

    /// The address of whatever listens on `port`, for clients with this login.
    fn url_with(&self, login: &str, port: u16) -> String {
        match &self.front {
            Front::Plain => format!("redis://{login}127.0.0.1:{port}"),
            Front::Cluster { announced } => {
                if port != self.port {
                    *announced.lock().unwrap_or_else(PoisonError::into_inner) = Some(port);
                    self.announce(port);
                }
                format!("redis+cluster://{login}127.0.0.1:{port}")
            }
            Front::Sentinel(sentinel) => {
                let name = self.name_at(sentinel, port);
                format!("redis+sentinel://{login}127.0.0.1:{}/{name}", sentinel.port)
            }
        }
    }

    /// The name by which the Sentinel knows the server that listens on `port`.
    fn name_at(&self, sentinel: &RedisServer, port: u16) -> String {
        if port == self.port {
            return SentinelSetup::NAME.to_owned();
        }
        let (name, port) = (format!("{}-{port}", SentinelSetup::NAME), port.to_string());
        // It refuses a name that it already knows.
        if sentinel
            .try_query::<()>(&["SENTINEL", "MONITOR", &name, "127.0.0.1", &port, "1"])
            .is_ok()
        {
            let never = NEVER.as_millis().to_string();
            let mut words = vec!["SENTINEL", "SET", &name, "down-after-milliseconds", &never];
            words.extend(self.password.iter().flat_map(|password| ["auth-pass", password]));
            sentinel.query::<()>(&words);
        }
        name
    }

    /// Makes the node announce `port` as its own to clients. A node that is not running does so
    /// when it starts again.
    fn announce(&self, port: u16) {
        let port = port.to_string();
        let _ = self.try_query::<()>(&["CONFIG", "SET", "cluster-announce-port", &port]);
    }

    /// Writes the files that must be on disk before the server starts again.
    pub(super) fn prepare(&self) -> io::Result<()> {
        match (&self.front, self.bus_port) {
            (Front::Cluster { .. }, Some(bus_port)) => {
                write_lone_node(&self.dir(), self.port, bus_port)
            }
            _ => Ok(()),
        }
    }

    /// Makes a server that becomes a cluster of one node own all slots, as [`write_lone_node`] has
    /// prepared it.
    pub(super) fn take_all_slots(&self) {
        let Front::Cluster { announced } = &self.front else { return };
        if let Some(port) = *announced.lock().unwrap_or_else(PoisonError::into_inner) {
            self.announce(port);
        }
        self.command(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
        self.command(&["CLUSTER", "FORGET", &former_id(self.port)]);
        eventually(READY, "the only node of the cluster serves all slots", || {
            self.query::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
        });
    }
}

/// Writes what a node knows about its cluster in such a way that it can own all slots at once.
///
/// A master that starts refuses commands for two seconds, because the others may have moved its
/// slots to another node meanwhile, and no setting changes that. So the node starts as the replica
/// of a master that never existed, and takes over from it.
pub(super) fn write_lone_node(dir: &Path, port: u16, bus_port: u16) -> io::Result<()> {
    let (own, former) = (own_id(port), former_id(port));
    // The master gets the node's own address, so that clients that connect before the node has
    // taken over are redirected to the same place. Nothing is copied: a replica without its master
    // accepts no replicas.
    let text = format!(
        "{own} 127.0.0.1:{port}@{bus_port} myself,slave {former} 0 0 1 connected\n\
         {former} 127.0.0.1:{port}@1 master - 0 0 1 connected 0-16383\n\
         vars currentEpoch 1 lastVoteEpoch 0\n"
    );
    fs::write(dir.join(NODES), text)
}

/// The id of the only node of a cluster: a different one for each server on this machine.
fn own_id(port: u16) -> String {
    format!("{port:040x}")
}

/// The id of the master that never existed.
fn former_id(port: u16) -> String {
    format!("f{port:039x}")
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    /// Starts a server in `form` that asks for a password.
    fn start(form: Form) -> RedisServer {
        // If the server fsynced in the background, it would answer before the write is on disk.
        let builder = RedisServer::builder().append_only(true).config("appendfsync", "always");
        let builder = builder.password("canary");
        builder.form(form).start().expect("it starts")
    }

    #[test]
    fn the_environment_may_name_a_form() {
        let named = ["", "plain", "cluster", "sentinel"].map(Form::named);
        let forms = [Form::Plain, Form::Plain, Form::Cluster, Form::Sentinel];
        assert_eq!(named, forms.map(Some));
        assert_eq!(Form::named("Cluster"), None);
    }

    #[test]
    fn other_users_and_none_have_an_address_of_the_same_form() {
        for form in [Form::Plain, Form::Cluster, Form::Sentinel] {
            let server = start(form);
            let url = server.url();
            assert_eq!(server.url_as("", "canary"), url);
            assert_eq!(server.url_as("bob", "p"), url.replace(":canary@", "bob:p@"));
            assert_eq!(server.url_without_login(), url.replace(":canary@", ""));
            let rule = ["ACL", "SETUSER", "bob", "on"];
            server.command(&[&rule, server.form_rights()].concat());
        }
    }

    #[test]
    fn a_cluster_of_one_node_serves_all_slots_again_after_a_restart() {
        let server = start(Form::Cluster);
        assert_eq!(server.url(), format!("redis+cluster://:canary@127.0.0.1:{}", server.port()));
        for restarted in [false, true] {
            if restarted {
                server.restart().expect("it starts again");
            }
            for key in ["a", "b", "c"] {
                server.command(&["XADD", key, "*", "type", "order.placed"]);
                assert_eq!(server.length(key), 1 + usize::from(restarted));
            }
        }
    }

    #[test]
    fn a_cluster_of_one_node_names_the_port_in_front_of_it() {
        let named = |server: &RedisServer| {
            let rows: Vec<(u16, u16, Vec<Value>)> = server.query(&["CLUSTER", "SLOTS"]);
            rows.into_iter().map(|(first, last, node)| (first, last, node[1].clone()))
        };
        let server = start(Form::Cluster);
        assert_eq!(server.url_at(7), "redis+cluster://:canary@127.0.0.1:7");
        assert!(named(&server).eq([(0, 16383, Value::Int(7))]));
        server.restart().expect("it starts again");
        assert!(named(&server).eq([(0, 16383, Value::Int(7))]));
    }

    #[test]
    fn a_server_has_a_sentinel_of_its_own_that_names_it() {
        let server = start(Form::Sentinel);
        let Front::Sentinel(sentinel) = &server.front else { panic!("it has none") };
        let named = |name: &str| -> (String, u16) {
            sentinel.query(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name])
        };
        let address = format!("redis+sentinel://:canary@127.0.0.1:{}", sentinel.port());
        assert_eq!(server.url(), format!("{address}/jobs"));
        assert_eq!(named("jobs"), ("127.0.0.1".to_owned(), server.port()));
        for _ in 0..2 {
            assert_eq!(server.url_at(7), format!("{address}/jobs-7"));
            assert_eq!(named("jobs-7"), ("127.0.0.1".to_owned(), 7));
        }
        server.restart().expect("it starts again");
        assert_eq!(named("jobs"), ("127.0.0.1".to_owned(), server.port()));
    }
}
