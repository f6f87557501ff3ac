//! `streamjobs info`, `groups`, `consumers`, `pending` and `diagnose`, which change nothing.

use serde_json::{Value, json};
use streamjobs::stream::{
    ConsumerInfo, GroupInfo, HolderState, PendingEntry, PendingQuery, Problem, Progress, Stream,
    StreamError, StreamInfo,
};
use streamjobs::{Client, EntryId};

use crate::action::{group, stream};
use crate::arguments::{Inspect, Pending, Queue};
use crate::color::Style;
use crate::output::{Output, milliseconds, or_unknown, print_note, span, time};
use crate::{Exit, Failure, finished, retries, trend};

pub(crate) async fn run(
    client: &Client,
    command: Inspect,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command {
        Inspect::Info(command) => {
            let stream = stream(client, &command.stream, command.part)?;
            info(&stream, output).await
        }
        Inspect::Groups(command) => {
            let stream = stream(client, &command.stream, command.part)?;
            groups(&stream.groups().await?, output)
        }
        Inspect::Consumers(queue) => {
            let consumers = group(client, &queue)?.consumers().await?;
            show_consumers(&consumers, output)
        }
        Inspect::Pending(command) => pending(client, &command, output).await,
        Inspect::Retries(command) => retries::run(client, &command, output).await,
        Inspect::Trend(command) => trend::run(client, &command, output).await,
        Inspect::Finished(command) => finished::run(client, &command, output).await,
        Inspect::Diagnose(queue) => diagnose(client, &queue, output).await,
    }
}

async fn info(stream: &Stream, output: &mut Output) -> Result<Exit, Failure> {
    let whole = stream.info().await?;
    let parts = match stream.partitions() {
        parts if parts.len() > 1 => read_parts(parts).await?,
        _ => Vec::new(),
    };
    if output.is_json() {
        let mut document = info_document(stream.name().as_str(), &whole);
        if let (Value::Object(document), false) = (&mut document, parts.is_empty()) {
            let parts = parts.iter().map(|(name, info)| match info {
                Some(info) => info_document(name, info),
                None => json!({ "stream": name, "length": 0 }),
            });
            document.insert("partitions".to_owned(), parts.collect());
        }
        output.document(&document)?;
        return Ok(Exit::Ok);
    }
    let end = |id: Option<EntryId>| match id {
        Some(id) => format!("{id}  {}", time(id.milliseconds())),
        None => "-".to_owned(),
    };
    output.pairs([
        ("stream", stream.name().to_string()),
        ("entries", whole.length.to_string()),
        ("first", end(whole.first)),
        ("last", end(whole.last)),
        ("last generated id", whole.last_id.to_string()),
        ("added in total", whole.added.to_string()),
        ("bytes", or_unknown(whole.bytes)),
        ("groups", whole.groups.to_string()),
    ])?;
    if !parts.is_empty() {
        parts_table(&parts, output)?;
    }
    Ok(Exit::Ok)
}

/// Each partition with its state; `None` if no event has arrived and no group exists there.
async fn read_parts(parts: Vec<Stream>) -> Result<Vec<(String, Option<StreamInfo>)>, Failure> {
    let mut read = Vec::with_capacity(parts.len());
    for part in parts {
        let info = match part.info().await {
            Ok(info) => Some(info),
            Err(StreamError::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        read.push((part.name().to_string(), info));
    }
    Ok(read)
}

fn parts_table(parts: &[(String, Option<StreamInfo>)], output: &mut Output) -> Result<(), Failure> {
    let row = |(number, (name, info)): (usize, &(String, Option<StreamInfo>))| {
        let info = info.as_ref();
        let id = |id: Option<EntryId>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        [
            number.to_string(),
            name.clone(),
            info.map_or(0, |info| info.length).to_string(),
            id(info.and_then(|info| info.first)),
            id(info.and_then(|info| info.last)),
        ]
    };
    let head = ["PARTITION", "STREAM", "ENTRIES", "FIRST", "LAST"];
    output.line("")?;
    Ok(output.table(head, parts.iter().enumerate().map(row).collect())?)
}

fn info_document(name: &str, info: &StreamInfo) -> Value {
    json!({
        "stream": name,
        "length": info.length,
        "first": info.first.map(|id| id.to_string()),
        "last": info.last.map(|id| id.to_string()),
        "last_id": info.last_id.to_string(),
        "added": info.added,
        "bytes": info.bytes,
        "groups": info.groups,
    })
}

fn groups(groups: &[GroupInfo], output: &mut Output) -> Result<Exit, Failure> {
    if output.is_json() {
        let groups = groups.iter().map(group_document).collect::<Vec<_>>();
        output.document(&json!({ "groups": groups }))?;
        return Ok(Exit::Ok);
    }
    let head = [
        "GROUP",
        "BACKLOG",
        "LAG",
        "OLDEST WAITING",
        "PENDING",
        "OLDEST IDLE",
        "RELEASED",
        "RETRIES",
        "DEAD LETTERS",
        "TRIMMED UNREAD",
        "PAUSED",
    ];
    let row = |group: &GroupInfo| {
        [
            group.group.clone(),
            group.backlog.to_string(),
            or_unknown(group.lag),
            span(group.oldest_waiting),
            group.pending.to_string(),
            span(group.oldest_pending),
            group.released.to_string(),
            group.retrying.to_string(),
            or_unknown(group.dead_letters),
            group.trimmed_unread.to_string(),
            paused(group),
        ]
    };
    output.table(head, groups.iter().map(row).collect())?;
    Ok(Exit::Ok)
}

/// How long the group has been paused, and in how many partitions if not in all.
fn paused(group: &GroupInfo) -> String {
    let paused = span(group.paused);
    match group.paused {
        Some(_) if group.paused_in < group.partitions => {
            format!("{paused} in {} of {}", group.paused_in, group.partitions)
        }
        _ => paused,
    }
}

fn group_document(group: &GroupInfo) -> Value {
    json!({
        "stream": group.stream,
        "group": group.group,
        "cursor": group.cursor.to_string(),
        "backlog": group.backlog.entries,
        "backlog_exact": group.backlog.exact,
        "lag": group.lag,
        "oldest_waiting_ms": milliseconds(group.oldest_waiting),
        "pending": group.pending,
        "oldest_pending_idle_ms": milliseconds(group.oldest_pending),
        "released": group.released,
        "retrying": group.retrying,
        "parked": group.parked,
        "longest_line": group.longest_line.as_ref().map(|(key, jobs)| json!({ "key": key, "jobs": jobs })),
        "dead_letters": group.dead_letters,
        "new_dead_letters": group.new_dead_letters,
        "trimmed_unread": group.trimmed_unread,
        "paused_ms": milliseconds(group.paused),
        "partitions": group.partitions,
        "paused_in": group.paused_in,
        "without_group": group.without_group,
    })
}

fn show_consumers(consumers: &[ConsumerInfo], output: &mut Output) -> Result<Exit, Failure> {
    if output.is_json() {
        let consumers = consumers.iter().map(consumer_document).collect::<Vec<_>>();
        output.document(&json!({ "consumers": consumers }))?;
        return Ok(Exit::Ok);
    }
    let head = [
        "CONSUMER",
        "STATE",
        "PENDING",
        "IN FLIGHT",
        "SLOTS",
        "DONE",
        "FAILED",
        "CLAIMED",
        "HEARTBEAT",
        "IDLE",
        "HOST",
        "PROCESS",
        "VERSION",
        "STARTED",
    ];
    let row = |consumer: &ConsumerInfo| {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let number = |number: Option<u64>| text(&number.map(|number| number.to_string()));
        [
            consumer.name.clone(),
            consumer.liveness.to_string(),
            consumer.pending.to_string(),
            number(consumer.in_flight),
            number(consumer.slots),
            number(consumer.done),
            number(consumer.failed),
            number(consumer.claimed),
            span(consumer.last_heartbeat),
            span(Some(consumer.idle)),
            text(&consumer.host),
            number(consumer.process.map(u64::from)),
            text(&consumer.version),
            text(&consumer.started.map(time)),
        ]
    };
    output.table(head, consumers.iter().map(row).collect())?;
    Ok(Exit::Ok)
}

fn consumer_document(consumer: &ConsumerInfo) -> Value {
    json!({
        "consumer": consumer.name,
        "state": consumer.liveness.as_str(),
        "pending": consumer.pending,
        "in_flight": consumer.in_flight,
        "refused": consumer.refused,
        "slots": consumer.slots,
        "shared_slots": consumer.slot_set.as_ref().map(|set| json!({
            "set": set.name,
            "weight": consumer.weight,
            "slots": set.slots,
            "in_use": set.in_use,
        })),
        "done": consumer.done,
        "failed": consumer.failed,
        "recent_done": consumer.recent_done,
        "recent_failed": consumer.recent_failed,
        "claimed": consumer.claimed,
        "claimed_early_by": consumer.claimed_early_by,
        "last_heartbeat_ms": milliseconds(consumer.last_heartbeat),
        "idle_ms": milliseconds(Some(consumer.idle)),
        "inactive_ms": milliseconds(consumer.inactive),
        "host": consumer.host,
        "process": consumer.process,
        "version": consumer.version,
        "started_ms": consumer.started,
    })
}

async fn pending(client: &Client, command: &Pending, output: &mut Output) -> Result<Exit, Failure> {
    let group = group(client, &command.queue)?;
    let group = if command.lane { group.lane() } else { group };
    let limit = usize::try_from(command.limit)?;
    let mut query = PendingQuery::new()
        .idle_min(command.idle_min)
        .deliveries_min(command.deliveries_min)
        .limit(PAGE);
    if let Some(consumer) = &command.consumer {
        query = query.consumer(consumer);
    }
    if let Some(after) = command.after {
        query = query.after(after);
    }
    let (mut listed, mut more) = (Vec::new(), None);
    loop {
        let page = group.pending(query.clone()).await?;
        for entry in page.entries {
            if listed.len() == limit {
                more = listed.last().map(PendingEntry::address);
                break;
            }
            listed.push(entry);
        }
        let Some(next) = page.next.filter(|_| more.is_none()) else { break };
        query = query.after(next);
    }
    if output.is_json() {
        let entries = listed.iter().map(|entry| {
            json!({
                "id": entry.address().to_string(),
                "consumer": entry.consumer,
                "idle_ms": milliseconds(entry.idle),
                "deliveries": entry.delivery_count,
                "progress": entry.progress.as_ref().map(progress_document),
            })
        });
        let entries = entries.collect::<Vec<_>>();
        let more = more.map(|id| id.to_string());
        output.document(&json!({ "entries": entries, "more_after": more }))?;
        return Ok(Exit::Ok);
    }
    let row = |entry: &PendingEntry| {
        let consumer = if entry.consumer.is_empty() { "(released)" } else { &entry.consumer };
        let deliveries = entry.delivery_count.to_string();
        let progress = entry.progress.as_ref().map_or_else(String::new, |progress| {
            format!("{progress} ({} ago)", span(Some(progress.age)))
        });
        [entry.address().to_string(), consumer.to_owned(), span(entry.idle), deliveries, progress]
    };
    let head = ["ID", "CONSUMER", "IDLE", "DELIVERIES", "PROGRESS"];
    output.table(head, listed.iter().map(row).collect())?;
    if let Some(id) = more {
        output.flush()?;
        print_note(&format!("more results: --after {id}"));
    }
    Ok(Exit::Ok)
}

pub(crate) fn progress_document(progress: &Progress) -> Value {
    json!({
        "done": progress.done,
        "of": progress.of,
        "text": progress.text,
        "age_ms": milliseconds(Some(progress.age)),
    })
}

async fn diagnose(client: &Client, queue: &Queue, output: &mut Output) -> Result<Exit, Failure> {
    let diagnosis = group(client, queue)?.diagnose().await?;
    if output.is_json() {
        let problems = diagnosis.problems.iter().map(|problem| {
            json!({
                "problem": problem.as_str(),
                "severity": problem.severity().as_str(),
                "what": problem.to_string(),
                "waits_for": waits_for(problem),
            })
        });
        output.document(&json!({
            "stream": queue.stream.as_str(),
            "group": queue.group.as_str(),
            "healthy": diagnosis.is_healthy(),
            "problems": problems.collect::<Vec<_>>(),
        }))?;
    } else if diagnosis.is_healthy() {
        output.line_as(Style::Good, &format!("{queue} is healthy"))?;
    } else {
        for problem in &diagnosis.problems {
            output.line_as(problem.severity().into(), &problem.to_string())?;
        }
    }
    Ok(if diagnosis.is_healthy() { Exit::Ok } else { Exit::Findings })
}

/// If a limit is reached, the job for which other jobs wait.
fn waits_for(problem: &Problem) -> Option<Value> {
    let Problem::LimitReached { holder: Some(line), .. } = problem else { return None };
    let job = line.holder.as_ref().map(|job| {
        let (consumer, idle, due_in) = match &job.state {
            HolderState::Pending { consumer, idle } => (Some(consumer), *idle, None),
            HolderState::Retrying { due_in } => (None, None, Some(*due_in)),
            _ => (None, None, None),
        };
        json!({
            "event_id": job.event_id,
            "entry": job.entry.to_string(),
            "waited": job.waited,
            "state": job.state.as_str(),
            "consumer": consumer,
            "idle_ms": milliseconds(idle),
            "due_in_ms": milliseconds(due_in),
            "since_ms": milliseconds(Some(job.since)),
        })
    });
    Some(json!({
        "key": line.key,
        "jobs": line.jobs,
        "job": job,
        "places_looked_at": line.looked,
        "all_looked_at": line.complete,
    }))
}

/// How many pending entries one request reads; it returns no payloads.
const PAGE: usize = 1_000;
