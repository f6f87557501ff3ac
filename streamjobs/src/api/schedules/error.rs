//! The error of operations on schedules.

use thiserror::Error;

use crate::model::cause::BoxError;
use crate::model::name::{NameError, ScheduleName, StreamName};
use crate::model::refusal::explained;
use crate::model::schedule::ScheduleError;
use crate::store::StoreError;

/// Why an operation on the schedules of a stream failed. Nothing was changed, unless
/// [`is_unconfirmed`](Self::is_unconfirmed) is true.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SchedulesError {
    /// A name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The schedule cannot be used. Nothing was sent.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The schedule publishes to a stream other than the handle's. Nothing was sent.
    #[error("schedule {name} publishes to stream {target} and cannot be stored for {stream}")]
    OtherStream {
        /// The schedule.
        name: String,
        /// The stream to which it publishes.
        target: String,
        /// The stream of the handle.
        stream: String,
    },
    /// There is no such schedule.
    #[error("stream {stream} has no schedule {name}")]
    Missing {
        /// The stream.
        stream: String,
        /// The schedule.
        name: String,
    },
    /// The name belongs to a schedule that processes declare in their code.
    #[error("schedule {name} of stream {stream} is declared in code: pause it, or change the code")]
    DeclaredInCode {
        /// The stream.
        stream: String,
        /// The schedule.
        name: String,
    },
    /// A schedule of this name is in a partition other than that of the event's key, to which jobs of the key go.
    /// Nothing was stored.
    #[error(
        "schedule {name} of stream {stream} is in another partition than the key of its new event: remove the schedule first"
    )]
    OtherPartition {
        /// The stream.
        stream: String,
        /// The schedule.
        name: String,
    },
    /// What is stored cannot be read: another client or a newer version has written it.
    #[error("the definition of schedule {name} of stream {stream} cannot be read")]
    Unreadable {
        /// The stream.
        stream: String,
        /// The schedule.
        name: String,
    },
    /// Other clients changed the definition meanwhile. The call can be repeated.
    #[error("schedule {name} of stream {stream} was changed meanwhile")]
    Changed {
        /// The stream.
        stream: String,
        /// The schedule.
        name: String,
    },
    /// The stream has no room for another schedule: each of its partitions may have 5,000.
    #[error("cannot store schedule {name}: stream {stream} has too many schedules already")]
    TooMany {
        /// The stream.
        stream: String,
        /// The schedule.
        name: String,
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

impl SchedulesError {
    /// Whether the operation may have taken effect: its answer was lost.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        matches!(self, Self::Server { unconfirmed: true, .. })
    }

    pub(super) fn server(stream: &StreamName, action: &'static str, error: StoreError) -> Self {
        let unconfirmed = error.is_unconfirmed();
        let stream = stream.to_string();
        Self::Server { action, stream, unconfirmed, source: error.into() }
    }

    pub(super) fn missing(stream: &StreamName, name: &ScheduleName) -> Self {
        Self::Missing { stream: stream.to_string(), name: name.to_string() }
    }

    pub(super) fn declared(stream: &StreamName, name: &ScheduleName) -> Self {
        Self::DeclaredInCode { stream: stream.to_string(), name: name.to_string() }
    }

    pub(super) fn unreadable(stream: &StreamName, name: &ScheduleName) -> Self {
        Self::Unreadable { stream: stream.to_string(), name: name.to_string() }
    }

    pub(super) fn changed(stream: &StreamName, name: &ScheduleName) -> Self {
        Self::Changed { stream: stream.to_string(), name: name.to_string() }
    }
}
