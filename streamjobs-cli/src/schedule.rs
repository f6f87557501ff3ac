//! `streamjobs schedule ...`: schedules, which publish again and again.

use serde_json::{Value, json};
use streamjobs::schedule::{FiringInfo, Overlap, ScheduleInfo, Schedules, SchedulesError};
use streamjobs::{Client, StreamName};

use crate::action::planned;
use crate::arguments::{Consent, OneSchedule, Schedule, ScheduleHistory, ScheduleList};
use crate::output::{Output, milliseconds, print_note, span, time};
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: Schedule,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command {
        Schedule::List(command) => list(client, &command, output).await,
        Schedule::Show(one) => show(client, &one, output).await,
        Schedule::Run(one) => run_now(client, &one, output).await,
        Schedule::Pause(one) => {
            known(client, &one.stream).await?.pause(&one.name).await?;
            done(&one, "pause", &format!("paused {}", one.name), true, output)
        }
        Schedule::Resume(one) => {
            let resumed = known(client, &one.stream).await?.resume(&one.name).await?;
            let text = if resumed { "resumed" } else { "not paused:" };
            done(&one, "resume", &format!("{text} {}", one.name), resumed, output)
        }
        Schedule::Remove { schedule, consent } => remove(client, &schedule, consent, output).await,
        Schedule::History(command) => history(client, &command, output).await,
    }
}

async fn list(
    client: &Client,
    command: &ScheduleList,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let schedules = known(client, &command.stream).await?;
    let limit = usize::try_from(command.limit)?;
    let (mut listed, mut after) = (Vec::new(), command.after.clone());
    let more = loop {
        let page = schedules.list(after.as_ref(), PAGE.min(limit - listed.len())).await?;
        listed.extend(page.schedules);
        after = page.next;
        if after.is_none() || listed.len() >= limit {
            break after;
        }
    };
    if output.is_json() {
        let rows = listed.iter().map(document).collect::<Vec<_>>();
        let more = more.map(|name| name.to_string());
        output.document(&json!({ "schedules": rows, "more_after": more }))?;
        return Ok(Exit::Ok);
    }
    let head = ["NAME", "STATE", "NEXT", "NEXT IN", "LAST", "LATE", "MISSED", "WHEN"];
    output.table(head, listed.iter().map(row).collect())?;
    if let Some(name) = more {
        output.flush()?;
        print_note(&format!("more results: --after {name}"));
    }
    Ok(Exit::Ok)
}

fn row(info: &ScheduleInfo) -> [String; 8] {
    let moment = |at: Option<u64>| at.map_or_else(|| "-".to_owned(), time);
    let when = info.schedule.as_ref().map(streamjobs::schedule::Schedule::in_words);
    [
        info.name.to_string(),
        info.state.as_str().to_owned(),
        moment(info.next),
        span(info.next_in),
        moment(info.last),
        span(info.last_late),
        info.missed.to_string(),
        when.unwrap_or_else(|| "-".to_owned()),
    ]
}

fn document(info: &ScheduleInfo) -> Value {
    let schedule = info.schedule.as_ref();
    json!({
        "name": info.name.as_str(),
        "state": info.state.as_str(),
        "origin": info.origin.map(|origin| origin.as_str()),
        "timing": schedule.map(|schedule| schedule.timing()),
        "when": schedule.map(|schedule| schedule.in_words()),
        "type": schedule.map(|schedule| schedule.event_type().to_owned()),
        "next_ms": info.next,
        "next_in_ms": milliseconds(info.next_in),
        "last_ms": info.last,
        "last_entry": info.last_entry.map(|entry| entry.to_string()),
        "last_late_ms": milliseconds(info.last_late),
        "fired": info.fired,
        "missed": info.missed,
        "skipped": info.skipped,
        "overlap": overlap_group(info),
        "runs": info.runs,
        "since_ms": info.since,
        "paused_ms": info.paused,
        "declared_ms": info.declared,
        "payload_bytes": info.payload_bytes,
        "partition": info.partition,
    })
}

async fn show(client: &Client, one: &OneSchedule, output: &mut Output) -> Result<Exit, Failure> {
    let schedules = known(client, &one.stream).await?;
    let Some(info) = schedules.get(&one.name).await? else {
        return Err(missing(one).into());
    };
    if output.is_json() {
        output.document(&document(&info))?;
        return Ok(Exit::Ok);
    }
    let moment = |at: Option<u64>| at.map_or_else(|| "-".to_owned(), time);
    let schedule = info.schedule.as_ref();
    let text = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows = [
        ("name", info.name.to_string()),
        ("state", info.state.as_str().to_owned()),
        ("origin", text(info.origin.map(|origin| origin.as_str().to_owned()))),
        ("timing", text(schedule.map(|schedule| schedule.timing()))),
        ("when", text(schedule.map(|schedule| schedule.in_words()))),
        ("type", text(schedule.map(|schedule| schedule.event_type().to_owned()))),
        ("missed policy", text(schedule.map(|schedule| format!("{:?}", schedule.missed_policy())))),
        ("next", moment(info.next)),
        ("last", moment(info.last)),
        ("last entry", text(info.last_entry.map(|entry| entry.to_string()))),
        ("late", span(info.last_late)),
        ("fired", info.fired.to_string()),
        ("missed", info.missed.to_string()),
        ("overlap", text(schedule.map(|schedule| overlap(schedule.overlap_policy())))),
        ("skipped", info.skipped.to_string()),
        ("runs by hand", info.runs.to_string()),
        ("since", time(info.since)),
        ("paused since", moment(info.paused)),
        ("declared", moment(info.declared)),
        ("payload bytes", info.payload_bytes.to_string()),
    ];
    let rows = rows.into_iter().map(|(name, value)| [name.to_owned(), value]).collect();
    output.table(["FIELD", "VALUE"], rows)?;
    Ok(Exit::Ok)
}

async fn run_now(client: &Client, one: &OneSchedule, output: &mut Output) -> Result<Exit, Failure> {
    let published = known(client, &one.stream).await?.run_now(&one.name).await?;
    let entry = published.address().to_string();
    let document = json!({
        "action": "run",
        "stream": one.stream.as_str(),
        "name": one.name.as_str(),
        "entry": entry,
        "event_id": published.event_id.as_str(),
    });
    output.answer(&format!("published {entry}"), &document)?;
    Ok(Exit::Ok)
}

async fn remove(
    client: &Client,
    one: &OneSchedule,
    consent: Consent,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let schedules = known(client, &one.stream).await?;
    if !consent.yes {
        if schedules.get(&one.name).await?.is_none() {
            return Err(missing(one).into());
        }
        let document = json!({
            "action": "remove",
            "stream": one.stream.as_str(),
            "name": one.name.as_str(),
            "dry_run": true,
            "done": false,
        });
        let what = format!("remove schedule {} of stream {}", one.name, one.stream);
        return planned(&what, &document, output);
    }
    let removed = schedules.remove(&one.name).await?;
    let text = if removed { "removed" } else { "no schedule" };
    done(one, "remove", &format!("{text} {}", one.name), removed, output)
}

fn done(
    one: &OneSchedule,
    action: &str,
    text: &str,
    is_done: bool,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let document = json!({
        "action": action,
        "stream": one.stream.as_str(),
        "name": one.name.as_str(),
        "done": is_done,
    });
    output.answer(text, &document)?;
    Ok(if is_done { Exit::Ok } else { Exit::Findings })
}

async fn history(
    client: &Client,
    command: &ScheduleHistory,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let schedules = known(client, &command.stream).await?;
    let limit = usize::try_from(command.limit)?;
    let firings = schedules.history(command.name.as_ref(), limit).await?;
    if output.is_json() {
        let rows = firings.iter().map(firing_document).collect::<Vec<_>>();
        output.document(&json!({ "firings": rows }))?;
        return Ok(Exit::Ok);
    }
    let row = |firing: &FiringInfo| {
        [
            time(firing.at),
            firing.schedule.clone(),
            firing.due.map_or_else(|| "by hand".to_owned(), time),
            span(firing.late),
            firing.published.to_string(),
            firing.missed.to_string(),
            firing.skipped.to_string(),
            firing.entry.map_or_else(|| "-".to_owned(), |entry| entry.to_string()),
            firing.by.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let head = ["AT", "NAME", "DUE", "LATE", "PUBLISHED", "MISSED", "SKIPPED", "ENTRY", "BY"];
    output.table(head, firings.iter().map(row).collect())?;
    Ok(Exit::Ok)
}

/// The group that makes occurrences be skipped while its job is unfinished.
fn overlap_group(info: &ScheduleInfo) -> Option<String> {
    let group = info.schedule.as_ref().and_then(|schedule| schedule.overlap_policy().group());
    group.map(ToString::to_string)
}

fn overlap(overlap: &Overlap) -> String {
    match overlap.group() {
        Some(group) => {
            format!("skipped while group {group} has not ended the job of the last occurrence")
        }
        None => "allowed".to_owned(),
    }
}

fn firing_document(firing: &FiringInfo) -> Value {
    json!({
        "at_ms": firing.at,
        "name": firing.schedule,
        "due_ms": firing.due,
        "late_ms": milliseconds(firing.late),
        "published": firing.published,
        "missed": firing.missed,
        "skipped": firing.skipped,
        "entry": firing.entry.map(|entry| entry.to_string()),
        "by": firing.by,
        "partition": firing.partition,
    })
}

/// The schedules of a stream that exists, or that has schedules although nothing was published to it yet. For any
/// other name, the answer would look like an answer about an existing stream.
async fn known(client: &Client, stream: &StreamName) -> Result<Schedules, Failure> {
    let schedules = client.schedules(stream.as_str())?;
    if schedules.list(None, 1).await?.schedules.is_empty() {
        client.stream(stream.as_str())?.sizes().await?;
    }
    Ok(schedules)
}

fn missing(one: &OneSchedule) -> SchedulesError {
    SchedulesError::Missing { stream: one.stream.to_string(), name: one.name.to_string() }
}

/// How many schedules one request reads.
const PAGE: usize = 1_000;
