//! Actions on pending entries and on jobs that wait for a retry.

use axum::extract::{Path, State};
use axum::response::Response;
use streamjobs::stream::{Group, HandedOver, RetryId};
use streamjobs::{ConsumerName, EntryId};

use super::{ActionRequest, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::{Fields, PostedForm};
use crate::request::RequestContext;
use crate::state::Shared;

type QueuePath = Path<(String, String)>;

pub(crate) async fn claim(
    State(state): State<Shared>,
    ctx: RequestContext,
    Path(queue): QueuePath,
    form: PostedForm,
) -> Response {
    let consumer = form.get("consumer").unwrap_or_default().to_owned();
    let target = format!("{} for {consumer}", named(&form));
    act(&ctx, &state, action_request(&ctx, &queue, Action::Claim, target), async {
        let (group, ids) = selected(&state, &queue, &form)?;
        let consumer = ConsumerName::new(&consumer)?;
        // Claiming for an unknown name would create a consumer without a process.
        let consumers = group.consumers().await?;
        if !consumers.iter().any(|known| known.name == consumer.as_str()) {
            return Err(Fault::not_found("The group does not have this consumer."));
        }
        Ok(summary(&group.claim(&ids, &consumer).await?, &format!("moved to {consumer}")))
    })
    .await
}

pub(crate) async fn release(
    State(state): State<Shared>,
    ctx: RequestContext,
    Path(queue): QueuePath,
    form: PostedForm,
) -> Response {
    act(&ctx, &state, action_request(&ctx, &queue, Action::Release, named(&form)), async {
        let (group, ids) = selected(&state, &queue, &form)?;
        Ok(summary(&group.release(&ids).await?, "released: any consumer can claim them now"))
    })
    .await
}

pub(crate) async fn run_now(
    State(state): State<Shared>,
    ctx: RequestContext,
    Path(queue): QueuePath,
    form: PostedForm,
) -> Response {
    let ids = form.selected::<RetryId>("Invalid retry id.");
    let count = ids.as_ref().map_or(0, Vec::len);
    let mut request =
        action_request(&ctx, &queue, Action::RunNow, format!("{count} jobs that wait for a retry"));
    request.back = ctx.base.to(&["streams", &queue.0, "groups", &queue.1, "retries"]);
    act(&ctx, &state, request, async {
        let ids = ids?;
        if ids.is_empty() {
            return Err(Fault::bad_request("No job is selected."));
        }
        let due = state.group(&queue.0, &queue.1)?.run_now(&ids).await?;
        Ok(match count - due {
            0 => format!("Scheduled {due} jobs to run now."),
            gone => format!("Scheduled {due} jobs to run now. {gone} were no longer waiting."),
        })
    })
    .await
}

fn action_request(
    ctx: &RequestContext,
    (stream, group): &(String, String),
    action: Action,
    target: String,
) -> ActionRequest {
    let back = ctx.base.to(&["streams", stream, "groups", group, "pending"]);
    ActionRequest { action, queue: Some((stream.clone(), group.clone())), target, back }
}

/// The selected entries, as text for the audit.
fn named(form: &Fields) -> String {
    let Ok(ids) = form.ids() else { return "invalid entry ids".to_owned() };
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
        return Err(Fault::bad_request("No entry is selected."));
    }
    let group = state.group(stream, group)?;
    Ok((if form.get("lane").is_some() { group.lane() } else { group }, ids))
}

fn summary(result: &HandedOver, what: &str) -> String {
    let mut text = format!("{} entries {what}.", result.moved.len());
    let rest = [
        (result.trimmed.len(), "had been trimmed and are dead letters now"),
        (result.missing.len(), "were not pending"),
        (
            result.unstored.len(),
            "had been trimmed and stay pending, because the key for dead letters has another type",
        ),
    ];
    for (count, what) in rest.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(" {count} {what}."));
    }
    text
}

const NAMED_MAX: usize = 10;
