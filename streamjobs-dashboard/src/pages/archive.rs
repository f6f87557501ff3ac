//! The archive of dead letters in Postgres: kinds of failures, letters, and what was put back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Path, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use streamjobs_postgres::letters::{
    ArchivedLetter, DeadLetters, KindCount, LetterId, LetterState, QueryError, Redrive,
    RedriveState, Selection,
};

use crate::access::Action;
use crate::fault::Fault;
use crate::form::Fields;
use crate::format::{self, Foreign};
use crate::layout::{Button, View, button, nothing, token};
use crate::live;
use crate::pages::retries::error;
use crate::state::{Shared, State as All};
use crate::visit::Visit;

pub(crate) async fn show(
    State(state): State<Shared>,
    visit: Visit,
    Query(asked): Query<Vec<(String, String)>>,
) -> Response {
    live::show(visit, state, Fields(asked), |state, visit, asked| async move {
        view(&state, &visit, &asked).await
    })
    .await
}

/// The letters that an address, or a form, asks for.
pub(crate) fn selection(asked: &Fields) -> Selection {
    let mut selection = Selection::new();
    if let Some(stream) = asked.get("stream") {
        selection = selection.stream(stream);
    }
    if let Some(group) = asked.get("group") {
        selection = selection.group(group);
    }
    if let Some(event_type) = asked.get("type") {
        selection = selection.event_type(event_type);
    }
    if let Some(fingerprint) = asked.get("fingerprint") {
        selection = selection.fingerprint(fingerprint);
    }
    if let Some(text) = asked.get("error") {
        selection = selection.error_contains(text);
    }
    selection
}

/// The names of what can be asked for.
pub(crate) const FILTERS: [&str; 5] = ["stream", "group", "type", "fingerprint", "error"];

pub(crate) fn letters(state: &All) -> Result<DeadLetters, Fault> {
    let archive = state.archive.as_ref().map(streamjobs_postgres::Postgres::dead_letters);
    archive.ok_or_else(|| Fault::not_found("This dashboard has no archive."))
}

impl From<QueryError> for Fault {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Selection(_) => Self::bad_request("That cannot be asked for."),
            error => Self::unavailable(Self::in_words(&error)),
        }
    }
}

/// What the database has to answer within.
pub(crate) async fn in_time<T, E: Into<Fault>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(ANSWER_MAX, work).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(Fault::unavailable("The database did not answer within 5 s.")),
    }
}

async fn view(state: &All, visit: &Visit, asked: &Fields) -> Result<View, Fault> {
    let letters = letters(state)?;
    let (chosen, size) = (selection(asked), asked.page_size()?);
    let listed = match asked.get("state") {
        Some("redriven") => chosen.clone().state(LetterState::Redriven),
        Some("known_done") => chosen.clone().state(LetterState::KnownDone),
        Some("all") => chosen.clone().state(LetterState::All),
        _ => chosen.clone(),
    };
    let before = asked.get("before").map(str::parse::<LetterId>).transpose();
    let before = before.map_err(|_| Fault::bad_request("That is no number of a letter."))?;
    let kinds = in_time(letters.counts_by_fingerprint(&chosen)).await?;
    let page = in_time(letters.list(&listed, before, size)).await?;
    let redrives = in_time(letters.redrives(None, REDRIVES_SHOWN)).await?;
    let body = html! {
        h1 { "Archive of dead letters" }
        (filter(visit, asked))
        (kinds_table(visit, asked, &kinds))
        h2 { "Letters" }
        (list(visit, &page.letters))
        @if let Some(next) = page.next {
            @let id = next.to_string();
            @let query = [pairs(asked, &["state"]), vec![("before", id.as_str())]].concat();
            p.more { a rel="next" href=(visit.base.with_query(&["archive"], &query)) { "Older letters" } }
        }
        h2 { "Redrives" }
        (redrives_table(visit, &redrives))
    };
    let trail = vec![("Overview".to_owned(), visit.base.root())];
    Ok(View { title: "Archive".to_owned(), trail, body })
}

/// What was asked for, to be asked for again.
pub(crate) fn pairs<'a>(asked: &'a Fields, beside: &[&'static str]) -> Vec<(&'a str, &'a str)> {
    let names = FILTERS.iter().chain(beside);
    names.filter_map(|name| Some((*name, asked.get(name)?))).collect()
}

fn filter(visit: &Visit, asked: &Fields) -> Markup {
    let state = asked.get("state").unwrap_or("open");
    html! {
        form.filter method="get" action=(visit.base.to(&["archive"])) data-keep {
            @for (name, label) in [("stream", "Stream"), ("group", "Group"), ("type", "Type"), ("error", "Error contains"), ("fingerprint", "Kind")] {
                label { (label) input name=(name) value=[asked.get(name)] maxlength="300"; }
            }
            label { "State" select name="state" {
                @for (value, text) in [("open", "open"), ("redriven", "redriven"), ("known_done", "done all the same"), ("all", "all")] {
                    option value=(value) selected[value == state] { (text) }
                }
            } }
            button type="submit" { "Show" }
        }
    }
}

fn kinds_table(visit: &Visit, asked: &Fields, kinds: &[KindCount]) -> Markup {
    let all = kinds.iter().map(|kind| kind.letters).sum::<u64>();
    html! {
        p.soft { span #open { (format::count(all)) } " open letters of " (kinds.len()) " kinds." }
        @if kinds.is_empty() {
            (nothing("No letter is open that is what was asked for."))
        } @else {
            div.actions { (plan_button(visit, "Redrive all of these…", &pairs(asked, &[]))) }
            div.scroll { table #kinds {
                thead { tr { th.number { "Letters" } th { "Group" } th { "Reason" } th { "Type" } th { "Last error of this kind" } th { "Last" } th {} } }
                tbody { @for kind in kinds.iter().take(KINDS_SHOWN) {
                    tr data-fingerprint=(kind.fingerprint) {
                        td.number { (format::count(kind.letters)) }
                        td { (Foreign(&kind.group)) " on " (Foreign(&kind.stream)) }
                        td { (Foreign(&kind.reason)) }
                        td { (Foreign(kind.event_type.as_deref().unwrap_or("unknown"))) }
                        td { (error(visit, kind.error.as_deref())) }
                        td { (moment(kind.last_seen)) }
                        td { (plan_button(visit, "Redrive…", &[
                            ("fingerprint", &kind.fingerprint), ("stream", &kind.stream), ("group", &kind.group),
                        ])) }
                    }
                } }
            } }
        }
    }
}

fn plan_button(visit: &Visit, text: &str, chosen: &[(&str, &str)]) -> Markup {
    let fields = [chosen, &[("dry_run", "1")]].concat();
    let plan = Button { text, fields: &fields, ..Button::default() };
    button(visit, Action::Redrive, &visit.base.to(&["archive", "redrive"]), &plan)
}

fn list(visit: &Visit, letters: &[ArchivedLetter]) -> Markup {
    html! {
        @if letters.is_empty() {
            (nothing("There is none that is what was asked for."))
        } @else {
            form method="post" {
                (token(visit))
                @if visit.access.may(Action::Redrive) { div.actions {
                    label { "Why " input name="why" maxlength="200" placeholder="the bank is back, ticket 4711"; }
                    button type="submit" formaction=(visit.base.to(&["archive", "redrive"])) { "Redrive the chosen" }
                } }
                div.scroll { table {
                    thead { tr {
                        @if visit.access.may(Action::Redrive) { th { input type="checkbox" data-all="id" aria-label="All letters of this page"; } }
                        th { "Letter" } th { "Buried" } th { "Group" } th { "Reason" } th { "Type" } th.number { "Attempts" } th { "Error" } th { "State" }
                    } }
                    tbody { @for letter in letters { (row(visit, letter)) } }
                } }
            }
        }
    }
}

fn row(visit: &Visit, letter: &ArchivedLetter) -> Markup {
    let id = letter.id.to_string();
    html! {
        tr id={ "l-" (id) } data-letter=(id) {
            @if visit.access.may(Action::Redrive) { td { input type="checkbox" name="id" value=(id) aria-label={ "Letter " (id) }; } }
            td.id { a href=(visit.base.to(&["archive", &id])) { (id) } }
            td { (moment(letter.dead_lettered_at)) }
            td { (Foreign(&letter.group)) " on " (Foreign(&letter.stream)) }
            td { (Foreign(&letter.reason)) }
            td { (Foreign(letter.event_type.as_deref().unwrap_or("unknown"))) }
            td.number { (letter.attempts) }
            td { (error(visit, letter.error.as_deref())) }
            td { (state_of(letter)) }
        }
    }
}

fn state_of(letter: &ArchivedLetter) -> Markup {
    let (word, kind) = match letter.state() {
        LetterState::Redriven => ("redriven", ""),
        LetterState::KnownDone => ("done all the same", ""),
        _ => ("open", "bad"),
    };
    html! { span class={ "state " (kind) } { (word) } }
}

fn redrives_table(visit: &Visit, redrives: &[Redrive]) -> Markup {
    html! {
        @if redrives.is_empty() {
            (nothing("Nothing was put back from the archive yet."))
        } @else {
            div.scroll { table #redrives {
                thead { tr { th { "Asked" } th { "By" } th { "Why" } th { "State" } th.number { "Put back" } th.number { "Failed" } th.number { "Skipped" } th.number { "Waiting" } th {} } }
                tbody { @for redrive in redrives {
                    tr data-redrive=(redrive.id) {
                        td { (moment(redrive.requested_at)) }
                        td { (Foreign(&redrive.by)) }
                        td { (Foreign(&redrive.why)) }
                        td { (redrive_state(redrive.state)) }
                        td.number { (format::count(redrive.done)) }
                        td.number { (format::count(redrive.failed)) }
                        td.number { (format::count(redrive.skipped)) }
                        td.number { (format::count(redrive.waiting())) }
                        td { @if redrive.waiting() > 0 && redrive.state != RedriveState::Cancelled {
                            @let id = redrive.id.to_string();
                            (button(visit, Action::Redrive, &visit.base.to(&["archive", "resume"]),
                                &Button { text: "Go on", fields: &[("redrive", &id)], ..Button::default() }))
                        } }
                    }
                } }
            } }
        }
    }
}

fn redrive_state(state: RedriveState) -> &'static str {
    match state {
        RedriveState::Running => "under way, or interrupted",
        RedriveState::Finished => "finished",
        RedriveState::Stopped => "stopped by failures",
        RedriveState::Cancelled => "called off",
        _ => "unknown",
    }
}

/// One letter, with everything that is known of it.
pub(crate) async fn one(
    State(state): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
) -> Response {
    live::show(
        visit,
        state,
        id,
        |state, visit, id| async move { one_view(&state, &visit, &id).await },
    )
    .await
}

async fn one_view(state: &All, visit: &Visit, id: &str) -> Result<View, Fault> {
    let letters = letters(state)?;
    let id = id.parse::<LetterId>();
    let id = id.map_err(|_| Fault::bad_request("That is no number of a letter."))?;
    let letter = in_time(letters.get(id)).await?;
    let letter = letter.ok_or_else(|| Fault::not_found("The archive has no such letter."))?;
    let text = id.to_string();
    let fields = [("id", text.as_str())];
    let redrive = Button { text: "Redrive", fields: &fields, ..Button::default() };
    let forget = Button {
        text: "Forget this event",
        fields: &fields,
        confirm: Some("Delete everything that the archive knows of this event, for good?"),
        danger: true,
    };
    let when = |time: Option<SystemTime>| time.map_or("unknown".into(), moment);
    let body = html! {
        h1 { "Letter " (text) " " (state_of(&letter)) }
        div.actions {
            @if letter.state() == LetterState::Open { (button(visit, Action::Redrive, &visit.base.to(&["archive", "redrive"]), &redrive)) }
            @if letter.event_id.is_some() { (button(visit, Action::Purge, &visit.base.to(&["archive", "forget"]), &forget)) }
        }
        dl.fields {
            dt { "Group" } dd { (Foreign(&letter.group)) " on " (Foreign(&letter.stream)) }
            dt { "Reason" } dd { (Foreign(&letter.reason)) }
            dt { "Error" } dd { (error(visit, letter.error.as_deref())) }
            dt { "Kind" } dd { a href=(visit.base.with_query(&["archive"], &[("fingerprint", &letter.fingerprint)])) { code { (letter.fingerprint) } } }
            dt { "Attempts" } dd { (letter.attempts) " failed; delivered " (letter.deliveries) " times" }
            dt { "Event id" } dd { (Foreign(letter.event_id.as_deref().unwrap_or("unknown"))) }
            dt { "Published as" } dd { (letter.origin.map_or("unknown".into(), |origin| origin.to_string())) ", " (when(letter.published_at)) }
            dt { "Consumer" } dd { (Foreign(letter.consumer.as_deref().unwrap_or("unknown"))) }
            dt { "First taken up" } dd { (when(letter.first_delivery)) }
            dt { "Last taken up" } dd { (when(letter.last_delivery)) }
            dt { "Buried" } dd { (moment(letter.dead_lettered_at)) }
            dt { "Archived" } dd { (moment(letter.archived_at)) }
            @if letter.redriven_at.is_some() { dt { "Put back" } dd { (when(letter.redriven_at)) } }
        }
        h2 { "The event" }
        @if letter.fields().is_empty() {
            (nothing("Its payload was trimmed away: it cannot be run again."))
        } @else {
            (state.redactor.show(&visit.access, &letter.stream, letter.fields()))
        }
    };
    let archive = ("Archive".to_owned(), visit.base.to(&["archive"]));
    let trail = vec![("Overview".to_owned(), visit.base.root()), archive];
    Ok(View { title: text, trail, body })
}

fn moment(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    format::moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

const ANSWER_MAX: Duration = Duration::from_secs(5);
const KINDS_SHOWN: usize = 50;
const REDRIVES_SHOWN: usize = 10;
