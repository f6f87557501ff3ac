//! The dead letters of a group that are in Redis: kinds of failures, letters, and one letter whole.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};
use streamjobs::EntryId;
use streamjobs::dead_letter::DeadLetter;

use crate::access::Action;
use crate::fault::Fault;
use crate::form::{Asked, Fields};
use crate::format::{self, Foreign};
use crate::layout::{Button, View, button, nothing, token};
use crate::live;
use crate::pages::group;
use crate::pages::retries::error;
use crate::state::{Shared, State as All};
use crate::visit::Visit;

pub(crate) async fn show(State(state): State<Shared>, visit: Visit, asked: Asked) -> Response {
    live::show(visit, state, asked, |state, visit, asked| async move {
        view(&state, &visit, &asked).await
    })
    .await
}

/// Which letters are meant: those of one kind, of one reason, or all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) reason: Option<String>,
    pub(crate) fingerprint: Option<String>,
}

impl Chosen {
    pub(crate) fn of(asked: &Fields) -> Self {
        let text = |name| asked.get(name).map(str::to_owned);
        Self { reason: text("reason"), fingerprint: text("fingerprint") }
    }

    pub(crate) fn includes(&self, letter: &DeadLetter) -> bool {
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

/// One kind of failure among the letters that were looked at.
struct Kind<'a> {
    letters: usize,
    newest: &'a DeadLetter,
}

async fn view(state: &All, visit: &Visit, asked: &Asked) -> Result<View, Fault> {
    let Asked { stream, group: name, fields: asked } = asked;
    let group = state.group(stream, name)?;
    let (before, size, chosen) = (asked.id("before")?, asked.page_size()?, Chosen::of(asked));
    let page = group.dead_letters().newest(before, LOOKED_AT).await?;
    let count = group.info().await?.dead_letters;
    let listed = page.letters.iter().filter(|letter| chosen.includes(letter)).take(size);
    let listed = listed.collect::<Vec<_>>();
    // The page ends with the last letter that it shows, or with the last that was looked at.
    let next = match listed.last() {
        Some(last) if listed.len() == size => Some(last.id),
        _ => page.next,
    };
    let body = html! {
        h1 { "Dead letters of " (Foreign(name)) }
        p.soft {
            (format::known(count, "Their key holds something else.")) " in Redis"
            @if state.has_archive() { "; those that have been stored are in the " a href=(visit.base.to(&["archive"])) { "archive" } }
            "."
        }
        (kinds(visit, stream, name, &page.letters, &chosen))
        @if page.next.is_some() { p.soft { "Kinds are counted among the newest " (format::count(LOOKED_AT as u64)) " of this page." } }
        h2 { "Letters" }
        @if !chosen.is_all() { p { a href=(visit.base.to(&path(stream, name))) { "Show all kinds" } } }
        (list(visit, stream, name, &listed, &chosen))
        @if let Some(next) = next {
            @let id = next.to_string();
            @let query = [chosen.pairs(), vec![("before", id.as_str())]].concat();
            p.more { a rel="next" href=(visit.base.with_query(&path(stream, name), &query)) { "Older letters" } }
        }
    };
    Ok(View {
        title: "Dead letters".to_owned(),
        trail: group::trail_below(visit, stream, name),
        body,
    })
}

pub(crate) fn path<'a>(stream: &'a str, group: &'a str) -> [&'a str; 5] {
    ["streams", stream, "groups", group, "dead"]
}

fn below<'a>(stream: &'a str, group: &'a str, last: &'a str) -> [&'a str; 6] {
    ["streams", stream, "groups", group, "dead", last]
}

fn kinds(
    visit: &Visit,
    stream: &str,
    group: &str,
    letters: &[DeadLetter],
    chosen: &Chosen,
) -> Markup {
    let (mut kinds, mut reasons) =
        (BTreeMap::<String, Kind<'_>>::new(), BTreeMap::<_, usize>::new());
    for letter in letters {
        let newest = Kind { letters: 0, newest: letter };
        kinds.entry(letter.fingerprint()).or_insert(newest).letters += 1;
        *reasons.entry(letter.reason.as_str()).or_default() += 1;
    }
    let mut kinds = kinds.into_iter().collect::<Vec<_>>();
    kinds.sort_by_key(|(_, kind)| std::cmp::Reverse(kind.letters));
    html! {
        @if !kinds.is_empty() {
            p #reasons { @for (reason, count) in reasons {
                a href=(visit.base.with_query(&path(stream, group), &[("reason", reason)])) { (reason) } ": " (count) "  "
            } }
            div.scroll { table #kinds {
                thead { tr { th.number { "Letters" } th { "Reason" } th { "Type" } th { "Newest error of this kind" } th { "Last" } th {} } }
                tbody { @for (fingerprint, kind) in kinds.iter().take(KINDS_SHOWN) {
                    tr data-fingerprint=(fingerprint) {
                        td.number { a href=(visit.base.with_query(&path(stream, group), &[("fingerprint", fingerprint)])) { (kind.letters) } }
                        td { (kind.newest.reason.as_str()) }
                        td { (Foreign(kind.newest.event_type().unwrap_or("unknown"))) }
                        td { (error(visit, kind.newest.error.as_deref())) }
                        td { (format::moment(kind.newest.id.milliseconds())) }
                        td { (all_of_it(visit, stream, group, fingerprint)) }
                    }
                } }
            } }
        }
        @if chosen.is_all() && !letters.is_empty() {
            div.actions { (dry_runs(visit, stream, group, &[])) }
        } @else if !chosen.is_all() {
            div.actions { (dry_runs(visit, stream, group, &chosen.pairs())) }
        }
    }
}

fn all_of_it(visit: &Visit, stream: &str, group: &str, fingerprint: &str) -> Markup {
    dry_runs(visit, stream, group, &[("fingerprint", fingerprint)])
}

/// What is done to many letters is shown before it is done.
fn dry_runs(visit: &Visit, stream: &str, group: &str, chosen: &[(&str, &str)]) -> Markup {
    let fields = [chosen, &[("dry_run", "1")]].concat();
    let redrive = Button { text: "Redrive all of these…", fields: &fields, ..Button::default() };
    let purge =
        Button {
            text: "Purge all of these…", fields: &fields, danger: true, ..Button::default()
        };
    html! {
        (button(visit, Action::Redrive, &visit.base.to(&below(stream, group, "redrive")), &redrive))
        (button(visit, Action::Purge, &visit.base.to(&below(stream, group, "purge")), &purge))
    }
}

fn list(
    visit: &Visit,
    stream: &str,
    group: &str,
    letters: &[&DeadLetter],
    chosen: &Chosen,
) -> Markup {
    let may = visit.access.may(Action::Redrive) || visit.access.may(Action::Purge);
    html! {
        @if letters.is_empty() {
            (nothing(if chosen.is_all() { "There is none: every job was done, or is still to be." } else { "None of this page is of that kind." }))
        } @else {
            form method="post" {
                (token(visit))
                @if may { div.actions {
                    @if visit.access.may(Action::Redrive) {
                        button type="submit" formaction=(visit.base.to(&below(stream, group, "redrive"))) { "Redrive the chosen" }
                    }
                    @if visit.access.may(Action::Purge) {
                        button.danger type="submit" formaction=(visit.base.to(&below(stream, group, "purge")))
                            data-confirm="Delete the chosen dead letters for good?" { "Purge the chosen" }
                    }
                } }
                div.scroll { table {
                    thead { tr {
                        @if may { th { input type="checkbox" data-all="id" aria-label="All letters of this page"; } }
                        th { "Letter" } th { "Buried" } th { "Reason" } th { "Type" } th.number { "Attempts" } th { "Error" }
                    } }
                    tbody { @for letter in letters { (row(visit, stream, group, letter, may)) } }
                } }
            }
        }
    }
}

fn row(visit: &Visit, stream: &str, group: &str, letter: &DeadLetter, may: bool) -> Markup {
    let id = letter.id.to_string();
    html! {
        tr id={ "d-" (id) } data-letter=(id) {
            @if may { td { input type="checkbox" name="id" value=(id) aria-label={ "Letter " (id) }; } }
            td.id { a href=(visit.base.to(&below(stream, group, &id))) { (id) } }
            td { (format::moment(letter.id.milliseconds())) }
            td { span.state.bad { (letter.reason.as_str()) } }
            td { (Foreign(letter.event_type().unwrap_or("unknown"))) }
            td.number { (letter.attempts) }
            td { (error(visit, letter.error.as_deref())) }
        }
    }
}

/// One letter, with everything that is known of it.
pub(crate) async fn one(
    State(state): State<Shared>,
    visit: Visit,
    Path(place): Path<(String, String, String)>,
) -> Response {
    live::show(visit, state, place, |state, visit, (stream, group, id)| async move {
        one_view(&state, &visit, &stream, &group, &id).await
    })
    .await
}

async fn one_view(
    state: &All,
    visit: &Visit,
    stream: &str,
    name: &str,
    id: &str,
) -> Result<View, Fault> {
    let id = id.parse::<EntryId>().map_err(|_| Fault::bad_request("That is no entry id."))?;
    let letter = state.group(stream, name)?.dead_letters().get(id).await?;
    let text = id.to_string();
    let fields = [("id", text.as_str())];
    let redrive = Button { text: "Redrive", fields: &fields, ..Button::default() };
    let purge = Button {
        text: "Purge",
        fields: &fields,
        confirm: Some("Delete this dead letter for good?"),
        danger: true,
    };
    let unknown = || "unknown".to_owned();
    let body = html! {
        h1 { "Dead letter " (text) }
        div.actions {
            (button(visit, Action::Redrive, &visit.base.to(&below(stream, name, "redrive")), &redrive))
            (button(visit, Action::Purge, &visit.base.to(&below(stream, name, "purge")), &purge))
        }
        dl.fields {
            dt { "Reason" } dd { (letter.reason.as_str()) }
            dt { "Error" } dd { (error(visit, letter.error.as_deref())) }
            dt { "Fingerprint" } dd { code { (letter.fingerprint()) } }
            dt { "Attempts" } dd { (letter.attempts) " failed; delivered " (letter.delivery_count) " times" }
            dt { "Published as" } dd { (letter.origin.map_or_else(unknown, |id| id.to_string())) }
            dt { "Buried from" } dd { (letter.entry_id.map_or_else(unknown, |id| id.to_string())) }
            dt { "Event id" } dd { (Foreign(letter.event_id.as_ref().map_or("unknown", |id| id.as_str()))) }
            dt { "Consumer" } dd { (Foreign(letter.consumer.as_deref().unwrap_or("unknown"))) }
            dt { "First taken up" } dd { (letter.first_delivery.map_or_else(unknown, format::moment)) }
            dt { "Last taken up" } dd { (letter.last_delivery.map_or_else(unknown, format::moment)) }
            dt { "Buried" } dd { (format::moment(id.milliseconds())) }
        }
        h2 { "The event" }
        @if letter.fields.is_empty() {
            (nothing("Its payload was trimmed away: it cannot be run again."))
        } @else {
            (state.redactor.show(&visit.access, stream, &letter.fields))
        }
    };
    let mut trail = group::trail_below(visit, stream, name);
    trail.push(("Dead letters".to_owned(), visit.base.to(&path(stream, name))));
    Ok(View { title: text, trail, body })
}

/// Letters that one page looks at, to find its kinds.
pub(crate) const LOOKED_AT: usize = 500;
const KINDS_SHOWN: usize = 50;
