//! What is done to dead letters in Redis.

use axum::extract::{Path, State};
use axum::response::Response;
use maud::html;
use streamjobs::EntryId;
use streamjobs::dead_letter::DeadLetters;

use super::{Deed, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::Posted;
use crate::format::{self, Foreign};
use crate::layout::{self, Button, View, button};
use crate::pages::dead::{self, Chosen, LOOKED_AT};
use crate::pages::group;
use crate::state::Shared;
use crate::visit::Visit;

type Place = Path<(String, String)>;

pub(crate) async fn redrive(
    State(state): State<Shared>,
    visit: Visit,
    Path(place): Place,
    form: Posted,
) -> Response {
    done_to(&state, &visit, place, &form, Action::Redrive).await
}

pub(crate) async fn purge(
    State(state): State<Shared>,
    visit: Visit,
    Path(place): Place,
    form: Posted,
) -> Response {
    done_to(&state, &visit, place, &form, Action::Purge).await
}

async fn done_to(
    state: &Shared,
    visit: &Visit,
    place: (String, String),
    form: &Posted,
    action: Action,
) -> Response {
    let chosen = Chosen::of(form);
    if form.get("dry_run").is_some() && visit.access.may(action) {
        return match plan(state, visit, &place, form, action).await {
            Ok(view) => layout::page(visit, state, &view),
            Err(fault) => layout::failed(visit, state, &fault),
        };
    }
    let ids = form.ids();
    let target = match &ids {
        Ok(ids) if !ids.is_empty() => format!("{} dead letters", ids.len()),
        Ok(_) => format!("all dead letters {}", in_words(&chosen)),
        Err(_) => "dead letters that were refused".to_owned(),
    };
    let back = visit.base.to(&dead::path(&place.0, &place.1));
    let deed = Deed { action, place: Some(place.clone()), target, back };
    act(visit, state, deed, async {
        let letters = state.group(&place.0, &place.1)?.dead_letters();
        let (ids, next) = match ids? {
            ids if !ids.is_empty() => (ids, None),
            _ if form.get("all") == Some("1") => {
                let text = "All are meant up to the last of a dry run, and none is named.";
                let until = form.id("until")?.ok_or_else(|| Fault::bad_request(text))?;
                matching(&letters, &chosen, form.id("after")?, Some(until)).await?
            }
            _ => return Err(Fault::bad_request("No dead letter is chosen.")),
        };
        let mut outcome = match action {
            Action::Purge => {
                format!("{} dead letters are gone for good.", letters.purge(&ids).await?)
            }
            _ => redriven(&letters, &ids).await?,
        };
        if next.is_some() {
            outcome.push_str(" There may be more: look again for those.");
        }
        Ok(outcome)
    })
    .await
}

/// Puts jobs back one by one, up to the first that the server could not be asked for: each of the
/// others would wait for it as long.
async fn redriven(letters: &DeadLetters, ids: &[EntryId]) -> Result<String, Fault> {
    let (mut done, mut refused) = (0, Vec::new());
    let mut stopped = None;
    for (place, id) in ids.iter().enumerate() {
        match letters.redrive(*id).await {
            Ok(_) => done += 1,
            Err(error) if error.is_final() => refused.push((id, error)),
            Err(error) => {
                stopped = Some((id, ids.len() - place - 1, error));
                break;
            }
        }
    }
    let mut outcome = format!("{done} jobs were put back for this group alone.");
    if let Some((id, error)) = refused.first() {
        let why = Fault::in_words(error);
        outcome.push_str(&format!(" {} were not, such as {id}: {why}.", refused.len()));
    }
    let Some((id, untried, error)) = stopped else { return Ok(outcome) };
    let why = Fault::in_words(&error);
    outcome.push_str(&format!(" It stopped at {id}, which may have been put back or not: {why}."));
    outcome.push_str(&format!(" {untried} were not tried."));
    if done == 0 { Err(Fault::unavailable(outcome)) } else { Ok(outcome) }
}

/// The letters that are meant, oldest first as far as one action goes, and behind which letter there
/// may be more. What is buried after a dry run comes behind its last letter, and is not meant.
async fn matching(
    letters: &DeadLetters,
    chosen: &Chosen,
    mut after: Option<EntryId>,
    until: Option<EntryId>,
) -> Result<(Vec<EntryId>, Option<EntryId>), Fault> {
    let mut ids = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = letters.list(after, LOOKED_AT).await?;
        for letter in page.letters.iter().filter(|letter| chosen.includes(letter)) {
            if ids.len() == AT_ONCE_MAX || until.is_some_and(|until| letter.id > until) {
                let last = ids.last().copied().or(after).or(until);
                return Ok((ids, last));
            }
            ids.push(letter.id);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok((ids, after))
}

/// What would be done, the button that does it, and the one that looks behind it.
async fn plan(
    state: &Shared,
    visit: &Visit,
    (stream, name): &(String, String),
    form: &Posted,
    action: Action,
) -> Result<View, Fault> {
    let letters = state.group(stream, name)?.dead_letters();
    let (chosen, after) = (Chosen::of(form), form.id("after")?);
    let (ids, next) = matching(&letters, &chosen, after, None).await?;
    let to = visit.base.to(&["streams", stream, "groups", name, "dead", action.as_str()]);
    let [after, until, next] =
        [after, ids.last().copied(), next].map(|id| id.map(|id| id.to_string()));
    let named = |name, id| Option::map(id, |id| (name, id));
    let [after, until] = [named("after", after.as_deref()), named("until", until.as_deref())];
    let bounds = after.into_iter().chain(until);
    let fields = chosen.pairs().into_iter().chain([("all", "1")]).chain(bounds).collect::<Vec<_>>();
    let text = if action == Action::Purge { "Purge them for good" } else { "Put them back" };
    let button_of =
        Button { text, fields: &fields, danger: action == Action::Purge, confirm: None };
    let body = html! {
        div data-still {}
        h1 { "What would be done" }
        p #plan {
            @if action == Action::Purge {
                (format::count(ids.len() as u64)) " dead letters " (Foreign(&in_words(&chosen))) " would be deleted for good."
            } @else {
                "The jobs of " (format::count(ids.len() as u64)) " dead letters " (Foreign(&in_words(&chosen)))
                " would be put back for this group alone, under their event ids and with no failures counted."
            }
        }
        @if let (Some(first), Some(last)) = (ids.first(), ids.last()) {
            p.soft { "From " (first.to_string()) " to " (last.to_string()) ". Nothing has been done yet." }
            div.actions { (button(visit, action, &to, &button_of)) }
        }
        @if let Some(next) = next {
            p.soft {
                "There may be more behind them: one look goes through " (format::count((PAGES_MAX * LOOKED_AT) as u64))
                " letters of the group, and takes up to " (format::count(AT_ONCE_MAX as u64)) "."
            }
            @let further = [chosen.pairs(), vec![("dry_run", "1"), ("after", next.as_str())]].concat();
            div.actions { (button(visit, action, &to, &Button { text: "Look further", fields: &further, ..Button::default() })) }
        }
        p { a href=(visit.base.to(&dead::path(stream, name))) { "Back" } }
    };
    Ok(View { title: "Dry run".to_owned(), trail: group::trail_below(visit, stream, name), body })
}

fn in_words(chosen: &Chosen) -> String {
    match (&chosen.reason, &chosen.fingerprint) {
        (None, None) => "of the group".to_owned(),
        (Some(reason), None) => format!("with the reason {reason}"),
        (None, Some(kind)) => format!("of the kind {kind}"),
        (Some(reason), Some(kind)) => format!("of the kind {kind} with the reason {reason}"),
    }
}

/// Letters that one action takes.
const AT_ONCE_MAX: usize = 1_000;
/// Pages that one action looks through for them.
const PAGES_MAX: usize = 20;
