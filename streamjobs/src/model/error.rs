//! The error types, one for each operation.

use thiserror::Error;

pub use crate::model::cause::BoxError;
use crate::model::entry::{EntryAddress, EntryId};
use crate::model::event::EncodeError;
use crate::model::name::{ConsumerName, EventId, NameError};
use crate::model::partition::listed;
pub use crate::model::refusal::Refusal;
use crate::model::refusal::explained;
use crate::model::unique::UniqueFault;

/// Why [`Client::connect`](crate::Client::connect) failed. No message shows the password.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address cannot be used.
    #[error("invalid Redis address: {0}")]
    Address(String),
    /// A setting of the client cannot be used.
    #[error("invalid client setting: {0}")]
    Setting(String),
    /// The server could not be reached, or refused the connection.
    #[error("cannot connect to {server}: {}", explained(.source))]
    Server {
        /// Host and port, or the socket's path.
        server: String,
        /// The error of the connection.
        #[source]
        source: BoxError,
    },
}

impl ConnectError {
    /// Why the server refused, if it did for one of these reasons.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Server { source, .. } => Refusal::of(source.as_ref()),
            Self::Address(_) | Self::Setting(_) => None,
        }
    }
}

/// Why publishing failed. The event is certainly not stored, or its storage is unconfirmed:
/// [`PublishError::is_unconfirmed`] says which.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The stream's name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The payload could not be encoded. Nothing was sent.
    #[error("cannot publish {event_type} to {stream}")]
    Encode {
        /// The stream.
        stream: String,
        /// The event type.
        event_type: String,
        /// The error of the encoder.
        #[source]
        source: EncodeError,
    },
    /// The payload is larger than the client allows. Nothing was sent.
    #[error(
        "cannot publish {event_type} to {stream}: {bytes} bytes exceed the limit of {bytes_max}"
    )]
    TooLarge {
        /// The stream.
        stream: String,
        /// The event type.
        event_type: String,
        /// The size of all fields in bytes.
        bytes: usize,
        /// The client's limit in bytes.
        bytes_max: usize,
    },
    /// The time for which the event was to be scheduled is after the year 9999. Nothing was sent.
    #[error("cannot schedule event {event_id} for {stream}: the time is after the year 9999")]
    TooFarAhead {
        /// The stream.
        stream: String,
        /// The event id.
        event_id: EventId,
    },
    /// The event was to be scheduled or unique, and has more fields than a script can carry. Nothing was sent.
    #[error(
        "event {event_id} cannot wait or be unique in {stream}: {fields} fields exceed the limit of \
         {fields_max}"
    )]
    TooManyFields {
        /// The stream.
        stream: String,
        /// The event id.
        event_id: EventId,
        /// How many fields it has.
        fields: usize,
        /// The limit.
        fields_max: usize,
    },
    /// The event cannot be unique or debounced in this way. Nothing was sent.
    #[error("cannot publish {event_type} to {stream}")]
    Unique {
        /// The stream.
        stream: String,
        /// The event type.
        event_type: String,
        /// What is wrong.
        #[source]
        source: UniqueFault,
    },
    /// A function of [`ClientBuilder::on_publish`](crate::ClientBuilder::on_publish) refused the event. Nothing was
    /// sent.
    #[error("event {event_id} for {stream} was refused before it was sent")]
    Refused {
        /// The stream.
        stream: String,
        /// The event id.
        event_id: EventId,
        /// The error of the function.
        #[source]
        source: BoxError,
    },
    /// The server refused the event, or could not be reached. It is certainly not stored.
    #[error("event {event_id} was not stored in {stream}: {}", explained(.source))]
    Rejected {
        /// The stream.
        stream: String,
        /// The id under which it may be published again.
        event_id: EventId,
        /// The error of the server or the connection.
        #[source]
        source: BoxError,
    },
    /// Too many events were published at once, and this one did not get its turn within 5 seconds. It is certainly
    /// not stored, and the server may be healthy: publish it again, later or with fewer at once.
    #[error("event {event_id} was not sent to {stream}: {}", explained(.source))]
    Unsent {
        /// The stream.
        stream: String,
        /// The id under which it may be published again.
        event_id: EventId,
        /// What the event waited for.
        #[source]
        source: BoxError,
    },
    /// The event was sent, but the answer was lost: it may be stored.
    ///
    /// Publishing it again with the same event id is safe for guarded handlers.
    #[error("event {event_id} may or may not be stored in {stream}: {}", explained(.source))]
    Unconfirmed {
        /// The stream.
        stream: String,
        /// The id under which to publish again.
        event_id: EventId,
        /// The error of the connection.
        #[source]
        source: BoxError,
    },
}

impl PublishError {
    /// Whether the event may be stored despite the error.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        matches!(self, Self::Unconfirmed { .. })
    }

    /// Why the server refused, if it did for one of these reasons: no login, no right, no memory, or
    /// it is a replica.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Rejected { source, .. } | Self::Unconfirmed { source, .. } => {
                Refusal::of(source.as_ref())
            }
            _ => None,
        }
    }

    /// The event id, to publish the event again under the same id.
    #[must_use]
    pub fn event_id(&self) -> Option<&EventId> {
        match self {
            Self::Rejected { event_id, .. }
            | Self::Unsent { event_id, .. }
            | Self::Unconfirmed { event_id, .. } => Some(event_id),
            _ => None,
        }
    }
}

/// Why a runtime did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// Settings that are invalid or contradict each other: all of them, one per line.
    #[error("invalid runtime settings:\n{}", lines(.0))]
    Settings(Vec<String>),
    /// Handlers that cannot be started, alone or together: every reason, one per line.
    #[error("cannot start the handlers:\n{}", lines(.0))]
    Handlers(Vec<String>),
    /// Schedules that cannot be declared, alone or together: every reason, one per line.
    #[error("cannot declare the schedules:\n{}", lines(.0))]
    Schedules(Vec<String>),
    /// A service could not be prepared.
    #[error("cannot prepare service {name}")]
    Service {
        /// Its name.
        name: &'static str,
        /// The service's error.
        #[source]
        source: BoxError,
    },
    /// A group could not be prepared on the server.
    #[error("cannot prepare group {group} on stream {stream}: {}", explained(.source))]
    Group {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The error of the server or the connection.
        #[source]
        source: BoxError,
    },
    /// The server could not be reached, or cannot be used.
    #[error("cannot start on this server: {}", explained(.0))]
    Server(#[source] BoxError),
    /// The thread for the runtime's own I/O could not be started.
    #[error("cannot start the runtime's I/O thread")]
    Thread(#[source] BoxError),
}

impl StartError {
    /// Why the server refused, if it did for one of these reasons.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Group { source, .. } | Self::Server(source) => Refusal::of(source.as_ref()),
            _ => None,
        }
    }
}

/// Why a running runtime could not be changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The runtime has no handlers for the group.
    #[error("this runtime has no handlers for group {group:?}")]
    UnknownGroup {
        /// The requested group.
        group: String,
    },
    /// No consumer of this runtime has the name.
    #[error("this runtime has no consumer {consumer}")]
    UnknownConsumer {
        /// The requested name.
        consumer: ConsumerName,
    },
    /// The group could not be prepared on the server.
    #[error("cannot prepare group {group} on stream {stream}: {}", explained(.source))]
    Group {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The error of the server or the connection.
        #[source]
        source: BoxError,
    },
    /// No valid name could be made for another consumer.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The shutdown has begun.
    #[error("the runtime is shutting down")]
    ShutDown,
}

/// Why an operation on dead letters failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// A name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No dead letter has this id.
    #[error("group {group} on stream {stream} has no dead letter {id}")]
    Unknown {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The requested id.
        id: EntryAddress,
    },
    /// Several partitions have a dead letter with this id. Nothing was changed.
    #[error(
        "partitions {} of stream {stream} have a dead letter {id} of group {group}: name one, as in \
         {id}@{}",
        listed(.partitions), .partitions.first().copied().unwrap_or_default()
    )]
    Ambiguous {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The requested id.
        id: EntryId,
        /// The numbers of the partitions.
        partitions: Vec<u16>,
    },
    /// The address names a partition that the stream does not have, as far as this client knows.
    #[error("stream {stream} has no partition {partition}")]
    NoPartition {
        /// The stream.
        stream: String,
        /// The number.
        partition: u16,
    },
    /// The dead letter cannot be redriven: its payload was trimmed, or it has more than 1,000
    /// fields.
    #[error(
        "cannot redrive dead letter {id} of group {group} on stream {stream}: it has no payload, or too many fields"
    )]
    NotRunnable {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The requested id.
        id: EntryAddress,
    },
    /// The archived job cannot be redriven: it has no fields, or more than 1,000.
    #[error(
        "cannot redrive the archived job of token {token:?} for group {group} on stream {stream}: it has no payload, or too many fields"
    )]
    NothingToRun {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The token of the job.
        token: String,
    },
    /// The group does not exist, so that no process would run the job.
    #[error("there is no group {group} on stream {stream}")]
    UnknownGroup {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
    },
    /// The server could not be reached, or refused the request.
    #[error("cannot {action} the dead letters of group {group} on stream {stream}: {}", explained(.source))]
    Server {
        /// The operation.
        action: &'static str,
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The error of the server or the connection.
        #[source]
        source: BoxError,
    },
}

/// Why a server could not be examined.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DoctorError {
    /// A name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The server could not be reached, or stopped answering.
    #[error("cannot examine the server")]
    Server(#[source] BoxError),
}

fn lines(faults: &[String]) -> String {
    faults.iter().map(|fault| format!("  - {fault}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_found_in_each_error_that_has_one() {
        let source = || BoxError::from("the server refused: OOM command not allowed");
        let words = "the server is out of memory: the server refused: OOM command not allowed";
        let (stream, group) = (|| "orders".to_owned(), || "work".to_owned());
        let publish = PublishError::Rejected {
            stream: stream(),
            event_id: EventId::new("a").unwrap(),
            source: source(),
        };
        let text = format!("event a was not stored in orders: {words}");
        assert_eq!((publish.refusal(), publish.to_string()), (Some(Refusal::OutOfMemory), text));
        let start = StartError::Group { stream: stream(), group: group(), source: source() };
        let text = format!("cannot prepare group work on stream orders: {words}");
        assert_eq!((start.refusal(), start.to_string()), (Some(Refusal::OutOfMemory), text));
        let connect = ConnectError::Server { server: "h:1".to_owned(), source: source() };
        let text = format!("cannot connect to h:1: {words}");
        assert_eq!((connect.refusal(), connect.to_string()), (Some(Refusal::OutOfMemory), text));
        let unreachable = StartError::Server("no connection to the server".into());
        assert_eq!(unreachable.refusal(), None);
    }
}
