//! Jobs of a group that wait for a retry, and when each is due.

use axum::response::Response;
use maud::{Markup, html};
use streamjobs::stream::{EntryAddress, RetryCursor, ScheduledRetry};

use crate::access::Action;
use crate::base::row_id;
use crate::fault::Fault;
use crate::form::GroupQuery;
use crate::format::{self, Untrusted};
use crate::layout::{View, empty, select, select_all, token};
use crate::live;
use crate::pages::{event_link, group};
use crate::payload::cut;
use crate::request::RequestContext;

pub(crate) async fn show(ctx: RequestContext, asked: GroupQuery) -> Response {
    live::render_or_follow(ctx, asked, |ctx, asked| Box::pin(view(ctx, asked))).await
}

async fn view(ctx: &RequestContext, asked: &GroupQuery) -> Result<View, Fault> {
    let GroupQuery { stream, group: name, fields: asked } = asked;
    let group = ctx.state.group(stream, name)?;
    let after = asked.get("after").map(str::parse::<RetryCursor>).transpose();
    let after = after.map_err(|_| Fault::bad_request("Invalid retry id."))?;
    let page = group.retries(after.as_ref(), asked.page_size()?).await?;
    let path = ["streams", stream, "groups", name, "retries"];
    let body = html! {
        h1 { "Jobs of " (Untrusted(name)) " that wait for a retry" }
        p.soft { "Failed jobs during their back-off. The job that is due next comes first." }
        @if page.jobs.is_empty() {
            (empty("No jobs wait for a retry."))
        } @else {
            form method="post" {
                (token(ctx))
                @if ctx.access.may(Action::RunNow) {
                    div.actions {
                        button type="submit" formaction=(ctx.base.to(&[&path[..], &["run-now"]].concat())) { "Run selected now" }
                    }
                }
                @if ctx.access.may(Action::Cancel) {
                    input type="hidden" name="group" value=(name);
                    input type="hidden" name="from" value="retries";
                }
                (table(ctx, stream, &page.jobs))
            }
            @if let Some(next) = &page.next {
                p.more { a rel="next" href=(ctx.base.with_query(&path, &[("after", &next.to_string())])) { "Next page" } }
            }
        }
    };
    Ok(View { title: "Retries".to_owned(), trail: group::trail_below(ctx, stream, name), body })
}

fn table(ctx: &RequestContext, stream: &str, jobs: &[ScheduledRetry]) -> Markup {
    let may = ctx.access.may(Action::RunNow);
    html! {
        div.scroll tabindex="0" role="region" aria-label="Jobs that wait for a retry" { table {
            thead { tr {
                @if may { th scope="col" { (select_all("Select all jobs on this page")) } }
                th scope="col" { "Due" } th scope="col" { "Type" } th scope="col" { "Event" } th.number scope="col" { "Failures" } th scope="col" { "Last error" } th scope="col" { "Original entry" }
                @if ctx.access.may(Action::Cancel) { th scope="col" { "Action" } }
            } }
            tbody { @for job in jobs {
                tr id=(row_id("s", &[&job.id.to_string()])) {
                    @if may { td { (select(&job.id, "Job ")) } }
                    td { (format::due(job.due, job.due_in)) }
                    td { (Untrusted(job.event_type.as_deref().unwrap_or("unknown"))) }
                    td.id { (event_link::link(ctx, stream, job.event_id.as_deref(), entry_of(job))) }
                    td.number { (job.attempts) }
                    td { (error(ctx, job.error.as_deref())) }
                    td.id { (job.origin.map_or("unknown".into(), |origin| origin.to_string())) }
                    @if ctx.access.may(Action::Cancel) { td { (cancel(ctx, stream, job)) } }
                }
            } }
        } }
    }
}

/// The button in a row of the table. It cancels the job of that row. The form of the table names the group.
fn cancel(ctx: &RequestContext, stream: &str, job: &ScheduledRetry) -> Markup {
    html! {
        @if let Some(id) = &job.event_id {
            button.danger type="submit" name="event" value=(id)
                formaction=(ctx.base.to(&["streams", stream, "event", "cancel"]))
                data-confirm="Cancel this job? It ends as a dead letter when its retry is due, without running again." {
                "Cancel"
            }
        }
    }
}

/// The published entry.
fn entry_of(job: &ScheduledRetry) -> Option<EntryAddress> {
    job.origin.map(|id| EntryAddress { id, partition: job.id.partition() })
}

/// An error, which is hidden without permission to see payloads because the error may quote a
/// payload.
pub(crate) fn error(ctx: &RequestContext, error: Option<&str>) -> Markup {
    html! {
        @match error {
            None => { span.unknown { "unknown" } },
            Some(_) if !ctx.access.sees_payloads() => { span.unknown { "You do not have permission to see errors, which may quote payloads." } },
            Some(error) => { pre { (Untrusted(&cut(error))) } },
        }
    }
}
