//! Arguments of the commands on pending entries, consumers and processes.

use clap::{Args, Subcommand};
use streamjobs::ConsumerName;
use streamjobs::stream::EntryAddress;

use super::values::consumer;
use super::{Consent, Queue};

#[derive(Debug, Subcommand)]
pub(crate) enum Entries {
    Claim(Claim),
    /// Release pending entries, so that any process can claim them at once.
    #[command(after_help = "\
A job that is running now may run twice. Exits with 3 without --yes, or if an entry is not pending.

Example:
  streamjobs release orders billing 1764000000000-0 --yes")]
    Release(Chosen),
    /// Acknowledge pending entries of any consumer, so that they count as done.
    #[command(after_help = "\
Exits with 3 without --yes, or if an entry is not pending.

Example:
  streamjobs acknowledge orders billing 1764000000000-0 --yes")]
    Acknowledge(Chosen),
    HandOver(HandOver),
    RemoveConsumer(RemoveConsumer),
    /// Ask every process of a group to claim idle entries now.
    #[command(after_help = "\
Example:
  streamjobs reap orders billing")]
    Reap(Queue),
    /// Pause a group in every process: running jobs finish, no new jobs start.
    #[command(after_help = "\
Takes effect within half a second, or three seconds in an idle group, by the default settings. Applies
to processes that start later as well, until the group is resumed.

Example:
  streamjobs pause orders billing")]
    Pause(Queue),
    /// Resume a paused group in every process.
    #[command(after_help = "\
Example:
  streamjobs resume orders billing")]
    Resume(Queue),
}

impl Entries {
    /// The group that the command is about.
    pub(super) fn queue(&self) -> &Queue {
        match self {
            Self::Claim(command) => &command.queue,
            Self::Release(command) | Self::Acknowledge(command) => &command.queue,
            Self::HandOver(command) => &command.queue,
            Self::RemoveConsumer(command) => &command.queue,
            Self::Reap(queue) | Self::Pause(queue) | Self::Resume(queue) => queue,
        }
    }
}

/// Move pending entries of any consumer to one consumer; delivery counts stay the same.
#[derive(Args, Debug)]
#[command(after_help = "\
Exits with 3 without --yes, or if an entry is not pending.

Example:
  streamjobs claim orders billing web-1 1764000000000-0 --yes")]
pub(crate) struct Claim {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// The consumer to move them to.
    #[arg(value_parser = consumer)]
    pub(crate) consumer: ConsumerName,
    /// The entries' ids.
    #[arg(required = true)]
    pub(crate) ids: Vec<EntryAddress>,
    /// Entries of the group's lane (due retries, redriven jobs) instead of the stream.
    #[arg(long)]
    pub(crate) lane: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Pending entries of a group.
#[derive(Args, Debug)]
pub(crate) struct Chosen {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// The entries' ids.
    #[arg(required = true)]
    pub(crate) ids: Vec<EntryAddress>,
    /// Entries of the group's lane (due retries, redriven jobs) instead of the stream.
    #[arg(long)]
    pub(crate) lane: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Move all pending entries of one consumer to another; stop the process of the first consumer before.
#[derive(Args, Debug)]
#[command(after_help = "\
Exits with 3 without --yes, or if an entry was trimmed from the stream.

Example:
  streamjobs hand-over orders billing web-1 web-2 --yes")]
pub(crate) struct HandOver {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// The consumer that owns them.
    #[arg(value_parser = consumer)]
    pub(crate) from: ConsumerName,
    /// The consumer to move them to.
    #[arg(value_parser = consumer)]
    pub(crate) to: ConsumerName,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Remove a consumer and release its pending entries.
#[derive(Args, Debug)]
#[command(after_help = "\
Exits with 3 without --yes, if the consumer keeps receiving entries, or if an entry was trimmed from
the stream.

Example:
  streamjobs remove-consumer orders billing web-1 --yes")]
pub(crate) struct RemoveConsumer {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// The consumer.
    #[arg(value_parser = consumer)]
    pub(crate) consumer: ConsumerName,
    #[command(flatten)]
    pub(crate) consent: Consent,
}
