//! A link to one server: the connection that all requests share, except reads that wait.
//!
//! A link connects when it is first used, and again after its connection broke. A command is sent
//! once and never repeated: the caller gets the outcome as it is. What has not been sent yet waits for
//! a connection and a place in it, within a deadline.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};
use tokio::time::{Instant, sleep_until, timeout};

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
    /// The attempt to connect that callers share. Kept weakly: it ends when no caller waits for it
    /// any more.
    opening: Option<WeakShared<Opening>>,
    /// How many attempts have begun.
    attempts: u64,
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
    /// Where it is connected to.
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

    /// Sends commands in one go, with the first poll. Refusals by the server are among the answers.
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

    /// Sends commands that append, with the first poll.
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

    /// The answers. The connection is given up if they were lost, or if they say that this is the wrong server.
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

    /// Where it connects.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// The scripts that a server is to know. They are loaded together, because a server that lacks one
    /// lacks the others too.
    pub(crate) fn all_scripts(&self) -> Scripts {
        self.inner.scripts
    }

    /// The request that loads the scripts, if one is on its way.
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

    /// Like [`command`](Self::command), for a key that is on its way to this node.
    pub(crate) async fn command_asking(&self, command: &Cmd) -> Result<Value, StoreError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command.clone());
        let answer = self.pipeline_asking(&pipeline).await?.pop().unwrap_or(Value::Nil);
        accepted(answer)
    }

    /// Like [`pipeline`](Self::pipeline), for a key that is on its way to this node.
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

    /// The current connection, for commands that must all use the same one, with a place for the first request, which
    /// has this many bytes.
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
    /// the server did not say it when the connection was opened.
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

    /// The current connection with a place for a request of this many bytes. When the connection breaks before there is
    /// one, the next connection is tried.
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
                Step::Open(opening) => return self.opened(opening).await,
                Step::Wait(until) => sleep_until(until).await,
            }
        }
    }

    /// Waits for an attempt to connect. Its socket and its deadline are on the executor of the caller that began it,
    /// which might not get to run. In that case the next caller makes an attempt of its own.
    async fn opened(&self, opening: Shared<Opening>) -> Result<Arc<Live>, StoreError> {
        match timeout(OPENING_DEADLINE, opening.clone()).await {
            Ok(opened) => opened.map_err(|error| unreachable(&error)),
            Err(_) => {
                self.inner.pass_over(&opening);
                Err(StoreError::Unreachable(io::Error::from(io::ErrorKind::TimedOut).into()))
            }
        }
    }
}

/// How a caller gets a connection.
enum Step {
    Use(Arc<Live>),
    Open(Shared<Opening>),
    /// Tries again at this time.
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
                state.attempts += 1;
                let opening = Arc::clone(self).open(state.attempts).boxed().shared();
                state.opening = opening.downgrade();
                Ok(Step::Open(opening))
            }
        }
    }

    /// Forgets an attempt to connect.
    fn pass_over(&self, opening: &Shared<Opening>) {
        let mut state = self.lock();
        let current = state.opening.as_ref().and_then(WeakShared::upgrade);
        if current.is_some_and(|current| current.ptr_eq(opening)) {
            state.opening = None;
        }
    }

    async fn open(self: Arc<Self>, attempt: u64) -> Result<Arc<Live>, RedisError> {
        let opened = self.endpoint.connect(open_shared).await;
        let mut state = self.lock();
        if state.attempts != attempt {
            // The callers have given this attempt up, and only the result of a later one counts. Nothing else is known
            // of this attempt.
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
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

    /// Drops the connection at the end of the server's tenure, even if nothing is sent at that time.
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
    /// refusal, the next attempt to connect waits. What waits for a place there goes to the next
    /// connection; what was sent may still be answered.
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
/// How long a caller waits for an attempt to connect: longer than an attempt that gets to run can take, with the 3
/// seconds of a credentials provider.
const OPENING_DEADLINE: Duration = CONNECT_DEADLINE.saturating_add(Duration::from_secs(4));

#[cfg(test)]
mod tests;
