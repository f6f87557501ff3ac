//! The name of the schema, and the statements for it: the only module that builds SQL text.

use std::fmt;
use std::str::FromStr;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use thiserror::Error;

/// The name of a schema: a valid unquoted Postgres identifier of at most 63 bytes.
///
/// ```
/// use streamjobs_postgres::SchemaName;
///
/// assert_eq!(SchemaName::default().as_str(), "streamjobs");
/// assert!(SchemaName::new("jobs_2").is_ok());
/// assert!(SchemaName::new("Jobs").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SchemaName(String);

/// Why a text is not a valid [`SchemaName`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "schema name {shown:?} is invalid: it must start with a-z or _, contain only a-z, 0-9 and _, \
     have at most {NAME_BYTES_MAX} bytes, and not start with pg_"
)]
pub struct SchemaNameError {
    shown: String,
}

impl SchemaName {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// When the name has characters other than `a-z`, `0-9` and `_`, starts with a digit or with
    /// `pg_`, is empty, or is longer than 63 bytes.
    pub fn new(name: impl Into<String>) -> Result<Self, SchemaNameError> {
        let name = name.into();
        let first =
            name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let fits = first && name.bytes().all(rest) && name.len() <= NAME_BYTES_MAX;
        // Postgres reserves these names.
        if !fits || name.starts_with("pg_") {
            return Err(SchemaNameError { shown: name.chars().take(NAME_BYTES_MAX).collect() });
        }
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The statement for this schema.
    ///
    /// Statements are written for the default schema, so they can be read and run as they stand in
    /// the source. For another schema, its quoted name replaces the default name wherever the
    /// default name qualifies a table or a view.
    pub(crate) fn sql(&self, statement: &'static str) -> SqlStr {
        if self.0 == DEFAULT {
            statement.into_sql_str()
        } else {
            AssertSqlSafe(self.text(statement)).into_sql_str()
        }
    }

    /// The statement that creates this schema.
    pub(crate) fn create(&self) -> SqlStr {
        AssertSqlSafe(["CREATE SCHEMA IF NOT EXISTS \"", &self.0, "\""].concat()).into_sql_str()
    }

    /// As [`sql`](Self::sql), as plain text.
    pub(crate) fn text(&self, statement: &str) -> String {
        if self.0 == DEFAULT {
            statement.to_owned()
        } else {
            statement.replace(QUALIFIER, &["\"", &self.0, "\"."].concat())
        }
    }
}

/// Commits a transaction, in one request.
///
/// Before: the transaction is open, whatever was done in it. After a reply without an error: its
/// changes are committed and on disk, whatever the session's default is, and a new transaction that
/// has done nothing is open.
///
/// After a failed statement a transaction cannot commit, and Postgres answers its `COMMIT` with a
/// rollback that looks like success. It rejects every other statement, however, so the `SET` in
/// front makes the whole request fail. The new transaction exists for sqlx, which ends the
/// transaction that it began when the connection returns to its pool.
pub(crate) fn commit(durability: Durability) -> SqlStr {
    SqlStr::from_static(match durability {
        Durability::Here => "SET LOCAL synchronous_commit = on; COMMIT AND CHAIN",
        Durability::Applied => "SET LOCAL synchronous_commit = remote_apply; COMMIT AND CHAIN",
    })
}

/// The first part of [`commit`], for a transaction that another library commits.
///
/// A handler may have ended the transaction with a statement of its own. Outside of a transaction, `SET LOCAL` is
/// only a warning, and so is the `COMMIT` that follows. `SAVEPOINT` fails there (25P01), even in the implicit
/// transaction of one request.
pub(crate) fn before_commit(durability: Durability) -> &'static str {
    match durability {
        Durability::Here => "SET LOCAL synchronous_commit = on; SAVEPOINT streamjobs_commit",
        Durability::Applied => {
            "SET LOCAL synchronous_commit = remote_apply; SAVEPOINT streamjobs_commit"
        }
    }
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The commit is on disk on this server and on its synchronous standbys.
    Here,
    /// The synchronous standbys have applied it as well, where `synchronous_commit` asks for that.
    Applied,
}

impl Default for SchemaName {
    /// `streamjobs`.
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SchemaName {
    type Err = SchemaNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

const DEFAULT: &str = "streamjobs";
const QUALIFIER: &str = "streamjobs.";
const NAME_BYTES_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_identifiers_are_names() {
        let longest = "a".repeat(63);
        for name in ["streamjobs", "_", "jobs_2", longest.as_str()] {
            assert!(SchemaName::new(name).is_ok(), "{name}");
        }
        let too_long = "a".repeat(64);
        for name in
            ["", "2jobs", "Jobs", "a-b", "a.b", "a\"", "a b", "ä", "pg_jobs", "a;--", &too_long]
        {
            assert!(SchemaName::new(name).is_err(), "{name}");
        }
    }

    #[test]
    fn statements_name_the_schema() {
        let statement = "SELECT 1 FROM streamjobs.once o, streamjobs.outbox";
        assert_eq!(SchemaName::default().sql(statement).as_str(), statement);
        assert_eq!(
            SchemaName::new("jobs").unwrap().sql(statement).as_str(),
            "SELECT 1 FROM \"jobs\".once o, \"jobs\".outbox"
        );
    }
}
