//! Jobs of a group that wait for their back-off, and when each is due.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use streamjobs::stream::{RetryId, ScheduledRetry};

use crate::access::Action;
use crate::fault::Fault;
use crate::form::Asked;
use crate::format::{self, Foreign};
use crate::layout::{View, nothing, token};
use crate::live;
use crate::pages::group;
use crate::payload::cut;
use crate::state::{Shared, State as All};
use crate::visit::Visit;

pub(crate) async fn show(State(state): State<Shared>, visit: Visit, asked: Asked) -> Response {
    live::show(visit, state, asked, |state, visit, asked| async move {
        view(&state, &visit, &asked).await
    })
    .await
}

async fn view(state: &All, visit: &Visit, asked: &Asked) -> Result<View, Fault> {
    let Asked { stream, group: name, fields: asked } = asked;
    let group = state.group(stream, name)?;
    let after = asked.get("after").map(str::parse::<RetryId>).transpose();
    let after = after.map_err(|_| Fault::bad_request("That is no job that is set aside."))?;
    let page = group.retries(after.as_ref(), asked.page_size()?).await?;
    let path = ["streams", stream, "groups", name, "retries"];
    let body = html! {
        h1 { "Set aside for " (Foreign(name)) }
        p.soft { "Failed jobs, out of the stream until their back-off is over. The next one due comes first." }
        @if page.jobs.is_empty() {
            (nothing("No job waits for its back-off."))
        } @else {
            form method="post" {
                (token(visit))
                @if visit.access.may(Action::RunNow) {
                    div.actions {
                        button type="submit" formaction=(visit.base.to(&[&path[..], &["run-now"]].concat())) { "Run the chosen now" }
                    }
                }
                (table(visit, &page.jobs))
            }
            @if let Some(next) = &page.next {
                p.more { a rel="next" href=(visit.base.with_query(&path, &[("after", &next.to_string())])) { "Next page" } }
            }
        }
    };
    Ok(View { title: "Set aside".to_owned(), trail: group::trail_below(visit, stream, name), body })
}

fn table(visit: &Visit, jobs: &[ScheduledRetry]) -> Markup {
    let may = visit.access.may(Action::RunNow);
    html! {
        div.scroll { table {
            thead { tr {
                @if may { th { input type="checkbox" data-all="id" aria-label="All jobs of this page"; } }
                th { "Due" } th { "Type" } th { "Event" } th.number { "Failures" } th { "Last error" } th { "Published as" }
            } }
            tbody { @for job in jobs {
                tr id={ "s-" (job.id) } {
                    @if may { td { input type="checkbox" name="id" value=(job.id) aria-label={ "Job " (job.id) }; } }
                    td title=(format::moment(job.due)) {
                        @if job.due_in.is_zero() { "now" } @else { "in " (format::span(job.due_in)) }
                    }
                    td { (Foreign(job.event_type.as_deref().unwrap_or("unknown"))) }
                    td.id { (Foreign(job.event_id.as_deref().unwrap_or("unknown"))) }
                    td.number { (job.attempts) }
                    td { (error(visit, job.error.as_deref())) }
                    td.id { (job.origin.map_or("unknown".into(), |origin| origin.to_string())) }
                }
            } }
        } }
    }
}

/// An error as it is shown: it may quote a payload.
pub(crate) fn error(visit: &Visit, error: Option<&str>) -> Markup {
    html! {
        @match error {
            None => { span.unknown { "none is known" } },
            Some(_) if !visit.access.sees_payloads() => { span.unknown { "You may not see it; it may quote a payload." } },
            Some(error) => { pre { (Foreign(&cut(error))) } },
        }
    }
}
