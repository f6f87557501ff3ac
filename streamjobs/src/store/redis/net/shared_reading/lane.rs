//! One reading connection that many readers share: what waits goes in one write.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Pipeline, RedisResult, Value};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio_util::task::TaskTracker;

use super::super::endpoint::Endpoint;
use super::super::error::{ConnectionFailed, answer_lost, copy, not_connected};
use super::super::reading::{Answer, Reading, open_reading};
use super::super::wire::Patience;
use super::key_changes::KeyChanges;
use crate::store::StoreError;

/// Commands of one reader.
pub(crate) struct Exchange {
    pub(crate) pipeline: Pipeline,
    /// About how many bytes the answers have.
    pub(crate) bytes: usize,
    /// How long the server may be silent.
    pub(crate) silence: Duration,
}

/// The answers to an exchange.
pub(crate) struct Answered {
    pub(crate) answers: Vec<Answer>,
    /// Whether the server remembers the keys that were read and says when they change.
    pub(crate) is_tracked: bool,
}

/// An exchange, and who waits for its answers.
struct Request {
    exchange: Exchange,
    answered: oneshot::Sender<Result<Answered, StoreError>>,
}

/// A connection that is opened when it is needed.
pub(super) struct Lane {
    endpoint: Endpoint,
    changes: KeyChanges,
    requests: Mutex<Option<Sender<Request>>>,
    tasks: TaskTracker,
}

impl Lane {
    pub(super) fn new(endpoint: Endpoint, changes: KeyChanges) -> Self {
        Self { endpoint, changes, requests: Mutex::new(None), tasks: TaskTracker::new() }
    }

    /// Sends commands with those of other readers, and waits for an answer to each.
    pub(super) async fn exchange(&self, exchange: Exchange) -> Result<Answered, StoreError> {
        let (answered, answer) = oneshot::channel();
        // The executor of the connection may end at any time: before, ...
        if self.requests().send(Request { exchange, answered }).await.is_err() {
            return Err(not_connected());
        }
        // ... or after the request was sent.
        let lost = || StoreError::AnswerLost(Box::new(ConnectionFailed(ENDED.to_owned())));
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Closes the connection. The next exchange opens another one.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    /// The way to the connection's task, which ends with the executor that it was started on.
    fn requests(&self) -> Sender<Request> {
        let mut requests = self.lock();
        if let Some(requests) = requests.as_ref().filter(|requests| !requests.is_closed()) {
            return requests.clone();
        }
        let (sender, receiver) = channel(WAITING_MAX);
        let server =
            Server { endpoint: self.endpoint.clone(), changes: self.changes.clone(), open: None };
        self.tasks.spawn(server.run(receiver));
        *requests = Some(sender.clone());
        sender
    }

    fn lock(&self) -> MutexGuard<'_, Option<Sender<Request>>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection's task.
struct Server {
    endpoint: Endpoint,
    changes: KeyChanges,
    open: Option<Open>,
}

struct Open {
    reading: Reading,
    /// The connection on which the server says what changes.
    redirected_to: Option<u64>,
}

impl Server {
    async fn run(mut self, mut requests: Receiver<Request>) {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(first) => first,
                None => tokio::select! {
                    biased;
                    first = requests.recv() => match first {
                        Some(first) => first,
                        None => return,
                    },
                    () = self.broken() => {
                        self.lose();
                        continue;
                    }
                },
            };
            // The change of one key wakes many readers: all of them come first.
            yield_now().await;
            let batch;
            (batch, next) = batch_of(first, &mut requests);
            self.serve(batch).await;
        }
    }

    /// Waits until the connection breaks while nothing is asked.
    async fn broken(&mut self) {
        match &mut self.open {
            Some(open) => open.reading.broken().await,
            None => std::future::pending().await,
        }
    }

    /// The connection is lost: readers that wait are told.
    fn lose(&mut self) {
        self.open = None;
        self.changes.lose_reading();
    }

    async fn serve(&mut self, batch: Vec<Request>) {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => match open_reading(&self.endpoint).await {
                Ok((reading, _)) => Open { reading, redirected_to: None },
                Err(error) => return fail(batch, &error),
            },
        };
        match open.exchange(&batch, &self.changes).await {
            Ok(all) => {
                let is_tracked = open.redirected_to.is_some();
                let of_wrong_server = all.iter().flatten().any(Answer::is_of_wrong_server);
                if of_wrong_server {
                    self.changes.reopen();
                    self.lose();
                } else {
                    self.open = Some(open);
                }
                for (request, answers) in batch.into_iter().zip(all) {
                    // A reader that is gone left its entries pending, as if the answer was lost.
                    let _gone =
                        request.answered.send(Ok(Answered { answers, is_tracked })).is_err();
                }
            }
            Err(error) => {
                self.lose();
                fail(batch, &answer_lost(&error));
            }
        }
    }
}

impl Open {
    /// Sends the commands of all, and returns the answers of each.
    async fn exchange(
        &mut self,
        batch: &[Request],
        changes: &KeyChanges,
    ) -> RedisResult<Vec<Vec<Answer>>> {
        let silence = batch.iter().map(|request| request.exchange.silence).max();
        let silence = silence.unwrap_or_default();
        let patience = Patience { first: silence, silence };
        let redirect = self.redirect(changes);
        let pipelines = redirect.iter().map(|(_, pipeline)| pipeline);
        let pipelines = pipelines.chain(batch.iter().map(|request| &request.exchange.pipeline));
        let mut all = self.reading.exchange_all(&pipelines.collect::<Vec<_>>(), patience).await?;
        if let Some((target, _)) = redirect {
            let answer = all.remove(0).pop().map_or(Ok(Value::Nil), Answer::value)?;
            match answer {
                Value::Okay => self.redirected_to = Some(target),
                Value::ServerError(error) if is_final(&error) => changes.refuse(),
                // The connection to redirect to is gone.
                _ => {}
            }
        }
        Ok(all)
    }

    /// What makes the server say changes on the connection that listens now; `None` if it does already,
    /// or if no connection listens.
    fn redirect(&mut self, changes: &KeyChanges) -> Option<(u64, Pipeline)> {
        let target = changes.target();
        if self.redirected_to == target {
            return None;
        }
        self.redirected_to = None;
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("CLIENT").arg("TRACKING").arg("ON").arg("REDIRECT").arg(target?);
        Some((target?, pipeline))
    }
}

/// Whether the server will not track keys, whatever listens.
fn is_final(error: &redis::ServerError) -> bool {
    let text = error.details().unwrap_or_default().to_ascii_lowercase();
    error.code() == "NOPERM" || text.contains("unknown") || text.contains("syntax")
}

/// The first request with those that wait, as much as goes well together, and the one after them.
fn batch_of(first: Request, requests: &mut Receiver<Request>) -> (Vec<Request>, Option<Request>) {
    let mut bytes = first.exchange.bytes;
    let mut batch = vec![first];
    while let Ok(request) = requests.try_recv() {
        if request.answered.is_closed() {
            continue;
        }
        bytes = bytes.saturating_add(request.exchange.bytes);
        if bytes > BATCH_BYTES_MAX {
            return (batch, Some(request));
        }
        batch.push(request);
    }
    (batch, None)
}

/// Tells all the same error.
fn fail(batch: Vec<Request>, error: &StoreError) {
    for request in batch {
        let _gone = request.answered.send(Err(copy(error))).is_err();
    }
}

/// Each reader has one request at a time, so with fewer readers than this none waits here.
const WAITING_MAX: usize = 1024;
/// About how many bytes one write asks for.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
const ENDED: &str = "the executor of the connection has ended";
