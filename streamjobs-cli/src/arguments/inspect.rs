//! Arguments of the commands that show streams, groups, consumers and jobs.

use std::time::Duration;

use clap::{Args, Subcommand};
use streamjobs::StreamName;
use streamjobs::stream::{EntryAddress, RetryCursor};

use super::values::{duration, stream};
use super::{Part, Queue};

#[derive(Debug, Subcommand)]
pub(crate) enum Inspect {
    /// Show a stream: length, first and last entry, entries added in total, memory.
    #[command(after_help = "\
Example:
  streamjobs info orders")]
    Info(OneStream),
    /// Show the groups of a stream: backlog, lag, pending, retries, dead letters, pause.
    #[command(after_help = "\
BACKLOG is the number of undelivered entries, counted if the server's own figure, LAG, is unreliable.
OLDEST WAITING is the age of the oldest undelivered entry, OLDEST IDLE the idle time of the oldest
pending entry. TRIMMED UNREAD counts entries that were trimmed before their delivery.

Example:
  streamjobs groups orders")]
    Groups(OneStream),
    /// Show the consumers of a group: state, jobs in flight, finished and failed jobs.
    #[command(after_help = "\
STATE is alive or silent by the heartbeats, or unknown without any. DONE, FAILED and CLAIMED count
jobs, failed attempts and claimed entries on this stream from the consumer's start to its last
heartbeat.

Example:
  streamjobs consumers orders billing")]
    Consumers(Queue),
    Pending(Pending),
    Retries(Retries),
    Finished(Finished),
    Trend(Trend),
    /// Explain why a group's jobs do not run, or not fast enough.
    #[command(after_help = "\
Exits with 3 if there is a problem.

Example:
  streamjobs diagnose orders billing")]
    Diagnose(Queue),
}

impl Inspect {
    /// The group that the command is about, if it is about a group.
    pub(super) fn queue(&self) -> Option<&Queue> {
        match self {
            Self::Info(_) | Self::Groups(_) => None,
            Self::Consumers(queue) | Self::Diagnose(queue) => Some(queue),
            Self::Pending(command) => Some(&command.queue),
            Self::Retries(command) => Some(&command.queue),
            Self::Finished(command) => Some(&command.queue),
            Self::Trend(command) => Some(&command.queue),
        }
    }
}

/// A stream.
#[derive(Args, Debug)]
pub(crate) struct OneStream {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    #[command(flatten)]
    pub(crate) part: Part,
}

/// List pending entries: delivered and not acknowledged.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  streamjobs pending orders billing --idle-min 60s --deliveries-min 3")]
pub(crate) struct Pending {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// Entries of the group's lane (due retries, redriven jobs) instead of the stream.
    #[arg(long)]
    pub(crate) lane: bool,
    /// Only entries of this consumer.
    #[arg(long, value_name = "NAME")]
    pub(crate) consumer: Option<String>,
    /// Only entries that were not renewed for at least this long.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    pub(crate) idle_min: Duration,
    /// Only entries that were delivered at least this many times.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) deliveries_min: u64,
    /// Only entries after this one.
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<EntryAddress>,
    /// Maximum number of rows.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
}

/// List failed jobs that wait for a retry, the one that is due next first.
#[derive(Args, Debug)]
#[command(after_help = "\
A due job waits until a process moves it to the group's lane; in a paused group, this does not happen.
A job gets a new ID with each retry.

Example:
  streamjobs retries orders billing --limit 10")]
pub(crate) struct Retries {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// Only jobs after those of an earlier answer, which says what to give here.
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<RetryCursor>,
    /// Maximum number of rows.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
}

/// List jobs that are done, the last one first, of handlers with the option `keep_done`.
#[derive(Args, Debug)]
#[command(after_help = "\
Jobs are noted about a quarter of a second after they were acknowledged, and the notes are kept for the time of
the option. A job whose process died in between is not noted. With a filter, at most 10,000 notes are compared
at a time.

Example:
  streamjobs finished orders billing --key alice")]
pub(crate) struct Finished {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// Only jobs before this one of an earlier answer.
    #[arg(long, value_name = "ID")]
    pub(crate) before: Option<EntryAddress>,
    /// Only the job on this event.
    #[arg(long, value_name = "EVENT-ID")]
    pub(crate) event: Option<String>,
    /// Only jobs on events of this type.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
    /// Only jobs on events with this key.
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Maximum number of rows.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) limit: u64,
}

/// Show what a group did in each minute of the last 6 hours: jobs, failures, backlog, queue time, run time.
#[derive(Args, Debug)]
#[command(after_help = "\
Processes of the group note their figures every 15 seconds. FROM is the beginning of a step; a step in which nothing
was noted is left out. WAITING and OLDEST are the highest values that were noted. P50, P95 and P99 are percentiles,
exact to within 41 %.

Example:
  streamjobs trend orders billing --days")]
pub(crate) struct Trend {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// Show each quarter of an hour of the last 7 days.
    #[arg(long)]
    pub(crate) days: bool,
    /// Maximum number of rows; the last rows are shown.
    #[arg(long, value_name = "COUNT", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) limit: u64,
}
