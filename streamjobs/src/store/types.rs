//! What all traits of a store share: queues and their keys, fences, the server's clock, errors.

use std::io;

use thiserror::Error;

use crate::model::cause::BoxError;
pub use crate::model::entry::{Delivery, Hold, Inlet};
use crate::model::entry::{Entry, EntryId};
use crate::model::name::{EventId, GroupName, RedriveToken, StreamName};
use crate::model::trend::TrendRange;

/// What a step returns.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// One group on one stream, with the keys that belong to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Queue {
    /// The stream.
    pub stream: StreamName,
    /// The group.
    pub group: GroupName,
}

impl Queue {
    /// The stream key behind an inlet.
    #[must_use]
    pub fn key(&self, inlet: Inlet) -> String {
        if inlet.is_lane() {
            self.stream.lane_key(&self.group)
        } else {
            self.stream.as_str().to_owned()
        }
    }

    /// The stream keys of all inlets, in the order of [`Inlet::ALL`].
    #[must_use]
    pub fn keys(&self) -> [String; Inlet::ALL.len()] {
        Inlet::ALL.map(|inlet| self.key(inlet))
    }

    /// The stream key of the group's dead letters.
    #[must_use]
    pub fn dead_key(&self) -> String {
        self.stream.dead_key(&self.group)
    }

    pub(crate) fn retry_key(&self) -> String {
        self.stream.retry_key(&self.group)
    }

    pub(crate) fn retry_records_key(&self) -> String {
        self.stream.retry_records_key(&self.group)
    }

    /// The key of the hash that keeps what the group remembers.
    pub(crate) fn group_key(&self) -> String {
        self.stream.group_key(&self.group)
    }

    pub(crate) fn progress_key(&self) -> String {
        self.stream.progress_key(&self.group)
    }

    /// The key of the stream of notes of finished jobs.
    #[must_use]
    pub fn done_key(&self) -> String {
        self.stream.done_key(&self.group)
    }

    /// The key of the ring of what the group did, in the steps of a range.
    #[must_use]
    pub fn trend_key(&self, range: TrendRange) -> String {
        self.stream.trend_key(&self.group, range)
    }

    /// The keys of the group's limit: holds, busy, lines, line records, turns, shares.
    pub(crate) fn hold_keys(&self) -> [String; 6] {
        let (stream, group) = (&self.stream, &self.group);
        [
            stream.holds_key(group),
            stream.busy_key(group),
            stream.lines_key(group),
            stream.line_records_key(group),
            stream.turns_key(group),
            stream.shares_key(group),
        ]
    }

    /// The key of the hash that keeps up to when starts of the group's jobs are granted.
    pub(crate) fn rate_key(&self) -> String {
        self.stream.rate_key(&self.group)
    }

    pub(crate) fn mark_key(&self, key: &str) -> String {
        self.stream.once_key(&self.group, key)
    }

    pub(crate) fn result_key(&self, event_id: &EventId) -> String {
        self.stream.result_key(&self.group, event_id)
    }

    pub(crate) fn redriven_key(&self, token: &RedriveToken) -> String {
        self.stream.redriven_key(&self.group, token)
    }
}

/// What an owner-checked step found. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceResult {
    /// The attempt owns the entry; the step was carried out.
    Owned,
    /// Another attempt owns the entry; nothing was changed.
    TakenOver,
    /// The entry is not pending, and no consumer will get it: it was acknowledged, or another client
    /// removed it together with its consumer or with the key. Nothing was changed.
    NotPending,
    /// The entry is not pending, and it will be delivered again: the group's cursor is before it, after
    /// a failover or a reset. Nothing was changed.
    Undelivered,
    /// The attempt owned the entry, but the payload was trimmed. The entry is no longer pending; the
    /// dead letter with this id records that.
    Trimmed(EntryId),
}

/// Why an attempt may settle an entry that is not pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandIn {
    /// The payload was trimmed, and this dead letter stands for the entry until it is settled.
    DeadLetter(EntryId),
    /// Another client removed the entry from the pending list while the attempt had its lease. A repetition after a
    /// lost answer finds the retry that the first call stored; a dead letter may be stored twice.
    Removed,
}

/// The consumer for which entries are pending once they are released. If they are released for one process alone, a
/// colon and the name of that process follow. The stores give this consumer no heartbeat and do not list it.
pub(crate) const RELEASED: &str = "streamjobs-released";

/// For whom an owner's entries are released: the name of a process, or an empty text for any process. `None` if
/// they are not released.
pub(crate) fn released_for(owner: &str) -> Option<&str> {
    match owner.strip_prefix(RELEASED)? {
        "" => Some(""),
        name => name.strip_prefix(':'),
    }
}

/// The server's clock in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerTime(pub u64);

impl ServerTime {
    /// The last id before those of this time.
    pub(crate) fn before(self) -> EntryId {
        EntryId::new(self.0, 0).previous().unwrap_or(EntryId::ZERO)
    }
}

/// A dead letter as it is stored.
pub type StoredDeadLetter = Entry;

/// Why a step failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The stream or its group does not exist.
    #[error("the stream or its group does not exist")]
    GroupMissing,
    /// The server refused; nothing was changed.
    #[error("the server refused: {code} {text}")]
    Refused {
        /// The first word of the answer, such as `OOM` or `WRONGTYPE`.
        code: String,
        /// The rest of the answer, shortened and escaped.
        text: String,
    },
    /// There was no connection; nothing was changed.
    #[error("no connection to the server")]
    Unreachable(#[source] BoxError),
    /// The connection had no room for the request within its deadline, because other requests wait for their
    /// answers; nothing was changed.
    #[error("the request was not sent")]
    NotSent(#[source] BoxError),
    /// The request was sent and its answer was lost: the step may have been carried out.
    #[error("the server's answer was lost")]
    AnswerLost(#[source] BoxError),
    /// The answer could not be decoded.
    #[error("unexpected answer to {command}")]
    Protocol {
        /// The command or script.
        command: &'static str,
    },
}

impl StoreError {
    /// Whether the step may have been carried out.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        matches!(self, Self::AnswerLost(_) | Self::Protocol { .. })
    }

    /// Whether a repetition may succeed without a repair: the server cannot be reached, is starting, is changing
    /// its role, or is short of memory or disk.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::NotSent(_) | Self::AnswerLost(_) => true,
            Self::Refused { code, .. } => TRANSIENT.contains(&code.as_str()),
            Self::GroupMissing | Self::Protocol { .. } => false,
        }
    }

    /// Whether the server did not answer within the deadline.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::AnswerLost(cause) if is_timeout(cause))
    }

    /// The same error, for another caller that it concerns. The copy has the text of the cause, and still says whether
    /// it was a timeout.
    pub(crate) fn copy(&self) -> Self {
        let same = |cause: &BoxError| match is_timeout(cause) {
            true => io::Error::new(io::ErrorKind::TimedOut, cause.to_string()).into(),
            false => BoxError::from(cause.to_string()),
        };
        match self {
            Self::GroupMissing => Self::GroupMissing,
            Self::Refused { code, text } => {
                Self::Refused { code: code.clone(), text: text.clone() }
            }
            Self::Unreachable(cause) => Self::Unreachable(same(cause)),
            Self::NotSent(cause) => Self::NotSent(same(cause)),
            Self::AnswerLost(cause) => Self::AnswerLost(same(cause)),
            Self::Protocol { command } => Self::Protocol { command },
        }
    }

    /// The kind of error, as metrics and logs name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::GroupMissing => "group_missing",
            Self::Refused { .. } => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::NotSent(_) => "not_sent",
            Self::AnswerLost(_) => "answer_lost",
            Self::Protocol { .. } => "protocol",
        }
    }
}

fn is_timeout(cause: &BoxError) -> bool {
    let error = cause.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// Error codes of a server that is starting, changing its role, or short of memory or disk.
const TRANSIENT: [&str; 8] =
    ["BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY"];
