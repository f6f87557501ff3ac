//! Numbered migrations with a history table of their own, applied once by whoever comes first.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection, PgConnection, PgPool};
use thiserror::Error;

use crate::schema::{READ_COMMITTED, SchemaName};
use crate::text::hex;

/// One step of the schema's history, for teams that apply migrations with a tool of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationSql {
    /// Its number, from 1.
    pub version: i64,
    /// Its name, such as `once`.
    pub name: &'static str,
    /// What to run, in one transaction. It writes its own line into the history table, so that
    /// [`migrate`] and [`Postgres::open`](crate::Postgres::open) know of it.
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
        /// What the database said.
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
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
    /// The schema is not what these migrations make of it.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// What is wrong with a schema that is to be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// There is no such schema, or nothing of ours in it.
    #[error(
        "schema {schema} has no streamjobs tables: run `streamjobs_postgres::migrate` or the SQL of \
         its migrations, beginning with {first}"
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
        /// The first migration that is missing.
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
        /// The first migration that is unknown.
        name: String,
    },
    /// A migration was applied with another text.
    #[error("migration {name} of schema {schema} was applied with another text")]
    Changed {
        /// The schema.
        schema: SchemaName,
        /// The migration.
        name: String,
    },
    /// The database refused, or could not be reached.
    #[error("cannot look at schema {schema}")]
    Database {
        /// The schema.
        schema: SchemaName,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
}

/// Brings the schema `streamjobs` up to date; any number of processes may do so at once.
///
/// The role needs the right to create a schema, or to create in it. It is not the role that the
/// application runs under: that one needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the tables.
///
/// # Errors
///
/// When the database refuses or cannot be reached, and when a newer version of this crate has
/// migrated the schema before. Nothing is changed then.
///
/// # Cancel safety
///
/// Dropping the future rolls everything back.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrationError> {
    migrate_schema(pool, &SchemaName::default()).await
}

/// As [`migrate`], for a schema with a name of its own.
///
/// # Errors
///
/// As [`migrate`].
///
/// # Cancel safety
///
/// As [`migrate`].
pub async fn migrate_schema(pool: &PgPool, schema: &SchemaName) -> Result<(), MigrationError> {
    apply(pool, schema).await.map_err(|error| explain(schema, error))?;
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

/// Compares what has been applied with what there is.
pub(crate) async fn check(pool: &PgPool, schema: &SchemaName) -> Result<(), SchemaError> {
    let applied = match sqlx::query_as::<_, (i64, String, Vec<u8>)>(schema.sql(APPLIED))
        .fetch_all(pool)
        .await
    {
        Ok(applied) => applied,
        Err(error) if is_undefined(&error) => Vec::new(),
        Err(source) => return Err(SchemaError::Database { schema: schema.clone(), source }),
    };
    compare(schema, &applied)
}

fn compare(schema: &SchemaName, applied: &[(i64, String, Vec<u8>)]) -> Result<(), SchemaError> {
    let schema = || schema.clone();
    let first = STEPS.first().map(|(number, name, _)| label(*number, name)).unwrap_or_default();
    if applied.is_empty() {
        return Err(SchemaError::Missing { schema: schema(), first });
    }
    let known = |version: i64| STEPS.iter().any(|(number, ..)| *number == version);
    if let Some((version, name, _)) = applied.iter().find(|(version, ..)| !known(*version)) {
        return Err(SchemaError::Newer { schema: schema(), name: label(*version, name) });
    }
    for (number, name, sql) in STEPS {
        let name = || label(*number, name);
        match applied.iter().find(|(version, ..)| version == number) {
            None => return Err(SchemaError::Older { schema: schema(), name: name() }),
            Some((_, stored, checksum)) => {
                if *checksum != *migration(&schema(), *number, stored, sql).checksum {
                    return Err(SchemaError::Changed { schema: schema(), name: name() });
                }
            }
        }
    }
    Ok(())
}

/// Applies what is missing, all of it in one transaction. Its lock ends with it: one that belongs to
/// the session would stay with the pool's connection after an error, and would not work behind a
/// pooler. Whoever waited for it has to see what was done meanwhile.
async fn apply(pool: &PgPool, schema: &SchemaName) -> Result<(), MigrateError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin_with(READ_COMMITTED).await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(["streamjobs:", schema.as_str()].concat())
        .execute(&mut *transaction)
        .await?;
    let steps = STEPS.iter().map(|(number, name, sql)| migration(schema, *number, name, sql));
    let mut migrator = Migrator::with_migrations(steps.collect());
    migrator.set_locking(false);
    // The server asks for the right to create schemas even where the schema is there.
    if !exists(schema, &mut transaction).await? {
        migrator.create_schema(quoted(schema));
    }
    migrator.dangerous_set_table_name([&quoted(schema), "._migrations"].concat());
    migrator.run(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}

async fn exists(schema: &SchemaName, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let exists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)";
    sqlx::query_scalar(exists).bind(schema.as_str()).fetch_one(connection).await
}

fn explain(schema: &SchemaName, error: MigrateError) -> MigrationError {
    let schema = schema.clone();
    let named = |version: i64| {
        let step = STEPS.iter().find(|(number, ..)| *number == version);
        label(version, step.map_or("unknown", |(_, name, _)| name))
    };
    match error {
        MigrateError::Execute(source) => MigrationError::Database { schema, source },
        MigrateError::ExecuteMigration(source, version) => {
            MigrationError::Failed { schema, name: named(version), source }
        }
        MigrateError::VersionMissing(version) => {
            SchemaError::Newer { schema, name: named(version) }.into()
        }
        MigrateError::VersionMismatch(version) => {
            SchemaError::Changed { schema, name: named(version) }.into()
        }
        other => {
            let source = sqlx::Error::Migrate(Box::new(other));
            MigrationError::Database { schema, source }
        }
    }
}

fn migration(schema: &SchemaName, number: i64, name: &str, sql: &'static str) -> Migration {
    let name = Cow::Owned(name.to_owned());
    Migration::new(number, name, MigrationType::Simple, schema.sql(sql), false)
}

/// Whether the history table, or its schema, is not there.
fn is_undefined(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| matches!(code.as_ref(), "42P01" | "3F000"))
}

fn quoted(schema: &SchemaName) -> String {
    ["\"", schema.as_str(), "\""].concat()
}

fn label(version: i64, name: &str) -> String {
    format!("{version:04}_{name}")
}

type Step = (i64, &'static str, &'static str);

/// Number, name and text of each migration. What was published is never changed: it is followed by
/// another one.
const STEPS: &[Step] = &[
    (1, "once", include_str!("../migrations/0001_once.sql")),
    (2, "dead_letters", include_str!("../migrations/0002_dead_letters.sql")),
    (3, "outbox", include_str!("../migrations/0003_outbox.sql")),
];

const APPLIED: &str =
    "SELECT version, description, checksum FROM streamjobs._migrations ORDER BY version";

/// The history table as the migrator makes it.
const HISTORY: &str = "CREATE TABLE IF NOT EXISTS streamjobs._migrations (
    version        bigint      PRIMARY KEY,
    description    text        NOT NULL,
    installed_on   timestamptz NOT NULL DEFAULT now(),
    success        boolean     NOT NULL,
    checksum       bytea       NOT NULL,
    execution_time bigint      NOT NULL
);

";

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
    fn a_schema_that_does_not_fit_says_which_migration_is_why() {
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
    fn the_sql_names_the_schema_and_notes_itself() {
        let sql = migrations(&SchemaName::new("jobs").unwrap());
        assert_eq!(sql.len(), STEPS.len());
        for migration in &sql {
            assert!(!migration.sql.contains("streamjobs."), "{}", migration.name);
            assert!(migration.sql.contains("INSERT INTO \"jobs\"._migrations"));
        }
    }
}
