//! Counts of open dead letters in the archive, by group.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::fault::Fault;
use crate::format::Counted;

/// The archive of dead letters.
#[cfg(feature = "postgres")]
pub(crate) type Archive = streamjobs_postgres::Postgres;
/// Uninhabited: without the feature there is no archive.
#[cfg(not(feature = "postgres"))]
#[derive(Clone, Debug)]
pub(crate) enum Archive {}

/// Open letters by stream and group, or why the count failed.
pub(crate) type Counts = Result<HashMap<(String, String), Counted>, Fault>;

/// The last count. It is taken less often than Redis is sampled, because it may read a thousand rows
/// for each group.
#[derive(Debug, Default)]
pub(crate) struct Archived {
    last: Option<(Instant, Counts)>,
}

impl Archived {
    /// The last count, or a new one if that is older than ten seconds. `None` without an archive.
    pub(crate) async fn counts(&mut self, archive: Option<&Archive>) -> Option<&Counts> {
        let archive = archive?;
        if self.last.as_ref().is_none_or(|(taken, _)| taken.elapsed() >= EVERY) {
            self.last = Some((Instant::now(), count(archive).await));
        }
        self.last.as_ref().map(|(_, counts)| counts)
    }
}

#[cfg(feature = "postgres")]
async fn count(archive: &Archive) -> Counts {
    let view = archive.dead_letters().view();
    match tokio::time::timeout(ANSWER_MAX, view.open()).await {
        Ok(Ok(groups)) => Ok(groups
            .into_iter()
            .map(|open| {
                let counted = Counted { number: open.letters, more: open.more };
                ((open.stream, open.group), counted)
            })
            .collect()),
        Ok(Err(error)) => Err(Fault::archive(Fault::error_chain(&error))),
        Err(_) => Err(Fault::archive("The archive did not answer within 2 s.")),
    }
}

#[cfg(not(feature = "postgres"))]
async fn count(archive: &Archive) -> Counts {
    match *archive {}
}

const EVERY: Duration = Duration::from_secs(10);
#[cfg(feature = "postgres")]
const ANSWER_MAX: Duration = Duration::from_secs(2);
