//! What a database error means for the job whose attempt it interrupted.

use std::error::Error;
use std::future::Future;
use std::io;
use std::time::Duration;

use streamjobs::JobError;
use streamjobs::error::BoxError;
use thiserror::Error as ThisError;
use tokio::time::timeout;

use crate::publish_error::PublishInError;

/// A table of this crate cannot be used.
#[derive(Debug, ThisError)]
#[error("the tables of streamjobs-postgres cannot be used")]
struct Unusable(#[source] sqlx::Error);

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

/// The error of a statement that ends a handler's work: snoozed if it is transient, a failure
/// otherwise.
pub(crate) fn job_error(error: sqlx::Error) -> JobError {
    if is_transient(&error) { later(error) } else { JobError::retry(error) }
}

/// The error of a statement on the tables of this crate: as [`job_error`], but a fault that an
/// operator has to repair does not count as a failure of the job.
pub(crate) fn own_error(error: sqlx::Error) -> JobError {
    if needs_repair(&error) { blocked(Unusable(error)) } else { job_error(error) }
}

/// Snoozes the job until an operator has repaired something, and raises an alert.
pub(crate) fn blocked(cause: impl Into<BoxError>) -> JobError {
    JobError::blocked(repair_pause(), cause)
}

/// Whether a statement of this crate fails for every job until something is repaired: a right, row-level security, a
/// table, a schema, or the role itself. Its statements are constant, so the server can find nothing wrong with their
/// text.
pub(crate) fn needs_repair(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| needs_repair_code(&code)),
        sqlx::Error::Tls(_) => true,
        _ => false,
    }
}

fn needs_repair_code(code: &str) -> bool {
    // Access rule, login, database and schema.
    ["42", "28", "3D", "3F"].iter().any(|class| code.starts_with(class))
}

/// As [`own_error`], for an error of another library, by the server's code.
pub(crate) fn own_code(code: &str, error: BoxError) -> JobError {
    if needs_repair_code(code) {
        blocked(error)
    } else if is_transient_code(code) {
        later(error)
    } else {
        JobError::retry(error)
    }
}

/// Snoozes a job whose attempt failed for a short time, without counting a failure.
pub(crate) fn snoozed(error: JobError) -> JobError {
    error.into_later(pause())
}

/// The error of a handler: snoozed if a transient database error, or an outbox that needs to be
/// repaired, is among its causes and the handler did not decide otherwise. Faults of the handler's
/// own tables are left to the handler.
pub(crate) fn judge(error: JobError) -> JobError {
    if !error.is_retry() {
        return error;
    }
    let transient = |cause: &Cause| cause.downcast_ref().is_some_and(is_transient).then_some(());
    if find_cause(error.cause(), transient).is_some() {
        return snoozed(error);
    }
    // Alerts show only this cause, because the handler's own text may quote the payload.
    find_cause(error.cause(), unusable_outbox).map_or(error, blocked)
}

/// Snoozes the job for a short time, without counting a failure.
pub(crate) fn later(cause: impl Into<BoxError>) -> JobError {
    JobError::later(pause(), cause)
}

/// Waits for the database no longer than `limit`.
///
/// The server enforces limits of its own. This limit is for a server that cannot be reached at all,
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

pub(crate) type Cause = dyn Error + 'static;

/// The first cause for which `wanted` returns something.
pub(crate) fn find_cause<T>(error: &Cause, wanted: impl Fn(&Cause) -> Option<T>) -> Option<T> {
    // The error may be the handler's own, and some errors name themselves as their cause.
    let mut next = Some(error);
    for _ in 0..CAUSES_MAX {
        let error = next?;
        let found = wanted(error);
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
}

/// The text of an error of the outbox that has to be repaired.
fn unusable_outbox(cause: &Cause) -> Option<String> {
    match cause.downcast_ref()? {
        error @ PublishInError::Database { source, .. } if needs_repair(source) => {
            Some(format!("{error}: {source}"))
        }
        _ => None,
    }
}

/// How long a job is snoozed until something is repaired: 5 s to 15 s, drawn evenly, because many
/// jobs may wait for a long time.
fn repair_pause() -> Duration {
    REPAIR_PAUSE + REPAIR_PAUSE.mul_f64(2.0 * fastrand::f64())
}

/// How long a job is snoozed after a conflict or an outage: 0.5 s to 1.5 s, drawn evenly, so that
/// two jobs in conflict do not meet again.
fn pause() -> Duration {
    PAUSE + PAUSE.mul_f64(2.0 * fastrand::f64())
}

/// By the server's error code: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(crate) fn is_transient_code(code: &str) -> bool {
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

/// The shortest time for which a job that waits for a repair is snoozed.
const REPAIR_PAUSE: Duration = Duration::from_secs(5);

/// How many causes of an error are followed; an error may be its own cause.
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
    fn a_handler_that_cannot_publish_waits_for_the_outbox_and_no_other_table() {
        let missing = || sqlx::Error::Tls("the certificate has expired".into());
        let outbox = || PublishInError::Database { schema: "jobs".into(), source: missing() };
        assert!(judge(JobError::retry(outbox())).is_blocked());
        assert!(!judge(JobError::dead(outbox())).is_later());
        assert!(!judge(JobError::retry(missing())).is_later(), "the handler's own statement");
        assert!(own_error(missing()).is_blocked());
        assert!(!own_error(sqlx::Error::RowNotFound).is_later());
    }

    #[test]
    fn what_a_handler_says_about_the_outbox_is_not_in_the_cause_that_alerts_show() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot publish the invoice of alice")]
        struct Outer(#[source] PublishInError);
        let source = sqlx::Error::Tls("the certificate has expired".into());
        let outbox = PublishInError::Database { schema: "jobs".into(), source };
        let error = judge(JobError::retry(Outer(outbox)));
        assert!(error.is_blocked());
        let text = error.cause().to_string();
        assert!(text.starts_with("cannot write to the outbox of schema jobs: "), "{text}");
        assert!(text.contains("the certificate has expired"), "{text}");
        assert!(error.cause().source().is_none() && !text.contains("alice"), "{text}");
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
