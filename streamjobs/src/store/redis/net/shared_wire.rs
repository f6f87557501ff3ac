//! A connection that many callers share: requests that they send at the same time go in one write.
//!
//! Callers append their requests to one buffer. The connection's own task writes the buffer, after it has let
//! tasks run that are about to add more, and cuts what arrives into the answers of each request. If answers take too
//! long, another task on the callers' own executor tells them, because the connection's task might not get to run.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use super::incoming::{AnswerBytes, Answers, Caller, Incoming, KEPT_BYTES_MAX};
use super::late_answers::LateAnswers;
use super::places::{Allowance, Room};
use super::wire::Socket;
use super::wire_state::{Shared, State};

/// A connection that callers share. It is closed when this is dropped.
pub(crate) struct SharedWire {
    shared: Arc<Shared>,
}

impl Drop for SharedWire {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.task.wake();
    }
}

impl SharedWire {
    /// Takes over a connection on which nothing is outstanding. The guard is dropped once the connection cannot
    /// be used any more.
    #[expect(clippy::disallowed_methods, reason = "it ends with the connection")]
    pub(super) fn start(socket: Box<dyn Socket>, guard: DropGuard) -> Self {
        let shared = Arc::new(Shared::new());
        let exchange = Exchange {
            socket,
            shared: Arc::clone(&shared),
            writing: Vec::new(),
            written: 0,
            has_yielded: false,
            incoming: Incoming::default(),
            answers: Vec::new(),
            _guard: guard,
        };
        tokio::spawn(exchange.run());
        Self { shared }
    }

    /// Sends a request that gets this many answers, after those that were sent before, and keeps this room until the
    /// answers have arrived. The caller is told if they take longer than allowed. `None` if the connection cannot be
    /// used any more; in that case nothing is sent.
    pub(super) fn send(
        &self,
        answers: usize,
        allowance: Allowance,
        room: Option<Room>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Answers> {
        let (caller, receiver) = Caller::new(answers, allowance, room);
        let mut state = self.shared.lock();
        if state.is_over {
            return None;
        }
        if !state.expects_answers() {
            // No answer was expected until now.
            state.moved = allowance.since();
        }
        // Otherwise the task has been woken for the earlier requests, and has not taken them yet.
        let is_first = state.unsent.is_empty();
        write(&mut state.outgoing);
        state.unsent.push(caller);
        // A check on another executor does not help this caller: that executor might not get to run.
        let unwatched = state.unwatched();
        drop(state);
        if is_first {
            self.shared.task.wake();
        }
        if let Some(executor) = unwatched {
            LateAnswers::look_for(&self.shared, &executor);
        }
        Some(receiver)
    }
}

/// The task of one connection.
struct Exchange {
    socket: Box<dyn Socket>,
    shared: Arc<Shared>,
    /// The bytes that are being written, and how many of them were.
    writing: Vec<u8>,
    written: usize,
    /// Whether the other tasks have had their turn before the next write.
    has_yielded: bool,
    incoming: Incoming,
    /// Answers that have arrived and are about to be given out: outside of the lock, because their callers run
    /// at once.
    answers: Vec<(Caller, AnswerBytes)>,
    _guard: DropGuard,
}

impl Exchange {
    async fn run(mut self) {
        let Err(error) = poll_fn(|context| self.poll(context)).await else { return };
        for mut caller in self.end() {
            caller.tell(Err(io::Error::new(error.kind(), error.to_string())));
        }
    }

    /// Takes no more requests. Returns the callers that wait for answers.
    fn end(&self) -> Vec<Caller> {
        let mut state = self.shared.lock();
        state.is_over = true;
        let State { sent, unsent, .. } = &mut *state;
        sent.drain(..).chain(unsent.drain(..)).collect()
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
            self.answer()?;
        }
        while self.written < self.writing.len() || self.take_requests(context) {
            let rest = self.writing.get(self.written..).unwrap_or_default();
            match Pin::new(&mut *self.socket).poll_write(context, rest)? {
                Poll::Pending => break,
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => {
                    self.shared.lock().moved = Instant::now();
                    self.written += written;
                }
            }
        }
        Poll::Pending
    }

    /// Gives callers the answers that have arrived.
    fn answer(&mut self) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.moved = Instant::now();
        let cut = self.incoming.cut(&mut state.sent, &mut self.answers);
        if !self.answers.is_empty() {
            state.answered = state.moved;
        }
        drop(state);
        for (mut caller, answers) in self.answers.drain(..) {
            caller.tell(Ok(answers));
        }
        cut
    }

    /// Takes the requests that callers have collected, once the tasks that are ready to run have had their
    /// turn. Returns false if there is nothing to write yet.
    fn take_requests(&mut self, context: &mut Context<'_>) -> bool {
        self.written = 0;
        self.writing.clear();
        if self.writing.capacity() > KEPT_BYTES_MAX {
            self.writing = Vec::new();
        }
        let mut state = self.shared.lock();
        if state.unsent.is_empty() {
            self.has_yielded = false;
            return false;
        }
        if !self.has_yielded {
            drop(state);
            self.has_yielded = true;
            // This wakes the task after the other tasks.
            context.waker().wake_by_ref();
            return false;
        }
        let State { outgoing, unsent, sent, .. } = &mut *state;
        mem::swap(&mut self.writing, outgoing);
        sent.extend(unsent.drain(..));
        self.has_yielded = false;
        true
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Wakes the callers that wait.
        drop(self.end());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::runtime::{Builder, Runtime};
    use tokio::sync::Semaphore;
    use tokio::sync::oneshot::error::TryRecvError;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::super::wire_state::SILENCE_MAX;
    use super::*;

    fn wire() -> (SharedWire, DuplexStream, CancellationToken) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let closed = CancellationToken::new();
        (SharedWire::start(Box::new(near), closed.clone().drop_guard()), far, closed)
    }

    fn ask(wire: &SharedWire, text: &str, answers: usize) -> Answers {
        wire.send(answers, Allowance::new(0), None, |out| out.extend_from_slice(text.as_bytes()))
            .unwrap()
    }

    async fn heard(far: &mut DuplexStream, text: &str) {
        let mut asked = vec![0; text.len()];
        far.read_exact(&mut asked).await.unwrap();
        assert_eq!(asked, text.as_bytes());
    }

    #[tokio::test]
    async fn requests_of_one_moment_go_in_one_write_and_each_gets_its_answers() {
        let (wire, mut far, _closed) = wire();
        let wire = Arc::new(wire);
        let (one, two) = (ask(&wire, "a", 1), ask(&wire, "bc", 2));
        // The task of the connection runs first, and lets this one send more.
        let (tasks, other) = (TaskTracker::new(), Arc::clone(&wire));
        let three = tasks.spawn(async move { (ask(&other, "d", 1),) });
        let mut asked = [0; 16];
        let count = far.read(&mut asked).await.unwrap();
        let (three,) = three.await.unwrap();
        assert_eq!(&asked[..count], b"abcd");
        for piece in [b":1\r".as_slice(), b"\n$1\r\nx\r\n*1\r\n", b":3\r\n+OK\r\n"] {
            far.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(one.await.unwrap().unwrap()[..], *b":1\r\n");
        assert_eq!(two.await.unwrap().unwrap()[..], *b"$1\r\nx\r\n*1\r\n:3\r\n");
        assert_eq!(three.await.unwrap().unwrap()[..], *b"+OK\r\n");
    }

    #[tokio::test]
    async fn the_answer_to_a_caller_that_is_gone_is_not_anothers() {
        let (wire, mut far, _closed) = wire();
        drop(ask(&wire, "a", 1));
        let two = ask(&wire, "b", 1);
        heard(&mut far, "ab").await;
        far.write_all(b":1\r\n:2\r\n").await.unwrap();
        assert_eq!(two.await.unwrap().unwrap()[..], *b":2\r\n");
    }

    #[tokio::test]
    async fn what_a_caller_has_sent_takes_up_room_until_its_answer() {
        let (wire, mut far, _closed) = wire();
        let places = Arc::new(Semaphore::new(1));
        let room = Arc::clone(&places).try_acquire_owned().ok();
        drop(wire.send(1, Allowance::new(0), room, |out| out.extend_from_slice(b"a")));
        let next = ask(&wire, "b", 1);
        heard(&mut far, "ab").await;
        assert_eq!(places.available_permits(), 0, "its caller has gone");
        far.write_all(b":1\r\n:2\r\n").await.unwrap();
        assert_eq!(next.await.unwrap().unwrap()[..], *b":2\r\n");
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_moves_is_given_up_and_an_idle_one_is_not() {
        let (wire, mut far, closed) = wire();
        tokio::time::sleep(10 * SILENCE_MAX).await;
        let answered = ask(&wire, "a", 1);
        heard(&mut far, "a").await;
        far.write_all(b":1\r\n").await.unwrap();
        assert_eq!(answered.await.unwrap().unwrap()[..], *b":1\r\n");
        tokio::time::sleep(SILENCE_MAX / 2).await;
        drop(ask(&wire, "b", 1));
        let begun = Instant::now();
        closed.cancelled().await;
        assert_eq!(begun.elapsed().as_secs(), SILENCE_MAX.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_given_up_and_its_answer_is_not_anothers() {
        let (wire, mut far, closed) = wire();
        let begun = Instant::now();
        let (late, large) = (ask(&wire, "a", 1), {
            let allowance = Allowance::new(1_000_000);
            wire.send(1, allowance, None, |out| out.push(b'b')).unwrap()
        });
        let error = late.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (io::ErrorKind::TimedOut, 3));
        let next = ask(&wire, "c", 1);
        heard(&mut far, "abc").await;
        far.write_all(b":1\r\n:2\r\n:3\r\n").await.unwrap();
        assert_eq!(large.await.unwrap().unwrap()[..], *b":2\r\n");
        assert_eq!(next.await.unwrap().unwrap()[..], *b":3\r\n");
        assert!(!closed.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn while_others_are_answered_a_request_has_more_time_but_not_without_end() {
        let (wire, mut far, _closed) = wire();
        let begun = Instant::now();
        let mut all = (0..10).map(|_| ask(&wire, "a", 1)).collect::<VecDeque<_>>();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            far.write_all(b":1\r\n").await.unwrap();
            let answered = all.pop_front().unwrap().await.unwrap().unwrap();
            assert_eq!(answered[..], *b":1\r\n");
        }
        for late in all {
            assert_eq!(late.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        assert_eq!(begun.elapsed().as_secs(), 12, "four times its deadline");
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_process_does_not_run_no_answer_takes_too_long() {
        let (wire, mut far, _closed) = wire();
        let mut asked = ask(&wire, "a", 1);
        heard(&mut far, "a").await;
        tokio::time::advance(Duration::from_secs(10)).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(asked.try_recv().is_err_and(|error| error == TryRecvError::Empty));
        far.write_all(b":1\r\n").await.unwrap();
        assert_eq!(asked.await.unwrap().unwrap()[..], *b":1\r\n");
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
        assert_eq!(large.await.unwrap().unwrap()[..], answer[..answer.len() - 4]);
        assert_eq!(small.await.unwrap().unwrap()[..], *b":1\r\n");
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
        assert_eq!(large.await.unwrap().unwrap()[..], *b":1\r\n");
        assert_eq!(small.await.unwrap().unwrap()[..], *b":2\r\n");
    }

    #[tokio::test]
    async fn a_broken_connection_fails_all_and_takes_no_more() {
        let (wire, mut far, closed) = wire();
        let (one, two) = (ask(&wire, "a", 1), ask(&wire, "b", 1));
        heard(&mut far, "ab").await;
        far.write_all(b":1\r\n").await.unwrap();
        assert_eq!(one.await.unwrap().unwrap()[..], *b":1\r\n");
        drop(far);
        assert!(two.await.unwrap().is_err());
        closed.cancelled().await;
        assert!(wire.send(1, Allowance::new(0), None, |_| ()).is_none());
    }

    #[tokio::test]
    async fn what_is_no_answer_breaks_the_connection() {
        for bytes in [b"HTTP/1.1 400\r\n".as_slice(), b":1\r\n:2\r\n"] {
            let (wire, mut far, closed) = wire();
            let _answers = ask(&wire, "a", 1);
            heard(&mut far, "a").await;
            far.write_all(bytes).await.unwrap();
            closed.cancelled().await;
            assert!(wire.send(1, Allowance::new(0), None, |_| ()).is_none());
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_dropped_is_closed() {
        let (wire, mut far, closed) = wire();
        let answer = ask(&wire, "a", 1);
        heard(&mut far, "a").await;
        far.write_all(b":1\r\n").await.unwrap();
        assert_eq!(answer.await.unwrap().unwrap()[..], *b":1\r\n");
        assert!(!closed.is_cancelled());
        // This request is larger than what the other side reads, so it would never be written.
        drop(ask(&wire, &"y".repeat(5 * KEPT_BYTES_MAX), 1));
        tokio::task::yield_now().await;
        drop(wire);
        closed.cancelled().await;
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
    }

    async fn is_given_up(answers: Answers) -> bool {
        answers.await.unwrap().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
    }

    fn executor() -> Runtime {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    #[test]
    fn a_caller_is_told_also_where_another_executor_is_watched_that_does_not_run() {
        let (first, second, third) = (executor(), executor(), executor());
        let (wire, _far, _closed) = first.block_on(async { wire() });
        let before = second.enter();
        let _unanswered = ask(&wire, "a", 1);
        drop(before);
        third.block_on(async {
            let told = is_given_up(ask(&wire, "b", 1));
            assert!(tokio::time::timeout(SILENCE_MAX, told).await.unwrap());
        });
    }

    #[test]
    fn callers_are_told_also_where_the_connections_task_does_not_get_to_run() {
        let (first, second) = (executor(), executor());
        let (wire, _far, _closed) = first.block_on(async { wire() });
        second.block_on(async {
            assert!(is_given_up(ask(&wire, "a", 1)).await);
            // The earlier callers are still there, and so is the task that checks for late answers.
            assert!(is_given_up(ask(&wire, "a", 1)).await);
        });
        drop(second);
        let third = executor();
        third.block_on(async { assert!(is_given_up(ask(&wire, "a", 1)).await) });
    }

    #[tokio::test(start_paused = true)]
    async fn callers_behind_a_write_that_does_not_end_are_told() {
        let (wire, _far, _closed) = wire();
        let large = ask(&wire, &"y".repeat(5 * KEPT_BYTES_MAX), 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let behind = ask(&wire, "b", 1);
        assert!(is_given_up(large).await && is_given_up(behind).await);
    }
}
