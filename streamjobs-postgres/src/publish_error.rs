//! Why an event was not written into the outbox.

use streamjobs::error::PublishError;
use thiserror::Error;

/// Why an event was not written into the outbox.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishInError {
    /// The event cannot be published at all. The transaction is unchanged.
    #[error(transparent)]
    Event(#[from] PublishError),
    /// The database refused, or could not be reached. The transaction can only be rolled back.
    #[error("cannot write to the outbox of schema {schema}")]
    Database {
        /// The schema.
        schema: String,
        /// The error of the database.
        #[source]
        source: sqlx::Error,
    },
}
