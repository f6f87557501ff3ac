//! Decides which guard rows may be deleted, by the oldest unfinished entry of their groups.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use streamjobs::Client;
use streamjobs::service::ServedQueue;
use streamjobs::stream::{OldestUnfinished, StreamError};

use crate::time::Timestamp;

/// The bound of each group, cached for one sweep: rows from that time on stay.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// Groups and streams that this runtime serves: the streams are partitions, because rows name
    /// partitions too.
    served: HashSet<Names>,
    known: HashMap<Names, Bound>,
}

/// A group and a stream.
type Names = (String, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// The group has finished everything.
    Open,
    /// The oldest unfinished entry was published at this time.
    Unfinished(SystemTime),
    /// Redis did not say.
    Unknown,
}

impl Bounds {
    pub(super) fn new(client: &Client, served: &[ServedQueue]) -> Self {
        let names = served.iter().flat_map(|queue| {
            let partitions = client.partitions(&queue.stream).into_iter();
            partitions.map(|partition| (queue.group.to_string(), partition.to_string()))
        });
        Self { served: names.collect(), known: HashMap::new() }
    }

    /// The time before which rows of the group may be deleted, never later than `old`; `None` if
    /// all stay.
    pub(super) async fn before(
        &mut self,
        client: &Client,
        group: &str,
        stream: &str,
        old: SystemTime,
    ) -> Option<SystemTime> {
        let names = (group.to_owned(), stream.to_owned());
        let bound = match self.known.get(&names) {
            Some(bound) => *bound,
            None => {
                let served = self.served.contains(&names);
                let bound = query_bound(client, group, stream, served).await;
                self.known.insert(names, bound);
                bound
            }
        };
        bound.before(old)
    }
}

impl Bound {
    /// Suppose that a row was written before the oldest unfinished entry was published. Then the row's event was also
    /// published before that entry, and the group has finished all entries of that event. The row's time
    /// is from the database's clock, the entry's time from the Redis server's clock.
    fn before(self, old: SystemTime) -> Option<SystemTime> {
        match self {
            Self::Open => Some(old),
            Self::Unfinished(published) => Some(published.checked_sub(CLOCKS_APART_MAX)?.min(old)),
            Self::Unknown => None,
        }
    }
}

async fn query_bound(client: &Client, group: &str, stream: &str, served: bool) -> Bound {
    // An invalid name belongs to no stream or group, so nothing is delivered for it.
    let Ok(stream_handle) = client.stream(stream) else { return Bound::Open };
    // Rows have the partition of their job. The first partition has the name of the whole stream.
    let Some(part) = stream_handle.partitions().into_iter().next() else { return Bound::Open };
    let Ok(queue) = part.group(group) else { return Bound::Open };
    match queue.oldest_unfinished().await {
        Ok(OldestUnfinished { complete: false, .. }) => {
            tracing::warn!(stream, group, "old guard rows kept: too many retries to read them all");
            Bound::Unknown
        }
        Ok(OldestUnfinished { published: None, .. }) => Bound::Open,
        Ok(OldestUnfinished { published: Some(entry), .. }) => {
            Bound::Unfinished(Timestamp::from_millis(entry.milliseconds()).0)
        }
        // The group was removed, unless this runtime serves it and is about to recreate it.
        Err(StreamError::Missing { .. } | StreamError::GroupMissing { .. }) if !served => {
            Bound::Open
        }
        Err(error) => {
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::warn!(
                stream,
                group,
                error,
                "old guard rows kept: cannot read the oldest unfinished entry"
            );
            Bound::Unknown
        }
    }
}

/// The greatest difference between the clocks of the database and the Redis server.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn rows_younger_than_the_oldest_unfinished_stay_and_all_if_it_is_unknown() {
        let at = |minutes: u64| UNIX_EPOCH + Duration::from_secs(minutes * 60);
        assert_eq!(Bound::Open.before(at(100)), Some(at(100)));
        assert_eq!(Bound::Unknown.before(at(100)), None);
        assert_eq!(Bound::Unfinished(at(500)).before(at(100)), Some(at(100)));
        assert_eq!(Bound::Unfinished(at(100)).before(at(100)), Some(at(90)), "clocks differ");
    }
}
