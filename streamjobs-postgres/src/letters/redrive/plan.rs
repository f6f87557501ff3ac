//! The dry run of a redrive.

use sqlx::Row;

use super::Redriving;
use crate::letters::counts::{BY_GROUP, GroupCount};
use crate::letters::letter::columns;
use crate::letters::selection::matching;
use crate::letters::{ArchivedLetter, QueryError, RedriveError};

/// What a redrive would do if it were started now. Later, other dead letters may match.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RedrivePlan {
    /// The number of matching dead letters.
    pub letters: u64,
    /// The number of those that would fail, because their payload was trimmed or has more than
    /// 1,000 fields.
    pub not_runnable: u64,
    /// The number of matching dead letters of each group, largest first.
    pub by_group: Vec<GroupCount>,
    /// The ten that would be redriven first.
    pub sample: Vec<ArchivedLetter>,
}

impl Redriving {
    /// What the redrive would do. It writes nothing, in Postgres or in Redis.
    ///
    /// # Errors
    ///
    /// When the request or the selection is invalid, or the database refuses or cannot be
    /// reached.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn dry_run(&self) -> Result<RedrivePlan, RedriveError> {
        self.check().await?;
        let plan = self.plan().await;
        Ok(plan.map_err(|source| QueryError::database("plan a redrive of", source))?)
    }

    /// Reads one snapshot of the database, so that the numbers are consistent.
    async fn plan(&self) -> Result<RedrivePlan, sqlx::Error> {
        let (postgres, selection) = (&self.letters.postgres, &self.selection);
        let statement = |statement| postgres.query(statement);
        let mut snapshot = postgres.begin_reading().await?;
        let groups = selection.bind(statement(BY_GROUP)).fetch_all(&mut *snapshot).await?;
        let not_runnable =
            selection.bind(statement(NOT_RUNNABLE)).fetch_one(&mut *snapshot).await?;
        let sample = selection.bind(statement(SAMPLE)).fetch_all(&mut *snapshot).await?;
        let by_group = groups.iter().map(GroupCount::of).collect::<Result<Vec<_>, _>>()?;
        let not_runnable = not_runnable.try_get::<i64, _>("letters")?;
        Ok(RedrivePlan {
            letters: by_group.iter().map(|group| group.letters).sum(),
            not_runnable: u64::try_from(not_runnable).unwrap_or(0),
            by_group,
            sample: sample.iter().map(ArchivedLetter::of).collect::<Result<_, _>>()?,
        })
    }
}

const NOT_RUNNABLE: &str = concat!(
    "SELECT count(*) AS letters FROM streamjobs.dead_letters l
     WHERE NOT (cardinality(l.field_names) BETWEEN 1 AND 1000) AND ",
    matching!(),
);

const SAMPLE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM streamjobs.dead_letters l WHERE ",
    matching!(),
    " ORDER BY l.id LIMIT 10",
);
