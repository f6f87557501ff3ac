//! Which rows of the guard may go, by what their groups have not finished.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use streamjobs::Client;
use streamjobs::service::ServedQueue;
use streamjobs::stream::{OldestUnfinished, StreamError};

use crate::time::Timestamp;

/// From when on the rows of each group stay. Asked once for each, and good for one sweep.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// Groups and streams that the runtime works for.
    served: HashSet<Names>,
    known: HashMap<Names, Bound>,
}

/// A group and a stream.
type Names = (String, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// Nothing is left to do.
    Open,
    /// Something published then is left to do.
    Unfinished(SystemTime),
    /// Nobody could tell.
    Unknown,
}

impl Bounds {
    pub(super) fn new(served: &[ServedQueue]) -> Self {
        let names = |queue: &ServedQueue| (queue.group.to_string(), queue.stream.to_string());
        Self { served: served.iter().map(names).collect(), known: HashMap::new() }
    }

    /// Before when rows of the group may go, of those that are old enough; none where none may.
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
    /// An event whose row was written before the oldest unfinished entry was published was
    /// published before that, too: none of its own entries is left. The row's time is the
    /// database's, the entry's is the server's.
    fn before(self, old: SystemTime) -> Option<SystemTime> {
        match self {
            Self::Open => Some(old),
            Self::Unfinished(published) => Some(published.checked_sub(CLOCKS_APART_MAX)?.min(old)),
            Self::Unknown => None,
        }
    }
}

async fn query_bound(client: &Client, group: &str, stream: &str, served: bool) -> Bound {
    // What nothing can be called delivers nothing.
    let Ok(queue) = client.stream(stream) else { return Bound::Open };
    let Ok(queue) = queue.group(group) else { return Bound::Open };
    match queue.oldest_unfinished().await {
        Ok(OldestUnfinished { complete: false, .. }) => {
            tracing::warn!(stream, group, "old rows stay: very many failed jobs wait");
            Bound::Unknown
        }
        Ok(OldestUnfinished { published: None, .. }) => Bound::Open,
        Ok(OldestUnfinished { published: Some(entry), .. }) => {
            Bound::Unfinished(Timestamp::from_millis(entry.milliseconds()).0)
        }
        // It was given up, unless it is one that a runtime is about to make again.
        Err(StreamError::Missing { .. } | StreamError::GroupMissing { .. }) if !served => {
            Bound::Open
        }
        Err(error) => {
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::warn!(
                stream,
                group,
                error,
                "old rows stay: the server does not say what is unfinished"
            );
            Bound::Unknown
        }
    }
}

/// How far the clocks of database and server may be apart.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn rows_younger_than_anything_unfinished_stay_and_all_where_nobody_can_tell() {
        let at = |minutes: u64| UNIX_EPOCH + Duration::from_secs(minutes * 60);
        assert_eq!(Bound::Open.before(at(100)), Some(at(100)));
        assert_eq!(Bound::Unknown.before(at(100)), None);
        assert_eq!(Bound::Unfinished(at(500)).before(at(100)), Some(at(100)));
        assert_eq!(Bound::Unfinished(at(100)).before(at(100)), Some(at(90)), "clocks differ");
    }
}
