//! What has to be there before the loops of a queue start: its group, and the server's clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use crate::model::cause::BoxError;
use crate::model::config::Start;
use crate::model::error::{ControlError, StartError};
use crate::model::heartbeat::Heartbeat;
use crate::publish::layouts::Layouts;
use crate::runtime::consumer::QueueHandle;
use crate::runtime::observe::{QueueContext, QueueEvent, wide};
use crate::runtime::upkeep::heartbeat_interval;
use crate::store::lacking::lacking;
use crate::store::{BeginAt, GroupMade, Inlet, Prepared, Queue, StoreError};

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

/// A queue that is ready to start.
#[derive(Debug)]
pub(crate) struct PreparedQueue {
    pub(crate) handle: Arc<QueueHandle>,
    /// How many entries that were published before a new group it has to run.
    pub(crate) old: u64,
    group: Prepared,
}

/// Creates the groups of queues where they are missing, and learns of each queue the server's clock and whether
/// the group is paused or has another rate than the code's.
pub(crate) async fn prepare(
    queues: Vec<Arc<QueueHandle>>,
    layouts: &Layouts,
    janitor_interval: Duration,
) -> Result<Vec<PreparedQueue>, Unprepared> {
    // The first partition says since when a group exists, so it has the group before the others.
    let is_first = |handle: &Arc<QueueHandle>| *handle.context.queue() == first_of(&handle.context);
    let (first, others) = queues.into_iter().partition::<Vec<_>, _>(is_first);
    let preparing = stream::iter(first).map(async |handle| {
        let (at, told) = {
            let context = &handle.context;
            (BeginAt::Start(context.config.start), layouts.count(&context.whole))
        };
        prepare_one(handle, at, Some(told), janitor_interval).await
    });
    let mut prepared = preparing.buffer_unordered(PREPARED_AT_ONCE).try_collect::<Vec<_>>().await?;
    let made = groups_made(&prepared, &others).await?;
    let preparing = stream::iter(others).map(async |handle| {
        let at = {
            let (context, start) = (&handle.context, handle.context.config.start);
            let number = layouts.number(&context.queue().stream).unwrap_or(0);
            let made = made.get(&first_of(context)).copied().unwrap_or(GroupMade::New);
            made.begin_in(number, start)
        };
        prepare_one(handle, at, None, janitor_interval).await
    });
    let others = preparing.buffer_unordered(PREPARED_AT_ONCE).try_collect::<Vec<_>>().await?;
    prepared.extend(others);
    Ok(prepared)
}

/// Since when groups exist that begin in other partitions than the first one. Each first partition is asked once.
async fn groups_made(
    prepared: &[PreparedQueue],
    others: &[Arc<QueueHandle>],
) -> Result<HashMap<Queue, GroupMade>, Unprepared> {
    let created = prepared.iter().filter(|queue| queue.group == Prepared::Created);
    let created = created.map(|queue| (queue.handle.context.queue().clone(), GroupMade::New));
    let mut made = created.collect::<HashMap<_, _>>();
    // A group that begins at the beginning does so everywhere.
    let asked = others.iter().filter(|handle| handle.context.config.start != Start::Beginning);
    let asked = asked.map(|handle| (first_of(&handle.context), Arc::clone(handle)));
    let asked = asked.filter(|(first, _)| !made.contains_key(first)).collect::<HashMap<_, _>>();
    let asking = stream::iter(asked).map(async |(first, handle)| {
        let answer = handle.context.store.group_made(&first).await;
        match answer {
            Ok(made) => Ok((first, made)),
            Err(error) => Err(Unprepared { queue: first, source: error.into() }),
        }
    });
    let asked = asking.buffer_unordered(PREPARED_AT_ONCE).try_collect::<Vec<_>>().await?;
    made.extend(asked);
    Ok(made)
}

/// The same group in the first partition of its stream, which may be this one.
fn first_of(context: &QueueContext) -> Queue {
    Queue { stream: context.whole.clone(), group: context.queue().group.clone() }
}

async fn prepare_one(
    handle: Arc<QueueHandle>,
    at: BeginAt,
    told: Option<u16>,
    janitor_interval: Duration,
) -> Result<PreparedQueue, Unprepared> {
    let (context, clock) = (&handle.context, &handle.health.clock);
    let queue = context.queue();
    let failed = |error: StoreError| Unprepared { queue: queue.clone(), source: error.into() };
    let prepared = context.store.prepare_at(queue, at, told).await.map_err(failed)?;
    if prepared == Prepared::Recreated {
        context.report.queue(QueueEvent::GroupRecreated);
    }
    let old = match (prepared, at) {
        (Prepared::Created, BeginAt::Start(Start::Beginning)) => {
            entries_before(context).await.map_err(failed)?
        }
        _ => 0,
    };
    let rights = context.store.rights(std::slice::from_ref(queue)).await;
    if let Some(rights) = allow_refusal(context, "check the rights", rights).map_err(failed)?
        && let Some(lacking) = lacking(&rights, &queue.key(Inlet::STREAM))
    {
        return Err(Unprepared { queue: queue.clone(), source: lacking.into() });
    }
    // Any answer may be slow; the clock keeps the fastest answer.
    for _ in 0..CLOCK_READINGS {
        let sent = Instant::now();
        let now = context.store.now(&queue.stream).await.map_err(failed)?;
        clock.observe(sent, Instant::now(), now);
    }
    // Both steps come before the first read. Once the group reads on, the server no longer shows
    // what was trimmed unread. And a pause also applies to processes that start after it began.
    let lease = context.config.lease;
    let interval = heartbeat_interval(lease, janitor_interval);
    let started = clock.server_now(Instant::now());
    let mut heartbeat = Heartbeat::this_process(started, interval, lease);
    heartbeat.slots = wide(handle.slots.size());
    heartbeat.shared = handle.slots.shared_here();
    let heartbeat = heartbeat.with_types(context.types.iter().copied());
    let heartbeat =
        heartbeat.with_limit(context.config.limit).with_rate(context.config.rate).write();
    let recorded = context.store.heartbeat(queue, context.consumer(), &heartbeat).await;
    if let Some(recorded) = allow_refusal(context, "heartbeat", recorded).map_err(failed)? {
        context.report.queue(QueueEvent::TrimmedUnread(recorded.trimmed_unread));
    }
    let (sent, before) = (Instant::now(), handle.pause.starts.before_promotion());
    let promoted = context.store.promote(queue, context.consumer(), 0).await;
    if let Some(promoted) =
        allow_refusal(context, "read the pause flag", promoted).map_err(failed)?
    {
        handle.pause.heard(&promoted, before);
        // A job that was cancelled before this process began does not run here.
        let heard = handle.cancels.heard(promoted.cancels, sent).await;
        allow_refusal(context, "read which jobs are cancelled", heard).map_err(failed)?;
    }
    Ok(PreparedQueue { old, group: prepared, handle })
}

/// How many entries the stream of a group has that was created at its beginning just now; zero if the Redis user
/// lacks the right to know.
async fn entries_before(context: &QueueContext) -> Result<u64, StoreError> {
    let sizes = context.store.stream_sizes(&context.queue().stream).await;
    let sizes = allow_refusal(context, "count the entries of the stream", sizes)?;
    Ok(sizes.flatten().map_or(0, |sizes| sizes.length))
}

/// The answer, or `None` for a refusal. A refusal concerns a helper key and not the stream, which
/// can be read all the same. The loops report the refusal again.
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
/// Many queues are prepared in the time of a few, and the server gets to serve others in between.
const PREPARED_AT_ONCE: usize = 32;
