//! A dashboard in an application on a private server, and requests as a browser sends them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, StatusCode};
use streamjobs::config::Start;
use streamjobs::stream::Group;
use streamjobs::{Client, StreamName};
use streamjobs_dashboard::{Access, Action, Audited, Dashboard, Denied};
use streamjobs_tests::server::RedisServer;
use tower::ServiceExt as _;

pub const GROUP: &str = "/jobs/streams/orders/groups/work";

/// A dashboard at `/jobs` for the stream `orders` with the group `work`.
pub struct Site {
    pub server: RedisServer,
    pub client: Client,
    pub app: Router,
    pub done: Arc<Mutex<Vec<Audited>>>,
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

/// Authorizes by the header `x-user`: names of actions, and a few others.
pub fn by_name(request: &Parts) -> Result<Access, Denied> {
    let user = request.headers.get("x-user").and_then(|user| user.to_str().ok());
    match user {
        None => Err(Denied::Unauthorized(None)),
        Some("root") => Ok(Access::read_only("root").payloads().allow_all()),
        Some("blind") => Ok(Access::read_only("blind")),
        Some("guest") => Ok(Access::read_only("guest").payloads()),
        Some(name) => {
            let action = Action::ALL.into_iter().find(|action| action.as_str() == name);
            action.map(|action| Access::read_only(name).allow(action)).ok_or(Denied::Forbidden)
        }
    }
}

impl Site {
    pub async fn start() -> Self {
        let server = RedisServer::start().unwrap();
        let client = Client::connect(&server.url()).await.unwrap();
        let done = Arc::<Mutex<Vec<Audited>>>::default();
        let recorded = Arc::clone(&done);
        let streams = ["orders", "missing"].map(|name| StreamName::new(name).unwrap());
        let dashboard = Dashboard::builder(client.clone(), by_name)
            .streams(streams)
            .on_action(move |audited| recorded.lock().unwrap().push(audited.clone()))
            .build();
        let app = Router::new().nest("/jobs", dashboard.router());
        let site = Self { server, client, app, done };
        site.group().create(Start::Beginning).await.unwrap();
        site
    }

    pub fn group(&self) -> Group {
        self.client.stream("orders").unwrap().group("work").unwrap()
    }

    /// Appends an entry and returns its id.
    pub fn append(&self, event_type: &str, data: &str) -> String {
        let words = ["XADD", "orders", "*", "type", event_type, "data", data];
        self.server.query::<String>(&words)
    }

    /// Delivers up to `count` entries to a consumer without a process.
    pub fn deliver(&self, consumer: &str, count: usize) {
        let count = count.to_string();
        let words =
            ["XREADGROUP", "GROUP", "work", consumer, "COUNT", &count, "STREAMS", "orders", ">"];
        self.server.command(&words);
    }

    /// Stores a dead letter as a runtime does and returns its id.
    pub fn store_dead_letter(&self, error: &str, data: &str) -> String {
        self.server.query(&[
            "XADD",
            "{orders}:dead:work",
            "*",
            "sj-dead-reason",
            "exhausted",
            "sj-dead-error",
            error,
            "sj-dead-attempts",
            "5",
            "sj-dead-deliveries",
            "5",
            "sj-dead-entry",
            "1-1",
            "sj-dead-event",
            "event-1",
            "type",
            "order.placed",
            "data",
            data,
        ])
    }

    pub async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = to_bytes(body, 16 << 20).await.unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub async fn get_as(&self, user: &str, path: &str) -> Answer {
        let request = Request::get(path).header("x-user", user).header("host", "app.test");
        self.ask(request.body(Body::empty()).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.get_as("root", path).await
    }

    /// Posts a form as a browser does from a page of the dashboard.
    pub async fn post_as(&self, user: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.ask(form(path, user, fields).body(body(fields)).unwrap()).await
    }

    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.post_as("root", path, fields).await
    }
}

const TOKEN: &str = "0199ab3e11117abc8def000000000001";

/// The request of a posted form, without its body.
pub fn form(path: &str, user: &str, _fields: &[(&str, &str)]) -> axum::http::request::Builder {
    Request::post(path)
        .header("x-user", user)
        .header("host", "app.test")
        .header("sec-fetch-site", "same-origin")
        .header("cookie", format!("streamjobs-token={TOKEN}"))
        .header("content-type", "application/x-www-form-urlencoded")
}

pub fn body(fields: &[(&str, &str)]) -> Body {
    let token = [("token", TOKEN)];
    let pairs =
        token.iter().chain(fields).map(|(name, value)| format!("{name}={}", encoded(value)));
    Body::from(pairs.collect::<Vec<_>>().join("&"))
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

impl Answer {
    /// Asserts that the page contains the text.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.text.contains(text), "{} without {text:?}:\n{}", self.status, self.text);
        self
    }

    #[track_caller]
    pub fn says_not(&self, text: &str) -> &Self {
        assert!(!self.text.contains(text), "unexpected {text:?}:\n{}", self.text);
        self
    }

    #[track_caller]
    pub fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// The value of the first hidden field with this name.
    #[track_caller]
    pub fn field(&self, name: &str) -> String {
        let value = self.text.split(&format!("name=\"{name}\" value=\"")).nth(1);
        value.expect(name).split('"').next().unwrap().to_owned()
    }

    /// The notice for the next page.
    pub fn notice(&self) -> String {
        let cookies = self.headers.get_all("set-cookie").iter();
        let mut notices = cookies.filter_map(|cookie| {
            cookie.to_str().unwrap().strip_prefix("streamjobs-notice=")?.split(';').next()
        });
        decoded(notices.next().unwrap_or_default())
    }
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let hex = std::str::from_utf8(&after[..2]).unwrap();
            bytes.push(u8::from_str_radix(hex, 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap()
}

pub const DEADLINE: Duration = Duration::from_secs(10);
