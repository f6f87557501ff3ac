//! What is done to a group and to its consumers.

use axum::extract::{Path, State};
use axum::response::Response;
use streamjobs::ConsumerName;
use streamjobs::stream::Liveness;

use super::{Deed, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::Posted;
use crate::state::Shared;
use crate::visit::Visit;

type Place = Path<(String, String)>;

fn deed(visit: &Visit, (stream, group): &(String, String), action: Action, target: &str) -> Deed {
    let back = visit.base.to(&["streams", stream, "groups", group]);
    let place = Some((stream.clone(), group.clone()));
    Deed { action, place, target: target.to_owned(), back }
}

pub(crate) async fn pause(
    State(state): State<Shared>,
    visit: Visit,
    Path(place): Place,
    _form: Posted,
) -> Response {
    act(&visit, &state, deed(&visit, &place, Action::Pause, "pause"), async {
        let paused = state.group(&place.0, &place.1)?.pause().await?;
        Ok(if paused { "Paused in every process." } else { "It was paused already." }.to_owned())
    })
    .await
}

pub(crate) async fn resume(
    State(state): State<Shared>,
    visit: Visit,
    Path(place): Place,
    _form: Posted,
) -> Response {
    act(&visit, &state, deed(&visit, &place, Action::Pause, "resume"), async {
        let resumed = state.group(&place.0, &place.1)?.resume().await?;
        Ok(if resumed { "Its jobs run again." } else { "It was not paused." }.to_owned())
    })
    .await
}

pub(crate) async fn reap(
    State(state): State<Shared>,
    visit: Visit,
    Path(place): Place,
    _form: Posted,
) -> Response {
    act(&visit, &state, deed(&visit, &place, Action::Reap, "claim_idle"), async {
        state.group(&place.0, &place.1)?.reap_now().await?;
        Ok("Every process of the group looks for abandoned entries now.".to_owned())
    })
    .await
}

pub(crate) async fn remove_consumer(
    State(state): State<Shared>,
    visit: Visit,
    Path((stream, group, consumer)): Path<(String, String, String)>,
    _form: Posted,
) -> Response {
    let place = (stream, group);
    act(&visit, &state, deed(&visit, &place, Action::RemoveConsumer, &consumer), async {
        let group = state.group(&place.0, &place.1)?;
        let name = ConsumerName::new(&consumer)?;
        let consumers = group.consumers().await?;
        let found = consumers.iter().find(|found| found.name == consumer);
        match found.map(|found| found.liveness) {
            None => return Err(Fault::not_found("The group has no such consumer.")),
            Some(Liveness::Alive) => {
                let text = "It is alive; stop its process, or let that remove it.";
                return Err(Fault::conflict(text));
            }
            // What other software reads under a name of its own is for whoever knows it to judge.
            Some(_) => {}
        }
        let handed = group.remove_consumer(&name).await?;
        let (moved, trimmed) = (handed.moved.len(), handed.trimmed.len());
        Ok(format!(
            "Removed; {moved} entries are for others to take up, {trimmed} had lost their payload."
        ))
    })
    .await
}
