//! The connection that everything shares but reads that wait.
//!
//! It is opened by its first use and again after it broke. A refused command never becomes two: a
//! command is sent once, and what happened to it is told as it is.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, WeakShared};
use redis::aio::{MultiplexedConnection, SendError};
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, ProtocolVersion, RedisError, RedisResult, Value,
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::error::{answer_lost, is_wrong_server, refused, unreachable};
use super::reading::{Answer, Reading};
use super::reply;
use super::wire::Wire;
use crate::store::StoreError;
use crate::store::script::{ALL, Script};

/// A connection to one address that is opened when it is needed.
#[derive(Clone)]
pub(super) struct Link {
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
pub(super) struct Pinned {
    live: Live,
    link: Link,
}

impl Pinned {
    /// Sends commands in one go. The server's refusals stand among the answers.
    pub(super) async fn pipeline(mut self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
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
    pub(super) fn new(address: Address) -> Self {
        let state = Mutex::default();
        Self { inner: Arc::new(Inner { address, state }) }
    }

    /// Where it leads.
    pub(super) fn address(&self) -> &Address {
        &self.inner.address
    }

    /// Sends one command. The server's refusals are errors.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, StoreError> {
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
    pub(super) async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        self.pinned().await?.pipeline(pipeline).await
    }

    /// The present connection, for commands that must not go over different ones.
    pub(super) async fn pinned(&self) -> Result<Pinned, StoreError> {
        Ok(Pinned { live: self.live().await?, link: self.clone() })
    }

    /// Runs a script. A server that does not know it, or has forgotten it, is given all of them
    /// first: a renewal that has to be quick then finds its script there.
    pub(super) async fn script(
        &self,
        script: &'static Script,
        keys: &[&str],
        add_arguments: impl FnOnce(&mut Cmd) + Send,
    ) -> Result<Value, StoreError> {
        if script.digest.get().is_none() {
            self.load_scripts().await?;
        }
        let digest = script.digest.get().ok_or(StoreError::Protocol { command: SCRIPT_LOAD })?;
        let mut command = redis::cmd("EVALSHA");
        command.arg(digest).arg(keys.len()).arg(keys);
        add_arguments(&mut command);
        for _ in 1..SCRIPT_ATTEMPTS_MAX {
            match self.command(&command).await {
                Err(StoreError::Refused { code, .. }) if code == "NOSCRIPT" => {
                    self.load_scripts().await?;
                }
                answer => return answer,
            }
        }
        self.command(&command).await
    }

    /// Runs a script many times in one go; each call adds its keys and arguments. The server's
    /// refusals stand among the answers.
    pub(super) async fn scripts(
        &self,
        script: &'static Script,
        calls: &[impl Fn(&mut Cmd) + Sync],
    ) -> Result<Vec<Value>, StoreError> {
        if script.digest.get().is_none() {
            self.load_scripts().await?;
        }
        let digest = script.digest.get().ok_or(StoreError::Protocol { command: SCRIPT_LOAD })?;
        let mut answers = vec![Value::Nil; calls.len()];
        let mut open = calls.iter().zip(&mut answers).collect::<Vec<_>>();
        for _ in 0..SCRIPT_ATTEMPTS_MAX {
            let mut pipeline = Pipeline::with_capacity(open.len());
            for (call, _) in &open {
                let mut command = redis::cmd("EVALSHA");
                call(command.arg(digest));
                pipeline.add_command(command);
            }
            for ((_, answer), value) in open.iter_mut().zip(self.pipeline(&pipeline).await?) {
                **answer = value;
            }
            open.retain(|(_, answer)| is_forgotten(answer));
            if open.is_empty() {
                break;
            }
            self.load_scripts().await?;
        }
        Ok(answers)
    }

    async fn load_scripts(&self) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::with_capacity(ALL.len());
        for script in ALL {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script.source().as_ref());
        }
        let answers = match self.pipeline(&pipeline).await {
            // No script has certainly run.
            Err(StoreError::AnswerLost(cause)) => return Err(StoreError::Unreachable(cause)),
            answers => answers?,
        };
        for (script, answer) in ALL.iter().zip(answers) {
            if let Value::ServerError(error) = answer {
                return Err(refused(&error));
            }
            let digest = reply::text(answer, SCRIPT_LOAD)?;
            script.digest.get_or_init(|| digest);
        }
        Ok(())
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
            Ok((connection, closed)) => {
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

/// A connection for reads that may wait, and by what the server knows it.
pub(super) async fn open_reading(address: &Address) -> Result<(Reading, u64), StoreError> {
    let opening = async {
        let mut reading = match Wire::open(address).await? {
            Some(wire) => Reading::Wire(wire),
            None => {
                // The crate's own deadline is off: it would end the wait, but keep the connection
                // with the read still on it.
                let config = AsyncConnectionConfig::new().set_response_timeout(None);
                Reading::Shared(connect(address, ProtocolVersion::RESP2, config).await?)
            }
        };
        let mut about = Pipeline::with_capacity(1);
        about.cmd("CLIENT").arg("ID");
        let answer = reading.exchange(&about).await?.pop();
        let id = answer.map_or(Ok(Value::Nil), Answer::value)?;
        Ok((reading, id))
    };
    let (reading, id) = within(CONNECT_DEADLINE, opening).await.map_err(unreachable)?;
    match id {
        Value::ServerError(error) => Err(refused(&error)),
        id => Ok((reading, reply::number(id, "CLIENT ID")?)),
    }
}

/// The other protocol version tells at once when the server hangs up: its listener is dropped when
/// the connection's task ends, for whatever reason.
async fn open_shared(address: &Address) -> RedisResult<(MultiplexedConnection, CancellationToken)> {
    let closed = CancellationToken::new();
    let guard = closed.clone().drop_guard();
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(RESPONSE_DEADLINE))
        .set_pipeline_buffer_size(COMMANDS_WAITING_MAX)
        .set_push_sender(move |_| -> Result<(), SendError> {
            let _ = &guard;
            Ok(())
        });
    let opening = connect(address, ProtocolVersion::RESP3, config);
    Ok((within(CONNECT_DEADLINE, opening).await?, closed))
}

async fn connect(
    address: &Address,
    protocol: ProtocolVersion,
    config: AsyncConnectionConfig,
) -> RedisResult<MultiplexedConnection> {
    let config = config.set_connection_timeout(Some(CONNECT_DEADLINE));
    let client = address.client(protocol)?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    // A name helps operators; a server that forbids it still serves.
    connection.send_packed_command(&set_name()).await?;
    Ok(connection)
}

pub(super) fn set_name() -> Cmd {
    let mut command = redis::cmd("CLIENT");
    command.arg("SETNAME").arg(CONNECTION_NAME);
    command
}

async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    match tokio::time::timeout(deadline, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

fn is_forgotten(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.code() == "NOSCRIPT")
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

pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
pub(super) const RESPONSE_DEADLINE: Duration = Duration::from_secs(3);
const CONNECTION_NAME: &str = "streamjobs";
/// The crate's own 50 make publishers queue up behind each other.
const COMMANDS_WAITING_MAX: usize = 1024;
const SCRIPT_LOAD: &str = "SCRIPT LOAD";
/// A script that is forgotten this often in a row is refused.
const SCRIPT_ATTEMPTS_MAX: usize = 3;
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
