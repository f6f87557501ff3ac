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
