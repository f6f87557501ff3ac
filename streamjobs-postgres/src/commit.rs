//! Commits on which a job depends, and whose reply may never come.

use std::future::Future;
use std::io;
use std::time::Duration;

use streamjobs::Job;
use tokio::time::timeout;
use tracing::warn;

use crate::metrics;

/// Waits for the reply to a commit, no longer than `limit`. After that it returns a transient
/// error, although the commit may be stored. If it is, the next attempt at the job finds its row;
/// while the server has not decided, the attempt waits for the row.
///
/// No setting of Postgres bounds a commit that waits for a synchronous standby. This function gives
/// up only the wait, not the commit: a request to cancel the commit would make it visible without
/// the standby, the next attempt would acknowledge the job, and a failover would lose the commit.
/// The connection counts as used until the server replies, and then returns to its pool. Closing it
/// would not end the wait of its session, and the pool would open another connection for each job,
/// until the server has no session left for any client.
pub(crate) async fn confirmed<T>(
    job: &Job,
    limit: Duration,
    commit: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    reply(job, limit, commit)
        .await
        .unwrap_or_else(|| Err(io::Error::new(io::ErrorKind::TimedOut, LATE).into()))
}

/// As [`confirmed`], for any library: `None` if no reply came.
pub(crate) async fn reply<T>(
    job: &Job,
    limit: Duration,
    commit: impl Future<Output = T>,
) -> Option<T> {
    let Ok(reply) = timeout(limit, commit).await else {
        metrics::commit_unconfirmed(job.stream(), job.group());
        warn!(
            stream = %job.stream(), group = %job.group(), entry_id = %job.entry_id(),
            event_id = %job.event_id(), waited = ?limit,
            "no reply to the commit of a guarded job, so its effects may or may not be stored: the \
             job is tried again; perhaps the database waits for a synchronous standby"
        );
        return None;
    };
    Some(reply)
}

pub(crate) const LATE: &str = "no reply to the commit: its effects may or may not be stored";
