//! The dashboard behind a real nginx, as it comes, which strips a prefix.

use std::time::Duration;

use axum::Router;
use streamjobs::{Client, StreamName};
use streamjobs_dashboard::{Access, Dashboard};
use streamjobs_tests::nginx::Nginx;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::pages::resolved;
use crate::site::{DEADLINE, Site};

/// A dashboard at `/jobs` and one at the root, each served on a port of its own.
struct Served {
    site: Site,
    nested: u16,
    at_root: u16,
    _serving: JoinSet<()>,
}

async fn serve(app: Router, serving: &mut JoinSet<()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
    port
}

fn dashboard(client: &Client) -> Router {
    let streams = [StreamName::new("orders").unwrap()];
    let anyone = |_: &_| Ok(Access::read_only("anyone").allow_all());
    Dashboard::builder(client.clone(), anyone).streams(streams).build().router()
}

impl Served {
    async fn start() -> Self {
        let site = Site::start().await;
        let mut serving = JoinSet::new();
        let nested = Router::new().nest_service("/jobs", dashboard(&site.client));
        let nested = serve(nested, &mut serving).await;
        let at_root = serve(dashboard(&site.client), &mut serving).await;
        Self { site, nested, at_root, _serving: serving }
    }

    /// An nginx with each way in which a prefix can lead to a dashboard.
    fn nginx(&self) -> Nginx {
        let (nested, at_root) = (self.nested, self.at_root);
        let locations = format!(
            "    location /jobs {{ proxy_pass http://127.0.0.1:{nested}; }}
    location /ops/queue/ {{ proxy_pass http://127.0.0.1:{nested}/jobs/; }}
    location /admin/ {{
      proxy_pass http://127.0.0.1:{at_root}/;
      proxy_set_header Host $http_host;
    }}"
        );
        Nginx::start(&locations).unwrap()
    }
}

/// A connection on which a request was sent.
async fn send(port: u16, words: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let (headers, length) = (headers.collect::<String>(), body.len());
    let request = format!(
        "{words} HTTP/1.1\r\nHost: ops.test\r\nConnection: close\r\nContent-Length: {length}\r\n\
         {headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The whole response, status and headers included.
async fn ask(port: u16, words: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut stream = send(port, words, headers, body).await;
    let mut response = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut response)).await.unwrap().unwrap();
    String::from_utf8(response).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_link_stays_inside_its_prefix_and_works() {
    let served = Served::start().await;
    served.site.append("order.placed", "{}");
    let nginx = served.nginx();
    for prefix in ["/jobs", "/jobs/", "/ops/queue/", "/admin/"] {
        let below = format!("{}/", prefix.trim_end_matches('/'));
        let (mut seen, mut next) = (vec![prefix.to_owned()], 0);
        while next < seen.len() && next < 30 {
            let asked = seen[next].clone();
            next += 1;
            let page = ask(nginx.port(), &format!("GET {asked}"), &[], "").await;
            assert!(page.starts_with("HTTP/1.1 200 "), "{prefix}: {asked}: {page}");
            if asked.contains("/assets/") {
                continue;
            }
            let links = [" href=\"", " src=\"", " action=\""].map(|name| page.split(name).skip(1));
            let links = links.into_iter().flatten().map(|rest| rest.split('"').next().unwrap());
            for link in links.filter(|link| !link.starts_with('#')) {
                let target = resolved(&asked, link);
                assert!(target.starts_with(&below), "{prefix}: {asked} leads to {target}");
                let is_page = !target.contains("/pause") && !target.contains("/reap");
                if is_page && !seen.contains(&target) {
                    seen.push(target);
                }
            }
        }
        assert!(next > 8, "{prefix}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_a_page_arrive_although_nginx_buffers_what_it_proxies() {
    let served = Served::start().await;
    let nginx = served.nginx();
    for path in ["/jobs", "/ops/queue/", "/admin/streams/orders/groups/work"] {
        let accept = [("Accept", "text/event-stream"), ("Accept-Encoding", "gzip")];
        let mut stream = send(nginx.port(), &format!("GET {path}"), &accept, "").await;
        let mut read = Vec::new();
        let first = async {
            while !String::from_utf8_lossy(&read).contains("event: page") {
                assert!(stream.read_buf(&mut read).await.unwrap() > 0, "{path}: it has ended");
            }
        };
        // Without the header, nginx sends a page of this size when the stream ends, after 20 s.
        timeout(Duration::from_secs(10), first).await.expect(path);
        let text = String::from_utf8_lossy(&read).to_lowercase();
        assert!(text.contains("cache-control: no-store, no-transform\r\n"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_is_accepted_over_plain_http_if_nginx_passes_the_host_on() {
    let served = Served::start().await;
    let nginx = served.nginx();
    let token = "0199ab3e11117abc8def000000000001";
    let cookie = format!("streamjobs-token={token}");
    // Over plain HTTP, browsers send an origin and no `Sec-Fetch-Site`.
    let headers = [
        ("Origin", "http://ops.test"),
        ("Cookie", cookie.as_str()),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    let pause = async |prefix: &str| {
        let words = format!("POST {prefix}/streams/orders/groups/work/pause");
        ask(nginx.port(), &words, &headers, &format!("token={token}")).await
    };
    let refused = pause("/ops/queue").await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "nginx names the upstream as host: {refused}");
    let accepted = pause("/admin").await;
    assert!(accepted.starts_with("HTTP/1.1 303 "), "{accepted}");
    let back = accepted.lines().find_map(|line| line.strip_prefix("location: "));
    let back = back.or_else(|| accepted.lines().find_map(|line| line.strip_prefix("Location: ")));
    let asked = "/admin/streams/orders/groups/work/pause";
    assert_eq!(resolved(asked, back.unwrap().trim()), "/admin/streams/orders/groups/work");
    assert!(served.site.group().info().await.unwrap().paused.is_some());
}
