//! Arguments of `streamjobs cancel`, `uncancel` and `cancelled`.

use clap::{Args, Subcommand};
use streamjobs::{EventId, GroupName, StreamName};

use super::Consent;
use super::values::{event_id, group, stream};

#[derive(Debug, Subcommand)]
pub(crate) enum Cancels {
    /// Cancel events: their jobs do not run any more, and those that run are stopped.
    #[command(after_help = "\
An event that waits until it is due is removed. Any other event is marked, whether it has jobs or not: each of
its jobs ends as a dead letter `cancelled`, unless its handler still returns successfully. The mark is kept for
400 days. `uncancel` removes it.

Example:
  streamjobs cancel orders 0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b --yes
  streamjobs cancel orders 0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b --group billing --yes")]
    Cancel {
        #[command(flatten)]
        events: CancelIds,
        #[command(flatten)]
        consent: Consent,
    },
    /// Let the jobs of cancelled events run again.
    #[command(after_help = "\
Jobs that have ended as dead letters stay so; redrive them. Exits with 3 if one of the events is not
cancelled, for this group or for all.

Example:
  streamjobs uncancel orders 0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")]
    Uncancel(CancelIds),
    Cancelled(CancelList),
}

impl Cancels {
    /// The stream that the command is about.
    pub(super) fn stream(&self) -> &StreamName {
        match self {
            Self::Cancel { events, .. } | Self::Uncancel(events) => &events.stream,
            Self::Cancelled(command) => &command.stream,
        }
    }
}

/// Events of one stream, and whose jobs of them.
#[derive(Args, Debug)]
pub(crate) struct CancelIds {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// Event ids.
    #[arg(required = true, value_parser = event_id)]
    pub(crate) ids: Vec<EventId>,
    /// Only the jobs of this group; those of all groups by default.
    #[arg(long, value_parser = group)]
    pub(crate) group: Option<GroupName>,
}

/// List cancelled events, in the order in which they were cancelled.
#[derive(Args, Debug)]
#[command(after_help = "\
An event stays in the list for 400 days, or until 100,000 later events are cancelled, whatever has become of
its jobs.

Example:
  streamjobs cancelled orders --limit 10")]
pub(crate) struct CancelList {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// Only events that were cancelled after this time, in milliseconds since 1970: see the end of an earlier answer.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    pub(crate) after: u64,
    /// Maximum number of rows.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) limit: u64,
}
