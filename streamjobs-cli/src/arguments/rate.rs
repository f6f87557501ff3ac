//! Arguments of `streamjobs rate ...`.

use std::num::NonZeroU32;

use clap::{Args, Subcommand};
use streamjobs::stream::SetRate;
use streamjobs::{GroupName, Rate, StreamName};

use super::values::{group, stream};

/// Show and change how many jobs of a group may start within a time.
#[derive(Debug, Subcommand)]
pub(crate) enum Rates {
    /// Show the rate of a group (in its code, and as an operator set it), and until when its jobs wait.
    #[command(after_help = "\
Example:
  streamjobs rate show orders billing")]
    Show(WholeGroup),
    Set(RateSet),
    /// Set a group back to the rate in its code, and end a wait that the other side asked for.
    #[command(after_help = "\
Exits with 3 if nothing was set.

Example:
  streamjobs rate reset orders billing")]
    Reset(WholeGroup),
}

impl Rates {
    /// The group that the command is about.
    pub(super) fn of(&self) -> &WholeGroup {
        match self {
            Self::Show(of) | Self::Reset(of) => of,
            Self::Set(command) => &command.of,
        }
    }
}

/// Set the rate of a group in every process, until it is reset.
#[derive(Args, Debug)]
#[command(after_help = "\
The set rate is used in place of the rate in the code. It takes effect within half a second, or three
seconds in an idle group, by the default settings. Setting a rate also ends a wait that a job has asked for
because the other side has a limit.

Example:
  streamjobs rate set orders billing 100/1m --burst 20
  streamjobs rate set orders billing off")]
pub(crate) struct RateSet {
    #[command(flatten)]
    pub(crate) of: WholeGroup,
    /// How many jobs may start in which time, such as 100/1m; or off, for no limit.
    #[arg(value_parser = rate)]
    rate: SetRate,
    /// How many jobs may start at once after a time without starts; 1 by default.
    #[arg(long, value_name = "COUNT")]
    burst: Option<NonZeroU32>,
}

impl RateSet {
    /// The rate with its burst.
    pub(crate) fn rate(&self) -> SetRate {
        match (self.rate, self.burst) {
            (SetRate::At(rate), Some(burst)) => SetRate::At(rate.burst(burst)),
            (rate, _) => rate,
        }
    }
}

/// A group, on all partitions of its stream.
#[derive(Args, Debug)]
pub(crate) struct WholeGroup {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// The group.
    #[arg(value_parser = group)]
    pub(crate) group: GroupName,
}

fn rate(text: &str) -> Result<SetRate, String> {
    match text {
        "off" => Ok(SetRate::Unlimited),
        text => text.parse::<Rate>().map(SetRate::At).map_err(|error| format!("{error}; or off")),
    }
}
