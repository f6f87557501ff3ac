//! Reading the archive for people who look at it, within bounds.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Row};
use tokio::time::timeout;

use super::counts::{GroupCount, KindCount, number};
use super::examined::{OPEN, Statements};
use super::letter::ArchivedLetter;
use super::redrive::{REDRIVES, Redrive};
use super::scope::Scope;
use super::{DeadLetters, GET, LetterId, PARSE, Page, QueryError, Selection, path_error};
use crate::postgres::Postgres;
use crate::statement::BoundedReading;
use crate::turns::Turn;

/// The archive for pages that people look at: no query of such a page can stop guarded jobs.
///
/// - All views of one [`Postgres`] use at most two connections of its pool at once. A call waits two seconds for one
///   of them, and then fails with [`QueryError::Busy`].
/// - The server ends a statement after two seconds, and a wait for a lock after one second.
/// - A call examines the newest 10,000 dead letters: of one group on one stream, of one
///   fingerprint, of the open ones, or of all, depending on the selection. It applies the other
///   filters to these. So a call costs the same however many dead letters there are, and it says
///   whether there are more.
///
/// Cheap to clone.
///
/// # Cancel safety
///
/// Every call can be dropped at any time: its connection is closed, and the pool can open another connection at once.
/// Another view gets the place of a dropped call only when the server has ended that call's statement.
#[derive(Clone, Debug)]
pub struct View {
    postgres: Postgres,
    scope: Scope,
}

/// The kinds of failure among the dead letters that a [`View`] examined.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KindsView {
    /// The kinds, largest first: at most 1,000.
    pub kinds: Vec<KindCount>,
    /// The number of dead letters of all kinds.
    pub letters: u64,
    /// Whether there may be more dead letters than were examined.
    pub more: bool,
}

/// The open dead letters, by group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenView {
    /// The number of open dead letters of each group on each stream that has any: at most 200.
    pub by_group: Vec<OpenCount>,
    /// Whether more groups have open dead letters, so that a group that is missing may have some.
    pub more: bool,
}

/// The number of open dead letters of one group on one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenCount {
    /// The stream.
    pub stream: String,
    /// The group.
    pub group: String,
    /// The number of open dead letters, counted up to 1,000.
    pub letters: u64,
    /// Whether there are more.
    pub more: bool,
}

/// What a redrive of a selection would do, judged by the dead letters that a [`View`] examined.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanView {
    /// The number of matching dead letters.
    pub letters: u64,
    /// The number of those that would fail, because their payload was trimmed or has more than
    /// 1,000 fields.
    pub not_runnable: u64,
    /// The number of matching dead letters of each group, largest first.
    pub by_group: Vec<GroupCount>,
    /// Whether there may be more dead letters than were examined.
    pub more: bool,
}

impl DeadLetters {
    /// A view for pages: bounded in connections, time and rows.
    pub fn view(&self) -> View {
        View { postgres: self.postgres.clone(), scope: self.scope.clone() }
    }
}

impl View {
    /// Dead letters without their payloads, newest first: those archived before `after`, at most
    /// `limit`, and never more than 200.
    ///
    /// Pass [`Page::next`] as `after` to get the next page, even after a page with fewer than
    /// `limit`. It is `None` when all were examined.
    ///
    /// # Errors
    ///
    /// When the selection is invalid, the views are busy, or the database refuses, takes too long or
    /// cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn list(
        &self,
        selection: &Selection,
        after: Option<LetterId>,
        limit: usize,
    ) -> Result<Page, QueryError> {
        let mut glance = self.begin("list").await?;
        let page =
            self.page(&self.scope.of(selection), after, limit, glance.reading.connection()).await;
        glance.end("list", page).await
    }

    /// One dead letter with its payload, in any state; `None` if the archive has none with this
    /// number.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn get(&self, id: LetterId) -> Result<Option<ArchivedLetter>, QueryError> {
        let mut glance = self.begin("read").await?;
        let get = self.postgres.query(GET).bind(id.get());
        let row = get.fetch_optional(glance.reading.connection()).await;
        let letter = row.and_then(|row| row.as_ref().map(ArchivedLetter::of).transpose());
        let letter = glance.end("read", letter.map_err(failed("read"))).await?;
        Ok(letter.filter(|letter| self.scope.includes(&letter.stream)))
    }

    /// The kinds of failure among the selected dead letters.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn kinds(&self, selection: &Selection) -> Result<KindsView, QueryError> {
        let selection = &self.scope.of(selection);
        let mut glance = self.begin("count").await?;
        let counted = self
            .count(Statements::of(selection).kinds, selection, glance.reading.connection())
            .await;
        let (rows, more) = glance.end("count", counted).await?;
        let kinds = rows.iter().map(KindCount::of).collect::<Result<_, _>>();
        let letters = rows.first().map_or(Ok(0), |row| number(row, "all_letters"));
        let failed = failed("count");
        Ok(KindsView { kinds: kinds.map_err(failed)?, letters: letters.map_err(failed)?, more })
    }

    /// The number of open dead letters of each group, for at most 200 groups.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn open(&self) -> Result<OpenView, QueryError> {
        let mut glance = self.begin("count").await?;
        let open = self.postgres.query(OPEN).bind(self.scope.streams());
        let open = open.fetch_all(glance.reading.connection()).await;
        let counts = open.and_then(|rows| rows.iter().map(OpenCount::of).collect());
        let mut by_group: Vec<_> = glance.end("count", counts.map_err(failed("count"))).await?;
        let more = by_group.len() > GROUPS_MAX;
        by_group.truncate(GROUPS_MAX);
        Ok(OpenView { by_group, more })
    }

    /// The newest redrives: at most 200.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn redrives(&self, limit: usize) -> Result<Vec<Redrive>, QueryError> {
        let mut glance = self.begin("list the redrives of").await?;
        let limit = i64::try_from(limit.clamp(1, PAGE_MAX)).unwrap_or(i64::MAX);
        let redrives = self.postgres.query(REDRIVES).bind(i64::MAX).bind(limit);
        let redrives = redrives.bind(self.scope.streams());
        let rows = redrives.fetch_all(glance.reading.connection()).await;
        let redrives = rows.and_then(|rows| rows.iter().map(Redrive::of).collect());
        glance.end("list", redrives.map_err(failed("list the redrives of"))).await
    }

    /// What a redrive of the selected dead letters would do.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn plan(&self, selection: &Selection) -> Result<PlanView, QueryError> {
        let selection = &self.scope.of(selection);
        let mut glance = self.begin("count").await?;
        let counted = self
            .count(Statements::of(selection).plan, selection, glance.reading.connection())
            .await;
        let (rows, more) = glance.end("count", counted).await?;
        let failed = failed("count");
        let mut plan = PlanView { letters: 0, not_runnable: 0, by_group: Vec::new(), more };
        for row in &rows {
            let group = GroupCount::of(row).map_err(failed)?;
            plan.letters += group.letters;
            plan.not_runnable += number(row, "not_runnable").map_err(failed)?;
            plan.by_group.push(group);
        }
        Ok(plan)
    }

    async fn begin(&self, action: &'static str) -> Result<Glance<'_>, QueryError> {
        let busy = |what| QueryError::Busy { what };
        let turn = self.postgres.views().take(WAIT_MAX).await;
        let mut turn = turn.ok_or_else(|| busy("the maximum number of pages is being read"))?;
        let reading = match timeout(WAIT_MAX, self.postgres.begin_bounded()).await {
            Ok(reading) => reading.map_err(failed(action))?,
            Err(_) if self.postgres.is_pool_in_use() => {
                return Err(busy("all connections of its pool are in use"));
            }
            Err(_) => return Err(failed(action)(sqlx::Error::PoolTimedOut)),
        };
        turn.asks(true);
        Ok(Glance { reading, turn })
    }

    async fn page(
        &self,
        selection: &Selection,
        after: Option<LetterId>,
        limit: usize,
        connection: &mut PgConnection,
    ) -> Result<Page, QueryError> {
        self.check(selection, connection).await?;
        let limit = limit.clamp(1, PAGE_MAX);
        let list = self.selected(Statements::of(selection).list, selection, after);
        let list = list.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = list.fetch_all(&mut *connection).await;
        let letters = rows.and_then(|rows| rows.iter().map(ArchivedLetter::of).collect());
        let letters: Vec<_> = letters.map_err(failed("list"))?;
        let next = match letters.last() {
            Some(last) if letters.len() == limit => Some(last.id),
            _ => self.end(selection, after, connection).await?,
        };
        Ok(Page { letters, next })
    }

    /// The rows of a statement that counts, and whether there are more dead letters than were
    /// examined.
    async fn count(
        &self,
        statement: &'static str,
        selection: &Selection,
        connection: &mut PgConnection,
    ) -> Result<(Vec<PgRow>, bool), QueryError> {
        self.check(selection, connection).await?;
        let rows = self.selected(statement, selection, None).fetch_all(&mut *connection).await;
        let rows = rows.map_err(failed("count"))?;
        Ok((rows, self.end(selection, None, connection).await?.is_some()))
    }

    /// The last dead letter that is examined, if there are at least as many as the limit.
    async fn end(
        &self,
        selection: &Selection,
        after: Option<LetterId>,
        connection: &mut PgConnection,
    ) -> Result<Option<LetterId>, QueryError> {
        let end = self
            .selected(Statements::of(selection).end, selection, after)
            .fetch_optional(connection)
            .await;
        let end = end.and_then(|row| row.map(|row| row.try_get::<i64, _>("id")).transpose());
        Ok(end.map_err(failed("list"))?.map(LetterId::new))
    }

    fn selected<'q>(
        &self,
        statement: &'static str,
        selection: &Selection,
        after: Option<LetterId>,
    ) -> Query<'q, sqlx::Postgres, PgArguments> {
        selection.bind(self.postgres.query(statement)).bind(after.map(LetterId::get))
    }

    async fn check(
        &self,
        selection: &Selection,
        connection: &mut PgConnection,
    ) -> Result<(), QueryError> {
        selection.check()?;
        for (filter, path) in selection.paths() {
            let parsed = self.postgres.query(PARSE).bind(path).fetch_one(&mut *connection).await;
            parsed.map_err(|error| path_error(filter, error))?;
        }
        Ok(())
    }
}

/// One read of a view.
struct Glance<'a> {
    reading: BoundedReading,
    turn: Turn<'a>,
}

impl Glance<'_> {
    /// Gives the connection and the turn back, unless the server did not answer.
    async fn end<T>(
        mut self,
        action: &'static str,
        result: Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let is_unanswered = matches!(
            &result,
            Err(QueryError::Database { source, .. }) if source.as_database_error().is_none()
        );
        if !is_unanswered {
            self.reading.end().await.map_err(failed(action))?;
        }
        self.turn.asks(is_unanswered);
        result
    }
}

impl OpenCount {
    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let letters = number(row, "letters")?;
        Ok(Self {
            stream: row.try_get("stream")?,
            group: row.try_get("group_name")?,
            letters: letters.min(OPEN_MAX),
            more: letters > OPEN_MAX,
        })
    }
}

fn failed(action: &'static str) -> impl Fn(sqlx::Error) -> QueryError + Copy {
    move |source| QueryError::database(action, source)
}

/// How long a call waits for a turn, and then for a connection of the pool.
const WAIT_MAX: Duration = Duration::from_secs(2);
const PAGE_MAX: usize = 200;
/// The most groups that are counted: one less than [`OPEN`] returns.
const GROUPS_MAX: usize = 200;
/// How far the letters of a group are counted: one less than [`OPEN`] counts.
const OPEN_MAX: u64 = 1_000;
