//! Actions on events that wait until they are due.

use axum::extract::Path;
use axum::response::Response;
use streamjobs::EventId;
use streamjobs::stream::Rescheduled;

use super::{ActionRequest, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::PostedForm;

pub(crate) async fn cancel(Path(stream): Path<String>, form: PostedForm) -> Response {
    let ids = selected(&form);
    let request = request(&form, &stream, Action::CancelScheduled, &ids);
    act(&form.ctx, request, async {
        let (ids, mut done) = (ids?, 0);
        let waiting = form.ctx.state.scheduled(&stream)?;
        for id in &ids {
            done += usize::from(waiting.cancel(id).await?);
        }
        Ok(outcome("Cancelled", done, ids.len()))
    })
    .await
}

pub(crate) async fn run_now(Path(stream): Path<String>, form: PostedForm) -> Response {
    let ids = selected(&form);
    let request = request(&form, &stream, Action::RunNow, &ids);
    act(&form.ctx, request, async {
        let (ids, mut done) = (ids?, 0);
        let waiting = form.ctx.state.scheduled(&stream)?;
        for id in &ids {
            done += usize::from(waiting.run_now(id).await? != Rescheduled::NotScheduled);
        }
        Ok(outcome("Entered", done, ids.len()))
    })
    .await
}

fn selected(form: &PostedForm) -> Result<Vec<EventId>, Fault> {
    let ids = form.selected::<String>("Invalid event id.")?;
    if ids.is_empty() {
        return Err(Fault::bad_request("No event is selected."));
    }
    let ids = ids.into_iter().map(EventId::new).collect::<Result<_, _>>();
    ids.map_err(|_| Fault::bad_request("Invalid event id."))
}

/// The events belong to no group, so the target of the audit names the stream.
fn request(
    form: &PostedForm,
    stream: &str,
    action: Action,
    ids: &Result<Vec<EventId>, Fault>,
) -> ActionRequest {
    let count = ids.as_ref().map_or(0, Vec::len);
    ActionRequest {
        action,
        queue: None,
        target: format!("{count} scheduled events of {stream}"),
        back: form.ctx.base.to(&["streams", stream, "scheduled"]),
    }
}

fn outcome(what: &str, done: usize, asked: usize) -> String {
    match asked - done {
        0 => format!("{what} {done} events."),
        gone => format!("{what} {done} events. {gone} were no longer waiting."),
    }
}
