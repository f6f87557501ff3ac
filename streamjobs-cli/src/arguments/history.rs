//! Arguments of the commands that read, follow and trim a stream.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use streamjobs::StreamName;
use streamjobs::stream::EntryAddress;

use super::values::{PositionArg, duration, place, position, stream};
use super::{Consent, Part};

#[derive(Debug, Subcommand)]
pub(crate) enum History {
    Replay(Replay),
    Find(Find),
    Tail(Tail),
    Trim(Trim),
}

/// Print a range of a stream with payloads, oldest first, without changing any group.
#[derive(Args, Debug)]
#[command(after_help = "\
A position is an entry id, milliseconds since 1970, a time such as 2025-11-24T16:00:00Z, or an age
such as 10m. With --json, prints one document for each entry.

Example:
  streamjobs replay orders --from 10m --type order.placed")]
pub(crate) struct Replay {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    #[command(flatten)]
    pub(crate) part: Part,
    /// The first entry to print; by default, the first of the stream.
    #[arg(long, value_name = "POSITION", value_parser = place)]
    pub(crate) from: Option<PositionArg>,
    /// The last entry to print; by default, the last of the stream.
    #[arg(long, value_name = "POSITION", value_parser = place)]
    pub(crate) to: Option<PositionArg>,
    /// Maximum number of entries; all by default.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Only entries of this event type; can be repeated.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) types: Vec<String>,
}

/// Find the entries of a stream that contain a text: in the payload, a header, the key, an id or the type.
#[derive(Args, Debug)]
#[command(after_help = "\
Compares byte for byte, from the newest entry back, and stops after 10,000 entries, about 4 MiB, or entries of 64 MiB
on the server. The output says how far the search went and where to continue. Of each value, the first 16 KiB are
compared. `replay --from ID --limit 1` prints an entry.

Example:
  streamjobs find orders 'parcel 4711'")]
pub(crate) struct Find {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    #[command(flatten)]
    pub(crate) part: Part,
    /// The text.
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) text: String,
    /// Only entries before this one, where an earlier search ended.
    #[arg(long, value_name = "ID")]
    pub(crate) before: Option<EntryAddress>,
    /// Maximum number of rows.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) limit: u64,
}

/// Print entries with payloads as they are added to a stream, without changing any group.
#[derive(Args, Debug)]
#[command(after_help = "\
A position is an entry id to continue after, milliseconds since 1970, a time such as
2025-11-24T16:00:00Z, or an age such as 10m. With --json, prints one document for each entry.

Example:
  streamjobs tail orders --after 1m --count 10")]
pub(crate) struct Tail {
    /// The stream, which need not exist yet.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    #[command(flatten)]
    pub(crate) part: Part,
    /// Where to start; by default, only entries that are added from now on.
    #[arg(long, value_name = "POSITION", value_parser = place)]
    pub(crate) after: Option<PositionArg>,
    /// Exit after this many entries; by default, never.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

/// Shorten a stream, up to the first entry that a group has not finished.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("cut").required(true).args(["length", "age", "before"]))]
#[command(
    override_usage = "streamjobs trim [OPTIONS] <STREAM> <--length <COUNT>|--age <DURATION>|--before <POSITION>>"
)]
#[command(after_help = "\
Exits with 3 without --yes, or if an unfinished entry stopped the trim.

Example:
  streamjobs trim orders --age 7d --yes")]
pub(crate) struct Trim {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    #[command(flatten)]
    pub(crate) part: Part,
    /// Keep this many of the newest entries, of each partition.
    #[arg(long, value_name = "COUNT")]
    pub(crate) length: Option<u64>,
    /// Keep entries younger than this, by the server's clock.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) age: Option<Duration>,
    /// Keep entries from this position on: an entry id, a time, or an age.
    #[arg(long, value_name = "POSITION", value_parser = position)]
    pub(crate) before: Option<PositionArg>,
    /// Trim to the exact entry, which is slower; otherwise up to about a hundred more entries are
    /// kept.
    #[arg(long)]
    pub(crate) exact: bool,
    /// Also remove entries that groups have not finished; this cannot be undone.
    #[arg(long)]
    pub(crate) lose_unfinished: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}
