//! The page of one event.

use crate::site::{GROUP, Site};

const EVENT: &str = "/jobs/streams/orders/event";

#[tokio::test]
async fn an_event_is_found_from_every_list_and_its_jobs_are_shown() {
    let site = Site::start().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let words = ["type", "order.placed", "data", "{}", "sj-id", "e 1", "sj-trace", trace];
    let entry = site.server.query::<String>(&[&["XADD", "orders", "*"], &words[..]].concat());
    let page = site.get("/jobs/streams/orders").await;
    page.is(200).says("Find an event").says(&format!("/event?id={entry}"));
    let page = site.get(&format!("{EVENT}?id={entry}")).await;
    page.is(200).says("<dd id=\"event-id\">e 1</dd>").says("data-state=\"waiting\"");
    page.says("<dd id=\"trace\">0af7651916cd43dd8448eb211c80319c</dd>");
    page.says("<dd id=\"scheduled\">no</dd>").says("<dd id=\"cancelled\">no</dd>");

    site.deliver("ghost", 1);
    let page = site.get(&format!("{GROUP}/pending")).await;
    page.is(200).says(&format!("event?id={entry}"));
    let page = site.get(&format!("{EVENT}?id=e%201")).await;
    page.is(200).says("data-state=\"pending\"").says("ghost, delivered 1 times");
    page.says(&format!("replay?start={entry}&amp;end={entry}"));
    site.server.command(&["XACK", "orders", "work", &entry]);
    let result = ["SET", "{orders}:result:work:{e 1}", "{\"card\":47}", "PX", "600000"];
    site.server.command(&result);
    let page = site.get(&format!("{EVENT}?id=e%201")).await;
    page.is(200).says("data-state=\"ended\"").says("11 B, kept for 9 min").says_not("card");

    let letter = site.store_dead_letter("card 47 refused", "{}");
    for path in [format!("{GROUP}/dead"), format!("{GROUP}/dead/{letter}")] {
        site.get(&path).await.is(200).says("event?id=event-1");
    }
    let page = site.get(&format!("{EVENT}?id=event-1")).await;
    page.is(200).says("data-state=\"dead\"").says(&format!("dead letter {letter}"));
    page.says("card 47 refused").says("not found in the stream");
    let blind = site.get_as("blind", &format!("{EVENT}?id=event-1")).await;
    blind.is(200).says("data-state=\"dead\"").says_not("card 47");
}

/// Errors may quote payloads, wherever a page shows them.
#[tokio::test]
async fn past_attempts_are_shown_on_the_page_of_the_event_and_of_the_dead_letter() {
    let site = Site::start().await;
    let first = r#"{"n":2,"attempt":1,"end":"failed","at":1764000000000,"ms":3200,"by":"<b>-1","deliveries":2,"next":1764000005000,"error":"card 47 refused"}"#;
    let last = r#"{"n":3,"attempt":2,"end":"panicked","at":1764000006000,"ms":12,"by":"web-2","deliveries":1,"error":"card 47 again"}"#;
    let letter = ["sj-dead-reason", "exhausted", "sj-dead-event", "e-9", "sj-dead-attempt", last];
    let job = ["type", "t", "sj-id", "e-9", "sj-error", "card 47 refused", "sj-history", first];
    let words = [&["XADD", "{orders}:dead:work", "*"], &letter[..], &job].concat();
    let id = site.server.query::<String>(&words);
    for path in [format!("{EVENT}?id=e-9"), format!("{GROUP}/dead/{id}")] {
        let page = site.get(&path).await;
        page.is(200).says("Attempts").says("1 earlier attempts are not kept.");
        page.says("data-end=\"failed\"").says("data-end=\"panicked\"").says("3.2 s").says("12 ms");
        page.says("2025-11-24 16:00:05 UTC").says("1 earlier deliveries ended without an outcome");
        page.says("card 47 again").says("&lt;b&gt;-1").says_not("<b>-1").says_not("sj-history");
        let blind = site.get_as("blind", &path).await;
        blind.is(200).says("data-end=\"panicked\"").says_not("card 47");
    }
}

#[tokio::test]
async fn finished_jobs_are_listed_and_say_when_the_job_of_an_event_was_done() {
    let site = Site::start().await;
    let path = format!("{GROUP}/finished");
    site.get(&path).await.is(200).says("No finished jobs are noted");
    for (id, key) in [("e-1", "<alice>"), ("e-2", "bob")] {
        let words =
            ["id", id, "type", "order.placed", "key", key, "origin", "1-7", "at", "1764000000000"];
        let words =
            [&["XADD", "{orders}:done:work", "*"], &words[..], &["ms", "3200", "attempt", "2"]];
        site.server.command(&[&words.concat()[..], &["by", "web-1"]].concat());
    }
    let page = site.get(&path).await;
    page.is(200).says("event?id=e-1").says("event?id=e-2").says("3.2 s").says("web-1");
    page.says("&lt;alice&gt;").says_not("<alice>");
    let page = site.get(&format!("{path}?key=bob")).await;
    page.is(200).says("event?id=e-2").says_not("event?id=e-1");
    let page = site.get(&format!("{path}?limit=1")).await;
    page.is(200).says("event?id=e-2").says_not("event?id=e-1").says("Earlier ones");
    site.get(&format!("{path}?type=other")).await.is(200).says("None of the notes matches");
    site.get(&format!("{path}?before=x")).await.is(400).says("Invalid entry id.");
    let page = site.get(&format!("{EVENT}?id=e-1")).await;
    page.is(200).says("2025-11-24 16:00:03 UTC").says("by web-1, attempt 2");
    site.get(GROUP).await.is(200).says("/finished");
}

#[tokio::test]
async fn an_unknown_event_has_a_page_that_says_what_was_searched() {
    let site = Site::start().await;
    site.append("order.placed", "{}");
    let page = site.get(&format!("{EVENT}?id=%3Cb%3Eno")).await;
    page.is(200).says("Nothing is known of this event.").says("The whole stream was searched.");
    page.says("&lt;b&gt;no").says_not("<b>no");
    site.get(&format!("{EVENT}?id=5-0")).await.is(200).says("Nothing is known of this event.");
    site.get(EVENT).await.is(200).says("Give an event id");
    site.get(&format!("{EVENT}?id=a%0Ab")).await.is(400).says("Invalid event id.");
    site.get(&format!("{EVENT}?id=a&entry=x")).await.is(400).says("Invalid entry id.");
    site.get("/jobs/streams/other/event?id=a").await.is(404);
}

/// The hint that a link carries counts only where it is right.
#[tokio::test]
async fn an_entry_of_another_event_is_not_taken_for_this_one() {
    let site = Site::start().await;
    let add = |id: &str| {
        let words = ["XADD", "orders", "*", "type", "t", "data", "{}", "sj-id", id];
        site.server.query::<String>(&words)
    };
    let (first, second) = (add("e-1"), add("e-2"));
    let page = site.get(&format!("{EVENT}?id=e-1&entry={second}")).await;
    page.is(200).says("<dd id=\"event-id\">e-1</dd>").says(&format!("start={first}"));
}

/// The events whose jobs are cancelled, with the group.
async fn marks(site: &Site) -> Vec<(String, Option<String>)> {
    let marks = site.client.stream("orders").unwrap().cancelled(0, 50).await.unwrap();
    marks.into_iter().map(|mark| (mark.event_id, mark.group)).collect()
}

#[tokio::test]
async fn jobs_of_an_event_are_cancelled_for_one_group_or_all_and_that_is_taken_back() {
    let site = Site::start().await;
    let words = ["XADD", "orders", "*", "type", "t", "data", "{}", "sj-id", "e \"1"];
    let entry = site.server.query::<String>(&words);
    let (page, id) = (format!("{EVENT}?id=e%20%221"), "e \"1");
    site.get(&page).await.says("Cancel in all groups").says("data-confirm=\"Cancel the job");
    site.get_as("guest", &page).await.is(200).says_not("event/cancel").says_not("Undo cancel");
    let cancel = format!("{EVENT}/cancel");
    let fields = [("event", id), ("entry", entry.as_str()), ("group", "work")];
    let one = site.post_as("cancel", &cancel, &fields).await;
    assert!(one.is(303).notice().starts_with("Cancelled for work: jobs that wait"), "{one:?}");
    let back = one.headers["location"].to_str().unwrap();
    assert!(back.ends_with(&format!("streams/orders/event?id=e%20%221&entry={entry}")), "{back}");
    assert_eq!(marks(&site).await, [(id.to_owned(), Some("work".to_owned()))]);
    // The group's own button is gone, that for all groups and the one that takes it back are there.
    let shown = site.get(&page).await;
    shown.says("Undo cancel").says("Cancel in all groups").says_not(">Cancel</button>");

    let all = site.post(&cancel, &[("event", id)]).await;
    assert!(all.is(303).notice().starts_with("Cancelled for all groups: "), "{all:?}");
    assert_eq!(marks(&site).await.len(), 2);
    site.get(&page).await.says_not("Cancel in all groups");
    let (back, gone) = (format!("{EVENT}/uncancel"), "There was no cancel to undo.");
    for fields in [&fields[..], &[("event", id)]] {
        let answer = site.post_as("cancel", &back, fields).await;
        assert!(answer.is(303).notice().starts_with("Undid the cancel."), "{answer:?}");
        assert_eq!(site.post_as("cancel", &back, fields).await.is(303).notice(), gone);
    }
    assert_eq!(marks(&site).await, []);
    let done = site.done.lock().unwrap().clone();
    let told = done.iter().map(|done| (done.target.as_str(), done.queue.is_some()));
    let told = told.collect::<Vec<_>>();
    assert_eq!(told[0], ("cancel event e \"1", true));
    assert_eq!(told[1], ("cancel event e \"1 of orders for all groups", false));
    assert_eq!(told[5], ("undo the cancel of event e \"1 of orders for all groups", false));
    assert!(done.iter().all(|done| done.action == streamjobs_dashboard::Action::Cancel));
}

#[tokio::test]
async fn a_cancel_from_the_retries_leads_back_there_and_invalid_ones_change_nothing() {
    let site = Site::start().await;
    let cancel = format!("{EVENT}/cancel");
    let fields = [("event", "e-1"), ("group", "work"), ("from", "retries")];
    let answer = site.post(&cancel, &fields).await;
    let back = answer.is(303).headers["location"].to_str().unwrap();
    assert!(back.ends_with("streams/orders/groups/work/retries"), "{back}");
    site.get(&format!("{EVENT}?id=unknown")).await.is(200).says("Cancel in all groups");
    for fields in [&[][..], &[("event", "")], &[("event", "a\nb")], &[("group", "work")]] {
        site.post(&cancel, fields).await.is(400).says("Invalid event id.");
    }
    let wrong = [("event", "e-2"), ("group", "a\nb")];
    site.post(&cancel, &wrong).await.is(400).says("Invalid name");
    site.post("/jobs/streams/hidden/event/cancel", &[("event", "e-2")]).await.is(404);
    assert_eq!(marks(&site).await, [("e-1".to_owned(), Some("work".to_owned()))]);
}

/// Each attempt is audited, also one without the permission: with what was checked, and never with text of any length.
#[tokio::test]
async fn what_is_not_an_id_or_a_name_is_not_audited() {
    let site = Site::start().await;
    let cancel = format!("{EVENT}/cancel");
    let long = "x".repeat(10_000);
    site.post_as("guest", &cancel, &[("event", &long), ("group", &long)]).await.is(403);
    site.post(&cancel, &[("event", "e-1"), ("group", &long)]).await.is(400);
    site.post(&format!("/jobs/streams/{}/event/cancel", &long[..4_000]), &[("event", "e-1")])
        .await
        .is(404);
    let done = site.done.lock().unwrap().clone();
    assert_eq!(done.len(), 3);
    assert_eq!((&*done[0].target, &done[0].queue), ("cancel an invalid event id", &None));
    assert_eq!((&*done[1].target, &done[1].queue), ("cancel event e-1", &None));
    assert!(done[2].target.len() < 1_100, "{} bytes", done[2].target.len());
    let page = site.get("/jobs/alerts").await;
    assert!(page.is(200).text.len() < 50_000, "{} bytes", page.text.len());
}

/// The list names the archive for its own actions alone.
#[tokio::test]
async fn an_action_on_no_group_is_not_said_to_be_one_on_the_archive() {
    let site = Site::start().await;
    site.post(&format!("{EVENT}/cancel"), &[("event", "e-1")]).await.is(303);
    let page = site.get("/jobs/alerts").await;
    page.is(200).says("cancel event e-1 of orders for all groups").says_not("<td>archive</td>");
}
