//! The archive of dead letters in Postgres: failures by kind, letters, and redrives.

use std::time::{Duration, SystemTime};

use axum::extract::{Path, Query};
use axum::response::Response;
use maud::{Markup, html};
use streamjobs_postgres::letters::{
    ArchivedLetter, DeadLetters, KindsView, LetterId, LetterState, Page, QueryError, Redrive,
    RedriveState, Selection, View as ArchiveView,
};

use crate::access::Action;
use crate::fault::Fault;
use crate::form::Fields;
use crate::format::{self, Counted, Untrusted};
use crate::layout::{Button, View, button, empty, select, select_all, token};
use crate::live;
use crate::pages::retries::error;
use crate::pages::{attempts, event_link};
use crate::request::RequestContext;
use crate::state::State;

pub(crate) async fn show(
    ctx: RequestContext,
    Query(asked): Query<Vec<(String, String)>>,
) -> Response {
    live::render_or_follow(ctx, Fields(asked), |ctx, asked| Box::pin(view(ctx, asked))).await
}

/// The selection that the filter fields describe.
pub(crate) fn selection(asked: &Fields) -> Selection {
    let set = pairs(asked, &[]).into_iter();
    set.fold(Selection::new(), |selection, (name, value)| match name {
        "stream" => selection.stream(value),
        "group" => selection.group(value),
        "type" => selection.event_type(value),
        "fingerprint" => selection.fingerprint(value),
        _ => selection.error_contains(value),
    })
}

/// The names of the filter fields.
const FILTERS: [&str; 5] = ["stream", "group", "type", "fingerprint", "error"];

/// The archive with limits on its queries, for pages.
pub(crate) fn archive_view(state: &State) -> Result<ArchiveView, Fault> {
    Ok(letters(state)?.view())
}

/// The archive for actions.
pub(crate) fn letters(state: &State) -> Result<DeadLetters, Fault> {
    state
        .archive
        .clone()
        .ok_or_else(|| Fault::not_found("This dashboard is not connected to an archive."))
}

impl From<QueryError> for Fault {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Selection(_) => Self::bad_request("Invalid filter."),
            QueryError::Busy { .. } => Self::overloaded(format!("{error}. Try again in a moment.")),
            error => Self::archive(Self::error_chain(&error)),
        }
    }
}

/// Fails if the database does not answer within five seconds.
pub(crate) async fn in_time<T, E: Into<Fault>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(ANSWER_MAX, work).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(Fault::archive("The database did not answer within 5 s.")),
    }
}

async fn view(ctx: &RequestContext, asked: &Fields) -> Result<View, Fault> {
    let archive = archive_view(&ctx.state)?;
    let (selected, size) = (selection(asked), asked.page_size()?);
    let listed = match asked.get("state") {
        Some("redriven") => selected.clone().state(LetterState::Redriven),
        Some("known_done") => selected.clone().state(LetterState::KnownDone),
        Some("all") => selected.clone().state(LetterState::All),
        _ => selected.clone(),
    };
    let before = asked.get("before").map(str::parse::<LetterId>).transpose();
    let before = before.map_err(|_| Fault::bad_request("Invalid letter id."))?;
    let kinds = in_time(archive.kinds(&selected)).await?;
    let page = in_time(archive.list(&listed, before, size)).await?;
    let redrives = in_time(archive.redrives(REDRIVES_SHOWN)).await?;
    let body = html! {
        h1 { "Archive of dead letters" }
        (filter(ctx, asked))
        (kinds_table(ctx, asked, &kinds))
        h2 { "Letters" }
        (list(ctx, &page))
        @if let Some(next) = page.next {
            @let id = next.to_string();
            @let query = [pairs(asked, &["state"]), vec![("before", id.as_str())]].concat();
            p.more { a rel="next" href=(ctx.base.with_query(&["archive"], &query)) { "Older letters" } }
        }
        h2 { "Redrives" }
        (redrives_table(ctx, &redrives))
    };
    let trail = vec![("Overview".to_owned(), ctx.base.root())];
    Ok(View { title: "Archive".to_owned(), trail, body })
}

/// The filter fields that are set, for links and forms that keep them.
pub(crate) fn pairs<'a>(asked: &'a Fields, more: &[&'static str]) -> Vec<(&'a str, &'a str)> {
    let names = FILTERS.iter().chain(more);
    names.filter_map(|name| Some((*name, asked.get(name)?))).collect()
}

fn filter(ctx: &RequestContext, asked: &Fields) -> Markup {
    let state = asked.get("state").unwrap_or("open");
    html! {
        form.filter method="get" action=(ctx.base.to(&["archive"])) data-keep {
            @for (name, label) in [("stream", "Stream"), ("group", "Group"), ("type", "Type"), ("error", "Error contains"), ("fingerprint", "Kind")] {
                label { (label) input name=(name) value=[asked.get(name)] maxlength="300"; }
            }
            label { "State" select name="state" {
                @for (value, text) in [("open", "open"), ("redriven", "redriven"), ("known_done", "already done"), ("all", "all")] {
                    option value=(value) selected[value == state] { (text) }
                }
            } }
            button type="submit" { "Filter" }
        }
    }
}

fn kinds_table(ctx: &RequestContext, asked: &Fields, found: &KindsView) -> Markup {
    let all = Counted { number: found.letters, more: found.more };
    let kinds = &found.kinds;
    html! {
        p.soft {
            span #open { (all.text()) } " open letters, " (kinds.len()) " kinds of failure."
            @if found.more { " Only the newest " (format::count(LOOKED_AT)) " that match stream and group, or the kind, are counted here." }
        }
        @if kinds.is_empty() {
            (empty("No open letters match the filter."))
        } @else {
            div.actions { (dry_run_button(ctx, "Redrive all matching…", &pairs(asked, &[]))) }
            div.scroll tabindex="0" role="region" aria-label="Kinds of failure" { table #kinds {
                thead { tr { th.number scope="col" { "Letters" } th scope="col" { "Group" } th scope="col" { "Reason" } th scope="col" { "Type" } th scope="col" { "Latest error" } th scope="col" { "Last seen" } th scope="col" { span.hidden { "Action" } } } }
                tbody { @for kind in kinds.iter().take(KINDS_SHOWN) {
                    tr data-fingerprint=(kind.fingerprint) {
                        td.number { (format::count(kind.letters)) }
                        td { (Untrusted(&kind.group)) " on " (Untrusted(&kind.stream)) }
                        td { (Untrusted(&kind.reason)) }
                        td { (Untrusted(kind.event_type.as_deref().unwrap_or("unknown"))) }
                        td { (error(ctx, kind.error.as_deref())) }
                        td { (format::when_at(kind.last_seen)) }
                        td { (dry_run_button(ctx, "Redrive…", &[
                            ("fingerprint", &kind.fingerprint), ("stream", &kind.stream), ("group", &kind.group),
                        ])) }
                    }
                } }
            } }
        }
    }
}

fn dry_run_button(ctx: &RequestContext, text: &str, selected: &[(&str, &str)]) -> Markup {
    let fields = [selected, &[("dry_run", "1")]].concat();
    let plan = Button { text, fields: &fields, ..Button::default() };
    button(ctx, Action::Redrive, &ctx.base.to(&["archive", "redrive"]), &plan)
}

fn list(ctx: &RequestContext, Page { letters, next, .. }: &Page) -> Markup {
    html! {
        @if letters.is_empty() && next.is_some() {
            (empty("None of the letters that were examined matches the filter; older letters may match."))
        } @else if letters.is_empty() {
            (empty("No letters match the filter."))
        } @else {
            form method="post" {
                (token(ctx))
                @if ctx.access.may(Action::Redrive) { div.actions {
                    label { "Reason " input name="why" maxlength="200" placeholder="bank API is back, ticket 4711"; }
                    button type="submit" formaction=(ctx.base.to(&["archive", "redrive"])) { "Redrive selected" }
                } }
                div.scroll tabindex="0" role="region" aria-label="Letters" { table {
                    thead { tr {
                        @if ctx.access.may(Action::Redrive) { th scope="col" { (select_all("Select all letters on this page")) } }
                        th scope="col" { "Letter" } th scope="col" { "Dead-lettered" } th scope="col" { "Group" } th scope="col" { "Reason" } th scope="col" { "Type" } th.number scope="col" { "Attempts" } th scope="col" { "Error" } th scope="col" { "State" }
                    } }
                    tbody { @for letter in letters { (row(ctx, letter)) } }
                } }
            }
        }
    }
}

fn row(ctx: &RequestContext, letter: &ArchivedLetter) -> Markup {
    let id = letter.id.to_string();
    html! {
        tr id={ "l-" (id) } data-letter=(id) {
            @if ctx.access.may(Action::Redrive) { td { (select(&id, "Letter ")) } }
            td.id { a href=(ctx.base.to(&["archive", &id])) { (id) } }
            td { (format::when_at(letter.dead_lettered_at)) }
            td { (Untrusted(&letter.group)) " on " (Untrusted(&letter.stream)) }
            td { (Untrusted(&letter.reason)) }
            td { (Untrusted(letter.event_type.as_deref().unwrap_or("unknown"))) }
            td.number { (letter.attempts) }
            td { (error(ctx, letter.error.as_deref())) }
            td { (state_of(letter)) }
        }
    }
}

fn state_of(letter: &ArchivedLetter) -> Markup {
    let (word, kind) = match letter.state() {
        LetterState::Redriven => ("redriven", ""),
        LetterState::KnownDone => ("already done", ""),
        _ => ("open", "bad"),
    };
    html! { span class={ "state " (kind) } { (word) } }
}

fn redrives_table(ctx: &RequestContext, redrives: &[Redrive]) -> Markup {
    html! {
        @if redrives.is_empty() {
            (empty("No redrives yet."))
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Redrives" { table #redrives {
                thead { tr { th scope="col" { "Requested" } th scope="col" { "By" } th scope="col" { "Reason" } th scope="col" { "State" } th.number scope="col" { "Redriven" } th.number scope="col" { "Failed" } th.number scope="col" { "Skipped" } th.number scope="col" { "Waiting" } th scope="col" { span.hidden { "Action" } } } }
                tbody { @for redrive in redrives {
                    tr data-redrive=(redrive.id) {
                        td { (format::when_at(redrive.requested_at)) }
                        td { (Untrusted(&redrive.by)) }
                        td { (Untrusted(&redrive.why)) }
                        td { (redrive_state(redrive.state)) }
                        td.number { (format::count(redrive.done)) }
                        td.number { (format::count(redrive.failed)) }
                        td.number { (format::count(redrive.skipped)) }
                        td.number { (format::count(redrive.waiting())) }
                        td { @if redrive.waiting() > 0 && redrive.state != RedriveState::Cancelled {
                            @let id = redrive.id.to_string();
                            (button(ctx, Action::Redrive, &ctx.base.to(&["archive", "resume"]),
                                &Button { text: "Continue", fields: &[("redrive", &id)], ..Button::default() }))
                        } }
                    }
                } }
            } }
        }
    }
}

/// The event of a letter, with a link to its page if this dashboard shows the stream.
fn event_of(ctx: &RequestContext, letter: &ArchivedLetter) -> Markup {
    let id = letter.event_id.as_deref();
    match ctx.state.stream(&letter.stream) {
        Ok(_) => event_link::link(ctx, &letter.stream, id, letter.origin.map(Into::into)),
        Err(_) => html! { (Untrusted(id.unwrap_or("unknown"))) },
    }
}

fn redrive_state(state: RedriveState) -> &'static str {
    match state {
        RedriveState::Running => "running or interrupted",
        RedriveState::Finished => "finished",
        RedriveState::Stopped => "stopped after failures",
        RedriveState::Cancelled => "cancelled",
        _ => "unknown",
    }
}

/// One letter with all its details.
pub(crate) async fn one(ctx: RequestContext, Path(id): Path<String>) -> Response {
    live::render_or_follow(ctx, id, |ctx, id| Box::pin(one_view(ctx, id))).await
}

async fn one_view(ctx: &RequestContext, id: &str) -> Result<View, Fault> {
    let archive = archive_view(&ctx.state)?;
    let id = id.parse::<LetterId>();
    let id = id.map_err(|_| Fault::bad_request("Invalid letter id."))?;
    let letter = in_time(archive.get(id)).await?;
    let letter =
        letter.ok_or_else(|| Fault::not_found("The archive does not have this letter."))?;
    let text = id.to_string();
    let fields = [("id", text.as_str())];
    let redrive = Button { text: "Redrive", fields: &fields, ..Button::default() };
    let forget = Button {
        text: "Delete this event",
        fields: &fields,
        confirm: Some("Delete all letters of this event? This cannot be undone."),
        danger: true,
    };
    let when = |time: Option<SystemTime>| time.map_or_else(|| html! { "unknown" }, format::when_at);
    let body = html! {
        h1 { "Letter " (text) " " (state_of(&letter)) }
        div.actions {
            @if letter.state() == LetterState::Open { (button(ctx, Action::Redrive, &ctx.base.to(&["archive", "redrive"]), &redrive)) }
            @if letter.event_id.is_some() { (button(ctx, Action::Purge, &ctx.base.to(&["archive", "forget"]), &forget)) }
        }
        dl.fields {
            dt { "Group" } dd { (Untrusted(&letter.group)) " on " (Untrusted(&letter.stream)) }
            dt { "Reason" } dd { (Untrusted(&letter.reason)) }
            dt { "Error" } dd { (error(ctx, letter.error.as_deref())) }
            dt { "Kind" } dd { a href=(ctx.base.with_query(&["archive"], &[("fingerprint", &letter.fingerprint)])) { code { (letter.fingerprint) } } }
            dt { "Attempts" } dd { (letter.attempts) " failed; delivered " (letter.deliveries) " times" }
            dt { "Event id" } dd { (event_of(ctx, &letter)) }
            dt { "Original entry" } dd { (letter.origin.map_or("unknown".into(), |origin| origin.to_string())) ", " (when(letter.published_at)) }
            dt { "Consumer" } dd { (Untrusted(letter.consumer.as_deref().unwrap_or("unknown"))) }
            dt { "First delivered" } dd { (when(letter.first_delivery)) }
            dt { "Last delivered" } dd { (when(letter.last_delivery)) }
            dt { "Dead-lettered" } dd { (format::when_at(letter.dead_lettered_at)) }
            dt { "Archived" } dd { (format::when_at(letter.archived_at)) }
            @if letter.redriven_at.is_some() { dt { "Redriven" } dd { (when(letter.redriven_at)) } }
        }
        (attempts::past(ctx, &html! { "Attempts" }, letter.history()))
        h2 { "Event" }
        @if letter.fields().is_empty() {
            (empty("The payload was trimmed from the stream. The job cannot be redriven."))
        } @else {
            (ctx.state.redactor.show(&ctx.access, &letter.stream, letter.fields()))
        }
    };
    let archive = ("Archive".to_owned(), ctx.base.to(&["archive"]));
    let trail = vec![("Overview".to_owned(), ctx.base.root()), archive];
    Ok(View { title: text, trail, body })
}

const ANSWER_MAX: Duration = Duration::from_secs(5);
const KINDS_SHOWN: usize = 50;
/// As many letters as one view of the archive examines.
const LOOKED_AT: u64 = 10_000;
const REDRIVES_SHOWN: usize = 10;
