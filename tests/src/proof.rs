//! What the processes of a proof have in common: the event, and what a handler does with it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::{Event, Job, JobError};
use tokio::time::{Instant, sleep_until};

use crate::history::{Attempt, Deed, Fate, How, Writer};
use crate::postgres::{Database, PgServer};

/// An event that says what its handler is to do.
#[derive(Clone, Debug, PartialEq, Eq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
pub struct Order {
    /// How often its handler fails before it does the job.
    pub failures: u32,
    /// Whether its handler rejects it.
    pub rejected: bool,
    /// How long its handler takes, in milliseconds.
    pub takes: u64,
    /// Derived from the event's id, so that a payload that was changed or swapped is seen.
    pub seal: String,
}

impl Order {
    /// An order that is done at once.
    pub fn new(job: &str) -> Self {
        Self { failures: 0, rejected: false, takes: 0, seal: seal(job) }
    }

    /// What is to become of it.
    pub fn fate(&self) -> Fate {
        if self.rejected { Fate::Rejected } else { Fate::Done }
    }

    /// Does what it says.
    ///
    /// # Errors
    ///
    /// As it says.
    pub async fn work(&self, job: &Job) -> Result<(), JobError> {
        if self.takes > 0 {
            sleep_until(Instant::now() + Duration::from_millis(self.takes)).await;
        }
        if self.rejected {
            return Err(JobError::dead("as ordered"));
        }
        if job.attempt() <= self.failures {
            return Err(JobError::retry("as ordered"));
        }
        Ok(())
    }
}

fn seal(job: &str) -> String {
    format!("sealed for {job} {}", "~".repeat(40))
}

/// Makes a database with the crate's schema and a table of effects, in which doubles would show.
///
/// # Panics
///
/// If the server does not answer.
pub async fn database(server: &PgServer) -> Database {
    let database = server.database().await;
    let owner = database.owner_pool();
    streamjobs_postgres::migrate(&owner).await.expect("it is empty");
    let table = "CREATE TABLE effects (job text, consumer text, count bigint)";
    sqlx::query(table).execute(&owner).await.expect("it is empty");
    database.grant("streamjobs").await;
    database.grant("public").await;
    database
}

/// A handler that runs, which writes down how it ends however it ends.
#[derive(Debug)]
pub struct Running<'a> {
    history: &'a Writer,
    attempt: Attempt,
    how: How,
}

impl<'a> Running<'a> {
    /// Writes down that it begins.
    pub fn begin(history: &'a Writer, order: &Order, job: &Job) -> Self {
        let attempt = Attempt {
            job: job.event_id().to_string(),
            entry: job.entry_id().to_string(),
            consumer: job.consumer().to_string(),
            count: job.delivery_count(),
            number: job.attempt(),
            intact: order.seal == seal(job.event_id().as_str()),
        };
        history.write(Deed::Started(attempt.clone()));
        Self { history, attempt, how: How::Dropped }
    }

    /// Writes down that it will return `Ok`.
    pub fn done(mut self) {
        self.how = How::Ok;
    }

    /// Writes down that it will return this error.
    pub fn failed(mut self, error: &JobError) {
        self.how = if error.is_retry() { How::Failed } else { How::Rejected };
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.history.write(Deed::Ended { attempt: self.attempt.clone(), how: self.how });
    }
}
