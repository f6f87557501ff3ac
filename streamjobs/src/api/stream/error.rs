//! The error of operations on streams and groups.

use thiserror::Error;

use crate::api::parts::read_all;
use crate::api::rows::PartError;
use crate::model::cause::BoxError;
use crate::model::entry::EntryAddress;
use crate::model::event::DecodeError;
use crate::model::name::{EventId, NameError, StreamName};
use crate::model::partition::listed;
use crate::model::rate::RateError;
use crate::model::refusal::explained;
use crate::store::admin::Obstacle;
use crate::store::{Queue, StoreError};

/// Why an operation on a stream or a group failed. Nothing was changed, unless
/// [`is_unconfirmed`](Self::is_unconfirmed) is true.
///
/// On a stream with partitions it is the error of one partition, and names that partition's stream. Other partitions
/// may have been changed.
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
    /// The address of a row names a partition that the stream does not have, as far as this client
    /// was told.
    #[error("stream {stream} has no partition {partition}")]
    NoPartition {
        /// The stream.
        stream: String,
        /// The number.
        partition: u16,
    },
    /// The server has more partitions than this client was told of.
    #[error(
        "refused: stream {stream} has {stored} partitions, and this client was told of {known}; set \
         {stored} with `partitions`, or use `partitions_as_stored`"
    )]
    MorePartitions {
        /// The stream.
        stream: String,
        /// How many the client was told of.
        known: u16,
        /// How many the server has.
        stored: u16,
    },
    /// Several partitions have something with this id. Nothing was changed.
    #[error(
        "partitions {} of stream {stream} have an id {id}: name one, as in {id}@{}",
        listed(.partitions), .partitions.first().copied().unwrap_or_default()
    )]
    Ambiguous {
        /// The stream.
        stream: String,
        /// The id.
        id: String,
        /// The numbers of the partitions.
        partitions: Vec<u16>,
    },
    /// The time for which an event was to be rescheduled is after the year 9999. Nothing was sent.
    #[error("cannot reschedule an event of stream {stream}: the time is after the year 9999")]
    TooFarAhead {
        /// The stream.
        stream: String,
    },
    /// The rate that was to be set cannot be kept. Nothing was sent.
    #[error("cannot set the rate of a group of stream {stream}: {fault}")]
    Rate {
        /// The stream.
        stream: String,
        /// What is wrong with it.
        fault: RateError,
    },
    /// The rate was to be set in one partition, and belongs to the whole stream. Nothing was sent.
    #[error("cannot set the rate of one partition of {stream}: a rate belongs to the whole stream")]
    RateOfPartition {
        /// The stream of the partition.
        stream: String,
    },
    /// No live process of the group has a limit whose number can be changed. Nothing was changed.
    #[error(
        "cannot set the limit of group {group} on stream {stream}: no live process says that its code has \
         concurrency_per_key or concurrency_total, and that it follows changes; or the one that started last has another \
         limit"
    )]
    NoLimit {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
    },
    /// Who changes a limit, and why, is missing or too long. Nothing was changed.
    #[error(
        "cannot set the limit of group {group} on stream {stream}: it needs a name of 1 to 200 bytes and a reason of 1 to \
         1,000 bytes"
    )]
    LimitReason {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
    },
    /// An entry cannot be decoded as the requested event.
    #[error("cannot decode entry {entry_id} of stream {stream}")]
    Decode {
        /// The stream.
        stream: String,
        /// The entry.
        entry_id: EntryAddress,
        /// What was expected; never what the payload holds.
        #[source]
        source: DecodeError,
    },
    /// The result of a job is not of the type that was asked for.
    #[error("cannot decode the result of event {event_id} in group {group} of stream {stream}")]
    DecodeResult {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The event.
        event_id: EventId,
        /// What was expected; never what the result holds.
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
        /// Whether the operation may have taken effect.
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

    /// Whether the same request may succeed soon.
    pub(super) fn is_transient(&self) -> bool {
        let Self::Server { source, .. } = self else { return false };
        source.downcast_ref().is_some_and(StoreError::is_transient)
    }

    /// Whether the server could not be reached, or its answer did not arrive: the same request may get an answer
    /// later. False if the server answered with a refusal, such as for a key of another type.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        let Self::Server { source, .. } = self else { return false };
        matches!(
            source.downcast_ref::<StoreError>(),
            Some(StoreError::Unreachable(_) | StoreError::NotSent(_) | StoreError::AnswerLost(_))
        )
    }

    /// Whether there is no such stream or group.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::GroupMissing { .. })
    }

    pub(in crate::api) fn server(
        stream: &StreamName,
        action: &'static str,
        error: StoreError,
    ) -> Self {
        let unconfirmed = error.is_unconfirmed();
        let stream = stream.to_string();
        Self::Server { action, stream, unconfirmed, source: error.into() }
    }

    /// The error of an operation on a group.
    pub(super) fn of_group(queue: &Queue, action: &'static str, error: StoreError) -> Self {
        match error {
            StoreError::GroupMissing => Self::GroupMissing {
                stream: queue.stream.to_string(),
                group: queue.group.to_string(),
            },
            error => Self::server(&queue.stream, action, error),
        }
    }

    pub(super) fn of_part(error: PartError, action: &'static str) -> Self {
        Self::server(&error.stream, action, error.source)
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

/// Reads the partitions that have the stream or the group: see [`present`].
pub(super) async fn read_present<T, F>(requests: Vec<F>) -> Result<Vec<T>, StreamError>
where
    F: Future<Output = Result<T, StreamError>>,
{
    let requests = requests.into_iter().map(async |request| match request.await {
        Err(error) if !error.is_absence() => Err(error),
        answer => Ok(answer),
    });
    present(read_all(requests.collect()).await?)
}

/// The answers of the partitions that have the stream or the group. A partition that no event has
/// reached yet does not exist, and so gives no answer.
///
/// # Errors
///
/// The first other error; or the error of the first partition, if no partition has the stream or
/// the group.
pub(super) fn present<T>(answers: Vec<Result<T, StreamError>>) -> Result<Vec<T>, StreamError> {
    let (mut present, mut absence) = (Vec::with_capacity(answers.len()), None);
    for answer in answers {
        match answer {
            Err(error) if error.is_absence() => absence = absence.or(Some(error)),
            answer => present.push(answer?),
        }
    }
    match absence.filter(|_| present.is_empty()) {
        Some(absence) => Err(absence),
        None => Ok(present),
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

    #[test]
    fn only_an_answer_that_did_not_arrive_is_unanswered() {
        let (name, cause) = (StreamName::new("orders").unwrap(), || BoxError::from("broken pipe"));
        let is_unanswered = |error| StreamError::server(&name, "read", error).is_unanswered();
        let lost = [
            StoreError::Unreachable(cause()),
            StoreError::NotSent(cause()),
            StoreError::AnswerLost(cause()),
        ];
        assert!(lost.into_iter().all(is_unanswered));
        let refused = StoreError::Refused { code: "WRONGTYPE".into(), text: "a string".into() };
        let answered = [refused, StoreError::Protocol { command: "XLEN" }];
        assert!(!answered.into_iter().any(is_unanswered));
        assert!(!StreamError::Missing { stream: "orders".into() }.is_unanswered());
    }
}
