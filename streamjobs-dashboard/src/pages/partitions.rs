//! The partitions of a stream, as a table on its page.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use maud::{Markup, html};
use streamjobs::stream::{GroupInfo, Stream, StreamError};

use crate::fault::Fault;
use crate::format::{self, Untrusted};

/// A partition at one moment.
#[derive(Debug)]
pub(crate) struct PartitionFound {
    name: String,
    /// `None` if no event has arrived and no group was created there yet.
    state: Option<PartitionState>,
}

/// The length of a partition and its groups, or why the groups are not known.
type PartitionState = (u64, Result<Vec<GroupInfo>, &'static str>);

/// The first partitions of a stream, and how many more there are. Empty for a stream with only one
/// partition.
#[derive(Debug, Default)]
pub(crate) struct PartitionsFound {
    first: Vec<PartitionFound>,
    more: usize,
}

/// Reads the partitions of a stream that has this many groups.
pub(crate) async fn read(stream: &Stream, groups: usize) -> Result<PartitionsFound, Fault> {
    let mut parts = stream.partitions();
    if parts.len() == 1 {
        return Ok(PartitionsFound::default());
    }
    let more = parts.len().saturating_sub(ROWS_MAX);
    parts.truncate(ROWS_MAX);
    let with_groups = groups.saturating_mul(parts.len()) <= GROUPS_MAX;
    let found = parts.into_iter().map(|part| found(part, with_groups));
    let found = stream::iter(found).buffered(AT_ONCE).try_collect();
    Ok(PartitionsFound { first: found.await?, more })
}

async fn found(part: Stream, with_groups: bool) -> Result<PartitionFound, Fault> {
    let name = part.name().to_string();
    let state = async {
        let length = part.length().await?;
        if !with_groups {
            return Ok((length, Err(TOO_MANY)));
        }
        match part.groups().await {
            Ok(groups) => Ok((length, Ok(groups))),
            Err(error) if error.is_unanswered() => Err(error),
            Err(StreamError::Missing { stream }) => Err(StreamError::Missing { stream }),
            Err(_) => Ok((length, Err(REFUSED))),
        }
    };
    let state = match state.await {
        Ok(state) => Some(state),
        Err(StreamError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(PartitionFound { name, state })
}

/// A row for each partition, with the sums over its groups.
pub(crate) fn table(partitions: &PartitionsFound) -> Markup {
    html! {
        @if !partitions.first.is_empty() {
            h2 { "Partitions" }
            div.scroll tabindex="0" role="region" aria-label="Partitions" { table #partitions {
                thead { tr {
                    th.number scope="col" { "Partition" } th scope="col" { "Stream" } th.number scope="col" { "Entries" }
                    th.number scope="col" { "Waiting" } th.number scope="col" { "Pending" } th.number scope="col" { "Retries" }
                    th.number scope="col" { "Dead letters" } th scope="col" { "Paused" }
                } }
                tbody { @for (number, partition) in partitions.first.iter().enumerate() {
                    (row(number, partition))
                } }
            } }
            @if partitions.more > 0 {
                p.soft { (format::count(partitions.more as u64)) " more partitions are not shown here." }
            }
        }
    }
}

fn row(number: usize, partition: &PartitionFound) -> Markup {
    let (length, groups) = match &partition.state {
        Some((length, groups)) => (*length, groups.as_deref()),
        None => (0, Ok(&[][..])),
    };
    let groups = match groups {
        Ok(groups) => groups,
        Err(why) => {
            return html! {
                tr id={ "part-" (number) } data-partition=(number) {
                    td.number { (number) }
                    td.id { (Untrusted(&partition.name)) }
                    td.number { (format::count(length)) }
                    @for _ in 0..4 { td.number { (format::known(None, why)) } }
                    td { (format::known(None, why)) }
                }
            };
        }
    };
    let sum = |of: fn(&GroupInfo) -> u64| groups.iter().map(of).sum::<u64>();
    let is_exact = groups.iter().all(|group| group.backlog.exact);
    let dead = groups.iter().map(|group| group.dead_letters).sum::<Option<u64>>();
    let paused = groups.iter().filter(|group| group.paused.is_some());
    let paused = paused.map(|group| group.group.as_str()).collect::<Vec<_>>().join(", ");
    html! {
        tr id={ "part-" (number) } data-partition=(number) {
            td.number { (number) }
            td.id { (Untrusted(&partition.name)) }
            td.number { (format::count(length)) }
            td.number { @if !is_exact { "≥ " } (format::count(sum(|group| group.backlog.entries))) }
            td.number { (format::count(sum(|group| group.pending))) }
            td.number { (format::count(sum(|group| group.retrying))) }
            td.number { (format::known(dead, "The key for dead letters has another type.")) }
            td { @if paused.is_empty() { "–" } @else { (Untrusted(&paused)) } }
        }
    }
}

/// The most partitions in the table, which are all asked at the same time.
const ROWS_MAX: usize = 200;
const AT_ONCE: usize = 16;
/// How many groups one page reads in all partitions together; each takes one or two requests.
const GROUPS_MAX: usize = 1_000;
const TOO_MANY: &str = "Not read: the partitions have more than 1,000 groups together.";
const REFUSED: &str = "Redis refused to read a group: one of its keys has another type.";
