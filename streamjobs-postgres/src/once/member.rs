//! The guard of a job that is a member of a batch: its end is in the transaction of its effects.

use std::fmt;
use std::ops::{Deref, DerefMut};

use sqlx::{Executor, PgConnection};
use streamjobs::{Begin, GroupName, Job, JobError, JobResource, Requirements};

use super::guard::{self, Once};
use crate::key::{ByEventId, GuardKey};
use crate::postgres::Postgres;
use crate::{fault, members};

/// As [`Once`], but the job also ends as a member of its batches in the same transaction: when the handler returns
/// `Ok`, guard row, effects and this end commit together. If the job was the last member of a closed batch, the
/// batch's events commit with them: see [`batches`](crate::batches).
///
/// ```
/// use streamjobs::{Event, JobError, handler};
/// use streamjobs_postgres::OnceMember;
/// # #[derive(Event, serde::Serialize, serde::Deserialize)]
/// # #[event(stream = "pictures", type = "picture.uploaded")]
/// # struct PictureUploaded { path: String }
///
/// #[handler(group = "thumbnails")]
/// async fn shrink(picture: PictureUploaded, tx: &mut OnceMember) -> Result<(), JobError> {
///     sqlx::query("INSERT INTO thumbnails (path) VALUES ($1)")
///         .bind(&picture.path)
///         .execute(&mut **tx)
///         .await?;
///     Ok(())
/// }
/// ```
///
/// A job that is a member of no batch is handled as with [`Once`], at the cost of one more statement.
///
/// # Delivery
///
/// As [`Once`]: guard row, effects, end and events commit together or not at all. A job that was done before is not
/// run again, but still ends as a member.
#[must_use]
pub struct OnceMember<K = ByEventId> {
    once: Once<K>,
}

impl<K: GuardKey> JobResource for OnceMember<K> {
    async fn begin(job: &Job) -> Result<Begin<Self>, JobError> {
        match Once::<K>::begin(job).await? {
            Begin::Run(once) => Ok(Begin::Run(Self { once })),
            Begin::AlreadyDone => {
                // The job may have been done before it was added, or by a handler without this resource.
                let postgres = Postgres::of(job)?;
                end_by_itself(&postgres, job).await?;
                Ok(Begin::AlreadyDone)
            }
        }
    }

    async fn commit(mut self) -> Result<(), JobError> {
        let Once { transaction, postgres, guarded, .. } = &mut self.once;
        let (group, id) = (guarded.job.group(), guarded.job.event_id().as_str());
        let end = end_in(postgres, transaction, group, id);
        // If the handler ignored an error of an earlier statement, the commit reports that error.
        let ended = fault::within(postgres.limits().timeout(), end).await;
        if let Err(error) = ended
            && !guard::is_aborted(&error)
        {
            return Err(fault::own_error(error));
        }
        guard::commit(self.once).await
    }

    fn judge(&self, error: JobError) -> JobError {
        self.once.judge(error)
    }

    async fn rollback(self) {
        self.once.rollback().await;
    }

    fn require(requirements: &mut Requirements) {
        Once::<K>::require(requirements);
    }
}

/// Ends the job as a member, in a transaction of its own.
async fn end_by_itself(postgres: &Postgres, job: &Job) -> Result<(), JobError> {
    let ended = async {
        let mut transaction = postgres.begin_limited().await?;
        end_in(postgres, &mut transaction, job.group(), job.event_id().as_str()).await?;
        (&mut *transaction).execute(postgres.commit()).await?;
        Ok(())
    };
    // Shorter than the handler's timeout, which would count as a failure of a job that is done.
    fault::within(postgres.timeout_before(job), ended).await.map_err(fault::own_error)
}

async fn end_in(
    postgres: &Postgres,
    connection: &mut PgConnection,
    group: &GroupName,
    event_id: &str,
) -> Result<(), sqlx::Error> {
    members::end(postgres, connection, group, &[(event_id, false)]).await
}

impl<K> Deref for OnceMember<K> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.once
    }
}

impl<K> DerefMut for OnceMember<K> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.once
    }
}

impl<K> fmt::Debug for OnceMember<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceMember").finish_non_exhaustive()
    }
}
