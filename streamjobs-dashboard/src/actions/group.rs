//! Actions on a group and on its consumers.

use axum::extract::Path;
use axum::response::Response;
use streamjobs::ConsumerName;
use streamjobs::stream::{Liveness, SetRate};

use super::{ActionRequest, QueuePath, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::PostedForm;

pub(crate) async fn pause(Path(queue): QueuePath, form: PostedForm) -> Response {
    let request = ActionRequest::on_group(&form.ctx, &queue, None, Action::Pause, "pause");
    act(&form.ctx, request, async {
        let paused = form.ctx.state.group(&queue.0, &queue.1)?.pause().await?;
        Ok(if paused { "Paused in all processes." } else { "The group was already paused." }
            .to_owned())
    })
    .await
}

pub(crate) async fn resume(Path(queue): QueuePath, form: PostedForm) -> Response {
    let request = ActionRequest::on_group(&form.ctx, &queue, None, Action::Pause, "resume");
    act(&form.ctx, request, async {
        let resumed = form.ctx.state.group(&queue.0, &queue.1)?.resume().await?;
        Ok(if resumed { "Resumed." } else { "The group was not paused." }.to_owned())
    })
    .await
}

pub(crate) async fn lift_rate(Path(queue): QueuePath, form: PostedForm) -> Response {
    let request = ActionRequest::on_group(&form.ctx, &queue, None, Action::Pause, "lift_rate");
    act(&form.ctx, request, async {
        let group = form.ctx.state.group(&queue.0, &queue.1)?;
        let lifted = group.set_rate(Some(SetRate::Unlimited)).await?;
        Ok(if lifted { "Lifted the rate in all processes." } else { "There was no rate." }
            .to_owned())
    })
    .await
}

pub(crate) async fn reset_rate(Path(queue): QueuePath, form: PostedForm) -> Response {
    let request = ActionRequest::on_group(&form.ctx, &queue, None, Action::Pause, "reset_rate");
    act(&form.ctx, request, async {
        let reset = form.ctx.state.group(&queue.0, &queue.1)?.set_rate(None).await?;
        Ok(if reset { "The rate in the code applies again." } else { "No rate was set." }
            .to_owned())
    })
    .await
}

pub(crate) async fn reap(Path(queue): QueuePath, form: PostedForm) -> Response {
    let request = ActionRequest::on_group(&form.ctx, &queue, None, Action::Reap, "claim_idle");
    act(&form.ctx, request, async {
        form.ctx.state.group(&queue.0, &queue.1)?.reap_now().await?;
        Ok("Asked all processes of the group to claim idle entries now.".to_owned())
    })
    .await
}

pub(crate) async fn remove_consumer(
    Path((stream, group, consumer)): Path<(String, String, String)>,
    form: PostedForm,
) -> Response {
    let queue = (stream, group);
    let request =
        ActionRequest::on_group(&form.ctx, &queue, None, Action::RemoveConsumer, &consumer);
    act(&form.ctx, request, async {
        let group = form.ctx.state.group(&queue.0, &queue.1)?;
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
