//! What has to be there before the loops of a queue start: its group, and the server's clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::cause::BoxError;
use crate::model::config::Start;
use crate::model::error::{ControlError, StartError};
use crate::model::heartbeat::Heartbeat;
use crate::runtime::consumer::QueueHandle;
use crate::runtime::observe::{QueueContext, QueueEvent, wide};
use crate::runtime::upkeep::heartbeat_interval;
use crate::store::lacking::lacking;
use crate::store::{Inlet, Prepared, Queue, StoreError};

/// A queue that cannot be started, and why.
#[derive(Debug)]
pub(crate) struct Unprepared {
    pub(crate) queue: Queue,
    pub(crate) source: BoxError,
}

impl From<Unprepared> for StartError {
    fn from(Unprepared { queue, source }: Unprepared) -> Self {
        let (stream, group) = (queue.stream.to_string(), queue.group.to_string());
        Self::Group { stream, group, source }
    }
}

impl From<Unprepared> for ControlError {
    fn from(Unprepared { queue, source }: Unprepared) -> Self {
        let (stream, group) = (queue.stream.to_string(), queue.group.to_string());
        Self::Group { stream, group, source }
    }
}

/// Creates the group where it is missing, and learns the server's clock and whether the group is
/// paused or has another rate than the code's. How many entries that were published before a new group
/// has to run.
pub(crate) async fn prepare(
    handle: &QueueHandle,
    janitor_interval: Duration,
) -> Result<u64, Unprepared> {
    let (context, clock) = (&handle.context, &handle.health.clock);
    let queue = context.queue();
    let failed = |error: StoreError| Unprepared { queue: queue.clone(), source: error.into() };
    let prepared = context.store.prepare(queue, context.config.start).await.map_err(failed)?;
    if prepared == Prepared::Recreated {
        context.report.queue(QueueEvent::GroupRecreated);
    }
    let old = match (prepared, context.config.start) {
        (Prepared::Created, Start::Beginning) => entries_before(context).await.map_err(failed)?,
        _ => 0,
    };
    let rights = context.store.rights(std::slice::from_ref(queue)).await;
    if let Some(rights) = allow_refusal(context, "check the rights", rights).map_err(failed)?
        && let Some(lacking) = lacking(&rights, &queue.key(Inlet::STREAM))
    {
        return Err(Unprepared { queue: queue.clone(), source: lacking.into() });
    }
    // Any answer may be slow; the clock keeps the fastest.
    for _ in 0..CLOCK_READINGS {
        let sent = Instant::now();
        let now = context.store.now(&queue.stream).await.map_err(failed)?;
        clock.observe(sent, Instant::now(), now);
    }
    // Before the first read: once the group reads on, the server no longer shows what was trimmed
    // unread. And a pause holds for processes that start later.
    let lease = context.config.lease;
    let interval = heartbeat_interval(lease, janitor_interval);
    let started = clock.server_now(Instant::now());
    let mut heartbeat = Heartbeat::this_process(started, interval, lease);
    heartbeat.slots = wide(handle.slots.size());
    let heartbeat = heartbeat.with_types(context.types.iter().copied());
    let heartbeat =
        heartbeat.with_limit(context.config.limit).with_rate(context.config.rate).write();
    let recorded = context.store.heartbeat(queue, context.consumer(), &heartbeat).await;
    if let Some(recorded) = allow_refusal(context, "heartbeat", recorded).map_err(failed)? {
        context.report.queue(QueueEvent::TrimmedUnread(recorded.trimmed_unread));
    }
    let sent = Instant::now();
    let promoted = context.store.promote(queue, context.consumer(), 0).await;
    if let Some(promoted) =
        allow_refusal(context, "read the pause flag", promoted).map_err(failed)?
    {
        handle.pause.heard(&promoted);
        // A job that was cancelled before this process began does not run here.
        let heard = handle.cancels.heard(promoted.cancels, sent).await;
        allow_refusal(context, "read which jobs are cancelled", heard).map_err(failed)?;
    }
    Ok(old)
}

/// How many entries the stream of a group has that was created at its beginning just now; none where the
/// user may not know.
async fn entries_before(context: &QueueContext) -> Result<u64, StoreError> {
    let sizes = context.store.stream_sizes(&context.queue().stream).await;
    let sizes = allow_refusal(context, "count the entries of the stream", sizes)?;
    Ok(sizes.flatten().map_or(0, |sizes| sizes.length))
}

/// The answer, or none for a refusal. A refusal concerns a helper key and not the stream, which can
/// be read all the same; the loops report it again.
fn allow_refusal<T>(
    context: &QueueContext,
    operation: &'static str,
    answer: Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    match answer {
        Err(error @ StoreError::Refused { .. }) => {
            context.report.store_failed(operation, &error);
            Ok(None)
        }
        answer => answer.map(Some),
    }
}

/// How often the server's clock is read before the first job.
const CLOCK_READINGS: usize = 3;
