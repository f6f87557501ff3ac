//! What a group has in hand: its pending entries, page by page.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use streamjobs::stream::{ConsumerInfo, PendingEntry, PendingPage, PendingQuery};

use crate::access::Action;
use crate::fault::Fault;
use crate::form::{Asked, Fields};
use crate::format::{self, Foreign};
use crate::layout::{View, nothing, token};
use crate::live;
use crate::pages::group;
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
    let consumers = group.consumers().await?;
    let in_lane = asked.get("lane").is_some();
    let group = if in_lane { group.lane() } else { group };
    let page = looked_through(group.pending(query(asked)?).await?, asked)?;
    let body = html! {
        h1 { "Pending entries of " (Foreign(name)) }
        p.soft {
            "Delivered and not acknowledged. Work in hand is renewed at a third of its lease, so an \
             entry that is idle for longer belongs to nobody who lives; it is taken up by itself."
        }
        (filter(visit, stream, name, asked))
        (entries(visit, stream, name, &page, &consumers, in_lane))
        @if let Some(next) = page.next { p.more { a rel="next" href=(more(visit, stream, name, asked, &next.to_string())) { "Next page" } } }
    };
    Ok(View { title: "Pending".to_owned(), trail: group::trail_below(visit, stream, name), body })
}

/// The server is never asked to look for entries, only for the next ones: what it would have to pass
/// over grows with the backlog. One page looks at so many, and can be empty and not the last.
fn query(asked: &Fields) -> Result<PendingQuery, Fault> {
    let looks = asked.get("idle").is_some() || asked.get("deliveries").is_some();
    let limit = if looks { LOOKED_AT } else { asked.page_size()? };
    let mut query = PendingQuery::new().limit(limit);
    if let Some(after) = asked.id("after")? {
        query = query.after(after);
    }
    if let Some(deliveries) = asked.number("deliveries", u64::MAX)? {
        query = query.deliveries_min(deliveries);
    }
    if let Some(consumer) = asked.get("consumer") {
        query = query.consumer(consumer);
    }
    Ok(query)
}

/// What fits on a page of what was looked at, and where to go on.
fn looked_through(mut page: PendingPage, asked: &Fields) -> Result<PendingPage, Fault> {
    let size = asked.page_size()?;
    if let Some(seconds) = asked.number("idle", SECONDS_MAX)? {
        let idle = Duration::from_secs(seconds);
        page.entries.retain(|entry| entry.idle.is_none_or(|unheard| unheard >= idle));
    }
    if page.entries.len() > size {
        page.entries.truncate(size);
        page.next = page.entries.last().map(|entry| entry.id);
    }
    Ok(page)
}

fn path<'a>(stream: &'a str, group: &'a str) -> [&'a str; 5] {
    ["streams", stream, "groups", group, "pending"]
}

fn more(visit: &Visit, stream: &str, group: &str, asked: &Fields, after: &str) -> String {
    let mut query = vec![("after", after)];
    for name in ["idle", "deliveries", "consumer", "lane", "limit"] {
        query.extend(asked.get(name).map(|value| (name, value)));
    }
    visit.base.with_query(&path(stream, group), &query)
}

fn filter(visit: &Visit, stream: &str, group: &str, asked: &Fields) -> Markup {
    html! {
        form.filter method="get" action=(visit.base.to(&path(stream, group))) data-keep {
            label { "Idle for at least (s)" input name="idle" type="number" min="0" value=[asked.get("idle")]; }
            label { "Deliveries at least" input name="deliveries" type="number" min="0" value=[asked.get("deliveries")]; }
            label { "Consumer" input name="consumer" value=[asked.get("consumer")] maxlength="300"; }
            label { "Where" select name="lane" {
                option value="" { "the stream" }
                option value="1" selected[asked.get("lane").is_some()] { "the lane (retries, redriven jobs)" }
            } }
            button type="submit" { "Show" }
        }
    }
}

fn entries(
    visit: &Visit,
    stream: &str,
    group: &str,
    page: &PendingPage,
    consumers: &[ConsumerInfo],
    in_lane: bool,
) -> Markup {
    let may = visit.access.may(Action::Claim) || visit.access.may(Action::Release);
    let to = |action| {
        let [a, b, c, d, e] = path(stream, group);
        visit.base.to(&[a, b, c, d, e, action])
    };
    html! {
        @if page.entries.is_empty() {
            @if page.next.is_some() {
                (nothing("None of this page's entries is what was asked for; there are more behind it."))
            } @else {
                (nothing("Nothing is pending that is what was asked for."))
            }
        } @else {
            form #entries method="post" {
                (token(visit))
                @if in_lane { input type="hidden" name="lane" value="1"; }
                @if may { (levers(visit, &to, consumers)) }
                div.scroll { table {
                    thead { tr {
                        @if may { th { input type="checkbox" data-all="id" aria-label="All entries of this page"; } }
                        th { "Entry" } th { "Consumer" } th.number { "Unheard of for" } th.number { "Deliveries" }
                    } }
                    tbody { @for entry in &page.entries { (row(entry, may)) } }
                } }
            }
        }
    }
}

fn levers(
    visit: &Visit,
    to: &dyn Fn(&'static str) -> String,
    consumers: &[ConsumerInfo],
) -> Markup {
    html! {
        div.actions {
            @if visit.access.may(Action::Claim) {
                select name="consumer" aria-label="Consumer that gets them" {
                    @for consumer in consumers.iter().take(CHOICES_MAX) {
                        option value=(consumer.name) { (Foreign(&consumer.name)) " (" (consumer.liveness.as_str()) ")" }
                    }
                }
                button type="submit" formaction=(to("claim"))
                    data-confirm="Give the chosen entries to this consumer? A handler that is at work on one loses its lease." {
                    "Claim for it"
                }
            }
            @if visit.access.may(Action::Release) {
                button type="submit" formaction=(to("release"))
                    data-confirm="Make the chosen entries look abandoned? Any process takes them up at once; what a handler is at work on may run twice." {
                    "Release"
                }
            }
        }
    }
}

fn row(entry: &PendingEntry, may: bool) -> Markup {
    let id = entry.id.to_string();
    html! {
        tr id={ "p-" (id) } data-entry=(id) {
            @if may { td { input type="checkbox" name="id" value=(id) aria-label={ "Entry " (id) }; } }
            td.id { (id) }
            td.id { @if entry.consumer.is_empty() { span.unknown { "released" } } @else { (Foreign(&entry.consumer)) } }
            td.number { (entry.idle.map_or("–".into(), format::span)) }
            td.number { (format::count(entry.delivery_count)) }
        }
    }
}

/// Pending entries that one page looks at for those that are asked for.
const LOOKED_AT: usize = 1_000;
/// Ten years: beyond that, no server's clock can tell.
const SECONDS_MAX: u64 = 315_360_000;
/// Consumers to choose from.
const CHOICES_MAX: usize = 200;
