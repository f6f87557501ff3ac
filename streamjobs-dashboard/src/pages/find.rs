//! Entries of a stream that contain a text, searched from the newest backwards.

use axum::extract::{Path, Query};
use axum::response::Response;
use maud::{Markup, html};
use streamjobs::stream::{EntryPreview, SearchPage};

use crate::fault::Fault;
use crate::form::Fields;
use crate::format::{self, Untrusted};
use crate::layout::{View, empty};
use crate::live;
use crate::pages::event_link;
use crate::pages::stream::entries;
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
    let text = asked.get("text").unwrap_or_default();
    let found = match text.is_empty() {
        true => None,
        false => {
            // Text that the visitor may not see is not searched: a match would reveal it.
            let matches = |entry: &EntryPreview| {
                entry.address().to_string() == text
                    || ctx.state.redactor.contains(&ctx.access, name, &entry.fields, text)
            };
            Some(stream.search_by(asked.id("before")?, asked.page_size()?, matches).await?)
        }
    };
    let trail = vec![
        ("Overview".to_owned(), ctx.base.root()),
        (name.clone(), ctx.base.to(&["streams", name])),
    ];
    let body = html! {
        // A search costs more than other pages, so it is not repeated while the page is open.
        div data-still {}
        h1 { "Find entries of " (Untrusted(name)) }
        (event_link::find(ctx, name, text))
        @if !ctx.access.sees_payloads() {
            p.soft #without-payloads {
                "You do not have permission to see payloads, so they are not searched: only ids, types and keys are."
            }
        }
        @match &found {
            None => (empty("Give a part of a key, of an id, or of a payload.")),
            Some(found) => {
                @if found.entries.is_empty() {
                    (empty(match found.next {
                        Some(_) => "None of the entries that were compared contains it.",
                        None => "No entry contains it.",
                    }))
                } @else {
                    (entries(ctx, name, &found.entries))
                }
                (range(ctx, name, asked, text, found))
            },
        }
    };
    Ok(View { title: "Find".to_owned(), trail, body })
}

/// Which entries were searched, and where the search continues.
fn range(
    ctx: &RequestContext,
    name: &str,
    asked: &Fields,
    text: &str,
    found: &SearchPage,
) -> Markup {
    html! {
        p.soft #compared {
            (format::count(found.compared as u64)) " entries were compared, " (format::size(found.bytes))
            @if let Some(oldest) = found.oldest { ", back to " code { (oldest.to_string()) } ", " (format::when(oldest.id.milliseconds())) }
            @if found.next.is_none() { ": the beginning of the stream" }
            "."
            @if found.cut > 0 {
                " Of " (format::count(found.cut as u64)) " of them, only the beginning of a large value was compared."
            }
        }
        @if let Some(next) = found.next {
            @let before = next.to_string();
            @let limit = asked.get("limit").map(|limit| ("limit", limit));
            @let query = [("text", text), ("before", before.as_str())].into_iter().chain(limit).collect::<Vec<_>>();
            p.more { a rel="next" href=(ctx.base.with_query(&["streams", name, "find"], &query)) { "Search on from there" } }
        }
    }
}
