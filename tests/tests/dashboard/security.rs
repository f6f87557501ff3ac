//! Permissions, forged requests, and untrusted text.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use streamjobs_dashboard::{Access, Action, Auth, router};
use tower::ServiceExt as _;

use crate::site::{GROUP, Site, body, form};

/// Every address of a page.
const PAGES: [&str; 20] = [
    "/jobs",
    "/jobs/overview",
    "/jobs/alerts",
    "/jobs/dead",
    "/jobs/processes",
    "/jobs/trends",
    "/jobs/assets/dashboard.js",
    "/jobs/streams/orders",
    "/jobs/streams/orders/replay",
    "/jobs/streams/orders/event?id=a",
    "/jobs/streams/orders/find?text=a",
    "/jobs/streams/orders/scheduled",
    "/jobs/streams/orders/schedules",
    "/jobs/streams/orders/groups/work",
    "/jobs/streams/orders/groups/work?range=6h",
    "/jobs/streams/orders/groups/work/pending",
    "/jobs/streams/orders/groups/work/retries",
    "/jobs/streams/orders/groups/work/finished",
    "/jobs/streams/orders/groups/work/dead",
    "/jobs/nowhere",
];

/// What all actions are below.
const STREAM: &str = "/jobs/streams/orders";

/// Every address of an action, with the permission that it needs.
const ACTIONS: [(&str, Action); 16] = [
    ("/groups/work/pause", Action::Pause),
    ("/groups/work/resume", Action::Pause),
    ("/groups/work/reap", Action::Reap),
    ("/groups/work/pending/claim", Action::Claim),
    ("/groups/work/pending/release", Action::Release),
    ("/groups/work/retries/run-now", Action::RunNow),
    ("/groups/work/dead/redrive", Action::Redrive),
    ("/groups/work/dead/purge", Action::Purge),
    ("/groups/work/consumers/ghost/remove", Action::RemoveConsumer),
    ("/event/cancel", Action::Cancel),
    ("/event/uncancel", Action::Cancel),
    ("/scheduled/run-now", Action::RunNow),
    ("/scheduled/cancel", Action::CancelScheduled),
    ("/schedules/run-now", Action::RunNow),
    ("/schedules/pause", Action::Pause),
    ("/schedules/resume", Action::Pause),
];

#[tokio::test]
async fn nothing_is_answered_without_authorization() {
    let site = Site::start().await;
    for path in PAGES {
        let request = Request::get(path).header("host", "app.test").body(Body::empty()).unwrap();
        let answer = site.ask(request).await;
        answer.is(401).says_not("orders").says_not("streamjobs");
        site.get_as("unknown", path).await.is(403).says_not("orders");
    }
    for (path, _) in ACTIONS {
        let path = format!("{STREAM}{path}");
        let mut request = form(&path, "", &[]);
        request.headers_mut().unwrap().remove("x-user");
        site.ask(request.body(body(&[("id", "1-1")])).unwrap()).await.is(401);
        site.post_as("unknown", &path, &[("id", "1-1")]).await.is(403);
    }
    assert!(site.done.lock().unwrap().is_empty());
}

#[tokio::test]
async fn every_action_needs_its_own_permission_and_a_refusal_is_audited() {
    let site = Site::start().await;
    let entry = site.append("order.placed", "{}");
    site.deliver("ghost", 1);
    let letter = site.store_dead_letter("no", "{}");
    let before =
        (site.group().info().await.unwrap().pending, site.server.length("{orders}:dead:work"));
    for (path, needed) in ACTIONS {
        let path = format!("{STREAM}{path}");
        for user in Action::ALL.iter().filter(|action| **action != needed) {
            let fields = [("id", entry.as_str()), ("id", letter.as_str()), ("consumer", "ghost")];
            site.post_as(user.as_str(), &path, &fields).await.is(403);
        }
        site.post_as("guest", &path, &[])
            .await
            .is(403)
            .says("do not have permission for this action");
    }
    let info = site.group().info().await.unwrap();
    assert_eq!((info.pending, site.server.length("{orders}:dead:work")), before);
    assert!(info.paused.is_none());
    let done = site.done.lock().unwrap();
    assert_eq!(done.len(), ACTIONS.len() * Action::ALL.len());
    assert!(done.iter().all(|action| action.outcome.is_err()));
}

#[tokio::test]
async fn buttons_are_shown_only_to_users_with_the_permission() {
    let site = Site::start().await;
    site.append("order.placed", "{}");
    site.deliver("ghost", 1);
    site.store_dead_letter("no", "{}");
    for path in ["", "/pending", "/dead"] {
        let path = format!("{GROUP}{path}");
        site.get(&path).await.is(200).says("<button type=\"submit\"");
        site.get_as("guest", &path)
            .await
            .is(200)
            .says_not("type=\"checkbox\"")
            .says_not("formaction");
    }
    site.get_as("pause", GROUP).await.says("/pause\"").says_not("/reap\"");
}

#[tokio::test]
async fn a_form_from_another_site_is_refused() {
    let site = Site::start().await;
    let path = format!("{GROUP}/pause");
    let with = |headers: &[(&'static str, &'static str)]| {
        let mut request = form(&path, "root", &[]);
        request.headers_mut().unwrap().remove("sec-fetch-site");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body(&[])).unwrap()
    };
    for headers in [
        [("sec-fetch-site", "cross-site")].as_slice(),
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[("origin", "null")],
        &[("origin", "https://evil.example")],
        &[("sec-fetch-site", "cross-site"), ("origin", "https://app.test")],
        &[],
    ] {
        site.ask(with(headers)).await.is(403).says("Only a page of this dashboard");
    }
    assert!(site.group().info().await.unwrap().paused.is_none());
    site.ask(with(&[("origin", "https://app.test")])).await.is(303);
    assert!(site.group().info().await.unwrap().paused.is_some());
}

#[tokio::test]
async fn a_form_without_the_token_of_its_browser_is_refused() {
    let site = Site::start().await;
    let path = format!("{GROUP}/pause");
    for text in ["", "token=", "token=0199ab3e11117abc8def000000000002", "other=1"] {
        let request = form(&path, "root", &[]).body(Body::from(text)).unwrap();
        site.ask(request).await.is(403).says("another session");
    }
    let mut request = form(&path, "root", &[]);
    request.headers_mut().unwrap().remove("cookie");
    site.ask(request.body(body(&[])).unwrap()).await.is(403);
    assert!(site.group().info().await.unwrap().paused.is_none());
    // A page has the token in the form and in the cookie.
    let page = site.get(GROUP).await;
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    let token = cookie.strip_prefix("streamjobs-token=").unwrap().split(';').next().unwrap();
    page.says(&format!("name=\"token\" value=\"{token}\""));
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let site = Site::start().await;
    let mut answers = vec![site.post(&format!("{GROUP}/pause"), &[]).await];
    for path in PAGES {
        answers.push(site.get(path).await);
        answers.push(site.get_as("unknown", path).await);
    }
    for answer in answers {
        let header = |name: &str| answer.headers[name].to_str().unwrap();
        assert_eq!(
            header("content-security-policy"),
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
        );
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cache-control"), "no-store, no-transform");
        assert_eq!(header("x-accel-buffering"), "no");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn invalid_or_too_large_input_is_refused_and_not_repeated() {
    let site = Site::start().await;
    let large = "x".repeat(100_000);
    site.post(&format!("{GROUP}/pending/release"), &[("id", &large)])
        .await
        .is(413)
        .says_not("xxxx");
    let many = vec![("id", "1-1"); 1_001];
    for path in ["pending/release", "dead/purge"] {
        let refused = site.post(&format!("{GROUP}/{path}"), &many).await;
        refused.is(400).says("More than 1,000 are selected. Nothing was changed.");
    }
    let long = "9".repeat(50_000);
    for bad in ["-1", "drop%20table", "%3Cscript%3E", "1e3", long.as_str()] {
        for query in
            ["pending?limit=", "pending?after=", "pending?idle=", "dead?before=", "retries?after="]
        {
            let answer = site.get(&format!("{GROUP}/{query}{bad}")).await;
            answer.is(400).says_not("<script>").says_not("drop table").says_not("99999");
        }
    }
    for bad in ["x", "%00", "1-2-3"] {
        site.get(&format!("/jobs/streams/orders/replay?start={bad}")).await.is(400);
        site.get(&format!("{GROUP}/dead/{bad}")).await.is(400);
    }
    site.get(&format!("{GROUP}/pending?limit=1000000000&idle=")).await.is(200);
    site.post(&format!("{GROUP}/pending/release"), &[]).await.is(400).says("No entry is selected");
    site.post(&format!("{GROUP}/dead/purge"), &[]).await.is(400).says("No dead letter is selected");
}

#[tokio::test]
async fn streams_that_were_not_configured_are_not_accessible() {
    let site = Site::start().await;
    site.server.command(&["XADD", "secret", "*", "type", "canary", "data", "canary"]);
    for path in [
        "/jobs/streams/secret",
        "/jobs/streams/secret/replay",
        "/jobs/streams/secret/groups/a/pending",
    ] {
        site.get(path).await.is(404).says_not("canary");
    }
}

#[tokio::test]
async fn untrusted_text_is_escaped_on_every_page() {
    let site = Site::start().await;
    let hostile = "<script>alert(1)</script>\" onmouseover=\"alert(2)\u{202e}\u{0}";
    let consumer = "<img src=x onerror=alert(3)>\u{202e}";
    site.append(hostile, &format!("{{\"a\":\"{}\"}}", hostile.escape_default()));
    site.append(hostile, hostile);
    site.deliver(consumer, 1);
    let letter = site.store_dead_letter(hostile, hostile);
    for path in [
        "/jobs",
        "/jobs/alerts",
        "/jobs/dead",
        "/jobs/processes",
        "/jobs/streams/orders",
        "/jobs/streams/orders/replay",
        GROUP,
        &format!("{GROUP}/pending"),
        &format!("{GROUP}/pending?consumer=%3Cscript%3E&idle="),
        &format!("{GROUP}/dead"),
        &format!("{GROUP}/dead/{letter}"),
    ] {
        let mut answer = site.get(path).await;
        answer.is(200).says_not("<script>alert").says_not("<img src=x");
        answer.says_not("\" onmouseover=\"");
        // The value of a form field stays unchanged.
        answer.text =
            answer.text.replace("value=\"&lt;img src=x onerror=alert(3)&gt;\u{202e}\"", "");
        answer.says_not("\u{202e}").says_not("\0");
    }
    site.get(GROUP).await.says("&lt;img src=x onerror=alert(3)&gt;\\u{202e}");
    site.get(&format!("{GROUP}/dead")).await.says("&lt;script&gt;alert(1)&lt;/script&gt;");
}

#[tokio::test]
async fn payloads_and_errors_need_their_permission() {
    let site = Site::start().await;
    site.append("order.placed", "{\"card\":\"canary\"}");
    let letter = site.store_dead_letter("canary is wrong", "{\"card\":\"canary\"}");
    let paths = [
        "/jobs/streams/orders".to_owned(),
        "/jobs/streams/orders/replay".to_owned(),
        "/jobs/dead".to_owned(),
        format!("{GROUP}/dead"),
        format!("{GROUP}/dead/{letter}"),
    ];
    for path in paths {
        site.get_as("guest", &path).await.is(200).says("canary");
        site.get_as("blind", &path)
            .await
            .is(200)
            .says_not("canary")
            .says("do not have permission to see");
    }
}

#[tokio::test]
async fn loopback_only_serves_this_machine_and_basic_asks_for_a_password() {
    let site = Site::start().await;
    let status = async |auth: Auth, peer: Option<&str>, headers: &[(&str, &str)]| {
        let app = Router::new().nest("/jobs", router(site.client.clone(), auth));
        let mut request = Request::get("/jobs");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        if let Some(peer) = peer {
            request.extensions_mut().insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
        }
        app.oneshot(request).await.unwrap().status().as_u16()
    };
    let open = || Auth::loopback_only(Access::read_only("me"));
    let here = [("host", "localhost:80")];
    assert_eq!(status(open(), Some("127.0.0.1:9"), &here).await, 200);
    assert_eq!(status(open(), Some("10.1.2.3:9"), &here).await, 403);
    assert_eq!(status(open(), Some("127.0.0.1:9"), &[("host", "rebound.example")]).await, 403);
    assert_eq!(status(open(), None, &here).await, 403);
    let basic = || Auth::basic("s3cret", Access::read_only("me"));
    assert_eq!(status(basic(), None, &here).await, 401);
    assert_eq!(status(basic(), None, &[("authorization", "Basic bWU6czNjcmV0")]).await, 200);
    assert_eq!(status(basic(), None, &[("authorization", "Basic bWU6d3Jvbmc=")]).await, 401);
}
