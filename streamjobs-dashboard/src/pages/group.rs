//! One group on a stream: how far it is, what it has in hand, and who works for it.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use streamjobs::stream::{ConsumerInfo, Diagnosis, GroupInfo, Liveness};

use crate::access::Action;
use crate::fault::Fault;
use crate::form::Asked;
use crate::format::{self, Foreign};
use crate::layout::{Button, View, button, nothing};
use crate::live;
use crate::pages::overview;
use crate::sampler::Snapshot;
use crate::state::{Shared, State as All};
use crate::visit::Visit;

pub(crate) async fn show(State(state): State<Shared>, visit: Visit, asked: Asked) -> Response {
    live::show(visit, state, asked, |state, visit, asked| async move {
        view(&state, &visit, &asked.stream, &asked.group).await
    })
    .await
}

async fn view(state: &All, visit: &Visit, stream: &str, name: &str) -> Result<View, Fault> {
    let group = state.group(stream, name)?;
    let info = group.info().await?;
    let consumers = group.consumers().await?;
    let next = group.retries(None, 1).await?.jobs.into_iter().next();
    let diagnosis = Diagnosis::of(&info, &consumers);
    let snapshot = state.sampler.look().await;
    let sight = snapshot.streams.iter().find(|sight| sight.name.as_str() == stream);
    let sight = sight.and_then(|sight| sight.found.as_ref().ok());
    let sight = sight.and_then(|found| found.groups.iter().find(|group| group.info.group == name));
    let body = html! {
        h1 { "Group " (Foreign(name)) " on " (Foreign(stream)) }
        (banner(&diagnosis))
        (levers(visit, &info))
        dl.tiles {
            div { dt { "Waiting" } dd #waiting {
                @if !info.backlog.exact { "≥ " } (format::count(info.backlog.entries))
            } }
            div { dt { "Oldest waits" } dd { (info.oldest_waiting.map_or("–".into(), format::span)) } }
            div { dt { "Pending" } dd { a #pending href=(to(visit, &info, "pending")) { (format::count(info.pending)) } } }
            div { dt { "Set aside" } dd { a #retries href=(to(visit, &info, "retries")) { (format::count(info.retrying)) } } }
            div { dt { "Dead letters" } dd {
                a #dead href=(to(visit, &info, "dead")) { (format::known(info.dead_letters, "Their key holds something else.")) }
            } }
            @if let Some(rates) = sight.and_then(|sight| sight.rates) {
                div { dt { "Done" } dd { (format::rate(rates.done)) } }
                div { dt { "Failing" } dd { (format::rate(rates.failed)) } }
            }
        }
        @if let Some(sight) = sight.filter(|sight| sight.done_lately.len() > 1) {
            (overview::spark(&sight.done_lately))
        }
        dl.fields {
            dt { "Cursor" } dd #cursor { code { (info.cursor.to_string()) } }
            dt { "Lag as the server says" } dd #lag {
                (format::known(info.lag, "The server does not know it, or names a negative one."))
                @if info.lag.is_none() { span.soft { " unknown to the server; waiting entries are counted instead" } }
            }
            dt { "Next job set aside is due" }
            dd #next-due {
                @match next {
                    None => "–",
                    Some(job) if job.due_in.is_zero() => "now",
                    Some(job) => { "in " (format::span(job.due_in)) },
                }
            }
            dt { "Oldest pending, unheard of for" } dd { (info.oldest_pending.map_or("–".into(), format::span)) }
            @if state.has_archive() {
                dt { "Open in the archive" }
                dd #archived {
                    a href=(visit.base.with_query(&["archive"], &[("stream", stream), ("group", name)])) {
                        (format::known(archived(&snapshot, &info), "The archive does not say."))
                    }
                }
            }
            dt { "Trimmed before it got them" } dd { (format::count(info.trimmed_unread)) }
        }
        h2 { "Consumers" }
        (consumers_table(visit, &info, &consumers))
    };
    Ok(View { title: name.to_owned(), trail: trail(visit, stream), body })
}

fn archived(snapshot: &Snapshot, info: &GroupInfo) -> Option<u64> {
    let counts = snapshot.archived.as_ref()?.as_ref().ok()?;
    Some(counts.get(&(info.stream.clone(), info.group.clone())).copied().unwrap_or(0))
}

/// The way down to a group.
pub(crate) fn trail(visit: &Visit, stream: &str) -> Vec<(String, String)> {
    let overview = ("Overview".to_owned(), visit.base.root());
    vec![overview, (stream.to_owned(), visit.base.to(&["streams", stream]))]
}

/// The way down to a page of a group.
pub(crate) fn trail_below(visit: &Visit, stream: &str, group: &str) -> Vec<(String, String)> {
    let mut trail = trail(visit, stream);
    trail.push((group.to_owned(), overview::link(&visit.base, stream, group)));
    trail
}

fn to(visit: &Visit, info: &GroupInfo, page: &str) -> String {
    visit.base.to(&["streams", &info.stream, "groups", &info.group, page])
}

fn banner(diagnosis: &Diagnosis) -> Markup {
    html! {
        @if diagnosis.is_healthy() {
            section.well { p { "Nothing is wrong that can be seen." } }
        } @else {
            section.banner role="alert" {
                h2 { "Why is this not running?" }
                ul { @for trouble in &diagnosis.problems {
                    li data-trouble=(trouble.as_str()) { (Foreign(&trouble.to_string())) }
                } }
            }
        }
    }
}

fn levers(visit: &Visit, info: &GroupInfo) -> Markup {
    let reap = Button { text: "Look for abandoned entries now", ..Button::default() };
    let resume = Button { text: "Resume", ..Button::default() };
    let pause = Button {
        text: "Pause in every process",
        confirm: Some("Pause this group in every process? Running jobs go on, nothing new starts."),
        ..Button::default()
    };
    html! {
        div.actions {
            @if info.paused.is_some() {
                (button(visit, Action::Pause, &to(visit, info, "resume"), &resume))
            } @else {
                (button(visit, Action::Pause, &to(visit, info, "pause"), &pause))
            }
            (button(visit, Action::Reap, &to(visit, info, "reap"), &reap))
        }
    }
}

fn consumers_table(visit: &Visit, info: &GroupInfo, consumers: &[ConsumerInfo]) -> Markup {
    html! {
        @if consumers.is_empty() {
            (nothing("The group has no consumer: start a process with its handlers."))
        } @else {
            div.scroll {
                table {
                    thead { tr {
                        th { "Consumer" } th { "State" } th { "Process" } th.number { "Last beat" }
                        th.number { "Running" } th.number { "Pending" } th.number { "Done" }
                        th.number { "Failed" } th.number { "Claimed" } th.number { "Idle" } th {}
                    } }
                    tbody { @for consumer in consumers.iter().take(CONSUMERS_MAX) {
                        (consumer_row(visit, info, consumer))
                    } }
                }
            }
            @if consumers.len() > CONSUMERS_MAX {
                p.soft { "The first " (CONSUMERS_MAX) " of " (consumers.len()) " are shown." }
            }
        }
    }
}

fn consumer_row(visit: &Visit, info: &GroupInfo, consumer: &ConsumerInfo) -> Markup {
    let path =
        ["streams", &info.stream, "groups", &info.group, "consumers", &consumer.name, "remove"];
    let remove = Button {
        text: "Remove",
        confirm: Some(
            "Remove this consumer? What is pending for it is for others to take up; nothing is lost.",
        ),
        danger: true,
        ..Button::default()
    };
    let unsaid = "Its version does not say.";
    html! {
        tr id={ "c-" (Foreign(&consumer.name)) } data-consumer=(Foreign(&consumer.name)) {
            td.id { (Foreign(&consumer.name)) }
            td { (liveness(consumer.liveness)) }
            td { (process(consumer)) }
            td.number { (consumer.last_heartbeat.map_or("–".into(), format::span)) }
            td.number { (format::known(consumer.in_flight, unsaid)) " / " (format::known(consumer.slots, unsaid)) }
            td.number {
                @if consumer.pending > 0 {
                    a href=(visit.base.with_query(&["streams", &info.stream, "groups", &info.group, "pending"], &[("consumer", &consumer.name)])) {
                        (format::count(consumer.pending))
                    }
                } @else { "0" }
            }
            td.number { (format::known(consumer.done, unsaid)) }
            td.number { (format::known(consumer.failed, unsaid)) }
            td.number { (format::known(consumer.claimed, unsaid)) }
            td.number { (format::span(consumer.idle)) }
            td { @if consumer.liveness != Liveness::Alive { (button(visit, Action::RemoveConsumer, &visit.base.to(&path), &remove)) } }
        }
    }
}

pub(crate) fn liveness(liveness: Liveness) -> Markup {
    let (kind, title) = match liveness {
        Liveness::Alive => ("", "It has beaten lately."),
        Liveness::Silent => {
            ("bad", "It has missed its beats: its process died, or cannot reach Redis.")
        }
        _ => ("warn", "It never beat: it belongs to other software."),
    };
    html! { span class={ "state " (kind) } title=(title) { (liveness.as_str()) } }
}

fn process(consumer: &ConsumerInfo) -> Markup {
    html! {
        @if let Some(host) = &consumer.host { (Foreign(host)) }
        @if let Some(process) = consumer.process { " · " (process) }
        @if consumer.host.is_none() && consumer.process.is_none() { span.unknown { "unknown" } }
    }
}

/// Rows of a table of consumers.
const CONSUMERS_MAX: usize = 200;
