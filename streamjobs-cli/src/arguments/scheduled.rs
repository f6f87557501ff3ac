//! Arguments of `streamjobs scheduled ...`.

use std::time::SystemTime;

use clap::{Args, Subcommand};
use streamjobs::stream::ScheduledCursor;
use streamjobs::{EventId, StreamName};

use super::Consent;
use super::values::{event_id, moment, stream};

/// List, cancel, run and reschedule events that wait until they are due.
#[derive(Debug, Subcommand)]
pub(crate) enum Scheduled {
    List(ScheduledList),
    /// Count events that wait until they are due.
    #[command(after_help = "\
Example:
  streamjobs scheduled count orders")]
    Count {
        /// The stream.
        #[arg(value_parser = stream)]
        stream: StreamName,
    },
    /// Cancel scheduled events: none of them will ever enter the stream.
    #[command(after_help = "\
Exits with 3 if one of them does not wait: it has entered, was cancelled before, or never existed.

Example:
  streamjobs scheduled cancel orders 0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b --yes")]
    Cancel {
        #[command(flatten)]
        events: ScheduledIds,
        #[command(flatten)]
        consent: Consent,
    },
    /// Enter scheduled events into their stream now.
    #[command(after_help = "\
Exits with 3 if one of them does not wait: it has entered, was cancelled before, or never existed.

Example:
  streamjobs scheduled run orders 0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")]
    Run(ScheduledIds),
    Reschedule(ScheduledMove),
}

impl Scheduled {
    /// The stream that the command is about.
    pub(super) fn stream(&self) -> &StreamName {
        match self {
            Self::List(command) => &command.stream,
            Self::Count { stream } => stream,
            Self::Cancel { events, .. } | Self::Run(events) => &events.stream,
            Self::Reschedule(command) => &command.stream,
        }
    }
}

/// List events that wait until they are due, the next one first.
#[derive(Args, Debug)]
#[command(after_help = "\
Payloads are not read. An event enters its stream within half a second of its time, if a process with a
handler of the stream runs.

Example:
  streamjobs scheduled list orders --limit 10")]
pub(crate) struct ScheduledList {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// Only events after those of an earlier answer, which says what to give here.
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<ScheduledCursor>,
    /// Maximum number of rows.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
}

/// Scheduled events of one stream.
#[derive(Args, Debug)]
pub(crate) struct ScheduledIds {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// Event ids.
    #[arg(required = true, value_parser = event_id)]
    pub(crate) ids: Vec<EventId>,
}

/// Change when a scheduled event is due.
#[derive(Args, Debug)]
#[command(after_help = "\
If the time is in the past, the event enters the stream at once. Exits with 3 if the event does not wait.

Example:
  streamjobs scheduled reschedule orders 0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b 2h30m")]
pub(crate) struct ScheduledMove {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// The event id.
    #[arg(value_parser = event_id)]
    pub(crate) id: EventId,
    /// Milliseconds since 1970, a time, or a delay from now.
    #[arg(value_parser = moment)]
    pub(crate) time: SystemTime,
}
