//! Actions on dead letters in the archive.

use axum::response::Response;
use maud::html;
use streamjobs::EventId;
use streamjobs_postgres::letters::{
    DeadLetters, LetterId, LetterState, PlanView, Redrive, RedriveError, RedriveId, Request,
    Selection,
};

use super::{ActionRequest, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::{Fields, PostedForm};
use crate::format::{self, Counted, Untrusted};
use crate::layout::{self, View, token};
use crate::pages::archive::{self, in_time};

impl From<RedriveError> for Fault {
    fn from(error: RedriveError) -> Self {
        match error {
            RedriveError::Query(query) => query.into(),
            RedriveError::Request { .. } => {
                Self::bad_request("A redrive needs a reason of at most 1,000 bytes.")
            }
            RedriveError::NotOpen => Self::conflict(error.to_string()),
            RedriveError::Unknown { .. } => Self::not_found(error.to_string()),
            error => Self::incomplete(Self::error_chain(&error)),
        }
    }
}

fn action_request(form: &PostedForm, action: Action, target: String) -> ActionRequest {
    ActionRequest { action, queue: None, target, back: form.ctx.base.to(&["archive"]) }
}

/// The letters that are selected in a form.
fn ids(form: &Fields) -> Result<Vec<LetterId>, Fault> {
    form.selected("Invalid letter id.")
}

/// Redrives the selected letters, or all letters that match the filter. With `dry_run`, shows what
/// would be redriven.
pub(crate) async fn redrive(form: PostedForm) -> Response {
    if form.get("dry_run").is_some() && form.ctx.access.may(Action::Redrive) {
        return match plan(&form).await {
            Ok(view) => layout::page(&form.ctx, &view),
            Err(fault) => layout::error_page(&form.ctx, &fault),
        };
    }
    let why = form.get("why").unwrap_or("through the dashboard").to_owned();
    let target = match why.len() {
        ..=WHY_MAX => format!("archived letters, reason: {why}"),
        _ => "archived letters, with an invalid reason".to_owned(),
    };
    let work = async {
        let letters = archive::letters(&form.ctx.state)?;
        let ids = ids(&form)?;
        let selection = match ids.is_empty() {
            false => named(&letters, Selection::new().ids(ids)).await?,
            true if form.get("all") == Some("1") => archive::selection(&form),
            true => return Err(Fault::bad_request("No letter is selected.")),
        };
        let request = Request::new(form.ctx.access.who(), why);
        let redriving = letters.redrive(selection, request);
        // The redrive is stored from here on, and can be resumed if this request is cancelled.
        Ok(summary(&redriving.start(&form.ctx.state.client).await?))
    };
    act(&form.ctx, action_request(&form, Action::Redrive, target), Box::pin(work)).await
}

/// The selection, if the archive has any of its letters, in whatever state.
async fn named(letters: &DeadLetters, selection: Selection) -> Result<Selection, Fault> {
    match in_time(letters.count(&selection.clone().state(LetterState::All))).await? {
        0 => Err(Fault::not_found("The archive does not have these letters.")),
        _ => Ok(selection),
    }
}

/// Resumes an interrupted redrive.
pub(crate) async fn resume(form: PostedForm) -> Response {
    let id = form.get("redrive").unwrap_or_default().parse::<RedriveId>();
    let id = id.map_err(|_| Fault::bad_request("Invalid redrive id."));
    let target = match &id {
        Ok(id) => format!("redrive {id}"),
        Err(_) => "an invalid redrive id".to_owned(),
    };
    let work = async {
        let id = id?;
        Ok(summary(&archive::letters(&form.ctx.state)?.resume(id, &form.ctx.state.client).await?))
    };
    act(&form.ctx, action_request(&form, Action::Redrive, target), Box::pin(work)).await
}

/// Deletes all letters of a letter's event, on the streams that are shown.
pub(crate) async fn forget(form: PostedForm) -> Response {
    let target = match ids(&form).as_deref() {
        Ok([id]) => format!("the event of letter {id}"),
        _ => "the event of an invalid letter id".to_owned(),
    };
    let work = async {
        let [id] = ids(&form)?[..] else {
            return Err(Fault::bad_request("Select one letter."));
        };
        let letters = archive::letters(&form.ctx.state)?;
        let letter = in_time(letters.view().get(id)).await?;
        let event_id = letter.and_then(|letter| EventId::new(letter.event_id?).ok());
        let event_id =
            event_id.ok_or_else(|| Fault::not_found("The archive does not have this letter."))?;
        let forgotten = in_time(letters.forget(&event_id)).await?;
        Ok(format!("Deleted {forgotten} letters of the event."))
    };
    act(&form.ctx, action_request(&form, Action::Purge, target), Box::pin(work)).await
}

fn summary(redrive: &Redrive) -> String {
    let mut text = format!("Redrove {} jobs.", redrive.done);
    for (count, what) in [(redrive.failed, "failed"), (redrive.skipped, "skipped")] {
        if count > 0 {
            text.push_str(&format!(" {count} {what}."));
        }
    }
    text
}

async fn plan(form: &PostedForm) -> Result<View, Fault> {
    let ctx = &form.ctx;
    let plan = in_time(archive::archive_view(&ctx.state)?.plan(&archive::selection(form))).await?;
    let archive = ("Archive".to_owned(), ctx.base.to(&["archive"]));
    let trail = vec![("Overview".to_owned(), ctx.base.root()), archive];
    Ok(View { title: "Dry run".to_owned(), trail, body: plan_body(form, &plan) })
}

fn plan_body(form: &PostedForm, plan: &PlanView) -> maud::Markup {
    let ctx = &form.ctx;
    let letters = Counted { number: plan.letters, more: plan.more };
    html! {
        div data-still {}
        h1 { "Dry run: redrive" }
        p #plan {
            "This redrives " (letters.text()) " letters, each to its own group. Jobs keep their \
             event ids; their failure counts start at zero."
            @if plan.not_runnable > 0 {
                " " (format::count(plan.not_runnable)) " of them have no payload left and will fail."
            }
        }
        ul { @for group in &plan.by_group {
            li { (Untrusted(&group.group)) " on " (Untrusted(&group.stream)) ": " (format::count(group.letters)) }
        } }
        @if plan.more { p.soft { "Only the newest letters are counted here. All that match are redriven." } }
        p.soft { "Nothing has been changed yet. Matching letters that are archived before you press the button are included." }
        @if plan.letters > 0 || plan.more {
            form.filter method="post" action=(ctx.base.to(&["archive", "redrive"])) {
                (token(ctx))
                @for (name, value) in archive::pairs(form, &[]) { input type="hidden" name=(name) value=(value); }
                input type="hidden" name="all" value="1";
                label { "Reason" input name="why" required maxlength="200" placeholder="bank API is back, ticket 4711"; }
                button type="submit" { "Redrive" }
            }
        }
        p { a href=(ctx.base.to(&["archive"])) { "Back" } }
    }
}

/// How many bytes a reason may have.
const WHY_MAX: usize = 1_000;
