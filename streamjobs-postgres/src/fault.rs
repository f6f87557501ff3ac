//! What a database error means for the job whose attempt it interrupted.

use std::error::Error;
use std::future::Future;
use std::io;
use std::time::Duration;

use streamjobs::JobError;
use streamjobs::error::BoxError;
use tokio::time::timeout;

/// Whether the same attempt can succeed later: as soon as another transaction releases a row, or
/// the server is available again.
///
/// A statement timeout is not transient: the statement may take too long every time.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_transient_code(&code)),
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        _ => false,
    }
}

/// The error of a statement of this crate: snoozed if it is transient, a failure otherwise.
pub(crate) fn job_error(error: sqlx::Error) -> JobError {
    if is_transient(&error) { later(error) } else { JobError::retry(error) }
}

/// The error of a handler: snoozed if a transient database error is among its causes and the
/// handler did not decide otherwise.
pub(crate) fn judge(error: JobError) -> JobError {
    if error.is_retry() && has_transient_cause(error.cause()) {
        error.into_later(pause())
    } else {
        error
    }
}

/// Snoozes the job for a short time, without counting a failure.
pub(crate) fn later(cause: impl Into<BoxError>) -> JobError {
    JobError::later(pause(), cause)
}

/// Waits for the database no longer than `limit`.
///
/// The server enforces limits of its own. This one is for a server that cannot be reached at all,
/// which a connection may not notice for a quarter of an hour.
pub(crate) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match timeout(limit, work).await {
        Ok(answer) => answer,
        Err(late) => Err(io::Error::new(io::ErrorKind::TimedOut, late).into()),
    }
}

fn has_transient_cause(error: &(dyn Error + 'static)) -> bool {
    // The error may be the handler's, and some name themselves as their cause.
    let mut next = Some(error);
    for _ in 0..CAUSES_MAX {
        let Some(error) = next else { break };
        if error.downcast_ref::<sqlx::Error>().is_some_and(is_transient) {
            return true;
        }
        next = error.source();
    }
    false
}

/// How long a job is snoozed after a conflict or an outage: 0.5 s to 1.5 s, drawn evenly, so that
/// two jobs in conflict do not meet again.
fn pause() -> Duration {
    PAUSE + PAUSE.mul_f64(2.0 * fastrand::f64())
}

/// By the server's error code: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn is_transient_code(code: &str) -> bool {
    let class = code.get(..2).unwrap_or_default();
    // A lost connection, and a server that is out of memory, disk or connections.
    matches!(class, "08" | "53")
        || matches!(
            code,
            "40001"       // serialization failure
                | "40P01" // deadlock
                | "55P03" // lock not available within the lock timeout
                | "57P01" // shut down by an administrator
                | "57P02" // shut down by a crash
                | "57P03" // starts up or shuts down
                | "57P05" // idle session timeout
                | "25006" // read only: a standby, as during a failover
                | "58030" // input or output error
        )
}

/// The shortest time for which a job is snoozed.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// Causes of an error that are followed; an error may be its own cause.
const CAUSES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_and_outages_are_transient_and_mistakes_are_not() {
        for code in ["40001", "40P01", "55P03", "57P01", "57P03", "08006", "53300", "25006"] {
            assert!(is_transient_code(code), "{code}");
        }
        for code in ["23505", "42601", "22P02", "57014", "25P02", "25P03", "", "0"] {
            assert!(!is_transient_code(code), "{code}");
        }
    }

    #[test]
    fn a_nested_cause_is_found_and_the_handlers_decision_is_kept() {
        #[derive(Debug, thiserror::Error)]
        #[error("could not charge")]
        struct Outer(#[source] sqlx::Error);
        let transient = || Outer(sqlx::Error::PoolTimedOut);
        assert!(judge(JobError::retry(transient())).is_later());
        assert!(judge(JobError::dead(transient())).is_dead());
        assert!(!judge(JobError::retry_after(Duration::from_secs(9), transient())).is_later());
        assert!(!judge(JobError::retry(Outer(sqlx::Error::RowNotFound))).is_later());
    }
}
