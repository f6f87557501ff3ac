//! The archived dead letters: querying, counting, deleting and redriving them.
//!
//! ```no_run
//! # async fn example(
//! #     postgres: streamjobs_postgres::Postgres,
//! #     client: streamjobs::Client,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use streamjobs_postgres::letters::{Request, Selection};
//!
//! let letters = postgres.dead_letters();
//! for kind in letters.counts_by_fingerprint(&Selection::new()).await? {
//!     println!("{} x {} in {}: {:?}", kind.letters, kind.event_type.as_deref().unwrap_or("?"),
//!         kind.group, kind.error);
//! }
//!
//! let declined = Selection::new().group("billing").error_contains("card declined");
//! let request = Request::new("alice", "the bank is back, ticket 4711");
//! let redrive = letters.redrive(declined, request).rate(50.try_into()?).stop_after(10.try_into()?);
//! println!("would redrive {} dead letters", redrive.dry_run().await?.letters);
//! let report = redrive.start(&client).await?;
//! println!("{} jobs put back, {} failed", report.done, report.failed);
//! # Ok(())
//! # }
//! ```

mod counts;
mod error;
mod examined;
mod id;
mod letter;
mod redrive;
mod scope;
mod selection;
mod upkeep;
mod view;

use streamjobs::StreamName;

use crate::postgres::Postgres;

pub use self::counts::{GroupCount, KindCount};
pub use self::error::{Interruption, QueryError, RedriveError};
pub use self::id::{LetterId, RedriveId};
pub use self::letter::ArchivedLetter;
pub use self::redrive::{
    LetterOutcome, OutcomeState, Redrive, RedrivePlan, RedriveState, Redriving, Request,
};
pub use self::selection::{LetterState, Selection, SelectionError};
pub use self::view::{KindsView, OpenCount, OpenView, PlanView, View};

use self::letter::columns;
use self::scope::Scope;
use self::selection::matching;

impl Postgres {
    /// The dead letters that are archived in this database.
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters { postgres: self.clone(), scope: Scope::all() }
    }
}

/// The archived dead letters of all groups on all streams, or on [some](Self::of_streams).
///
/// Cheap to clone. Each call uses a connection of the pool for as long as it runs.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    postgres: Postgres,
    scope: Scope,
}

/// A page of dead letters, newest first.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The dead letters.
    pub letters: Vec<ArchivedLetter>,
    /// Where the next page begins; `None` on the last page.
    pub next: Option<LetterId>,
}

impl DeadLetters {
    /// A handle that has only the dead letters of these streams: it neither returns, counts, redrives nor deletes
    /// others. It has the redrives whose selection names only these streams, as those do that were requested through
    /// such a handle.
    ///
    /// The partitions of a stream are streams of their own here: see [`Client::partitions`].
    ///
    /// [`Client::partitions`]: streamjobs::Client::partitions
    pub fn of_streams(mut self, streams: impl IntoIterator<Item = StreamName>) -> Self {
        let streams = streams.into_iter().map(|stream| stream.as_str().to_owned());
        self.scope = self.scope.and(streams);
        self
    }

    /// Dead letters with their payloads, newest first: those archived before `after`, at most
    /// `limit`, and never more than 1,000.
    ///
    /// Pass [`Page::next`] as `after` to get the next page. Each dead letter is on one page; dead
    /// letters that are archived meanwhile come before the first page.
    ///
    /// # Errors
    ///
    /// When the selection is invalid, or the database refuses or cannot be reached.
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
        let selection = &self.scope.of(selection);
        self.check(selection).await?;
        let limit = limit.clamp(1, PAGE_MAX);
        let failed = |source| QueryError::database("list", source);
        let mut reading = self.postgres.begin_reading().await.map_err(failed)?;
        let query = selection.bind(self.postgres.query(LIST));
        let rows = query
            .bind(after.map(LetterId::get))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *reading)
            .await
            .map_err(failed)?;
        let letters = rows.iter().map(ArchivedLetter::of).collect::<Result<Vec<_>, _>>();
        let letters = letters.map_err(|source| QueryError::database("read", source))?;
        let next =
            if letters.len() < limit { None } else { letters.last().map(|letter| letter.id) };
        Ok(Page { letters, next })
    }

    /// One dead letter, in any state; `None` if the archive has none with this number.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn get(&self, id: LetterId) -> Result<Option<ArchivedLetter>, QueryError> {
        let failed = |source| QueryError::database("read", source);
        let mut reading = self.postgres.begin_reading().await.map_err(failed)?;
        let query = self.postgres.query(GET).bind(id.get());
        let row = query.fetch_optional(&mut *reading).await.map_err(failed)?;
        let letter = row.as_ref().map(ArchivedLetter::of).transpose().map_err(failed)?;
        Ok(letter.filter(|letter| self.scope.includes(&letter.stream)))
    }

    /// Whether a selection is valid: first its values, then its paths, which the database parses.
    ///
    /// The paths are also evaluated on an empty document, which finds variables that are not set.
    /// If the paths were evaluated only on payloads, this error would depend on what the payloads
    /// contain.
    async fn check(&self, selection: &Selection) -> Result<(), QueryError> {
        selection.check()?;
        for (filter, path) in selection.paths() {
            let failed = |source| QueryError::database("check a path into", source);
            // One transaction for each path, because a path that is refused aborts its transaction.
            let mut reading = self.postgres.begin_reading().await.map_err(failed)?;
            let parsed = self.postgres.query(PARSE).bind(path).fetch_one(&mut *reading).await;
            parsed.map_err(|error| path_error(filter, error))?;
        }
        Ok(())
    }
}

/// The meaning of an error of evaluating a path on an empty document.
fn path_error(filter: &'static str, error: sqlx::Error) -> QueryError {
    match error {
        sqlx::Error::Database(refused) if is_syntax(refused.code().as_deref()) => {
            SelectionError::Path { filter, message: refused.message().to_owned() }.into()
        }
        source => QueryError::database("check a path into", source),
    }
}

/// Whether the database could not parse a value: a syntax error, a variable that is not set, or an
/// error of class 22, such as an invalid regular expression or number.
fn is_syntax(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("22") || matches!(code, "42601" | "42704"))
}

const PARSE: &str = "SELECT jsonb_path_exists('null', $1::text::jsonpath, '{}', true)";
const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM streamjobs.dead_letters l WHERE ",
    matching!(),
    " AND ($15::bigint IS NULL OR l.id < $15) ORDER BY l.id DESC LIMIT $16",
);
const GET: &str = concat!("SELECT ", columns!(), " FROM streamjobs.dead_letters l WHERE l.id = $1");
const PAGE_MAX: usize = 1_000;
