//! Live updates: the event stream of a page.

use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt as _;
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::site::{DEADLINE, GROUP, Site};

/// The event stream of a page.
struct EventStream {
    body: axum::body::BodyDataStream,
    read: String,
}

async fn follow(site: &Site, path: &str) -> EventStream {
    let request = Request::get(path).header("x-user", "root").header("accept", "text/event-stream");
    let response = site.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store, no-transform");
    EventStream { body: response.into_body().into_data_stream(), read: String::new() }
}

impl EventStream {
    /// The kind and the data of the next event.
    async fn next(&mut self) -> (String, String) {
        while !self.read.contains("\n\n") {
            let chunk = timeout(DEADLINE, self.body.next()).await.unwrap().unwrap().unwrap();
            self.read.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        let (event, rest) = self.read.split_once("\n\n").unwrap();
        let field = |name: &str| {
            let lines = event.lines().filter_map(|line| line.strip_prefix(name));
            lines.map(str::trim_start).collect::<Vec<_>>().join("\n")
        };
        let event = (field("event:"), field("data:"));
        self.read = rest.to_owned();
        event
    }
}

#[tokio::test]
async fn an_event_stream_sends_a_page_only_if_it_changed() {
    let site = Site::start().await;
    let mut events = follow(&site, GROUP).await;
    let (kind, page) = events.next().await;
    assert_eq!(kind, "page");
    assert!(page.contains("<dd id=\"waiting\">0</dd>") && !page.contains("<html"), "{page}");
    // Rates are known from the second sample on.
    let unchanged = async { while events.next().await.0 != "same" {} };
    timeout(DEADLINE, unchanged).await.unwrap();
    site.append("order.placed", "{}");
    let changed = async {
        loop {
            let (kind, page) = events.next().await;
            if kind == "page" {
                return page;
            }
        }
    };
    let page = timeout(DEADLINE, changed).await.unwrap();
    assert!(page.contains("<dd id=\"waiting\">1</dd>"), "{page}");
}

#[tokio::test]
async fn an_event_stream_sends_an_error_when_the_server_does_not_answer() {
    let site = Site::start().await;
    let mut events = follow(&site, GROUP).await;
    assert_eq!(events.next().await.0, "page");
    site.server.kill();
    let fault = async {
        loop {
            let (kind, text) = events.next().await;
            if kind == "fault" {
                return text;
            }
        }
    };
    let text = timeout(2 * DEADLINE, fault).await.unwrap();
    assert!(text.contains("Redis did not answer") && text.contains("role=\"alert\""), "{text}");
}

#[tokio::test]
async fn too_many_event_streams_are_refused_and_pages_are_not() {
    let site = Site::start().await;
    let mut followers = Vec::new();
    for _ in 0..64 {
        followers.push(follow(&site, GROUP).await);
    }
    let request =
        Request::get(GROUP).header("x-user", "root").header("accept", "text/event-stream");
    site.ask(request.body(Body::empty()).unwrap()).await.is(503);
    site.get(GROUP).await.is(200);
    followers.pop();
    follow(&site, GROUP).await;
}

#[tokio::test]
async fn an_event_stream_ends_after_a_while_so_that_the_browser_reconnects() {
    let site = Site::start().await;
    let mut events = follow(&site, GROUP).await;
    let began = tokio::time::Instant::now();
    let end = async { while events.body.next().await.is_some() {} };
    timeout(3 * DEADLINE, end).await.unwrap();
    assert!(began.elapsed() > DEADLINE, "it lasts for a while");
}
