//! Actions: check the permission, act, record the audit event, redirect to the page.

#[cfg(feature = "postgres")]
pub(crate) mod archive;
pub(crate) mod dead;
pub(crate) mod entries;
pub(crate) mod event;
pub(crate) mod group;
pub(crate) mod limit;
pub(crate) mod scheduled;
pub(crate) mod schedules;

use std::future::Future;
use std::time::SystemTime;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};

use crate::access::Action;
use crate::audit::Audited;
use crate::fault::Fault;
use crate::guard::set_cookie;
use crate::request::RequestContext;
use crate::{layout, notice};

/// The stream and the group in an address.
pub(crate) type QueuePath = Path<(String, String)>;

/// An action that a user requests.
#[derive(Debug)]
pub(crate) struct ActionRequest {
    pub(crate) action: Action,
    /// The stream and the group, if the action is on a group.
    pub(crate) queue: Option<(String, String)>,
    /// What it applies to, as text for the audit.
    pub(crate) target: String,
    /// The page to redirect to, relative to the address of the form.
    pub(crate) back: String,
}

impl ActionRequest {
    /// An action on a group. Its result is shown on the group's page, or on a page below it.
    fn on_group(
        ctx: &RequestContext,
        (stream, group): &(String, String),
        page: Option<&str>,
        action: Action,
        target: impl Into<String>,
    ) -> Self {
        let path = ["streams", stream, "groups", group];
        let back = ctx.base.to(&[&path[..], page.as_slice()].concat());
        let queue = Some((stream.clone(), group.clone()));
        Self { action, queue, target: target.into(), back }
    }
}

/// Runs `work` if the user has the permission, and redirects to the request's page with the result.
///
/// A browser that disconnects cancels `work` between two of its steps, each of which is complete in
/// itself. The audit records that as well.
pub(crate) async fn act(
    ctx: &RequestContext,
    request: ActionRequest,
    work: impl Future<Output = Result<String, Fault>>,
) -> Response {
    let back = request.back.clone();
    let mut guard = AuditGuard { ctx, request, recorded: false };
    if !ctx.access.may(guard.request.action) {
        let fault = Fault::forbidden("You do not have permission for this action.");
        guard.record(Err(fault.text.clone()));
        return layout::error_page(ctx, &fault);
    }
    match work.await {
        Ok(outcome) => {
            let mut response = (StatusCode::SEE_OTHER, [(LOCATION, back)]).into_response();
            set_cookie(response.headers_mut(), &notice::set(&outcome));
            guard.record(Ok(outcome));
            response
        }
        Err(fault) => {
            guard.record(Err(fault.text.clone()));
            layout::error_page(ctx, &fault)
        }
    }
}

/// Records how an action ended, even if its request is cancelled.
struct AuditGuard<'a> {
    ctx: &'a RequestContext,
    request: ActionRequest,
    recorded: bool,
}

impl AuditGuard<'_> {
    fn record(&mut self, outcome: Result<String, String>) {
        self.recorded = true;
        self.ctx.state.audit.record(Audited {
            at: SystemTime::now(),
            who: self.ctx.access.who().to_owned(),
            action: self.request.action,
            queue: self.request.queue.clone(),
            target: self.request.target.clone(),
            outcome,
        });
    }
}

impl Drop for AuditGuard<'_> {
    fn drop(&mut self) {
        if !self.recorded {
            self.record(Err(
                "the browser disconnected; the action may have been done in part or in whole"
                    .to_owned(),
            ));
        }
    }
}
