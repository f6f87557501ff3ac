//! Schedules of a stream: when each fires next, what it fired last, and what was missed.

use axum::extract::{Path, Query};
use axum::response::Response;
use maud::{Markup, html};
use streamjobs::schedule::{FiringInfo, Schedule, ScheduleInfo, ScheduleName, ScheduleState};

use crate::access::Action;
use crate::base::row_id;
use crate::fault::Fault;
use crate::form::Fields;
use crate::format::{self, Untrusted};
use crate::layout::{View, empty, select, select_all, token};
use crate::live;
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
    let schedules = ctx.state.schedules(stream)?;
    let after = asked.get("after").map(ScheduleName::new).transpose();
    let after = after.map_err(|_| Fault::bad_request("Invalid place in the list."))?;
    let page = schedules.list(after.as_ref(), asked.page_size()?).await?;
    let firings = schedules.history(None, FIRINGS_MAX).await?;
    let path = ["streams", stream, "schedules"];
    let to = |action: &str| ctx.base.to(&[&path[..], &[action]].concat());
    let body = html! {
        h1 { "Schedules of " (Untrusted(stream)) }
        p.soft { "Each occurrence is published once, by the first process that finds it due." }
        @if page.schedules.is_empty() {
            (empty("No schedules."))
        } @else {
            form method="post" {
                (token(ctx))
                div.actions {
                    @if ctx.access.may(Action::RunNow) {
                        button type="submit" formaction=(to("run-now")) { "Run selected now" }
                    }
                    @if ctx.access.may(Action::Pause) {
                        button type="submit" formaction=(to("pause")) { "Pause selected" }
                        button type="submit" formaction=(to("resume")) { "Resume selected" }
                    }
                }
                (table(ctx, &page.schedules))
            }
            @if let Some(next) = &page.next {
                p.more { a rel="next" href=(ctx.base.with_query(&path, &[("after", next.as_str())])) { "Next page" } }
            }
        }
        h2 { "Last firings" }
        @if firings.is_empty() { (empty("Nothing has fired.")) } @else { (history(&firings)) }
    };
    let trail = vec![
        ("Overview".to_owned(), ctx.base.root()),
        (stream.clone(), ctx.base.to(&["streams", stream])),
    ];
    Ok(View { title: "Schedules".to_owned(), trail, body })
}

fn table(ctx: &RequestContext, schedules: &[ScheduleInfo]) -> Markup {
    let may = ctx.access.may(Action::RunNow) || ctx.access.may(Action::Pause);
    html! {
        div.scroll tabindex="0" role="region" aria-label="Schedules" { table {
            thead { tr {
                @if may { th scope="col" { (select_all("Select all schedules on this page")) } }
                th scope="col" { "Name" } th scope="col" { "When" } th scope="col" { "Next" } th scope="col" { "Last" } th.number scope="col" { "Late" }
                th.number scope="col" { "Fired" } th.number scope="col" { "Missed" } th.number scope="col" { "Skipped" }
            } }
            tbody { @for info in schedules {
                tr id=(row_id("s", &[info.name.as_str()])) {
                    @if may { td { (select(&info.name, "Schedule ")) } }
                    td { (info.name) }
                    td title=(info.schedule.as_ref().map(Schedule::timing).unwrap_or_default()) {
                        (info.schedule.as_ref().map_or("cannot be read".into(), Schedule::in_words))
                    }
                    td { (next(info)) }
                    td { (info.last.map_or_else(|| html! { "never" }, format::when)) }
                    td.number { (info.last_late.map_or("–".into(), format::span)) }
                    td.number { (format::count(info.fired)) }
                    td.number { (format::count(info.missed)) }
                    td.number title=(overlap(info)) { (format::count(info.skipped)) }
                }
            } }
        } }
    }
}

/// When it fires next, or why it does not.
fn next(info: &ScheduleInfo) -> Markup {
    match (info.state, info.next, info.next_in) {
        (ScheduleState::Active, Some(next), Some(next_in)) => format::due(next, next_in),
        (state, ..) => html! { (state.as_str()) },
    }
}

/// What happens to an occurrence while the last job has not ended.
fn overlap(info: &ScheduleInfo) -> String {
    match info.schedule.as_ref().and_then(|schedule| schedule.overlap_policy().group()) {
        Some(group) => {
            format!("skips while group {group} has not ended the job of the last occurrence")
        }
        None => "overlap is allowed".to_owned(),
    }
}

fn history(firings: &[FiringInfo]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Last firings" { table {
            thead { tr {
                th scope="col" { "At" } th scope="col" { "Name" } th scope="col" { "Due" } th.number scope="col" { "Late" } th.number scope="col" { "Published" }
                th.number scope="col" { "Missed" } th.number scope="col" { "Skipped" } th scope="col" { "By" }
            } }
            tbody { @for firing in firings {
                tr {
                    td { (format::when(firing.at)) }
                    td { (Untrusted(&firing.schedule)) }
                    td { (firing.due.map_or_else(|| html! { "by hand" }, format::when)) }
                    td.number { (firing.late.map_or("–".into(), format::span)) }
                    td.number { (format::count(firing.published)) }
                    td.number { (format::count(firing.missed)) }
                    td.number { (format::count(firing.skipped)) }
                    td { (Untrusted(firing.by.as_deref().unwrap_or("–"))) }
                }
            } }
        } }
    }
}

const FIRINGS_MAX: usize = 20;
