//! Arguments of `streamjobs group ...`.

use clap::{Args, Subcommand};
use streamjobs::config::Start;

use super::values::start;
use super::{Consent, Queue};

/// Create, move and destroy groups.
#[derive(Debug, Subcommand)]
pub(crate) enum Groups {
    Create(GroupCreate),
    Move(GroupMove),
    Destroy(GroupDestroy),
}

impl Groups {
    /// The group that the command is about.
    pub(super) fn queue(&self) -> &Queue {
        match self {
            Self::Create(command) => &command.queue,
            Self::Move(command) => &command.queue,
            Self::Destroy(command) => &command.queue,
        }
    }
}

/// Create a group, unless it exists; an existing group keeps its position.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  streamjobs group create orders billing --start 0")]
pub(crate) struct GroupCreate {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// Where to start: 0, $ for the end, after an entry id, a time, or an age.
    #[arg(long, value_name = "POSITION", value_parser = start, default_value = "0")]
    pub(crate) start: Start,
}

/// Move a group to another position: backward to repeat entries, forward to skip them.
#[derive(Args, Debug)]
#[command(after_help = "\
Entries after the new position are delivered again. A move that would skip undelivered entries is
refused without --lose-unfinished. Exits with 3 if the group was not moved.

Example:
  streamjobs group move orders billing 2025-11-24T16:00:00Z --yes")]
pub(crate) struct GroupMove {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// 0, $ for the end, after an entry id, a time, or an age.
    #[arg(value_parser = start)]
    pub(crate) position: Start,
    /// Skip undelivered entries.
    #[arg(long)]
    pub(crate) lose_unfinished: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Destroy a group with its retries; its dead letters are kept.
#[derive(Args, Debug)]
#[command(after_help = "\
Refused while a process works for the group, and while the group has unfinished jobs unless
--lose-unfinished is given. Exits with 3 if the group was not destroyed.

Example:
  streamjobs group destroy orders billing --yes")]
pub(crate) struct GroupDestroy {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// Lose unfinished jobs; this cannot be undone.
    #[arg(long)]
    pub(crate) lose_unfinished: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}
