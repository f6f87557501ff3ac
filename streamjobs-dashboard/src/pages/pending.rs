//! The pending entries of a group, page by page.

use std::time::Duration;

use axum::response::Response;
use maud::{Markup, html};
use streamjobs::stream::{ConsumerInfo, PendingEntry, PendingPage, PendingQuery};

use crate::access::Action;
use crate::fault::Fault;
use crate::form::{Fields, GroupQuery};
use crate::format::{self, Untrusted};
use crate::layout::{View, empty, select, select_all, token};
use crate::live;
use crate::pages::{event_link, group};
use crate::request::RequestContext;

pub(crate) async fn show(ctx: RequestContext, asked: GroupQuery) -> Response {
    live::render_or_follow(ctx, asked, |ctx, asked| Box::pin(view(ctx, asked))).await
}

async fn view(ctx: &RequestContext, asked: &GroupQuery) -> Result<View, Fault> {
    let GroupQuery { stream, group: name, fields: asked } = asked;
    let group = ctx.state.group(stream, name)?;
    let consumers = group.consumers().await?;
    let in_lane = asked.get("lane").is_some();
    let group = if in_lane { group.lane() } else { group };
    let page = filtered(group.pending(query(asked)?).await?, asked)?;
    let body = html! {
        h1 { "Pending entries of " (Untrusted(name)) }
        p.soft {
            "Delivered and not acknowledged. A live process renews its entries every third of a lease. \
             Entries that are idle for a whole lease are claimed by another process."
        }
        (filter(ctx, stream, name, asked))
        (entries(ctx, stream, name, &page, &consumers, in_lane))
        @if let Some(next) = page.next { p.more { a rel="next" href=(more(ctx, stream, name, asked, &next.to_string())) { "Next page" } } }
    };
    Ok(View { title: "Pending".to_owned(), trail: group::trail_below(ctx, stream, name), body })
}

/// Entries are read in order and filtered here, because the server's own filter scans the whole list. One page reads
/// a limited number of entries, so a filtered page can be empty although there are more entries.
fn query(asked: &Fields) -> Result<PendingQuery, Fault> {
    let is_filtered = asked.get("idle").is_some() || asked.get("deliveries").is_some();
    let limit = if is_filtered { SCANNED } else { asked.page_size()? };
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

/// The scanned entries that match, at most one page, and where the next page starts.
fn filtered(mut page: PendingPage, asked: &Fields) -> Result<PendingPage, Fault> {
    let size = asked.page_size()?;
    if let Some(seconds) = asked.number("idle", SECONDS_MAX)? {
        let idle = Duration::from_secs(seconds);
        page.entries.retain(|entry| entry.idle.is_none_or(|elapsed| elapsed >= idle));
    }
    if page.entries.len() > size {
        page.entries.truncate(size);
        page.next = page.entries.last().map(PendingEntry::address);
    }
    Ok(page)
}

fn path<'a>(stream: &'a str, group: &'a str) -> [&'a str; 5] {
    ["streams", stream, "groups", group, "pending"]
}

fn more(ctx: &RequestContext, stream: &str, group: &str, asked: &Fields, after: &str) -> String {
    let mut query = vec![("after", after)];
    for name in ["idle", "deliveries", "consumer", "lane", "limit"] {
        query.extend(asked.get(name).map(|value| (name, value)));
    }
    ctx.base.with_query(&path(stream, group), &query)
}

fn filter(ctx: &RequestContext, stream: &str, group: &str, asked: &Fields) -> Markup {
    html! {
        form.filter method="get" action=(ctx.base.to(&path(stream, group))) data-keep {
            label { "Idle for at least (s)" input name="idle" type="number" min="0" value=[asked.get("idle")]; }
            label { "Deliveries, at least" input name="deliveries" type="number" min="0" value=[asked.get("deliveries")]; }
            label { "Consumer" input name="consumer" value=[asked.get("consumer")] maxlength="300"; }
            label { "Location" select name="lane" {
                option value="" { "stream" }
                option value="1" selected[asked.get("lane").is_some()] { "lane (due retries, redriven jobs)" }
            } }
            button type="submit" { "Filter" }
        }
    }
}

fn entries(
    ctx: &RequestContext,
    stream: &str,
    group: &str,
    page: &PendingPage,
    consumers: &[ConsumerInfo],
    in_lane: bool,
) -> Markup {
    let may = ctx.access.may(Action::Claim) || ctx.access.may(Action::Release);
    let to = |action| {
        let [a, b, c, d, e] = path(stream, group);
        ctx.base.to(&[a, b, c, d, e, action])
    };
    html! {
        @if page.entries.is_empty() {
            @if page.next.is_some() {
                (empty("No matches among the entries scanned for this page. The next page scans further."))
            } @else {
                (empty("No pending entries match."))
            }
        } @else {
            form #entries method="post" {
                (token(ctx))
                @if in_lane { input type="hidden" name="lane" value="1"; }
                @if may { (actions(ctx, &to, consumers)) }
                div.scroll tabindex="0" role="region" aria-label="Pending entries" { table {
                    thead { tr {
                        @if may { th scope="col" { (select_all("Select all entries on this page")) } }
                        th scope="col" { "Entry" } th scope="col" { "Consumer" } th.number scope="col" { "Idle" } th.number scope="col" { "Deliveries" } th scope="col" { "Progress" }
                    } }
                    tbody { @for entry in &page.entries { (row(ctx, stream, entry, may, in_lane)) } }
                } }
            }
        }
    }
}

fn actions(
    ctx: &RequestContext,
    to: &dyn Fn(&'static str) -> String,
    consumers: &[ConsumerInfo],
) -> Markup {
    html! {
        div.actions {
            @if ctx.access.may(Action::Claim) {
                select name="consumer" aria-label="Target consumer" {
                    @for consumer in consumers.iter().take(CHOICES_MAX) {
                        option value=(consumer.name) { (Untrusted(&consumer.name)) " (" (consumer.liveness.as_str()) ")" }
                    }
                }
                button type="submit" formaction=(to("claim"))
                    data-confirm="Move the selected entries to this consumer? Handlers that are running for them lose their lease." {
                    "Claim for consumer"
                }
            }
            @if ctx.access.may(Action::Release) {
                button type="submit" formaction=(to("release"))
                    data-confirm="Release the selected entries? Any process can claim them at once; jobs that are running now may run twice." {
                    "Release"
                }
            }
        }
    }
}

fn row(
    ctx: &RequestContext,
    stream: &str,
    entry: &PendingEntry,
    may: bool,
    in_lane: bool,
) -> Markup {
    let id = entry.address().to_string();
    html! {
        tr id={ "p-" (id) } data-entry=(id) {
            @if may { td { (select(&id, "Entry ")) } }
            // The lane has ids of its own.
            td.id { @if in_lane { (id) } @else { a href=(event_link::link_of(ctx, stream, &id)) title="What became of this event" { (id) } } }
            td.id { @if entry.consumer.is_empty() { span.unknown { "released" } } @else { (Untrusted(&entry.consumer)) } }
            td.number { (entry.idle.map_or("–".into(), format::span)) }
            td.number { (format::count(entry.delivery_count)) }
            td { @if let Some(progress) = &entry.progress {
                (Untrusted(&progress.to_string())) " " span.soft { (format::span(progress.age)) " ago" }
            } }
        }
    }
}

/// How many pending entries one filtered page scans.
const SCANNED: usize = 1_000;
/// The longest time that can be asked for: ten years, so that the arithmetic cannot overflow.
const SECONDS_MAX: u64 = 315_360_000;
/// How many consumers the menu lists.
const CHOICES_MAX: usize = 200;
