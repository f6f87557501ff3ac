//! Marks on the server of the streams.

use std::time::Duration;

use super::{KEPT, MarkBegin, Marked, Marks};
use crate::handler::Job;
use crate::model::outcome::JobError;
use crate::store::{Queue, StoreError};

/// Marks on the server of the streams, which need no other store.
///
/// They are as durable as that server; the [module](super) says what that means. Each mark is a key of about 200
/// bytes beside its stream (`{orders}:once:<group>:{<event id>}`), and expires after seven days, or after the time in
/// [`KeepMarks`]. A server that evicts keys may lose marks earlier.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ServerMarks;

/// How long marks on the server are kept: seven days by default. Give it to the runtime as a
/// [state](crate::RuntimeBuilder::state).
///
/// With a short time, an event that comes again later than that is done again; with a long time, every event of a
/// guarded group takes memory for that time. The maximum is a hundred years.
///
/// ```no_run
/// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use streamjobs::Runtime;
/// use streamjobs::once::KeepMarks;
///
/// let days = Duration::from_secs(24 * 60 * 60);
/// let runtime = Runtime::builder(&client).state(KeepMarks(30 * days)).start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct KeepMarks(pub Duration);

impl Marks for ServerMarks {
    async fn begin(job: &Job, key: &str, begin: MarkBegin<'_>) -> Result<Marked, JobError> {
        job.client().store().begin_mark(&queue(job), key, begin).await.map_err(failed)
    }

    async fn done(job: &Job, key: &str, keep: Duration) -> Result<(), JobError> {
        job.client().store().finish_mark(&queue(job), key, keep).await.map_err(failed)
    }

    async fn undo(job: &Job, key: &str, owner: &str) -> Result<(), JobError> {
        job.client().store().undo_mark(&queue(job), key, owner).await.map(drop).map_err(failed)
    }

    fn keep(job: &Job) -> Duration {
        job.state::<KeepMarks>().map_or(KEPT, |KeepMarks(keep)| keep)
    }
}

fn queue(job: &Job) -> Queue {
    Queue { stream: job.stream().clone(), group: job.group().clone() }
}

/// If the server does not answer, or is in a temporary state, that is not the job's fault: the job
/// is snoozed. Any other refusal may be permanent, such as missing rights on the marks: it counts
/// as a failure, so that the job ends and operators see it.
fn failed(error: StoreError) -> JobError {
    match error.is_transient() {
        true => JobError::later(PAUSE.mul_f64(0.5 + fastrand::f64()), error),
        false => JobError::retry(error),
    }
}

const PAUSE: Duration = Duration::from_secs(1);
