//! The demo's HTTP API: each control with its parameters and its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use streamjobs::stream::{Cut, EntryAddress, Group, PendingQuery, StreamError, Unfinished};
use streamjobs::{ConsumerName, EntryId, GroupName};

use crate::live::demo::Demo;
use crate::live::orders::{OrderEvent, TYPES};
use crate::live::parameters::{ApiError, Flag, Parameters};
use crate::live::processes::Order;
use crate::live::settings::{DROPS_MAX, Setting};
use crate::live::view;
use crate::live::workers::WorkerError;

pub(crate) type Shared = State<Arc<Demo>>;

type Answer = Result<Json<Value>, ApiError>;

/// The parameters of an action on one worker, or on the workers of a group.
type ForWorker = Parameters<WorkerRequest>;

#[derive(Deserialize)]
pub(crate) struct WorkerRequest {
    #[serde(default)]
    group: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    count: Option<u32>,
}

impl WorkerRequest {
    /// Group and name, trimmed; both are required.
    fn named(&self) -> Result<(&str, &str), ApiError> {
        match (self.group.trim(), self.name.trim()) {
            ("", _) => Err(ApiError::bad("group is missing")),
            (_, "") => Err(ApiError::bad("name is missing")),
            both => Ok(both),
        }
    }

    fn group(&self) -> Result<&str, ApiError> {
        let group = self.group.trim();
        if group.is_empty() { Err(ApiError::bad("group is missing")) } else { Ok(group) }
    }
}

pub(crate) async fn state(State(demo): Shared) -> Answer {
    Ok(Json(view::state(&demo).await?))
}

#[derive(Deserialize)]
pub(crate) struct Span {
    start: Option<String>,
    end: Option<String>,
    count: Option<usize>,
}

pub(crate) async fn replay(State(demo): Shared, Parameters(span): Parameters<Span>) -> Answer {
    let id = |text: Option<&str>, open: &str, fill: u64| match text.map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) if text == open => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(millis) => Ok(Some(EntryId::new(millis, fill))),
            Err(_) => text
                .parse()
                .map(Some)
                .map_err(|_| ApiError::bad("give the range as entry ids, milliseconds, - or +")),
        },
    };
    let start = id(span.start.as_deref(), "-", 0)?.unwrap_or(EntryId::ZERO);
    let end = id(span.end.as_deref(), "+", u64::MAX)?.unwrap_or(EntryId::MAX);
    let limit = span.count.unwrap_or(20).clamp(1, 500);
    let mut replay = demo.stream.replay(start..=end);
    let mut entries = Vec::new();
    while entries.len() < limit {
        match replay.next().await {
            Some(entry) => entries.push(view::entry(&entry?)),
            None => break,
        }
    }
    Ok(Json(
        json!({ "start": start.to_string(), "end": end.to_string(), "limit": limit, "entries": entries }),
    ))
}

#[derive(Deserialize)]
pub(crate) struct Produce {
    count: Option<usize>,
    #[serde(default, rename = "type")]
    event_type: String,
}

pub(crate) async fn produce(
    State(demo): Shared,
    Parameters(request): Parameters<Produce>,
) -> Answer {
    let event_type = Some(request.event_type.trim()).filter(|text| !text.is_empty());
    if event_type.is_some_and(|event_type| !TYPES.contains(&event_type)) {
        return Err(ApiError::bad(
            "type has to be one of order.placed, order.paid, order.shipped, order.cancelled",
        ));
    }
    let mut ids = Vec::new();
    for _ in 0..request.count.unwrap_or(1).clamp(1, 500) {
        ids.push(demo.publish(&OrderEvent::random(event_type)).await?);
    }
    Ok(Json(json!({ "produced": ids.len(), "ids": ids })))
}

pub(crate) async fn poison(State(demo): Shared) -> Answer {
    let id = demo.publish(&OrderEvent::poison()).await?;
    Ok(Json(json!({ "produced": 1, "ids": [id] })))
}

pub(crate) async fn add_worker(State(demo): Shared, Parameters(request): ForWorker) -> Answer {
    let (group, label) = request.named()?;
    let (_, _) = (GroupName::new(group)?, ConsumerName::new(label)?);
    let name = demo.add_worker(group, label).await?;
    Ok(Json(json!({ "group": group, "label": label, "name": name.as_str() })))
}

pub(crate) async fn remove_worker(State(demo): Shared, Parameters(request): ForWorker) -> Answer {
    let (group, label) = request.named()?;
    match demo.pool.remove(group, label).await {
        Ok(report) => Ok(Json(json!({
            "removed": true,
            "finished": report.finished,
            "released": report.released,
            "abandoned": report.abandoned.len(),
        }))),
        Err(WorkerError::Unknown { .. }) => {
            Ok(Json(json!({ "removed": false, "reason": "not-found" })))
        }
        Err(error) => Err(error.into()),
    }
}

pub(crate) async fn crash(State(demo): Shared, Parameters(request): ForWorker) -> Answer {
    let (group, label) = request.named()?;
    let count = request.count.unwrap_or(1).clamp(1, DROPS_MAX);
    if let Ok(worker) = demo.pool.find(group, label).await {
        let queued = demo.settings.drop_next(worker.name.as_str(), count);
        return Ok(Json(json!({ "queued": queued })));
    }
    let order = Order::DropNext { group: group.to_owned(), count };
    if demo.processes.tell(Some(label), &order).await? {
        return Ok(Json(json!({ "queued": count })));
    }
    Err(ApiError::missing(format!("group {group} has no worker {label}")))
}

pub(crate) async fn kill(State(demo): Shared, Parameters(request): ForWorker) -> Answer {
    let label = request.name.trim();
    if demo.processes.kill(label).await? {
        return Ok(Json(json!({ "killed": label })));
    }
    Err(ApiError::missing("no such worker process"))
}

pub(crate) async fn start_process(State(demo): Shared) -> Answer {
    if demo.processes.states().await.len() >= PROCESSES_MAX {
        return Err(ApiError(StatusCode::CONFLICT, "at most 6 worker processes can run".into()));
    }
    Ok(Json(json!({ "started": demo.start_process().await? })))
}

pub(crate) async fn pause(State(demo): Shared, Parameters(request): ForWorker) -> Answer {
    Ok(Json(json!({ "changed": demo.stream.group(request.group()?)?.pause().await? })))
}

pub(crate) async fn resume(State(demo): Shared, Parameters(request): ForWorker) -> Answer {
    Ok(Json(json!({ "changed": demo.stream.group(request.group()?)?.resume().await? })))
}

#[derive(Deserialize)]
pub(crate) struct Settings {
    latency_ms: Option<u64>,
    failure_percent: Option<u8>,
    repaired: Option<Flag>,
}

pub(crate) async fn settings(
    State(demo): Shared,
    Parameters(request): Parameters<Settings>,
) -> Answer {
    let now = demo.settings.setting();
    let setting = Setting {
        latency_ms: request.latency_ms.unwrap_or(now.latency_ms),
        failure_percent: request.failure_percent.unwrap_or(now.failure_percent),
        repaired: request.repaired.map_or(now.repaired, |Flag(flag)| flag),
    };
    let setting = setting.clamped();
    demo.settings.set(setting);
    demo.processes.tell(None, &Order::Set(setting)).await?;
    Ok(Json(json!(setting)))
}

#[derive(Deserialize)]
pub(crate) struct Reap {
    #[serde(default)]
    group: String,
    #[serde(default)]
    consumer: String,
}

/// Claims entries that are idle for longer than the lease for one consumer, which then runs them.
pub(crate) async fn reap(State(demo): Shared, Parameters(request): Parameters<Reap>) -> Answer {
    let (group_name, consumer) = (request.group.trim(), request.consumer.trim());
    if group_name.is_empty() || consumer.is_empty() {
        return Err(ApiError::bad("group and consumer are required"));
    }
    let group = demo.stream.group(group_name)?;
    // The server does not know a worker of this process that has read nothing yet.
    let workers = demo.pool.workers().await;
    let known = group.consumers().await?.into_iter().any(|known| known.name == consumer)
        || workers.iter().any(|worker| worker.name.as_str() == consumer);
    if !known {
        return Err(ApiError::missing(format!("group {group_name} has no consumer {consumer}")));
    }
    let name = ConsumerName::new(consumer)?;
    let lease = demo.worker_options.lease;
    let (mut claimed, mut trimmed) = (Vec::new(), Vec::new());
    for side in [group.clone(), group.lane()] {
        let ids = idle(&side, lease).await?;
        let moved = side.claim(&ids, &name).await?;
        claimed.extend(moved.moved.iter().map(ToString::to_string));
        trimmed.extend(moved.trimmed.iter().map(ToString::to_string));
    }
    for worker in workers.iter().filter(|worker| worker.name == name) {
        demo.pool.reap(worker).await?;
    }
    let label = crate::live::workers::label_of(consumer);
    demo.processes.tell(Some(label), &Order::Reap { group: group_name.to_owned() }).await?;
    Ok(Json(json!({ "claimed": claimed, "trimmed": trimmed, "min_idle_ms": lease.as_millis() })))
}

async fn idle(group: &Group, lease: Duration) -> Result<Vec<EntryId>, StreamError> {
    let page = group.pending(PendingQuery::new().idle_min(lease).limit(1_000)).await?;
    Ok(page.entries.into_iter().map(|entry| entry.id).collect())
}

#[derive(Deserialize)]
pub(crate) struct TrimRequest {
    maxlen: Option<u64>,
    older_than_s: Option<u64>,
    #[serde(default)]
    exact: Flag,
    /// Also removes unfinished entries, which the counter then shows as lost.
    #[serde(default)]
    lose: Flag,
}

pub(crate) async fn trim(
    State(demo): Shared,
    Parameters(request): Parameters<TrimRequest>,
) -> Answer {
    let cut = match (request.maxlen, request.older_than_s) {
        (Some(length), None) => Cut::Length(length),
        (None, Some(seconds)) => Cut::Age(Duration::from_secs(seconds)),
        _ => return Err(ApiError::bad("give either maxlen or older_than_s")),
    };
    let unfinished = if request.lose.0 { Unfinished::Lose } else { Unfinished::Keep };
    let trimmed = if request.exact.0 {
        demo.stream.trim_exactly(cut, unfinished).await?
    } else {
        demo.stream.trim(cut, unfinished).await?
    };
    Ok(Json(json!({
        "deleted": trimmed.removed,
        "length": trimmed.length,
        "blocked_by": trimmed.blocked_by.map(|(group, _)| group),
    })))
}

#[derive(Deserialize)]
pub(crate) struct Redrive {
    #[serde(default)]
    group: String,
    /// The letter to redrive; all letters if absent.
    id: Option<String>,
}

pub(crate) async fn redrive(
    State(demo): Shared,
    Parameters(request): Parameters<Redrive>,
) -> Answer {
    let name = request.group.trim();
    if name.is_empty() {
        return Err(ApiError::bad("group is missing"));
    }
    let group = demo.stream.group(name)?;
    group.info().await?;
    let id = request.id.as_deref().map(str::trim).filter(|id| !id.is_empty());
    if let Some(archive) = &demo.archive {
        if id.is_some() {
            return Err(ApiError::bad(
                "use the dashboard to redrive single letters of the archive",
            ));
        }
        let (redriven, failed) =
            archive.redrive(&demo.client, demo.stream.name().as_str(), name).await?;
        return Ok(Json(json!({ "redriven": redriven, "failed": failed, "more": false })));
    }
    let letters = group.dead_letters();
    if let Some(id) = id {
        let id = id.parse::<EntryAddress>();
        letters.redrive(id.map_err(|_| ApiError::bad("invalid id of a dead letter"))?).await?;
        return Ok(Json(json!({ "redriven": 1, "failed": 0, "more": false })));
    }
    let page = letters.list(None, 500).await?;
    let ids = page.letters.iter().map(|letter| letter.id).collect::<Vec<_>>();
    let answers = letters.redrive_all(ids).await;
    let redriven = answers.iter().filter(|(_, answer)| answer.is_ok()).count();
    Ok(Json(
        json!({ "redriven": redriven, "failed": answers.len() - redriven, "more": page.next.is_some() }),
    ))
}

pub(crate) async fn not_found() -> ApiError {
    ApiError::missing("not found")
}

pub(crate) async fn wrong_method() -> ApiError {
    ApiError(StatusCode::METHOD_NOT_ALLOWED, "use POST for actions and GET for pages".to_owned())
}

#[derive(Deserialize)]
pub(crate) struct Confirmation {
    #[serde(default)]
    group: String,
    #[serde(default)]
    confirm: String,
}

pub(crate) async fn delete_group(
    State(demo): Shared,
    Parameters(confirmation): Parameters<Confirmation>,
) -> Answer {
    let group = confirmation.group.trim();
    if confirmation.confirm != "delete" {
        return Err(ApiError::bad(
            "confirm=delete is required: the group's unfinished jobs are lost",
        ));
    }
    demo.delete_group(group).await?;
    Ok(Json(json!({ "deleted": group })))
}

pub(crate) async fn reset(
    State(demo): Shared,
    Parameters(confirmation): Parameters<Confirmation>,
) -> Answer {
    if confirmation.confirm != "reset" {
        return Err(ApiError::bad(
            "confirm=reset is required: the demo's stream is deleted with its groups and dead letters",
        ));
    }
    demo.reset(PROCESSES_SEEDED).await?;
    Ok(Json(json!({ "consumers": crate::live::demo::SEED.len() })))
}

const PROCESSES_MAX: usize = 6;
pub(crate) const PROCESSES_SEEDED: usize = 2;
