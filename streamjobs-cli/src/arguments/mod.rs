//! The arguments of the command line: one file for each family of commands.

mod about;
#[cfg(feature = "postgres")]
mod archive;
mod cancel;
mod dead;
mod entries;
mod event;
mod group;
mod history;
mod inspect;
mod limit;
mod rate;
mod schedule;
mod scheduled;
mod tls;
mod unique;
mod values;

use std::fmt;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};
use streamjobs::{GroupName, StreamName};

pub(crate) use self::about::About;
#[cfg(feature = "postgres")]
pub(crate) use self::archive::{
    Archive, ArchiveList, ArchiveRedrive, Database, Filter as ArchiveFilter, State as ArchiveState,
};
pub(crate) use self::cancel::{CancelIds, CancelList, Cancels};
pub(crate) use self::dead::{Dead, DeadChange, DeadList};
pub(crate) use self::entries::{Chosen, Claim, Entries, HandOver, RemoveConsumer};
pub(crate) use self::event::{EventShow, Events, Publish};
pub(crate) use self::group::{GroupCreate, GroupDestroy, GroupMove, Groups};
pub(crate) use self::history::{Find, History, Replay, Tail, Trim};
pub(crate) use self::inspect::{Finished, Inspect, Pending, Retries, Trend};
pub(crate) use self::limit::{LimitSet, Limits};
pub(crate) use self::rate::{Rates, WholeGroup};
pub(crate) use self::schedule::{OneSchedule, Schedule, ScheduleHistory, ScheduleList};
pub(crate) use self::scheduled::{Scheduled, ScheduledIds, ScheduledList, ScheduledMove};
pub(crate) use self::tls::Tls;
pub(crate) use self::unique::{Unique, UniqueKey, UniqueRelease};
use self::values::{group, pause, stream};
use crate::color::Color;

/// Inspects and manages jobs on Redis Streams.
#[derive(Debug, Parser)]
#[command(name = "streamjobs", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// The server's address; a password in it is never printed.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "STREAMJOBS_URL",
        hide_env_values = true,
        default_value = "redis://127.0.0.1:6379"
    )]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) tls: Tls,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Repeat a command that only reads, with this pause: 2s if no pause is given.
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_parser = pause
    )]
    pub(crate) watch: Option<Duration>,
    /// When to colour text: auto is on a terminal, unless NO_COLOR is set.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "auto|always|never"
    )]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Command {
    /// The stream that the command is about.
    pub(crate) fn stream(&self) -> Option<&StreamName> {
        let queue = match self {
            Self::Doctor(_) | Self::About(_) => return None,
            #[cfg(feature = "postgres")]
            Self::Archive(_) => return None,
            Self::Inspect(Inspect::Info(one) | Inspect::Groups(one)) => return Some(&one.stream),
            Self::Event(Events::Show(command)) => return Some(&command.stream),
            Self::Publish(command) => return Some(&command.stream),
            Self::History(History::Replay(command)) => return Some(&command.stream),
            Self::History(History::Find(command)) => return Some(&command.stream),
            Self::History(History::Tail(command)) => return Some(&command.stream),
            Self::History(History::Trim(command)) => return Some(&command.stream),
            Self::Scheduled(command) => return Some(command.stream()),
            Self::Cancels(command) => return Some(command.stream()),
            Self::Schedule(command) => return Some(command.stream()),
            Self::Unique(command) => return Some(command.stream()),
            Self::Rate(command) => return Some(&command.of().stream),
            Self::Limit(command) => return Some(&command.of().stream),
            Self::Inspect(command) => command.queue()?,
            Self::Entries(command) => command.queue(),
            Self::Group(command) => command.queue(),
            Self::Dead(command) => command.queue(),
        };
        Some(&queue.stream)
    }
}

impl Command {
    /// Whether it changes nothing and ends by itself, so that it can be run again and again.
    pub(crate) fn is_reading(&self) -> bool {
        match self {
            Self::Doctor(command) => !command.acl,
            Self::Inspect(_) | Self::Event(Events::Show(_)) => true,
            Self::Dead(command) => matches!(command, Dead::List(_) | Dead::Show(_)),
            Self::Scheduled(command) => {
                matches!(command, Scheduled::List(_) | Scheduled::Count { .. })
            }
            Self::Cancels(command) => matches!(command, Cancels::Cancelled(_)),
            Self::Schedule(command) => {
                matches!(command, Schedule::List(_) | Schedule::Show(_) | Schedule::History(_))
            }
            Self::Unique(command) => matches!(command, Unique::Show(_)),
            Self::Rate(command) => matches!(command, Rates::Show(_)),
            Self::Limit(command) => matches!(command, Limits::Show(_)),
            Self::Publish(_)
            | Self::History(_)
            | Self::Entries(_)
            | Self::Group(_)
            | Self::About(_) => false,
            #[cfg(feature = "postgres")]
            Self::Archive(command) => matches!(command, Archive::List(_) | Archive::Show(_)),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Doctor(Doctor),
    #[command(flatten)]
    Inspect(Inspect),
    #[command(subcommand)]
    Event(Events),
    Publish(Publish),
    #[command(flatten)]
    History(History),
    #[command(flatten)]
    Entries(Entries),
    #[command(subcommand)]
    Group(Groups),
    #[command(subcommand)]
    Dead(Dead),
    #[cfg(feature = "postgres")]
    #[command(subcommand)]
    Archive(Archive),
    #[command(subcommand)]
    Scheduled(Scheduled),
    #[command(flatten)]
    Cancels(Cancels),
    #[command(subcommand)]
    Schedule(Schedule),
    #[command(subcommand)]
    Unique(Unique),
    #[command(subcommand)]
    Rate(Rates),
    #[command(subcommand)]
    Limit(Limits),
    #[command(flatten)]
    About(About),
}

/// Check the server, or each node of a cluster: version, eviction, persistence, limits, permissions.
#[derive(Args, Debug)]
#[command(after_help = "\
Exits with 3 if there is a warning or worse.

Example:
  streamjobs doctor --stream orders --group billing --group notifications
  streamjobs doctor --acl --stream orders --stream refunds")]
#[command(group(ArgGroup::new("for_what").args(["group", "acl"]).multiple(true)))]
pub(crate) struct Doctor {
    /// Check the user's permissions for the keys of this stream; can be repeated.
    #[arg(long, requires = "for_what", value_parser = stream)]
    pub(crate) stream: Vec<StreamName>,
    /// Check the permissions for this group as well; can be repeated.
    #[arg(long, requires = "stream", value_parser = group)]
    pub(crate) group: Vec<GroupName>,
    /// Ask no server; print the smallest access list for each use of these streams, as one command
    /// for each use.
    #[arg(long, requires = "stream", conflicts_with = "group")]
    pub(crate) acl: bool,
}

/// Which part of a stream with partitions.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Only this partition of the stream, by its number from 0; all of them by default.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) partition: Option<u16>,
}

/// One group on one stream.
#[derive(Args, Debug)]
pub(crate) struct Queue {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    #[command(flatten)]
    pub(crate) part: Part,
    /// The group.
    #[arg(value_parser = group)]
    pub(crate) group: GroupName,
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {} on stream {}", self.group, self.stream)?;
        match self.part.partition {
            Some(number) => write!(f, ", partition {number}"),
            None => Ok(()),
        }
    }
}

/// Confirmation of a change.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Consent {
    /// Apply the change; without this, only print what would change and exit with 3.
    #[arg(long)]
    pub(crate) yes: bool,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  success, or no problem found
  1  failure: the server cannot be reached, or refuses
  2  wrong arguments
  3  a problem was found, something was not done, or --yes is needed

Completions for a shell, and manual pages:
  streamjobs completions bash > /etc/bash_completion.d/streamjobs
  streamjobs man --folder /usr/local/share/man/man1

Example:
  streamjobs --url redis://127.0.0.1:6379 doctor";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            if command.has_subcommands() {
                command.get_subcommands().for_each(check);
                return;
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = "Example:\n  streamjobs ";
            assert!(help.contains(example) && help.contains(command.get_name()), "{command}");
        }
        check(&Arguments::command());
    }
}
