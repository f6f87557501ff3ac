//! The demo page in a real browser, with every control used.

use std::time::Duration;

use streamjobs_tests::browser::Browser;
use streamjobs_tests::eventually::eventually_async;

use crate::harness::{DEADLINE, Demo};

/// A demo, and a browser on its page.
async fn page(arguments: &'static [&'static str]) -> (Demo, Browser) {
    let demo = tokio::task::spawn_blocking(|| Demo::start(arguments)).await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&format!("http://{}/", demo.address)).await.unwrap();
    browser.shows("#status", "lost = 0").await;
    (demo, browser)
}

/// The browser's errors, except for responses that the test provokes.
pub async fn complaints(browser: &Browser) -> Vec<String> {
    let all = browser.complaints().await.unwrap();
    all.into_iter().filter(|text| !text.contains("the server responded with a status")).collect()
}

fn figure(group: &str, name: &str, value: u64) -> String {
    format!("#figures [data-group=\"{group}\"][data-{name}=\"{value}\"]")
}

async fn there(browser: &Browser, selector: &str) {
    let there = async || browser.count(selector).await.is_ok_and(|count| count > 0);
    eventually_async(DEADLINE, selector, there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_shows_its_figures_and_every_form_works() {
    let (demo, browser) = page(&["--maxlen", "0"]).await;
    // The stream, its tail, and producing.
    browser.fill("#produce [name=count]", "30").await.unwrap();
    browser.choose("#produce [name=type]", "order.paid").await.unwrap();
    browser.click("#produce button").await.unwrap();
    browser.shows("#result", "\"produced\": 30").await;
    browser.shows("#length", "30").await;
    browser.shows("#tail", "order.paid").await;
    let state = demo.state();
    browser.shows("#first", state["stream"]["first"].as_str().unwrap()).await;
    browser.shows("#last", state["stream"]["last"].as_str().unwrap()).await;
    assert_eq!(browser.count("#tail tr").await.unwrap(), 10);
    for group in ["notifications", "analytics"] {
        there(&browser, &figure(group, "done", 30)).await;
    }
    // A range of history as a table.
    browser.fill("#replay [name=count]", "7").await.unwrap();
    browser.click("#replay button").await.unwrap();
    browser.shows("#result", "7 entries. Reading them changed no group.").await;
    browser.fill("#replay [name=start]", "invalid").await.unwrap();
    browser.click("#replay button").await.unwrap();
    browser.shows("#result .error", "entry ids").await;
    // Trims by length and by age.
    browser.fill("#trim-length [name=maxlen]", "5").await.unwrap();
    browser.click("#trim-length [name=exact]").await.unwrap();
    browser.click("#trim-length button").await.unwrap();
    browser.dismiss().await.unwrap();
    assert_eq!(demo.state()["stream"]["length"], 30, "the question was answered with no");
    browser.click("#trim-length button").await.unwrap();
    browser.accept().await.unwrap();
    browser.shows("#result", "\"deleted\": 25").await;
    browser.fill("#trim-age [name=older_than_s]", "0").await.unwrap();
    browser.click("#trim-age button").await.unwrap();
    browser.accept().await.unwrap();
    browser.shows("#result", "\"deleted\"").await;
    // What a group shows, and the fields of a recent entry as its tooltip.
    browser.shows("[data-group=notifications] .facts-line", "lag 0").await;
    browser.shows("[data-group=notifications] [data-consumer=worker-a]", "processed").await;
    browser
        .shows("[data-group=notifications] [data-consumer=worker-a] .recent", "done order.paid")
        .await;
    let title = "return document.querySelector('.recent .badge').title.includes('order_id o-')";
    assert_eq!(browser.run(title).await.unwrap(), true);
    assert_eq!(complaints(&browser).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_change_handlers_and_poison_is_dead_lettered_repaired_and_redriven() {
    let (_demo, browser) = page(&[]).await;
    // Latency, failures, poison, redrive.
    browser.fill("#settings [name=latency_ms]", "3").await.unwrap();
    browser.choose("#settings [name=repaired]", "1").await.unwrap();
    browser.click("#settings button").await.unwrap();
    browser.shows("#settings-now", "3 ms, 0 % fail, poison orders succeed").await;
    browser.choose("#settings [name=repaired]", "0").await.unwrap();
    browser.click("#settings button").await.unwrap();
    browser.shows("#settings-now", "poison orders fail").await;
    browser.click("#poison button").await.unwrap();
    there(&browser, &figure("notifications", "dead", 1)).await;
    there(&browser, &figure("analytics", "dead", 1)).await;
    browser.choose("#settings [name=repaired]", "1").await.unwrap();
    browser.click("#settings button").await.unwrap();
    browser.shows("#settings-now", "poison orders succeed").await;
    for group in ["notifications", "analytics"] {
        let button = format!("[data-group={group}] [data-do=redrive]");
        browser.click(&button).await.unwrap();
        there(&browser, &figure(group, "done", 1)).await;
        there(&browser, &figure(group, "lost", 0)).await;
    }
    // Pause and resume.
    browser.click("[data-group=notifications] [data-do=pause]").await.unwrap();
    browser.shows("[data-group=notifications] .paused", "paused").await;
    browser.click("[data-group=notifications] [data-do=resume]").await.unwrap();
    browser.shows("[data-group=notifications] [data-do=pause]", "Pause").await;
    // A confirmed reset.
    browser.click("#reset button").await.unwrap();
    browser.accept().await.unwrap();
    browser.shows("#result", "\"consumers\": 3").await;
    browser.shows("#length", "0").await;
    assert_eq!(complaints(&browser).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_workers_come_and_go_and_a_process_is_killed_from_the_page_without_loss() {
    let (demo, browser) = page(&["--claim-idle-ms", "2000"]).await;
    browser.fill("#produce [name=count]", "50").await.unwrap();
    let began = tokio::time::Instant::now();
    let mut produced = 0;
    for cycle in 0..12 {
        let worker = format!("comer-{cycle}");
        let form = "[data-group=notifications] form";
        browser.fill(&format!("{form} [name=name]"), &worker).await.unwrap();
        browser.click(&format!("{form} button")).await.unwrap();
        let row = format!("[data-group=notifications] [data-consumer={worker}]");
        there(&browser, &row).await;
        // Two lots for each cycle, so that there is load whatever the page waits for.
        for _ in 0..2 {
            produced += 50;
            browser.click("#produce button").await.unwrap();
            let published = async || demo.state()["published"] == produced;
            eventually_async(DEADLINE, "all are published", published).await;
        }
        if cycle == 5 {
            browser.click("#processes [data-process=process-1] button").await.unwrap();
            browser.shows("#result", "\"killed\": \"process-1\"").await;
        }
        browser.click(&format!("{row} [data-do=remove]")).await.unwrap();
        browser.accept().await.unwrap();
        browser.shows("#result", "\"abandoned\": 0").await;
    }
    let rate = produced as f64 / began.elapsed().as_secs_f64();
    assert!(rate >= 33.0, "{rate} events/s are too few for this test");
    for group in ["notifications", "analytics"] {
        there(&browser, &figure(group, "done", produced)).await;
        there(&browser, &format!("{}[data-waiting=\"0\"]", figure(group, "lost", 0))).await;
    }
    browser.shows("#status", &format!("{produced} published, lost = 0")).await;
    browser.click("#start-process button").await.unwrap();
    there(&browser, "#processes [data-process=process-3]").await;
    assert_eq!(complaints(&browser).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_entries_pending_and_they_are_claimed_for_a_chosen_consumer() {
    // So long that no process claims entries by itself: the chosen consumer claims all three.
    let (demo, browser) = page(&["--claim-idle-ms", "600000"]).await;
    browser.fill("#add-group [name=group]", "audit").await.unwrap();
    browser.fill("#add-group [name=name]", "clumsy").await.unwrap();
    browser.click("#add-group button").await.unwrap();
    let clumsy = "[data-group=audit] [data-consumer=clumsy]";
    there(&browser, clumsy).await;
    // Three deliveries are dropped without an acknowledgement.
    browser.click(&format!("{clumsy} [data-do=crash]")).await.unwrap();
    browser.shows("#result", "\"queued\": 3").await;
    browser.shows(&format!("{clumsy} .drop"), "will drop 3").await;
    browser.fill("#produce [name=count]", "3").await.unwrap();
    browser.click("#produce button").await.unwrap();
    browser.shows(&format!("{clumsy} .recent"), "dropped order.").await;
    // The pending list and its threshold.
    let audit = "return [...document.querySelectorAll('#pending tr')].filter((row) => row.firstChild.textContent === 'audit').length === 3";
    browser.until("three are pending", audit).await;
    browser.shows("#threshold", "10 min").await;
    for row in demo.server.pending("streamjobs-demo:shop", "audit") {
        demo.server.age("streamjobs-demo:shop", "audit", &row.id, Duration::from_secs(1_000));
    }
    browser.fill("[data-group=audit] form [name=name]", "rescuer").await.unwrap();
    browser.click("[data-group=audit] form button").await.unwrap();
    let rescuer = "[data-group=audit] [data-consumer=rescuer]";
    there(&browser, rescuer).await;
    let choose = "const target = document.getElementById('reap-target');
        const option = [...target.options].find((option) => option.textContent === 'audit / rescuer');
        if (!option) return false;
        target.value = option.value;
        return true;";
    browser.until("it can be chosen", choose).await;
    browser.click("#reap button").await.unwrap();
    browser.shows("#result", "\"min_idle_ms\": 600000").await;
    browser.shows(rescuer, "processed 3").await;
    there(&browser, &figure("audit", "lost", 0)).await;
    // A group can go, when that is asked for.
    browser.click("[data-group=audit] [data-do=delete]").await.unwrap();
    browser.accept().await.unwrap();
    browser.shows("#result", "\"deleted\": \"audit\"").await;
    assert_eq!(complaints(&browser).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_keeps_typed_text_and_escapes_untrusted_text() {
    let (demo, browser) = page(&[]).await;
    let hostile = "<img src=x onerror=\"document.title='owned'\">";
    let key = "streamjobs-demo:shop";
    demo.server
        .command(&["XADD", key, "*", "type", hostile, "order_id", hostile, "customer", hostile]);
    browser.shows("#tail", "<img src=x").await;
    assert_eq!(browser.count("#tail img, #tail script").await.unwrap(), 0);
    // Focus, caret, text and the chosen target survive several refreshes.
    browser.fill("#add-group [name=group]", "half a na").await.unwrap();
    let caret = "document.activeElement.setSelectionRange(2, 4); document.getElementById('reap-target').selectedIndex = 1;
        window.target = document.getElementById('reap-target').value; return true;";
    browser.run(caret).await.unwrap();
    for count in [3, 4] {
        demo.post("/produce", &format!("count={count}")).json();
    }
    browser.shows("#length", "8").await;
    let kept = "const field = document.activeElement;
        return field.name === 'group' && field.value === 'half a na' && field.selectionStart === 2
            && field.selectionEnd === 4 && document.getElementById('reap-target').value === window.target;";
    assert_eq!(browser.run(kept).await.unwrap(), true);
    assert_eq!(browser.run("return document.title").await.unwrap(), "Orders demo · streamjobs");
    // Nothing is wider than a phone.
    browser.resize(390, 800).await.unwrap();
    let narrow = "return document.documentElement.scrollWidth <= window.innerWidth";
    browser.until("the page fits", narrow).await;
    // The number of lost events is visible without scrolling.
    let visible = "const edges = document.getElementById('status').getBoundingClientRect();
        return edges.width > 0 && edges.left >= 0 && edges.right <= window.innerWidth;";
    browser.until("the loss is visible", visible).await;
    let each = "const rows = [...document.querySelectorAll('#figures tr')];
        return rows.length === 2 && rows.every((row) => {
            const edges = row.cells[1].getBoundingClientRect();
            return edges.width > 0 && edges.left >= 0 && edges.right <= window.innerWidth;
        });";
    browser.until("the loss of each group is visible", each).await;
    browser.prefer_dark().await.unwrap();
    let dark = "return getComputedStyle(document.body).backgroundColor === 'rgb(16, 21, 19)'";
    browser.until("the page is dark", dark).await;
    // An unreachable server is shown in red, and the last values are kept.
    demo.server.kill();
    browser.shows("#status", "cannot read the state").await;
    assert_eq!(
        browser.run("return document.getElementById('status').dataset.state").await.unwrap(),
        "bad"
    );
    browser.shows("#length", "8").await;
    assert_eq!(complaints(&browser).await, Vec::<String>::new());
}
