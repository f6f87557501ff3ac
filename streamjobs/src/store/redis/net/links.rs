//! Links to nodes, today to one: the connection that everything shares but reads that wait.
//!
//! A link connects when it is first used, and again after its connection broke. A command is sent
//! once and never repeated: the caller gets the outcome as it is.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, WeakShared};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, Value};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::dial::{Opened, open_shared};
use super::error::{answer_lost, is_wrong_server, refused, unreachable};
use crate::store::StoreError;

/// A connection to one address that is opened when it is needed.
#[derive(Clone)]
pub(crate) struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    address: Address,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    /// Callers who come while a connection is being opened wait for the same attempt. It is held
    /// weakly: when all of them have gone, the attempt is over.
    opening: Option<WeakShared<Opening>>,
    generation: u64,
    failures: u32,
    pause: Option<Pause>,
}

/// One connection of a link, which is not replaced when it breaks.
#[derive(Clone)]
pub(crate) struct Pinned {
    live: Live,
    link: Link,
}

impl Pinned {
    /// Sends commands in one go. The server's refusals stand among the answers.
    pub(crate) async fn pipeline(mut self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let (inner, generation) = (&self.link.inner, self.live.generation);
        if self.live.closed.is_cancelled() {
            let gone = io::Error::from(io::ErrorKind::NotConnected);
            return Err(StoreError::Unreachable(gone.into()));
        }
        let answer = self.live.connection.send_packed_commands(pipeline, 0, pipeline.len()).await;
        let values = answer.map_err(|error| {
            inner.leave(generation, None);
            answer_lost(error)
        })?;
        let wrong = values.iter().find_map(|value| match value {
            Value::ServerError(error) if is_wrong_server(error) => Some(error.to_string()),
            _ => None,
        });
        if wrong.is_some() {
            inner.leave(generation, wrong);
        }
        Ok(values)
    }
}

type Opening = BoxFuture<'static, Result<Live, RedisError>>;

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    /// Cancelled as soon as the connection's task has ended, so that nothing is sent into a
    /// connection that is known to be gone.
    closed: CancellationToken,
    generation: u64,
}

/// No attempt is made to connect until then.
#[derive(Clone)]
struct Pause {
    until: Instant,
    cause: String,
}

/// Why no attempt is made to connect.
#[derive(Debug, Error)]
#[error("waiting before the next attempt to connect, after: {0}")]
struct Waiting(String);

impl Link {
    /// A link that has not connected yet.
    pub(crate) fn new(address: Address) -> Self {
        let state = Mutex::default();
        Self { inner: Arc::new(Inner { address, state }) }
    }

    /// Where it leads.
    pub(crate) fn address(&self) -> &Address {
        &self.inner.address
    }

    /// Sends one command. The server's refusals are errors.
    pub(crate) async fn command(&self, command: &Cmd) -> Result<Value, StoreError> {
        let mut live = self.live().await?;
        let answer = live.connection.send_packed_command(command).await;
        match answer {
            Ok(Value::ServerError(error)) => {
                if is_wrong_server(&error) {
                    self.inner.leave(live.generation, Some(error.to_string()));
                }
                Err(refused(&error))
            }
            Ok(value) => Ok(value),
            Err(error) => {
                self.inner.leave(live.generation, None);
                Err(answer_lost(error))
            }
        }
    }

    /// Sends commands in one go. The server's refusals stand among the answers.
    pub(crate) async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        self.pinned().await?.pipeline(pipeline).await
    }

    /// The present connection, for commands that must not go over different ones.
    pub(crate) async fn pinned(&self) -> Result<Pinned, StoreError> {
        Ok(Pinned { live: self.live().await?, link: self.clone() })
    }

    async fn live(&self) -> Result<Live, StoreError> {
        let opening = {
            let mut state = self.inner.lock();
            match state.live.take() {
                Some(live) if !live.closed.is_cancelled() => {
                    state.live = Some(live.clone());
                    return Ok(live);
                }
                _ => {}
            }
            let opening = state.opening.as_ref().and_then(WeakShared::upgrade);
            match opening {
                Some(opening) => opening,
                None => {
                    if let Some(pause) =
                        state.pause.as_ref().filter(|pause| Instant::now() < pause.until)
                    {
                        return Err(StoreError::Unreachable(Box::new(Waiting(
                            pause.cause.clone(),
                        ))));
                    }
                    let opening = Arc::clone(&self.inner).open().boxed().shared();
                    state.opening = opening.downgrade();
                    opening
                }
            }
        };
        opening.await.map_err(unreachable)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(self: Arc<Self>) -> Result<Live, RedisError> {
        let opened = open_shared(&self.address).await;
        let mut state = self.lock();
        state.opening = None;
        match opened {
            Ok(Opened { connection, closed }) => {
                state.generation += 1;
                state.failures = 0;
                // A server that hangs up at once is not asked again at once.
                state.pause = Some(Pause {
                    until: Instant::now() + pause(1, fastrand::f64()),
                    cause: "the connection broke as soon as it was open".to_owned(),
                });
                let live = Live { connection, closed, generation: state.generation };
                state.live = Some(live.clone());
                Ok(live)
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                let wait = match error.kind() {
                    redis::ErrorKind::AuthenticationFailed => PAUSE_AUTHENTICATION,
                    _ if is_authentication(&error) => PAUSE_AUTHENTICATION,
                    _ => pause(state.failures, fastrand::f64()),
                };
                state.pause =
                    Some(Pause { until: Instant::now() + wait, cause: error.to_string() });
                Err(error)
            }
        }
    }

    /// Leaves a connection that is of no more use, unless a newer one has taken its place. After a
    /// refusal by the server itself there is a pause before the next one.
    fn leave(&self, generation: u64, refusal: Option<String>) {
        let mut state = self.lock();
        if state.live.as_ref().is_none_or(|live| live.generation != generation) {
            return;
        }
        state.live = None;
        if let Some(cause) = refusal {
            state.pause = Some(Pause { until: Instant::now() + pause(1, fastrand::f64()), cause });
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner.address, f)
    }
}

fn is_authentication(error: &RedisError) -> bool {
    matches!(error.code(), Some("WRONGPASS" | "NOAUTH"))
}

/// How long no attempt is made after this many failures; `random` is drawn evenly from 0 to 1.
fn pause(failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(8);
    let bound = PAUSE_FIRST.saturating_mul(1 << doublings).min(PAUSE_MAX);
    bound.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

const PAUSE_FIRST: Duration = Duration::from_millis(400);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Servers count and log wrong passwords; some lock the user out.
const PAUSE_AUTHENTICATION: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_to_connect_are_a_few_a_second_at_most() {
        assert_eq!(pause(1, 0.0), Duration::from_millis(200));
        assert_eq!(pause(1, 1.0), Duration::from_millis(400));
        assert_eq!(pause(u32::MAX, 1.0), PAUSE_MAX);
        assert!(pause(0, 0.0) >= Duration::from_millis(200));
    }

    #[tokio::test]
    async fn callers_during_the_pause_are_told_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let link = Link::new(Address::new(&format!("redis://:canary@127.0.0.1:{port}")).unwrap());
        for text in ["refused", "waiting before the next attempt"] {
            let error = link.command(&redis::cmd("PING")).await.unwrap_err();
            let StoreError::Unreachable(cause) = error else { panic!("{error:?}") };
            assert!(cause.to_string().contains(text), "{cause}");
        }
        assert!(!format!("{link:?}").contains("canary"));
    }
}
