//! The dashboard in a real browser.

use std::time::Duration;

use streamjobs_tests::browser::Browser;

use crate::session::Session;
use crate::site::GROUP;

#[tokio::test(flavor = "multi_thread")]
async fn no_untrusted_text_can_be_executed() {
    let session = Session::start().await;
    let hostile = [
        "<script>window.owned = 1</script>",
        "<img src=x onerror=\"window.owned = 1\">",
        "\" onmouseover=\"window.owned = 1\" x=\"",
        "javascript:window.owned=1",
        "</textarea></pre></details><script>window.owned = 1</script>",
        "\u{202e}gnirts\u{2066}\u{0}\u{1b}[31m",
    ];
    for text in hostile {
        session.site.append(text, text);
        session.site.store_dead_letter(text, text);
    }
    for (number, text) in hostile.iter().enumerate() {
        session.site.deliver(&format!("{number}{}", text.replace('\u{0}', "")), 1);
    }
    let letter = session.site.store_dead_letter(hostile[0], hostile[4]);
    for path in [
        "/jobs".to_owned(),
        "/jobs/processes".into(),
        "/jobs/alerts".into(),
        "/jobs/streams/orders".into(),
        "/jobs/streams/orders/replay?limit=100".into(),
        "/jobs/streams/orders/find?text=%22".into(),
        "/jobs/streams/orders/find?text=%3Cscript%3Ewindow.owned%3D1%3C/script%3E".into(),
        "/jobs/streams/orders/replay?start=%3Cscript%3Ewindow.owned%3D1%3C/script%3E".into(),
        GROUP.into(),
        format!("{GROUP}/pending"),
        format!("{GROUP}/pending?consumer=%22%3E%3Cscript%3Ewindow.owned%3D1%3C/script%3E"),
        format!("{GROUP}/retries"),
        format!("{GROUP}/dead"),
        format!("{GROUP}/dead/{letter}"),
    ] {
        session.open(&path).await;
        let open = "for (const part of document.querySelectorAll('details')) part.open = true; return true";
        session.browser.run(open).await.unwrap();
        let executable = "const own = [...document.querySelectorAll('head script')].length;
            const all = document.querySelectorAll('script').length;
            const handlers = [...document.querySelectorAll('*')].filter((element) =>
                [...element.attributes].some((attribute) => attribute.name.startsWith('on')));
            const links = [...document.querySelectorAll('[href], [action], [formaction]')].filter((element) =>
                /^\\s*javascript:/i.test(element.getAttribute('href') ?? element.getAttribute('action') ?? element.getAttribute('formaction')));
            return [own, all - own, handlers.length, links.length, document.querySelectorAll('img, iframe, object').length,
                /[\\u202e\\u2066]/.test(document.body.innerText) ? 1 : 0, window.owned ?? 0]";
        let found = session.browser.run(executable).await.unwrap();
        assert_eq!(found, serde_json::json!([2, 0, 0, 0, 0, 0, 0]), "{path}");
    }
    session.has_no_errors().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_page_keeps_what_the_user_types_selects_and_opens() {
    let session = Session::start().await;
    let browser = &session.browser;
    let first = session.site.append("order.placed", "{\"a\":1}");
    session.open("/jobs/streams/orders").await;
    browser.shows("#liveness", "live").await;
    browser.fill("main form [name=start]", "half a nu").await.unwrap();
    let prepare = "document.activeElement.setSelectionRange(2, 4);
        document.querySelector('#live details').open = true;
        return true;";
    browser.run(prepare).await.unwrap();
    session.site.append("order.paid", "{\"a\":2}");
    browser.shows("#length", "2").await;
    let kept = format!(
        "const field = document.activeElement;
        return field.name === 'start' && field.value === 'half a nu' && field.selectionStart === 2
            && field.selectionEnd === 4 && document.querySelector('[id=\"e-{first}\"] details').open;"
    );
    assert_eq!(browser.run(&kept).await.unwrap(), true);
    // Selected text and checked boxes are kept as well when rows are added.
    session.site.deliver("ghost", 2);
    session.open(&format!("{GROUP}/pending")).await;
    browser.shows("#liveness", "live").await;
    let choose = format!(
        "document.querySelector('[value=\"{first}\"]').checked = true;
        getSelection().selectAllChildren(document.querySelector('[id=\"p-{first}\"] .id'));
        return getSelection().toString().trim()"
    );
    assert_eq!(browser.run(&choose).await.unwrap(), first.as_str());
    let third = session.site.append("order.paid", "{}");
    session.site.deliver("ghost", 1);
    browser.shows(&format!("[id=\"p-{third}\"]"), &third).await;
    let kept = format!(
        "return document.querySelector('[value=\"{first}\"]').checked && getSelection().toString().trim() === '{first}'"
    );
    assert_eq!(browser.run(&kept).await.unwrap(), true);
    session.has_no_errors().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_updates_can_be_paused_and_show_when_they_fail() {
    let session = Session::start().await;
    let browser = &session.browser;
    session.open(GROUP).await;
    browser.shows("#liveness", "live").await;
    browser.press("p").await.unwrap();
    browser.shows("#liveness", "paused").await;
    session.site.append("order.placed", "{}");
    // Other pages are paused as well, and show new data when they are loaded.
    session.open("/jobs").await;
    browser.shows("#liveness", "paused").await;
    browser.click("#pause").await.unwrap();
    browser.shows("#liveness", "live").await;
    browser.shows("#waiting", "1").await;
    browser.shows("section.banner", "Problems").await;
    // Keys open pages, but not while the user types.
    browser.press("a").await.unwrap();
    browser.shows("h1", "Alerts").await;
    session.open(&format!("{GROUP}/pending")).await;
    browser.press("/").await.unwrap();
    let typing = "return document.activeElement.name === 'idle'";
    browser.until("the filter has the focus", typing).await;
    browser.fill("[name=consumer]", "a").await.unwrap();
    assert!(browser.address().await.unwrap().ends_with("/pending"));
    browser.press(&Browser::escape()).await.unwrap();
    browser.press("o").await.unwrap();
    browser.shows("h1", "Overview").await;
    // The last values are kept, marked as stale, below the error.
    session.open(GROUP).await;
    browser.shows("#liveness", "live").await;
    session.site.server.kill();
    browser.shows("#stale", "Redis did not answer").await;
    browser.shows("#live.stale", "Consumers").await;
    session.site.server.restart().unwrap();
    browser
        .until(
            "updates go on",
            "return document.getElementById('liveness').textContent !== 'static'",
        )
        .await;
    session.has_no_errors().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_are_done_through_forms_with_confirmations() {
    let session = Session::start().await;
    let browser = &session.browser;
    session.open(GROUP).await;
    browser.click("form[action$='/pause'] button").await.unwrap();
    browser.dismiss().await.unwrap();
    assert!(session.site.group().info().await.unwrap().paused.is_none());
    browser.click("form[action$='/pause'] button").await.unwrap();
    browser.accept().await.unwrap();
    browser.shows(".notice", "Paused in all processes.").await;
    browser.click("form[action$='/resume'] button").await.unwrap();
    browser.shows(".notice", "Resumed.").await;
    let ids = (0..3).map(|_| session.site.append("order.placed", "{}")).collect::<Vec<_>>();
    session.site.deliver("ghost", 3);
    session.site.server.age("orders", "work", &ids[0], Duration::from_secs(60));
    session.open(&format!("{GROUP}/pending")).await;
    browser.click("[data-all=id]").await.unwrap();
    browser.click("[formaction$='/release']").await.unwrap();
    browser.accept().await.unwrap();
    browser.shows(".notice", "3 entries released: any consumer can claim them now.").await;
    for order in [1, 2] {
        session.site.store_dead_letter(&format!("order {order} not found"), "{}");
    }
    session.open(&format!("{GROUP}/dead")).await;
    browser.click("#kinds form[action$='/redrive'] button").await.unwrap();
    browser.shows("#plan", "This redrives 2 dead letters").await;
    assert_eq!(session.site.server.length("{orders}:dead:work"), 2);
    browser.click("form[action$='/redrive'] button").await.unwrap();
    browser.shows(".notice", "Redrove 2 jobs").await;
    session.site.store_dead_letter("no", "{}");
    session.open(&format!("{GROUP}/dead")).await;
    browser.click("[name=id]").await.unwrap();
    browser.click("[formaction$='/purge']").await.unwrap();
    browser.accept().await.unwrap();
    browser.shows(".notice", "Deleted 1 dead letters.").await;
    session.open(GROUP).await;
    browser.click("[data-consumer=ghost] button").await.unwrap();
    browser.accept().await.unwrap();
    browser.shows(".notice", "Removed the consumer.").await;
    session.open("/jobs/alerts").await;
    browser.shows("[data-action=purge]", "Deleted 1 dead letters.").await;
    session.has_no_errors().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_fits_a_phone_and_has_a_dark_mode() {
    let session = Session::start().await;
    let browser = &session.browser;
    session.site.append("order.placed", &format!("{{\"long\":\"{}\"}}", "x".repeat(500)));
    session.site.deliver("a-consumer-with-quite-a-long-name-0123456789abcdef", 1);
    let letter = session.site.store_dead_letter(&"a very long error ".repeat(30), "{}");
    browser.resize(390, 800).await.unwrap();
    browser.prefer_dark().await.unwrap();
    for path in [
        "/jobs".to_owned(),
        "/jobs/processes".into(),
        "/jobs/alerts".into(),
        "/jobs/streams/orders".into(),
        "/jobs/streams/orders/replay".into(),
        GROUP.into(),
        format!("{GROUP}/pending"),
        format!("{GROUP}/retries"),
        format!("{GROUP}/dead"),
        format!("{GROUP}/dead/{letter}"),
        "/jobs/nowhere".into(),
    ] {
        session.open(&path).await;
        let address = browser.address().await.unwrap();
        assert_eq!(address, format!("{}{path}", session.address));
        let dark = "return getComputedStyle(document.body).backgroundColor === 'rgb(16, 21, 19)'";
        browser.until("the page is dark", dark).await;
        let seen = "return [document.documentElement.scrollWidth <= window.innerWidth,
            document.querySelectorAll('h1, h2').length > 0,
            document.querySelector('meta[name=viewport]') !== null]";
        let seen = browser.run(seen).await.unwrap();
        assert_eq!(seen, serde_json::json!([true, true, true]), "{path}");
    }
    session.has_no_errors().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_shown_once_and_changes_are_told() {
    let session = Session::start().await;
    let browser = &session.browser;
    session.open("/jobs").await;
    browser.shows("#liveness", "live").await;
    session.site.store_dead_letter("no", "{}");
    let told = "return document.getElementById('changes').textContent === 'Problems: dead letters work on orders'";
    browser.until("the problem is told", told).await;
    // A pause of the page and a pause of the work have different names.
    session.open(GROUP).await;
    browser.shows("#pause", "Pause updates").await;
    browser.shows("form[action$='/pause'] button", "Pause work in all processes").await;
    // A page that could not be read shows why, and is not told the same again.
    session.site.server.kill();
    session.open(GROUP).await;
    browser.shows("h1", "Redis did not answer").await;
    browser.shows("#liveness", "error").await;
    assert_eq!(browser.count("[role=alert]").await.unwrap(), 1);
    session.site.server.restart().unwrap();
    browser.shows("h1", "Not found").await;
    assert_eq!(browser.count("[role=alert]").await.unwrap(), 1);
    session.site.group().create(streamjobs::config::Start::Beginning).await.unwrap();
    browser.shows("#liveness", "live").await;
    browser.until("the error is gone", "return !document.querySelector('[role=alert]')").await;
    session.has_no_errors().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_times_are_in_the_zone_of_the_reader_and_go_on_while_a_page_is_not_updated() {
    let session = Session::start().await;
    let browser = &session.browser;
    let id = session.site.append("order.placed", "{}");
    session.open(&format!("/jobs/streams/orders/event?id={id}")).await;
    let local = "const time = document.querySelector('time');
        const format = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'long' });
        return time.title === format.format(new Date(time.dateTime)) && time.title !== ''";
    browser.until("the title is in the zone of the browser", local).await;
    // This page is not updated by the server.
    let later = "return /^[1-9][0-9]* s ago$/.test(document.querySelector('time').textContent)";
    browser.until("time goes on", later).await;
    // What an update brings is in the zone of the reader, too.
    session.open("/jobs/streams/orders").await;
    browser.shows("#liveness", "live").await;
    let second = session.site.append("order.placed", "{}");
    browser.shows(&format!("[id='e-{second}']"), &second).await;
    let all = "const format = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'long' });
        return [...document.querySelectorAll('time')].every((time) => time.title === format.format(new Date(time.dateTime)))";
    browser.until("all titles are in the zone of the browser", all).await;
    session.has_no_errors().await;
}

/// Entries have their ids from the clock of the server, which may be ahead of the one of the program.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_ahead_has_just_written_is_not_said_to_be_in_the_future() {
    let session = Session::start().await;
    let browser = &session.browser;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let id = format!("{}-0", now.as_millis() + 4_500);
    let words = ["XADD", "orders", &id, "type", "t", "data", "{}"];
    session.site.server.command(&words);
    session.open(&format!("/jobs/streams/orders/event?id={id}")).await;
    browser.shows("#liveness", "static").await;
    let said = "return document.querySelector('time').textContent";
    let text = browser.run(said).await.unwrap();
    assert!(text == "now" || text == "1 s ago", "{text}");
    let later = "return /^[1-9][0-9]* s ago$/.test(document.querySelector('time').textContent)";
    browser.until("time goes on", later).await;
    session.has_no_errors().await;
}
