//! What is done to pending entries and to jobs that are set aside.

use axum::extract::{Path, State};
use axum::response::Response;
use streamjobs::stream::{Group, HandedOver, RetryId};
use streamjobs::{ConsumerName, EntryId};

use super::{Deed, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::{Fields, Posted};
use crate::state::Shared;
use crate::visit::Visit;

type Place = Path<(String, String)>;

pub(crate) async fn claim(
    State(state): State<Shared>,
    visit: Visit,
    Path(place): Place,
    form: Posted,
) -> Response {
    let consumer = form.get("consumer").unwrap_or_default().to_owned();
    let target = format!("{} for {consumer}", named(&form));
    act(&visit, &state, deed(&visit, &place, Action::Claim, target), async {
        let (group, ids) = selected(&state, &place, &form)?;
        let consumer = ConsumerName::new(&consumer)?;
        // An unknown name would make a consumer that nobody is.
        let consumers = group.consumers().await?;
        if !consumers.iter().any(|known| known.name == consumer.as_str()) {
            return Err(Fault::not_found("The group has no such consumer."));
        }
        Ok(told(&group.claim(&ids, &consumer).await?, "given to the consumer"))
    })
    .await
}

pub(crate) async fn release(
    State(state): State<Shared>,
    visit: Visit,
    Path(place): Place,
    form: Posted,
) -> Response {
    act(&visit, &state, deed(&visit, &place, Action::Release, named(&form)), async {
        let (group, ids) = selected(&state, &place, &form)?;
        Ok(told(&group.release(&ids).await?, "for any process to take up"))
    })
    .await
}

pub(crate) async fn run_now(
    State(state): State<Shared>,
    visit: Visit,
    Path(place): Place,
    form: Posted,
) -> Response {
    let ids = form.chosen::<RetryId>("That is no job that is set aside.");
    let count = ids.as_ref().map_or(0, Vec::len);
    let mut deed = deed(&visit, &place, Action::RunNow, format!("{count} jobs set aside"));
    deed.back = visit.base.to(&["streams", &place.0, "groups", &place.1, "retries"]);
    act(&visit, &state, deed, async {
        let ids = ids?;
        if ids.is_empty() {
            return Err(Fault::bad_request("No job is chosen."));
        }
        let due = state.group(&place.0, &place.1)?.run_now(&ids).await?;
        Ok(format!("{due} of {count} jobs are due now; the others had left already."))
    })
    .await
}

fn deed(visit: &Visit, (stream, group): &(String, String), action: Action, target: String) -> Deed {
    let back = visit.base.to(&["streams", stream, "groups", group, "pending"]);
    Deed { action, place: Some((stream.clone(), group.clone())), target, back }
}

/// The entries that the form names, for the audit.
fn named(form: &Fields) -> String {
    let Ok(ids) = form.ids() else { return "entries that were refused".to_owned() };
    let some = ids.iter().take(NAMED_MAX).map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match ids.len() {
        0..=NAMED_MAX => format!("entries {some}"),
        more => format!("{more} entries: {some} …"),
    }
}

fn selected(
    state: &Shared,
    (stream, group): &(String, String),
    form: &Fields,
) -> Result<(Group, Vec<EntryId>), Fault> {
    let ids = form.ids()?;
    if ids.is_empty() {
        return Err(Fault::bad_request("No entry is chosen."));
    }
    let group = state.group(stream, group)?;
    Ok((if form.get("lane").is_some() { group.lane() } else { group }, ids))
}

fn told(handed: &HandedOver, what: &str) -> String {
    let mut text = format!("{} entries are {what}.", handed.moved.len());
    let rest = [
        (handed.trimmed.len(), "had lost their payload and are dead letters now"),
        (handed.missing.len(), "were not pending any more"),
        (
            handed.unstored.len(),
            "had lost their payload and stay, because the key of the dead letters holds something else",
        ),
    ];
    for (count, what) in rest.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(" {count} {what}."));
    }
    text
}

const NAMED_MAX: usize = 10;
