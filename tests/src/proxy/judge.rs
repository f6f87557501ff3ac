//! Decides what happens to bytes on their way through the proxy; moves none itself.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::wire::{Protocol, Wire};

/// What a [`FaultProxy`](super::FaultProxy) does with what comes through.
///
/// Requests are what clients send, replies are what the server sends. Those that lose or cut one
/// reply close its link and are over then: the proxy passes everything again.
///
/// A text names a request: words of a command of Redis, of which it is found in the first 16 kB, or
/// of a statement that Postgres is to carry out, whether the client sends it now or has had it
/// prepared before. `COMMIT` and `BEGIN` are statements too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// All of it goes through.
    #[default]
    Pass,
    /// Requests go through and are carried out, replies vanish; links stay open.
    DropReplies,
    /// The next reply is lost and its link closed: what was asked for has happened, unconfirmed.
    LoseReply,
    /// As [`LoseReply`](Self::LoseReply), for the reply that follows the next request in which
    /// this text occurs.
    LoseReplyTo(String),
    /// Requests in which this text occurs are held before the server gets them, and with them all
    /// that follows on their links. They go on their way when the mode changes, even if the client
    /// is gone by then, and never if the link is [severed](super::FaultProxy::sever).
    HoldRequest(String),
    /// Requests in which this text occurs go through and are carried out; what the server answers
    /// is held, and with it all that follows on their links, until the mode changes.
    HoldReplyTo(String),
    /// After this many more bytes of replies the link is closed, in the middle of a reply if they
    /// end there. The common mode counts over all links, that of one connection for itself.
    CutReplies {
        /// How many bytes still go through.
        after: usize,
    },
    /// Links stay open, new ones too, and nothing moves either way. What came in meanwhile goes
    /// on its way when the mode changes, as after a healed partition.
    BlackHole,
    /// New connections are closed at once; links that exist are left alone.
    Refuse,
    /// All that comes through is late by this much, each way.
    Delay(Duration),
    /// All links together move this many bytes a second, each way.
    Limit(u32),
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    Request,
    Reply,
}

/// What happens to a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Refused,
    /// It is linked to the server, with a mode of its own if any.
    Linked(Option<Mode>),
}

/// What happens to a chunk of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Drop,
    /// So many of its bytes pass, then the link is closed.
    Cut(usize),
}

/// A chunk of bytes on its way.
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    pub(super) direction: Direction,
    pub(super) length: usize,
    /// The requests that are carried out when the server has it.
    pub(super) requests: Vec<Cow<'a, [u8]>>,
}

impl Chunk<'_> {
    /// Whether it has a request in which `text` occurs.
    fn asks(&self, text: &str) -> bool {
        let occurs = |request: &Cow<'_, [u8]>| contains(request, text.as_bytes());
        !text.is_empty() && self.requests.iter().any(occurs)
    }
}

/// All that decides about bytes.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The common mode.
    pub(super) mode: Mode,
    /// How many of the connections to come have which mode of their own.
    pub(super) next: (usize, Mode),
    pub(super) links: HashMap<u64, Link>,
    pub(super) last_link: u64,
    pub(super) connections: usize,
    pub(super) faults: usize,
    /// How many chunks wait for another mode.
    pub(super) held: usize,
    pub(super) closed: bool,
    /// Until when the line is in use each way, and when which link's chunk has gone through it.
    line: HashMap<Direction, Instant>,
    due: HashMap<(u64, Direction), Instant>,
}

/// One client joined to the server.
#[derive(Debug)]
pub(super) struct Link {
    /// Its own mode, if it does not keep to the common one.
    pub(super) own: Option<Mode>,
    /// Whether its next reply is to be lost, the request for which has passed.
    doomed: bool,
    /// Whether its replies are to be held while the mode is to hold replies.
    late: bool,
    /// Whether it is a Sentinel's, which watches the server through the proxy: no fault is for it.
    pub(super) is_watch: bool,
    wire: Wire,
    client: TcpStream,
    server: TcpStream,
}

impl Link {
    pub(super) fn new(
        protocol: Protocol,
        own: Option<Mode>,
        client: TcpStream,
        server: TcpStream,
    ) -> Self {
        let (doomed, late, is_watch, wire) = (false, false, false, Wire::new(protocol));
        Self { own, doomed, late, is_watch, wire, client, server }
    }

    /// Makes it keep to the common mode from now on.
    pub(super) fn conform(&mut self) {
        self.own = None;
        self.late = false;
    }

    /// Closes both ends, which ends the threads that read them.
    pub(super) fn close(&self) {
        // Either end may have closed before.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

impl State {
    /// Counts a connection that comes in and says whether to take it.
    pub(super) fn admit(&mut self) -> Admission {
        self.connections += 1;
        let own = (self.next.0 > 0).then(|| {
            self.next.0 -= 1;
            self.next.1.clone()
        });
        if *own.as_ref().unwrap_or(&self.mode) == Mode::Refuse {
            self.faults += 1;
            return Admission::Refused;
        }
        Admission::Linked(own)
    }

    /// Reads bytes that have come. Each chunk must be shown once, in order.
    pub(super) fn read<'a>(&mut self, id: u64, direction: Direction, bytes: &'a [u8]) -> Chunk<'a> {
        let requests = match (direction, self.links.get_mut(&id)) {
            (Direction::Request, Some(link)) => {
                if !link.is_watch && contains(bytes, SENTINEL_NAME) {
                    link.is_watch = true;
                    self.connections -= 1;
                }
                link.wire.read(bytes)
            }
            _ => Vec::new(),
        };
        Chunk { direction, length: bytes.len(), requests }
    }

    /// Decides about a chunk that has been here for `held`; an error says how much longer to hold
    /// it before asking again, without an end if `None`.
    pub(super) fn judge(
        &mut self,
        id: u64,
        chunk: &Chunk<'_>,
        held: Duration,
    ) -> Result<Verdict, Option<Duration>> {
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(Verdict::Cut(0));
        };
        if link.is_watch {
            return Ok(Verdict::Pass);
        }
        let mode = link.own.as_mut().unwrap_or(&mut self.mode);
        if let Mode::Limit(rate) = *mode {
            return self.move_along(id, chunk, rate);
        }
        let verdict = match (mode, chunk.direction) {
            (_, Direction::Reply) if link.doomed => Verdict::Cut(0),
            (Mode::BlackHole, _) => return Err(None),
            (Mode::Delay(delay), _) if held < *delay => return Err(Some(*delay - held)),
            (Mode::HoldRequest(text), Direction::Request) if chunk.asks(text) => return Err(None),
            (Mode::HoldReplyTo(text), Direction::Request) if chunk.asks(text) => {
                link.late = true;
                Verdict::Pass
            }
            (Mode::HoldReplyTo(_), Direction::Reply) if link.late => return Err(None),
            (Mode::DropReplies, Direction::Reply) => Verdict::Drop,
            (mode @ Mode::LoseReply, Direction::Reply) => {
                *mode = Mode::Pass;
                Verdict::Cut(0)
            }
            (mode, Direction::Request) if mode.loses_reply_to(chunk) => {
                *mode = Mode::Pass;
                link.doomed = true;
                Verdict::Pass
            }
            (Mode::CutReplies { after }, Direction::Reply) if chunk.length < *after => {
                *after -= chunk.length;
                Verdict::Pass
            }
            (mode @ Mode::CutReplies { .. }, Direction::Reply) => {
                let Mode::CutReplies { after } = std::mem::take(mode) else {
                    return Err(None);
                };
                Verdict::Cut(after)
            }
            _ => Verdict::Pass,
        };
        self.faults += usize::from(verdict != Verdict::Pass);
        Ok(verdict)
    }
}

impl State {
    /// Passes a chunk as soon as the line has moved it, behind those that came before.
    fn move_along(
        &mut self,
        id: u64,
        chunk: &Chunk<'_>,
        rate: u32,
    ) -> Result<Verdict, Option<Duration>> {
        let (now, way) = (Instant::now(), chunk.direction);
        let due = *self.due.entry((id, way)).or_insert_with(|| {
            let free = self.line.get(&way).copied().unwrap_or(now).max(now);
            let due = free + Duration::from_secs_f64(chunk.length as f64 / f64::from(rate));
            self.line.insert(way, due);
            due
        });
        if now < due {
            return Err(Some(due - now));
        }
        self.due.remove(&(id, way));
        Ok(Verdict::Pass)
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// How the name begins that a Sentinel gives its connections, each as soon as it is open.
const SENTINEL_NAME: &[u8] = b"\r\nsentinel-";

impl Mode {
    fn loses_reply_to(&self, chunk: &Chunk<'_>) -> bool {
        matches!(self, Self::LoseReplyTo(text) if chunk.asks(text))
    }
}
