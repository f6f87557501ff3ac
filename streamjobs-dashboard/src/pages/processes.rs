//! The processes that have consumers, on all streams.

use std::collections::BTreeMap;

use axum::response::Response;
use maud::{Markup, html};
use streamjobs::stream::{ConsumerInfo, Liveness};

use crate::fault::Fault;
use crate::format::{self, Untrusted};
use crate::layout::{View, empty};
use crate::live;
use crate::pages::{group, group_parts, overview};
use crate::request::RequestContext;
use crate::snapshot::Snapshot;

/// Host and process id as reported by heartbeats. Consumers without a heartbeat share one entry.
type Process = (String, u32);

struct ProcessConsumer<'a> {
    stream: &'a str,
    group: &'a str,
    consumer: &'a ConsumerInfo,
}

pub(crate) async fn show(ctx: RequestContext) -> Response {
    live::render_or_follow(ctx, (), |ctx, ()| Box::pin(view(ctx))).await
}

async fn view(ctx: &RequestContext) -> Result<View, Fault> {
    let body = body(ctx, &*ctx.state.sampler.sample().await);
    let trail = vec![("Overview".to_owned(), ctx.base.root())];
    Ok(View { title: "Processes".to_owned(), trail, body })
}

fn by_process(snapshot: &Snapshot) -> BTreeMap<Process, Vec<ProcessConsumer<'_>>> {
    let mut processes = BTreeMap::<Process, Vec<ProcessConsumer<'_>>>::new();
    for stream in &snapshot.streams {
        for sampled in stream.found.iter().flat_map(|found| &found.groups) {
            for consumer in &sampled.consumers {
                let host = consumer.host.clone().unwrap_or_default();
                let process = (host, consumer.process.unwrap_or_default());
                let seen = ProcessConsumer {
                    stream: stream.name.as_str(),
                    group: &sampled.info.group,
                    consumer,
                };
                processes.entry(process).or_default().push(seen);
            }
        }
    }
    processes
}

fn body(ctx: &RequestContext, snapshot: &Snapshot) -> Markup {
    let processes = by_process(snapshot);
    html! {
        h1 { "Processes" }
        @for (fault, streams) in snapshot.failures() { (overview::fault_box_of(fault, &streams)) }
        @if processes.is_empty() {
            (empty("No process works on these streams. Start one with their handlers."))
        }
        @for ((host, process), seen) in processes.iter().take(PROCESSES_MAX) {
            section data-process=(process) {
                h2 {
                    @if host.is_empty() { "Unknown process" } @else { (Untrusted(host)) " · process " (process) }
                }
                (facts(seen))
                (consumers(ctx, seen))
            }
        }
        @if processes.len() > PROCESSES_MAX {
            p.soft { "Showing " (PROCESSES_MAX) " of " (processes.len()) " processes." }
        }
    }
}

fn facts(seen: &[ProcessConsumer<'_>]) -> Markup {
    let first = seen.first().map(|seen| seen.consumer);
    let started = seen.iter().filter_map(|seen| seen.consumer.started).min();
    let running = seen.iter().filter_map(|seen| seen.consumer.in_flight).sum::<u64>();
    let slots = seen.iter().filter_map(|seen| seen.consumer.slots).sum::<u64>();
    html! {
        p.soft {
            @if let Some(version) = first.and_then(|consumer| consumer.version.as_deref()) {
                "streamjobs " (Untrusted(version)) " · "
            }
            @if let Some(started) = started { "started " (format::when(started)) " · " }
            (running) " of " (slots) " slots in use"
        }
    }
}

fn consumers(ctx: &RequestContext, seen: &[ProcessConsumer<'_>]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Consumers" { table {
            thead { tr {
                th scope="col" { "Consumer" } th scope="col" { "Group" } th scope="col" { "State" } th.number scope="col" { "Last heartbeat" }
                th.number scope="col" { "Running" } th.number scope="col" { "Pending" } th.number scope="col" { "Done" } th.number scope="col" { "Failed" }
            } }
            tbody { @for ProcessConsumer { stream, group, consumer } in seen.iter().take(CONSUMERS_MAX) {
                tr {
                    td.id { (Untrusted(&consumer.name)) }
                    td { a href=(group_parts::link(&ctx.base, stream, group)) { (Untrusted(group)) " on " (Untrusted(stream)) } }
                    td { (group::liveness(consumer.liveness)) }
                    td.number { (consumer.last_heartbeat.map_or("–".into(), format::span)) }
                    td.number { (format::known(consumer.in_flight, UNREPORTED)) " / " (format::known(consumer.slots, UNREPORTED)) }
                    td.number { (format::count(consumer.pending)) }
                    td.number { (format::known(consumer.done, UNREPORTED)) }
                    td.number { (format::known(consumer.failed, UNREPORTED)) }
                }
            } }
        } }
        @if seen.iter().all(|seen| seen.consumer.liveness == Liveness::Silent) {
            p.soft { "No heartbeats. Other processes claim its entries; its consumers are removed once they have no pending entries." }
        }
    }
}

const UNREPORTED: &str = "Not reported by this version.";
const PROCESSES_MAX: usize = 100;
const CONSUMERS_MAX: usize = 100;
