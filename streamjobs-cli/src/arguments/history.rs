//! What can be done with a stream's history: reading it, following it, shortening it.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use streamjobs::StreamName;

use super::Consent;
use super::values::{Place, duration, place, stream};

#[derive(Debug, Subcommand)]
pub(crate) enum History {
    Replay(Replay),
    Tail(Tail),
    Trim(Trim),
}

/// Print a part of a stream's history with its payloads, oldest first; no group is touched.
#[derive(Args, Debug)]
#[command(after_help = "\
A place is an entry id, milliseconds since 1970, a time such as 2025-11-24T16:00:00Z, or how long
ago, such as 10m. With --json, one document for each entry.

Example:
  streamjobs replay orders --from 10m --type order.placed")]
pub(crate) struct Replay {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// Where to begin, with that entry; at the beginning by default.
    #[arg(long, value_name = "PLACE", value_parser = place)]
    pub(crate) from: Option<Place>,
    /// Where to end, with that entry; at the end by default.
    #[arg(long, value_name = "PLACE", value_parser = place)]
    pub(crate) to: Option<Place>,
    /// How many entries at most; all by default.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Only entries of this event type; may be given several times.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) types: Vec<String>,
}

/// Follow a stream: print entries with their payloads as they are appended; no group is touched.
#[derive(Args, Debug)]
#[command(after_help = "\
A place is an entry id to go on after, milliseconds since 1970, a time such as 2025-11-24T16:00:00Z,
or how long ago, such as 10m. With --json, one document for each entry.

Example:
  streamjobs tail orders --after 1m --count 10")]
pub(crate) struct Tail {
    /// The stream; it need not be there yet.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// Where to begin; with what comes from now on by default.
    #[arg(long, value_name = "PLACE", value_parser = place)]
    pub(crate) after: Option<Place>,
    /// After how many entries to end; never by default.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

/// Shorten a stream, as far as every group has done its work.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("cut").required(true).args(["length", "age", "before"]))]
#[command(
    override_usage = "streamjobs trim [OPTIONS] <STREAM> <--length <COUNT>|--age <DURATION>|--before <PLACE>>"
)]
#[command(after_help = "\
Ends with 3 without --yes, and if a group that has work left held the cut up.

Example:
  streamjobs trim orders --age 7d --yes")]
pub(crate) struct Trim {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// Keep so many of the newest entries.
    #[arg(long, value_name = "COUNT")]
    pub(crate) length: Option<u64>,
    /// Keep entries that are younger than this, by the server's clock.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) age: Option<Duration>,
    /// Keep entries from this one on: an id, a time, or how long ago.
    #[arg(long, value_name = "PLACE", value_parser = place)]
    pub(crate) before: Option<Place>,
    /// Cut to the entry, which is much dearer; otherwise up to about a hundred more stay.
    #[arg(long)]
    pub(crate) exact: bool,
    /// Remove entries that groups have not done as well. There is no way back.
    #[arg(long)]
    pub(crate) lose_unfinished: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}
