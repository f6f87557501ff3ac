#![doc = include_str!("../docs/front.md")]

pub mod batches;
pub mod letters;

mod archive;
mod backoff;
mod commit;
mod fault;
mod guard_row;
mod key;
mod limits;
mod mark;
mod members;
mod metrics;
mod migrate;
mod once;
mod outbox;
mod postgres;
mod prune;
mod publish_error;
mod rights;
mod schema;
mod statement;
mod text;
mod time;
mod turns;

pub use self::archive::{Archive, ArchiveError, ArchiveReport};
pub use self::key::{ByEventId, GuardKey};
pub use self::mark::OnceMark;
pub use self::migrate::{
    MigrationError, MigrationSql, SchemaError, migrate, migrate_schema, migrations,
};
pub use self::once::{GuardSql, Once, OnceMember, SqlState};
pub use self::outbox::{OutboxBacklog, Publisher, Relay, Relayed};
pub use self::postgres::{Postgres, PostgresBuilder};
pub use self::prune::{Keep, Pruned, Pruner};
pub use self::publish_error::PublishInError;
pub use self::schema::{SchemaName, SchemaNameError};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
