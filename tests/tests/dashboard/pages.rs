//! What the pages show.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use streamjobs::config::GroupOptions;
use streamjobs::{Entry, JobError, Runtime, StreamName, handler, handlers};
use streamjobs_dashboard::{AlertLog, Dashboard};
use streamjobs_tests::eventually::eventually_async;

use crate::site::{DEADLINE, GROUP, Site, by_name};

#[tokio::test]
async fn the_overview_shows_waiting_jobs_and_why_they_do_not_run() {
    let site = Site::start().await;
    site.get("/jobs")
        .await
        .is(200)
        .says("No problems detected")
        .says("This stream does not exist yet");
    for _ in 0..3 {
        site.append("order.placed", "{}");
    }
    site.store_dead_letter("no", "{}");
    // A snapshot is shared for two seconds, so a new dashboard takes one now.
    let fresh = Site { app: fresh(&site), ..site };
    let page = fresh.get("/jobs").await;
    page.is(200).says(">Problems</h2>").says("no consumer");
    page.says("data-problem=\"stalled\"")
        .says("<dd id=\"waiting\">3</dd>")
        .says("<dd id=\"dead\">1</dd>");
}

#[tokio::test]
async fn the_banner_is_not_green_beside_red_figures_and_hides_errors_without_the_right() {
    let site = Site::start().await;
    site.server.command(&["XADD", "{orders}:dead:work", "1-0", "sj-dead-reason", "rejected"]);
    let old = site.get("/jobs").await;
    old.is(200).says("No problems detected. Dead letters older than an hour: 1.");
    old.says("<dd id=\"dead\">1</dd>").says_not("bad-number");
    site.store_dead_letter("card 47 refused", "{}");
    let fresh = Site { app: fresh(&site), ..site };
    let page = fresh.get("/jobs").await;
    page.is(200).says("data-problem=\"dead_letters\"").says_not("No problems detected");
    page.says("1 dead letters were stored within the last hour, with the error: card 47 refused");
    page.says("<span class=\"bad-number\">2</span>").says("new dead letters</span>");
    for path in ["/jobs", "/jobs/alerts", GROUP] {
        fresh.get(path).await.says("card 47 refused");
        let blind = fresh.get_as("blind", path).await;
        blind.is(200).says("data-problem=\"dead_letters\"").says_not("card 47");
    }
}

fn fresh(site: &Site) -> Router {
    let streams = [StreamName::new("orders").unwrap()];
    let dashboard = Dashboard::builder(site.client.clone(), by_name).streams(streams).build();
    Router::new().nest("/jobs", dashboard.router())
}

#[tokio::test]
async fn a_stream_shows_its_first_last_and_newest_entries() {
    let site = Site::start().await;
    let ids = (0..12).map(|n| site.append("order.placed", &format!("{{\"n\":{n}}}")));
    let ids = ids.collect::<Vec<_>>();
    let page = site.get("/jobs/streams/orders").await;
    page.is(200)
        .says("<dd id=\"length\">12</dd>")
        .says(&format!("<dd id=\"first\">{}</dd>", ids[0]));
    page.says(&format!("<dd id=\"last\">{}</dd>", ids[11])).says("./../streams/orders/groups/work");
    page.says(&format!("id=\"e-{}\"", ids[2])).says_not(&format!("id=\"e-{}\"", ids[1]));
    site.get("/jobs/streams/missing").await.is(404).says("there is no stream missing");
    site.get("/jobs/streams/other").await.is(404).says("a stream of that name");
    site.get("/jobs/nowhere").await.is(404);
}

#[tokio::test]
async fn a_range_is_replayed_page_by_page_and_changes_no_group() {
    let site = Site::start().await;
    let ids = (0..30).map(|n| site.append("order.placed", &format!("{{\"n\":{n}}}")));
    let ids = ids.collect::<Vec<_>>();
    let page = site.get("/jobs/streams/orders/replay?start=-&end=%2B&limit=20").await;
    page.is(200).says(&format!("id=\"e-{}\"", ids[0])).says(&format!("id=\"e-{}\"", ids[19]));
    page.says_not(&format!("id=\"e-{}\"", ids[20]));
    page.says(&format!("replay?start=%28{}", ids[19]));
    let rest = site.get(&format!("/jobs/streams/orders/replay?start=({}&limit=20", ids[19])).await;
    rest.says(&format!("id=\"e-{}\"", ids[20])).says(&format!("id=\"e-{}\"", ids[29]));
    rest.says_not(&format!("id=\"e-{}\"", ids[19])).says_not("rel=\"next\"");
    let empty = site.get("/jobs/streams/orders/replay?start=1&end=2").await;
    empty.is(200).says("No entries in this range");
    let info = site.group().info().await.unwrap();
    assert_eq!((info.pending, info.backlog.entries), (0, 30));
}

#[tokio::test]
async fn a_group_shows_its_cursor_and_consumers_that_exist_only_on_the_server() {
    let site = Site::start().await;
    site.append("order.placed", "{}");
    site.deliver("ghost", 1);
    let page = site.get(GROUP).await;
    page.is(200).says("id=\"cursor\"").says("data-consumer=\"ghost\"").says("unknown");
    page.says("<a id=\"pending\" href=\"./../../../streams/orders/groups/work/pending\">1</a>");
    site.get("/jobs/streams/orders/groups/missing").await.is(404).says("has no group missing");
}

#[tokio::test]
async fn pending_entries_are_paged_and_filtered() {
    let site = Site::start().await;
    let ids = (0..5).map(|_| site.append("order.placed", "{}")).collect::<Vec<_>>();
    site.deliver("one", 3);
    site.deliver("two", 2);
    site.server.age("orders", "work", &ids[0], std::time::Duration::from_secs(100));
    let page = site.get(&format!("{GROUP}/pending?limit=2")).await;
    page.is(200)
        .says(&format!("data-entry=\"{}\"", ids[1]))
        .says_not(&format!("data-entry=\"{}\"", ids[2]));
    page.says(&format!("pending?after={}&amp;limit=2", ids[1]));
    let next = site.get(&format!("{GROUP}/pending?after={}&limit=2", ids[1])).await;
    next.says(&format!("data-entry=\"{}\"", ids[2])).says(&format!("data-entry=\"{}\"", ids[3]));
    let idle = site.get(&format!("{GROUP}/pending?idle=50")).await;
    idle.says(&format!("data-entry=\"{}\"", ids[0]))
        .says_not(&format!("data-entry=\"{}\"", ids[1]));
    let two = site.get(&format!("{GROUP}/pending?consumer=two")).await;
    two.says(&format!("data-entry=\"{}\"", ids[4])).says_not(&format!("data-entry=\"{}\"", ids[0]));
    site.get(&format!("{GROUP}/pending?lane=1")).await.is(200).says("No pending entries match");
}

#[tokio::test]
async fn dead_letters_are_shown_by_kind_and_in_detail() {
    let site = Site::start().await;
    for order in [17, 18, 19] {
        site.store_dead_letter(&format!("order {order} not found"), "{\"n\":1}");
    }
    let other =
        site.store_dead_letter("the bank is closed", "{\"amount\":12345678901234567890.10}");
    let page = site.get(&format!("{GROUP}/dead")).await;
    page.is(200).says(">3</a>").says("exhausted</a>: 4").says("the bank is closed");
    let kind = page.text.split("data-fingerprint=\"").nth(1).unwrap().split('"').next().unwrap();
    let of_kind = site.get(&format!("{GROUP}/dead?fingerprint={kind}")).await;
    of_kind.says("order 17 not found").says_not(&format!("data-letter=\"{other}\""));
    let one = site.get(&format!("{GROUP}/dead/{other}")).await;
    one.is(200).says("12345678901234567890.10").says("5 failed; delivered 5 times").says("event-1");
    site.get(&format!("{GROUP}/dead/1-1")).await.is(404).says("no dead letter 1-1");
    let older = site.get(&format!("{GROUP}/dead?limit=2")).await;
    older.says("Older letters").says(&format!("data-letter=\"{other}\""));
}

#[tokio::test]
async fn an_unreachable_server_is_an_error_and_never_shown_as_zero() {
    let site = Site::start().await;
    site.append("order.placed", "{}");
    site.server.kill();
    for path in [
        "/jobs",
        "/jobs/streams/orders",
        GROUP,
        &format!("{GROUP}/pending"),
        &format!("{GROUP}/dead"),
    ] {
        let page = site.get(path).await;
        page.is(503)
            .says("Redis did not answer")
            .says_not("id=\"waiting\"")
            .says_not("No problems");
    }
    site.get("/jobs/alerts").await.says_not("No problems");
}

#[tokio::test]
async fn links_work_under_any_mount_path() {
    let site = Site::start().await;
    let dashboard = |path: &str| {
        let streams = [StreamName::new("orders").unwrap()];
        let dashboard = Dashboard::builder(site.client.clone(), by_name).streams(streams).build();
        Router::new().nest(path, dashboard.router())
    };
    let at = async |app: &Router, path: &str| {
        let site = |app| async move {
            let request = Request::get(path).header("x-user", "root").body(Body::empty()).unwrap();
            tower::ServiceExt::oneshot(app, request).await.unwrap()
        };
        let response = site(app.clone()).await;
        assert_eq!(response.status(), 200, "{path}");
        let text = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(text.to_vec()).unwrap()
    };
    for mount in ["/jobs", "/internal/ops/jobs"] {
        let app = dashboard(mount);
        for page in ["", "/overview", "/alerts", "/streams/orders", "/streams/orders/groups/work"] {
            let asked = format!("{mount}{page}");
            let text = at(&app, &asked).await;
            let links = text.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
            for link in links.filter(|link| !link.starts_with('#')) {
                at(&app, &resolved(&asked, link)).await;
            }
        }
    }
}

/// Resolves a relative link as a browser does.
pub fn resolved(page: &str, link: &str) -> String {
    let (folder, _) = page.rsplit_once('/').unwrap();
    let mut parts = folder.split('/').collect::<Vec<_>>();
    for part in link.split('?').next().unwrap().split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Fails for every second entry.
#[handler(group = "work", stream = "orders", max_attempts = 1)]
async fn even(entry: Entry) -> Result<(), JobError> {
    if entry.text("data") == Some("0") { Ok(()) } else { Err(JobError::dead("odd")) }
}

#[tokio::test]
async fn rates_sum_the_counters_of_all_consumers() {
    let site = Site::start().await;
    let streams = [StreamName::new("orders").unwrap()];
    let dashboard = Dashboard::builder(site.client.clone(), by_name).streams(streams).build();
    let site = Site { app: Router::new().nest("/jobs", dashboard.router()), ..site };
    let options = GroupOptions::new().lease(Duration::from_secs(1));
    let builder = Runtime::builder(&site.client).handlers(handlers![even]).group("work", options);
    let runtime = builder.service(dashboard.sampler()).start().await.unwrap();
    site.get("/jobs").await.says("<dd id=\"done\">–</dd>").says("<dd id=\"failing\">–</dd>");
    for number in 0..100 {
        site.append("order.placed", &(number % 2).to_string());
    }
    let known = async || {
        let page = site.get("/jobs").await.text;
        let is_shown =
            |name: &str, text: &str| page.contains(&format!("<dd id=\"{name}\">{text}</dd>"));
        let rates = ["published", "done", "failing"];
        rates.iter().all(|name| !is_shown(name, "0/s") && !is_shown(name, "–"))
    };
    eventually_async(DEADLINE, "rates are shown", known).await;
    let drawn = async || site.get("/jobs").await.text.contains("<polyline points=");
    eventually_async(2 * DEADLINE, "the sparkline is shown", drawn).await;
    let _ = runtime.shutdown().await;
}

/// Dead-letters every entry.
#[handler(group = "work", stream = "orders", max_attempts = 1)]
async fn refuse(_entry: Entry) -> Result<(), JobError> {
    Err(JobError::dead("never"))
}

#[tokio::test]
async fn alerts_of_the_runtime_and_its_process_are_shown() {
    let site = Site::start().await;
    let (streams, alerts) = ([StreamName::new("orders").unwrap()], AlertLog::new());
    let dashboard =
        Dashboard::builder(site.client.clone(), by_name).streams(streams).alerts(&alerts).build();
    let site = Site { app: Router::new().nest("/jobs", dashboard.router()), ..site };
    site.get("/jobs/alerts").await.is(200).says("No alerts since");
    let builder = Runtime::builder(&site.client).handlers(handlers![refuse]);
    let builder = builder.watch_interval(Duration::from_millis(20)).on_alert(alerts.recorder());
    let runtime = builder.service(dashboard.sampler()).start().await.unwrap();
    site.append("order.placed", "{}");
    let said = async || site.get("/jobs/alerts").await.text.contains("data-alert=\"dead_letters\"");
    eventually_async(DEADLINE, "the alert is shown", said).await;
    let other = Dashboard::builder(site.client.clone(), by_name).alerts(&alerts);
    let other = other.streams([StreamName::new("missing").unwrap()]).build();
    let other = Site { app: Router::new().nest("/jobs", other.router()), ..Site::start().await };
    other.get("/jobs/alerts").await.is(200).says("No alerts since").says_not("orders");
    let process = format!("data-process=\"{}\"", std::process::id());
    let known = async || {
        let page = site.get("/jobs/processes").await;
        page.text.contains(&process) && page.text.contains("of 16 slots in use")
    };
    eventually_async(DEADLINE, "the process is shown", known).await;
    site.get("/jobs/processes").await.is(200).says("streamjobs 0.1.0").says("alive");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_address_with_a_slash_at_its_end_leads_to_the_one_without() {
    let site = Site::start().await;
    for (path, query) in [("/jobs/alerts", ""), ("/jobs/streams/orders", "?sort=group")] {
        let slash = format!("{path}/");
        let answer = site.get(&format!("{slash}{query}")).await;
        let to = answer.is(308).headers["location"].to_str().unwrap();
        assert_eq!(
            (resolved(&slash, to).as_str(), to.split_once('?').is_some()),
            (path, !query.is_empty())
        );
        site.get(&resolved(&slash, to)).await.is(200);
    }
    site.get("/jobs/nowhere").await.is(404);
    let refused = site.post("/jobs/streams/orders/groups/work/pause/", &[]).await;
    refused.is(404);
    assert!(site.group().info().await.unwrap().paused.is_none());
    let icon = site.get("/jobs/assets/icon.svg").await;
    assert_eq!(icon.is(200).headers["content-type"], "image/svg+xml");
    site.get("/jobs").await.says("<link rel=\"icon\" href=\"./jobs/assets/icon.svg\"");
}

#[tokio::test]
async fn times_are_relative_with_the_exact_time_for_those_who_ask() {
    let site = Site::start().await;
    let id =
        site.server.query::<String>(&["XADD", "orders", "86400000-0", "type", "t", "data", "{}"]);
    let page = site.get("/jobs/streams/orders").await;
    page.says(
        "<time datetime=\"1970-01-02T00:00:00Z\" title=\"1970-01-02 00:00:00 UTC\" data-relative>",
    );
    page.says(" d ago</time>");
    let event = site.get(&format!("/jobs/streams/orders/event?id={id}")).await;
    event.says(" d ago</time> <span class=\"soft\">1970-01-02 00:00:00 UTC</span>");
}

#[tokio::test]
async fn a_group_has_charts_with_axes_once_it_was_sampled_twice() {
    let site = Site::start().await;
    for _ in 0..7 {
        site.append("order.placed", "{}");
    }
    site.get(GROUP).await.is(200).says_not("Last 15 minutes");
    let drawn = async || site.get(GROUP).await.text.contains("Last 15 minutes");
    eventually_async(3 * DEADLINE, "charts are drawn", drawn).await;
    let page = site.get(GROUP).await;
    page.says("Waiting over the last 15 minutes, at most 10")
        .says("<span class=\"key waiting\">waiting 7</span>");
    page.says("−15 min")
        .says("<polyline class=\"waiting\"")
        .says("Oldest waiting over the last 15 minutes");
    crate::accessible::check(GROUP, &page.text);
}

/// As the diagnosis of the command line names it.
#[tokio::test]
async fn a_group_names_the_job_for_which_a_key_waits() {
    let site = Site::start().await;
    let words = ["type", "order.placed", "data", "{}", "sj-id", "<b>e-1", "sj-key", "alice"];
    for id in ["1-1", "1-2"] {
        site.server.command(&[&["XADD", "orders", id], &words[..]].concat());
    }
    site.deliver("web-1", 1);
    let time: Vec<u64> = site.server.query(&["TIME"]);
    let (limits, now) = ("1 at once for each key, kept by retries", (time[0] * 1_000).to_string());
    let about = format!(
        "{{\"host\":\"web\",\"process\":7,\"version\":\"0.1.0\",\"slots\":16,\"in_flight\":1,\"started\":1,\
         \"beat_every\":60000,\"limits\":\"{limits}\"}}"
    );
    let hash = ["HSET", "{orders}:group:work", "beat:web-1", &now, "about:web-1", &about];
    site.server.command(&hash);
    for line in ["alice:1", "alice:2"] {
        site.server.command(&["ZADD", "{orders}:lines:work", "0", line]);
    }
    site.server.command(&["ZADD", "{orders}:turns:work", "2", "alice"]);
    let place = ["HSET", "{orders}:holds:work", "s:1-1", "alice"];
    site.server.command(&place);
    let page = site.get(GROUP).await;
    let tile = page.is(200).text.split("id=\"parked\">2").nth(1).unwrap();
    let tile = tile.split("</dd>").next().unwrap();
    let named =
        "most for alice: 2, whose job &lt;b&gt;e-1 runs in web-1 and has had its place for ";
    assert!(tile.contains(named), "{tile}");
    page.says("data-problem=\"limit_reached\"").says_not("<b>e-1");
    page.says("2 of them for alice, whose job &lt;b&gt;e-1 runs in web-1");
    site.server.command(&["DEL", "{orders}:holds:work"]);
    site.get(GROUP).await.is(200).says("most for alice: 2, whose place no job has now");
}

#[tokio::test]
async fn a_group_shows_the_slots_that_it_shares_and_its_weight() {
    let site = Site::start().await;
    let builder = Runtime::builder(&site.client).handlers(handlers![sharing]);
    let slots = std::num::NonZeroU32::new(20).unwrap();
    let runtime = builder.shared_slots("mail", slots).start().await.unwrap();
    site.get(GROUP).await.is(200).says("mail: 0 of 20, weight 3");
    let _ = runtime.shutdown().await;
}

#[handler(group = "work", stream = "orders", slots = "mail", weight = 3)]
async fn sharing(_: Entry) {}
