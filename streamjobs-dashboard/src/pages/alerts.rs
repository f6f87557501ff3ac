//! Problems now, recent alerts, and recent actions.

use axum::response::Response;
use maud::{Markup, html};

use crate::access::Action;
use crate::alerts::RecordedAlert;
use crate::audit::Audited;
use crate::fault::Fault;
use crate::format::{self, Untrusted};
use crate::layout::{View, empty};
use crate::live;
use crate::pages::{group_parts, overview};
use crate::request::RequestContext;

pub(crate) async fn show(ctx: RequestContext) -> Response {
    live::render_or_follow(ctx, (), |ctx, ()| Box::pin(view(ctx))).await
}

async fn view(ctx: &RequestContext) -> Result<View, Fault> {
    let snapshot = ctx.state.sampler.sample().await;
    let trail = vec![("Overview".to_owned(), ctx.base.root())];
    let mut recent = ctx.state.alerts.latest();
    recent.retain(|recorded| ctx.state.may_show(&recorded.alert.stream));
    let body = html! {
        h1 { "Alerts" }
        h2 { "Problems now" }
        (overview::banner(ctx, &snapshot))
        h2 { "Recent alerts of this process" }
        (alerts(ctx, &recent))
        h2 { "Recent actions in this dashboard" }
        (actions(&ctx.state.audit.latest()))
    };
    Ok(View { title: "Alerts".to_owned(), trail, body })
}

fn alerts(ctx: &RequestContext, alerts: &[RecordedAlert]) -> Markup {
    html! {
        @if alerts.is_empty() {
            (empty("No alerts since this process started, or no runtime is connected to this dashboard."))
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Alerts" { table {
                thead { tr { th scope="col" { "When" } th scope="col" { "Alert" } th scope="col" { "Group" } th scope="col" { "Details" } } }
                tbody { @for RecordedAlert { at, alert } in alerts {
                    tr data-alert=(alert.condition.as_str()) {
                        td { (format::when_at(*at)) }
                        td {
                            @if alert.raised { span.state.bad { (alert.condition.as_str()) } }
                            @else { span.state { (alert.condition.as_str()) " resolved" } }
                        }
                        td { a href=(group_parts::link(&ctx.base, &alert.stream, &alert.group)) {
                            (Untrusted(&alert.group)) " on " (Untrusted(&alert.stream))
                        } }
                        td { (Untrusted(&alert.text)) }
                    }
                } }
            } }
        }
    }
}

fn actions(actions: &[Audited]) -> Markup {
    html! {
        @if actions.is_empty() {
            (empty("No actions since this process started. All actions are logged with the target streamjobs::audit."))
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Actions" { table {
                thead { tr { th scope="col" { "When" } th scope="col" { "User" } th scope="col" { "Action" } th scope="col" { "Group" } th scope="col" { "Target" } th scope="col" { "Result" } } }
                tbody { @for action in actions {
                    tr data-action=(action.action) {
                        td { (format::when_at(action.at)) }
                        td { (Untrusted(&action.who)) }
                        td { (action.action) }
                        td { (subject(action)) }
                        td { (Untrusted(&action.target)) }
                        td { @match &action.outcome {
                            Ok(outcome) => (Untrusted(outcome)),
                            Err(error) => { span.bad-number { (Untrusted(error)) } },
                        } }
                    }
                } }
            } }
        }
    }
}

/// The group, or the archive. For scheduled events, schedules and cancels in all groups there is no
/// group; the target names their stream.
fn subject(action: &Audited) -> Markup {
    html! {
        @match (&action.queue, action.action) {
            (Some((stream, group)), _) => { (Untrusted(group)) " on " (Untrusted(stream)) },
            (None, Action::Redrive | Action::Purge) => "archive",
            (None, _) => "–",
        }
    }
}
