//! Numbered migrations with a history table of their own; the first process applies them.

use std::borrow::Cow;

use sqlx::migrate::{Migration, MigrationType};
use sqlx::{Executor, PgConnection, PgPool};
use thiserror::Error;

use crate::schema::SchemaName;
use crate::statement;
use crate::text::hex;

/// One migration, for teams that apply migrations with their own tool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationSql {
    /// Its number, from 1.
    pub version: i64,
    /// Its name, such as `once`.
    pub name: &'static str,
    /// The SQL to run, in one transaction. It also adds its row to the history table, where
    /// [`migrate`] and [`Postgres::open`](crate::Postgres::open) look for it.
    pub sql: String,
}

/// Why the schema was not brought up to date.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// The database refused, or could not be reached.
    #[error("cannot migrate schema {schema}")]
    Database {
        /// The schema.
        schema: SchemaName,
        /// The error of the database.
        #[source]
        source: sqlx::Error,
    },
    /// A migration failed and was rolled back.
    #[error("migration {name} of schema {schema} failed and was rolled back")]
    Failed {
        /// The schema.
        schema: SchemaName,
        /// Number and name of the migration, such as `0001_once`.
        name: String,
        /// The error of the database.
        #[source]
        source: sqlx::Error,
    },
    /// The schema does not fit these migrations.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Why a schema cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The schema does not exist, or has no streamjobs tables.
    #[error(
        "schema {schema} has no streamjobs tables: run `streamjobs_postgres::migrate` or the SQL of \
         its migrations, starting with {first}"
    )]
    Missing {
        /// The schema.
        schema: SchemaName,
        /// The first migration, such as `0001_once`.
        first: String,
    },
    /// Migrations of this version have not been applied.
    #[error("schema {schema} is older than this program: migration {name} has not been applied")]
    Older {
        /// The schema.
        schema: SchemaName,
        /// The first missing migration.
        name: String,
    },
    /// Migrations of a later version have been applied.
    #[error(
        "schema {schema} is newer than this program: migration {name} is unknown here; deploy the \
         newer version"
    )]
    Newer {
        /// The schema.
        schema: SchemaName,
        /// The first unknown migration.
        name: String,
    },
    /// A migration was applied with different SQL.
    #[error("migration {name} of schema {schema} was applied with different SQL")]
    Changed {
        /// The schema.
        schema: SchemaName,
        /// The migration.
        name: String,
    },
    /// A table does not exist although its migration was applied.
    #[error("table {schema}.{table} does not exist although its migration was applied")]
    NoTable {
        /// The schema.
        schema: SchemaName,
        /// The table.
        table: String,
    },
    /// The role lacks rights on the tables.
    #[error("role {role} lacks rights on schema {schema}: {grants}")]
    Rights {
        /// The schema.
        schema: SchemaName,
        /// The role.
        role: String,
        /// The statements that grant what is missing, separated by semicolons.
        grants: String,
    },
    /// Row-level security applies to the role, which hides rows from it.
    #[error(
        "row-level security of {schema}.{table} applies to role {role}, which must see all rows: \
         ALTER TABLE {schema}.{table} DISABLE ROW LEVEL SECURITY, or ALTER ROLE {role} BYPASSRLS"
    )]
    RowSecurity {
        /// The schema.
        schema: SchemaName,
        /// The role.
        role: String,
        /// The table.
        table: String,
    },
    /// The database refused, or could not be reached.
    #[error("cannot read schema {schema}")]
    Database {
        /// The schema.
        schema: SchemaName,
        /// The error of the database.
        #[source]
        source: sqlx::Error,
    },
}

/// Brings the schema `streamjobs` up to date. Any number of processes may do this at once.
///
/// The role needs the right to create the schema, or to create tables in an existing schema. The
/// role that the application runs as needs only `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the
/// tables.
///
/// # Errors
///
/// When the database refuses or cannot be reached, and when a newer version of this crate has
/// already migrated the schema. In these cases nothing is changed.
///
/// # Cancel safety
///
/// Dropping the future rolls everything back.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrationError> {
    migrate_schema(pool, &SchemaName::default()).await
}

/// As [`migrate`], for a schema with another name.
///
/// # Errors
///
/// As [`migrate`].
///
/// # Cancel safety
///
/// As [`migrate`].
pub async fn migrate_schema(pool: &PgPool, schema: &SchemaName) -> Result<(), MigrationError> {
    apply(pool, schema).await?;
    Ok(check(pool, schema).await?)
}

/// The SQL of every migration, in order.
#[must_use]
pub fn migrations(schema: &SchemaName) -> Vec<MigrationSql> {
    let written = |(number, name, sql): &Step| {
        let migration = migration(schema, *number, name, sql);
        let mut text = String::new();
        if *number == 1 {
            text.push_str(&schema.text(HISTORY));
        }
        text.push_str(migration.sql.as_str());
        let checksum = hex(&migration.checksum);
        let record = schema.text(RECORD).replace("$1", &number.to_string());
        text.push_str(&record.replace("$2", name).replace("$3", &checksum));
        MigrationSql { version: *number, name, sql: text }
    };
    STEPS.iter().map(written).collect()
}

/// Compares the applied migrations with those of this version.
pub(crate) async fn check(pool: &PgPool, schema: &SchemaName) -> Result<(), SchemaError> {
    let applied = async {
        let mut reading = statement::begin_reading(pool).await?;
        statement::query_as(schema.sql(APPLIED)).fetch_all(&mut *reading).await
    };
    let applied = match applied.await {
        Ok(applied) => applied,
        Err(error) if is_undefined(&error) => Vec::new(),
        Err(source) => return Err(SchemaError::Database { schema: schema.clone(), source }),
    };
    compare(schema, &applied)
}

fn compare(schema: &SchemaName, applied: &[Applied]) -> Result<(), SchemaError> {
    if applied.is_empty() {
        let first = STEPS.first().map(|(number, name, _)| label(*number, name));
        let first = first.unwrap_or_default();
        return Err(SchemaError::Missing { schema: schema.clone(), first });
    }
    reject_other(schema, applied)?;
    let is_applied = |number: i64| applied.iter().any(|(version, ..)| *version == number);
    match STEPS.iter().find(|(number, ..)| !is_applied(*number)) {
        None => Ok(()),
        Some((number, name, _)) => {
            Err(SchemaError::Older { schema: schema.clone(), name: label(*number, name) })
        }
    }
}

/// Rejects migrations that this version does not have, or has with different SQL.
fn reject_other(schema: &SchemaName, applied: &[Applied]) -> Result<(), SchemaError> {
    for (version, name, checksum) in applied {
        let name = || label(*version, name);
        let Some((number, stored, sql)) = STEPS.iter().find(|(number, ..)| number == version)
        else {
            return Err(SchemaError::Newer { schema: schema.clone(), name: name() });
        };
        if **checksum != *migration(schema, *number, stored, sql).checksum {
            return Err(SchemaError::Changed { schema: schema.clone(), name: name() });
        }
    }
    Ok(())
}

/// Applies the missing migrations in one transaction.
///
/// Its lock ends with the transaction: a session lock would stay with the pool's connection after
/// an error, and would not work behind a pooler. The transaction is `READ COMMITTED`, so that a
/// process that waited for the lock sees the migrations that the lock's previous owner applied.
/// sqlx's own migrator is not used, because its statements are named: see `statement.rs`.
async fn apply(pool: &PgPool, schema: &SchemaName) -> Result<(), MigrationError> {
    let failed = |source| MigrationError::Database { schema: schema.clone(), source };
    let mut transaction = statement::begin_own(pool).await.map_err(failed)?;
    let applied = prepare(schema, &mut transaction).await.map_err(failed)?;
    reject_other(schema, &applied)?;
    for (number, name, sql) in STEPS {
        let is_applied = applied.iter().any(|(version, ..)| version == number);
        if is_applied {
            continue;
        }
        step(schema, &migration(schema, *number, name, sql), &mut transaction).await.map_err(
            |source| {
                let name = label(*number, name);
                MigrationError::Failed { schema: schema.clone(), name, source }
            },
        )?;
    }
    transaction.commit().await.map_err(failed)
}

/// Waits for other processes that migrate, creates what is missing for the history, and reads it.
async fn prepare(
    schema: &SchemaName,
    connection: &mut PgConnection,
) -> Result<Vec<Applied>, sqlx::Error> {
    statement::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(["streamjobs:", schema.as_str()].concat())
        .execute(&mut *connection)
        .await?;
    // `CREATE SCHEMA IF NOT EXISTS` needs the right to create schemas even if the schema exists.
    let exists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)";
    let exists = statement::query_scalar::<bool>(exists).bind(schema.as_str());
    if !exists.fetch_one(&mut *connection).await? {
        connection.execute(schema.create()).await?;
    }
    connection.execute(schema.sql(HISTORY)).await?;
    statement::query_as(schema.sql(APPLIED)).fetch_all(connection).await
}

/// Runs one migration and adds it to the history.
async fn step(
    schema: &SchemaName,
    migration: &Migration,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    connection.execute(migration.sql.clone()).await?;
    statement::query(schema.sql(ADD))
        .bind(migration.version)
        .bind(&*migration.description)
        .bind(&*migration.checksum)
        .execute(connection)
        .await?;
    Ok(())
}

fn migration(schema: &SchemaName, number: i64, name: &str, sql: &'static str) -> Migration {
    let name = Cow::Owned(name.to_owned());
    Migration::new(number, name, MigrationType::Simple, schema.sql(sql), false)
}

/// Whether the history table, or its schema, does not exist.
fn is_undefined(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| matches!(code.as_ref(), "42P01" | "3F000"))
}

fn label(version: i64, name: &str) -> String {
    format!("{version:04}_{name}")
}

type Step = (i64, &'static str, &'static str);

/// Number, name and checksum of a migration in the history.
type Applied = (i64, String, Vec<u8>);

/// Number, name and text of each migration. A published migration never changes; a change is a new
/// migration after it.
const STEPS: &[Step] = &[
    (1, "once", include_str!("../migrations/0001_once.sql")),
    (2, "dead_letters", include_str!("../migrations/0002_dead_letters.sql")),
    (3, "outbox", include_str!("../migrations/0003_outbox.sql")),
    (4, "outbox_sequence", include_str!("../migrations/0004_outbox_sequence.sql")),
    (5, "dead_letters_open", include_str!("../migrations/0005_dead_letters_open.sql")),
    (6, "outbox_due", include_str!("../migrations/0006_outbox_due.sql")),
    (7, "batches", include_str!("../migrations/0007_batches.sql")),
    (8, "attempts", include_str!("../migrations/0008_attempts.sql")),
];

const APPLIED: &str =
    "SELECT version, description, checksum FROM streamjobs._migrations ORDER BY version";

/// The history table as sqlx's migrator creates it.
const HISTORY: &str = "CREATE TABLE IF NOT EXISTS streamjobs._migrations (
    version        bigint      PRIMARY KEY,
    description    text        NOT NULL,
    installed_on   timestamptz NOT NULL DEFAULT now(),
    success        boolean     NOT NULL,
    checksum       bytea       NOT NULL,
    execution_time bigint      NOT NULL
);

";

const ADD: &str = "INSERT INTO streamjobs._migrations
    (version, description, success, checksum, execution_time) VALUES ($1, $2, true, $3, -1)";

/// As [`ADD`], for the text of a migration.
const RECORD: &str = "
INSERT INTO streamjobs._migrations (version, description, success, checksum, execution_time)
VALUES ($1, '$2', true, '\\x$3', -1);
";

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(schema: &SchemaName) -> Vec<(i64, String, Vec<u8>)> {
        let row = |(number, name, sql): &Step| {
            let checksum = migration(schema, *number, name, sql).checksum.to_vec();
            (*number, (*name).to_owned(), checksum)
        };
        STEPS.iter().map(row).collect()
    }

    #[test]
    fn the_error_of_a_schema_that_does_not_fit_names_the_migration() {
        let schema = SchemaName::new("jobs").unwrap();
        let said = |rows: &[(i64, String, Vec<u8>)]| match compare(&schema, rows) {
            Ok(()) => String::from("fits"),
            Err(error) => error.to_string(),
        };
        let mut rows = applied(&schema);
        assert_eq!(said(&rows), "fits");
        assert!(said(&[]).contains("0001_once"));
        assert!(said(&rows[..2]).contains("older") && said(&rows[..2]).contains("0003_outbox"));
        rows.push((9_000, "later".into(), vec![1]));
        assert!(said(&rows).contains("newer") && said(&rows).contains("9000_later"));
        rows.pop();
        rows[1].2 = vec![1];
        assert!(said(&rows).contains("0002_dead_letters"));
    }

    #[test]
    fn the_sql_names_the_schema_and_records_itself() {
        let sql = migrations(&SchemaName::new("jobs").unwrap());
        assert_eq!(sql.len(), STEPS.len());
        for migration in &sql {
            assert!(!migration.sql.contains("streamjobs."), "{}", migration.name);
            assert!(migration.sql.contains("INSERT INTO \"jobs\"._migrations"));
        }
    }
}
