//! The error of operations on streams and groups.

use thiserror::Error;

use crate::model::cause::BoxError;
use crate::model::entry::EntryId;
use crate::model::event::DecodeError;
use crate::model::name::NameError;
use crate::model::refusal::explained;
use crate::store::admin::Obstacle;

/// Why an operation on a stream or a group failed. Nothing was changed, unless
/// [`is_unconfirmed`](Self::is_unconfirmed) is true.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The stream does not exist.
    #[error("there is no stream {stream}")]
    Missing {
        /// The stream.
        stream: String,
    },
    /// The group does not exist.
    #[error("stream {stream} has no group {group}")]
    GroupMissing {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
    },
    /// The operation would lose unfinished work.
    #[error("refused on stream {stream}: group {group} has {what}")]
    Unfinished {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The unfinished work.
        what: String,
    },
    /// A process serves the group.
    #[error(
        "refused on stream {stream}: consumer {consumer} of group {group} is alive and would \
         recreate the group; stop it first"
    )]
    Alive {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The process' consumer.
        consumer: String,
    },
    /// An entry cannot be decoded as the requested event.
    #[error("cannot decode entry {entry_id} of stream {stream}")]
    Decode {
        /// The stream.
        stream: String,
        /// The entry.
        entry_id: EntryId,
        /// What was expected; never what the payload holds.
        #[source]
        source: DecodeError,
    },
    /// The server could not be reached, or refused.
    #[error("cannot {action} stream {stream}: {}", explained(.source))]
    Server {
        /// The operation.
        action: &'static str,
        /// The stream.
        stream: String,
        /// Whether it may have taken effect.
        unconfirmed: bool,
        /// The error of the server or the connection.
        #[source]
        source: BoxError,
    },
}

impl StreamError {
    /// Whether the operation may have taken effect: its answer was lost.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        matches!(self, Self::Server { unconfirmed: true, .. })
    }

    pub(super) fn refused(stream: &str, obstacle: Obstacle) -> Self {
        let stream = stream.to_owned();
        match obstacle {
            Obstacle::Alive { group, consumer } => Self::Alive { stream, group, consumer },
            Obstacle::Unfinished { group, pending, undelivered, retrying, dead_letters } => {
                let counts = [
                    (pending, "pending entries"),
                    (retrying, "jobs waiting for retry"),
                    (dead_letters, "dead letters"),
                ];
                let counts = counts.into_iter().filter(|(count, _)| *count > 0);
                let counts = counts.map(|(count, what)| format!("{count} {what}"));
                let undelivered = undelivered.then(|| "undelivered entries".to_owned());
                let what = counts.chain(undelivered).collect::<Vec<_>>().join(", ");
                Self::Unfinished { stream, group, what }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_all_unfinished_work() {
        let obstacle = Obstacle::Unfinished {
            group: "mail".into(),
            pending: 2,
            undelivered: true,
            retrying: 0,
            dead_letters: 1,
        };
        assert_eq!(
            StreamError::refused("orders", obstacle).to_string(),
            "refused on stream orders: group mail has 2 pending entries, 1 dead letters, \
             undelivered entries"
        );
    }
}
