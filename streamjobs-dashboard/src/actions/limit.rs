//! Actions that set the limit of a group over all processes, or its rate.

use std::num::NonZeroU32;

use axum::extract::Path;
use axum::response::Response;
use streamjobs::Rate;
use streamjobs::stream::{ConsumerInfo, Group};

use super::{ActionRequest, QueuePath, act};
use crate::access::Action;
use crate::fault::Fault;
use crate::form::PostedForm;

/// Sets the number. The audit has it with the reason.
pub(crate) async fn set(Path(queue): QueuePath, form: PostedForm) -> Response {
    let why = form.get("why").unwrap_or("through the dashboard");
    let asked = form.get("limit").unwrap_or_default();
    let target = format!("set_limit {asked}, reason: {why}");
    let request = ActionRequest::on_group(&form.ctx, &queue, None, Action::Pause, target);
    act(&form.ctx, request, async {
        let limit = asked.parse::<NonZeroU32>();
        let limit = limit.map_err(|_| Fault::bad_request("A limit is a number of at least 1."))?;
        let group = form.ctx.state.group(&queue.0, &queue.1)?;
        check_option(&group, form.get("option")).await?;
        let set = group.set_limit(limit, form.ctx.access.who(), why).await?;
        Ok(if set { "Set the limit in all processes." } else { "The limit was set already." }
            .to_owned())
    })
    .await
}

/// Refuses a form that was made for another option than the group has now, because it means another number.
async fn check_option(group: &Group, asked: Option<&str>) -> Result<(), Fault> {
    let consumers = group.consumers().await?;
    let code = ConsumerInfo::latest_with_limit(&consumers).and_then(|latest| latest.limit);
    match (asked, code) {
        (Some(asked), Some(code)) if asked != code.option.as_str() => {
            Err(Fault::conflict(format!("The limit of the group is {} now.", code.option)))
        }
        _ => Ok(()),
    }
}

/// Sets the rate. The audit has it with the reason.
pub(crate) async fn set_rate(Path(queue): QueuePath, form: PostedForm) -> Response {
    let why = form.get("why").unwrap_or("through the dashboard");
    let (asked, burst) = (form.get("rate").unwrap_or_default(), form.get("burst").unwrap_or("1"));
    let target = format!("set_rate {asked}, burst {burst}, reason: {why}");
    let request = ActionRequest::on_group(&form.ctx, &queue, None, Action::Pause, target);
    act(&form.ctx, request, async {
        let rate = asked.parse::<Rate>();
        let rate = rate.map_err(|_| Fault::bad_request(NO_RATE))?;
        let burst = burst.parse::<NonZeroU32>();
        let burst = burst.map_err(|_| Fault::bad_request("A burst is a number of at least 1."))?;
        let rate = rate.burst(burst);
        rate.check().map_err(|_| Fault::bad_request(NO_RATE))?;
        let group = form.ctx.state.group(&queue.0, &queue.1)?;
        let set = group.set_rate(Some(rate.into())).await?;
        Ok(if set { "Set the rate in all processes." } else { "The rate was set already." }
            .to_owned())
    })
    .await
}

pub(crate) async fn reset(Path(queue): QueuePath, form: PostedForm) -> Response {
    let request = ActionRequest::on_group(&form.ctx, &queue, None, Action::Pause, "reset_limit");
    act(&form.ctx, request, async {
        let reset = form.ctx.state.group(&queue.0, &queue.1)?.reset_limit().await?;
        Ok(if reset { "The limit in the code applies again." } else { "No limit was set." }
            .to_owned())
    })
    .await
}

const NO_RATE: &str = "A rate is a number of starts and a time of 1 ms to 30 d, such as 100/1m: at most 100,000 starts in \
                       a second, and a burst that the rate allows within 365 d.";
