//! What a server says of itself, as far as it may be asked.

use std::time::Duration;

use crate::model::version::Release;
use crate::store::{Queue, Reply};

/// Tells what a server is and how it is set up.
pub trait Facts: Send + Sync {
    /// Asks everything that is asked of a server before jobs are trusted to it, and changes
    /// nothing. Rights are tried on the keys of these queues, or on some key if there are none.
    fn facts<'a>(&'a self, queues: &'a [Queue]) -> Reply<'a, ServerFacts>;
}

/// Something that was asked, or why it was not told.
pub type Reported<T> = Result<T, String>;

/// What a server says of itself.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// Where it is.
    pub address: String,
    /// As whom it was asked.
    pub user: String,
    /// What it is and how it fares.
    pub state: Reported<ServerState>,
    /// How it is set up, as far as its state does not show it.
    pub settings: Reported<ServerSettings>,
    /// What the user may not do.
    pub rights: Reported<Rights>,
    /// Its clock, and ours.
    pub clock: Reported<ClockOffset>,
}

/// What a server is and how it fares. What it does not say is none.
#[derive(Clone, Debug, Default)]
pub struct ServerState {
    /// Its product and version.
    pub release: Option<Release>,
    /// Whether it is a replica of another one.
    pub replica: Option<bool>,
    /// Whether it is one of several that share the keys.
    pub cluster: Option<bool>,
    /// How many replicas follow it.
    pub replicas: Option<u64>,
    /// How many connections it has.
    pub connections: Option<u64>,
    /// How many connections it takes.
    pub connections_max: Option<u64>,
    /// How many bytes it uses.
    pub memory: Option<u64>,
    /// How many bytes it may use; zero means as many as there are.
    pub memory_max: Option<u64>,
    /// What it does when it uses that many.
    pub eviction: Option<String>,
    /// Whether writes are logged to disk.
    pub append_only: Option<bool>,
    /// Whether the last write to that log succeeded.
    pub append_ok: Option<bool>,
    /// Whether the log was rewritten the last time it was tried.
    pub rewrite_ok: Option<bool>,
    /// Whether the last snapshot was written.
    pub snapshot_ok: Option<bool>,
}

/// How a server is set up. What it does not say is none.
#[derive(Clone, Debug, Default)]
pub struct ServerSettings {
    /// Whether snapshots are written by themselves.
    pub snapshots: Option<bool>,
    /// When logged writes are forced to disk: `always`, `everysec` or `no`.
    pub fsync: Option<String>,
    /// Connections that say nothing for so long are closed; zero means never.
    pub idle_timeout: Option<Duration>,
    /// How many replicas have to follow for writes to be taken.
    pub replicas_to_write: Option<u64>,
}

/// What the user may not do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Commands that touch no key.
    pub missing: Vec<&'static str>,
    /// Keys, each with the commands that are needed on it.
    pub keys: Vec<KeyRights>,
    /// Whether the keys are those of queues that were asked for.
    pub named: bool,
}

/// What the user may not do to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRights {
    /// The key.
    pub key: String,
    /// Commands that are refused on it.
    pub missing: Vec<&'static str>,
    /// How many commands were tried.
    pub tried: usize,
    /// Whether events may be published there.
    pub publishing: bool,
}

/// How far the server's clock is from ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// The difference, and by how much it may be off: half of the round trip.
    pub apart: Duration,
    /// By how much the difference may be off.
    pub error: Duration,
    /// Whether the server's clock shows the later time.
    pub ahead: bool,
}
