//! A link to one server: the connection that everything shares except reads that wait.
//!
//! A link connects when it is first used, and again after its connection broke. A command is sent
//! once and never repeated: the caller gets the outcome as it is. A request that has not been sent yet
//! waits for a connection and a place in it, within a deadline.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};
use tokio::time::{Instant, sleep_until};

use super::asking::asking;
use super::capabilities::Capabilities;
use super::connect_pause::{Attempt, ConnectPause};
use super::deadlines::CONNECT_DEADLINE;
use super::dial::{Opened, open_shared};
use super::endpoint::Endpoint;
use super::error::{
    ConnectionFailed, accepted, answer_lost, not_connected, refusal_text, refused, unreachable,
};
use super::live::Live;
use super::multiplexed::{AppendAnswers, Request};
use super::places::{Place, Places, size_of_command, size_of_pipeline};
use super::shared_request::SharedRequest;
use crate::store::StoreError;
use crate::store::redis::script::Scripts;

/// A connection to one endpoint, opened when it is needed.
#[derive(Clone)]
pub(crate) struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    scripts: Scripts,
    loading: SharedRequest<Loaded>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<Arc<Live>>,
    /// The attempt to connect that callers share. Held weakly: the attempt ends when no caller waits
    /// for it any more.
    opening: Option<WeakShared<Opening>>,
    generation: u64,
    pause: ConnectPause,
}

/// One connection of a link. It is not replaced when it breaks.
#[derive(Clone)]
pub(crate) struct Pinned {
    live: Arc<Live>,
    link: Link,
}

impl Pinned {
    /// The server to which it is connected.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        self.link.endpoint()
    }

    /// Sends commands in one go. Refusals by the server are among the answers.
    pub(crate) async fn pipeline(self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let place = self.place(size_of_pipeline(pipeline)).await?;
        self.send(place, pipeline).await
    }

    /// Waits for a place for a request of this many bytes.
    pub(crate) async fn place(&self, bytes: usize) -> Result<Place, StoreError> {
        let until = Instant::now() + PLACE_DEADLINE;
        self.live.place(bytes, until).await?.ok_or_else(not_connected)
    }

    /// A place for a request of this many bytes, if there is one now.
    pub(crate) fn place_now(&self, bytes: usize) -> Option<Place> {
        self.live.places.take_now(bytes)
    }

    /// Sends commands in one go. The first poll sends them. Refusals by the server are among the
    /// answers.
    pub(crate) async fn send(
        self,
        place: Place,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, StoreError> {
        if self.live.closed.is_cancelled() {
            return Err(not_connected());
        }
        let answers = self.live.commands(place, pipeline).await;
        self.checked(answers)
    }

    /// Sends commands that append. The first poll sends them.
    pub(crate) async fn append(
        self,
        place: Place,
        request: &impl Request,
    ) -> Result<AppendAnswers, StoreError> {
        if self.live.closed.is_cancelled() {
            return Err(not_connected());
        }
        let answers = match self.live.request(place, request).await {
            Ok(answers) => match answers.ids() {
                Some(ids) => return Ok(AppendAnswers::Ids(ids)),
                None => answers.values(),
            },
            Err(error) => Err(error),
        };
        self.checked(answers).map(AppendAnswers::Values)
    }

    /// Returns the answers. Gives up the connection if they were lost, or if they say that the server
    /// is the wrong one.
    fn checked(&self, answers: RedisResult<Vec<Value>>) -> Result<Vec<Value>, StoreError> {
        let (inner, generation) = (&self.link.inner, self.live.generation);
        let values = answers.map_err(|error| {
            inner.leave(generation, None);
            answer_lost(&error)
        })?;
        let wrong = values.iter().find_map(|value| match value {
            Value::ServerError(error) if inner.endpoint.is_left_after(error) => {
                Some(refusal_text(error))
            }
            _ => None,
        });
        if wrong.is_some() {
            inner.leave(generation, wrong);
        }
        Ok(values)
    }
}

/// Whether the server has the scripts.
type Loaded = Arc<Result<(), StoreError>>;

type Opening = BoxFuture<'static, Result<Arc<Live>, RedisError>>;

impl Link {
    /// A link that has not connected yet.
    pub(crate) fn new(endpoint: Endpoint, scripts: Scripts) -> Self {
        let (loading, state) = (SharedRequest::default(), Mutex::default());
        Self { inner: Arc::new(Inner { endpoint, scripts, loading, state }) }
    }

    /// The endpoint to which it connects.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// The scripts that a server has to know. They are loaded together, because a server that lacks
    /// one lacks the others too.
    pub(crate) fn all_scripts(&self) -> Scripts {
        self.inner.scripts
    }

    /// The request that loads the scripts, while one is running.
    pub(super) fn loading(&self) -> &SharedRequest<Loaded> {
        &self.inner.loading
    }

    /// Sends one command. A refusal by the server is an error.
    pub(crate) async fn command(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.command_answering(command, 0).await
    }

    /// Sends one command whose answer may have about this many bytes.
    pub(super) async fn command_answering(
        &self,
        command: &Cmd,
        bytes: usize,
    ) -> Result<Value, StoreError> {
        let (live, place) = self.place(size_of_command(command)).await?;
        match live.command(place.answering(bytes), command).await {
            Ok(Value::ServerError(error)) => {
                if self.inner.endpoint.is_left_after(&error) {
                    self.inner.leave(live.generation, Some(refusal_text(&error)));
                }
                Err(refused(&error))
            }
            Ok(value) => Ok(value),
            Err(error) => {
                self.inner.leave(live.generation, None);
                Err(answer_lost(&error))
            }
        }
    }

    /// Sends commands in one go. Refusals by the server are among the answers.
    pub(crate) async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let (connection, place) = self.pinned_with_place(size_of_pipeline(pipeline)).await?;
        connection.send(place, pipeline).await
    }

    /// Like [`command`](Self::command), for a key that is moving to this node.
    pub(crate) async fn command_asking(&self, command: &Cmd) -> Result<Value, StoreError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command.clone());
        let answer = self.pipeline_asking(&pipeline).await?.pop().unwrap_or(Value::Nil);
        accepted(answer)
    }

    /// Like [`pipeline`](Self::pipeline), for a key that is moving to this node.
    pub(crate) async fn pipeline_asking(
        &self,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, StoreError> {
        let (asking, is_added) = asking(pipeline);
        let answers = self.pipeline(&asking).await?.into_iter().zip(is_added);
        Ok(answers.filter(|(_, is_added)| !is_added).map(|(answer, _)| answer).collect())
    }

    /// Whether it has a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.inner.lock().live.as_ref().is_some_and(|live| !live.closed.is_cancelled())
    }

    /// The current connection, for commands that must all use the same one, with a place for the first
    /// request, of this many bytes.
    pub(crate) async fn pinned_with_place(
        &self,
        bytes: usize,
    ) -> Result<(Pinned, Place), StoreError> {
        let (live, place) = self.place(bytes).await?;
        Ok((Pinned { live, link: self.clone() }, place))
    }

    /// The current connection with a place for a request of this many bytes, if there is one now.
    pub(crate) fn place_now(&self, bytes: usize) -> Option<(Pinned, Place)> {
        let state = self.inner.lock();
        let live = state.live.as_ref().filter(|live| !live.closed.is_cancelled())?;
        let place = live.places.take_now(bytes)?;
        Some((Pinned { live: Arc::clone(live), link: self.clone() }, place))
    }

    /// The current connection, for commands that must all use the same one.
    pub(crate) async fn pinned(&self) -> Result<Pinned, StoreError> {
        Ok(Pinned { live: self.live().await?, link: self.clone() })
    }

    /// What the server at the other end of the current connection can do. Sends a request only if
    /// the server did not tell it when the connection was opened.
    pub(crate) async fn capabilities(&self) -> Result<Capabilities, StoreError> {
        let pinned = self.pinned().await?;
        let live = Arc::clone(&pinned.live);
        if let Some(capabilities) = live.capabilities.get() {
            return Ok(capabilities.clone());
        }
        let mut request = Pipeline::with_capacity(1);
        request.add_command(Capabilities::request());
        let answer = pinned.pipeline(&request).await?.pop().unwrap_or(Value::Nil);
        let learned = Capabilities::from_answer(accepted(answer)?)?;
        Ok(live.capabilities.get_or_init(|| learned).clone())
    }

    /// The current connection with a place for a request of this many bytes. If the connection breaks
    /// before a place is free, the next connection is tried.
    async fn place(&self, bytes: usize) -> Result<(Arc<Live>, Place), StoreError> {
        let until = Instant::now() + PLACE_DEADLINE;
        loop {
            let live = self.live().await?;
            if let Some(place) = live.place(bytes, until).await? {
                return Ok((live, place));
            }
        }
    }

    async fn live(&self) -> Result<Arc<Live>, StoreError> {
        loop {
            match self.inner.next_step()? {
                Step::Use(live) => return Ok(live),
                Step::Open(opening) => return opening.await.map_err(|error| unreachable(&error)),
                Step::Wait(until) => sleep_until(until).await,
            }
        }
    }
}

/// How a caller gets a connection.
enum Step {
    Use(Arc<Live>),
    Open(Shared<Opening>),
    /// Wait until then, and try again.
    Wait(Instant),
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_step(self: &Arc<Self>) -> Result<Step, StoreError> {
        let mut state = self.lock();
        if let Some(live) = &state.live
            && !live.closed.is_cancelled()
        {
            return Ok(Step::Use(Arc::clone(live)));
        }
        state.live = None;
        if let Some(opening) = state.opening.as_ref().and_then(WeakShared::upgrade) {
            return Ok(Step::Open(opening));
        }
        match state.pause.attempt() {
            Attempt::Later(until) => Ok(Step::Wait(until)),
            Attempt::Failed(text) => Err(StoreError::Unreachable(Box::new(ConnectionFailed(text)))),
            Attempt::Now => {
                let opening = Arc::clone(self).open().boxed().shared();
                state.opening = opening.downgrade();
                Ok(Step::Open(opening))
            }
        }
    }

    async fn open(self: Arc<Self>) -> Result<Arc<Live>, RedisError> {
        let opened = self.endpoint.connect(open_shared).await;
        let mut state = self.lock();
        state.opening = None;
        match opened {
            Ok(Opened { connection, closed, tenure, capabilities }) => {
                state.generation += 1;
                state.pause.opened();
                let capabilities = capabilities.map_or_else(OnceLock::new, OnceLock::from);
                let generation = state.generation;
                let places = Places::new();
                let live = Live { connection, places, closed, tenure, generation, capabilities };
                let live = Arc::new(live);
                state.live = Some(Arc::clone(&live));
                drop(state);
                if live.tenure.is_limited() {
                    self.leave_at_end(&live);
                }
                Ok(live)
            }
            Err(error) => {
                state.pause.failed(&error);
                Err(error)
            }
        }
    }

    /// Drops the connection at the end of the server's tenure as primary, even if nothing is sent
    /// then.
    #[expect(clippy::disallowed_methods, reason = "it ends with the connection")]
    fn leave_at_end(self: &Arc<Self>, live: &Live) {
        let (inner, generation) = (Arc::downgrade(self), live.generation);
        let closed = live.closed.clone();
        tokio::spawn(async move {
            closed.cancelled().await;
            if let Some(inner) = inner.upgrade() {
                inner.leave(generation, None);
            }
        });
    }

    /// Drops a connection that cannot be used any more, unless a newer one has replaced it. After a
    /// refusal, the next attempt to connect waits. Requests that wait for a place in it move to the
    /// next connection; requests that were sent may still be answered.
    fn leave(&self, generation: u64, refusal: Option<String>) {
        let mut state = self.lock();
        if state.live.as_ref().is_none_or(|live| live.generation != generation) {
            return;
        }
        if let Some(live) = state.live.take() {
            live.closed.cancel();
        }
        if let Some(refusal) = refusal {
            state.pause.refused(refusal);
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.lock();
        let live = state.live.as_ref();
        f.debug_struct("Link")
            .field("endpoint", &self.inner.endpoint)
            .field("capabilities", &live.and_then(|live| live.capabilities.get()))
            .finish_non_exhaustive()
    }
}

/// How long a request waits for a place.
const PLACE_DEADLINE: Duration = CONNECT_DEADLINE;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::scan::FrameScanner;
    use super::*;
    use crate::model::config::ConnectionOptions;

    /// Answers the requests of one connection as a server of this version does, until this command
    /// arrives. It answers that command only if it is part of opening a connection.
    async fn serve_until(listener: &TcpListener, version: &str, last: &str) {
        let (mut socket, _) = listener.accept().await.unwrap();
        let info = format!("redis_version:{version}\r\n");
        let info = format!("${}\r\n{info}\r\n", info.len());
        let mut asked = BytesMut::new();
        loop {
            while let Some(end) = FrameScanner::new().end(&asked).unwrap() {
                let request = String::from_utf8(asked.split_to(end).to_vec()).unwrap();
                let command = request.split("\r\n").nth(2).unwrap();
                let answer = match command {
                    "PING" if last == "PING" => return,
                    "INFO" => info.as_str(),
                    _ => "+OK\r\n",
                };
                socket.write_all(answer.as_bytes()).await.unwrap();
                if command == last {
                    return;
                }
            }
            socket.read_buf(&mut asked).await.unwrap();
        }
    }

    #[tokio::test]
    async fn each_connection_learns_anew_what_the_server_can_do() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let link = Link::new(
            Endpoint::new(&format!("redis://127.0.0.1:{port}"), ConnectionOptions::default())
                .unwrap(),
            &[],
        );
        assert!(format!("{link:?}").contains("capabilities: None"));
        let asking = async {
            for version in ["7.0.15", "8.8.0"] {
                link.inner.lock().pause.clear();
                let release = link.capabilities().await.unwrap().release.unwrap();
                assert_eq!(release.to_string(), format!("Redis {version}"));
                assert!(format!("{link:?}").contains(version));
                link.command(&redis::cmd("PING")).await.unwrap_err();
                assert!(format!("{link:?}").contains("capabilities: None"));
            }
        };
        let serving = async {
            serve_until(&listener, "7.0.15", "PING").await;
            serve_until(&listener, "8.8.0", "PING").await;
        };
        tokio::join!(asking, serving);
    }

    #[tokio::test]
    async fn a_connection_that_breaks_as_soon_as_it_is_open_is_replaced_for_the_next_command() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let link = Link::new(
            Endpoint::new(&format!("redis://127.0.0.1:{port}"), ConnectionOptions::default())
                .unwrap(),
            &[],
        );
        let asking = async {
            link.capabilities().await.unwrap();
            let closed = link.inner.lock().live.as_ref().unwrap().closed.clone();
            closed.cancelled().await;
            link.command(&redis::cmd("ECHO")).await.unwrap();
        };
        let serving = async {
            serve_until(&listener, "8.8.0", "INFO").await;
            serve_until(&listener, "8.8.0", "ECHO").await;
        };
        tokio::join!(asking, serving);
    }

    #[tokio::test]
    async fn callers_during_the_pause_get_the_cause_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let link = Link::new(
            Endpoint::new(
                &format!("redis://:canary@127.0.0.1:{port}"),
                ConnectionOptions::default(),
            )
            .unwrap(),
            &[],
        );
        for text in ["refused", "waiting before the next attempt"] {
            let error = link.command(&redis::cmd("PING")).await.unwrap_err();
            let StoreError::Unreachable(cause) = error else { panic!("{error:?}") };
            assert!(cause.to_string().contains(text), "{cause}");
        }
        assert!(!format!("{link:?}").contains("canary"));
    }
}
