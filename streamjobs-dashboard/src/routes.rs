//! The router: which address leads to which page or action.

use axum::extract::{DefaultBodyLimit, Query};
use axum::http::header::LOCATION;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};

use crate::fault::Fault;
use crate::form::Fields;
use crate::guard::guard;
use crate::request::RequestContext;
use crate::state::Shared;
use crate::{actions, assets, layout, pages};

/// All routes, behind the guard.
pub(crate) fn of(state: Shared) -> Router {
    let guarded = middleware::from_fn_with_state(state, guard);
    let pages = Router::new()
        .route("/", get(pages::overview::show))
        .route("/overview", get(pages::overview::show))
        .route("/assets/{name}", get(assets::serve))
        .route("/alerts", get(pages::alerts::show))
        .route("/dead", get(pages::dead_all::show))
        .route("/processes", get(pages::processes::show))
        .route("/trends", get(pages::trends::show))
        .route("/streams/{stream}", get(pages::stream::show))
        .route("/streams/{stream}/replay", get(pages::stream::replay))
        .route("/streams/{stream}/find", get(pages::find::show))
        .route("/streams/{stream}/event", get(pages::event::show))
        .route("/streams/{stream}/event/cancel", post(actions::event::cancel))
        .route("/streams/{stream}/event/uncancel", post(actions::event::uncancel))
        .route("/streams/{stream}/scheduled", get(pages::scheduled::show))
        .route("/streams/{stream}/scheduled/cancel", post(actions::scheduled::cancel))
        .route("/streams/{stream}/scheduled/run-now", post(actions::scheduled::run_now))
        .route("/streams/{stream}/schedules", get(pages::schedules::show))
        .route("/streams/{stream}/schedules/run-now", post(actions::schedules::run_now))
        .route("/streams/{stream}/schedules/pause", post(actions::schedules::pause))
        .route("/streams/{stream}/schedules/resume", post(actions::schedules::resume))
        .nest("/streams/{stream}/groups/{group}", group());
    #[cfg(feature = "postgres")]
    let pages = pages.nest("/archive", archive());
    pages.fallback(not_found).layer(DefaultBodyLimit::max(BODY_MAX)).layer(guarded)
}

/// Routes below one group.
fn group() -> Router {
    Router::new()
        .route("/", get(pages::group::show))
        .route("/pause", post(actions::group::pause))
        .route("/resume", post(actions::group::resume))
        .route("/rate/lift", post(actions::group::lift_rate))
        .route("/rate/set", post(actions::limit::set_rate))
        .route("/rate/reset", post(actions::group::reset_rate))
        .route("/limit/set", post(actions::limit::set))
        .route("/limit/reset", post(actions::limit::reset))
        .route("/reap", post(actions::group::reap))
        .route("/consumers/{consumer}/remove", post(actions::group::remove_consumer))
        .route("/pending", get(pages::pending::show))
        .route("/pending/claim", post(actions::entries::claim))
        .route("/pending/release", post(actions::entries::release))
        .route("/retries", get(pages::retries::show))
        .route("/retries/run-now", post(actions::entries::run_now))
        .route("/finished", get(pages::finished::show))
        .route("/dead", get(pages::dead::show))
        .route("/dead/redrive", post(actions::dead::redrive))
        .route("/dead/purge", post(actions::dead::purge))
        .route("/dead/{letter}", get(pages::dead::one))
}

/// Routes of the archive.
#[cfg(feature = "postgres")]
fn archive() -> Router {
    Router::new()
        .route("/", get(pages::archive::show))
        .route("/redrive", post(actions::archive::redrive))
        .route("/resume", post(actions::archive::resume))
        .route("/forget", post(actions::archive::forget))
        .route("/{letter}", get(pages::archive::one))
}

/// Also answers at the mount path with a trailing slash, if the application passes it on, and redirects from an
/// address with a trailing slash to the address without it.
async fn not_found(
    ctx: RequestContext,
    method: Method,
    uri: Uri,
    Query(asked): Query<Vec<(String, String)>>,
) -> Response {
    let path = uri.path();
    if path.trim_matches('/').is_empty() {
        return pages::overview::render(ctx, Fields(asked)).await;
    }
    if method == Method::GET
        && let Some(to) = without_slash(path)
    {
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        return (StatusCode::PERMANENT_REDIRECT, [(LOCATION, format!("{to}{query}"))])
            .into_response();
    }
    layout::error_page(&ctx, &Fault::not_found("There is no page at this address."))
}

/// The address without its trailing slash, relative to the address with it.
fn without_slash(path: &str) -> Option<String> {
    let (_, last) = path.strip_suffix('/')?.rsplit_once('/')?;
    (!last.is_empty() && last != "." && last != "..").then(|| format!("../{last}"))
}

const BODY_MAX: usize = 64 * 1024;
