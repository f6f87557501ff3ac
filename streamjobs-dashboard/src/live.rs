//! Answers with a page, or with an event stream of its changes.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::fault::Fault;
use crate::layout::{self, View};
use crate::request::RequestContext;

/// Renders a page, given the request and what its address asks for.
type Renderer<A> = for<'a> fn(&'a RequestContext, &'a A) -> BoxFuture<'a, Result<View, Fault>>;

/// A requested page.
struct Page<A> {
    ctx: RequestContext,
    asked: A,
    view: Renderer<A>,
}

impl<A> Page<A> {
    async fn render(&self) -> Result<View, Fault> {
        within_budget(&self.ctx.state.budget, (self.view)(&self.ctx, &self.asked)).await
    }
}

/// Answers with the page. A browser that accepts `text/event-stream` gets the page's body instead, each
/// time it changes.
///
/// Each rendering calls `view` with `asked`.
///
/// An event stream lasts 20 seconds at most, after which the browser reconnects. This bounds how long a user whose
/// access was revoked still sees updates, and how long a graceful stop of the server takes.
pub(crate) async fn render_or_follow<A: Send + Sync + 'static>(
    ctx: RequestContext,
    asked: A,
    view: Renderer<A>,
) -> Response {
    let page = Page { ctx, asked, view };
    if page.ctx.follows {
        return follow(page);
    }
    match page.render().await {
        Ok(view) => layout::page(&page.ctx, &view),
        Err(fault) => layout::error_page(&page.ctx, &fault),
    }
}

/// Renders a page once a permit is free. If none is free within ten seconds, because the server is slow
/// or too many pages are requested, this fails rather than waiting longer.
async fn within_budget<T>(
    budget: &Semaphore,
    page: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    // The semaphore is never closed, so an error can only be the timeout.
    let Ok(Ok(_permit)) = timeout(TURN_MAX, budget.acquire()).await else {
        return Err(Fault::overloaded(
            "The page was not rendered within 10 s: too many pages are requested at once, or Redis \
             answers slowly.",
        ));
    };
    page.await
}

struct PageFeed<A> {
    page: Page<A>,
    until: Instant,
    last: Option<String>,
    _permit: OwnedSemaphorePermit,
}

fn follow<A: Send + Sync + 'static>(page: Page<A>) -> Response {
    let Ok(permit) = Arc::clone(&page.ctx.state.followers).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Too many pages are open with live updates.")
            .into_response();
    };
    let until = Instant::now() + FOLLOWED_MAX;
    let feed = PageFeed { page, until, last: None, _permit: permit };
    let events = stream::unfold(feed, |mut feed| async move {
        let event = feed.next().await?;
        Some((Ok::<_, Infallible>(event), feed))
    });
    Sse::new(events).into_response()
}

impl<A> PageFeed<A> {
    /// The next event: the page's body if it has changed, otherwise a short event that says that it has
    /// not.
    async fn next(&mut self) -> Option<Event> {
        if self.last.is_some() {
            let every = self.page.ctx.state.refresh;
            if Instant::now() + every > self.until {
                return None;
            }
            sleep(every).await;
        }
        let (kind, text) = match self.page.render().await {
            Ok(view) => ("page", view.body.into_string()),
            Err(fault) => ("fault", layout::fault_box(&fault).into_string()),
        };
        let event = if self.last.as_deref() == Some(&text) {
            Event::default().event("same").data("")
        } else {
            Event::default().event(kind).data(&text)
        };
        self.last = Some(text);
        Some(event.retry(RETRY))
    }
}

const FOLLOWED_MAX: Duration = Duration::from_secs(20);
/// How long a page may wait for a permit.
const TURN_MAX: Duration = Duration::from_secs(10);
/// How long a browser waits before it reconnects.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    async fn page() -> Result<&'static str, Fault> {
        Ok("a page")
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_without_a_permit_in_time_fails_with_a_reason() {
        let (budget, start) = (Semaphore::new(1), Instant::now());
        let stuck = budget.acquire().await.unwrap();
        let fault = within_budget(&budget, page()).await.unwrap_err();
        assert_eq!((fault.status, start.elapsed()), (StatusCode::SERVICE_UNAVAILABLE, TURN_MAX));
        assert!(fault.text.contains("within 10 s"), "{}", fault.text);
        drop(stuck);
        assert_eq!(
            within_budget(&budget, page()).await,
            Ok("a page"),
            "a page that gave up keeps no permit"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_has_its_permit_is_not_timed_out() {
        let budget = Semaphore::new(1);
        let slow = async {
            sleep(2 * TURN_MAX).await;
            page().await
        };
        assert_eq!(within_budget(&budget, slow).await, Ok("a page"));
    }
}
