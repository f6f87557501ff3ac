//! Why a schedule is refused.

use streamjobs_cron::{CheckError, CronError, EveryError, ZoneError};
use thiserror::Error;

use crate::model::event::EncodeError;
use crate::model::name::NameError;

/// Why a schedule cannot be used. Nothing was sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The name of the schedule or of its stream is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The cron expression cannot be read.
    #[error("invalid cron expression {expression:?} of schedule {name}: {source}")]
    Cron {
        /// The schedule.
        name: String,
        /// The expression.
        expression: String,
        /// What is wrong, and where.
        source: CronError,
    },
    /// There is no such time zone.
    #[error("invalid time zone of schedule {name}: {source}")]
    Zone {
        /// The schedule.
        name: String,
        /// What is wrong.
        source: ZoneError,
    },
    /// The period or the offset of an interval is out of bounds.
    #[error("invalid interval of schedule {name}: {source}")]
    Every {
        /// The schedule.
        name: String,
        /// Which bound is violated.
        source: EveryError,
    },
    /// The expression has no occurrence within eight years.
    #[error("schedule {name} never occurs: {source}")]
    Never {
        /// The schedule.
        name: String,
        /// What was found.
        source: CheckError,
    },
    /// A setting cannot be combined with the others.
    #[error("schedule {name}: {fault}")]
    Setting {
        /// The schedule.
        name: String,
        /// What is wrong.
        fault: &'static str,
    },
    /// The payload of its events cannot be encoded.
    #[error("cannot encode the event of schedule {name}")]
    Encode {
        /// The schedule.
        name: String,
        /// The error of the encoder.
        #[source]
        source: EncodeError,
    },
    /// The event has more fields than a schedule can publish.
    #[error(
        "the event of schedule {name} has {fields} fields, which exceeds the limit of {fields_max}"
    )]
    TooManyFields {
        /// The schedule.
        name: String,
        /// How many fields it has.
        fields: usize,
        /// The limit.
        fields_max: usize,
    },
    /// The event is larger than the client allows.
    #[error(
        "the event of schedule {name} has {bytes} bytes, which exceeds the limit of {bytes_max}"
    )]
    TooLarge {
        /// The schedule.
        name: String,
        /// The size of all fields in bytes.
        bytes: usize,
        /// The client's limit in bytes.
        bytes_max: usize,
    },
}
