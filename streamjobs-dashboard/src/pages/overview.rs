//! The overview: all streams and groups, and their problems.

use axum::response::Response;
use maud::{Markup, html};
use streamjobs::doctor::Severity;
use streamjobs::stream::{Condition, Problem};

use crate::base::Base;
use crate::fault::Fault;
use crate::format::{self, Counted, Untrusted};
use crate::layout::{View, empty, fault_box};
use crate::live;
use crate::request::RequestContext;
use crate::sampler::{GroupSnapshot, Snapshot, StreamFound};

pub(crate) async fn show(ctx: RequestContext) -> Response {
    live::render_or_follow(ctx, (), |ctx, ()| Box::pin(view(ctx))).await
}

async fn view(ctx: &RequestContext) -> Result<View, Fault> {
    let snapshot = &*ctx.state.sampler.sample().await;
    // If no stream can be read, the error is the page.
    if let Some(fault) = unreachable(snapshot) {
        return Err(fault);
    }
    let body = html! {
        h1 { "Overview" }
        (banner(ctx, snapshot))
        @if let Some(Err(fault)) = &snapshot.archived { (fault_box(fault)) }
        (tiles(snapshot))
        @if snapshot.streams.is_empty() {
            (empty("This program has no handlers, so there are no streams to show. List them \
                      with `Dashboard::builder(…).streams(…)`."))
        }
        @for stream in &snapshot.streams {
            h2 { a href=(ctx.base.to(&["streams", stream.name.as_str()])) { (Untrusted(stream.name.as_str())) } }
            @match &stream.found {
                Ok(found) => (groups(&ctx.base, stream.name.as_str(), snapshot, found)),
                Err(fault) if fault.status == axum::http::StatusCode::NOT_FOUND => {
                    (empty("This stream does not exist yet. It is created by the first event that is \
                              published to it, or by the first runtime with a handler for it."))
                },
                Err(fault) => (fault_box(fault)),
            }
        }
    };
    Ok(View { title: "Overview".to_owned(), trail: Vec::new(), body })
}

fn unreachable(snapshot: &Snapshot) -> Option<Fault> {
    let mut faults = snapshot.streams.iter().map(|stream| stream.found.as_ref().err());
    let first = faults.next()??;
    let all = first.status == axum::http::StatusCode::SERVICE_UNAVAILABLE
        && faults.all(|fault| fault.is_some_and(|other| other.status == first.status));
    all.then(|| first.clone())
}

fn found(snapshot: &Snapshot) -> impl Iterator<Item = &StreamFound> {
    snapshot.streams.iter().filter_map(|stream| stream.found.as_ref().ok())
}

/// All problems, as text.
pub(crate) fn banner(ctx: &RequestContext, snapshot: &Snapshot) -> Markup {
    let base = &ctx.base;
    let groups = || found(snapshot).flat_map(|found| &found.groups);
    let older = sum_of_dead(snapshot, groups());
    let unhealthy = groups().filter(|group| !group.diagnosis.is_healthy()).collect::<Vec<_>>();
    let unread = snapshot.streams.iter().filter_map(|stream| stream.found.as_ref().err());
    let mut unread = unread.filter(|fault| fault.status.is_server_error());
    html! {
        @if let Some(fault) = unread.next() {
            (fault_box(fault))
        } @else if unhealthy.is_empty() {
            section.healthy { p {
                "No problems detected."
                @if let Some(older @ Counted { number: 1.., .. }) = older {
                    " Dead letters older than an hour: " (older.text()) "."
                }
            } }
        } @else {
            section.banner role="alert" {
                h2 { "Problems" }
                ul {
                    @for group in unhealthy {
                        @for problem in &group.diagnosis.problems {
                            li data-problem=(problem.as_str()) {
                                a href=(link(base, &group.info.stream, &group.info.group)) {
                                    (Untrusted(&group.info.group)) " on " (Untrusted(&group.info.stream))
                                }
                                ": " (Untrusted(&text_of(ctx, problem)))
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A problem in words, without the error of a job for users who may not see payloads.
pub(crate) fn text_of(ctx: &RequestContext, problem: &Problem) -> String {
    match ctx.access.sees_payloads() {
        true => problem.to_string(),
        false => problem.without_error().to_string(),
    }
}

/// The dead letters of some groups; `None` if the number of one is unknown.
fn sum_of_dead<'a>(
    snapshot: &Snapshot,
    mut groups: impl Iterator<Item = &'a GroupSnapshot>,
) -> Option<Counted> {
    groups.try_fold(Counted::default(), |sum, group| Some(sum.plus(snapshot.dead(&group.info)?)))
}

fn tiles(snapshot: &Snapshot) -> Markup {
    let groups = found(snapshot).flat_map(|found| &found.groups).collect::<Vec<_>>();
    let sum = |of: fn(&GroupSnapshot) -> u64| groups.iter().map(|group| of(group)).sum::<u64>();
    let rates = groups.iter().filter_map(|group| group.rates);
    let (done, failed) = rates.fold((0.0, 0.0), |(d, f), rate| (d + rate.done, f + rate.failed));
    let published = found(snapshot).filter_map(|found| found.published).sum::<f64>();
    let exact = groups.iter().all(|group| group.info.backlog.exact);
    let dead = sum_of_dead(snapshot, groups.iter().copied());
    let oldest = groups.iter().filter_map(|group| group.info.oldest_waiting).max();
    html! {
        dl.tiles {
            div { dt { "Published" } dd #published { (format::rate(published)) } }
            div { dt { "Done" } dd #done { (format::rate(done)) } }
            div { dt { "Failed" } dd #failing { (format::rate(failed)) } }
            div { dt { "Waiting" } dd #waiting {
                @if !exact { "≥ " } (format::count(sum(|group| group.info.backlog.entries)))
            } }
            div { dt { "Oldest waiting" } dd #oldest { (oldest.map_or("–".into(), format::span)) } }
            div { dt { "Running" } dd #running {
                (format::count(sum(GroupSnapshot::running)))
                small { " of " (format::count(sum(GroupSnapshot::slots))) " slots" }
            } }
            div { dt { "Waiting for retry" } dd #retries { (format::count(sum(|group| group.info.retrying))) } }
            div { dt { "Dead letters" } dd #dead {
                (format::counted(dead, "Unknown: the key has another type, or the archive did not answer."))
            } }
        }
    }
}

pub(crate) fn groups(
    base: &Base,
    stream: &str,
    snapshot: &Snapshot,
    found: &StreamFound,
) -> Markup {
    html! {
        @if found.groups.is_empty() {
            (empty("No group reads this stream. Its entries are kept and not processed."))
        } @else {
            div.scroll {
                table {
                    thead { tr {
                        th { "Group" } th { "State" } th.number { "Done" } th { "Last 5 minutes" }
                        th.number { "Waiting" } th.number { "Oldest waiting" } th.number { "Running" }
                        th.number { "Pending" } th.number { "Failed" } th.number { "Retries" }
                        th.number { "Dead letters" }
                    } }
                    tbody { @for group in &found.groups { (row(base, stream, snapshot, group)) } }
                }
            }
        }
    }
}

fn row(base: &Base, stream: &str, snapshot: &Snapshot, group: &GroupSnapshot) -> Markup {
    let info = &group.info;
    let rates = group.rates.unwrap_or_default();
    // A figure is red where it is a problem, so that none is red below a banner without problems.
    let has =
        |condition| group.diagnosis.problems.iter().any(|problem| problem.condition() == condition);
    html! {
        tr id={ "g-" (stream) "-" (info.group) } data-group=(info.group) {
            td { a href=(link(base, stream, &info.group)) { (Untrusted(&info.group)) } }
            td { (state_of(group)) }
            td.number { (format::rate(rates.done)) }
            td { (spark(&group.done_history)) }
            td.number { (backlog(group)) }
            td.number { (info.oldest_waiting.map_or("–".into(), format::span)) }
            td.number { (group.running()) " / " (group.slots()) }
            td.number {
                (format::count(info.pending))
                @if info.released > 0 { small { " + " (format::count(info.released)) " released" } }
            }
            td.number {
                span class=[has(Condition::Failing).then_some("bad-number")] { (format::rate(rates.failed)) }
            }
            td.number {
                span class=[has(Condition::Retrying).then_some("bad-number")] { (format::count(info.retrying)) }
            }
            td.number {
                @let dead = snapshot.dead(info);
                span class=[has(Condition::DeadLetters).then_some("bad-number")] {
                    (format::counted(dead, "Unknown: the key has another type, or the archive did not answer."))
                }
            }
        }
    }
}

pub(crate) fn link(base: &Base, stream: &str, group: &str) -> String {
    base.to(&["streams", stream, "groups", group])
}

/// The number of waiting entries, marked if it is a lower bound.
pub(crate) fn backlog(group: &GroupSnapshot) -> Markup {
    let backlog = group.info.backlog;
    html! {
        @if !backlog.exact { span title="A lower bound: this server does not report the exact number." { "≥ " } }
        (format::count(backlog.entries))
    }
}

/// The group's worst problem as a short label. The banner has the full text.
pub(crate) fn state_of(group: &GroupSnapshot) -> Markup {
    let Some(worst) = group.diagnosis.problems.first() else {
        return html! { span.state { "healthy" } };
    };
    let word = match worst {
        Problem::TooFewConsumers { .. } => "too few consumers",
        Problem::DeadConsumer { .. } => "recovering",
        Problem::TrimmedUnread { .. } => "lost entries",
        Problem::NotReading { .. } => "not reading",
        Problem::NotAcknowledging { .. } => "not acknowledging",
        Problem::DeadLetters { .. } => "new dead letters",
        other => other.as_str(),
    };
    let kind = if worst.severity() == Severity::Critical { "bad" } else { "warn" };
    html! { span class={ "state " (kind) } { (word) } }
}

/// A sparkline of the recent rates.
#[expect(clippy::cast_precision_loss, reason = "the image is 110 pixels wide")]
pub(crate) fn spark(rates: &[f64]) -> Markup {
    let most = rates.iter().copied().fold(0.0_f64, f64::max);
    let last = rates.len().saturating_sub(1).max(1);
    let points = rates.iter().enumerate().map(|(index, rate)| {
        let x = index as f64 * 108.0 / last as f64 + 1.0;
        let y = if most > 0.0 { (rate / most).mul_add(-22.0, 24.0) } else { 24.0 };
        format!("{x:.1},{y:.1}")
    });
    let points = points.collect::<Vec<_>>().join(" ");
    html! {
        @if rates.len() < 2 {
            span.soft title="No history yet. It is recorded while a page is open." { "–" }
        } @else {
            svg.spark viewBox="0 0 110 26" role="img" {
                title { "maximum " (format::rate(most)) }
                polyline points=(points) {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_has_a_point_for_each_rate_within_its_box() {
        let drawn = spark(&[0.0, 5.0, 10.0]).into_string();
        assert!(drawn.contains("points=\"1.0,24.0 55.0,13.0 109.0,2.0\""), "{drawn}");
        assert!(spark(&[0.0, 0.0]).into_string().contains("1.0,24.0 109.0,24.0"));
        assert!(!spark(&[3.0]).into_string().contains("svg"));
    }
}
