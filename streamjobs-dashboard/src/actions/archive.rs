//! What is done to dead letters in the archive.

use axum::extract::State;
use axum::response::Response;
use maud::html;
use streamjobs::EventId;
use streamjobs_postgres::letters::{
    LetterId, Redrive, RedriveError, RedriveId, RedrivePlan, Request, Selection,
};

use super::{Deed, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::{Fields, Posted};
use crate::format::{self, Foreign};
use crate::layout::{self, View, token};
use crate::pages::archive::{self, in_time};
use crate::state::Shared;
use crate::visit::Visit;

impl From<RedriveError> for Fault {
    fn from(error: RedriveError) -> Self {
        match error {
            RedriveError::Query(query) => query.into(),
            RedriveError::Request { .. } => {
                Self::bad_request("A redrive says why, in at most 1,000 bytes.")
            }
            RedriveError::NotOpen => Self::conflict(error.to_string()),
            RedriveError::Unknown { .. } => Self::not_found(error.to_string()),
            error => Self::unavailable(Self::in_words(&error)),
        }
    }
}

fn deed(visit: &Visit, action: Action, target: String) -> Deed {
    Deed { action, place: None, target, back: visit.base.to(&["archive"]) }
}

/// The letters that a form names one by one.
fn ids(form: &Fields) -> Result<Vec<LetterId>, Fault> {
    form.chosen("That is no number of a letter.")
}

/// Puts jobs back: those that are named, or all that are like what is asked for, after a look at
/// what that would be.
pub(crate) async fn redrive(State(state): State<Shared>, visit: Visit, form: Posted) -> Response {
    if form.get("dry_run").is_some() && visit.access.may(Action::Redrive) {
        return match plan(&state, &visit, &form).await {
            Ok(view) => layout::page(&visit, &state, &view),
            Err(fault) => layout::failed(&visit, &state, &fault),
        };
    }
    let why = form.get("why").unwrap_or("through the dashboard").to_owned();
    let target = format!("archived letters, because: {why}");
    act(&visit, &state, deed(&visit, Action::Redrive, target), async {
        let ids = ids(&form)?;
        let selection = match ids.is_empty() {
            false => Selection::new().ids(ids),
            true if form.get("all") == Some("1") => archive::selection(&form),
            true => return Err(Fault::bad_request("No letter is chosen.")),
        };
        let request = Request::new(visit.access.who(), why);
        let redriving = archive::letters(&state)?.redrive(selection, request);
        // From here on it is on record and can be gone on with, whatever becomes of this request.
        Ok(told(&redriving.start(&state.client).await?))
    })
    .await
}

/// Goes on with a request that was interrupted.
pub(crate) async fn resume(State(state): State<Shared>, visit: Visit, form: Posted) -> Response {
    let id = form.get("redrive").unwrap_or_default().to_owned();
    act(&visit, &state, deed(&visit, Action::Redrive, format!("redrive {id}")), async {
        let id = id.parse::<RedriveId>();
        let id = id.map_err(|_| Fault::bad_request("That is no number of a redrive."))?;
        Ok(told(&archive::letters(&state)?.resume(id, &state.client).await?))
    })
    .await
}

/// Deletes everything that the archive knows of the event of a letter.
pub(crate) async fn forget(State(state): State<Shared>, visit: Visit, form: Posted) -> Response {
    let target = format!("the event of letter {}", form.get("id").unwrap_or_default());
    act(&visit, &state, deed(&visit, Action::Purge, target), async {
        let [id] = ids(&form)?[..] else {
            return Err(Fault::bad_request("One letter is to be named."));
        };
        let letters = archive::letters(&state)?;
        let letter = in_time(letters.get(id)).await?;
        let event_id = letter.and_then(|letter| EventId::new(letter.event_id?).ok());
        let event_id =
            event_id.ok_or_else(|| Fault::not_found("The archive has no such letter."))?;
        let forgotten = in_time(letters.forget(&event_id)).await?;
        Ok(format!("{forgotten} letters of the event are gone for good."))
    })
    .await
}

fn told(redrive: &Redrive) -> String {
    let mut text = format!("{} jobs were put back for their groups.", redrive.done);
    for (count, what) in [(redrive.failed, "failed"), (redrive.skipped, "were skipped")] {
        if count > 0 {
            text.push_str(&format!(" {count} {what}."));
        }
    }
    text
}

async fn plan(state: &Shared, visit: &Visit, form: &Fields) -> Result<View, Fault> {
    let request = Request::new(visit.access.who(), "dry run");
    let redriving = archive::letters(state)?.redrive(archive::selection(form), request);
    let plan = in_time(redriving.dry_run()).await?;
    let archive = ("Archive".to_owned(), visit.base.to(&["archive"]));
    let trail = vec![("Overview".to_owned(), visit.base.root()), archive];
    Ok(View { title: "Dry run".to_owned(), trail, body: plan_body(visit, form, &plan) })
}

fn plan_body(visit: &Visit, form: &Fields, plan: &RedrivePlan) -> maud::Markup {
    html! {
        div data-still {}
        h1 { "What would be done" }
        p #plan {
            "The jobs of " (format::count(plan.letters)) " letters would be put back, each for its group alone, \
             under their event ids and with no failures counted."
            @if plan.not_runnable > 0 {
                " " (format::count(plan.not_runnable)) " of them hold nothing that can be run, and would fail."
            }
        }
        ul { @for group in &plan.by_group {
            li { (Foreign(&group.group)) " on " (Foreign(&group.stream)) ": " (format::count(group.letters)) }
        } }
        p.soft { "Nothing has been done yet. Letters like these that are archived until the button is pressed are put back with them." }
        @if plan.letters > 0 {
            form.filter method="post" action=(visit.base.to(&["archive", "redrive"])) {
                (token(visit))
                @for (name, value) in archive::pairs(form, &[]) { input type="hidden" name=(name) value=(value); }
                input type="hidden" name="all" value="1";
                label { "Why" input name="why" required maxlength="200" placeholder="the bank is back, ticket 4711"; }
                button type="submit" { "Put them back" }
            }
        }
        p { a href=(visit.base.to(&["archive"])) { "Back" } }
    }
}
