//! Why looking at a stream, or working on it, failed.

use thiserror::Error;

use crate::model::cause::BoxError;
use crate::model::entry::EntryId;
use crate::model::event::DecodeError;
use crate::model::name::NameError;
use crate::store::admin::Obstacle;

/// Why looking at a stream, or working on it, failed. Nothing was changed, unless
/// [`is_unconfirmed`](Self::is_unconfirmed) says otherwise.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is no such stream.
    #[error("there is no stream {stream}")]
    Missing {
        /// The stream.
        stream: String,
    },
    /// There is no such group.
    #[error("stream {stream} has no group {group}")]
    GroupMissing {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
    },
    /// It would lose work, and was not told that it may.
    #[error("refused on stream {stream}: group {group} has {what}")]
    Unfinished {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// What there is, in words.
        what: String,
    },
    /// A process works for the group.
    #[error(
        "refused on stream {stream}: consumer {consumer} of group {group} is alive and would make \
         the group again; stop it first"
    )]
    Alive {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The process' consumer.
        consumer: String,
    },
    /// An entry is not the event that was asked for.
    #[error("entry {entry_id} of stream {stream} cannot be read")]
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
    #[error("cannot {action} stream {stream}")]
    Server {
        /// What was to be done.
        action: &'static str,
        /// The stream.
        stream: String,
        /// Whether it may have been done all the same.
        unconfirmed: bool,
        /// What the server or the connection said.
        #[source]
        source: BoxError,
    },
}

impl StreamError {
    /// Whether what was to be done may have been done all the same: the answer was lost.
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
                    (retrying, "jobs set aside"),
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
    fn a_refusal_names_all_that_is_left() {
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
