//! Actions on a group and on its consumers.

use axum::extract::{Path, State};
use axum::response::Response;
use streamjobs::ConsumerName;
use streamjobs::stream::Liveness;

use super::{ActionRequest, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::PostedForm;
use crate::request::RequestContext;
use crate::state::Shared;

type QueuePath = Path<(String, String)>;

fn action_request(
    ctx: &RequestContext,
    (stream, group): &(String, String),
    action: Action,
    target: &str,
) -> ActionRequest {
    let back = ctx.base.to(&["streams", stream, "groups", group]);
    let queue = Some((stream.clone(), group.clone()));
    ActionRequest { action, queue, target: target.to_owned(), back }
}

pub(crate) async fn pause(
    State(state): State<Shared>,
    ctx: RequestContext,
    Path(queue): QueuePath,
    _form: PostedForm,
) -> Response {
    act(&ctx, &state, action_request(&ctx, &queue, Action::Pause, "pause"), async {
        let paused = state.group(&queue.0, &queue.1)?.pause().await?;
        Ok(if paused { "Paused in all processes." } else { "The group was already paused." }
            .to_owned())
    })
    .await
}

pub(crate) async fn resume(
    State(state): State<Shared>,
    ctx: RequestContext,
    Path(queue): QueuePath,
    _form: PostedForm,
) -> Response {
    act(&ctx, &state, action_request(&ctx, &queue, Action::Pause, "resume"), async {
        let resumed = state.group(&queue.0, &queue.1)?.resume().await?;
        Ok(if resumed { "Resumed." } else { "The group was not paused." }.to_owned())
    })
    .await
}

pub(crate) async fn reap(
    State(state): State<Shared>,
    ctx: RequestContext,
    Path(queue): QueuePath,
    _form: PostedForm,
) -> Response {
    act(&ctx, &state, action_request(&ctx, &queue, Action::Reap, "claim_idle"), async {
        state.group(&queue.0, &queue.1)?.reap_now().await?;
        Ok("Asked all processes of the group to claim idle entries now.".to_owned())
    })
    .await
}

pub(crate) async fn remove_consumer(
    State(state): State<Shared>,
    ctx: RequestContext,
    Path((stream, group, consumer)): Path<(String, String, String)>,
    _form: PostedForm,
) -> Response {
    let queue = (stream, group);
    act(&ctx, &state, action_request(&ctx, &queue, Action::RemoveConsumer, &consumer), async {
        let group = state.group(&queue.0, &queue.1)?;
        let name = ConsumerName::new(&consumer)?;
        let consumers = group.consumers().await?;
        let found = consumers.iter().find(|found| found.name == consumer);
        match found.map(|found| found.liveness) {
            None => return Err(Fault::not_found("The group does not have this consumer.")),
            Some(Liveness::Alive) => {
                let text =
                    "The consumer is alive. Stop its process instead; it removes its consumer.";
                return Err(Fault::conflict(text));
            }
            // A consumer of other software sends no heartbeat; the user decides.
            Some(_) => {}
        }
        let result = group.remove_consumer(&name).await?;
        let (moved, trimmed) = (result.moved.len(), result.trimmed.len());
        Ok(format!("Removed the consumer. Released {moved} entries; {trimmed} had been trimmed."))
    })
    .await
}
