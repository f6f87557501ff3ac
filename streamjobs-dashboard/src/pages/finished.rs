//! Finished jobs of a group, as far as they are noted.

use axum::response::Response;
use maud::{Markup, html};
use streamjobs::stream::{EntryAddress, FinishedJob, FinishedQuery};

use crate::base::row_id;
use crate::fault::Fault;
use crate::form::{Fields, GroupQuery};
use crate::format::{self, Untrusted};
use crate::layout::{View, empty};
use crate::live;
use crate::pages::{event_link, group};
use crate::request::RequestContext;

pub(crate) async fn show(ctx: RequestContext, asked: GroupQuery) -> Response {
    live::render_or_follow(ctx, asked, |ctx, asked| Box::pin(view(ctx, asked))).await
}

/// The names of the filter fields.
const FILTERS: [&str; 3] = ["event", "type", "key"];

async fn view(ctx: &RequestContext, asked: &GroupQuery) -> Result<View, Fault> {
    let GroupQuery { stream, group: name, fields: asked } = asked;
    let group = ctx.state.group(stream, name)?;
    let page = group.finished(query(asked)?).await?;
    let path = ["streams", stream, "groups", name, "finished"];
    let filter = FILTERS.into_iter().filter_map(|name| Some((name, asked.get(name)?)));
    let filter = filter.collect::<Vec<_>>();
    let body = html! {
        // A search costs more than other pages, so it is not repeated while the page is open.
        @if !filter.is_empty() { div data-still {} }
        h1 { "Finished jobs of " (Untrusted(name)) }
        p.soft { "Jobs that are done, of handlers with the option " code { "keep_done" } ", the one that was noted last first." }
        form.filter method="get" action=(ctx.base.to(&path)) data-keep {
            label { "Event id" input name="event" value=[asked.get("event")] maxlength="256"; }
            label { "Type" input name="type" value=[asked.get("type")] maxlength="256"; }
            label { "Key" input name="key" value=[asked.get("key")] maxlength="256"; }
            button type="submit" { "Filter" }
        }
        @if page.jobs.is_empty() {
            (empty(match (filter.is_empty(), page.next) {
                (true, _) => "No finished jobs are noted: no handler of the group has the option, or the time for which notes are kept is over.",
                (false, None) => "None of the notes matches the filter.",
                (false, Some(_)) => "None of the notes that were compared matches the filter.",
            }))
        } @else {
            (table(ctx, stream, &page.jobs))
        }
        @if let Some(next) = page.next {
            @let id = next.to_string();
            @let query = [filter, vec![("before", id.as_str())]].concat();
            p.more {
                (format::count(page.compared as u64)) " notes were compared. "
                a rel="next" href=(ctx.base.with_query(&path, &query)) { "Earlier ones" }
            }
        }
    };
    Ok(View {
        title: "Finished jobs".to_owned(),
        trail: group::trail_below(ctx, stream, name),
        body,
    })
}

fn query(asked: &Fields) -> Result<FinishedQuery, Fault> {
    let mut query = FinishedQuery::new().limit(asked.page_size()?);
    if let Some(before) = asked.id("before")? {
        query = query.before(before);
    }
    if let Some(id) = asked.get("event") {
        query = query.event_id(id);
    }
    if let Some(event_type) = asked.get("type") {
        query = query.event_type(event_type);
    }
    if let Some(key) = asked.get("key") {
        query = query.key(key);
    }
    Ok(query)
}

fn table(ctx: &RequestContext, stream: &str, jobs: &[FinishedJob]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Finished jobs" { table {
            thead { tr {
                th scope="col" { "Done" } th scope="col" { "Event" } th scope="col" { "Type" } th scope="col" { "Key" } th.number scope="col" { "Attempt" } th.number scope="col" { "Ran" } th.number scope="col" { "After" } th scope="col" { "Process" }
            } }
            tbody { @for job in jobs {
                tr id=(row_id("f", &[&job.address().to_string()])) {
                    td { (format::when(job.ended())) }
                    td.id { (event_link::link(ctx, stream, Some(&job.event_id), entry_of(job))) }
                    td { (Untrusted(job.event_type.as_deref().unwrap_or("unknown"))) }
                    td { (Untrusted(job.key.as_deref().unwrap_or("–"))) }
                    td.number { (job.attempt) }
                    td.number { (format::span(job.took)) }
                    td.number { (after(job)) }
                    td { (Untrusted(&job.process)) }
                }
            } }
        } }
    }
}

/// How long after its event was published a job was finished.
fn after(job: &FinishedJob) -> String {
    let Some(published) = job.origin.map(|id| id.milliseconds()) else { return "unknown".into() };
    format::span(std::time::Duration::from_millis(job.ended().saturating_sub(published)))
}

fn entry_of(job: &FinishedJob) -> Option<EntryAddress> {
    job.origin.map(|id| EntryAddress { id, partition: job.partition })
}
