//! One stream: its size, its newest entries, and its history.

use axum::extract::{Path, Query};
use axum::response::Response;
use maud::{Markup, html};
use streamjobs::EntryId;
use streamjobs::stream::{EntryAddress, EntryPreview, Range};

use crate::fault::Fault;
use crate::form::Fields;
use crate::format::{self, Untrusted};
use crate::layout::{View, empty, fault_box};
use crate::live;
use crate::pages::fleet::{self, FleetPage};
use crate::pages::{event_link, partitions};
use crate::payload::SHOWN_MAX;
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
    let stream = ctx.state.stream(name)?;
    let info = stream.info().await?;
    let newest = stream.newest_previews(TAIL, SHOWN_MAX).await?;
    let scheduled = ctx.state.scheduled(name)?.count().await?;
    let snapshot = ctx.state.sampler.sample().await;
    let sampled = snapshot.stream(name);
    let parts =
        partitions::read(&stream, usize::try_from(info.groups).unwrap_or(usize::MAX)).await?;
    let published = sampled.and_then(|found| found.published);
    let groups = FleetPage { ctx, path: &["streams", name], stream: Some(name), asked };
    let body = html! {
        h1 { "Stream " (Untrusted(name)) }
        dl.tiles {
            div { dt { "Entries" } dd #length { (format::count(info.length)) } }
            div { dt { "Added in total" } dd #added { (format::count(info.added)) } }
            div { dt { "Published" } dd { (published.map_or("–".into(), format::rate)) } }
            div { dt { "Groups" } dd { (info.groups) } }
            @let count = stream.partitions().len();
            @if count > 1 { div { dt { "Partitions" } dd #parts { (count) } } }
            div { dt { "Scheduled" } dd { a #scheduled href=(ctx.base.to(&["streams", name, "scheduled"])) { (format::count(scheduled)) } } }
            div { dt { "Schedules" } dd { a href=(ctx.base.to(&["streams", name, "schedules"])) { "show" } } }
            div { dt { "Memory" } dd { (info.bytes.map_or("–".into(), format::size)) } }
        }
        dl.fields {
            dt { "First entry" } dd #first { (info.first.map_or("none".into(), |id| id.to_string())) }
            dt { "Last entry" } dd #last { (info.last.map_or("none".into(), |id| id.to_string())) }
            dt { "Last generated id" } dd { (info.last_id.to_string()) }
        }
        h2 { "Groups" }
        @if let Some(fault) = snapshot.failure(name) { (fault_box(fault)) }
        @if sampled.is_some() { (fleet::section(groups, &snapshot)?) }
        (partitions::table(&parts))
        h2 { "Find an event" }
        (event_link::search(ctx, name, ""))
        (event_link::find(ctx, name, ""))
        h2 { "Replay" }
        (replay_form(ctx, name, &Fields::default()))
        h2 { "Newest entries" }
        (entries(ctx, name, &newest.entries))
    };
    Ok(View { title: name.to_owned(), trail: trail(ctx), body })
}

/// A range of the history. Reading it changes no group and runs no handler.
pub(crate) async fn replay(
    ctx: RequestContext,
    Path(name): Path<String>,
    Query(asked): Query<Vec<(String, String)>>,
) -> Response {
    let asked = (name, Fields(asked));
    live::render_or_follow(ctx, asked, |ctx, asked| Box::pin(replay_view(ctx, asked))).await
}

async fn replay_view(
    ctx: &RequestContext,
    (name, asked): &(String, Fields),
) -> Result<View, Fault> {
    let stream = ctx.state.stream(name)?;
    let limit = asked.page_size()?;
    let range = range(asked)?;
    let found = stream.previews(range, limit, SHOWN_MAX).await?;
    let next = found.more_after;
    let found = found.entries;
    let end = asked.get("end").unwrap_or_default();
    let size = limit.to_string();
    let more = next.map(|id| {
        let start = format!("({id}");
        let query = [("start", start.as_str()), ("end", end), ("limit", size.as_str())];
        ctx.base.with_query(&["streams", name, "replay"], &query)
    });
    let mut trail = trail(ctx);
    trail.push((name.to_owned(), ctx.base.to(&["streams", name])));
    let body = html! {
        div data-still {}
        h1 { "History of " (Untrusted(name)) }
        p.soft { "Reading the history does not change any group and does not run handlers." }
        (event_link::search(ctx, name, ""))
        (replay_form(ctx, name, asked))
        @if found.is_empty() {
            (empty("No entries in this range."))
        } @else {
            (entries(ctx, name, &found))
            @if let Some(more) = more { p.more { a href=(more) rel="next" { "Next page" } } }
        }
    };
    Ok(View { title: "Replay".to_owned(), trail, body })
}

fn trail(ctx: &RequestContext) -> Vec<(String, String)> {
    vec![("Overview".to_owned(), ctx.base.root())]
}

fn replay_form(ctx: &RequestContext, name: &str, asked: &Fields) -> Markup {
    html! {
        form.filter method="get" action=(ctx.base.to(&["streams", name, "replay"])) data-keep {
            label { "From (entry id, milliseconds, or -)"
                input name="start" placeholder="-" value=[asked.get("start")] maxlength="70"; }
            label { "To (or +)" input name="end" placeholder="+" value=[asked.get("end")] maxlength="70"; }
            label { "Limit" input name="limit" type="number" min="1" max="200" value=(asked.get("limit").unwrap_or("20")); }
            button type="submit" { "Replay" }
        }
    }
}

/// The requested range, in the notation of Redis: `-` and `+` are the ends, `(` excludes an end,
/// and milliseconds without a sequence number include all entries of that millisecond.
fn range(asked: &Fields) -> Result<Range, Fault> {
    use std::ops::Bound;
    let bad = || Fault::bad_request("Give a range as entry ids, milliseconds, or - and +.");
    let bound = |text: Option<&str>, open: &str, fill: u64| -> Result<Bound<EntryAddress>, Fault> {
        let Some(text) = text.filter(|text| *text != open) else { return Ok(Bound::Unbounded) };
        let (text, excluded) = text.strip_prefix('(').map_or((text, false), |text| (text, true));
        let id = match text.parse::<u64>() {
            Ok(millis) => {
                EntryId::new(millis, if excluded { u64::MAX - fill } else { fill }).into()
            }
            Err(_) => text.parse::<EntryAddress>().map_err(|_| bad())?,
        };
        Ok(if excluded { Bound::Excluded(id) } else { Bound::Included(id) })
    };
    let start = bound(asked.get("start"), "-", 0)?;
    let end = bound(asked.get("end"), "+", u64::MAX)?;
    Ok(Range::from((start, end)))
}

/// A table of entries, with their fields in collapsed details.
pub(crate) fn entries(ctx: &RequestContext, stream: &str, entries: &[EntryPreview]) -> Markup {
    html! {
        @if entries.is_empty() {
            (empty("No entries."))
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Entries" {
                table {
                    thead { tr { th scope="col" { "Entry" } th scope="col" { "Added" } th scope="col" { "Type and fields" } } }
                    tbody { @for entry in entries {
                        tr id={ "e-" (entry.address()) } {
                            @let id = entry.address().to_string();
                            td.id { a href=(event_link::link_of(ctx, stream, &id)) title="What became of this event" { (id) } }
                            td { (format::when(entry.id.milliseconds())) }
                            td {
                                details {
                                    summary { (Untrusted(entry.event_type().unwrap_or("(no type)"))) }
                                    (ctx.state.redactor.show_preview(&ctx.access, stream, &entry.fields))
                                }
                            }
                        }
                    } }
                }
            }
        }
    }
}

const TAIL: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(start: &str, end: &str) -> Result<Range, Fault> {
        range(&Fields(vec![("start".into(), start.into()), ("end".into(), end.into())]))
    }

    #[test]
    fn a_range_is_read_as_redis_reads_it_and_invalid_ones_are_refused() {
        let id = |ms, seq| EntryId::new(ms, seq);
        assert_eq!(asked("-", "+"), Ok(Range::from(..)));
        assert_eq!(asked("", ""), Ok(Range::from(..)));
        assert_eq!(asked("5", "6"), Ok(Range::from(id(5, 0)..=id(6, u64::MAX))));
        assert_eq!(asked("1-2", "3-4"), Ok(Range::from(id(1, 2)..=id(3, 4))));
        for invalid in ["x", "(", "1-", "-1", "1-2-3", "'; drop table", "99999999999999999999999"] {
            assert!(asked(invalid, "+").is_err(), "{invalid}");
            assert!(asked("-", invalid).is_err(), "{invalid}");
        }
    }
}
