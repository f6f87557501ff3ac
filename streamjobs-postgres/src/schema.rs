//! The schema that the tables are in, and the only place where SQL text is made.

use std::fmt;
use std::str::FromStr;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use thiserror::Error;

/// The name of a schema: what an unquoted identifier of Postgres may be, and at most 63 bytes.
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

/// Why something is not the name of a schema.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "schema name {shown:?} must begin with a-z or _, go on with a-z, 0-9 and _, have at most \
     {NAME_BYTES_MAX} bytes, and not begin with pg_"
)]
pub struct SchemaNameError {
    shown: String,
}

impl SchemaName {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// When it has other characters than `a-z`, `0-9` and `_`, begins with a digit or with `pg_`,
    /// or is empty or longer than 63 bytes.
    pub fn new(name: impl Into<String>) -> Result<Self, SchemaNameError> {
        let name = name.into();
        let first =
            name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let fits = first && name.bytes().all(rest) && name.len() <= NAME_BYTES_MAX;
        // The server keeps these names for itself.
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
    /// Statements are written for the default schema, and so can be read and run as they stand in
    /// the source. For another one its name, which is an identifier and quoted, takes the place of
    /// the default name wherever that qualifies something.
    pub(crate) fn sql(&self, statement: &'static str) -> SqlStr {
        if self.0 == DEFAULT {
            statement.into_sql_str()
        } else {
            AssertSqlSafe(self.text(statement)).into_sql_str()
        }
    }

    /// As [`sql`](Self::sql), for somebody to read.
    pub(crate) fn text(&self, statement: &str) -> String {
        if self.0 == DEFAULT {
            statement.to_owned()
        } else {
            statement.replace(QUALIFIER, &["\"", &self.0, "\"."].concat())
        }
    }
}

/// How transactions begin that meet others, whatever the session's own level is: what the others
/// have committed is seen, and is no reason to fail. It does not ask for writing: a standby would
/// refuse that as something it cannot do at all, and says of a write that it is no time for one.
pub(crate) const READ_COMMITTED: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// Commits such a transaction, in one request.
///
/// Before: the transaction is open, whatever was done in it. After, when it is answered without an
/// error: what was done is committed and on disk, whatever the session's default is, and another
/// transaction is open that has done nothing.
///
/// A statement that failed leaves a transaction that cannot be committed, and the server answers its
/// `COMMIT` with a roll-back that looks like success; but it refuses every other statement in it, and
/// with that the rest of the request. The other transaction is there for the client library, which
/// ends the one that it began when the connection goes back to its pool, in a request that it sends
/// then anyway.
pub(crate) fn commit(durability: Durability) -> SqlStr {
    SqlStr::from_static(match durability {
        Durability::Here => "SET LOCAL synchronous_commit = on; COMMIT AND CHAIN",
        Durability::Applied => "SET LOCAL synchronous_commit = remote_apply; COMMIT AND CHAIN",
    })
}

/// When a commit is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// When it is on disk here, and on the standbys that the server waits for.
    Here,
    /// When those standbys show it as well: where the database asks for that, it gets it.
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
