//! Actions on pending entries and on jobs that wait for a retry.

use axum::extract::Path;
use axum::response::Response;
use streamjobs::ConsumerName;
use streamjobs::stream::{EntryAddress, Group, HandedOver, RetryId};

use super::{ActionRequest, QueuePath, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::{Fields, PostedForm};

pub(crate) async fn claim(Path(queue): QueuePath, form: PostedForm) -> Response {
    let consumer = form.get("consumer").unwrap_or_default().to_owned();
    let target = format!("{} for {consumer}", named(&form));
    let request = ActionRequest::on_group(&form.ctx, &queue, PENDING, Action::Claim, target);
    act(&form.ctx, request, async {
        let (group, ids) = selected(&queue, &form)?;
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

pub(crate) async fn release(Path(queue): QueuePath, form: PostedForm) -> Response {
    let target = named(&form);
    let request = ActionRequest::on_group(&form.ctx, &queue, PENDING, Action::Release, target);
    act(&form.ctx, request, async {
        let (group, ids) = selected(&queue, &form)?;
        Ok(summary(&group.release(&ids).await?, "released: any consumer can claim them now"))
    })
    .await
}

pub(crate) async fn run_now(Path(queue): QueuePath, form: PostedForm) -> Response {
    let ids = form.selected::<RetryId>("Invalid retry id.");
    let count = ids.as_ref().map_or(0, Vec::len);
    let target = format!("{count} jobs that wait for a retry");
    let request =
        ActionRequest::on_group(&form.ctx, &queue, Some("retries"), Action::RunNow, target);
    act(&form.ctx, request, async {
        let ids = ids?;
        if ids.is_empty() {
            return Err(Fault::bad_request("No job is selected."));
        }
        let due = form.ctx.state.group(&queue.0, &queue.1)?.run_now(&ids).await?;
        Ok(match count - due {
            0 => format!("Scheduled {due} jobs to run now."),
            gone => format!("Scheduled {due} jobs to run now. {gone} were no longer waiting."),
        })
    })
    .await
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
    (stream, group): &(String, String),
    form: &PostedForm,
) -> Result<(Group, Vec<EntryAddress>), Fault> {
    let ids = form.ids()?;
    if ids.is_empty() {
        return Err(Fault::bad_request("No entry is selected."));
    }
    let group = form.ctx.state.group(stream, group)?;
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

/// The page that shows the result of an action on pending entries.
const PENDING: Option<&str> = Some("pending");
const NAMED_MAX: usize = 10;
