//! Actions on one event: cancel its jobs, and undo that.

use axum::extract::Path;
use axum::response::Response;
use streamjobs::stream::Cancellation;
use streamjobs::{EventId, GroupName};

use super::{ActionRequest, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::{Fields, PostedForm};

/// Cancels the job of one group, or the jobs of all groups.
pub(crate) async fn cancel(Path(stream): Path<String>, form: PostedForm) -> Response {
    let request = request(&form, &stream, "cancel");
    act(&form.ctx, request, async {
        let id = event(&form)?;
        if let Some(group) = form.get("group") {
            form.ctx.state.group(&stream, group)?.cancel(&id).await?;
            return Ok(format!("Cancelled for {group}: {MARKED}"));
        }
        Ok(match form.ctx.state.stream(&stream)?.cancel(&id).await? {
            Cancellation::Unscheduled => {
                "Removed the event, which waited for its time. No job will come of it.".to_owned()
            }
            Cancellation::Marked => format!("Cancelled for all groups: {MARKED}"),
        })
    })
    .await
}

/// Removes the mark of one group, or the mark of all groups.
pub(crate) async fn uncancel(Path(stream): Path<String>, form: PostedForm) -> Response {
    let request = request(&form, &stream, "undo the cancel of");
    act(&form.ctx, request, async {
        let id = event(&form)?;
        let removed = match form.get("group") {
            Some(group) => form.ctx.state.group(&stream, group)?.uncancel(&id).await?,
            None => form.ctx.state.stream(&stream)?.uncancel(&id).await?,
        };
        Ok(match removed {
            true => "Undid the cancel. Jobs that have ended stay dead letters until a redrive.",
            false => "There was no cancel to undo.",
        }
        .to_owned())
    })
    .await
}

fn event(form: &Fields) -> Result<EventId, Fault> {
    let id = EventId::new(form.get("event").unwrap_or_default());
    id.map_err(|_| Fault::bad_request("Invalid event id."))
}

/// The result is shown on the page that has the form: the event's page, or the group's retries. The
/// audit gets only a valid event id and a valid group name: a request can contain anything before the
/// permission is checked.
fn request(form: &PostedForm, stream: &str, what: &str) -> ActionRequest {
    let group = form.get("group");
    let base = &form.ctx.base;
    let back = match group {
        Some(group) if form.get("from") == Some("retries") => {
            base.to(&["streams", stream, "groups", group, "retries"])
        }
        _ => {
            let query = [("id", form.get("event")), ("entry", form.get("entry"))];
            let query = query.into_iter().filter_map(|(name, value)| Some((name, value?)));
            base.with_query(&["streams", stream, "event"], &query.collect::<Vec<_>>())
        }
    };
    let event = event(form).map_or("an invalid event id".to_owned(), |id| format!("event {id}"));
    let target = match group {
        Some(_) => format!("{what} {event}"),
        None => format!("{what} {event} of {stream} for all groups"),
    };
    let group = group.and_then(|group| GroupName::new(group).ok());
    let queue = group.map(|group| (stream.to_owned(), group.to_string()));
    ActionRequest { action: Action::Cancel, queue, target, back }
}

/// What a mark does.
const MARKED: &str = "jobs that wait end without running, and running ones are told to stop.";
