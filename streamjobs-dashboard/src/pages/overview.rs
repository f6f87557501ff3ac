//! All streams and groups at a glance, and what is wrong with them.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use streamjobs::stream::Problem as Wrong;

use crate::base::Base;
use crate::fault::Fault;
use crate::format::{self, Foreign};
use crate::layout::{View, fault_box, nothing};
use crate::live;
use crate::sampler::{GroupSight, Snapshot, StreamFound};
use crate::state::Shared;
use crate::visit::Visit;

pub(crate) async fn show(State(state): State<Shared>, visit: Visit) -> Response {
    live::show(visit, state, (), |state, visit, ()| async move {
        let snapshot = state.sampler.look().await;
        // If nothing at all can be looked at, that is the page.
        if let Some(fault) = unreachable(&snapshot) {
            return Err(fault);
        }
        Ok(view(&visit, &snapshot))
    })
    .await
}

fn unreachable(snapshot: &Snapshot) -> Option<Fault> {
    let mut faults = snapshot.streams.iter().map(|stream| stream.found.as_ref().err());
    let first = faults.next()??;
    let all = first.status == axum::http::StatusCode::SERVICE_UNAVAILABLE
        && faults.all(|fault| fault.is_some_and(|other| other.status == first.status));
    all.then(|| first.clone())
}

fn view(visit: &Visit, snapshot: &Snapshot) -> View {
    let body = html! {
        h1 { "Overview" }
        (banner(&visit.base, snapshot))
        @if let Some(Err(fault)) = &snapshot.archived { (fault_box(fault)) }
        (tiles(snapshot))
        @if snapshot.streams.is_empty() {
            (nothing("This program has no handlers, so there are no streams to show. Name them \
                      with `Dashboard::builder(…).streams(…)`."))
        }
        @for stream in &snapshot.streams {
            h2 { a href=(visit.base.to(&["streams", stream.name.as_str()])) { (Foreign(stream.name.as_str())) } }
            @match &stream.found {
                Ok(found) => (groups(&visit.base, stream.name.as_str(), snapshot, found)),
                Err(fault) if fault.status == axum::http::StatusCode::NOT_FOUND => {
                    (nothing("There is no such stream yet: nothing was ever published to it, and no \
                              runtime with a handler for it has started."))
                },
                Err(fault) => (fault_box(fault)),
            }
        }
    };
    View { title: "Overview".to_owned(), trail: Vec::new(), body }
}

fn found(snapshot: &Snapshot) -> impl Iterator<Item = &StreamFound> {
    snapshot.streams.iter().filter_map(|stream| stream.found.as_ref().ok())
}

/// Everything that is wrong, in words, where nobody can overlook it.
pub(crate) fn banner(base: &Base, snapshot: &Snapshot) -> Markup {
    let groups = found(snapshot).flat_map(|found| &found.groups);
    let ill = groups.filter(|group| !group.diagnosis.is_healthy()).collect::<Vec<_>>();
    let unseen = snapshot.streams.iter().filter_map(|stream| stream.found.as_ref().err());
    let mut unseen = unseen.filter(|fault| fault.status.is_server_error());
    html! {
        @if let Some(fault) = unseen.next() {
            (fault_box(fault))
        } @else if ill.is_empty() {
            section.well { p { "Nothing is wrong that can be seen." } }
        } @else {
            section.banner role="alert" {
                h2 { "Why is this not running?" }
                ul {
                    @for group in ill {
                        @for trouble in &group.diagnosis.problems {
                            li data-trouble=(trouble.as_str()) {
                                a href=(link(base, &group.info.stream, &group.info.group)) {
                                    (Foreign(&group.info.group)) " on " (Foreign(&group.info.stream))
                                }
                                ": " (Foreign(&trouble.to_string()))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn tiles(snapshot: &Snapshot) -> Markup {
    let groups = found(snapshot).flat_map(|found| &found.groups).collect::<Vec<_>>();
    let sum = |of: fn(&GroupSight) -> u64| groups.iter().map(|group| of(group)).sum::<u64>();
    let rates = groups.iter().filter_map(|group| group.rates);
    let (done, failed) = rates.fold((0.0, 0.0), |(d, f), rate| (d + rate.done, f + rate.failed));
    let published = found(snapshot).filter_map(|found| found.published).sum::<f64>();
    let exact = groups.iter().all(|group| group.info.backlog.exact);
    let dead = groups.iter().map(|group| snapshot.dead(&group.info)).sum::<Option<u64>>();
    let oldest = groups.iter().filter_map(|group| group.info.oldest_waiting).max();
    html! {
        dl.tiles {
            div { dt { "Published" } dd #published { (format::rate(published)) } }
            div { dt { "Done" } dd #done { (format::rate(done)) } }
            div { dt { "Failing" } dd #failing { (format::rate(failed)) } }
            div { dt { "Waiting" } dd #waiting {
                @if !exact { "≥ " } (format::count(sum(|group| group.info.backlog.entries)))
            } }
            div { dt { "Oldest waits" } dd #oldest { (oldest.map_or("–".into(), format::span)) } }
            div { dt { "Running" } dd #running {
                (format::count(sum(GroupSight::running)))
                small { " of " (format::count(sum(GroupSight::slots))) " slots" }
            } }
            div { dt { "Set aside" } dd #retries { (format::count(sum(|group| group.info.retrying))) } }
            div { dt { "Dead letters" } dd #dead {
                (format::known(dead, "Redis or the archive does not say."))
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
            (nothing("No group reads this stream: entries are kept, and nobody works on them."))
        } @else {
            div.scroll {
                table {
                    thead { tr {
                        th { "Group" } th { "State" } th.number { "Done" } th { "Last 5 minutes" }
                        th.number { "Waiting" } th.number { "Oldest waits" } th.number { "Running" }
                        th.number { "Pending" } th.number { "Failing" } th.number { "Set aside" }
                        th.number { "Dead" }
                    } }
                    tbody { @for group in &found.groups { (row(base, stream, snapshot, group)) } }
                }
            }
        }
    }
}

fn row(base: &Base, stream: &str, snapshot: &Snapshot, group: &GroupSight) -> Markup {
    let info = &group.info;
    let rates = group.rates.unwrap_or_default();
    html! {
        tr id={ "g-" (stream) "-" (info.group) } data-group=(info.group) {
            td { a href=(link(base, stream, &info.group)) { (Foreign(&info.group)) } }
            td { (state_of(group)) }
            td.number { (format::rate(rates.done)) }
            td { (spark(&group.done_lately)) }
            td.number { (backlog(group)) }
            td.number { (info.oldest_waiting.map_or("–".into(), format::span)) }
            td.number { (group.running()) " / " (group.slots()) }
            td.number { (format::count(info.pending)) }
            td.number { @if rates.failed > 0.0 { span.bad-number { (format::rate(rates.failed)) } } @else { "0/s" } }
            td.number { (format::count(info.retrying)) }
            td.number {
                @let dead = snapshot.dead(info);
                span class=[dead.is_some_and(|dead| dead > 0).then_some("bad-number")] {
                    (format::known(dead, "Their key holds something else, or the archive does not say."))
                }
            }
        }
    }
}

pub(crate) fn link(base: &Base, stream: &str, group: &str) -> String {
    base.to(&["streams", stream, "groups", group])
}

/// Entries that wait, and whether that is known.
pub(crate) fn backlog(group: &GroupSight) -> Markup {
    let backlog = group.info.backlog;
    html! {
        @if !backlog.exact { span title="Older servers do not say; so many were counted." { "≥ " } }
        (format::count(backlog.entries))
    }
}

/// The worst of a group in one word; the banner says it in many.
pub(crate) fn state_of(group: &GroupSight) -> Markup {
    let worst = group.diagnosis.problems.first();
    let (word, kind) = match worst {
        None => ("well", ""),
        Some(Wrong::Paused { .. }) => ("paused", "warn"),
        Some(Wrong::TooFewConsumers { .. }) => ("too few consumers", "warn"),
        Some(Wrong::DeadConsumer { .. }) => ("recovering", "warn"),
        Some(Wrong::TrimmedUnread { .. }) => ("lost entries", "bad"),
        Some(Wrong::Stalled { .. }) => ("stalled", "bad"),
        Some(Wrong::NotReading { .. }) => ("not reading", "bad"),
        Some(Wrong::NotAcknowledging { .. }) => ("not acknowledging", "bad"),
        Some(other) => (other.as_str(), "bad"),
    };
    html! { span class={ "state " (kind) } { (word) } }
}

/// The rates of the last minutes as a line.
#[expect(clippy::cast_precision_loss, reason = "a picture has a hundred pixels")]
pub(crate) fn spark(rates: &[f64]) -> Markup {
    let most = rates.iter().copied().fold(0.0_f64, f64::max);
    let last = rates.len().saturating_sub(1).max(1);
    let points = rates.iter().enumerate().map(|(place, rate)| {
        let x = place as f64 * 108.0 / last as f64 + 1.0;
        let y = if most > 0.0 { (rate / most).mul_add(-22.0, 24.0) } else { 24.0 };
        format!("{x:.1},{y:.1}")
    });
    let points = points.collect::<Vec<_>>().join(" ");
    html! {
        @if rates.len() < 2 {
            span.soft title="It is drawn while somebody looks." { "–" }
        } @else {
            svg.spark viewBox="0 0 110 26" role="img" {
                title { "at most " (format::rate(most)) }
                polyline points=(points) {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_point_for_each_rate_within_its_picture() {
        let drawn = spark(&[0.0, 5.0, 10.0]).into_string();
        assert!(drawn.contains("points=\"1.0,24.0 55.0,13.0 109.0,2.0\""), "{drawn}");
        assert!(spark(&[0.0, 0.0]).into_string().contains("1.0,24.0 109.0,24.0"));
        assert!(!spark(&[3.0]).into_string().contains("svg"));
    }
}
