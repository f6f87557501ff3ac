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
use crate::guard::set_cookie;
use crate::layout;
use crate::notice;
use crate::state::Shared;
use crate::trouble::Trouble;
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
/// The deed is done in full even if the browser goes away meanwhile, as far as the server that runs
/// this does not drop its handlers; each step on Redis is whole in itself either way.
pub(crate) async fn act(
    visit: &Visit,
    state: &Shared,
    deed: Deed,
    work: impl Future<Output = Result<String, Trouble>>,
) -> Response {
    if !visit.access.may(deed.action) {
        let trouble = Trouble::forbidden("You may look at this, and not change it.");
        note(visit, state, deed, Err(trouble.text.clone()));
        return layout::failed(visit, state, &trouble);
    }
    match work.await {
        Ok(outcome) => {
            let mut response =
                (StatusCode::SEE_OTHER, [(LOCATION, deed.back.clone())]).into_response();
            set_cookie(response.headers_mut(), &notice::leave(&outcome));
            note(visit, state, deed, Ok(outcome));
            response
        }
        Err(trouble) => {
            note(visit, state, deed, Err(trouble.text.clone()));
            layout::failed(visit, state, &trouble)
        }
    }
}

fn note(visit: &Visit, state: &Shared, deed: Deed, outcome: Result<String, String>) {
    state.audit.note(Audited {
        at: SystemTime::now(),
        who: visit.access.who().to_owned(),
        action: deed.action,
        place: deed.place,
        target: deed.target,
        outcome,
    });
}
