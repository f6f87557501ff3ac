//! What changes something: permission first, then the deed, then the audit, then back to the page.

#[cfg(feature = "postgres")]
pub(crate) mod archive;
pub(crate) mod entries;
pub(crate) mod group;
pub(crate) mod letters;

use std::future::Future;
use std::time::SystemTime;

use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};

use crate::access::Action;
use crate::audit::Audited;
use crate::fault::Fault;
use crate::guard::set_cookie;
use crate::layout;
use crate::notice;
use crate::state::Shared;
use crate::visit::Visit;

/// Something that somebody wants done.
#[derive(Debug)]
pub(crate) struct Deed {
    pub(crate) action: Action,
    /// The stream and the group, if it is about one.
    pub(crate) place: Option<(String, String)>,
    /// To what it is done, in words.
    pub(crate) target: String,
    /// The page that follows it, from the address that was posted to.
    pub(crate) back: String,
}

/// Does it, if they may: the answer leads back to its page, which tells what came of it.
///
/// A browser that goes away can cut it off between two steps, each of which is whole in itself. The
/// audit tells of that, too.
pub(crate) async fn act(
    visit: &Visit,
    state: &Shared,
    deed: Deed,
    work: impl Future<Output = Result<String, Fault>>,
) -> Response {
    let back = deed.back.clone();
    let mut begun = Begun { visit, state, deed, over: false };
    if !visit.access.may(begun.deed.action) {
        let fault = Fault::forbidden("You may look at this, and not change it.");
        begun.note(Err(fault.text.clone()));
        return layout::failed(visit, state, &fault);
    }
    match work.await {
        Ok(outcome) => {
            let mut response = (StatusCode::SEE_OTHER, [(LOCATION, back)]).into_response();
            set_cookie(response.headers_mut(), &notice::leave(&outcome));
            begun.note(Ok(outcome));
            response
        }
        Err(fault) => {
            begun.note(Err(fault.text.clone()));
            layout::failed(visit, state, &fault)
        }
    }
}

/// A deed whose end is noted, whatever that is.
struct Begun<'a> {
    visit: &'a Visit,
    state: &'a Shared,
    deed: Deed,
    over: bool,
}

impl Begun<'_> {
    fn note(&mut self, outcome: Result<String, String>) {
        self.over = true;
        self.state.audit.note(Audited {
            at: SystemTime::now(),
            who: self.visit.access.who().to_owned(),
            action: self.deed.action,
            place: self.deed.place.clone(),
            target: self.deed.target.clone(),
            outcome,
        });
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.note(Err(
                "the browser went away; it may have been done, or a part of it".to_owned()
            ));
        }
    }
}
