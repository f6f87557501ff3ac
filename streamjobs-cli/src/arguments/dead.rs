//! Arguments of `streamjobs dead ...`.

use clap::{ArgGroup, Args, Subcommand};
use streamjobs::stream::EntryAddress;

use super::{Consent, Queue};

/// List, show, redrive and purge dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum Dead {
    List(DeadList),
    Show(DeadShow),
    /// Run the jobs of dead letters again, in their group only and with their event ids.
    #[command(
        override_usage = "streamjobs dead redrive [OPTIONS] <STREAM> <GROUP> <IDS|--all|--reason <REASON>>"
    )]
    #[command(after_help = "\
Exits with 3 without --yes, or if a selected letter could not be redriven.

Example:
  streamjobs dead redrive orders billing --reason exhausted --yes")]
    Redrive(DeadChange),
    /// Delete dead letters; this cannot be undone.
    #[command(
        override_usage = "streamjobs dead purge [OPTIONS] <STREAM> <GROUP> <IDS|--all|--reason <REASON>>"
    )]
    #[command(after_help = "\
Exits with 3 without --yes, or if a selected letter does not exist.

Example:
  streamjobs dead purge orders billing 1764000000000-0 --yes")]
    Purge(DeadChange),
}

impl Dead {
    /// The group that the command is about.
    pub(super) fn queue(&self) -> &Queue {
        match self {
            Self::List(command) => &command.queue,
            Self::Show(command) => &command.queue,
            Self::Redrive(command) | Self::Purge(command) => &command.queue,
        }
    }
}

/// List dead letters, oldest first, without their payloads.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  streamjobs dead list orders billing --reason exhausted")]
pub(crate) struct DeadList {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// Only letters after this one.
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<EntryAddress>,
    /// Maximum number of letters.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
    /// Only letters with this reason.
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
    /// The letter's id.
    pub(crate) id: EntryAddress,
}

/// The dead letters to change.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("choice").required(true).args(["ids", "all", "reason"]))]
pub(crate) struct DeadChange {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// The letters' ids.
    pub(crate) ids: Vec<EntryAddress>,
    /// All letters of the group.
    #[arg(long)]
    pub(crate) all: bool,
    /// All letters with this reason.
    #[arg(long, value_parser = REASONS)]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

pub(super) const REASONS: [&str; 8] = [
    "exhausted",
    "rejected",
    "undecodable",
    "crashed",
    "trimmed",
    "unhandled",
    "expired",
    "cancelled",
];
