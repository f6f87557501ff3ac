//! A TCP proxy in front of a server that misbehaves on demand.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Scope};
use std::time::{Duration, Instant};

use crate::postgres::{Database, Role};
use crate::server::RedisServer;

mod judge;
mod wire;

pub use self::judge::Mode;
pub use self::wire::Protocol;

use self::judge::{Admission, Direction, Link, State, Verdict};

/// How many bytes to read at a time; what fits is judged as one request or one reply.
const CHUNK: usize = 16 * 1024;

/// How long bytes that have no time of release are held before asking again. The change that releases
/// them wakes their thread at once; this is only an upper bound for the wait.
const HELD: Duration = Duration::from_secs(60);

/// What a [`FaultProxy`] can stand in front of: a server on 127.0.0.1 that clients reach by a URL.
pub trait Target {
    /// Where it listens.
    fn port(&self) -> u16;

    /// The URL for clients of a proxy that listens on `port`.
    fn url_at(&self, port: u16) -> String;

    /// The protocol between it and its clients.
    fn protocol(&self) -> Protocol;

    /// Returns when everything that connects to a proxy on `port` by itself has done so.
    fn await_watches(&self, _port: u16) {}
}

impl Target for RedisServer {
    fn port(&self) -> u16 {
        Self::port(self)
    }

    fn url_at(&self, port: u16) -> String {
        Self::url_at(self, port)
    }

    fn protocol(&self) -> Protocol {
        Protocol::Redis
    }

    fn await_watches(&self, port: u16) {
        self.await_sentinel(port);
    }
}

/// Its clients connect as the run role. Clients that pass the proxy's port to [`Database::options`]
/// can connect as any role.
impl Target for Database {
    fn port(&self) -> u16 {
        Self::port(self)
    }

    fn url_at(&self, port: u16) -> String {
        Self::url_at(self, port, Role::Run)
    }

    fn protocol(&self) -> Protocol {
        Protocol::Postgres
    }
}

/// A TCP proxy in front of a [`RedisServer`] or a [`Database`], whose [`Mode`] can change at any
/// time.
///
/// It runs on threads of its own, so it works while a test's executor is busy, blocked or paused.
/// Dropping it closes all links. The connections of a Sentinel that watches the server through it are
/// not links: no mode applies to them, and they are not counted.
///
/// ```
/// use streamjobs_tests::proxy::{FaultProxy, Mode};
/// use streamjobs_tests::server::RedisServer;
///
/// let server = RedisServer::start()?;
/// let proxy = FaultProxy::start(&server)?;
/// proxy.set(Mode::LoseReplyTo("XADD".into()));
/// // What connects to `proxy.url()` and publishes will not hear that it was stored.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FaultProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    url: String,
    acceptor: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Starts a proxy that passes everything on to `target`, also after restarts of the target.
    ///
    /// # Errors
    ///
    /// If there is no port to listen on.
    pub fn start(target: &impl Target) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let url = target.url_at(address.port());
        let shared = Arc::new(Shared {
            target: Mutex::new(here(target.port())),
            protocol: target.protocol(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let serving = Arc::clone(&shared);
        let acceptor = Some(thread::spawn(move || serving.accept(&listener)));
        target.await_watches(address.port());
        Ok(Self { shared, address, url, acceptor })
    }

    /// The URL for clients of the proxy, with the server's password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port it listens on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Sets what happens to every link from now on, existing ones included.
    pub fn set(&self, mode: Mode) {
        let mut state = self.shared.state();
        state.mode = mode;
        state.next = (0, Mode::Pass);
        state.links.values_mut().for_each(Link::conform);
        self.shared.changed.notify_all();
    }

    /// Sets what happens to the next `count` connections, each for as long as it lives. Existing
    /// links and later connections follow the common mode.
    pub fn set_next(&self, count: usize, mode: Mode) {
        self.shared.state().next = (count, mode);
    }

    /// How many connections have come in so far, refused ones included.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// How many links are open now.
    pub fn links(&self) -> usize {
        self.shared.state().links.values().filter(|link| !link.is_watch).count()
    }

    /// How often something was lost, cut or refused so far. Tests wait for this.
    pub fn faults(&self) -> usize {
        self.shared.state().faults
    }

    /// How many links have a request or a reply that is held until the mode changes. Tests wait for
    /// this. A link that is held in both directions counts twice.
    pub fn held(&self) -> usize {
        self.shared.state().held
    }

    /// Connects new connections to another target of the same kind from now on, like an address that
    /// follows a failover. Existing links stay where they are.
    pub fn aim(&self, target: &impl Target) {
        *self.shared.target() = here(target.port());
    }

    /// Closes all links that are open now. New connections are accepted as before.
    pub fn sever(&self) {
        let mut state = self.shared.state();
        let closed = state.links.extract_if(|_, link| !link.is_watch);
        closed.for_each(|(_, link)| link.close());
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl fmt::Debug for FaultProxy {
    /// Leaves out the address, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state();
        f.debug_struct("FaultProxy")
            .field("port", &self.address.port())
            .field("mode", &state.mode)
            .field("connections", &state.connections)
            .field("faults", &state.faults)
            .finish_non_exhaustive()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closed = true;
        state.links.drain().for_each(|(_, link)| link.close());
        drop(state);
        self.shared.changed.notify_all();
        // A connection of our own wakes the acceptor, which then notices that it is over.
        let woken = TcpStream::connect(self.address);
        if let (Ok(_), Some(acceptor)) = (woken, self.acceptor.take()) {
            let _ = acceptor.join();
        }
    }
}

/// What all threads of one proxy share.
struct Shared {
    target: Mutex<SocketAddr>,
    protocol: Protocol,
    state: Mutex<State>,
    /// Notified of anything that may release held bytes: another mode, a closed link.
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self) -> MutexGuard<'_, SocketAddr> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts connections until the proxy is closed, then waits for the threads of all links.
    fn accept(&self, listener: &TcpListener) {
        thread::scope(|scope| {
            for client in listener.incoming() {
                if self.state().closed {
                    break;
                }
                // If the client has left already or the server is down, that is not an error of the
                // proxy: dropping our end tells the client.
                let _ = client.and_then(|client| self.link(scope, client));
            }
        });
    }

    /// Connects a client to the server, unless it must be refused.
    fn link<'scope, 'env>(
        &'scope self,
        scope: &'scope Scope<'scope, 'env>,
        client: TcpStream,
    ) -> io::Result<()> {
        let Admission::Linked(own) = self.state().admit() else {
            return Ok(());
        };
        let target = *self.target();
        let server = TcpStream::connect(target)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let link = Link::new(self.protocol, own, client.try_clone()?, server.try_clone()?);
        let (from_client, from_server) = (client.try_clone()?, server.try_clone()?);
        let id = {
            let mut state = self.state();
            if state.closed {
                return Ok(());
            }
            state.last_link += 1;
            let id = state.last_link;
            state.links.insert(id, link);
            id
        };
        scope.spawn(move || self.pump(id, Direction::Request, from_client, server));
        scope.spawn(move || self.pump(id, Direction::Reply, from_server, client));
        Ok(())
    }

    /// Moves bytes in one direction until either end closes or a fault closes both.
    fn pump(&self, id: u64, direction: Direction, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let (passed, open) = match self.judge(id, direction, &buffer[..count]) {
                Verdict::Pass => (count, true),
                Verdict::Drop => (0, true),
                Verdict::Cut(passed) => (passed, false),
            };
            if to.write_all(&buffer[..passed]).is_err() || !open {
                break;
            }
        }
        if let Some(link) = self.state().links.remove(&id) {
            link.close();
        }
        self.changed.notify_all();
    }

    /// Decides about one chunk, and holds it for as long as the mode requires.
    fn judge(&self, id: u64, direction: Direction, bytes: &[u8]) -> Verdict {
        let came = Instant::now();
        let mut state = self.state();
        let chunk = state.read(id, direction, bytes);
        loop {
            let held = match state.judge(id, &chunk, came.elapsed()) {
                Ok(verdict) => return verdict,
                Err(held) => held,
            };
            let endless = usize::from(held.is_none());
            state.held += endless;
            let waited = self.changed.wait_timeout(state, held.unwrap_or(HELD));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.held -= endless;
        }
    }
}

fn here(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
