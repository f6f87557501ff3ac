//! Arguments of `streamjobs limit ...`.

use std::num::NonZeroU32;

use clap::{Args, Subcommand};

use super::rate::WholeGroup;

/// Show and change how many jobs of a group, or of one key, may run at once in all processes.
#[derive(Debug, Subcommand)]
pub(crate) enum Limits {
    /// Show the limit of a group over all processes: in its code, and as an operator set it.
    #[command(after_help = "\
Example:
  streamjobs limit show orders billing")]
    Show(WholeGroup),
    Set(LimitSet),
    /// Set a group back to the limit in its code.
    #[command(after_help = "\
Exits with 3 if nothing was set.

Example:
  streamjobs limit reset orders billing")]
    Reset(WholeGroup),
}

impl Limits {
    /// The group that the command is about.
    pub(super) fn of(&self) -> &WholeGroup {
        match self {
            Self::Show(of) | Self::Reset(of) => of,
            Self::Set(command) => &command.of,
        }
    }
}

/// Set the number of a group's concurrency_total or concurrency_per_key in every process, until it is reset.
#[derive(Args, Debug)]
#[command(after_help = "\
The number is used in place of the one in the code, whichever of the two options the code has. It applies at
once. A lower number stops no running job. With a higher number, waiting jobs start within half a second, or three
seconds in an idle group, by the default settings. An order per key, and fair shares between keys, have no number.

Example:
  streamjobs limit set orders billing 8 --why 'the printer has a second tray'")]
pub(crate) struct LimitSet {
    #[command(flatten)]
    pub(crate) of: WholeGroup,
    /// How many jobs may run at once.
    pub(crate) limit: NonZeroU32,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,
    /// Who, for the record.
    #[arg(long, value_name = "NAME", env = "USER")]
    pub(crate) by: String,
}
