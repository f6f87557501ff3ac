//! Which keys have changed, as the server reports on a connection of its own.
//!
//! A reading connection names this one with `CLIENT TRACKING … REDIRECT`. From then on, the server
//! remembers each key whose length the reading connection asks for, and reports here, once, when the key
//! changes. The mode `BCAST` would not need that request, but it goes by prefix: with a stream named
//! `orders`, every change of `orders:cache:7` would be reported here.
//!
//! No change is lost: each watched key has a version. A reader notes the version, makes the server
//! remember the key, reads, and waits until the version has changed. All versions change when a
//! connection was lost, because what the server remembered is lost with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, PushInfo, PushKind, RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::info;

use super::super::deadlines::RESPONSE_DEADLINE;
use super::super::dial::open_listening;
use super::super::error::{cause, is_authentication};
use super::super::server::{Server, Tenure};
use super::read_endpoint::ReadEndpoint;

/// The watched keys of one store. Clones share them.
#[derive(Clone)]
pub(crate) struct KeyChanges {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: ReadEndpoint,
    watched: Mutex<Watched>,
    /// The connection to redirect to: its id on the server, 0 for none.
    target: AtomicU64,
    /// The connection that must not be used any more, and the signal that it was set.
    left: AtomicU64,
    leave: Notify,
    is_refused: AtomicBool,
    /// Until when the server is not asked again.
    refused_until: Mutex<Option<Instant>>,
    tasks: TaskTracker,
}

#[derive(Default)]
struct Watched {
    keys: HashMap<Box<[u8]>, Arc<Key>>,
    /// Stops the listener when it is dropped.
    listener: Option<(CancellationToken, DropGuard)>,
}

#[derive(Default)]
struct Key {
    version: AtomicU64,
    changed: Notify,
    watches: AtomicU64,
}

/// One key, which is watched until this is dropped.
pub(crate) struct KeyWatch {
    changes: KeyChanges,
    name: Box<[u8]>,
    key: Arc<Key>,
}

impl KeyChanges {
    pub(super) fn new(endpoint: ReadEndpoint) -> Self {
        Self {
            inner: Arc::new(Inner {
                endpoint,
                watched: Mutex::default(),
                target: AtomicU64::new(0),
                left: AtomicU64::new(0),
                leave: Notify::new(),
                is_refused: AtomicBool::new(false),
                refused_until: Mutex::new(None),
                tasks: TaskTracker::new(),
            }),
        }
    }

    pub(super) fn watch(&self, name: &str) -> KeyWatch {
        let mut watched = self.inner.lock();
        let key = Arc::clone(watched.keys.entry(name.as_bytes().into()).or_default());
        key.watches.fetch_add(1, Ordering::Relaxed);
        KeyWatch { changes: self.clone(), name: name.as_bytes().into(), key }
    }

    /// The connection to redirect to; `None` until it is open, and after a refusal. Starts to listen if
    /// needed.
    pub(super) fn target(&self) -> Option<u64> {
        if self.is_refused() {
            return None;
        }
        let target = self.inner.target.load(Ordering::Acquire);
        if target == 0 {
            self.inner.ensure_listener();
        }
        (target != 0).then_some(target)
    }

    /// Records that the server cannot report changes, or that the user may not receive the reports.
    pub(super) fn refuse(&self, why: &str) {
        self.inner.refuse(why);
        self.stop();
    }

    pub(super) fn is_refused(&self) -> bool {
        if !self.inner.is_refused.load(Ordering::Acquire) {
            return false;
        }
        let mut until = self.inner.refused_until();
        if until.is_some_and(|until| Instant::now() < until) {
            return true;
        }
        *until = None;
        self.inner.is_refused.store(false, Ordering::Release);
        false
    }

    /// Stops listening, until a target is asked for again.
    pub(super) fn stop(&self) {
        self.inner.lock().listener = None;
        self.inner.change_all();
    }

    /// Records that any watched key may have changed.
    pub(super) fn change_all(&self) {
        self.inner.change_all();
    }

    /// Closes and reopens the connection with this number: it may lead to another server than the one
    /// that is read from.
    pub(super) fn leave(&self, target: u64) {
        self.inner.left.store(target, Ordering::Release);
        self.inner.leave.notify_waiters();
    }
}

impl KeyWatch {
    /// A number that changes when the key changes, or may have changed.
    pub(crate) fn version(&self) -> u64 {
        self.key.version.load(Ordering::Acquire)
    }

    /// Waits until the version differs from this one.
    ///
    /// Cancel safe.
    pub(crate) async fn changed_from(&self, version: u64) {
        loop {
            let changed = self.key.changed.notified();
            if self.version() != version {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for KeyWatch {
    fn drop(&mut self) {
        let mut watched = self.changes.inner.lock();
        if self.key.watches.fetch_sub(1, Ordering::Relaxed) == 1 {
            watched.keys.remove(&self.name);
        }
        if watched.keys.is_empty() {
            watched.listener = None;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, why: &str) {
        info!(why, "the server does not say when streams change: readers do not share connections");
        *self.refused_until() = Some(Instant::now() + REFUSED_FOR);
        self.is_refused.store(true, Ordering::Release);
        self.change_all();
    }

    /// Starts the listener unless it runs. It ends with the last watch, or with the executor on which it
    /// was started.
    fn ensure_listener(self: &Arc<Self>) {
        let mut watched = self.lock();
        let runs = watched.listener.as_ref().is_some_and(|(ended, _)| !ended.is_cancelled());
        if runs || watched.keys.is_empty() {
            return;
        }
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let (inner, stopped) = (Arc::clone(self), stop.clone());
        let at_end = ended.clone().drop_guard();
        self.tasks.spawn(async move {
            let _at_end = at_end;
            stopped.run_until_cancelled(inner.listen()).await;
        });
        watched.listener = Some((ended, stop.drop_guard()));
    }

    /// Listens, over one connection after the other.
    async fn listen(self: &Arc<Self>) {
        loop {
            match self.listen_once().await {
                Ok(()) => {}
                // Tried again at once: the endpoint makes pauses of its own.
                Err(error) if error.is_io_error() || is_authentication(&error) => {}
                // Readers then have connections of their own.
                Err(error) => self.refuse(&cause(&error)),
            }
            sleep(PAUSE.mul_f64(1.0 + fastrand::f64())).await;
        }
    }

    async fn listen_once(self: &Arc<Self>) -> RedisResult<()> {
        let opened = self.endpoint.connect(|server| Arc::clone(self).open(server)).await?;
        let Opened { mut connection, closed, tenure, id } = opened;
        let over = tenure.connection();
        let _target = Target::set(self, id);
        loop {
            tokio::select! {
                () = closed.cancelled() => return Ok(()),
                () = over.cancelled() => return Ok(()),
                () = self.left(id) => return Ok(()),
                () = sleep(CHECK_EVERY) => {
                    let ping = redis::cmd("PING");
                    let answer = connection.send_packed_command(&ping);
                    match timeout(RESPONSE_DEADLINE, answer).await {
                        Ok(answer) => drop(answer?),
                        Err(_silence) => return Ok(()),
                    }
                }
            }
        }
    }

    /// Waits until the connection with this number must not be used any more.
    async fn left(&self, id: u64) {
        loop {
            let leave = self.leave.notified();
            if self.left.load(Ordering::Acquire) == id {
                return;
            }
            leave.await;
        }
    }

    async fn open(self: Arc<Self>, server: Server) -> RedisResult<Opened> {
        let inner = Arc::downgrade(&self);
        let (mut connection, closed) = open_listening(&server.address, move |push| {
            if let Some(inner) = inner.upgrade() {
                inner.heard(push);
            }
        })
        .await?;
        let mut identify = Pipeline::with_capacity(2);
        identify.cmd("CLIENT").arg("ID");
        server.ask_role(&mut identify);
        let mut answers = connection.send_packed_commands(&identify, 0, identify.len()).await?;
        server.check_role(&mut answers)?;
        let id = answers.pop().unwrap_or(Value::Nil).extract_error()?;
        let id = u64::from_redis_value(id)?;
        Ok(Opened { connection, closed, tenure: server.tenure, id })
    }

    fn heard(&self, push: PushInfo) {
        if push.kind != PushKind::Invalidate {
            return;
        }
        match push.data.into_iter().next() {
            Some(Value::Array(names)) => {
                let watched = self.lock();
                let name = |name: &Value| match name {
                    Value::BulkString(name) => watched.keys.get(name.as_slice()).cloned(),
                    _ => None,
                };
                names.iter().filter_map(name).for_each(|key| key.change());
            }
            // Everything was flushed.
            _ => self.change_all(),
        }
    }

    fn change_all(&self) {
        self.lock().keys.values().for_each(|key| key.change());
    }
}

/// A connection on which the server reports changes.
struct Opened {
    connection: MultiplexedConnection,
    /// Cancelled when the connection breaks.
    closed: CancellationToken,
    tenure: Tenure,
    /// Its id on the server.
    id: u64,
}

/// The connection to redirect to, until this is dropped, which happens at the latest with its executor.
struct Target<'i> {
    inner: &'i Inner,
    id: u64,
}

impl<'i> Target<'i> {
    fn set(inner: &'i Inner, id: u64) -> Self {
        // Another server, or the same one before a restart, may have used this number.
        inner.left.store(0, Ordering::Release);
        inner.target.store(id, Ordering::Release);
        inner.change_all();
        Self { inner, id }
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        // There may be another one already.
        let (inner, id) = (self.inner, self.id);
        let _other =
            inner.target.compare_exchange(id, 0, Ordering::AcqRel, Ordering::Acquire).is_err();
        inner.change_all();
    }
}

impl Key {
    fn change(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_waiters();
    }
}

/// The pause before the connection is opened again; it can be twice as long.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the listening connection is checked, because nothing else shows that it is dead.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long a refusal counts. Rights can be granted later, and after a failover the server may be
/// another one.
const REFUSED_FOR: Duration = Duration::from_secs(600);
