//! Actions on schedules.

use axum::extract::Path;
use axum::response::Response;
use streamjobs::schedule::{ScheduleName, SchedulesError};

use super::{ActionRequest, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::PostedForm;

pub(crate) async fn run_now(Path(stream): Path<String>, form: PostedForm) -> Response {
    let names = selected(&form);
    let request = request(&form, &stream, Action::RunNow, &names);
    act(&form.ctx, request, async {
        let (names, schedules) = (names?, form.ctx.state.schedules(&stream)?);
        let mut ran = Acted::new();
        for name in &names {
            if !ran.note(&names, schedules.run_now(name).await)? {
                break;
            }
        }
        Ok(format!("Published {} events.{}", ran.done.len(), ran.stopped))
    })
    .await
}

pub(crate) async fn pause(Path(stream): Path<String>, form: PostedForm) -> Response {
    let names = selected(&form);
    let request = request(&form, &stream, Action::Pause, &names);
    act(&form.ctx, request, async {
        let (names, schedules) = (names?, form.ctx.state.schedules(&stream)?);
        let mut paused = Acted::new();
        for name in &names {
            if !paused.note(&names, schedules.pause(name).await)? {
                break;
            }
        }
        Ok(format!("Paused {} schedules.{}", paused.done.len(), paused.stopped))
    })
    .await
}

pub(crate) async fn resume(Path(stream): Path<String>, form: PostedForm) -> Response {
    let names = selected(&form);
    let request = request(&form, &stream, Action::Pause, &names);
    act(&form.ctx, request, async {
        let (names, schedules) = (names?, form.ctx.state.schedules(&stream)?);
        let mut resumed = Acted::new();
        for name in &names {
            if !resumed.note(&names, schedules.resume(name).await)? {
                break;
            }
        }
        let done = resumed.done.iter().filter(|was_paused| **was_paused).count();
        let others = match resumed.done.len() - done {
            0 => String::new(),
            others => format!(" {others} were not paused."),
        };
        Ok(format!("Resumed {done} schedules.{others}{}", resumed.stopped))
    })
    .await
}

/// What became of an action on several schedules, one after the other.
struct Acted<T> {
    done: Vec<T>,
    /// Why it stopped before the last schedule, as a sentence; empty if it did not.
    stopped: String,
}

impl<T> Acted<T> {
    fn new() -> Self {
        Self { done: Vec::new(), stopped: String::new() }
    }

    /// Notes what became of the next of these schedules. If that was a failure, false is returned and the action stops.
    /// What was done before is told with the failure: who repeats the whole action would do it again.
    ///
    /// # Errors
    ///
    /// If the first schedule failed.
    fn note(
        &mut self,
        names: &[ScheduleName],
        answer: Result<T, SchedulesError>,
    ) -> Result<bool, Fault> {
        match (answer, names.get(self.done.len())) {
            (Ok(answer), _) => self.done.push(answer),
            (Err(error), Some(name)) if !self.done.is_empty() => {
                let (why, untried) =
                    (Fault::error_chain(&error), names.len() - self.done.len() - 1);
                self.stopped = format!(" Stopped at {name}: {why}. {untried} were not tried.");
            }
            (Err(error), _) => return Err(error.into()),
        }
        Ok(self.stopped.is_empty())
    }
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
