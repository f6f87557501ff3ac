//! The bytes that come in over a shared connection, cut into the answers for the callers that wait.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use smallvec::SmallVec;
use tokio::io::ReadBuf;
use tokio::sync::oneshot;

use super::places::{Allowance, Room};
use super::scan::FrameScanner;
use super::wire::{NO_ANSWER, NOT_ASKED_FOR, Socket};

/// A caller that waits for the answers to one request.
pub(super) struct Caller {
    answers: usize,
    /// `None` once the caller was told that the answers take too long.
    sender: Option<oneshot::Sender<io::Result<AnswerBytes>>>,
    pub(super) allowance: Allowance,
    /// Kept after the caller is gone, because its request is still on the connection.
    _room: Option<Room>,
}

impl Caller {
    /// A caller that waits for this many answers, and where it receives them.
    pub(super) fn new(answers: usize, allowance: Allowance, room: Option<Room>) -> (Self, Answers) {
        let (sender, receiver) = oneshot::channel();
        (Self { answers, sender: Some(sender), allowance, _room: room }, receiver)
    }

    pub(super) fn tell(&mut self, answers: io::Result<AnswerBytes>) {
        if let Some(sender) = self.sender.take() {
            let _gone = sender.send(answers).is_err();
        }
    }
}

/// The bytes of answers. The id of a new entry fits in place, without an allocation that another thread
/// would have to free.
pub(crate) type AnswerBytes = SmallVec<[u8; 32]>;

/// The answers to one request, as the bytes that arrived. If it is dropped, the request may or may not
/// be carried out.
pub(crate) type Answers = oneshot::Receiver<io::Result<AnswerBytes>>;

/// Bytes that came in and are not cut into answers yet.
#[derive(Default)]
pub(super) struct Incoming {
    /// All of it is initialised; the first `filled` bytes have been received.
    buffer: Vec<u8>,
    filled: usize,
    /// Finds the end of the next answers.
    scanner: Option<FrameScanner>,
}

impl Incoming {
    /// Receives some bytes.
    pub(super) fn poll(
        &mut self,
        socket: &mut dyn Socket,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
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

    /// Takes the answers that are complete, each with the caller that waits for it.
    pub(super) fn cut(
        &mut self,
        callers: &mut VecDeque<Caller>,
        complete: &mut Vec<(Caller, AnswerBytes)>,
    ) -> io::Result<()> {
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
                complete.push((caller, AnswerBytes::from_slice(answers)));
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

/// The space for one read at first; it doubles while an answer is larger than the space.
const READ_BYTES: usize = 16 * 1024;
/// With less free space than this, the buffer grows.
const FREE_BYTES_MIN: usize = 4 * 1024;
/// Larger buffers are freed when they are empty.
pub(super) const KEPT_BYTES_MAX: usize = 256 * 1024;
