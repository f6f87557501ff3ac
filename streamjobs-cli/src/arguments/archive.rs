//! Arguments of `streamjobs archive ...`.

use std::num::NonZeroU32;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use streamjobs_postgres::letters::{LetterId, RedriveId};

use super::Consent;
use super::dead::REASONS;

/// List, show and redrive dead letters that are archived in Postgres.
#[derive(Debug, Subcommand)]
pub(crate) enum Archive {
    List(ArchiveList),
    Show(ArchiveShow),
    Redrive(ArchiveRedrive),
}

impl Archive {
    pub(crate) fn database(&self) -> &Database {
        match self {
            Self::List(command) => &command.database,
            Self::Show(command) => &command.database,
            Self::Redrive(command) => &command.database,
        }
    }
}

/// Where the archive is.
#[derive(Args, Debug)]
pub(crate) struct Database {
    /// The address of the database; a password in it is never printed.
    #[arg(
        long,
        value_name = "URL",
        env = "STREAMJOBS_DATABASE_URL",
        hide_env_values = true,
        required = true
    )]
    pub(crate) database: String,
    /// The schema that the tables of streamjobs are in.
    #[arg(long, value_name = "NAME", default_value = "streamjobs")]
    pub(crate) schema: String,
}

/// Which letters.
#[derive(Args, Debug)]
pub(crate) struct Filter {
    /// Only letters of this stream; if it has partitions, only letters of the partition with this
    /// name.
    #[arg(long)]
    pub(crate) stream: Option<String>,
    /// Only letters of this group.
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// Only letters of this event type.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
    /// Only letters with this reason.
    #[arg(long, value_parser = REASONS)]
    pub(crate) reason: Option<String>,
    /// Only letters of this kind of failure, by its fingerprint.
    #[arg(long, value_name = "FINGERPRINT")]
    pub(crate) kind: Option<String>,
    /// Only letters whose error contains this text, in upper or lower case.
    #[arg(long, value_name = "TEXT")]
    pub(crate) error: Option<String>,
}

/// The state of an archived letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    Open,
    Redriven,
    KnownDone,
    All,
}

/// List archived dead letters, newest first, without their payloads.
#[derive(Args, Debug)]
#[command(after_help = "\
This command reads only the database. STATE is open, redriven, or known_done where the guard says that the job was
done.

Example:
  streamjobs archive list --database postgres://localhost/app --group billing --error timeout")]
pub(crate) struct ArchiveList {
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Only letters in this state.
    #[arg(long, value_enum, default_value = "open")]
    pub(crate) state: State,
    /// Only letters that were archived before this one.
    #[arg(long, value_name = "ID")]
    pub(crate) before: Option<LetterId>,
    /// Maximum number of letters.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) limit: u64,
}

/// Show one archived dead letter with its payload.
#[derive(Args, Debug)]
#[command(after_help = "\
This command reads only the database.

Example:
  streamjobs archive show 4711 --database postgres://localhost/app")]
pub(crate) struct ArchiveShow {
    #[command(flatten)]
    pub(crate) database: Database,
    /// The letter's id.
    pub(crate) id: LetterId,
}

/// Run the jobs of archived dead letters again, in their groups only and with their event ids.
#[derive(Args, Debug)]
#[command(
    override_usage = "streamjobs archive redrive [OPTIONS] --database <URL> --why <TEXT> --by <NAME> <IDS|--all|FILTER|--resume <ID>>"
)]
#[command(after_help = "\
A filter is one or more of --stream, --group, --type, --reason, --kind and --error. Only open letters are
redriven. The redrive is stored with its reason and its user, and its number is printed before the first job is
put back. If it is interrupted, continue it with --resume and that number, or in the dashboard: a new redrive
could put jobs back a second time.

Exits with 3 without --yes, or if a job was not put back.

Example:
  streamjobs archive redrive --database postgres://localhost/app --error timeout --why 'bank is back' --yes")]
#[command(group = ArgGroup::new("choice").required(true).multiple(true)
    .args(["ids", "all", "resume", "stream", "group", "event_type", "reason", "kind", "error"]))]
pub(crate) struct ArchiveRedrive {
    #[command(flatten)]
    pub(crate) database: Database,
    /// The letters' ids.
    #[arg(conflicts_with_all = ["all", "resume", "stream", "group", "event_type", "reason", "kind", "error"])]
    pub(crate) ids: Vec<LetterId>,
    /// All open letters.
    #[arg(long, conflicts_with_all = ["stream", "group", "event_type", "reason", "kind", "error"])]
    pub(crate) all: bool,
    /// A redrive that was interrupted, with its own letters, reason and rate.
    #[arg(long, value_name = "ID",
        conflicts_with_all = ["all", "stream", "group", "event_type", "reason", "kind", "error"])]
    pub(crate) resume: Option<RedriveId>,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT", required_unless_present = "resume")]
    pub(crate) why: Option<String>,
    /// Who, for the record.
    #[arg(long, value_name = "NAME", env = "USER", required_unless_present = "resume")]
    pub(crate) by: Option<String>,
    /// Jobs put back per second.
    #[arg(long, value_name = "NUMBER", default_value = "100")]
    pub(crate) rate: NonZeroU32,
    #[command(flatten)]
    pub(crate) consent: Consent,
}
