//! The levers over HTTP: what each takes, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use streamjobs::stream::{Cut, Group, PendingQuery, StreamError, Unfinished};
use streamjobs::{ConsumerName, EntryId, GroupName};

use crate::live::asked::{Asked, Flag, Refused};
use crate::live::crew::CrewError;
use crate::live::levers::{DROPS_MAX, Setting};
use crate::live::orders::{OrderEvent, TYPES};
use crate::live::processes::Order;
use crate::live::shop::Shop;
use crate::live::view;

pub(crate) type Shared = State<Arc<Shop>>;

type Answer = Result<Json<Value>, Refused>;

#[derive(Deserialize)]
pub(crate) struct Who {
    #[serde(default)]
    group: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    count: Option<u32>,
}

impl Who {
    /// Group and name without the blanks around them, both of them there.
    fn named(&self) -> Result<(&str, &str), Refused> {
        match (self.group.trim(), self.name.trim()) {
            ("", _) => Err(Refused::bad("group is missing")),
            (_, "") => Err(Refused::bad("name is missing")),
            both => Ok(both),
        }
    }

    fn group(&self) -> Result<&str, Refused> {
        let group = self.group.trim();
        if group.is_empty() { Err(Refused::bad("group is missing")) } else { Ok(group) }
    }
}

pub(crate) async fn state(State(shop): Shared) -> Answer {
    Ok(Json(view::state(&shop).await?))
}

#[derive(Deserialize)]
pub(crate) struct Span {
    start: Option<String>,
    end: Option<String>,
    count: Option<usize>,
}

pub(crate) async fn replay(State(shop): Shared, Asked(span): Asked<Span>) -> Answer {
    let id = |text: Option<&str>, open: &str, fill: u64| match text.map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) if text == open => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(millis) => Ok(Some(EntryId::new(millis, fill))),
            Err(_) => text
                .parse()
                .map(Some)
                .map_err(|_| Refused::bad("a range has entry ids, milliseconds, - or +")),
        },
    };
    let start = id(span.start.as_deref(), "-", 0)?.unwrap_or(EntryId::ZERO);
    let end = id(span.end.as_deref(), "+", u64::MAX)?.unwrap_or(EntryId::MAX);
    let limit = span.count.unwrap_or(20).clamp(1, 500);
    let mut replay = shop.stream.replay(start..=end);
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

pub(crate) async fn produce(State(shop): Shared, Asked(wish): Asked<Produce>) -> Answer {
    let event_type = Some(wish.event_type.trim()).filter(|text| !text.is_empty());
    if event_type.is_some_and(|event_type| !TYPES.contains(&event_type)) {
        return Err(Refused::bad(
            "type is one of order.placed, order.paid, order.shipped, order.cancelled",
        ));
    }
    let mut ids = Vec::new();
    for _ in 0..wish.count.unwrap_or(1).clamp(1, 500) {
        ids.push(shop.publish(&OrderEvent::random(event_type)).await?);
    }
    Ok(Json(json!({ "produced": ids.len(), "ids": ids })))
}

pub(crate) async fn poison(State(shop): Shared) -> Answer {
    let id = shop.publish(&OrderEvent::poison()).await?;
    Ok(Json(json!({ "produced": 1, "ids": [id] })))
}

pub(crate) async fn add_worker(State(shop): Shared, Asked(who): Asked<Who>) -> Answer {
    let (group, label) = who.named()?;
    let (_, _) = (GroupName::new(group)?, ConsumerName::new(label)?);
    let name = shop.add_worker(group, label).await?;
    Ok(Json(json!({ "group": group, "label": label, "name": name.as_str() })))
}

pub(crate) async fn remove_worker(State(shop): Shared, Asked(who): Asked<Who>) -> Answer {
    let (group, label) = who.named()?;
    match shop.crew.remove(group, label).await {
        Ok(report) => Ok(Json(json!({
            "removed": true,
            "finished": report.finished,
            "released": report.released,
            "abandoned": report.abandoned.len(),
        }))),
        Err(CrewError::Unknown { .. }) => {
            Ok(Json(json!({ "removed": false, "reason": "not-found" })))
        }
        Err(error) => Err(error.into()),
    }
}

pub(crate) async fn crash(State(shop): Shared, Asked(who): Asked<Who>) -> Answer {
    let (group, label) = who.named()?;
    let count = who.count.unwrap_or(1).clamp(1, DROPS_MAX);
    if let Ok(worker) = shop.crew.find(group, label).await {
        let queued = shop.levers.drop_next(worker.name.as_str(), count);
        return Ok(Json(json!({ "queued": queued })));
    }
    let order = Order::DropNext { group: group.to_owned(), count };
    if shop.processes.tell(Some(label), &order).await? {
        return Ok(Json(json!({ "queued": count })));
    }
    Err(Refused::missing(format!("there is no worker {label} in group {group}")))
}

pub(crate) async fn kill(State(shop): Shared, Asked(who): Asked<Who>) -> Answer {
    let label = who.name.trim();
    if shop.processes.kill(label).await? {
        return Ok(Json(json!({ "killed": label })));
    }
    Err(Refused::missing("there is no such worker process"))
}

pub(crate) async fn start_process(State(shop): Shared) -> Answer {
    if shop.processes.seen().await.len() >= PROCESSES_MAX {
        return Err(Refused(
            StatusCode::CONFLICT,
            "that is enough processes for one machine".into(),
        ));
    }
    Ok(Json(json!({ "started": shop.start_process().await? })))
}

pub(crate) async fn pause(State(shop): Shared, Asked(who): Asked<Who>) -> Answer {
    Ok(Json(json!({ "changed": shop.stream.group(who.group()?)?.pause().await? })))
}

pub(crate) async fn resume(State(shop): Shared, Asked(who): Asked<Who>) -> Answer {
    Ok(Json(json!({ "changed": shop.stream.group(who.group()?)?.resume().await? })))
}

#[derive(Deserialize)]
pub(crate) struct Levers {
    latency_ms: Option<u64>,
    failure_percent: Option<u8>,
    repaired: Option<Flag>,
}

pub(crate) async fn levers(State(shop): Shared, Asked(wish): Asked<Levers>) -> Answer {
    let now = shop.levers.setting();
    let setting = Setting {
        latency_ms: wish.latency_ms.unwrap_or(now.latency_ms),
        failure_percent: wish.failure_percent.unwrap_or(now.failure_percent),
        repaired: wish.repaired.map_or(now.repaired, |Flag(flag)| flag),
    };
    let setting = setting.clamped();
    shop.levers.set(setting);
    shop.processes.tell(None, &Order::Set(setting)).await?;
    Ok(Json(json!(setting)))
}

#[derive(Deserialize)]
pub(crate) struct Reap {
    #[serde(default)]
    group: String,
    #[serde(default)]
    consumer: String,
}

/// Gives what is idle for longer than the lease to one consumer, and has it take that up.
pub(crate) async fn reap(State(shop): Shared, Asked(wish): Asked<Reap>) -> Answer {
    let (group_name, consumer) = (wish.group.trim(), wish.consumer.trim());
    if group_name.is_empty() || consumer.is_empty() {
        return Err(Refused::bad("group and consumer are needed"));
    }
    let group = shop.stream.group(group_name)?;
    // One of this process that has read nothing yet is not known to the server.
    let workers = shop.crew.workers().await;
    let known = group.consumers().await?.into_iter().any(|known| known.name == consumer)
        || workers.iter().any(|worker| worker.name.as_str() == consumer);
    if !known {
        return Err(Refused::missing(format!("group {group_name} has no consumer {consumer}")));
    }
    let name = ConsumerName::new(consumer)?;
    let lease = shop.place.lease;
    let (mut claimed, mut trimmed) = (Vec::new(), Vec::new());
    for side in [group.clone(), group.lane()] {
        let ids = idle(&side, lease).await?;
        let moved = side.claim(&ids, &name).await?;
        claimed.extend(moved.moved.iter().map(ToString::to_string));
        trimmed.extend(moved.trimmed.iter().map(ToString::to_string));
    }
    for worker in workers.iter().filter(|worker| worker.name == name) {
        shop.crew.reap(worker).await?;
    }
    let label = crate::live::crew::label_of(consumer);
    shop.processes.tell(Some(label), &Order::Reap { group: group_name.to_owned() }).await?;
    Ok(Json(json!({ "claimed": claimed, "trimmed": trimmed, "min_idle_ms": lease.as_millis() })))
}

async fn idle(group: &Group, lease: Duration) -> Result<Vec<EntryId>, StreamError> {
    let page = group.pending(PendingQuery::new().idle_min(lease).limit(1_000)).await?;
    Ok(page.entries.into_iter().map(|entry| entry.id).collect())
}

#[derive(Deserialize)]
pub(crate) struct TrimWish {
    maxlen: Option<u64>,
    older_than_s: Option<u64>,
    #[serde(default)]
    exact: Flag,
    /// Also what is not done: then the counter shows it as lost.
    #[serde(default)]
    lose: Flag,
}

pub(crate) async fn trim(State(shop): Shared, Asked(wish): Asked<TrimWish>) -> Answer {
    let cut = match (wish.maxlen, wish.older_than_s) {
        (Some(length), None) => Cut::Length(length),
        (None, Some(seconds)) => Cut::Age(Duration::from_secs(seconds)),
        _ => return Err(Refused::bad("one of maxlen and older_than_s is needed")),
    };
    let unfinished = if wish.lose.0 { Unfinished::Lose } else { Unfinished::Keep };
    let trimmed = if wish.exact.0 {
        shop.stream.trim_exactly(cut, unfinished).await?
    } else {
        shop.stream.trim(cut, unfinished).await?
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
    /// One letter; all of them without it.
    id: Option<String>,
}

pub(crate) async fn redrive(State(shop): Shared, Asked(wish): Asked<Redrive>) -> Answer {
    let name = wish.group.trim();
    if name.is_empty() {
        return Err(Refused::bad("group is missing"));
    }
    let group = shop.stream.group(name)?;
    group.info().await?;
    let id = wish.id.as_deref().map(str::trim).filter(|id| !id.is_empty());
    if let Some(archive) = &shop.archive {
        if id.is_some() {
            return Err(Refused::bad(
                "single letters of the archive are redriven in the dashboard",
            ));
        }
        let (redriven, failed) =
            archive.redrive(&shop.client, shop.stream.name().as_str(), name).await?;
        return Ok(Json(json!({ "redriven": redriven, "failed": failed, "more": false })));
    }
    let letters = group.dead_letters();
    if let Some(id) = id {
        let id = id.parse().map_err(|_| Refused::bad("id is that of a dead letter"))?;
        letters.redrive(id).await?;
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

pub(crate) async fn elsewhere() -> Refused {
    Refused::missing("there is nothing here")
}

pub(crate) async fn other_method() -> Refused {
    Refused(StatusCode::METHOD_NOT_ALLOWED, "levers are posted, and the rest is got".to_owned())
}

#[derive(Deserialize)]
pub(crate) struct Sure {
    #[serde(default)]
    group: String,
    #[serde(default)]
    confirm: String,
}

pub(crate) async fn delete_group(State(shop): Shared, Asked(sure): Asked<Sure>) -> Answer {
    let group = sure.group.trim();
    if sure.confirm != "delete" {
        return Err(Refused::bad("say confirm=delete: the group's work goes with it"));
    }
    shop.delete_group(group).await?;
    Ok(Json(json!({ "deleted": group })))
}

pub(crate) async fn reset(State(shop): Shared, Asked(sure): Asked<Sure>) -> Answer {
    if sure.confirm != "reset" {
        return Err(Refused::bad(
            "say confirm=reset: the demo's stream goes, with its groups and dead letters",
        ));
    }
    shop.reset(PROCESSES_SEEDED).await?;
    Ok(Json(json!({ "consumers": crate::live::shop::SEED.len() })))
}

const PROCESSES_MAX: usize = 6;
pub(crate) const PROCESSES_SEEDED: usize = 2;
