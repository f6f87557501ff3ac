//! A page, once or as it changes.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::fault::Fault;
use crate::layout::{self, View};
use crate::state::Shared;
use crate::visit::Visit;

/// What makes a page, as often as it is asked to.
type Maker =
    dyn Fn() -> Pin<Box<dyn Future<Output = Result<View, Fault>> + Send>> + Send + Sync + 'static;

/// Answers with the page; or, to a browser that follows it, with its changing part again and again.
///
/// What is asked for is handed to the view each time.
///
/// A page is followed for 20 seconds at most. Then the browser asks again and is looked at again, so
/// that nobody sees more than they may for long, and a server that is to stop has not to wait.
pub(crate) async fn show<A, F, Fut>(visit: Visit, state: Shared, asked: A, view: F) -> Response
where
    A: Clone + Send + Sync + 'static,
    F: Fn(Shared, Visit, A) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<View, Fault>> + Send + 'static,
{
    let (shared, visitor) = (Arc::clone(&state), visit.clone());
    let maker: Box<Maker> = Box::new(move || {
        let state = Arc::clone(&shared);
        let page = view(Arc::clone(&shared), visitor.clone(), asked.clone());
        Box::pin(async move { within_budget(&state.budget, page).await })
    });
    if visit.follows {
        return follow(&state, maker);
    }
    match maker().await {
        Ok(view) => layout::page(&visit, &state, &view),
        Err(fault) => layout::failed(&visit, &state, &fault),
    }
}

/// Makes a page when it is its turn. Where the server is slow, those before it may take so long that
/// an answer is better than a place in the queue.
async fn within_budget<T>(
    budget: &Semaphore,
    page: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    // It is never closed: what does not come is only late.
    let Ok(Ok(_permit)) = timeout(TURN_MAX, budget.acquire()).await else {
        return Err(Fault::unavailable(
            "Its turn did not come within 10 s: too many pages are being made at once, or the server \
             is slow to answer.",
        ));
    };
    page.await
}

struct Following {
    maker: Box<Maker>,
    until: Instant,
    every: Duration,
    last: Option<String>,
    _place: OwnedSemaphorePermit,
}

fn follow(state: &Shared, maker: Box<Maker>) -> Response {
    let Ok(place) = Arc::clone(&state.followers).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Too many pages are followed.").into_response();
    };
    let until = Instant::now() + FOLLOWED_MAX;
    let following = Following { maker, until, every: state.refresh, last: None, _place: place };
    let events = stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok::<_, Infallible>(event), following))
    });
    Sse::new(events).into_response()
}

impl Following {
    /// What is to be told next: the page if it has changed, else only that it has not.
    async fn next(&mut self) -> Option<Event> {
        if self.last.is_some() {
            if Instant::now() + self.every > self.until {
                return None;
            }
            sleep(self.every).await;
        }
        let (kind, text) = match (self.maker)().await {
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
/// How long a page may wait until it is made.
const TURN_MAX: Duration = Duration::from_secs(10);
/// How long a browser waits before it asks again.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    async fn page() -> Result<&'static str, Fault> {
        Ok("a page")
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_does_not_get_its_turn_in_time_is_refused_with_its_reason() {
        let (budget, began) = (Semaphore::new(1), Instant::now());
        let stuck = budget.acquire().await.unwrap();
        let fault = within_budget(&budget, page()).await.unwrap_err();
        assert_eq!((fault.status, began.elapsed()), (StatusCode::SERVICE_UNAVAILABLE, TURN_MAX));
        assert!(fault.text.contains("within 10 s"), "{}", fault.text);
        drop(stuck);
        assert_eq!(
            within_budget(&budget, page()).await,
            Ok("a page"),
            "who gives up keeps no turn"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_was_begun_has_its_time() {
        let budget = Semaphore::new(1);
        let slow = async {
            sleep(2 * TURN_MAX).await;
            page().await
        };
        assert_eq!(within_budget(&budget, slow).await, Ok("a page"));
    }
}
