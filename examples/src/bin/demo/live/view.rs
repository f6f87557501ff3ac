//! The state that the page shows, as one JSON document.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use streamjobs::stream::{ConsumerInfo, GroupInfo, PendingQuery};
use streamjobs::{Entry, EntryId};

use crate::AnyError;
use crate::live::demo::Demo;
use crate::live::ledger::{Published, Waiting};
use crate::live::workers::{Worker, label_of};

/// The whole state.
pub(crate) async fn state(demo: &Demo) -> Result<Value, AnyError> {
    // Read first, so that events published meanwhile cannot look lost.
    let published = demo.ledger().published();
    let workers = demo.pool.workers().await;
    let info = match demo.stream.info().await {
        Ok(info) => Some(info),
        Err(streamjobs::stream::StreamError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    // Read before the groups, so that entries trimmed meanwhile count as waiting and not as lost.
    let first = info.as_ref().and_then(|info| info.first);
    let (tail, groups) = match &info {
        Some(_) => (demo.stream.newest(10).await?, demo.stream.groups().await?),
        None => (Vec::new(), Vec::new()),
    };
    let mut shown = Vec::with_capacity(groups.len());
    for group in &groups {
        shown.push(group_state(demo, group, first, &workers, published).await?);
    }
    let id = |id: Option<EntryId>| id.map(|id| id.to_string());
    Ok(json!({
        "stream": {
            "key": demo.stream.name().as_str(),
            "length": info.as_ref().map_or(0, |info| info.length),
            "first": id(first),
            "last": info.as_ref().and_then(|info| id(info.last)),
            "cap": demo.cap,
            "lease_ms": demo.worker_options.lease.as_millis(),
        },
        "published": demo.ledger().total(),
        "tail": tail.iter().map(entry).collect::<Vec<_>>(),
        "groups": shown,
        "processes": demo.processes.states().await,
        "settings": demo.settings.setting(),
    }))
}

async fn group_state(
    demo: &Demo,
    info: &GroupInfo,
    first: Option<EntryId>,
    workers: &[Worker],
    published: Published,
) -> Result<Value, AnyError> {
    let group = demo.stream.group(&info.group)?;
    let behind = info.cursor.next().max(first);
    let waiting = Waiting {
        taken: info.pending + info.released + info.retrying,
        backlog: info.backlog.entries,
        undelivered: behind.filter(|_| !info.backlog.exact),
    };
    let consumers = group.consumers().await?;
    let pending = group.pending(PendingQuery::new().limit(50)).await?.entries;
    let in_lane = group.lane().pending(PendingQuery::new().limit(50)).await?.entries;
    let pending = pending.iter().chain(&in_lane).take(50).map(|entry| {
        json!({
            "id": entry.id.to_string(),
            "consumer": entry.consumer,
            "idle_ms": entry.idle.map(|idle| idle.as_millis()),
            "deliveries": entry.delivery_count,
        })
    });
    let pending = pending.collect::<Vec<_>>();
    // The server is read before the ledger, so that a job that is done in between is not lost.
    demo.read_letters(&info.group).await?;
    let figures = demo.ledger().figures(&info.group, published, waiting);
    Ok(json!({
        "name": info.group,
        "cursor": info.cursor.to_string(),
        "lag": info.lag,
        "backlog": info.backlog.entries,
        "backlog_exact": info.backlog.exact,
        "pending": info.pending,
        "retrying": info.retrying,
        "dead_letters": info.dead_letters,
        "paused": info.paused.is_some(),
        "trimmed_unread": info.trimmed_unread,
        "figures": figures,
        "pending_entries": pending,
        "consumers": consumers_of(demo, &info.group, &consumers, workers),
    }))
}

/// Consumers on the server, and workers of this process that have read nothing yet, by name.
fn consumers_of(
    demo: &Demo,
    group: &str,
    consumers: &[ConsumerInfo],
    workers: &[Worker],
) -> Vec<Value> {
    let mut all = BTreeMap::<&str, (Option<&ConsumerInfo>, Option<&Worker>)>::new();
    for consumer in consumers {
        all.entry(&consumer.name).or_default().0 = Some(consumer);
    }
    for worker in workers.iter().filter(|worker| worker.group == group) {
        all.entry(worker.name.as_str()).or_default().1 = Some(worker);
    }
    let ledger = demo.ledger();
    let row = |(name, (consumer, worker)): (&str, (Option<&ConsumerInfo>, Option<&Worker>))| {
        let recent = ledger.recent(name);
        json!({
            "name": name,
            "label": label_of(name),
            "here": worker.is_some(),
            "liveness": consumer.map_or("starting", |consumer| consumer.liveness.as_str()),
            "paused": worker.is_some_and(|worker| worker.paused),
            "will_drop": demo.settings.drops_of(name),
            "in_flight": worker.map(|worker| worker.in_flight),
            "pending": consumer.map_or(0, |consumer| consumer.pending),
            "idle_ms": consumer.map(|consumer| consumer.idle.as_millis()),
            "process": consumer.and_then(|consumer| consumer.process),
            "processed": recent.done,
            "failed": recent.failed,
            "dropped": recent.dropped,
            "claimed": consumer.and_then(|consumer| consumer.claimed),
            "recent": recent.deliveries.iter().take(3).collect::<Vec<_>>(),
        })
    };
    all.into_iter().map(row).collect()
}

/// An entry with its fields as text.
pub(crate) fn entry(entry: &Entry) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = entry.fields().iter();
    let fields = fields.map(|(name, value)| (text(name), Value::String(text(value))));
    json!({ "id": entry.id().to_string(), "fields": fields.collect::<serde_json::Map<_, _>>() })
}
