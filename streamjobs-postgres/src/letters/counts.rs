//! Counting dead letters, by group and by kind of failure.

use std::time::SystemTime;

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::selection::matching;
use super::{DeadLetters, QueryError, Selection};
use crate::time::Timestamp;

/// The number of dead letters of one group on one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupCount {
    /// The stream.
    pub stream: String,
    /// The group.
    pub group: String,
    /// The number of dead letters.
    pub letters: u64,
    /// When the first of them was dead-lettered.
    pub first_seen: SystemTime,
    /// When the last of them was dead-lettered.
    pub last_seen: SystemTime,
}

/// The number of dead letters of one kind of failure: of one group and event type, with the same
/// reason and fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KindCount {
    /// The stream.
    pub stream: String,
    /// The group.
    pub group: String,
    /// The event type, if it is known.
    pub event_type: Option<String>,
    /// Why they were dead-lettered: the name of a [`Reason`](streamjobs::dead_letter::Reason).
    pub reason: String,
    /// The fingerprint of their errors.
    pub fingerprint: String,
    /// The number of dead letters.
    pub letters: u64,
    /// When the first of them was dead-lettered.
    pub first_seen: SystemTime,
    /// When the last of them was dead-lettered.
    pub last_seen: SystemTime,
    /// The error of the dead letter that was archived last.
    pub error: Option<String>,
}

impl DeadLetters {
    /// The number of dead letters of a selection.
    ///
    /// # Errors
    ///
    /// When the selection is invalid, or the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn count(&self, selection: &Selection) -> Result<u64, QueryError> {
        let selection = &self.scope.of(selection);
        self.check(selection).await?;
        let failed = |source| QueryError::database("count", source);
        let mut reading = self.postgres.begin_reading().await.map_err(failed)?;
        let query = selection.bind(self.postgres.query(COUNT));
        let row = query.fetch_one(&mut *reading).await.map_err(failed)?;
        number(&row, "letters").map_err(failed)
    }

    /// The number of dead letters of each group, largest first.
    ///
    /// # Errors
    ///
    /// When the selection is invalid, or the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn counts_by_group(
        &self,
        selection: &Selection,
    ) -> Result<Vec<GroupCount>, QueryError> {
        self.counted(selection, BY_GROUP, GroupCount::of).await
    }

    /// The number of dead letters of each kind of failure, largest first: at most 1,000 kinds.
    ///
    /// # Errors
    ///
    /// When the selection is invalid, or the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn counts_by_fingerprint(
        &self,
        selection: &Selection,
    ) -> Result<Vec<KindCount>, QueryError> {
        self.counted(selection, BY_FINGERPRINT, KindCount::of).await
    }

    async fn counted<T>(
        &self,
        selection: &Selection,
        statement: &'static str,
        read: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, QueryError> {
        let selection = &self.scope.of(selection);
        self.check(selection).await?;
        let failed = |source| QueryError::database("count", source);
        let mut reading = self.postgres.begin_reading().await.map_err(failed)?;
        let query = selection.bind(self.postgres.query(statement));
        let rows = query.fetch_all(&mut *reading).await.map_err(failed)?;
        rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
    }
}

impl GroupCount {
    pub(super) fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            stream: row.try_get("stream")?,
            group: row.try_get("group_name")?,
            letters: number(row, "letters")?,
            first_seen: row.try_get::<Timestamp, _>("first_seen")?.0,
            last_seen: row.try_get::<Timestamp, _>("last_seen")?.0,
        })
    }
}

impl KindCount {
    pub(super) fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            stream: row.try_get("stream")?,
            group: row.try_get("group_name")?,
            event_type: row.try_get("event_type")?,
            reason: row.try_get("reason")?,
            fingerprint: row.try_get("fingerprint")?,
            letters: number(row, "letters")?,
            first_seen: row.try_get::<Timestamp, _>("first_seen")?.0,
            last_seen: row.try_get::<Timestamp, _>("last_seen")?.0,
            error: row.try_get("error")?,
        })
    }
}

/// A count, which the database returns as a signed number.
pub(super) fn number(row: &PgRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
}

const COUNT: &str =
    concat!("SELECT count(*) AS letters FROM streamjobs.dead_letters l WHERE ", matching!());

pub(super) const BY_GROUP: &str = concat!(
    "SELECT l.stream, l.group_name, count(*) AS letters,
            min(l.buried_at) AS first_seen, max(l.buried_at) AS last_seen
     FROM streamjobs.dead_letters l WHERE ",
    matching!(),
    " GROUP BY l.stream, l.group_name
     ORDER BY letters DESC, l.stream, l.group_name",
);

/// The sample error is read by its row's number after the kinds are counted, because an aggregate
/// of the errors would keep all of them in memory.
const BY_FINGERPRINT: &str = concat!(
    "WITH kinds AS (
         SELECT l.stream, l.group_name, l.event_type, l.reason, l.fingerprint,
                count(*) AS letters,
                min(l.buried_at) AS first_seen, max(l.buried_at) AS last_seen,
                max(l.id) AS newest
         FROM streamjobs.dead_letters l WHERE ",
    matching!(),
    " GROUP BY l.stream, l.group_name, l.event_type, l.reason, l.fingerprint
         ORDER BY letters DESC, newest DESC
         LIMIT 1000
     )
     SELECT k.*, n.error FROM kinds k JOIN streamjobs.dead_letters n ON n.id = k.newest
     ORDER BY k.letters DESC, k.newest DESC",
);
