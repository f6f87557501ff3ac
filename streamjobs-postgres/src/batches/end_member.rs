//! Middleware that ends the membership of jobs whose handlers have no guard.

use streamjobs::middleware::{Middleware, Next};
use streamjobs::{Job, JobError, Requirements};

use crate::postgres::Postgres;

/// Ends the membership of each job that is done, after its handler has returned `Ok`: for handlers without
/// [`OnceMember`](crate::OnceMember).
///
/// ```
/// use streamjobs::{Event, JobError, handler};
/// use streamjobs_postgres::batches::EndMember;
/// # #[derive(Event, serde::Serialize, serde::Deserialize)]
/// # #[event(stream = "pictures", type = "picture.uploaded")]
/// # struct PictureUploaded { path: String }
/// # async fn upload(_: &str) -> Result<(), JobError> { Ok(()) }
///
/// #[handler(group = "mirrors", wrap = EndMember)]
/// async fn mirror(picture: PictureUploaded) -> Result<(), JobError> {
///     upload(&picture.path).await
/// }
/// ```
///
/// # Delivery
///
/// At least once: the end is a transaction of its own, after the work and before the acknowledgement. If the process
/// dies or the attempt's time is over before the end, or if the end fails, the job runs again, and its membership
/// ends after that run. Repeating an end changes nothing.
///
/// Middleware around `EndMember` runs after the end: its error fails a job whose member has ended as done, and a batch
/// may complete before the job has ended. If `wrap` names several middlewares, put `EndMember` first.
#[derive(Clone, Copy, Debug)]
pub struct EndMember;

impl Middleware for EndMember {
    async fn around(&self, job: Job, next: Next) -> Result<(), JobError> {
        next.run().await?;
        Postgres::of(&job)?.batches().end(&job).await
    }

    fn completes_job(&self) -> bool {
        true
    }

    fn require(&self, requirements: &mut Requirements) {
        requirements.state::<Postgres>();
    }
}
