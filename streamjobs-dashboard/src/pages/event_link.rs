//! Links to the page of an event: the form, and links from lists.

use maud::{Markup, html};
use streamjobs::stream::EntryAddress;

use crate::format::Untrusted;
use crate::request::RequestContext;

/// The form that leads to the page of an event.
pub(crate) fn search(ctx: &RequestContext, stream: &str, id: &str) -> Markup {
    html! {
        form.filter method="get" action=(ctx.base.to(&["streams", stream, "event"])) data-keep {
            label { "Find an event by its id, or by that of its entry"
                input #event name="id" value=[Some(id).filter(|id| !id.is_empty())] maxlength="256"; }
            button type="submit" { "Find" }
        }
    }
}

/// The form that searches the entries of a stream for a text.
pub(crate) fn find(ctx: &RequestContext, stream: &str, text: &str) -> Markup {
    html! {
        form.filter method="get" action=(ctx.base.to(&["streams", stream, "find"])) data-keep {
            label { "Find entries by key, or by a text in the payload"
                input #text name="text" value=[Some(text).filter(|text| !text.is_empty())] maxlength="256"; }
            button type="submit" { "Search" }
        }
    }
}

/// An event id with a link to its page; `entry` is its entry in the stream, if that is known.
pub(crate) fn link(
    ctx: &RequestContext,
    stream: &str,
    id: Option<&str>,
    entry: Option<EntryAddress>,
) -> Markup {
    let Some(id) = id else { return html! { "unknown" } };
    let entry = entry.map(|entry| entry.to_string());
    let mut query = vec![("id", id)];
    query.extend(entry.as_deref().map(|entry| ("entry", entry)));
    let path = ["streams", stream, "event"];
    html! { a href=(ctx.base.with_query(&path, &query)) { (Untrusted(id)) } }
}

/// The address of the event of an entry.
pub(crate) fn link_of(ctx: &RequestContext, stream: &str, entry: &str) -> String {
    ctx.base.with_query(&["streams", stream, "event"], &[("id", entry)])
}
