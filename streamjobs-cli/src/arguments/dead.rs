//! `streamjobs dead ...`: what can be asked of dead letters.

use clap::{ArgGroup, Args, Subcommand};
use streamjobs::EntryId;

use super::{Consent, Queue};

/// Look at dead letters, run their jobs again, delete them.
#[derive(Debug, Subcommand)]
pub(crate) enum Dead {
    List(DeadList),
    Show(DeadShow),
    /// Put dead letters' jobs back for their group alone, under their event ids.
    #[command(
        override_usage = "streamjobs dead redrive [OPTIONS] <STREAM> <GROUP> <IDS|--all|--reason <REASON>>"
    )]
    #[command(after_help = "\
Ends with 3 without --yes, and if something that was chosen could not be put back.

Example:
  streamjobs dead redrive orders billing --reason exhausted --yes")]
    Redrive(DeadChange),
    /// Delete dead letters for good.
    #[command(
        override_usage = "streamjobs dead purge [OPTIONS] <STREAM> <GROUP> <IDS|--all|--reason <REASON>>"
    )]
    #[command(after_help = "\
Ends with 3 without --yes, and if something that was chosen was gone already.

Example:
  streamjobs dead purge orders billing 1764000000000-0 --yes")]
    Purge(DeadChange),
}

/// List dead letters, oldest first, without their payloads.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  streamjobs dead list orders billing --reason exhausted")]
pub(crate) struct DeadList {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// Only those after this one.
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<EntryId>,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
    /// Only those that were buried for this reason.
    #[arg(long, value_parser = REASONS)]
    pub(crate) reason: Option<String>,
}

/// Show one dead letter with its payload.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  streamjobs dead show orders billing 1764000000000-0")]
pub(crate) struct DeadShow {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// The dead letter's id.
    pub(crate) id: EntryId,
}

/// Which dead letters to change, and whether to.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("choice").required(true).args(["ids", "all", "reason"]))]
pub(crate) struct DeadChange {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// The dead letters' ids.
    pub(crate) ids: Vec<EntryId>,
    /// All of the group.
    #[arg(long)]
    pub(crate) all: bool,
    /// All that were buried for this reason.
    #[arg(long, value_parser = REASONS)]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

const REASONS: [&str; 6] =
    ["exhausted", "rejected", "undecodable", "crashed", "trimmed", "unhandled"];
