//! `streamjobs group ...`: what can be done with a group as a whole.

use clap::{Args, Subcommand};
use streamjobs::config::Start;

use super::values::start;
use super::{Consent, Queue};

/// Make, move and destroy groups.
#[derive(Debug, Subcommand)]
pub(crate) enum Groups {
    Create(GroupCreate),
    Move(GroupMove),
    Destroy(GroupDestroy),
}

/// Make a group, unless it is there already; then it goes on where it stopped.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  streamjobs group create orders billing --start 0")]
pub(crate) struct GroupCreate {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// Where it begins: 0, $ for the end, an entry id to go on after, a time, or how long ago.
    #[arg(long, value_name = "PLACE", value_parser = start, default_value = "0")]
    pub(crate) start: Start,
}

/// Let a group go on at another place; back is again, and forward skips.
#[derive(Args, Debug)]
#[command(after_help = "\
Entries behind the new place are delivered once more. Entries that would be skipped forbid it, unless
--lose-unfinished is given. Ends with 3 if it is not done.

Example:
  streamjobs group move orders billing 2025-11-24T16:00:00Z --yes")]
pub(crate) struct GroupMove {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// Where: 0, $ for the end, an entry id to go on after, a time, or how long ago.
    #[arg(value_parser = start)]
    pub(crate) place: Start,
    /// Skip entries that the group has not got yet.
    #[arg(long)]
    pub(crate) lose_unfinished: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Destroy a group with its retries; its dead letters stay.
#[derive(Args, Debug)]
#[command(after_help = "\
Work that is not done forbids it, unless --lose-unfinished is given; so does a process that works for
the group, in any case. Ends with 3 if it is not done.

Example:
  streamjobs group destroy orders billing --yes")]
pub(crate) struct GroupDestroy {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// Lose work that is not done. There is no way back.
    #[arg(long)]
    pub(crate) lose_unfinished: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}
