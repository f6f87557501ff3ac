//! Arguments of `streamjobs event` and `publish`.

use std::time::SystemTime;

use clap::{Args, Subcommand};
use streamjobs::{EventId, StreamName};

use super::values::{event_id, moment, stream};

/// Show what is known of one event.
#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    Show(EventShow),
}

/// Show what is known of one event: its entry, whether it is scheduled or cancelled, each group's job.
#[derive(Args, Debug)]
#[command(after_help = "\
The server keeps no index of event ids. The newest 1,000 entries of the stream are searched, and 1,000
entries around the time at which a generated id was made. Of each group, the next 1,000 retries and the newest
1,000 dead letters are searched. What this search cannot tell is `unknown`. With the id of its entry, an event
is found at once. `ended` means that the group is past the entry and has no job for it any more: it is done, or
its dead letter was archived, trimmed or purged.

Errors of jobs are printed, which may quote payloads. Exits with 3 if nothing is known of the event.

Example:
  streamjobs event show orders 0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b
  streamjobs event show orders 1764000000000-0")]
pub(crate) struct EventShow {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// The event id, or the id of its entry.
    #[arg(value_parser = event_id)]
    pub(crate) id: EventId,
}

/// Publish one event of any type, at once or after a delay.
#[derive(Args, Debug)]
#[command(after_help = "\
The payload is not checked against the type: what handlers cannot decode becomes a dead letter. The event id is
printed. If the command fails and says that the event is possibly stored, repeat it with that id.

Example:
  streamjobs publish orders order.placed '{\"order_id\":\"o-1\"}' --key alice
  streamjobs publish orders order.reminder - --delay 2h < reminder.json")]
pub(crate) struct Publish {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// The event type, such as `order.placed`.
    #[arg(value_name = "TYPE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) event_type: String,
    /// The payload as JSON; `-` reads it from standard input.
    pub(crate) payload: String,
    /// The key that keeps related events together.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// The event id; a new one by default.
    #[arg(long, value_parser = event_id)]
    pub(crate) id: Option<EventId>,
    /// When to publish it: after a delay such as `2h`, or at a time such as `2027-01-01T08:00:00Z`.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) delay: Option<SystemTime>,
    /// Create the stream if it does not exist; without this, a missing stream is an error.
    #[arg(long)]
    pub(crate) new_stream: bool,
}
