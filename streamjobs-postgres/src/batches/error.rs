//! Why a batch was not changed.

use thiserror::Error;

/// Why a batch was not changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BatchError {
    /// There is no such batch.
    #[error("there is no batch {id}")]
    Missing {
        /// The batch.
        id: String,
    },
    /// Members were to be added to a closed batch, but not by one of its unfinished or dead members.
    #[error("batch {id} is closed: only its own unfinished or dead members can add to it")]
    Closed {
        /// The batch.
        id: String,
    },
    /// The transaction has an isolation level in which it does not see all commits that it has to see.
    #[error("batch {id} can be changed only in a transaction that is READ COMMITTED")]
    Isolation {
        /// The batch.
        id: String,
    },
    /// The database refused, or could not be reached. The transaction can only be rolled back.
    #[error("cannot change a batch in schema {schema}")]
    Database {
        /// The schema.
        schema: String,
        /// The error of the database.
        #[source]
        source: sqlx::Error,
    },
}
