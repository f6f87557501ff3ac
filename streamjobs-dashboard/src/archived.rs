//! Counts of open dead letters in the archive, by group.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use streamjobs::StreamName;
use tokio::time::Instant;

use crate::fault::Fault;
use crate::format::Counted;

/// The archive of dead letters, of the streams that are shown.
#[cfg(feature = "postgres")]
pub(crate) type Archive = streamjobs_postgres::letters::DeadLetters;
/// Uninhabited: without the feature there is no archive.
#[cfg(not(feature = "postgres"))]
#[derive(Clone, Debug)]
pub(crate) enum Archive {}

/// Open letters by stream and group, or why the count failed.
pub(crate) type Counts = Result<OpenLetters, Fault>;

/// Open letters by stream and group.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenLetters {
    by_group: HashMap<(String, String), Counted>,
    /// Whether further groups have open letters too.
    more: bool,
}

impl OpenLetters {
    /// Open letters of a group; `None` if they were not counted, because too many groups have open
    /// letters.
    fn of(&self, stream: &str, group: &str) -> Option<Counted> {
        let counted = self.by_group.get(&(stream.to_owned(), group.to_owned())).copied();
        counted.or_else(|| (!self.more).then(Counted::default))
    }

    /// Open letters of a group in all partitions of a stream.
    pub(crate) fn of_all(&self, parts: &[StreamName], group: &str) -> Option<Counted> {
        let counted = parts.iter().map(|part| self.of(part.as_str(), group));
        counted.into_iter().try_fold(Counted::default(), |sum, part| Some(sum.plus(part?)))
    }
}

/// The last count. Counting is less frequent than sampling Redis, because it may read a thousand
/// rows for each group.
#[derive(Debug, Default)]
pub(crate) struct Archived {
    last: Option<(Instant, Counts)>,
}

impl Archived {
    /// The last count, or a new count if the last is older than ten seconds. `None` without an
    /// archive.
    pub(crate) async fn counts(&mut self, archive: Option<&Archive>) -> Option<&Counts> {
        let archive = archive?;
        if self.last.as_ref().is_none_or(|(taken, _)| taken.elapsed() >= EVERY) {
            self.last = Some((Instant::now(), count(archive).await));
        }
        self.last.as_ref().map(|(_, counts)| counts)
    }
}

/// The archive with the letters of these streams alone, if any are named.
#[cfg(feature = "postgres")]
pub(crate) fn limited(
    archive: Option<Archive>,
    only: Option<&BTreeSet<StreamName>>,
) -> Option<Archive> {
    let limited = |archive: Archive| match only {
        Some(only) => archive.of_streams(only.iter().cloned()),
        None => archive,
    };
    archive.map(limited)
}

#[cfg(not(feature = "postgres"))]
pub(crate) fn limited(
    archive: Option<Archive>,
    _only: Option<&BTreeSet<StreamName>>,
) -> Option<Archive> {
    archive
}

#[cfg(feature = "postgres")]
async fn count(archive: &Archive) -> Counts {
    let view = archive.view();
    match tokio::time::timeout(ANSWER_MAX, view.open()).await {
        Ok(Ok(open)) => {
            let counted = open.by_group.into_iter().map(|open| {
                let counted = Counted { number: open.letters, more: open.more };
                ((open.stream, open.group), counted)
            });
            Ok(OpenLetters { by_group: counted.collect(), more: open.more })
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_missing_has_no_letters_unless_others_are_missing_too() {
        let counted = Counted { number: 7, more: false };
        let by_group = HashMap::from([(("orders".to_owned(), "mail".to_owned()), counted)]);
        let all = OpenLetters { by_group: by_group.clone(), more: false };
        let cut = OpenLetters { by_group, more: true };
        assert_eq!(
            (all.of("orders", "mail"), cut.of("orders", "mail")),
            (Some(counted), Some(counted))
        );
        assert_eq!(
            (all.of("orders", "x"), cut.of("orders", "x")),
            (Some(Counted::default()), None)
        );
    }
}
