//! Events of a stream that wait until they are due.

use axum::extract::{Path, Query};
use axum::response::Response;
use maud::{Markup, html};
use streamjobs::stream::{ScheduledCursor, ScheduledEvent};

use crate::access::Action;
use crate::base::row_id;
use crate::fault::Fault;
use crate::form::Fields;
use crate::format::{self, Untrusted};
use crate::layout::{View, empty, select, select_all, token};
use crate::live;
use crate::pages::event_link;
use crate::request::RequestContext;

pub(crate) async fn show(
    ctx: RequestContext,
    Path(name): Path<String>,
    Query(asked): Query<Vec<(String, String)>>,
) -> Response {
    let asked = (name, Fields(asked));
    live::render_or_follow(ctx, asked, |ctx, asked| Box::pin(view(ctx, asked))).await
}

async fn view(ctx: &RequestContext, (stream, asked): &(String, Fields)) -> Result<View, Fault> {
    let waiting = ctx.state.scheduled(stream)?;
    let after = asked.get("after").map(str::parse::<ScheduledCursor>).transpose();
    let after = after.map_err(|_| Fault::bad_request("Invalid place in the list."))?;
    let count = waiting.count().await?;
    let page = waiting.list(after.as_ref(), asked.page_size()?).await?;
    let path = ["streams", stream, "scheduled"];
    let to = |action: &str| ctx.base.to(&[&path[..], &[action]].concat());
    let body = html! {
        h1 { "Scheduled events of " (Untrusted(stream)) }
        p.soft {
            span #waiting { (format::count(count)) }
            " events wait until they are due, the next one first. A group has no job for an event that still waits."
        }
        @if page.events.is_empty() {
            (empty("No events wait."))
        } @else {
            form method="post" {
                (token(ctx))
                div.actions {
                    @if ctx.access.may(Action::RunNow) {
                        button type="submit" formaction=(to("run-now")) { "Run selected now" }
                    }
                    @if ctx.access.may(Action::CancelScheduled) {
                        button type="submit" formaction=(to("cancel")) { "Cancel selected" }
                    }
                }
                (table(ctx, stream, &page.events))
            }
            @if let Some(next) = &page.next {
                p.more { a rel="next" href=(ctx.base.with_query(&path, &[("after", &next.to_string())])) { "Next page" } }
            }
        }
    };
    let trail = vec![
        ("Overview".to_owned(), ctx.base.root()),
        (stream.clone(), ctx.base.to(&["streams", stream])),
    ];
    Ok(View { title: "Scheduled".to_owned(), trail, body })
}

fn table(ctx: &RequestContext, stream: &str, events: &[ScheduledEvent]) -> Markup {
    let may = ctx.access.may(Action::RunNow) || ctx.access.may(Action::CancelScheduled);
    html! {
        div.scroll tabindex="0" role="region" aria-label="Scheduled events" { table {
            thead { tr {
                @if may { th scope="col" { (select_all("Select all events on this page")) } }
                th scope="col" { "Due" } th scope="col" { "Type" } th scope="col" { "Event" } th scope="col" { "Key" } th.number scope="col" { "Size" }
            } }
            tbody { @for event in events {
                tr id=(row_id("s", &[event.name.as_str()])) {
                    @if may { td { (select(event.name.as_str(), "Event ")) } }
                    td { (format::due(event.due, event.due_in)) }
                    td { (Untrusted(event.event_type.as_deref().unwrap_or("unknown"))) }
                    td.id { (event_link::link(ctx, stream, Some(event.id.as_str()), None)) }
                    td { (Untrusted(event.key.as_deref().unwrap_or("–"))) }
                    td.number { (format::size(event.bytes)) }
                }
            } }
        } }
    }
}
