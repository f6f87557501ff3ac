//! A connection for many callers at once: what they send at the same time meets in one write.
//!
//! Callers put their requests behind each other into one buffer. A task of its own writes it, lets those run
//! first that are about to add more, and cuts what comes in into the answers of each request.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::ReadBuf;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::DropGuard;

use super::places::Room;
use super::scan::FrameScanner;
use super::wire::{NO_ANSWER, NOT_ASKED_FOR, Socket};

/// A connection that is shared. It is closed when this is dropped.
pub(crate) struct SharedWire {
    shared: Arc<Shared>,
}

impl Drop for SharedWire {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.task.wake();
    }
}

/// What callers and the task share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    task: AtomicWaker,
}

#[derive(Default)]
struct State {
    /// Bytes of requests that no write has begun with.
    outgoing: Vec<u8>,
    /// Those who wait for the answers to these requests, in their order.
    callers: Vec<Caller>,
    /// Nothing is sent any more.
    is_over: bool,
}

/// Who waits for the answers to one request.
struct Caller {
    answers: usize,
    sender: oneshot::Sender<io::Result<Vec<u8>>>,
    /// Kept when the caller has gone: what it has sent is still there.
    _room: Option<Room>,
}

/// The answers to one request, as the bytes that came. If it is dropped, the request may or may not be
/// carried out.
pub(crate) type Answers = oneshot::Receiver<io::Result<Vec<u8>>>;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedWire {
    /// Takes over a connection on which nothing is outstanding. The guard is dropped when the connection
    /// cannot be used any more.
    #[expect(clippy::disallowed_methods, reason = "it ends with the connection")]
    pub(super) fn start(socket: Box<dyn Socket>, guard: DropGuard) -> Self {
        let shared = Arc::<Shared>::default();
        let exchange = Exchange {
            socket,
            shared: Arc::clone(&shared),
            writing: Vec::new(),
            written: 0,
            has_yielded: false,
            callers: VecDeque::new(),
            incoming: Incoming::default(),
            silence: Silence::new(),
            _guard: guard,
        };
        tokio::spawn(exchange.run());
        Self { shared }
    }

    /// Sends a request that gets so many answers, behind those that were sent before, and keeps this room
    /// until they have come. `None` if the connection cannot be used any more: then nothing is sent.
    pub(crate) fn send(
        &self,
        answers: usize,
        room: Option<Room>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Answers> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.shared.lock();
        if state.is_over {
            return None;
        }
        // Otherwise the task has been woken for what is there, and has not taken it yet.
        let is_first = state.callers.is_empty();
        write(&mut state.outgoing);
        state.callers.push(Caller { answers, sender, _room: room });
        drop(state);
        if is_first {
            self.shared.task.wake();
        }
        Some(receiver)
    }
}

/// The task of one connection.
struct Exchange {
    socket: Box<dyn Socket>,
    shared: Arc<Shared>,
    /// What is being written, and how much of it was.
    writing: Vec<u8>,
    written: usize,
    /// The others have had their turn before the next write begins.
    has_yielded: bool,
    /// Those whose requests are being written or were, in the order of their answers.
    callers: VecDeque<Caller>,
    incoming: Incoming,
    silence: Silence,
    _guard: DropGuard,
}

impl Exchange {
    async fn run(mut self) {
        let Err(error) = poll_fn(|context| self.poll(context)).await else { return };
        self.shared.lock().is_over = true;
        let unsent = mem::take(&mut self.shared.lock().callers);
        for caller in self.callers.drain(..).chain(unsent) {
            let same = io::Error::new(error.kind(), error.to_string());
            let _gone = caller.sender.send(Err(same)).is_err();
        }
    }

    /// Receives and sends as much as is possible now. Ready when the connection is over: without an error
    /// if it is not needed any more.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.task.register(context.waker());
        if self.shared.lock().is_over {
            return Poll::Ready(Ok(()));
        }
        while let Poll::Ready(received) = self.incoming.poll(self.socket.as_mut(), context) {
            received?;
            self.silence.end();
            self.incoming.answer(&mut self.callers)?;
        }
        while self.written < self.writing.len() || self.take_requests(context) {
            let rest = self.writing.get(self.written..).unwrap_or_default();
            match Pin::new(&mut *self.socket).poll_write(context, rest)? {
                Poll::Pending => break,
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => {
                    self.silence.end();
                    self.written += written;
                }
            }
        }
        match self.callers.is_empty() {
            true => Poll::Pending,
            false => self.silence.poll(context).map(Err),
        }
    }

    /// Takes what callers have put together, once those had their turn that run now: false if there is
    /// nothing to write yet.
    fn take_requests(&mut self, context: &mut Context<'_>) -> bool {
        self.written = 0;
        self.writing.clear();
        if self.writing.capacity() > KEPT_BYTES_MAX {
            self.writing = Vec::new();
        }
        let mut state = self.shared.lock();
        if state.callers.is_empty() {
            self.has_yielded = false;
            return false;
        }
        if !self.has_yielded {
            drop(state);
            self.has_yielded = true;
            // It wakes this task after the others.
            let _later = pin!(yield_now()).poll(context);
            return false;
        }
        if self.callers.is_empty() {
            // Nothing was expected until now.
            self.silence.end();
        }
        mem::swap(&mut self.writing, &mut state.outgoing);
        self.callers.extend(state.callers.drain(..));
        self.has_yielded = false;
        true
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        let callers = mem::take(&mut state.callers);
        drop(state);
        // Wakes them.
        drop(callers);
    }
}

/// How long nothing has moved on the connection. Callers have deadlines of their own; where each gives up
/// before its own, a connection that is dead is noticed here.
struct Silence {
    since: Instant,
    end: Pin<Box<Sleep>>,
}

impl Silence {
    fn new() -> Self {
        Self { since: Instant::now(), end: Box::pin(sleep(SILENCE_MAX)) }
    }

    /// Something has moved.
    fn end(&mut self) {
        self.since = Instant::now();
    }

    /// Ready when it was too long.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        while self.end.as_mut().poll(context).is_ready() {
            if self.since.elapsed() >= SILENCE_MAX {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.end.as_mut().reset(self.since + SILENCE_MAX);
        }
        Poll::Pending
    }
}

/// What came in and is not cut into answers yet.
#[derive(Default)]
struct Incoming {
    /// All of it is initialised; what came are the first `filled` bytes.
    buffer: Vec<u8>,
    filled: usize,
    /// Looks for the end of the next answers.
    scanner: Option<FrameScanner>,
}

impl Incoming {
    /// Receives some bytes.
    fn poll(&mut self, socket: &mut dyn Socket, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.len() - self.filled < FREE_BYTES_MIN {
            self.buffer.resize((self.filled * 2).max(READ_BYTES), 0);
        }
        let mut free = ReadBuf::new(self.buffer.get_mut(self.filled..).unwrap_or_default());
        ready!(Pin::new(socket).poll_read(context, &mut free))?;
        match free.filled().len() {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            received => {
                self.filled += received;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Gives callers the answers that are complete.
    fn answer(&mut self, callers: &mut VecDeque<Caller>) -> io::Result<()> {
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
        let mut bytes = self.buffer.get(..self.filled).unwrap_or_default();
        while !bytes.is_empty() {
            let Some(caller) = callers.front() else { return Err(invalid(NOT_ASKED_FOR)) };
            let scanner = self.scanner.get_or_insert_with(|| FrameScanner::of(caller.answers));
            let Some(end) = scanner.end(bytes).map_err(|_| invalid(NO_ANSWER))? else { break };
            self.scanner = None;
            let (answers, rest) = bytes.split_at(end);
            bytes = rest;
            if let Some(caller) = callers.pop_front() {
                let _gone = caller.sender.send(Ok(answers.to_vec())).is_err();
            }
        }
        let rest = bytes.len();
        self.buffer.copy_within(self.filled - rest..self.filled, 0);
        self.filled = rest;
        if rest == 0 && self.buffer.len() > KEPT_BYTES_MAX {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}

/// Longer than what a socket buffers takes over the slowest link on which requests still arrive in time.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The space for one read at first; it doubles while an answer is larger.
const READ_BYTES: usize = 16 * 1024;
/// With less free space than this, the buffer grows.
const FREE_BYTES_MIN: usize = 4 * 1024;
/// Larger buffers are given back when they are empty.
const KEPT_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::sync::Semaphore;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn wire() -> (SharedWire, DuplexStream, CancellationToken) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let closed = CancellationToken::new();
        (SharedWire::start(Box::new(near), closed.clone().drop_guard()), far, closed)
    }

    fn ask(wire: &SharedWire, text: &str, answers: usize) -> Answers {
        wire.send(answers, None, |out| out.extend_from_slice(text.as_bytes())).unwrap()
    }

    async fn heard(far: &mut DuplexStream, text: &str) {
        let mut asked = vec![0; text.len()];
        far.read_exact(&mut asked).await.unwrap();
        assert_eq!(asked, text.as_bytes());
    }

    #[tokio::test]
    async fn requests_of_one_moment_go_in_one_write_and_each_gets_its_answers() {
        let (wire, mut far, _closed) = wire();
        let (one, two) = (ask(&wire, "a", 1), ask(&wire, "bc", 2));
        let mut asked = [0; 16];
        let read = async { far.read(&mut asked).await.unwrap() };
        // The task of the connection runs first, and lets this one send more.
        let send = async {
            tokio::task::yield_now().await;
            (ask(&wire, "d", 1),)
        };
        let (count, (three,)) = tokio::join!(read, send);
        assert_eq!(&asked[..count], b"abcd");
        for piece in [b":1\r".as_slice(), b"\n$1\r\nx\r\n*1\r\n", b":3\r\n+OK\r\n"] {
            far.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(one.await.unwrap().unwrap(), b":1\r\n");
        assert_eq!(two.await.unwrap().unwrap(), b"$1\r\nx\r\n*1\r\n:3\r\n");
        assert_eq!(three.await.unwrap().unwrap(), b"+OK\r\n");
    }

    #[tokio::test]
    async fn the_answer_to_a_caller_that_is_gone_is_not_anothers() {
        let (wire, mut far, _closed) = wire();
        drop(ask(&wire, "a", 1));
        let two = ask(&wire, "b", 1);
        heard(&mut far, "ab").await;
        far.write_all(b":1\r\n:2\r\n").await.unwrap();
        assert_eq!(two.await.unwrap().unwrap(), b":2\r\n");
    }

    #[tokio::test]
    async fn what_a_caller_has_sent_takes_up_room_until_its_answer() {
        let (wire, mut far, _closed) = wire();
        let places = Arc::new(Semaphore::new(1));
        let room = Arc::clone(&places).try_acquire_owned().ok();
        drop(wire.send(1, room, |out| out.extend_from_slice(b"a")));
        let next = ask(&wire, "b", 1);
        heard(&mut far, "ab").await;
        assert_eq!(places.available_permits(), 0, "its caller has gone");
        far.write_all(b":1\r\n:2\r\n").await.unwrap();
        assert_eq!(next.await.unwrap().unwrap(), b":2\r\n");
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_moves_is_given_up_and_an_idle_one_is_not() {
        let (wire, mut far, closed) = wire();
        tokio::time::sleep(10 * SILENCE_MAX).await;
        let answered = ask(&wire, "a", 1);
        heard(&mut far, "a").await;
        far.write_all(b":1\r\n").await.unwrap();
        assert_eq!(answered.await.unwrap().unwrap(), b":1\r\n");
        tokio::time::sleep(SILENCE_MAX / 2).await;
        drop(ask(&wire, "b", 1));
        let begun = Instant::now();
        closed.cancelled().await;
        assert_eq!(begun.elapsed().as_secs(), SILENCE_MAX.as_secs());
    }

    #[tokio::test]
    async fn a_large_answer_comes_whole_and_its_buffer_is_given_back() {
        let (wire, mut far, _closed) = wire();
        let (large, small) = (ask(&wire, "a", 1), ask(&wire, "b", 1));
        heard(&mut far, "ab").await;
        let length = 3 * KEPT_BYTES_MAX;
        let mut answer = format!("${length}\r\n").into_bytes();
        answer.extend(vec![b'x'; length]);
        answer.extend_from_slice(b"\r\n:1\r\n");
        far.write_all(&answer).await.unwrap();
        assert_eq!(large.await.unwrap().unwrap(), answer[..answer.len() - 4]);
        assert_eq!(small.await.unwrap().unwrap(), b":1\r\n");
    }

    #[tokio::test]
    async fn a_large_request_is_sent_whole_while_answers_come() {
        let (wire, mut far, _closed) = wire();
        let text = "y".repeat(5 * KEPT_BYTES_MAX);
        let (large, small) = (ask(&wire, &text, 1), ask(&wire, "z", 1));
        let mut asked = vec![0; text.len() + 1];
        far.read_exact(&mut asked[..1000]).await.unwrap();
        far.read_exact(&mut asked[1000..]).await.unwrap();
        assert!(asked.iter().take(text.len()).all(|byte| *byte == b'y') && asked.ends_with(b"z"));
        far.write_all(b":1\r\n:2\r\n").await.unwrap();
        assert_eq!(large.await.unwrap().unwrap(), b":1\r\n");
        assert_eq!(small.await.unwrap().unwrap(), b":2\r\n");
    }

    #[tokio::test]
    async fn a_broken_connection_fails_all_and_takes_no_more() {
        let (wire, mut far, closed) = wire();
        let (one, two) = (ask(&wire, "a", 1), ask(&wire, "b", 1));
        heard(&mut far, "ab").await;
        far.write_all(b":1\r\n").await.unwrap();
        assert_eq!(one.await.unwrap().unwrap(), b":1\r\n");
        drop(far);
        assert!(two.await.unwrap().is_err());
        closed.cancelled().await;
        assert!(wire.send(1, None, |_| ()).is_none());
    }

    #[tokio::test]
    async fn what_is_no_answer_breaks_the_connection() {
        for bytes in [b"HTTP/1.1 400\r\n".as_slice(), b":1\r\n:2\r\n"] {
            let (wire, mut far, closed) = wire();
            let _answers = ask(&wire, "a", 1);
            heard(&mut far, "a").await;
            far.write_all(bytes).await.unwrap();
            closed.cancelled().await;
            assert!(wire.send(1, None, |_| ()).is_none());
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_dropped_is_closed() {
        let (wire, mut far, closed) = wire();
        let answer = ask(&wire, "a", 1);
        heard(&mut far, "a").await;
        far.write_all(b":1\r\n").await.unwrap();
        assert_eq!(answer.await.unwrap().unwrap(), b":1\r\n");
        assert!(!closed.is_cancelled());
        // More than the other side takes in: it would never be written.
        drop(ask(&wire, &"y".repeat(5 * KEPT_BYTES_MAX), 1));
        yield_now().await;
        drop(wire);
        closed.cancelled().await;
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
    }
}
