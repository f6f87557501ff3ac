//! Every page on a phone, a tablet and a desk, in light and dark.

use std::path::PathBuf;

use serde_json::json;

use crate::session::Session;
use crate::site::GROUP;

/// Widths and heights of a phone, a tablet and a desk.
const SCREENS: [(u32, u32); 3] = [(390, 844), (768, 1024), (1440, 900)];

/// A site with something in every list, also long texts.
async fn filled() -> (Session, Vec<String>) {
    let session = Session::start().await;
    let site = &session.site;
    for number in 0..5 {
        site.append(
            "order.placed",
            &format!("{{\"number\":{number},\"long\":\"{}\"}}", "x".repeat(300)),
        );
    }
    site.server.command(&["XGROUP", "CREATE", "orders", "audit-with-quite-a-long-name", "$"]);
    site.deliver("a-consumer-with-quite-a-long-name-0123456789abcdef", 2);
    site.store_dead_letter("order 47 was not found", "{}");
    let letter = site.store_dead_letter(&"a very long error ".repeat(30), "{\"a\":1}");
    crate::trends::note(site, "work", 300);
    let paths = [
        "/jobs".to_owned(),
        "/jobs/processes".into(),
        "/jobs/trends?range=7d".into(),
        "/jobs/alerts".into(),
        "/jobs/dead".into(),
        "/jobs/streams/orders".into(),
        "/jobs/streams/orders/replay".into(),
        "/jobs/streams/orders/scheduled".into(),
        "/jobs/streams/orders/schedules".into(),
        "/jobs/streams/orders/event?id=event-1".into(),
        "/jobs/streams/orders/find?text=order".into(),
        GROUP.into(),
        format!("{GROUP}?range=6h"),
        format!("{GROUP}/pending"),
        format!("{GROUP}/retries"),
        format!("{GROUP}/finished"),
        format!("{GROUP}/dead"),
        format!("{GROUP}/dead/{letter}"),
        "/jobs/nowhere".into(),
    ];
    (session, paths.to_vec())
}

/// Stores a picture in the folder that `STREAMJOBS_PICTURES` names, for people to look at.
async fn picture(session: &Session, name: &str) {
    let Some(folder) = std::env::var_os("STREAMJOBS_PICTURES") else { return };
    let png = session.browser.picture().await.unwrap();
    std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), png).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_fits_a_phone_a_tablet_and_a_desk_in_light_and_dark() {
    let (session, paths) = filled().await;
    let browser = &session.browser;
    for (scheme, ground) in [("light", "rgb(246, 247, 246)"), ("dark", "rgb(16, 21, 19)")] {
        match scheme {
            "dark" => browser.prefer_dark().await.unwrap(),
            _ => browser.prefer_light().await.unwrap(),
        }
        for (width, height) in SCREENS {
            browser.resize(width, height).await.unwrap();
            for path in &paths {
                session.open(path).await;
                let shown = format!(
                    "return getComputedStyle(document.body).backgroundColor === '{ground}'"
                );
                browser.until("the page has its colours", &shown).await;
                let seen = "return [document.documentElement.scrollWidth <= window.innerWidth,
                    document.querySelectorAll('h1').length,
                    [...document.querySelectorAll('table')].every((table) => table.closest('.scroll'))]";
                let seen = browser.run(seen).await.unwrap();
                assert_eq!(seen, json!([true, 1, true]), "{path} at {width} in {scheme}");
                let name = path.replace(['/', '?', '=', ':'], "-");
                picture(&session, &format!("{width}-{scheme}{name}")).await;
            }
        }
    }
    session.has_no_errors().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_shows_the_five_figures_at_once_and_opens_a_menu() {
    let (session, paths) = filled().await;
    let browser = &session.browser;
    browser.resize(390, 844).await.unwrap();
    session.open("/jobs").await;
    let figures = "return ['waiting', 'oldest', 'running', 'retries', 'dead'].every((id) => {
            const box = document.getElementById(id).getBoundingClientRect();
            return box.left >= 0 && box.right <= innerWidth && box.top >= 0 && box.bottom <= innerHeight;
        })";
    assert_eq!(browser.run(figures).await.unwrap(), true);
    let menu = "return document.querySelector('#menu').checkVisibility()";
    assert_eq!(browser.run(menu).await.unwrap(), false);
    browser.click("#menu-button").await.unwrap();
    assert_eq!(browser.run(menu).await.unwrap(), true);
    browser.click("#menu a[data-key=a]").await.unwrap();
    browser.shows("h1", "Alerts").await;
    // Every control is as large as a finger, but links within a sentence.
    for path in &paths {
        session.open(path).await;
        let small = "const all = 'button, select, summary, label.check, input:not([type=hidden], [type=checkbox]), nav a, td a, th a, .tiles dd a';
            return [...document.querySelectorAll(all)].filter((one) => one.checkVisibility()).map((one) => {
                const box = one.getBoundingClientRect();
                return [box.width, box.height, one.outerHTML.slice(0, 80)];
            }).filter(([width, height]) => width < 44 || height < 44)";
        assert_eq!(browser.run(small).await.unwrap(), json!([]), "{path}");
    }
    // On a desk there is no menu: its links are always there.
    browser.resize(1440, 900).await.unwrap();
    session.open("/jobs").await;
    let shown = "return [document.querySelector('#menu').checkVisibility(), document.querySelector('#menu-button').checkVisibility()]";
    assert_eq!(browser.run(shown).await.unwrap(), json!([true, false]));
    session.has_no_errors().await;
}
