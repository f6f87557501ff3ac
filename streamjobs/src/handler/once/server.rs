//! Marks beside the streams, on their own server.

use std::time::Duration;

use super::{KEPT, MarkBegin, Marked, Marks};
use crate::handler::Job;
use crate::model::outcome::JobError;
use crate::store::{Queue, StoreError};

/// Marks on the server of the streams: nothing else is needed.
///
/// They are as durable as that server; the [module](super) says what that means. Each is a key of
/// about 200 bytes beside its stream (`{orders}:once:<group>:{<event id>}`), which the server forgets
/// by itself after seven days, or after what [`KeepMarks`] says. A server that evicts keys when it is
/// full may forget them earlier.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ServerMarks;

/// How long marks on the server are kept: give it to the runtime as a
/// [state](crate::RuntimeBuilder::state) to change the seven days.
///
/// Too short, and events that come again after that are done again; long, and every event of a
/// guarded group takes memory for so long. More than a hundred years are a hundred years.
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

/// A server that does not answer, or is in a state that will pass, is no fault of the job's. One that
/// refuses otherwise may do so for ever, as for a user who has no rights on marks: that has to come
/// to an end, and to be seen.
fn failed(error: StoreError) -> JobError {
    let passes = match &error {
        StoreError::Unreachable(_) | StoreError::AnswerLost(_) => true,
        StoreError::Refused { code, .. } => PASSING.contains(&code.as_str()),
        StoreError::GroupMissing | StoreError::Protocol { .. } => false,
    };
    match passes {
        true => JobError::later(PAUSE.mul_f64(0.5 + fastrand::f64()), error),
        false => JobError::retry(error),
    }
}

/// What a server answers while it is starting, changing its role, or in want of memory or disk.
const PASSING: [&str; 8] =
    ["BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY"];
const PAUSE: Duration = Duration::from_secs(1);
