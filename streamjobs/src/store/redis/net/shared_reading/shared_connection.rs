//! One reading connection that many readers share: requests that wait go in one write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Pipeline, RedisResult, Value};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio_util::task::TaskTracker;

use super::super::error::{ConnectionFailed, answer_lost, not_connected, refusal_text};
use super::super::reading::{Answer, Reading, identified, open};
use super::super::wire::Patience;
use super::key_changes::KeyChanges;
use super::read_endpoint::ReadEndpoint;
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
    /// Whether the server remembers the keys that were read and reports when they change.
    pub(crate) is_tracked: bool,
    pub(crate) losses: Losses,
}

/// How often the connection had been lost before an answer.
pub(crate) struct Losses {
    counter: Arc<AtomicU64>,
    before: u64,
}

impl Losses {
    /// Whether the connection has been lost since then.
    pub(crate) fn have_grown(&self) -> bool {
        self.counter.load(Ordering::Acquire) != self.before
    }
}

/// An exchange, and the caller that waits for its answers.
struct Request {
    exchange: Exchange,
    answered: oneshot::Sender<Result<Answered, StoreError>>,
}

/// A connection that is opened when it is needed.
pub(super) struct SharedConnection {
    endpoint: ReadEndpoint,
    changes: KeyChanges,
    requests: Mutex<Option<Sender<Request>>>,
    /// How often the connection was lost.
    losses: Arc<AtomicU64>,
    tasks: TaskTracker,
}

impl SharedConnection {
    pub(super) fn new(endpoint: ReadEndpoint, changes: KeyChanges) -> Self {
        let (requests, losses, tasks) = (Mutex::new(None), Arc::default(), TaskTracker::new());
        Self { endpoint, changes, requests, losses, tasks }
    }

    /// Sends commands with those of other readers, and waits for an answer to each.
    pub(super) async fn exchange(&self, exchange: Exchange) -> Result<Answered, StoreError> {
        let (answered, answer) = oneshot::channel();
        // The executor of the connection may end at any time: before the request was sent ...
        if self.requests().send(Request { exchange, answered }).await.is_err() {
            return Err(not_connected());
        }
        // ... or afterwards.
        let lost = || StoreError::AnswerLost(Box::new(ConnectionFailed(ENDED.to_owned())));
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Closes the connection. The next exchange opens another one.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    /// The channel to the connection's task, which ends with the executor on which it was started.
    fn requests(&self) -> Sender<Request> {
        let mut requests = self.lock();
        if let Some(requests) = requests.as_ref().filter(|requests| !requests.is_closed()) {
            return requests.clone();
        }
        let (sender, receiver) = channel(WAITING_MAX);
        let task = ConnectionTask {
            endpoint: self.endpoint.clone(),
            changes: self.changes.clone(),
            losses: Arc::clone(&self.losses),
            open: None,
        };
        self.tasks.spawn(task.run(receiver));
        *requests = Some(sender.clone());
        sender
    }

    fn lock(&self) -> MutexGuard<'_, Option<Sender<Request>>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection's task.
struct ConnectionTask {
    endpoint: ReadEndpoint,
    changes: KeyChanges,
    losses: Arc<AtomicU64>,
    open: Option<OpenConnection>,
}

struct OpenConnection {
    reading: Reading,
    changes: KeyChanges,
    /// The connection on which the server reports changes.
    redirected_to: Option<u64>,
}

impl ConnectionTask {
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
                        let open = self.open.take();
                        self.lose(open);
                        continue;
                    }
                },
            };
            // The change of one key wakes many readers: this lets all of them send first.
            yield_now().await;
            let batch;
            (batch, next) = batch_of(first, &mut requests);
            self.serve(batch).await;
        }
    }

    /// Waits until the connection breaks, while no request is made.
    async fn broken(&mut self) {
        match &mut self.open {
            Some(open) => open.reading.broken().await,
            None => std::future::pending().await,
        }
    }

    /// Gives up the lost connection and tells the readers that wait. The connection that receives the
    /// changes may lead to a wrong server by now as well.
    fn lose(&mut self, open: Option<OpenConnection>) {
        self.losses.fetch_add(1, Ordering::AcqRel);
        if let Some(target) = open.as_ref().and_then(|open| open.redirected_to) {
            self.changes.leave(target);
        }
        drop(open);
    }

    async fn serve(&mut self, mut batch: Vec<Request>) {
        let mut open = match self.connection().await {
            Ok(open) => open,
            Err(error) => return fail(batch, &error),
        };
        // Entries that are read for a caller that is gone would stay pending until their lease ends.
        batch.retain(|request| !request.answered.is_closed());
        let before = self.losses.load(Ordering::Acquire);
        match open.exchange(&batch).await {
            Ok(all) => {
                let is_tracked = open.redirected_to.is_some();
                let of_wrong_server =
                    all.iter().flatten().any(|answer| self.endpoint.is_left_after(answer));
                if of_wrong_server {
                    self.lose(Some(open));
                } else {
                    self.open = Some(open);
                }
                for (request, answers) in batch.into_iter().zip(all) {
                    let losses = Losses { counter: Arc::clone(&self.losses), before };
                    let answered = Answered { answers, is_tracked, losses };
                    // If a reader is gone, its entries stay pending, as if the answer was lost.
                    let _gone = request.answered.send(Ok(answered)).is_err();
                }
            }
            Err(error) => {
                self.lose(Some(open));
                fail(batch, &answer_lost(&error));
            }
        }
    }

    /// The open connection, or a new one.
    async fn connection(&mut self) -> Result<OpenConnection, StoreError> {
        if let Some(open) = self.open.take() {
            return Ok(open);
        }
        let (reading, _) = identified(self.endpoint.connect(open).await)?;
        let changes = self.changes.clone();
        Ok(OpenConnection { reading, changes, redirected_to: None })
    }
}

/// What the server remembered is lost with the connection, even if its executor ends.
impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.changes.change_all();
    }
}

impl OpenConnection {
    /// Sends the commands of all requests, and returns the answers of each.
    async fn exchange(&mut self, batch: &[Request]) -> RedisResult<Vec<Vec<Answer>>> {
        let silence = batch.iter().map(|request| request.exchange.silence).max();
        let silence = silence.unwrap_or_default();
        let patience = Patience { first: silence, silence };
        let redirect = self.redirect();
        let pipelines = redirect.iter().map(|(_, pipeline)| pipeline);
        let pipelines = pipelines.chain(batch.iter().map(|request| &request.exchange.pipeline));
        let mut all = self.reading.exchange_all(&pipelines.collect::<Vec<_>>(), patience).await?;
        if let Some((target, _)) = redirect {
            let answer = all.remove(0).pop().map_or(Ok(Value::Nil), Answer::value)?;
            match answer {
                Value::Okay => self.redirected_to = Some(target),
                Value::ServerError(error) if is_final(&error) => {
                    self.changes.refuse(&refusal_text(&error));
                }
                // The connection to redirect to is gone, or belongs to another server.
                _ => self.changes.leave(target),
            }
        }
        Ok(all)
    }

    /// The commands that make the server report changes on the connection that listens now; `None` if
    /// it does already, or if no connection listens.
    fn redirect(&mut self) -> Option<(u64, Pipeline)> {
        let target = self.changes.target();
        if self.redirected_to == target {
            return None;
        }
        self.redirected_to = None;
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("CLIENT").arg("TRACKING").arg("ON").arg("REDIRECT").arg(target?);
        Some((target?, pipeline))
    }
}

/// Whether the server will never track keys, whichever connection listens.
fn is_final(error: &redis::ServerError) -> bool {
    let text = error.details().unwrap_or_default().to_ascii_lowercase();
    error.code() == "NOPERM" || text.contains("unknown") || text.contains("syntax")
}

/// The first request together with waiting ones, up to the size of one write, and the request after
/// them.
fn batch_of(first: Request, requests: &mut Receiver<Request>) -> (Vec<Request>, Option<Request>) {
    let mut bytes = first.exchange.bytes;
    let mut batch = vec![first];
    while let Ok(request) = requests.try_recv() {
        bytes = bytes.saturating_add(request.exchange.bytes);
        if bytes > BATCH_BYTES_MAX {
            return (batch, Some(request));
        }
        batch.push(request);
    }
    (batch, None)
}

/// Gives every request the same error.
fn fail(batch: Vec<Request>, error: &StoreError) {
    for request in batch {
        let _gone = request.answered.send(Err(error.copy())).is_err();
    }
}

/// How many requests can wait for the connection's task. Each reader has one request at a time, so with fewer readers
/// than this, none has to wait for room.
const WAITING_MAX: usize = 1024;
/// About how many bytes one write asks for.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
const ENDED: &str = "the executor of the connection has ended";

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::super::endpoint::Endpoint;
    use super::*;
    use crate::model::config::ConnectionOptions;

    /// A shared connection, and where it connects.
    async fn connection() -> (Arc<SharedConnection>, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let endpoint = Endpoint::new(&url, ConnectionOptions::default()).unwrap();
        let endpoint = ReadEndpoint::new(endpoint);
        let changes = KeyChanges::new(endpoint.clone());
        (Arc::new(SharedConnection::new(endpoint, changes)), listener)
    }

    fn echo(word: &str, bytes: usize) -> Exchange {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ECHO").arg(word);
        Exchange { pipeline, bytes, silence: Duration::from_secs(10) }
    }

    /// Reads until the text has arrived. Returns everything that was read.
    async fn heard(server: &mut TcpStream, text: &str) -> String {
        let mut heard = String::new();
        while !heard.contains(text) {
            let mut piece = [0; 4096];
            let length = server.read(&mut piece).await.unwrap();
            assert_ne!(length, 0, "closed after {heard}");
            heard.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
        heard
    }

    /// Accepts the connection and answers its first requests.
    async fn accepted(listener: &TcpListener) -> TcpStream {
        let (mut server, _) = listener.accept().await.unwrap();
        heard(&mut server, "SETNAME").await;
        server.write_all(b"+OK\r\n").await.unwrap();
        heard(&mut server, "ID\r\n").await;
        server.write_all(b":7\r\n").await.unwrap();
        server
    }

    #[tokio::test]
    async fn requests_go_in_one_write_and_none_of_a_caller_that_is_gone() {
        let (shared, listener) = connection().await;
        let ask = |word: &'static str| {
            let shared = Arc::clone(&shared);
            async move { shared.exchange(echo(word, 1)).await.map(|answered| answered.answers.len()) }
        };
        let serving = async {
            let mut server = accepted(&listener).await;
            heard(&mut server, "first").await;
            let mut gone = Box::pin(ask("gone"));
            assert!(futures_util::poll!(&mut gone).is_pending());
            drop(gone);
            let others = async { tokio::join!(ask("second"), ask("third")) };
            let answering = async {
                yield_now().await;
                server.write_all(b"$1\r\n1\r\n").await.unwrap();
                let asked = heard(&mut server, "third").await;
                assert!(asked.contains("second") && !asked.contains("gone"), "{asked}");
                server.write_all(b"$1\r\n2\r\n$1\r\n3\r\n").await.unwrap();
            };
            tokio::join!(others, answering).0
        };
        let (first, others) = tokio::join!(ask("first"), serving);
        assert_eq!((first.unwrap(), others.0.unwrap(), others.1.unwrap()), (1, 1, 1));
    }

    #[tokio::test]
    async fn a_loss_is_told_to_those_that_were_answered_over_that_connection() {
        let (shared, listener) = connection().await;
        let serving = async {
            let mut server = accepted(&listener).await;
            heard(&mut server, "first").await;
            server.write_all(b"$1\r\n1\r\n").await.unwrap();
            server
        };
        let (answered, server) = tokio::join!(shared.exchange(echo("first", 1)), serving);
        let answered = answered.ok().unwrap();
        assert!(!answered.is_tracked && !answered.losses.have_grown());
        drop(server);
        while !answered.losses.have_grown() {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_server_that_cannot_be_reached_is_tried_after_a_pause() {
        let (shared, listener) = connection().await;
        drop(listener);
        let first = shared.exchange(echo("first", 1)).await.err().unwrap();
        let again = shared.exchange(echo("again", 1)).await.err().unwrap();
        for error in [&first, &again] {
            assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
        }
    }

    #[test]
    fn a_batch_has_bounded_bytes_and_at_least_one_request() {
        let (sender, mut receiver) = channel(8);
        let request = |bytes| {
            let (answered, answer) = oneshot::channel();
            (Request { exchange: echo("x", bytes), answered }, answer)
        };
        let mut answers = Vec::new();
        for bytes in [BATCH_BYTES_MAX / 2, BATCH_BYTES_MAX / 2, 1, 2 * BATCH_BYTES_MAX] {
            let (request, answer) = request(bytes);
            sender.try_send(request).ok().unwrap();
            answers.push(answer);
        }
        let first = receiver.try_recv().unwrap();
        let (batch, next) = batch_of(first, &mut receiver);
        assert_eq!((batch.len(), next.as_ref().map(|next| next.exchange.bytes)), (2, Some(1)));
        let (batch, next) = batch_of(next.unwrap(), &mut receiver);
        assert_eq!((batch.len(), next.is_some()), (1, true));
        let (batch, next) = batch_of(next.unwrap(), &mut receiver);
        assert_eq!((batch.len(), next.is_none()), (1, true));
    }
}
