//! What somebody should look at, what was over again, and what was done here.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use crate::alerts::Noted;
use crate::audit::Audited;
use crate::format::{self, Foreign};
use crate::layout::{View, nothing};
use crate::live;
use crate::pages::overview;
use crate::state::Shared;
use crate::visit::Visit;

pub(crate) async fn show(State(state): State<Shared>, visit: Visit) -> Response {
    live::show(visit, state, (), |state, visit, ()| async move {
        let snapshot = state.sampler.look().await;
        let trail = vec![("Overview".to_owned(), visit.base.root())];
        let body = html! {
            h1 { "Alerts" }
            h2 { "Now" }
            (overview::banner(&visit.base, &snapshot))
            h2 { "Alerts of this process" }
            (alerts(&visit, &state.alerts.latest()))
            h2 { "Done through this dashboard" }
            (deeds(&state.audit.latest()))
        };
        Ok(View { title: "Alerts".to_owned(), trail, body })
    })
    .await
}

fn alerts(visit: &Visit, alerts: &[Noted]) -> Markup {
    html! {
        @if alerts.is_empty() {
            (nothing("None has come since this process started, or its runtime does not tell this dashboard."))
        } @else {
            div.scroll { table {
                thead { tr { th { "When" } th { "Alert" } th { "Group" } th { "What" } } }
                tbody { @for Noted { at, alert } in alerts {
                    tr data-alert=(alert.condition.as_str()) {
                        td { (moment(*at)) }
                        td {
                            @if alert.raised { span.state.bad { (alert.condition.as_str()) } }
                            @else { span.state { (alert.condition.as_str()) " over" } }
                        }
                        td { a href=(overview::link(&visit.base, &alert.stream, &alert.group)) {
                            (Foreign(&alert.group)) " on " (Foreign(&alert.stream))
                        } }
                        td { (Foreign(&alert.text)) }
                    }
                } }
            } }
        }
    }
}

fn deeds(deeds: &[Audited]) -> Markup {
    html! {
        @if deeds.is_empty() {
            (nothing("Nothing since this process started. The log has all of it under streamjobs::audit."))
        } @else {
            div.scroll { table {
                thead { tr { th { "When" } th { "Who" } th { "What" } th { "Where" } th { "Of what" } th { "Outcome" } } }
                tbody { @for deed in deeds {
                    tr data-action=(deed.action) {
                        td { (moment(deed.at)) }
                        td { (Foreign(&deed.who)) }
                        td { (deed.action) }
                        td { @if let Some((stream, group)) = &deed.place { (Foreign(group)) " on " (Foreign(stream)) } @else { "archive" } }
                        td { (Foreign(&deed.target)) }
                        td { @match &deed.outcome {
                            Ok(outcome) => (Foreign(outcome)),
                            Err(error) => { span.bad-number { (Foreign(error)) } },
                        } }
                    }
                } }
            } }
        }
    }
}

fn moment(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    format::moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
