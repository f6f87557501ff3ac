//! One event: its entry, and each group's job on it.

use axum::extract::{Path, Query};
use axum::response::Response;
use maud::{Markup, html};
use streamjobs::EventId;
use streamjobs::stream::{
    EntryAddress, EventReport, JobReport, JobState, KeptResult, PendingEntry,
};

use crate::access::Action;
use crate::fault::Fault;
use crate::form::Fields;
use crate::format::{self, Untrusted};
use crate::layout::{Button, View, button, empty};
use crate::live;
use crate::pages::attempts;
use crate::pages::event_link::search;
use crate::pages::retries::error;
use crate::request::RequestContext;

pub(crate) async fn show(
    ctx: RequestContext,
    Path(name): Path<String>,
    Query(asked): Query<Vec<(String, String)>>,
) -> Response {
    let asked = (name, Fields(asked));
    live::render_or_follow(ctx, asked, |ctx, asked| Box::pin(view(ctx, asked))).await
}

async fn view(ctx: &RequestContext, (name, asked): &(String, Fields)) -> Result<View, Fault> {
    let id = asked.get("id").unwrap_or_default();
    let report = match id.is_empty() {
        true => None,
        false => Some(find(ctx, name, id, asked.id("entry")?).await?),
    };
    let body = html! {
        // A search costs more than other pages, so it is not repeated while the page is open.
        div data-still {}
        h1 { "Event " (Untrusted(id)) }
        (search(ctx, name, id))
        @match &report {
            None => { (empty("Give an event id, or the id of an entry.")) },
            Some(report) if !report.is_known() => {
                (unknown(report))
                div.actions { (cancel(ctx, name, report, None)) }
            },
            Some(report) => { (known(ctx, name, report)) },
        }
    };
    let trail = vec![
        ("Overview".to_owned(), ctx.base.root()),
        (name.clone(), ctx.base.to(&["streams", name])),
    ];
    Ok(View { title: "Event".to_owned(), trail, body })
}

/// Finds the event by its entry, if an entry is given or the id has the form of an entry id;
/// otherwise by the event id.
async fn find(
    ctx: &RequestContext,
    name: &str,
    id: &str,
    entry: Option<EntryAddress>,
) -> Result<EventReport, Fault> {
    let stream = ctx.state.stream(name)?;
    let is_given = entry.is_some();
    if let Some(entry) = entry.or_else(|| id.parse::<EntryAddress>().ok())
        && let Some(report) = stream.event_of(entry).await?
        && (!is_given || report.event_id.as_str() == id)
    {
        return Ok(report);
    }
    let id = EventId::new(id).map_err(|_| Fault::bad_request("Invalid event id."))?;
    Ok(stream.event(&id).await?)
}

fn unknown(report: &EventReport) -> Markup {
    html! {
        (empty("Nothing is known of this event."))
        p.soft {
            @if report.searched {
                "The whole stream was searched. "
            } @else {
                "The newest 1,000 entries were searched, and 1,000 around the time at which a generated id was made. "
            }
            "Of each group, up to 1,000 retries, dead letters and entries of its lane were compared. An event that \
             has been done and trimmed leaves nothing behind. With the id of its entry, an event is found at once."
        }
    }
}

fn known(ctx: &RequestContext, name: &str, report: &EventReport) -> Markup {
    html! {
        dl.fields {
            dt { "Event id" } dd #event-id { (Untrusted(report.event_id.as_str())) }
            dt { "Type" } dd { (Untrusted(report.event_type.as_deref().unwrap_or("unknown"))) }
            dt { "Entry" } dd #entry { (entry(ctx, name, report)) }
            dt { "Trace" } dd #trace { (report.trace_id.as_deref().unwrap_or("none")) }
            dt { "Scheduled" } dd #scheduled {
                @match &report.scheduled {
                    Some(event) => { "due " (format::due(event.due, event.due_in)) },
                    None => { "no" },
                }
            }
            dt { "Cancelled" } dd #cancelled {
                @if report.cancelled.is_empty() {
                    @if report.marks_searched { "no" } @else { "not among the first 1,000 marks" }
                }
                @for mark in &report.cancelled {
                    (Untrusted(mark.group.as_deref().unwrap_or("all groups"))) " " (format::when(mark.at)) " "
                    (uncancel(ctx, name, report, mark.group.as_deref())) " "
                }
            }
        }
        @if report.cancelled.iter().all(|mark| mark.group.is_some()) {
            div.actions { (cancel(ctx, name, report, None)) }
        }
        h2 { "Jobs" }
        @if report.jobs.is_empty() {
            (empty("No group reads this stream yet."))
        } @else {
            (jobs(ctx, name, report))
            @for job in &report.jobs {
                (attempts::past(ctx, &html! { "Attempts of " (Untrusted(&job.group)) }, &job.attempts))
            }
        }
        @if report.groups_left > 0 { p.soft { (report.groups_left) " more groups were not asked." } }
    }
}

/// The entry, with a link to its payload.
fn entry(ctx: &RequestContext, name: &str, report: &EventReport) -> Markup {
    let Some(entry) = report.entry else {
        return html! { span.unknown { "not found in the stream" } };
    };
    let id = entry.to_string();
    let query = [("start", &*id), ("end", &*id)];
    html! {
        a href=(ctx.base.with_query(&["streams", name, "replay"], &query)) { (id) }
        " " (format::when_exactly(entry.id.milliseconds()))
    }
}

fn jobs(ctx: &RequestContext, name: &str, report: &EventReport) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Jobs" { table {
            thead { tr {
                th scope="col" { "Group" } th scope="col" { "Job" } th.number scope="col" { "Failures" } th scope="col" { "Where" } th scope="col" { "Last error" } th scope="col" { "Result" }
                @if ctx.access.may(Action::Cancel) { th scope="col" { "Action" } }
            } }
            tbody { @for job in &report.jobs {
                tr data-group=(Untrusted(&job.group)) data-state=(job.state.as_str()) {
                    td { a href=(ctx.base.to(&["streams", name, "groups", &job.group])) { (Untrusted(&job.group)) } }
                    td { (job.state.as_str()) }
                    td.number { (job.state.attempts().map_or("–".into(), |count| count.to_string())) }
                    td { (place(ctx, name, job)) }
                    td { @if job.state.error().is_some() { (error(ctx, job.state.error())) } }
                    td { @if let Some(result) = &job.result { (kept(result)) } }
                    @if ctx.access.may(Action::Cancel) {
                        td { @if may_run(report, job) { (cancel(ctx, name, report, Some(&job.group))) } }
                    }
                }
            } }
        } }
    }
}

/// What is kept of a result, without its contents.
fn kept(result: &KeptResult) -> Markup {
    html! {
        @match result.bytes {
            Some(bytes) => { (format::size(bytes)) ", kept for " (format::span(result.rest)) },
            None => { "not kept: the server had no memory for it" },
        }
    }
}

/// Whether a job may run, as far as is known.
fn may_run(report: &EventReport, job: &JobReport) -> bool {
    let covers = |of: Option<&str>| of.is_none_or(|group| group == job.group);
    let is_cancelled = report.cancelled.iter().any(|mark| covers(mark.group.as_deref()));
    !is_cancelled && !matches!(job.state, JobState::Dead(_) | JobState::Ended)
}

/// The button that cancels the job of one group, or the jobs of all groups.
fn cancel(ctx: &RequestContext, name: &str, report: &EventReport, group: Option<&str>) -> Markup {
    let (text, confirm) = match group {
        Some(_) => {
            ("Cancel", "Cancel the job of this group? If it waits, it ends without running.")
        }
        None => (
            "Cancel in all groups",
            "Cancel the jobs of this event in all groups? An event that waits for its time is removed; \
             jobs that wait end without running.",
        ),
    };
    let plan = Button { text, confirm: Some(confirm), danger: true, ..Button::default() };
    marking(ctx, name, report, group, "cancel", plan)
}

/// The button that removes a mark.
fn uncancel(ctx: &RequestContext, name: &str, report: &EventReport, group: Option<&str>) -> Markup {
    let confirm = Some("Undo the cancel? Jobs that have not ended run again.");
    let plan = Button { text: "Undo cancel", confirm, ..Button::default() };
    marking(ctx, name, report, group, "uncancel", plan)
}

fn marking(
    ctx: &RequestContext,
    name: &str,
    report: &EventReport,
    group: Option<&str>,
    action: &str,
    plan: Button<'_>,
) -> Markup {
    let entry = report.entry.map(|entry| entry.to_string());
    let fields =
        [("event", Some(report.event_id.as_str())), ("group", group), ("entry", entry.as_deref())];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let fields = fields.collect::<Vec<_>>();
    let to = ctx.base.to(&["streams", name, "event", action]);
    button(ctx, Action::Cancel, &to, &Button { fields: &fields, ..plan })
}

/// Where a job is, with a link to the list that shows it.
fn place(ctx: &RequestContext, name: &str, job: &JobReport) -> Markup {
    let list = |list: &str| ctx.base.to(&["streams", name, "groups", &job.group, list]);
    if let Some(done) = &job.finished {
        return html! {
            a href=(list("finished")) { "done" } " at " (format::when_exactly(done.ended())) " in " (format::span(done.took))
            " by " (Untrusted(&done.process)) ", attempt " (done.attempt)
        };
    }
    match &job.state {
        JobState::Waiting => html! { "not read by the group yet" },
        JobState::Pending(pending) => html! { a href=(list("pending")) { (delivery(pending)) } },
        JobState::Lane { pending: Some(pending), .. } => {
            html! { "in the lane: " (delivery(pending)) }
        }
        JobState::Lane { .. } => html! { "in the lane, waits for a process" },
        JobState::Retrying(retry) => html! {
            a href=(list("retries")) { "due " (format::due(retry.due, retry.due_in)) }
        },
        JobState::Dead(letter) => {
            let id = letter.address().to_string();
            let path = ["streams", name, "groups", &job.group, "dead", &id];
            html! { a href=(ctx.base.to(&path)) { "dead letter " (id) } ", " (letter.reason.as_str()) }
        }
        JobState::Ended => {
            html! { "done, or a dead letter that was archived or removed, or before the group's beginning" }
        }
        _ => html! { span.unknown { "the server does not tell" } },
    }
}

fn delivery(entry: &PendingEntry) -> Markup {
    html! {
        @if entry.consumer.is_empty() { "released" } @else { (Untrusted(&entry.consumer)) }
        ", delivered " (entry.delivery_count) " times"
        @if let Some(idle) = entry.idle { ", idle for " (format::span(idle)) }
        @if let Some(progress) = &entry.progress { ", " (Untrusted(&progress.to_string())) }
    }
}
