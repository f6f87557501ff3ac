//! Decides what happens to bytes on their way through the proxy; it moves none itself.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::wire::{Protocol, Wire};

/// What a [`FaultProxy`](super::FaultProxy) does with the bytes that pass through it.
///
/// Requests are what clients send, replies are what the server sends. A mode that loses or cuts one
/// reply also closes its link, and is over then: the proxy passes everything again.
///
/// A text identifies a request by words that it contains: a command of Redis, in whose first 16 kB
/// it is searched, or a statement that Postgres is to execute, whether the client sends it now or
/// has prepared it before. `COMMIT` and `BEGIN` are statements too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Everything goes through.
    #[default]
    Pass,
    /// Requests go through and are carried out, but replies vanish; links stay open.
    DropReplies,
    /// The next reply is lost and its link is closed: the request was carried out, but not
    /// confirmed.
    LoseReply,
    /// Like [`LoseReply`](Self::LoseReply), for the reply that follows the next request that
    /// contains this text.
    LoseReplyTo(String),
    /// Requests that contain this text are held before the server gets them, and so is everything
    /// that follows on their links. They continue when the mode changes, even if the client is gone
    /// by then, but never if the link is [severed](super::FaultProxy::sever).
    HoldRequest(String),
    /// Requests that contain this text go through and are carried out. The server's answer is held,
    /// and so is everything that follows on their links, until the mode changes.
    HoldReplyTo(String),
    /// After this many more bytes of replies the link is closed, in the middle of a reply if that
    /// is where the bytes end. The common mode counts over all links; the mode of one connection
    /// counts only that connection.
    CutReplies {
        /// How many bytes still go through.
        after: usize,
    },
    /// Links stay open, new ones too, and nothing moves in either direction. Bytes that arrived
    /// meanwhile continue when the mode changes, as after a partition has healed.
    BlackHole,
    /// New connections are closed at once; existing links are left alone.
    Refuse,
    /// All bytes are delayed by this much, in each direction.
    Delay(Duration),
    /// All links together move this many bytes per second in each direction.
    Limit(u32),
}

/// The direction in which bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    Request,
    Reply,
}

/// What happens to a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Refused,
    /// It is linked to the server, with a mode of its own if one was set.
    Linked(Option<Mode>),
}

/// What happens to a chunk of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Drop,
    /// This many of its bytes pass, then the link is closed.
    Cut(usize),
}

/// A chunk of bytes on its way.
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    pub(super) direction: Direction,
    pub(super) length: usize,
    /// The requests that the server carries out once it has this chunk.
    pub(super) requests: Vec<Cow<'a, [u8]>>,
}

impl Chunk<'_> {
    /// Whether it has a request that contains `text`.
    fn asks(&self, text: &str) -> bool {
        let occurs = |request: &Cow<'_, [u8]>| contains(request, text.as_bytes());
        !text.is_empty() && self.requests.iter().any(occurs)
    }
}

/// The state that decides about bytes.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The common mode.
    pub(super) mode: Mode,
    /// How many of the next connections get a mode of their own, and which.
    pub(super) next: (usize, Mode),
    pub(super) links: HashMap<u64, Link>,
    pub(super) last_link: u64,
    pub(super) connections: usize,
    pub(super) faults: usize,
    /// How many chunks wait until the mode changes.
    pub(super) held: usize,
    pub(super) closed: bool,
    /// For each direction, until when the line is in use; and when the last chunk of each link has
    /// passed through it.
    line: HashMap<Direction, Instant>,
    due: HashMap<(u64, Direction), Instant>,
}

/// One client joined to the server.
#[derive(Debug)]
pub(super) struct Link {
    /// Its own mode, if it does not follow the common one.
    pub(super) own: Option<Mode>,
    /// Whether its next reply will be lost, because the request for that reply has passed.
    doomed: bool,
    /// Whether its replies are held while the mode holds replies.
    late: bool,
    /// Whether it belongs to a Sentinel, which watches the server through the proxy: no fault
    /// applies to it.
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

    /// Makes it follow the common mode from now on.
    pub(super) fn conform(&mut self) {
        self.own = None;
        self.late = false;
    }

    /// Closes both ends, which ends the threads that read from them.
    pub(super) fn close(&self) {
        // Either end may have closed before.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

impl State {
    /// Counts an incoming connection and decides whether to accept it.
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

    /// Reads bytes that have arrived. Each chunk must be passed once, in order.
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

    /// Decides about a chunk that has been held for `held`. An error says how much longer to hold
    /// it before asking again; `None` means without a limit.
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
    /// Passes a chunk as soon as the line has transferred it, after the chunks that came before.
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

/// The beginning of the name that a Sentinel gives each of its connections as soon as it is open.
const SENTINEL_NAME: &[u8] = b"\r\nsentinel-";

impl Mode {
    fn loses_reply_to(&self, chunk: &Chunk<'_>) -> bool {
        matches!(self, Self::LoseReplyTo(text) if chunk.asks(text))
    }
}
