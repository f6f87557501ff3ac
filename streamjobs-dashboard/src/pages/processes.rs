//! Who works: the processes that have consumers, on all streams.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use streamjobs::stream::{ConsumerInfo, Liveness};

use crate::format::{self, Foreign};
use crate::layout::{View, fault_box, nothing};
use crate::live;
use crate::pages::{group, overview};
use crate::sampler::Snapshot;
use crate::state::Shared;
use crate::visit::Visit;

/// A process as its consumers tell of it; those that tell nothing stand together as unknown.
type Process = (String, u32);

struct Seen<'a> {
    stream: &'a str,
    group: &'a str,
    consumer: &'a ConsumerInfo,
}

pub(crate) async fn show(State(state): State<Shared>, visit: Visit) -> Response {
    live::show(visit, state, (), |state, visit, ()| async move {
        let snapshot = state.sampler.look().await;
        let body = body(&visit, &snapshot);
        let trail = vec![("Overview".to_owned(), visit.base.root())];
        Ok(View { title: "Processes".to_owned(), trail, body })
    })
    .await
}

fn by_process(snapshot: &Snapshot) -> BTreeMap<Process, Vec<Seen<'_>>> {
    let mut processes = BTreeMap::<Process, Vec<Seen<'_>>>::new();
    for stream in &snapshot.streams {
        for sight in stream.found.iter().flat_map(|found| &found.groups) {
            for consumer in &sight.consumers {
                let host = consumer.host.clone().unwrap_or_default();
                let process = (host, consumer.process.unwrap_or_default());
                let seen =
                    Seen { stream: stream.name.as_str(), group: &sight.info.group, consumer };
                processes.entry(process).or_default().push(seen);
            }
        }
    }
    processes
}

fn body(visit: &Visit, snapshot: &Snapshot) -> Markup {
    let processes = by_process(snapshot);
    let faults = snapshot.streams.iter().filter_map(|stream| stream.found.as_ref().err());
    html! {
        h1 { "Processes" }
        @for fault in faults.filter(|fault| fault.status.is_server_error()) { (fault_box(fault)) }
        @if processes.is_empty() {
            (nothing("No process works on these streams: start one with their handlers."))
        }
        @for ((host, process), seen) in processes.iter().take(PROCESSES_MAX) {
            section data-process=(process) {
                h2 {
                    @if host.is_empty() { "Unknown software" } @else { (Foreign(host)) " · process " (process) }
                }
                (facts(seen))
                (consumers(visit, seen))
            }
        }
        @if processes.len() > PROCESSES_MAX {
            p.soft { "The first " (PROCESSES_MAX) " of " (processes.len()) " are shown." }
        }
    }
}

fn facts(seen: &[Seen<'_>]) -> Markup {
    let first = seen.first().map(|seen| seen.consumer);
    let started = seen.iter().filter_map(|seen| seen.consumer.started).min();
    let running = seen.iter().filter_map(|seen| seen.consumer.in_flight).sum::<u64>();
    let slots = seen.iter().filter_map(|seen| seen.consumer.slots).sum::<u64>();
    html! {
        p.soft {
            @if let Some(version) = first.and_then(|consumer| consumer.version.as_deref()) {
                "streamjobs " (Foreign(version)) " · "
            }
            @if let Some(started) = started { "started " (format::moment(started)) " · " }
            (running) " of " (slots) " slots taken"
        }
    }
}

fn consumers(visit: &Visit, seen: &[Seen<'_>]) -> Markup {
    html! {
        div.scroll { table {
            thead { tr {
                th { "Consumer" } th { "Group" } th { "State" } th.number { "Last beat" }
                th.number { "Running" } th.number { "Pending" } th.number { "Done" } th.number { "Failed" }
            } }
            tbody { @for Seen { stream, group, consumer } in seen.iter().take(CONSUMERS_MAX) {
                tr {
                    td.id { (Foreign(&consumer.name)) }
                    td { a href=(overview::link(&visit.base, stream, group)) { (Foreign(group)) " on " (Foreign(stream)) } }
                    td { (group::liveness(consumer.liveness)) }
                    td.number { (consumer.last_heartbeat.map_or("–".into(), format::span)) }
                    td.number { (format::known(consumer.in_flight, UNSAID)) " / " (format::known(consumer.slots, UNSAID)) }
                    td.number { (format::count(consumer.pending)) }
                    td.number { (format::known(consumer.done, UNSAID)) }
                    td.number { (format::known(consumer.failed, UNSAID)) }
                }
            } }
        } }
        @if seen.iter().all(|seen| seen.consumer.liveness == Liveness::Silent) {
            p.soft { "It is not heard of any more. Its work is claimed by others; its names go when nothing is pending for them." }
        }
    }
}

const UNSAID: &str = "Its version does not say.";
const PROCESSES_MAX: usize = 100;
const CONSUMERS_MAX: usize = 100;
