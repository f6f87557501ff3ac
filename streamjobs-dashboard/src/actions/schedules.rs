//! Actions on schedules.

use axum::extract::Path;
use axum::response::Response;
use streamjobs::schedule::ScheduleName;

use super::{ActionRequest, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::PostedForm;

pub(crate) async fn run_now(Path(stream): Path<String>, form: PostedForm) -> Response {
    let names = selected(&form);
    let request = request(&form, &stream, Action::RunNow, &names);
    act(&form.ctx, request, async {
        let (names, schedules) = (names?, form.ctx.state.schedules(&stream)?);
        for name in &names {
            schedules.run_now(name).await?;
        }
        Ok(format!("Published {} events.", names.len()))
    })
    .await
}

pub(crate) async fn pause(Path(stream): Path<String>, form: PostedForm) -> Response {
    let names = selected(&form);
    let request = request(&form, &stream, Action::Pause, &names);
    act(&form.ctx, request, async {
        let (names, schedules) = (names?, form.ctx.state.schedules(&stream)?);
        for name in &names {
            schedules.pause(name).await?;
        }
        Ok(format!("Paused {} schedules.", names.len()))
    })
    .await
}

pub(crate) async fn resume(Path(stream): Path<String>, form: PostedForm) -> Response {
    let names = selected(&form);
    let request = request(&form, &stream, Action::Pause, &names);
    act(&form.ctx, request, async {
        let (names, mut done) = (names?, 0);
        let schedules = form.ctx.state.schedules(&stream)?;
        for name in &names {
            done += usize::from(schedules.resume(name).await?);
        }
        Ok(match names.len() - done {
            0 => format!("Resumed {done} schedules."),
            others => format!("Resumed {done} schedules. {others} were not paused."),
        })
    })
    .await
}

fn selected(form: &PostedForm) -> Result<Vec<ScheduleName>, Fault> {
    let names = form.selected::<String>("Invalid name of a schedule.")?;
    if names.is_empty() {
        return Err(Fault::bad_request("No schedule is selected."));
    }
    let names = names.into_iter().map(ScheduleName::new).collect::<Result<_, _>>();
    names.map_err(|_| Fault::bad_request("Invalid name of a schedule."))
}

/// Schedules belong to no group, so the target of the audit names the stream.
fn request(
    form: &PostedForm,
    stream: &str,
    action: Action,
    names: &Result<Vec<ScheduleName>, Fault>,
) -> ActionRequest {
    let what = match names.as_deref() {
        Ok([one]) => format!("schedule {one} of {stream}"),
        Ok(names) => format!("{} schedules of {stream}", names.len()),
        Err(_) => format!("0 schedules of {stream}"),
    };
    ActionRequest {
        action,
        queue: None,
        target: what,
        back: form.ctx.base.to(&["streams", stream, "schedules"]),
    }
}
