//! One error type for each operation.

use thiserror::Error;

pub use crate::model::cause::BoxError;
use crate::model::event::EncodeError;
use crate::model::name::{ConsumerName, EventId, NameError};

/// Why [`Client::connect`](crate::Client::connect) failed. No text ever holds the password.
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
    #[error("cannot connect to {server}")]
    Server {
        /// Host and port, or the socket's path.
        server: String,
        /// What the connection said.
        #[source]
        source: BoxError,
    },
}

/// Why publishing failed: certainly not stored, or possibly stored.
///
/// [`PublishError::is_unconfirmed`] tells the two apart.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The stream's name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The payload could not be written. Nothing was sent.
    #[error("cannot publish {event_type} to {stream}")]
    Encode {
        /// The stream.
        stream: String,
        /// The event type.
        event_type: String,
        /// What the encoder said.
        #[source]
        source: EncodeError,
    },
    /// The payload is larger than the client allows. Nothing was sent.
    #[error(
        "cannot publish {event_type} to {stream}: {bytes} bytes are more than the allowed {bytes_max}"
    )]
    TooLarge {
        /// The stream.
        stream: String,
        /// The event type.
        event_type: String,
        /// The size of all its fields.
        bytes: usize,
        /// The client's cap.
        bytes_max: usize,
    },
    /// The server refused the event, or could not be reached. It is certainly not stored.
    #[error("event {event_id} was not stored in {stream}")]
    Rejected {
        /// The stream.
        stream: String,
        /// The id under which it may be published again.
        event_id: EventId,
        /// What the server or the connection said.
        #[source]
        source: BoxError,
    },
    /// The event was sent, but the answer was lost: it may be stored.
    ///
    /// Publishing it again with the same event id is safe for handlers that are guarded.
    #[error("event {event_id} may or may not be stored in {stream}")]
    Unconfirmed {
        /// The stream.
        stream: String,
        /// The id under which to publish again.
        event_id: EventId,
        /// What the connection said.
        #[source]
        source: BoxError,
    },
}

impl PublishError {
    /// Whether the event may be stored all the same.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        matches!(self, Self::Unconfirmed { .. })
    }

    /// The id of the event, to publish it again under the same one.
    #[must_use]
    pub fn event_id(&self) -> Option<&EventId> {
        match self {
            Self::Rejected { event_id, .. } | Self::Unconfirmed { event_id, .. } => Some(event_id),
            _ => None,
        }
    }
}

/// Why a runtime did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// Settings that cannot be used, or that contradict each other: all of them, one a line.
    #[error("the runtime's settings cannot be used:\n{}", lines(.0))]
    Settings(Vec<String>),
    /// Handlers that cannot run together: every reason, one a line.
    #[error("the handlers cannot be started:\n{}", lines(.0))]
    Handlers(Vec<String>),
    /// A service cannot run.
    #[error("cannot prepare the service {name}")]
    Service {
        /// Its name.
        name: &'static str,
        /// What it said.
        #[source]
        source: BoxError,
    },
    /// A group could not be prepared on the server.
    #[error("cannot prepare group {group} on stream {stream}")]
    Group {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// What the server said.
        #[source]
        source: BoxError,
    },
    /// The server could not be reached, or cannot be used.
    #[error("cannot start on this server")]
    Server(#[source] BoxError),
    /// The thread for the runtime's own input and output could not be started.
    #[error("cannot start the runtime's thread")]
    Thread(#[source] BoxError),
}

/// Why a running runtime was not changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The runtime has no handlers for the group.
    #[error("this runtime has no handlers for group {group:?}")]
    UnknownGroup {
        /// The group that was asked for.
        group: String,
    },
    /// No consumer of the runtime has the name.
    #[error("consumer {consumer} was not found in this runtime")]
    UnknownConsumer {
        /// The name that was asked for.
        consumer: ConsumerName,
    },
    /// The group could not be prepared on the server.
    #[error("cannot prepare group {group} on stream {stream}")]
    Group {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// What the server said.
        #[source]
        source: BoxError,
    },
    /// No name can be made for another consumer.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The shutdown has begun.
    #[error("the runtime is shutting down")]
    ShutDown,
}

/// Why work on dead letters failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// A name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No dead letter has this id.
    #[error("group {group} on stream {stream} has no dead letter {id}")]
    Unknown {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The id that was asked for.
        id: crate::model::entry::EntryId,
    },
    /// The dead letter cannot be run again: its payload was trimmed away, or it has more than 1,000
    /// fields.
    #[error(
        "dead letter {id} of group {group} on stream {stream} holds nothing that can be run again"
    )]
    NotRunnable {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The id that was asked for.
        id: crate::model::entry::EntryId,
    },
    /// What is to be put back has no fields, or more than 1,000: nothing can be run again.
    #[error("nothing can be run again for group {group} on stream {stream} under token {token:?}")]
    NothingToRun {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// The token under which the job was to be put back.
        token: String,
    },
    /// The group is not on the stream: nobody would run the job.
    #[error("there is no group {group} on stream {stream}")]
    UnknownGroup {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
    },
    /// The server could not be reached, or refused the request.
    #[error("cannot {action} the dead letters of group {group} on stream {stream}")]
    Server {
        /// What was to be done.
        action: &'static str,
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// What the server or the connection said.
        #[source]
        source: BoxError,
    },
}

/// Why a server could not be examined.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DoctorError {
    /// A name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The server could not be reached, or stopped answering.
    #[error("cannot examine the server")]
    Server(#[source] BoxError),
}

fn lines(faults: &[String]) -> String {
    faults.iter().map(|fault| format!("  - {fault}")).collect::<Vec<_>>().join("\n")
}
