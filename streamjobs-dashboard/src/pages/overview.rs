//! The overview: all streams and groups, and their problems.

use std::sync::Arc;

use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use streamjobs::StreamName;
use streamjobs::stream::Problem;

use crate::fault::Fault;
use crate::form::Fields;
use crate::format::{self, Counted, Untrusted};
use crate::history::Rates;
use crate::layout::{View, empty, fault_box};
use crate::live;
use crate::pages::fleet::{self, FleetPage};
use crate::pages::group_parts::link;
use crate::request::RequestContext;
use crate::snapshot::{GroupSnapshot, Snapshot};

pub(crate) async fn show(
    ctx: RequestContext,
    Query(asked): Query<Vec<(String, String)>>,
) -> Response {
    render(ctx, Fields(asked)).await
}

/// The page, as its address asks for it.
pub(crate) async fn render(ctx: RequestContext, asked: Fields) -> Response {
    live::render_or_follow(ctx, asked, |ctx, asked| Box::pin(view(ctx, asked))).await
}

async fn view(ctx: &RequestContext, asked: &Fields) -> Result<View, Fault> {
    let snapshot = &*ctx.state.sampler.sample().await;
    // If no stream can be read, the page shows the error.
    if let Some(fault) = unreachable(snapshot) {
        return Err(fault);
    }
    let page = FleetPage { ctx, path: &["overview"], stream: None, asked };
    let body = html! {
        h1 { "Overview" }
        (tiles(snapshot))
        (banner(ctx, snapshot))
        @if let Some(Err(fault)) = &snapshot.archived { (fault_box(fault)) }
        @if snapshot.streams.is_empty() {
            (empty("This program has no handlers, so there are no streams to show. List them \
                      with `Dashboard::builder(…).streams(…)`."))
        } @else {
            h2 { "Groups" }
            (fleet::section(page, snapshot)?)
            (others(ctx, snapshot))
        }
    };
    Ok(View { title: "Overview".to_owned(), trail: Vec::new(), body })
}

/// The streams without a row in the table, and why.
fn others(ctx: &RequestContext, snapshot: &Snapshot) -> Markup {
    let without = snapshot.streams.iter().filter_map(|stream| {
        let why = match &stream.found {
            Ok(found) if found.groups.is_empty() && found.failed.is_empty() && !found.is_partial => {
                "no group reads this stream: its entries are kept and not processed"
            }
            Err(fault) if fault.status == StatusCode::NOT_FOUND => {
                "This stream does not exist yet. It is created by the first event that is published \
                 to it, or by the first runtime with a handler for it."
            }
            _ => return None,
        };
        Some((stream.name.as_str(), why))
    });
    let without = without.collect::<Vec<_>>();
    html! {
        @if !without.is_empty() {
            h2 { "Streams without groups" }
            ul #others { @for (name, why) in without.iter().take(OTHERS_MAX) {
                li { a href=(ctx.base.to(&["streams", name])) { (Untrusted(name)) } ": " (why) }
            } }
            @if without.len() > OTHERS_MAX {
                p.soft { (format::count((without.len() - OTHERS_MAX) as u64)) " more are not shown here." }
            }
        }
    }
}

fn unreachable(snapshot: &Snapshot) -> Option<Fault> {
    let mut faults = snapshot.streams.iter().map(|stream| stream.found.as_ref().err());
    let first = faults.next()??;
    let all = first.status == StatusCode::SERVICE_UNAVAILABLE
        && faults.all(|fault| fault.is_some_and(|other| other.status == first.status));
    all.then(|| first.clone())
}

/// All problems, as text. Streams and groups that could not be read are listed once for each
/// reason.
pub(crate) fn banner(ctx: &RequestContext, snapshot: &Snapshot) -> Markup {
    let groups = || snapshot.found().flat_map(|found| &found.groups).map(Arc::as_ref);
    let older = sum_of_dead(snapshot, groups());
    let unhealthy = groups().filter(|group| !group.diagnosis.is_healthy()).collect::<Vec<_>>();
    let failures = snapshot.failures();
    html! {
        @for (fault, streams) in &failures { (fault_box_of(fault, streams)) }
        @if unhealthy.is_empty() && failures.is_empty() {
            section.healthy { p {
                "No problems detected"
                @if snapshot.is_partial() { " in the groups that were read" }
                "."
                @if let Some(older @ Counted { number: 1.., .. }) = older {
                    " Dead letters older than an hour: " (older.text()) "."
                }
            } }
        } @else if !unhealthy.is_empty() {
            section.banner aria-label="Problems" {
                h2 { "Problems" }
                ul {
                    @for group in unhealthy.iter().take(PROBLEMS_MAX) { (problems(ctx, group)) }
                }
                @if unhealthy.len() > PROBLEMS_MAX {
                    p { a href=(ctx.base.with_query(&["overview"], &[("state", "problems")])) {
                        (format::count((unhealthy.len() - PROBLEMS_MAX) as u64)) " more groups have problems"
                    } }
                }
            }
        }
    }
}

fn problems(ctx: &RequestContext, group: &GroupSnapshot) -> Markup {
    html! {
        @for problem in &group.diagnosis.problems {
            li data-problem=(problem.as_str()) {
                a href=(link(&ctx.base, &group.info.stream, &group.info.group)) {
                    (Untrusted(&group.info.group)) " on " (Untrusted(&group.info.stream))
                }
                ": " (Untrusted(&text_of(ctx, problem)))
            }
        }
    }
}

/// An error, with the streams that it concerns if there are several.
pub(crate) fn fault_box_of(fault: &Fault, streams: &[&StreamName]) -> Markup {
    let names = streams.iter().take(NAMED_MAX).map(|name| name.as_str()).collect::<Vec<_>>();
    html! {
        (fault_box(fault))
        @if streams.len() > 1 {
            p.soft {
                "This concerns " (Untrusted(&names.join(", ")))
                @if streams.len() > NAMED_MAX { " and " (format::count((streams.len() - NAMED_MAX) as u64)) " more" }
                "."
            }
        }
    }
}

/// A problem in words. The error of a job is left out for users who may not see payloads.
pub(crate) fn text_of(ctx: &RequestContext, problem: &Problem) -> String {
    match ctx.access.sees_payloads() {
        true => problem.to_string(),
        false => problem.without_error().to_string(),
    }
}

/// The dead letters of some groups; `None` if the number of any is unknown.
fn sum_of_dead<'a>(
    snapshot: &Snapshot,
    mut groups: impl Iterator<Item = &'a GroupSnapshot>,
) -> Option<Counted> {
    groups.try_fold(Counted::default(), |sum, group| Some(sum.plus(snapshot.dead(&group.info)?)))
}

fn tiles(snapshot: &Snapshot) -> Markup {
    let groups = snapshot.found().flat_map(|found| &found.groups).collect::<Vec<_>>();
    let sum = |of: fn(&GroupSnapshot) -> u64| groups.iter().map(|group| of(group)).sum::<u64>();
    let is_partial = snapshot.is_incomplete();
    let rate = |of: fn(Rates) -> f64| {
        format::sum_of_rates(groups.iter().map(|group| group.rates.map(of)), is_partial)
    };
    let published = snapshot.found().map(|found| found.published);
    let published = format::sum_of_rates(published, is_partial);
    let exact = groups.iter().all(|group| group.info.backlog.exact);
    let dead = sum_of_dead(snapshot, groups.iter().map(|group| &***group));
    let oldest = groups.iter().filter_map(|group| group.info.oldest_waiting).max();
    html! {
        dl.tiles #figures {
            div { dt { "Waiting" } dd #waiting {
                @if !exact { "≥ " } (format::count(sum(|group| group.info.backlog.entries)))
            } }
            div { dt { "Oldest waiting" } dd #oldest { (oldest.map_or("–".into(), format::span)) } }
            div { dt { "Running" } dd #running {
                (format::count(sum(GroupSnapshot::running)))
                small { " of " (format::count(sum(GroupSnapshot::slots))) " slots" }
            } }
            div { dt { "Waiting for retry" } dd #retries { (format::count(sum(|group| group.info.retrying))) } }
            div { dt { "Dead letters" } dd #dead { (format::counted(dead, fleet::DEAD_UNKNOWN)) } }
            div { dt { "Published" } dd #published { (published) } }
            div { dt { "Done" } dd #done { (rate(|rates| rates.done)) } }
            div { dt { "Failed" } dd #failing { (rate(|rates| rates.failed)) } }
        }
    }
}

/// How many groups' problems are listed.
const PROBLEMS_MAX: usize = 50;
/// How many streams without groups are listed.
const OTHERS_MAX: usize = 50;
/// How many streams an error names.
const NAMED_MAX: usize = 10;
