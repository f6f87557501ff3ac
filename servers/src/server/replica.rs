//! A second server that follows a first one, for tests of failover.

use std::time::Duration;

use super::RedisServer;
use crate::eventually::eventually;

/// How long a server may take to follow another one, or to stop.
const FOLLOWED: Duration = Duration::from_secs(20);

impl RedisServer {
    /// Makes this server a replica of the server that listens on `port` of this machine, or of a
    /// proxy in front of a server. Returns when it has all data of the other one. Its own data is
    /// lost.
    ///
    /// # Panics
    ///
    /// If it does not receive all data.
    #[track_caller]
    pub fn follow(&self, port: u16) {
        self.command(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
        let up = || self.info("master_link_status").as_deref() == Some("up");
        eventually(FOLLOWED, "the replica has all of its primary", up);
    }

    /// Makes this server a primary again, as a failover does, with the data that it has by now.
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
