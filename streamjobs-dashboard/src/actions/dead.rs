//! Actions on dead letters in Redis.

use axum::extract::Path;
use axum::response::Response;
use maud::html;
use streamjobs::dead_letter::DeadLetters;
use streamjobs::stream::EntryAddress;

use super::{ActionRequest, QueuePath, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::PostedForm;
use crate::format::{self, Untrusted};
use crate::layout::{self, Button, View, button};
use crate::pages::dead::{self, LetterFilter, SCANNED};
use crate::pages::group;

pub(crate) async fn redrive(Path(queue): QueuePath, form: PostedForm) -> Response {
    change_letters(&queue, &form, Action::Redrive).await
}

pub(crate) async fn purge(Path(queue): QueuePath, form: PostedForm) -> Response {
    change_letters(&queue, &form, Action::Purge).await
}

async fn change_letters(queue: &(String, String), form: &PostedForm, action: Action) -> Response {
    let ctx = &form.ctx;
    let filter = LetterFilter::of(form);
    if form.get("dry_run").is_some() && ctx.access.may(action) {
        return match plan(queue, form, action).await {
            Ok(view) => layout::page(ctx, &view),
            Err(fault) => layout::error_page(ctx, &fault),
        };
    }
    let ids = form.ids();
    let target = match &ids {
        Ok(ids) if !ids.is_empty() => format!("{} dead letters", ids.len()),
        Ok(_) => format!("all dead letters {}", described(&filter)),
        Err(_) => "invalid ids of dead letters".to_owned(),
    };
    let request = ActionRequest::on_group(ctx, queue, Some("dead"), action, target);
    act(ctx, request, async {
        let letters = ctx.state.group(&queue.0, &queue.1)?.dead_letters();
        let (ids, next) = match ids? {
            ids if !ids.is_empty() => (ids, None),
            _ if form.get("all") == Some("1") => {
                let text = "To change all letters, give the last letter of a dry run.";
                let until = form.id("until")?.ok_or_else(|| Fault::bad_request(text))?;
                matching(&letters, &filter, form.id("after")?, Some(until)).await?
            }
            _ => return Err(Fault::bad_request("No dead letter is selected.")),
        };
        let mut outcome = match action {
            Action::Purge => {
                format!("Deleted {} dead letters.", letters.purge(&ids).await?)
            }
            _ => redriven(&letters, &ids).await?,
        };
        if next.is_some() {
            outcome.push_str(" There may be more: start another dry run.");
        }
        Ok(outcome)
    })
    .await
}

/// Redrives letters one by one, and stops at the first letter for which the server does not answer, because each
/// further letter would wait for the same timeout.
async fn redriven(letters: &DeadLetters, ids: &[EntryAddress]) -> Result<String, Fault> {
    let (mut done, mut refused) = (0, Vec::new());
    let mut stopped = None;
    for (index, id) in ids.iter().enumerate() {
        match letters.redrive(*id).await {
            Ok(_) => done += 1,
            Err(error) if error.is_final() => refused.push((id, error)),
            Err(error) => {
                stopped = Some((id, ids.len() - index - 1, error));
                break;
            }
        }
    }
    let mut outcome = format!("Redrove {done} jobs to this group.");
    if let Some((id, error)) = refused.first() {
        let why = Fault::error_chain(error);
        outcome.push_str(&format!(
            " {} could not be redriven, for example {id}: {why}.",
            refused.len()
        ));
    }
    let Some((id, untried, error)) = stopped else { return Ok(outcome) };
    let why = Fault::error_chain(&error);
    outcome.push_str(&format!(" Stopped at {id}, which may have been redriven: {why}."));
    outcome.push_str(&format!(" {untried} were not tried."));
    if done == 0 { Err(Fault::incomplete(outcome)) } else { Ok(outcome) }
}

/// The letters that match the filter, oldest first and at most as many as one action takes, and the id
/// after which there may be more. `until` is the last letter of the dry run; letters that were stored
/// after it do not match.
async fn matching(
    letters: &DeadLetters,
    filter: &LetterFilter,
    mut after: Option<EntryAddress>,
    until: Option<EntryAddress>,
) -> Result<(Vec<EntryAddress>, Option<EntryAddress>), Fault> {
    let mut ids = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = letters.summaries(after, SCANNED).await?;
        for letter in page.letters.iter().filter(|letter| filter.includes(letter)) {
            if ids.len() == AT_ONCE_MAX || until.is_some_and(|until| letter.address() > until) {
                let last = ids.last().copied().or(after).or(until);
                return Ok((ids, last));
            }
            ids.push(letter.address());
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok((ids, after))
}

/// The page of a dry run: what would change, the button that carries it out, and the button that
/// continues the scan.
async fn plan(
    (stream, name): &(String, String),
    form: &PostedForm,
    action: Action,
) -> Result<View, Fault> {
    let ctx = &form.ctx;
    let letters = ctx.state.group(stream, name)?.dead_letters();
    let (filter, after) = (LetterFilter::of(form), form.id("after")?);
    let (ids, next) = matching(&letters, &filter, after, None).await?;
    let to = ctx.base.to(&["streams", stream, "groups", name, "dead", action.as_str()]);
    let [after, until, next] =
        [after, ids.last().copied(), next].map(|id| id.map(|id| id.to_string()));
    let pair = |name, id| Option::map(id, |id| (name, id));
    let [after, until] = [pair("after", after.as_deref()), pair("until", until.as_deref())];
    let bounds = after.into_iter().chain(until);
    let fields = filter.pairs().into_iter().chain([("all", "1")]).chain(bounds).collect::<Vec<_>>();
    let text = if action == Action::Purge { "Purge" } else { "Redrive" };
    let button_of =
        Button { text, fields: &fields, danger: action == Action::Purge, confirm: None };
    let body = html! {
        div data-still {}
        h1 { "Dry run: " (action.as_str()) }
        p #plan {
            @if action == Action::Purge {
                "This deletes " (format::count(ids.len() as u64)) " dead letters " (Untrusted(&described(&filter))) ". It cannot be undone."
            } @else {
                "This redrives " (format::count(ids.len() as u64)) " dead letters " (Untrusted(&described(&filter)))
                " to this group only. Jobs keep their event ids; their failure counts start at zero."
            }
        }
        @if let (Some(first), Some(last)) = (ids.first(), ids.last()) {
            p.soft { "From " (first.to_string()) " to " (last.to_string()) ". Nothing has been changed yet." }
            div.actions { (button(ctx, action, &to, &button_of)) }
        }
        @if let Some(next) = next {
            p.soft {
                "There may be more: one dry run scans up to " (format::count((PAGES_MAX * SCANNED) as u64))
                " letters of the group and selects up to " (format::count(AT_ONCE_MAX as u64)) "."
            }
            @let further = [filter.pairs(), vec![("dry_run", "1"), ("after", next.as_str())]].concat();
            div.actions { (button(ctx, action, &to, &Button { text: "Scan further", fields: &further, ..Button::default() })) }
        }
        p { a href=(ctx.base.to(&dead::path(stream, name))) { "Back" } }
    };
    Ok(View { title: "Dry run".to_owned(), trail: group::trail_below(ctx, stream, name), body })
}

fn described(filter: &LetterFilter) -> String {
    match (&filter.reason, &filter.fingerprint) {
        (None, None) => "of the group".to_owned(),
        (Some(reason), None) => format!("with the reason {reason}"),
        (None, Some(kind)) => format!("of the kind {kind}"),
        (Some(reason), Some(kind)) => format!("of the kind {kind} with the reason {reason}"),
    }
}

/// How many letters one action changes.
const AT_ONCE_MAX: usize = 1_000;
/// How many pages one action scans for letters.
const PAGES_MAX: usize = 20;
