//! Arguments of `streamjobs schedule ...`.

use clap::{Args, Subcommand};
use streamjobs::StreamName;
use streamjobs::schedule::ScheduleName;

use super::Consent;
use super::values::{schedule, stream};

/// List, run, pause, resume and remove schedules, and show what they have fired.
#[derive(Debug, Subcommand)]
pub(crate) enum Schedule {
    List(ScheduleList),
    /// Show one schedule.
    #[command(after_help = "\
The payload is not shown.

Example:
  streamjobs schedule show ticks nightly")]
    Show(OneSchedule),
    /// Publish an event of a schedule now; the next time of the schedule does not change.
    #[command(after_help = "\
This also works while the schedule is paused.

Example:
  streamjobs schedule run ticks nightly")]
    Run(OneSchedule),
    /// Pause a schedule in every process.
    #[command(after_help = "\
Example:
  streamjobs schedule pause ticks nightly")]
    Pause(OneSchedule),
    /// Resume a paused schedule at its first time after now.
    #[command(after_help = "\
Occurrences that were due during the pause are not published later. Exits with 3 if the schedule was not paused.

Example:
  streamjobs schedule resume ticks nightly")]
    Resume(OneSchedule),
    /// Remove a schedule that no living process declares in its code.
    #[command(after_help = "\
Exits with 3 if there was no schedule of this name.

Example:
  streamjobs schedule remove ticks tenant-7 --yes")]
    Remove {
        #[command(flatten)]
        schedule: OneSchedule,
        #[command(flatten)]
        consent: Consent,
    },
    History(ScheduleHistory),
}

impl Schedule {
    /// The stream that the command is about.
    pub(super) fn stream(&self) -> &StreamName {
        match self {
            Self::List(command) => &command.stream,
            Self::Show(one) | Self::Run(one) | Self::Pause(one) | Self::Resume(one) => &one.stream,
            Self::Remove { schedule, .. } => &schedule.stream,
            Self::History(command) => &command.stream,
        }
    }
}

/// List schedules in the order of their names.
#[derive(Args, Debug)]
#[command(after_help = "\
Payloads are not read.

Example:
  streamjobs schedule list ticks")]
pub(crate) struct ScheduleList {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// Only schedules after this name.
    #[arg(long, value_name = "NAME", value_parser = schedule)]
    pub(crate) after: Option<ScheduleName>,
    /// Maximum number of rows.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
}

/// One schedule of a stream.
#[derive(Args, Debug)]
pub(crate) struct OneSchedule {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// The name of the schedule.
    #[arg(value_parser = schedule)]
    pub(crate) name: ScheduleName,
}

/// List the last firings of one schedule or of all schedules, the newest first.
#[derive(Args, Debug)]
#[command(after_help = "\
The server keeps about 10,000 firings of a stream.

Example:
  streamjobs schedule history ticks nightly --limit 10")]
pub(crate) struct ScheduleHistory {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// The name of the schedule.
    #[arg(value_parser = schedule)]
    pub(crate) name: Option<ScheduleName>,
    /// Maximum number of rows.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) limit: u64,
}
