//! A second server that follows a first one, for tests of fail-over.

use std::time::Duration;

use super::RedisServer;
use crate::eventually::eventually;

/// How long a server may take to follow another one, or to stop.
const FOLLOWED: Duration = Duration::from_secs(20);

impl RedisServer {
    /// Makes this server a replica of what listens on `port` of this machine, a proxy in front of a
    /// server included, and returns when it has all that the other one has. Its own data go.
    ///
    /// # Panics
    ///
    /// If it does not get there.
    #[track_caller]
    pub fn follow(&self, port: u16) {
        self.command(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
        let up = || self.info("master_link_status").as_deref() == Some("up");
        eventually(FOLLOWED, "the replica has all of its primary", up);
    }

    /// Makes this server a primary again, as a fail-over does, with what it has by now.
    ///
    /// # Panics
    ///
    /// If it does not become one.
    #[track_caller]
    pub fn promote(&self) {
        self.command(&["REPLICAOF", "NO", "ONE"]);
        let primary = || self.info("role").as_deref() == Some("master");
        eventually(FOLLOWED, "the replica is a primary", primary);
    }
}
