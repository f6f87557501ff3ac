//! Decides what happens to bytes on their way through the proxy; moves none itself.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// What a [`FaultProxy`](super::FaultProxy) does with what comes through.
///
/// Requests are what clients send, replies are what the server sends. Those that lose or cut one
/// reply close its link and are over then: the proxy passes everything again.
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
    /// this text occurs, such as the name of a command. The request is found only if the text is
    /// within its first 16 kB.
    LoseReplyTo(String),
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
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    pub(super) closed: bool,
}

/// One client joined to the server.
#[derive(Debug)]
pub(super) struct Link {
    /// Its own mode, if it does not keep to the common one.
    pub(super) own: Option<Mode>,
    /// Whether its next reply is to be lost, the request for which has passed.
    doomed: bool,
    client: TcpStream,
    server: TcpStream,
}

impl Link {
    pub(super) fn new(own: Option<Mode>, client: TcpStream, server: TcpStream) -> Self {
        Self { own, doomed: false, client, server }
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

    /// Decides about a chunk that has been here for `held`; an error says how much longer to hold
    /// it before asking again, without an end if `None`.
    pub(super) fn judge(
        &mut self,
        id: u64,
        direction: Direction,
        chunk: &[u8],
        held: Duration,
    ) -> Result<Verdict, Option<Duration>> {
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(Verdict::Cut(0));
        };
        let mode = link.own.as_mut().unwrap_or(&mut self.mode);
        let verdict = match (mode, direction) {
            (_, Direction::Reply) if link.doomed => Verdict::Cut(0),
            (Mode::BlackHole, _) => return Err(None),
            (Mode::Delay(delay), _) if held < *delay => return Err(Some(*delay - held)),
            (Mode::DropReplies, Direction::Reply) => Verdict::Drop,
            (mode @ Mode::LoseReply, Direction::Reply) => {
                *mode = Mode::Pass;
                Verdict::Cut(0)
            }
            (mode @ Mode::LoseReplyTo(_), Direction::Request) if mode.concerns(chunk) => {
                *mode = Mode::Pass;
                link.doomed = true;
                Verdict::Pass
            }
            (Mode::CutReplies { after }, Direction::Reply) if chunk.len() < *after => {
                *after -= chunk.len();
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

impl Mode {
    /// Whether the request in `chunk` is the one whose reply is to be lost.
    fn concerns(&self, chunk: &[u8]) -> bool {
        let Self::LoseReplyTo(text) = self else {
            return false;
        };
        !text.is_empty() && chunk.windows(text.len()).any(|window| window == text.as_bytes())
    }
}
