//! The past attempts at a job.

use maud::{Markup, html};
use streamjobs::dead_letter::{AttemptHistory, PastAttempt};

use crate::format::{self, Untrusted};
use crate::pages::retries::error;
use crate::request::RequestContext;

/// A table of the attempts below a heading; nothing if no attempt is known.
pub(crate) fn past(ctx: &RequestContext, heading: &Markup, history: &AttemptHistory) -> Markup {
    html! {
        @if !history.is_empty() {
            h2 { (heading) }
            @if history.left_out > 0 { p.soft { (format::count(history.left_out)) " earlier attempts are not kept." } }
            div.scroll tabindex="0" role="region" aria-label="Past attempts" { table.attempts {
                thead { tr {
                    th.number scope="col" { "Attempt" } th scope="col" { "Began" } th.number scope="col" { "Ran" } th scope="col" { "Ended" } th scope="col" { "Process" } th scope="col" { "Retry" } th scope="col" { "Error" }
                } }
                tbody { @for attempt in &history.attempts { (row(ctx, attempt)) } }
            } }
        }
    }
}

fn row(ctx: &RequestContext, past: &PastAttempt) -> Markup {
    html! {
        tr data-end=(past.end.as_str()) {
            td.number { (past.attempt) }
            td { (format::when_exactly(past.began)) }
            td.number { (format::span(past.took)) }
            td {
                (past.end.as_str())
                @if past.lost_before() > 0 {
                    br; span.soft { (past.lost_before()) " earlier deliveries ended without an outcome: the process died, or lost its lease" }
                }
            }
            td { (Untrusted(&past.process)) }
            td { @match past.retry_at {
                Some(at) => { (format::when_exactly(at)) },
                None => { "none: a dead letter" },
            } }
            td { @if past.error.is_some() { (error(ctx, past.error.as_deref())) } }
        }
    }
}
