//! Pages that somebody follows.

use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt as _;
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::site::{DEADLINE, GROUP, Site};

/// A page that is followed, event by event.
struct Followed {
    body: axum::body::BodyDataStream,
    read: String,
}

async fn follow(site: &Site, path: &str) -> Followed {
    let request = Request::get(path).header("x-user", "root").header("accept", "text/event-stream");
    let response = site.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    Followed { body: response.into_body().into_data_stream(), read: String::new() }
}

impl Followed {
    /// The kind of the next event, and what it tells.
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
        let told = (field("event:"), field("data:"));
        self.read = rest.to_owned();
        told
    }
}

#[tokio::test]
async fn a_followed_page_tells_what_changed_and_only_that() {
    let site = Site::start().await;
    let mut followed = follow(&site, GROUP).await;
    let (kind, page) = followed.next().await;
    assert_eq!(kind, "page");
    assert!(page.contains("<dd id=\"waiting\">0</dd>") && !page.contains("<html"), "{page}");
    // Rates are known from the second look on.
    let quiet = async { while followed.next().await.0 != "same" {} };
    timeout(DEADLINE, quiet).await.unwrap();
    site.append("order.placed", "{}");
    let changed = async {
        loop {
            let (kind, page) = followed.next().await;
            if kind == "page" {
                return page;
            }
        }
    };
    let page = timeout(DEADLINE, changed).await.unwrap();
    assert!(page.contains("<dd id=\"waiting\">1</dd>"), "{page}");
}

#[tokio::test]
async fn a_followed_page_tells_that_its_server_cannot_be_asked() {
    let site = Site::start().await;
    let mut followed = follow(&site, GROUP).await;
    assert_eq!(followed.next().await.0, "page");
    site.server.kill();
    let fault = async {
        loop {
            let (kind, text) = followed.next().await;
            if kind == "fault" {
                return text;
            }
        }
    };
    let text = timeout(2 * DEADLINE, fault).await.unwrap();
    assert!(text.contains("This could not be asked") && text.contains("role=\"alert\""), "{text}");
}

#[tokio::test]
async fn too_many_followers_are_turned_away_and_pages_are_not() {
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
async fn a_page_is_followed_for_a_while_and_then_ends_so_that_it_is_asked_for_anew() {
    let site = Site::start().await;
    let mut followed = follow(&site, GROUP).await;
    let began = tokio::time::Instant::now();
    let end = async { while followed.body.next().await.is_some() {} };
    timeout(3 * DEADLINE, end).await.unwrap();
    assert!(began.elapsed() > DEADLINE, "it is not for a moment only");
}
