//! The dashboard on a local port, and a browser that shows it.

use axum::Router;
use streamjobs::StreamName;
use streamjobs_dashboard::{Access, Dashboard};
use streamjobs_tests::browser::Browser;
use tokio::net::TcpListener;

use crate::site::Site;

/// The dashboard of a site on a local port, and a browser.
pub struct Session {
    pub site: Site,
    pub browser: Browser,
    pub address: String,
    _serving: tokio::task::JoinSet<()>,
}

impl Session {
    pub async fn start() -> Self {
        let site = Site::start().await;
        let all =
            |_: &axum::http::request::Parts| Ok(Access::read_only("me").payloads().allow_all());
        let streams = [StreamName::new("orders").unwrap()];
        let dashboard = Dashboard::builder(site.client.clone(), all).streams(streams).build();
        let app = Router::new().nest("/jobs", dashboard.router());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let browser = Browser::start().await.unwrap();
        Self { site, browser, address, _serving: serving }
    }

    pub async fn open(&self, path: &str) {
        self.browser.open(&format!("{}{path}", self.address)).await.unwrap();
    }

    /// The browser's console has no errors.
    pub async fn has_no_errors(&self) {
        let complaints = self.browser.complaints().await.unwrap();
        let own = complaints.iter().filter(|text| !text.contains("responded with a status"));
        assert_eq!(own.collect::<Vec<_>>(), Vec::<&String>::new());
    }
}
