//! What can be asked on the command line.

use clap::{ArgGroup, Args, Parser, Subcommand};
use streamjobs::{EntryId, GroupName, StreamName};

/// Looks after jobs on Redis Streams.
#[derive(Debug, Parser)]
#[command(name = "streamjobs", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Where the server is; a password in it is never printed.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "STREAMJOBS_URL",
        hide_env_values = true,
        default_value = "redis://127.0.0.1:6379"
    )]
    pub(crate) url: String,
    /// Print JSON for programs instead of text for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Doctor(Doctor),
    #[command(subcommand)]
    Dead(Dead),
}

/// Examine the server: version, eviction, persistence, limits, rights.
#[derive(Args, Debug)]
#[command(after_help = "\
Ends with 3 if there is a warning or worse.

Example:
  streamjobs doctor --stream orders --group billing --group notifications")]
pub(crate) struct Doctor {
    /// Try the user's rights on the keys of this stream.
    #[arg(long, requires = "group", value_parser = stream)]
    pub(crate) stream: Option<StreamName>,
    /// Try them for this group; may be given several times.
    #[arg(long, requires = "stream", value_parser = group)]
    pub(crate) group: Vec<GroupName>,
}

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

/// One group on one stream.
#[derive(Args, Debug)]
pub(crate) struct Queue {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// The group.
    #[arg(value_parser = group)]
    pub(crate) group: GroupName,
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
    /// Do it; without this, only say what would be done, and end with 3.
    #[arg(long)]
    pub(crate) yes: bool,
}

fn stream(name: &str) -> Result<StreamName, streamjobs::NameError> {
    StreamName::new(name)
}

fn group(name: &str) -> Result<GroupName, streamjobs::NameError> {
    GroupName::new(name)
}

const REASONS: [&str; 6] =
    ["exhausted", "rejected", "undecodable", "crashed", "trimmed", "unhandled"];

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or nothing found
  1  failed: the server cannot be reached, or refuses
  2  wrong arguments
  3  something was found, or was not done, or waits for --yes

Example:
  streamjobs --url redis://127.0.0.1:6379 doctor";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_contradict_each_other_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn look(command: &clap::Command) {
            if command.has_subcommands() {
                command.get_subcommands().for_each(look);
                return;
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = "Example:\n  streamjobs ";
            assert!(help.contains(example) && help.contains(command.get_name()), "{command}");
        }
        look(&Arguments::command());
    }
}
