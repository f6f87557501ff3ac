//! One group on a stream: its progress, its pending and failed jobs, and its consumers.

use std::time::Duration;

use axum::response::Response;
use maud::{Markup, html};
use streamjobs::stream::{
    ConsumerInfo, Diagnosis, Group, GroupInfo, LineHolder, Liveness, TrendRange,
};

use crate::access::Action;
use crate::base::row_id;
use crate::fault::Fault;
use crate::form::GroupQuery;
use crate::format::{self, Untrusted};
use crate::layout::{Button, View, button, empty, fault_box};
use crate::live;
use crate::pages::{chart, group_limit, group_parts, overview, trend_charts};
use crate::request::RequestContext;
use crate::snapshot::Snapshot;

pub(crate) async fn show(ctx: RequestContext, asked: GroupQuery) -> Response {
    live::render_or_follow(ctx, asked, |ctx, asked| Box::pin(view(ctx, asked))).await
}

async fn view(ctx: &RequestContext, asked: &GroupQuery) -> Result<View, Fault> {
    let GroupQuery { stream, group: name, fields } = asked;
    let range = trend_charts::asked(fields)?;
    let group = ctx.state.group(stream, name)?;
    let info = group.info().await?;
    let consumers = group.consumers().await?;
    let next = group.retries(None, 1).await?.jobs.into_iter().next().map(|job| job.due_in);
    // Read only if jobs wait for their key; `None` if the user may not read it.
    let line = match info.longest_line {
        Some(_) => group.line_holder().await.unwrap_or_default(),
        None => None,
    };
    let diagnosis = Diagnosis::of(&info, &consumers).with_line_holder(line.clone());
    let snapshot = ctx.state.sampler.sample().await;
    let sampled = snapshot.group(stream, name);
    let body = html! {
        h1 { "Group " (Untrusted(name)) " on " (Untrusted(stream)) }
        (banner(ctx, &diagnosis))
        (actions(ctx, &info)) (group_limit::actions(ctx, &info, &consumers))
        dl.tiles {
            div { dt { "Waiting" } dd #waiting {
                @if !info.backlog.exact { "≥ " } (format::count(info.backlog.entries))
            } }
            div { dt { "Oldest waiting" } dd { (info.oldest_waiting.map_or("–".into(), format::span)) } }
            div { dt { "Pending" } dd { a #pending href=(to(ctx, &info, "pending")) { (format::count(info.pending)) } } }
            @if info.released > 0 {
                div { dt { "Released, to be claimed" } dd #released { (format::count(info.released)) } }
            }
            div { dt { "Waiting for retry" } dd { a #retries href=(to(ctx, &info, "retries")) { (format::count(info.retrying)) } } }
            (parked(&info, line.as_ref()))
            div { dt { "Dead letters" } dd {
                a #dead href=(to(ctx, &info, "dead")) { (format::known(info.dead_letters, "The key for dead letters has another type.")) }
            } }
            div { dt { "Finished" } dd { a #finished href=(to(ctx, &info, "finished")) { "noted jobs" } } }
            @if let Some(rates) = sampled.and_then(|sampled| sampled.rates) {
                div { dt { "Done" } dd { (format::rate(rates.done)) } }
                div { dt { "Failed" } dd { (format::rate(rates.failed)) } }
            }
        }
        dl.fields {
            dt { "Last delivered" } dd #cursor { code { (info.cursor.to_string()) } }
            dt { "Lag reported by Redis" } dd #lag {
                (format::known(info.lag, "Redis does not know the lag, or reports a negative one."))
                @if info.lag.is_none() { span.soft { " unknown to Redis; waiting entries are counted instead" } }
            }
            dt { "Next retry" }
            dd #next-due { (next.map_or_else(|| "–".to_owned(), due)) }
            dt { "Oldest pending entry, idle for" } dd { (info.oldest_pending.map_or("–".into(), format::span)) }
            @if ctx.state.has_archive() {
                dt { "Open letters in the archive" }
                dd #archived {
                    a href=(ctx.base.with_query(&["archive"], &[("stream", stream), ("group", name)])) {
                        (archived(&snapshot, &info))
                    }
                }
            }
            dt { "Trimmed before delivery" } dd { (format::count(info.trimmed_unread)) }
            (rate(&info)) (group_limit::row(&info, &consumers))
            (partitions(&info))
        }
        (trend_charts::tabs(&RANGES, range, |range| ctx.base.with_query(&["streams", stream, "groups", name], &[("range", range)])))
        @match range {
            Some(range) => (trend(ctx, &group, &info, range).await),
            None => @if let Some(sampled) = sampled { (chart::of_group(&sampled.trend)) },
        }
        h2 { "Consumers" }
        (consumers_table(ctx, &info, &consumers))
    };
    Ok(View { title: name.to_owned(), trail: trail(ctx, stream), body })
}

/// The charts over hours or days.
async fn trend(ctx: &RequestContext, group: &Group, info: &GroupInfo, range: TrendRange) -> Markup {
    let names = (info.stream.as_str(), info.group.as_str());
    match ctx.state.trends.of(names, group, range).await {
        Ok(trend) => {
            let backlog = (info.backlog.entries, info.oldest_waiting.unwrap_or_default());
            trend_charts::charts(&trend, Some(backlog))
        }
        Err(fault) => fault_box(&fault),
    }
}

/// When something is due, counted from now.
fn due(rest: Duration) -> String {
    if rest.is_zero() { "now".to_owned() } else { format!("in {}", format::span(rest)) }
}

/// Jobs that wait for a place in the group's limit, if there are any.
fn parked(info: &GroupInfo, line: Option<&LineHolder>) -> Markup {
    html! {
        @if info.parked != Some(0) {
            div { dt { "Waiting for their key" } dd #parked {
                (format::known(info.parked, "The key of the group's lines has another type."))
                @if let Some((key, jobs)) = &info.longest_line {
                    span.soft {
                        " most for " (Untrusted(key)) ": " (format::count(*jobs))
                        @if let Some(line) = line.filter(|line| line.key == *key) {
                            ", whose " (Untrusted(&line.to_string()))
                        }
                    }
                }
            } }
        }
    }
}

/// How many jobs may start per time, and until when jobs wait.
fn rate(info: &GroupInfo) -> Markup {
    let Some(rate) = &info.rate else { return html! {} };
    let in_force = rate.in_force().map_or_else(|| "unlimited".to_owned(), |rate| rate.to_string());
    html! {
        dt { "Rate" }
        dd #rate {
            (in_force)
            @if rate.set.is_some() { ", set by an operator" }
            @if !rate.next.is_zero() { "; next start in " (format::span(rate.next)) }
            @if let Some(rest) = rate.limited { "; waits because a job asked for it, for another " (format::span(rest)) }
        }
    }
}

/// How many partitions the figures cover.
fn partitions(info: &GroupInfo) -> Markup {
    html! {
        @if info.partitions > 1 {
            dt { "Partitions" }
            dd #parts {
                (info.partitions)
                @if info.without_group > 0 { ", of which " (info.without_group) " do not have the group" }
                @if info.paused_in > 0 { "; paused in " (info.paused_in) }
            }
        }
    }
}

fn archived(snapshot: &Snapshot, info: &GroupInfo) -> Markup {
    let Some(Ok(counts)) = &snapshot.archived else {
        return format::counted(None, "The archive did not answer.");
    };
    let why_not = "Not counted: more than 200 groups have open letters.";
    let parts = snapshot.parts(&info.stream);
    format::counted(counts.of_all(parts, &info.group), why_not)
}

/// The breadcrumbs above a group.
pub(crate) fn trail(ctx: &RequestContext, stream: &str) -> Vec<(String, String)> {
    let overview = ("Overview".to_owned(), ctx.base.root());
    vec![overview, (stream.to_owned(), ctx.base.to(&["streams", stream]))]
}

/// The breadcrumbs above a page of a group.
pub(crate) fn trail_below(
    ctx: &RequestContext,
    stream: &str,
    group: &str,
) -> Vec<(String, String)> {
    let mut trail = trail(ctx, stream);
    trail.push((group.to_owned(), group_parts::link(&ctx.base, stream, group)));
    trail
}

fn to(ctx: &RequestContext, info: &GroupInfo, page: &str) -> String {
    ctx.base.to(&["streams", &info.stream, "groups", &info.group, page])
}

fn banner(ctx: &RequestContext, diagnosis: &Diagnosis) -> Markup {
    html! {
        @if diagnosis.is_healthy() {
            section.healthy { p { "No problems detected." } }
        } @else {
            section.banner aria-label="Problems" {
                h2 { "Problems" }
                ul { @for problem in &diagnosis.problems {
                    li data-problem=(problem.as_str()) { (Untrusted(&overview::text_of(ctx, problem))) }
                } }
            }
        }
    }
}

fn actions(ctx: &RequestContext, info: &GroupInfo) -> Markup {
    let reap = Button { text: "Claim idle entries", ..Button::default() };
    let resume = Button { text: "Resume work", ..Button::default() };
    let reset = Button { text: "Reset the rate", ..Button::default() };
    let lift = Button {
        text: "Lift the rate in all processes",
        confirm: Some("Let all waiting jobs of this group start without a limit?"),
        ..Button::default()
    };
    let pause = Button {
        text: "Pause work in all processes",
        confirm: Some("Pause this group in all processes? Running jobs finish; no new jobs start."),
        ..Button::default()
    };
    html! {
        div.actions {
            @if info.paused.is_some() {
                (button(ctx, Action::Pause, &to(ctx, info, "resume"), &resume))
            }
            // The group can be paused in some partitions only.
            @if info.paused_in < info.partitions {
                (button(ctx, Action::Pause, &to(ctx, info, "pause"), &pause))
            }
            @if info.rate.is_some_and(|rate| rate.in_force().is_some() || rate.limited.is_some()) {
                (button(ctx, Action::Pause, &to(ctx, info, "rate/lift"), &lift))
            }
            @if info.rate.is_some_and(|rate| rate.set.is_some()) {
                (button(ctx, Action::Pause, &to(ctx, info, "rate/reset"), &reset))
            }
            (button(ctx, Action::Reap, &to(ctx, info, "reap"), &reap))
        }
    }
}

fn consumers_table(ctx: &RequestContext, info: &GroupInfo, consumers: &[ConsumerInfo]) -> Markup {
    html! {
        @if consumers.is_empty() {
            (empty("This group has no consumers. Start a process with its handlers."))
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Consumers" {
                table {
                    thead { tr {
                        th scope="col" { "Consumer" } th scope="col" { "State" } th scope="col" { "Process" } th.number scope="col" { "Last heartbeat" }
                        th.number scope="col" { "Running" } th.number scope="col" { "Pending" } th.number scope="col" { "Done" }
                        th.number scope="col" { "Failed" } th.number scope="col" { "Claimed" } th.number scope="col" { "Idle" } th scope="col" { span.hidden { "Action" } }
                    } }
                    tbody { @for consumer in consumers.iter().take(CONSUMERS_MAX) {
                        (consumer_row(ctx, info, consumer))
                    } }
                }
            }
            @if consumers.len() > CONSUMERS_MAX {
                p.soft { "Showing " (CONSUMERS_MAX) " of " (consumers.len()) " consumers." }
            }
        }
    }
}

fn consumer_row(ctx: &RequestContext, info: &GroupInfo, consumer: &ConsumerInfo) -> Markup {
    let path =
        ["streams", &info.stream, "groups", &info.group, "consumers", &consumer.name, "remove"];
    let remove = Button {
        text: "Remove",
        confirm: Some(
            "Remove this consumer? Its pending entries are released for other consumers.",
        ),
        danger: true,
        ..Button::default()
    };
    let unreported = "Not reported by this version.";
    html! {
        tr id=(row_id("c", &[&consumer.name])) data-consumer=(Untrusted(&consumer.name)) {
            td.id { (Untrusted(&consumer.name)) }
            td { (liveness(consumer.liveness)) }
            td { (process(consumer)) }
            td.number { (consumer.last_heartbeat.map_or("–".into(), format::span)) }
            td.number {
                (format::known(consumer.in_flight, unreported)) " / " (format::known(consumer.slots, unreported))
                (shared_slots(consumer))
            }
            td.number {
                @if consumer.pending > 0 {
                    a href=(ctx.base.with_query(&["streams", &info.stream, "groups", &info.group, "pending"], &[("consumer", &consumer.name)])) {
                        (format::count(consumer.pending))
                    }
                } @else { "0" }
            }
            td.number { (format::known(consumer.done, unreported)) }
            td.number { (format::known(consumer.failed, unreported)) }
            td.number { (format::known(consumer.claimed, unreported)) }
            td.number { (format::span(consumer.idle)) }
            td { @if consumer.liveness != Liveness::Alive { (button(ctx, Action::RemoveConsumer, &ctx.base.to(&path), &remove)) } }
        }
    }
}

/// The set of slots that a consumer shares with other groups.
fn shared_slots(consumer: &ConsumerInfo) -> Markup {
    html! {
        @if let (Some(set), Some(weight)) = (&consumer.slot_set, consumer.weight) {
            br;
            span.soft title="Slots in use of the set that this process shares between groups, and this group's weight." {
                (Untrusted(&set.name)) ": " (format::count(set.in_use)) " of " (format::count(set.slots)) ", weight " (weight)
            }
        }
    }
}

pub(crate) fn liveness(liveness: Liveness) -> Markup {
    let (kind, title) = match liveness {
        Liveness::Alive => ("", "Heartbeat received recently."),
        Liveness::Silent => {
            ("bad", "Heartbeats are overdue: its process died or cannot reach Redis.")
        }
        _ => ("warn", "No heartbeat was ever received: the consumer belongs to other software."),
    };
    html! { span class={ "state " (kind) } title=(title) { (liveness.as_str()) } }
}

fn process(consumer: &ConsumerInfo) -> Markup {
    html! {
        @if let Some(host) = &consumer.host { (Untrusted(host)) }
        @if let Some(process) = consumer.process { " · " (process) }
        @if consumer.host.is_none() && consumer.process.is_none() { span.unknown { "unknown" } }
    }
}

const RANGES: [Option<TrendRange>; 3] =
    [None, Some(TrendRange::SixHours), Some(TrendRange::SevenDays)];
/// How many rows a table of consumers has.
const CONSUMERS_MAX: usize = 200;
