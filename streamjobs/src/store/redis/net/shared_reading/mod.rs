//! Reads of many queues over few connections: none of the reads waits on the server.
//!
//! A read that waits has a connection to itself, so a process with a hundred groups would need a
//! hundred. Here, a reader that finds nothing waits in this process until the server says that the
//! stream has changed, and reads again. Requests that several readers make at the same time go in one
//! write.

mod key_changes;
mod read_endpoint;
mod shared_connection;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use self::key_changes::KeyChanges;
pub(crate) use self::key_changes::KeyWatch;
use self::read_endpoint::ReadEndpoint;
use self::shared_connection::SharedConnection;
pub(crate) use self::shared_connection::{Answered, Exchange, Losses};
use super::endpoint::Endpoint;
use super::reading::{Reading, identified, open};
use crate::store::StoreError;

/// The connections that the readers of one store share.
pub(crate) struct SharedReading {
    endpoint: ReadEndpoint,
    changes: KeyChanges,
    /// For small exchanges.
    light: SharedConnection,
    /// For large exchanges: only these wait while a large answer arrives.
    heavy: SharedConnection,
    members: AtomicUsize,
    /// The readers that have no connection of their own.
    sharing: AtomicUsize,
    /// Whether a shared connection was asked for since they were last closed.
    is_used: AtomicBool,
}

/// A reader. If there are few, each has a connection of its own.
pub(crate) struct Member {
    shared: Arc<SharedReading>,
    always_shares: bool,
}

impl SharedReading {
    pub(crate) fn new(endpoint: &Endpoint) -> Arc<Self> {
        let endpoint = ReadEndpoint::new(endpoint.clone());
        let changes = KeyChanges::new(endpoint.clone());
        let connection = || SharedConnection::new(endpoint.clone(), changes.clone());
        Arc::new(Self {
            light: connection(),
            heavy: connection(),
            changes: changes.clone(),
            endpoint: endpoint.clone(),
            members: AtomicUsize::new(0),
            sharing: AtomicUsize::new(0),
            is_used: AtomicBool::new(false),
        })
    }

    /// Adds a reader. It may have a connection of its own, unless it always shares one.
    pub(crate) fn join(self: &Arc<Self>, always_shares: bool) -> Member {
        self.members.fetch_add(1, Ordering::AcqRel);
        self.sharing.fetch_add(usize::from(always_shares), Ordering::AcqRel);
        Member { shared: Arc::clone(self), always_shares }
    }
}

impl Member {
    /// Whether readers should share connections: there are many readers, and the server can report which
    /// keys have changed.
    pub(crate) fn shares(&self) -> bool {
        let are_many = self.shared.members.load(Ordering::Acquire) > own_connections_max();
        self.always_shares || (are_many || self.are_shared()) && !self.shared.changes.is_refused()
    }

    /// Whether some reader always shares connections.
    fn are_shared(&self) -> bool {
        self.shared.sharing.load(Ordering::Acquire) > 0
    }

    /// How often a waiting reader asks again, to notice what does not change the stream: a group that was
    /// moved or destroyed. All readers together ask at most twice a second.
    pub(crate) fn ask_every(&self, block: Duration) -> Duration {
        let members =
            u32::try_from(self.shared.members.load(Ordering::Acquire)).unwrap_or(u32::MAX);
        block.max(ASK_SHARE.saturating_mul(members))
    }

    /// Opens a connection for this reader alone. Also returns its id on the server, for `CLIENT UNBLOCK`.
    pub(crate) async fn open_own(&self) -> Result<(Reading, u64), StoreError> {
        identified(self.shared.endpoint.connect(open).await)
    }

    /// Closes the shared connections: the remaining readers have connections of their own.
    pub(crate) fn close_shared(&self) {
        if !self.are_shared()
            && self.shared.is_used.load(Ordering::Acquire)
            && self.shared.is_used.swap(false, Ordering::AcqRel)
        {
            self.shared.light.close();
            self.shared.heavy.close();
            self.shared.changes.stop();
        }
    }

    /// Watches a key for as long as the result is kept.
    pub(crate) fn watch(&self, key: &str) -> KeyWatch {
        self.shared.changes.watch(key)
    }

    /// Sends commands, and waits for an answer to each.
    ///
    /// Not cancel safe: if the caller goes away, the commands may still be sent.
    pub(crate) async fn exchange(&self, exchange: Exchange) -> Result<Answered, StoreError> {
        self.shared.is_used.store(true, Ordering::Release);
        let is_large = exchange.bytes > LIGHT_BYTES_MAX;
        let shared = if is_large { &self.shared.heavy } else { &self.shared.light };
        shared.exchange(exchange).await
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shared.sharing.fetch_sub(usize::from(self.always_shares), Ordering::AcqRel);
        // While a few readers are left, the connections are not closed here but at the next read of one of them,
        // because after a loss, all readers leave for a moment.
        if self.shared.members.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.close_shared();
        }
    }
}

#[cfg(not(feature = "fail-points"))]
fn own_connections_max() -> usize {
    OWN_CONNECTIONS_MAX
}

/// In tests, the environment sets the number.
#[cfg(feature = "fail-points")]
fn own_connections_max() -> usize {
    static MAX: std::sync::LazyLock<usize> = std::sync::LazyLock::new(|| {
        let said = std::env::var("STREAMJOBS_OWN_READ_CONNECTIONS").ok();
        said.and_then(|text| text.parse().ok()).unwrap_or(OWN_CONNECTIONS_MAX)
    });
    *MAX
}

/// Up to this many readers have connections of their own: a read that waits on the server learns of an
/// entry a little earlier.
const OWN_CONNECTIONS_MAX: usize = 2;
/// How much each reader adds to the time between two questions.
const ASK_SHARE: Duration = Duration::from_millis(500);
/// Exchanges that ask for more bytes than this go over the other shared connection.
const LIGHT_BYTES_MAX: usize = 128 * 1024;
