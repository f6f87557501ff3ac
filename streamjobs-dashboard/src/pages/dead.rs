//! Dead letters of a group in Redis: failures by kind, letters, and one letter in detail.

use std::collections::BTreeMap;

use axum::extract::Path;
use axum::response::Response;
use maud::{Markup, html};
use streamjobs::dead_letter::DeadLetterSummary;
use streamjobs::stream::EntryAddress;
use streamjobs::{EntryId, EventId};

use crate::access::Action;
use crate::fault::Fault;
use crate::form::{Fields, GroupQuery};
use crate::format::{self, Untrusted};
use crate::layout::{Button, View, button, empty, select, select_all, token};
use crate::live;
use crate::pages::retries::error;
use crate::pages::{attempts, event_link, group};
use crate::request::RequestContext;

pub(crate) async fn show(ctx: RequestContext, asked: GroupQuery) -> Response {
    live::render_or_follow(ctx, asked, |ctx, asked| Box::pin(view(ctx, asked))).await
}

/// Which letters to show or change: those of one kind, those of one reason, or all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LetterFilter {
    pub(crate) reason: Option<String>,
    pub(crate) fingerprint: Option<String>,
}

impl LetterFilter {
    pub(crate) fn of(asked: &Fields) -> Self {
        let text = |name| asked.get(name).map(str::to_owned);
        Self { reason: text("reason"), fingerprint: text("fingerprint") }
    }

    pub(crate) fn includes(&self, letter: &DeadLetterSummary) -> bool {
        self.reason.as_deref().is_none_or(|reason| letter.reason.as_str() == reason)
            && self.fingerprint.as_deref().is_none_or(|print| letter.fingerprint() == print)
    }

    pub(crate) fn is_all(&self) -> bool {
        self.reason.is_none() && self.fingerprint.is_none()
    }

    pub(crate) fn pairs(&self) -> Vec<(&str, &str)> {
        let pairs = [("reason", &self.reason), ("fingerprint", &self.fingerprint)];
        pairs.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

/// A stream, a group, and the id of a letter.
type LetterPath = (String, String, String);

/// One kind of failure among the scanned letters.
struct Kind<'a> {
    letters: usize,
    newest: &'a DeadLetterSummary,
}

async fn view(ctx: &RequestContext, asked: &GroupQuery) -> Result<View, Fault> {
    let GroupQuery { stream, group: name, fields: asked } = asked;
    let group = ctx.state.group(stream, name)?;
    let (before, size, filter) = (asked.id("before")?, asked.page_size()?, LetterFilter::of(asked));
    let page = group.dead_letters().newest_summaries(before, SCANNED).await?;
    let count = group.info().await?.dead_letters;
    let listed = page.letters.iter().filter(|letter| filter.includes(letter)).take(size);
    let listed = listed.collect::<Vec<_>>();
    // The next page starts after the last letter shown, or after the last letter scanned.
    let next = match listed.last() {
        Some(last) if listed.len() == size => Some(last.address()),
        _ => page.next,
    };
    let body = html! {
        h1 { "Dead letters of " (Untrusted(name)) }
        p.soft {
            (format::known(count, "The key for dead letters has another type.")) " in Redis"
            @if ctx.state.has_archive() { "; archived ones are in the " a href=(ctx.base.to(&["archive"])) { "archive" } }
            "."
        }
        (kinds(ctx, stream, name, &page.letters, &filter))
        @if page.next.is_some() { p.soft { "Kinds are counted in the newest " (format::count(page.letters.len() as u64)) " letters." } }
        h2 { "Letters" }
        @if !filter.is_all() { p { a href=(ctx.base.to(&path(stream, name))) { "Show all letters" } } }
        (list(ctx, stream, name, &listed, &filter))
        @if let Some(next) = next {
            @let id = next.to_string();
            @let query = [filter.pairs(), vec![("before", id.as_str())]].concat();
            p.more { a rel="next" href=(ctx.base.with_query(&path(stream, name), &query)) { "Older letters" } }
        }
    };
    Ok(View {
        title: "Dead letters".to_owned(),
        trail: group::trail_below(ctx, stream, name),
        body,
    })
}

pub(crate) fn path<'a>(stream: &'a str, group: &'a str) -> [&'a str; 5] {
    ["streams", stream, "groups", group, "dead"]
}

pub(crate) fn below<'a>(stream: &'a str, group: &'a str, last: &'a str) -> [&'a str; 6] {
    ["streams", stream, "groups", group, "dead", last]
}

fn kinds(
    ctx: &RequestContext,
    stream: &str,
    group: &str,
    letters: &[DeadLetterSummary],
    filter: &LetterFilter,
) -> Markup {
    let (mut kinds, mut reasons) =
        (BTreeMap::<String, Kind<'_>>::new(), BTreeMap::<_, usize>::new());
    for letter in letters {
        let newest = Kind { letters: 0, newest: letter };
        kinds.entry(letter.fingerprint().to_owned()).or_insert(newest).letters += 1;
        *reasons.entry(letter.reason.as_str()).or_default() += 1;
    }
    let mut kinds = kinds.into_iter().collect::<Vec<_>>();
    kinds.sort_by_key(|(_, kind)| std::cmp::Reverse(kind.letters));
    html! {
        @if !kinds.is_empty() {
            p #reasons { @for (reason, count) in reasons {
                a href=(ctx.base.with_query(&path(stream, group), &[("reason", reason)])) { (reason) } ": " (count) "  "
            } }
            div.scroll tabindex="0" role="region" aria-label="Kinds of failure" { table #kinds {
                thead { tr { th.number scope="col" { "Letters" } th scope="col" { "Reason" } th scope="col" { "Type" } th scope="col" { "Latest error" } th scope="col" { "Last seen" } th scope="col" { span.hidden { "Action" } } } }
                tbody { @for (fingerprint, kind) in kinds.iter().take(KINDS_SHOWN) {
                    tr data-fingerprint=(fingerprint) {
                        td.number { a href=(ctx.base.with_query(&path(stream, group), &[("fingerprint", fingerprint)])) { (kind.letters) } }
                        td { (kind.newest.reason.as_str()) }
                        td { (Untrusted(kind.newest.event_type.as_deref().unwrap_or("unknown"))) }
                        td { (error(ctx, kind.newest.error.as_deref())) }
                        td { (format::when(kind.newest.id.milliseconds())) }
                        td { (dry_runs(ctx, stream, group, &[("fingerprint", fingerprint)])) }
                    }
                } }
            } }
        }
        @if filter.is_all() && !letters.is_empty() {
            div.actions { (dry_runs(ctx, stream, group, &[])) }
        } @else if !filter.is_all() {
            div.actions { (dry_runs(ctx, stream, group, &filter.pairs())) }
        }
    }
}

/// Buttons that start a dry run on several letters.
fn dry_runs(ctx: &RequestContext, stream: &str, group: &str, fields: &[(&str, &str)]) -> Markup {
    let fields = [fields, &[("dry_run", "1")]].concat();
    let redrive = Button { text: "Redrive all…", fields: &fields, ..Button::default() };
    let purge = Button { text: "Purge all…", fields: &fields, danger: true, ..Button::default() };
    html! {
        (button(ctx, Action::Redrive, &ctx.base.to(&below(stream, group, "redrive")), &redrive))
        (button(ctx, Action::Purge, &ctx.base.to(&below(stream, group, "purge")), &purge))
    }
}

fn list(
    ctx: &RequestContext,
    stream: &str,
    group: &str,
    letters: &[&DeadLetterSummary],
    filter: &LetterFilter,
) -> Markup {
    let may = ctx.access.may(Action::Redrive) || ctx.access.may(Action::Purge);
    html! {
        @if letters.is_empty() {
            (empty(if filter.is_all() { "No dead letters." } else { "No letters on this page match the filter." }))
        } @else {
            form method="post" {
                (token(ctx))
                @if may { div.actions {
                    @if ctx.access.may(Action::Redrive) {
                        button type="submit" formaction=(ctx.base.to(&below(stream, group, "redrive"))) { "Redrive selected" }
                    }
                    @if ctx.access.may(Action::Purge) {
                        button.danger type="submit" formaction=(ctx.base.to(&below(stream, group, "purge")))
                            data-confirm="Delete the selected dead letters? This cannot be undone." { "Purge selected" }
                    }
                } }
                div.scroll tabindex="0" role="region" aria-label="Letters" { table {
                    thead { tr {
                        @if may { th scope="col" { (select_all("Select all letters on this page")) } }
                        th scope="col" { "Letter" } th scope="col" { "Dead-lettered" } th scope="col" { "Event" } th scope="col" { "Reason" } th scope="col" { "Type" } th.number scope="col" { "Attempts" } th.number scope="col" { "Payload" } th scope="col" { "Error" }
                    } }
                    tbody { @for letter in letters { (row(ctx, stream, group, letter, may)) } }
                } }
            }
        }
    }
}

fn row(
    ctx: &RequestContext,
    stream: &str,
    group: &str,
    letter: &DeadLetterSummary,
    may: bool,
) -> Markup {
    let id = letter.address().to_string();
    html! {
        tr id={ "d-" (id) } data-letter=(id) {
            @if may { td { (select(&id, "Letter ")) } }
            td.id { a href=(ctx.base.to(&below(stream, group, &id))) { (id) } }
            td { (format::when(letter.id.milliseconds())) }
            td.id { (event_link(ctx, stream, letter.event_id.as_ref(), letter.origin, letter.partition)) }
            td { span.state.bad { (letter.reason.as_str()) } }
            td { (Untrusted(letter.event_type.as_deref().unwrap_or("unknown"))) }
            td.number { (letter.attempts) }
            td.number { (format::size(letter.payload_bytes)) }
            td { (error(ctx, letter.error.as_deref())) }
        }
    }
}

/// The event of a letter, linked by its published entry if that is known.
fn event_link(
    ctx: &RequestContext,
    stream: &str,
    id: Option<&EventId>,
    origin: Option<EntryId>,
    partition: Option<u16>,
) -> Markup {
    let entry = origin.map(|id| EntryAddress { id, partition });
    event_link::link(ctx, stream, id.map(EventId::as_str), entry)
}

/// One letter with all its details.
pub(crate) async fn one(ctx: RequestContext, Path(letter): Path<LetterPath>) -> Response {
    live::render_or_follow(ctx, letter, |ctx, letter| Box::pin(one_view(ctx, letter))).await
}

async fn one_view(ctx: &RequestContext, (stream, name, id): &LetterPath) -> Result<View, Fault> {
    let id = id.parse::<EntryAddress>().map_err(|_| Fault::bad_request("Invalid entry id."))?;
    let letter = ctx.state.group(stream, name)?.dead_letters().get(id).await?;
    let id = letter.address();
    let text = id.to_string();
    let fields = [("id", text.as_str())];
    let redrive = Button { text: "Redrive", fields: &fields, ..Button::default() };
    let purge = Button {
        text: "Purge",
        fields: &fields,
        confirm: Some("Delete this dead letter? This cannot be undone."),
        danger: true,
    };
    let unknown = || "unknown".to_owned();
    let body = html! {
        h1 { "Dead letter " (text) }
        div.actions {
            (button(ctx, Action::Redrive, &ctx.base.to(&below(stream, name, "redrive")), &redrive))
            (button(ctx, Action::Purge, &ctx.base.to(&below(stream, name, "purge")), &purge))
        }
        dl.fields {
            dt { "Reason" } dd { (letter.reason.as_str()) }
            dt { "Error" } dd { (error(ctx, letter.error.as_deref())) }
            dt { "Kind" } dd { code { (letter.fingerprint()) } }
            dt { "Attempts" } dd { (letter.attempts) " failed; delivered " (letter.delivery_count) " times" }
            dt { "Original entry" } dd { (letter.origin.map_or_else(unknown, |id| id.to_string())) }
            dt { "Last entry" } dd { (letter.entry_id.map_or_else(unknown, |id| id.to_string())) }
            dt { "Event id" } dd { (event_link(ctx, stream, letter.event_id.as_ref(), letter.origin, id.partition)) }
            dt { "Consumer" } dd { (Untrusted(letter.consumer.as_deref().unwrap_or("unknown"))) }
            dt { "First delivered" } dd { (letter.first_delivery.map_or_else(|| html! { "unknown" }, format::when_exactly)) }
            dt { "Last delivered" } dd { (letter.last_delivery.map_or_else(|| html! { "unknown" }, format::when_exactly)) }
            dt { "Dead-lettered" } dd { (format::when_exactly(id.id.milliseconds())) }
        }
        (attempts::past(ctx, &html! { "Attempts" }, &letter.history))
        h2 { "Event" }
        @if letter.fields.is_empty() {
            (empty("The payload was trimmed from the stream. The job cannot be redriven."))
        } @else {
            (ctx.state.redactor.show(&ctx.access, stream, &letter.fields))
        }
    };
    let mut trail = group::trail_below(ctx, stream, name);
    trail.push(("Dead letters".to_owned(), ctx.base.to(&path(stream, name))));
    Ok(View { title: text, trail, body })
}

/// How many letters one page reads to count kinds: fewer if they are large.
pub(crate) const SCANNED: usize = 500;
const KINDS_SHOWN: usize = 50;
