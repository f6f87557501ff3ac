//! What can be looked at: streams, groups, consumers, pending entries, jobs that are set aside.

use std::time::Duration;

use clap::{Args, Subcommand};
use streamjobs::stream::RetryId;
use streamjobs::{EntryId, StreamName};

use super::Queue;
use super::values::{duration, stream};

#[derive(Debug, Subcommand)]
pub(crate) enum Look {
    /// Show a stream: its length, its ends, how much was ever added, its memory.
    #[command(after_help = "\
Example:
  streamjobs info orders")]
    Info(OneStream),
    /// Show the groups of a stream: backlog, lag, pending, set aside, dead, trimmed unread.
    #[command(after_help = "\
BACKLOG is what a group has not got yet, counted where the server's lag cannot be believed; LAG is
what the server says. WAITING and IDLE are the ages of the oldest entry not delivered, and of the
last sign of life of the oldest pending one.

Example:
  streamjobs groups orders")]
    Groups(OneStream),
    /// Show the consumers of a group: whether they live, what they hold, and what they have done.
    #[command(after_help = "\
DONE, FAILED and CLAIMED are jobs, failed attempts and entries taken over on this stream since the
consumer started, as of its last beat.

Example:
  streamjobs consumers orders billing")]
    Consumers(Queue),
    Pending(Pending),
    Retries(Retries),
    /// Say what is wrong with a group: why its jobs do not run, or not fast enough.
    #[command(after_help = "\
Ends with 3 if something is wrong.

Example:
  streamjobs diagnose orders billing")]
    Diagnose(Queue),
}

/// A stream.
#[derive(Args, Debug)]
pub(crate) struct OneStream {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
}

/// List pending entries: delivered and not acknowledged.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  streamjobs pending orders billing --idle-min 60s --deliveries-min 3")]
pub(crate) struct Pending {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// Those in the group's lane, where retries and redriven jobs are, instead of the stream's.
    #[arg(long)]
    pub(crate) lane: bool,
    /// Only those of this consumer.
    #[arg(long, value_name = "NAME")]
    pub(crate) consumer: Option<String>,
    /// Only those of which nothing has been heard for at least this long.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    pub(crate) idle_min: Duration,
    /// Only those that were delivered at least so many times.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) deliveries_min: u64,
    /// Only those after this one.
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<EntryId>,
    /// How many at most.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
}

/// List jobs that are set aside, out of the stream until they are due; the next one due first.
#[derive(Args, Debug)]
#[command(after_help = "\
What is due waits for a process to take it up, which a paused group lets nobody do. An ID changes when
its job is set aside again.

Example:
  streamjobs retries orders billing --limit 10")]
pub(crate) struct Retries {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// Only those after this one; all of them if it has left.
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<RetryId>,
    /// How many at most.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
}
