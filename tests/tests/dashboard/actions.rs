//! What each action does, and what it leaves in the audit.

use std::time::Duration;

use axum::Router;
use streamjobs::config::{GroupOptions, Start};
use streamjobs::schedule::{Overlap, Schedule};
use streamjobs::{Backoff, Entry, Job, JobError, Runtime, StreamName, handler, handlers};
use streamjobs_dashboard::{Action, Dashboard};
use streamjobs_tests::eventually::eventually_async;

use crate::site::{DEADLINE, GROUP, Site, by_name};

/// Fails once.
#[handler(group = "work", stream = "orders")]
async fn fail_once(_entry: Entry, job: Job) -> Result<(), JobError> {
    if job.attempt() == 1 { Err("failed on <b>it</b>".into()) } else { Ok(()) }
}

#[tokio::test]
async fn a_group_is_paused_and_resumed_and_the_audit_names_the_user() {
    let site = Site::start().await;
    let paused = site.post_as("pause", &format!("{GROUP}/pause"), &[]).await;
    assert_eq!(paused.is(303).headers["location"], "./../../../../streams/orders/groups/work");
    assert_eq!(paused.notice(), "Paused in all processes.");
    assert!(site.group().info().await.unwrap().paused.is_some());
    site.get(GROUP).await.says("data-problem=\"paused\"").says("Resume");
    let again = site.post(&format!("{GROUP}/pause"), &[]).await;
    assert_eq!(again.notice(), "The group was already paused.");
    site.post(&format!("{GROUP}/resume"), &[]).await.is(303);
    assert!(site.group().info().await.unwrap().paused.is_none());
    let done = site.done.lock().unwrap().clone();
    let first = &done[0];
    assert_eq!((first.who.as_str(), first.action), ("pause", Action::Pause));
    assert_eq!(first.queue, Some(("orders".to_owned(), "work".to_owned())));
    assert_eq!((done.len(), first.outcome.as_deref()), (3, Ok("Paused in all processes.")));
    site.get("/jobs/alerts").await.says("data-action=\"pause\"").says("Paused in all processes.");
}

#[tokio::test]
async fn the_progress_of_a_running_job_is_shown_as_text() {
    let site = Site::start().await;
    let id = site.append("order.placed", "{}");
    site.deliver("web-1", 1);
    let at = site.server.query::<Vec<String>>(&["TIME"])[0].parse::<u64>().unwrap() - 60;
    let stored = format!("{at}000 1 web-1\n3 10 <b>pages</b>");
    site.server.command(&["HSET", "{orders}:progress:work", &format!("stream:{id}"), &stored]);
    let page = site.get(&format!("{GROUP}/pending")).await;
    page.is(200).says("3/10 &lt;b&gt;pages&lt;/b&gt;").says(" ago");
}

#[tokio::test]
async fn the_rate_of_a_group_is_shown_lifted_and_reset() {
    let site = Site::start().await;
    site.get(GROUP).await.says_not("id=\"rate\"");
    let rate = "1/1h".parse::<streamjobs::Rate>().unwrap();
    assert!(site.group().set_rate(Some(rate.into())).await.unwrap());
    let page = site.get(GROUP).await;
    page.says("<dd id=\"rate\">1/1h, set by an operator</dd>").says("Lift the rate");
    site.get_as("guest", GROUP).await.says("1/1h").says_not("Lift the rate");
    let fields = [("rate", "100/1m"), ("burst", "20"), ("why", "<b>more</b>")];
    let path = format!("{GROUP}/rate/set");
    for wrong in ["", "0/1m", "100", "100/31d", "1/30d"] {
        site.post(&path, &[("rate", wrong), ("burst", "20")]).await.is(400).says("such as 100/1m");
    }
    site.post(&path, &[("rate", "1/1s"), ("burst", "0")]).await.is(400).says("at least 1");
    site.post_as("reap", &path, &fields).await.is(403);
    let set = site.post_as("pause", &path, &fields).await;
    assert_eq!(set.is(303).notice(), "Set the rate in all processes.");
    let done = site.done.lock().unwrap().last().unwrap().target.clone();
    assert_eq!(done, "set_rate 100/1m, burst 20, reason: <b>more</b>");
    let page = site.get(GROUP).await;
    page.says("100/1m, burst 20, set by an operator").says("name=\"burst\" min=\"1\" value=\"20\"");
    crate::accessible::check(GROUP, &page.text);
    let lifted = site.post_as("pause", &format!("{GROUP}/rate/lift"), &[]).await;
    assert_eq!(lifted.is(303).notice(), "Lifted the rate in all processes.");
    site.get(GROUP).await.says("unlimited, set by an operator").says("Reset the rate");
    let reset = site.post(&format!("{GROUP}/rate/reset"), &[]).await;
    assert_eq!(reset.is(303).notice(), "The rate in the code applies again.");
    site.get(GROUP).await.says_not("id=\"rate\"").says_not("Reset the rate");
    let again = site.post(&format!("{GROUP}/rate/reset"), &[]).await;
    assert_eq!(again.notice(), "No rate was set.");
}

#[tokio::test]
async fn the_limit_of_a_group_is_shown_set_with_a_reason_and_reset() {
    let site = Site::start().await;
    let path = format!("{GROUP}/limit/set");
    site.get(GROUP).await.says_not("id=\"limit\"").says_not("Set the limit");
    let fields = [("limit", "8"), ("why", "a <b>second</b> bank")];
    site.post(&path, &fields).await.is(409).says("no live process says");
    let now = site.server.query::<Vec<String>>(&["TIME"])[0].clone() + "000";
    let about = "{\"started\":1,\"beat_every\":60000,\"limits\":\"4 at once for each group\",\"limit\":\"group 4\"}";
    let hash = ["HSET", "{orders}:group:work", "beat:web-1", &now, "about:web-1", about];
    site.server.command(&hash);
    let page = site.get(GROUP).await;
    page.says("<dd id=\"limit\">4 at once for each group in the code</dd>");
    page.says("name=\"limit\" min=\"1\" max=\"4294967295\" value=\"4\"");
    crate::accessible::check(GROUP, &page.text);
    site.get_as("guest", GROUP).await.says("id=\"limit\"").says_not("Set the limit");
    for wrong in ["", "0", "-1", "4294967296", "x"] {
        site.post(&path, &[("limit", wrong)]).await.is(400).says("at least 1");
    }
    site.post_as("reap", &path, &fields).await.is(403);
    let set = site.post_as("pause", &path, &fields).await;
    assert_eq!(set.is(303).notice(), "Set the limit in all processes.");
    let done = site.done.lock().unwrap().last().unwrap().clone();
    let target = "set_limit 8, reason: a <b>second</b> bank";
    assert_eq!((done.who.as_str(), done.target.as_str()), ("pause", target));
    let page = site.get(GROUP).await;
    let changed =
        "concurrency_total is changed from 4 to 8 by pause: a &lt;b&gt;second&lt;/b&gt; bank";
    page.says(changed).says("value=\"8\"").says("Reset the limit");
    // The form was made before a deploy that changed the option.
    let former = [("limit", "50"), ("why", "x"), ("option", "concurrency_per_key")];
    site.post(&path, &former)
        .await
        .is(409)
        .says("The limit of the group is concurrency_total now.");
    let reset = site.post(&format!("{GROUP}/limit/reset"), &[]).await;
    assert_eq!(reset.is(303).notice(), "The limit in the code applies again.");
    site.get(GROUP).await.says_not("is changed from").says_not("Reset the limit");
    let again = site.post(&format!("{GROUP}/limit/reset"), &[]).await;
    assert_eq!(again.notice(), "No limit was set.");
}

#[tokio::test]
async fn pending_entries_are_claimed_for_a_consumer_and_released() {
    let site = Site::start().await;
    let ids = (0..3).map(|_| site.append("order.placed", "{}")).collect::<Vec<_>>();
    site.deliver("ghost", 3);
    site.server.command(&["XGROUP", "CREATECONSUMER", "orders", "work", "other"]);
    let path = format!("{GROUP}/pending/claim");
    let fields = [("consumer", "other"), ("id", ids[0].as_str()), ("id", ids[2].as_str())];
    let claimed = site.post_as("claim", &path, &fields).await;
    assert_eq!(claimed.is(303).notice(), "2 entries moved to other.");
    let owners = site.server.pending("orders", "work").into_iter().map(|row| row.consumer);
    assert_eq!(owners.collect::<Vec<_>>(), ["other", "ghost", "other"]);
    let unknown = [("consumer", "missing"), ("id", ids[0].as_str())];
    site.post(&path, &unknown).await.is(404).says("does not have this consumer");
    site.post(&path, &[("consumer", "other"), ("id", "9-9")]).await.is(303);
    let released = site.post(&format!("{GROUP}/pending/release"), &[("id", &ids[1])]).await;
    assert_eq!(released.is(303).notice(), "1 entries released: any consumer can claim them now.");
    let row = site.server.pending("orders", "work").remove(1);
    assert_eq!((row.deliveries, row.consumer.as_str()), (0, "streamjobs-released"));
}

#[tokio::test]
async fn a_job_that_is_scheduled_for_retry_is_shown_with_its_time_and_can_run_now() {
    let site = Site::start().await;
    let slow = GroupOptions::new().backoff(Backoff::fixed(Duration::from_secs(3_600)));
    let builder = Runtime::builder(&site.client).handlers(handlers![fail_once]).group("work", slow);
    let runtime = builder.start().await.unwrap();
    site.append("order.placed", "{}");
    let path = format!("{GROUP}/retries");
    let shown = async || site.get(&path).await.text.contains("name=\"id\" value=\"s:");
    eventually_async(DEADLINE, "it is shown", shown).await;
    let page = site.get(&path).await;
    page.says("in 59 min").says("failed on &lt;b&gt;it&lt;/b&gt;").says("order.placed");
    page.says("event/cancel\"").says("name=\"from\" value=\"retries\"");
    site.get_as("blind", &path).await.is(200).says_not("failed on").says_not("event/cancel");
    site.get(GROUP).await.says("<dd id=\"next-due\">in 59 min</dd>");
    let id = page.text.split("name=\"id\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let ran = site.post_as("run_now", &format!("{path}/run-now"), &[("id", id)]).await;
    assert!(ran.is(303).notice().starts_with("Scheduled 1 jobs to run now."), "{}", ran.notice());
    let done = async || {
        site.server.length("{orders}:lane:work") == 0
            && site.group().info().await.unwrap().retrying == 0
    };
    eventually_async(DEADLINE, "it is done", done).await;
    site.post(&format!("{path}/run-now"), &[("id", "invalid")]).await.is(400);
    site.post(&format!("{path}/run-now"), &[]).await.is(400).says("No job is selected");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn scheduled_events_are_shown_with_their_times_and_run_or_cancelled() {
    let site = Site::start().await;
    let schedule = async |name: &str, hours: u32| {
        let fields = [("type", "order.<b>"), ("data", "canary"), ("sj-id", name)];
        let fields = fields.map(|(name, value)| (name.into(), value.to_owned().into()));
        let stream = streamjobs::StreamName::new("orders").unwrap();
        let event = streamjobs::EncodedEvent::from_parts(stream, fields.into()).unwrap();
        let at = std::time::SystemTime::now() + Duration::from_secs(3_600) * hours;
        for answer in site.client.publish_encoded_at(vec![(at, event)]).await {
            assert!(answer.unwrap().waits());
        }
    };
    let path = "/jobs/streams/orders/scheduled";
    site.get(path).await.is(200).says("No events wait.");
    for (name, hours) in [("e-\"1", 1), ("e-2", 2), ("e-3", 3)] {
        schedule(name, hours).await;
    }
    site.append("order.placed", "{}");
    site.get("/jobs/streams/orders").await.says("id=\"scheduled\"").says(">3</a>");
    let page = site.get(path).await;
    page.says("in 59 min").says("order.&lt;b&gt;").says("e-&quot;1").says_not("canary");
    site.get_as("guest", path).await.is(200).says("e-2").says_not("type=\"checkbox\"");
    let next = site.get(&format!("{path}?limit=2")).await;
    let next = next.text.split("scheduled?after=").nth(1).unwrap().split('"').next().unwrap();
    site.get(&format!("{path}?after={next}")).await.is(200).says("e-3").says_not("e-2");
    site.get(&format!("{path}?after=nonsense")).await.is(400);
    let ran = site.post_as("run_now", &format!("{path}/run-now"), &[("id", "e-\"1")]).await;
    assert_eq!(ran.is(303).notice(), "Entered 1 events.");
    assert_eq!(site.server.length("orders"), 2);
    let ids = [("id", "e-2"), ("id", "e-\"1")];
    let cancelled = site.post_as("cancel_scheduled", &format!("{path}/cancel"), &ids).await;
    assert_eq!(cancelled.is(303).notice(), "Cancelled 1 events. 1 were no longer waiting.");
    site.get(path).await.says("e-3").says_not("e-2");
    site.post(&format!("{path}/cancel"), &[]).await.is(400).says("No event is selected");
    site.get("/jobs/streams/hidden/scheduled").await.is(404);
    let done = site.done.lock().unwrap();
    assert!(done.iter().all(|done| done.target.ends_with("scheduled events of orders")));
}

#[tokio::test]
async fn schedules_are_shown_in_words_and_run_paused_and_resumed() {
    let site = Site::start().await;
    let path = "/jobs/streams/orders/schedules";
    site.get(path).await.is(200).says("No schedules.").says("Nothing has fired.");
    let schedules = site.client.schedules("orders").unwrap();
    let stored = |name: &str, expression: &str| {
        let schedule = Schedule::cron(name, expression).unwrap();
        let schedule = schedule.overlap(Overlap::skip("work").unwrap());
        schedule.stream("orders").unwrap()
    };
    for (name, expression) in [("a-year", "0 0 1 1 *"), ("b-leap", "0 0 29 2 *")] {
        schedules.put(&stored(name, expression)).await.unwrap();
    }
    site.get("/jobs/streams/orders").await.says("/schedules\">show</a>");
    site.get(path).await.says("a-year").says("(UTC)").says("in ").says("never");
    site.get(path).await.says(">Skipped<").says("skips while group work has not ended");
    site.get_as("guest", path).await.is(200).says("b-leap").says_not("type=\"checkbox\"");
    site.get(&format!("{path}?limit=1")).await.says("schedules?after=a-year").says_not("b-leap");
    site.get(&format!("{path}?after=a-year")).await.says("b-leap").says_not("s-a-year");
    site.get(&format!("{path}?after=a/b")).await.is(400);
    let one = [("id", "a-year")];
    let ran = site.post_as("run_now", &format!("{path}/run-now"), &one).await;
    assert_eq!(ran.is(303).notice(), "Published 1 events.");
    assert_eq!(site.server.length("orders"), 1);
    site.get(path).await.says("by hand");
    let paused = site.post_as("pause", &format!("{path}/pause"), &one).await;
    assert_eq!(paused.is(303).notice(), "Paused 1 schedules.");
    site.get(path).await.says(">paused</td>");
    let both = [("id", "a-year"), ("id", "b-leap")];
    let resumed = site.post_as("pause", &format!("{path}/resume"), &both).await;
    assert_eq!(resumed.is(303).notice(), "Resumed 1 schedules. 1 were not paused.");
    site.get(path).await.says_not(">paused</td>");
    site.post(&format!("{path}/pause"), &[("id", "missing")]).await.is(404);
    site.post(&format!("{path}/pause"), &[("id", "a/b")]).await.is(400);
    site.post(&format!("{path}/run-now"), &[]).await.is(400).says("No schedule is selected");
    // The second is gone: what was published before is told, so that it is not published again.
    let three = [("id", "a-year"), ("id", "missing"), ("id", "b-leap")];
    let ran = site.post_as("run_now", &format!("{path}/run-now"), &three).await;
    let notice = ran.is(303).notice();
    assert!(notice.starts_with("Published 1 events. Stopped at missing: "), "{notice}");
    assert!(notice.ends_with(". 1 were not tried."), "{notice}");
    assert_eq!(site.server.length("orders"), 2);
    site.get("/jobs/streams/hidden/schedules").await.is(404);
    let done = site.done.lock().unwrap();
    assert!(done.iter().any(|done| done.target == "schedule a-year of orders"));
}

#[tokio::test]
async fn letters_are_redriven_after_a_dry_run_that_changes_nothing() {
    let site = Site::start().await;
    for order in [1, 2, 3] {
        site.store_dead_letter(&format!("order {order} not found"), "{}");
    }
    let other = site.store_dead_letter("the bank is closed", "{}");
    let page = site.get(&format!("{GROUP}/dead")).await;
    let kind = page.text.split("data-fingerprint=\"").nth(1).unwrap().split('"').next().unwrap();
    let path = format!("{GROUP}/dead/redrive");
    let dry = site.post(&path, &[("fingerprint", kind), ("dry_run", "1")]).await;
    dry.is(200)
        .says("This redrives 3 dead letters")
        .says("Nothing has been changed yet")
        .says("name=\"all\" value=\"1\"");
    assert_eq!(site.server.length("{orders}:dead:work"), 4);
    let until = dry.field("until");
    site.store_dead_letter("order 4 not found", "{}");
    let fields = [("fingerprint", kind), ("all", "1"), ("until", &until)];
    let done = site.post_as("redrive", &path, &fields).await;
    let notice = "Redrove 3 jobs to this group. There may be more: start another dry run.";
    assert_eq!(done.is(303).notice(), notice);
    assert_eq!(
        (site.server.length("{orders}:lane:work"), site.server.length("{orders}:dead:work")),
        (3, 2),
        "letters that were stored after the dry run are not included"
    );
    let one = site.post(&path, &[("id", &other), ("id", "1-1")]).await;
    assert!(
        one.notice()
            .starts_with("Redrove 1 jobs to this group. 1 could not be redriven, for example 1-1")
    );
    site.post(&path, &[("id", "invalid")]).await.is(400);
}

#[tokio::test]
async fn a_redrive_stops_when_the_server_refuses_and_reports_how_many_were_not_tried() {
    let site = Site::start().await;
    let ids = (0..3).map(|_| site.store_dead_letter("no", "{}")).collect::<Vec<_>>();
    let fields = ["1-1", &ids[0], &ids[1], &ids[2]].map(|id| ("id", id));
    site.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = site.post(&format!("{GROUP}/dead/redrive"), &fields).await;
    full.is(503).says("Redrove 0 jobs").says("1 could not be redriven, for example 1-1");
    full.says(&format!("Stopped at {}", ids[0])).says("2 were not tried.");
    let outcome = site.done.lock().unwrap()[0].outcome.clone();
    assert!(outcome.is_err_and(|text| text.ends_with("2 were not tried.")));
    site.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let all = site.post(&format!("{GROUP}/dead/redrive"), &fields).await;
    assert!(
        all.is(303).notice().starts_with("Redrove 3 jobs to this group. 1 could not be redriven")
    );
}

#[tokio::test]
async fn a_redrive_on_a_server_that_does_not_answer_waits_for_one_letter_only() {
    let site = Site::start().await;
    let ids = (0..100).map(|_| site.store_dead_letter("no", "{}")).collect::<Vec<_>>();
    let fields = ids.iter().map(|id| ("id", id.as_str())).collect::<Vec<_>>();
    site.server.freeze();
    let path = format!("{GROUP}/dead/redrive");
    let asked = tokio::time::timeout(6 * DEADLINE, site.post(&path, &fields));
    let answer = asked.await.unwrap();
    site.server.thaw();
    answer.is(503).says("99 were not tried.");
}

#[tokio::test]
async fn letters_are_purged_only_if_selected_or_after_a_dry_run_of_all() {
    let site = Site::start().await;
    let ids = (0..4).map(|_| site.store_dead_letter("no", "{}")).collect::<Vec<_>>();
    let path = format!("{GROUP}/dead/purge");
    let dry = site.post(&path, &[("dry_run", "1")]).await;
    dry.is(200).says("This deletes 4 dead letters of the group.");
    assert_eq!(site.server.length("{orders}:dead:work"), 4);
    let purged = site.post_as("purge", &path, &[("id", &ids[0]), ("id", &ids[1])]).await;
    assert_eq!(purged.is(303).notice(), "Deleted 2 dead letters.");
    let unbounded = site.post(&path, &[("reason", "exhausted"), ("all", "1")]).await;
    unbounded.is(400).says("give the last letter of a dry run");
    assert_eq!(site.server.length("{orders}:dead:work"), 2);
    let rest = [("reason", "exhausted"), ("all", "1"), ("until", ids[3].as_str())];
    let rest = site.post(&path, &rest).await;
    assert_eq!(rest.notice(), "Deleted 2 dead letters.");
    site.get(&format!("{GROUP}/dead")).await.is(200).says("No dead letters.");
    let targets =
        site.done.lock().unwrap().iter().map(|action| action.target.clone()).collect::<Vec<_>>();
    let all = "all dead letters with the reason exhausted";
    assert_eq!(targets, ["2 dead letters", all, all]);
}

#[tokio::test]
async fn letters_after_ten_thousand_others_are_found_by_scanning_further() {
    let site = Site::start().await;
    let many =
        "for _ = 1, 10000 do redis.call('XADD', KEYS[1], '*', 'sj-dead-reason', 'rejected') end";
    site.server.command(&["EVAL", many, "1", "{orders}:dead:work"]);
    site.store_dead_letter("rare", "{}");
    let path = format!("{GROUP}/dead/redrive");
    let first = site.post(&path, &[("reason", "exhausted"), ("dry_run", "1")]).await;
    first
        .is(200)
        .says("This redrives 0 dead letters")
        .says("Scan further")
        .says_not("name=\"all\"");
    let after = first.field("after");
    let asked = [("reason", "exhausted"), ("dry_run", "1"), ("after", &after)];
    let second = site.post(&path, &asked).await;
    second.is(200).says("This redrives 1 dead letters").says_not("Scan further");
    assert_eq!(second.field("after"), after);
    let until = second.field("until");
    let fields = [("reason", "exhausted"), ("all", "1"), ("after", &after), ("until", &until)];
    let done = site.post(&path, &fields).await;
    assert_eq!(done.is(303).notice(), "Redrove 1 jobs to this group.");
    assert_eq!(site.server.length("{orders}:dead:work"), 10_000);
}

#[tokio::test]
async fn a_dead_consumer_is_removed_without_losing_an_entry_and_a_live_one_is_not() {
    let site = Site::start().await;
    site.append("order.placed", "{}");
    site.deliver("ghost", 1);
    let gone =
        site.post_as("remove_consumer", &format!("{GROUP}/consumers/ghost/remove"), &[]).await;
    assert!(
        gone.is(303).notice().starts_with("Removed the consumer. Released 1 entries"),
        "{}",
        gone.notice()
    );
    let left = site.server.pending("orders", "work");
    assert_eq!((left.len(), left[0].consumer.as_str()), (1, "streamjobs-released"));
    site.post(&format!("{GROUP}/consumers/missing/remove"), &[]).await.is(404);
    let runtime =
        Runtime::builder(&site.client).handlers(handlers![fail_once]).start().await.unwrap();
    let reads = async || site.get(GROUP).await.text.contains(runtime.consumer().as_str());
    eventually_async(DEADLINE, "it reads", reads).await;
    let live = format!("{GROUP}/consumers/{}/remove", runtime.consumer());
    site.post(&live, &[]).await.is(409).says("The consumer is alive");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_failed_action_shows_its_reason_and_is_audited() {
    let site = Site::start().await;
    site.post("/jobs/streams/orders/groups/missing/pause", &[])
        .await
        .is(404)
        .says("no group missing");
    site.post(&format!("{GROUP}/reap"), &[]).await.is(303);
    site.group().destroy(streamjobs::stream::Unfinished::Keep).await.unwrap();
    site.post(&format!("{GROUP}/reap"), &[]).await.is(404);
    site.group().create(Start::Beginning).await.unwrap();
    site.server.kill();
    site.post(&format!("{GROUP}/pause"), &[]).await.is(503).says("Redis did not answer");
    let outcomes =
        site.done.lock().unwrap().iter().map(|action| action.outcome.is_ok()).collect::<Vec<_>>();
    assert_eq!(outcomes, [false, true, false, false]);
}

#[tokio::test]
async fn an_action_whose_browser_disconnected_is_audited() {
    let site = Site::start().await;
    site.server.freeze();
    let path = format!("{GROUP}/pause");
    let asked = site.post(&path, &[]);
    assert!(tokio::time::timeout(Duration::from_millis(200), asked).await.is_err());
    site.server.thaw();
    let done = site.done.lock().unwrap();
    assert!(done[0].outcome.as_ref().is_err_and(|text| text.contains("disconnected")), "{done:?}");
}

#[tokio::test]
async fn a_callback_that_panics_fails_no_request() {
    let site = Site::start().await;
    let dashboard = Dashboard::builder(site.client.clone(), by_name)
        .streams([StreamName::new("orders").unwrap()])
        .on_action(|_| panic!("by the application"));
    let app = Router::new().nest("/jobs", dashboard.build().router());
    let site = Site { app, ..site };
    let paused = site.post(&format!("{GROUP}/pause"), &[]).await;
    assert_eq!(paused.is(303).notice(), "Paused in all processes.");
    site.post_as("guest", &format!("{GROUP}/resume"), &[]).await.is(403);
    site.server.freeze();
    let path = format!("{GROUP}/resume");
    let asked = site.post(&path, &[]);
    assert!(tokio::time::timeout(Duration::from_millis(200), asked).await.is_err());
    site.server.thaw();
    let alerts = site.get("/jobs/alerts").await;
    alerts
        .says("Paused in all processes.")
        .says("do not have permission for this action")
        .says("disconnected");
}

#[tokio::test]
async fn a_notice_is_shown_once_and_cannot_come_from_an_address() {
    let site = Site::start().await;
    let paused = site.post(&format!("{GROUP}/pause"), &[]).await;
    let cookies = paused.headers.get_all("set-cookie").iter();
    let mut cookies = cookies.map(|cookie| cookie.to_str().unwrap());
    let notice = cookies.find(|cookie| cookie.starts_with("streamjobs-notice")).unwrap();
    let pair = notice.split(';').next().unwrap();
    let request = axum::http::Request::get(GROUP).header("x-user", "root").header("cookie", pair);
    let page = site.ask(request.body(axum::body::Body::empty()).unwrap()).await;
    page.says("role=\"status\">Paused in all processes.");
    let taken = page
        .headers
        .get_all("set-cookie")
        .iter()
        .any(|cookie| cookie.to_str().unwrap().starts_with("streamjobs-notice=;"));
    assert!(taken);
    site.get(&format!("{GROUP}?notice=canary")).await.says_not("canary");
}
