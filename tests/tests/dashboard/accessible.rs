//! Every page can be used with a keyboard and a screen reader, and its colours have enough contrast.

use std::collections::{BTreeMap, BTreeSet};

use crate::markup::{Element, Page};
use crate::site::{GROUP, Site};

/// Checks the rules that hold for every page.
pub fn check(path: &str, html: &str) {
    let page = Page::read(html);
    let mut broken = Vec::new();
    structure(&page, &mut broken);
    for table in page.named("table") {
        let around = page.around(table);
        let region = around.iter().find(|outer| outer.has_class("scroll"));
        // What can be scrolled can be reached with a keyboard, and says what it is.
        let is_reachable = region.is_some_and(|region| {
            region.get("tabindex") == Some("0")
                && region.get("role") == Some("region")
                && region.get("aria-label").is_some_and(|label| !label.is_empty())
        });
        if !is_reachable {
            broken.push(format!("a table in no region: {table:?}"));
        }
    }
    for heading in page.named("th") {
        if !matches!(heading.get("scope"), Some("col" | "row")) {
            broken.push(format!("a heading without scope: {heading:?}"));
        }
        let within = page.within(heading);
        if heading.text.trim().is_empty()
            && !within.iter().any(|one| one.get("aria-label").is_some())
        {
            broken.push(format!("an empty heading: {heading:?}"));
        }
    }
    for control in page.all() {
        if let Some(what) = unusable(&page, control) {
            broken.push(format!("{what}: {control:?}"));
        }
    }
    for form in page.named("form") {
        let fields = page.within(form);
        let is_post = form.get("method") == Some("post");
        if is_post && !fields.iter().any(|field| field.get("name") == Some("token")) {
            broken.push(format!("a form without a token: {form:?}"));
        }
    }
    assert_eq!(broken, Vec::<String>::new(), "{path}");
}

/// Language, title, landmarks, headings and ids.
fn structure(page: &Page, broken: &mut Vec<String>) {
    let mut holds = |what: &str, holds: bool| {
        if !holds {
            broken.push(what.to_owned());
        }
    };
    holds("lang", page.named("html")[0].get("lang") == Some("en"));
    holds("a title", page.named("title").iter().any(|title| title.text.contains("streamjobs")));
    for landmark in ["header", "main", "footer", "h1"] {
        holds(&format!("one {landmark}"), page.named(landmark).len() == 1);
    }
    let skip = page.named("a")[0];
    holds("the first link skips to the content", skip.get("href") == Some("#main"));
    let names = page.named("nav").into_iter().map(|nav| nav.get("aria-label").unwrap_or_default());
    let names = names.collect::<Vec<_>>();
    let distinct = names.iter().filter(|name| !name.is_empty()).collect::<BTreeSet<_>>();
    holds("navigations have names of their own", distinct.len() == names.len());
    let levels = page.all().filter_map(|one| one.name.strip_prefix('h')?.parse::<u8>().ok());
    let levels = levels.collect::<Vec<_>>();
    holds("headings begin at 1", levels.first() == Some(&1));
    holds("no level is left out", levels.windows(2).all(|pair| pair[1] <= pair[0] + 1));
    let live = page.all().filter(|one| one.get("aria-live").is_some());
    holds("one place tells changes", live.count() == 1);
    let ids = page.all().filter_map(|one| one.get("id")).collect::<Vec<_>>();
    let distinct = ids.iter().collect::<BTreeSet<_>>();
    holds("ids are unique", distinct.len() == ids.len());
}

/// Why a control cannot be used by everyone.
fn unusable(page: &Page, one: &Element) -> Option<&'static str> {
    let has_text = |text: &str| !text.trim().is_empty();
    let around = page.around(one);
    let is_named = one.get("aria-label").is_some_and(has_text);
    if one.attribute_names().any(|name| name.starts_with("on") || name == "style") {
        return Some("inline script or style");
    }
    if one.get("tabindex").is_some_and(|index| index != "0" && index != "-1") {
        return Some("an order of its own for the keyboard");
    }
    match one.name.as_str() {
        "input" if one.get("type") == Some("hidden") => None,
        "input" | "select" | "textarea" => {
            let labelled =
                around.iter().any(|outer| outer.name == "label" && has_text(&outer.text));
            (!labelled && !is_named).then_some("a control without a label")
        }
        "button" | "summary" if !has_text(&one.text) && !is_named => {
            Some("a button without a text")
        }
        "a" if one.get("href").is_none_or(|href| href.is_empty()) => Some("a link to nowhere"),
        "a" if !has_text(&one.text) && !is_named => Some("a link without a text"),
        "a" | "button"
            if around.iter().any(|outer| matches!(outer.name.as_str(), "a" | "button")) =>
        {
            Some("a control within another")
        }
        "svg" if one.get("role") != Some("img") => Some("a picture without a role"),
        "svg" if !page.within(one).iter().any(|part| part.name == "title") => {
            Some("a picture without a title")
        }
        "img" if one.get("alt").is_none() => Some("a picture without a text"),
        _ => None,
    }
}

#[tokio::test]
async fn every_page_has_landmarks_headings_labels_and_can_be_reached_by_keyboard() {
    let site = Site::start().await;
    for number in 0..3 {
        site.append("order.placed", &format!("{{\"n\":{number}}}"));
    }
    site.deliver("ghost", 1);
    let letter = site.store_dead_letter("no", "{}");
    let expression = streamjobs::schedule::Schedule::cron("a-year", "0 0 1 1 *").unwrap();
    let schedules = site.client.schedules("orders").unwrap();
    schedules.put(&expression.stream("orders").unwrap()).await.unwrap();
    for path in [
        "/jobs",
        "/jobs/alerts",
        "/jobs/dead",
        "/jobs/processes",
        "/jobs/trends",
        "/jobs/streams/orders",
        "/jobs/streams/orders/replay",
        "/jobs/streams/orders/event",
        "/jobs/streams/orders/event?id=event-1",
        "/jobs/streams/orders/find?text=order",
        "/jobs/streams/orders/scheduled",
        "/jobs/streams/orders/schedules",
        GROUP,
        &format!("{GROUP}?range=6h"),
        &format!("{GROUP}/pending"),
        &format!("{GROUP}/retries"),
        &format!("{GROUP}/finished"),
        &format!("{GROUP}/dead"),
        &format!("{GROUP}/dead/{letter}"),
        "/jobs/nowhere",
        "/jobs/streams/missing",
    ] {
        for user in ["root", "blind"] {
            check(path, &site.get_as(user, path).await.text);
        }
    }
    let path = format!("{GROUP}/dead/redrive");
    check(&path, &site.post(&path, &[("dry_run", "1")]).await.text);
    check(&path, &site.post(&path, &[]).await.text);
    site.post(&format!("{GROUP}/pause"), &[]).await.is(303);
    check("/jobs/alerts after an action", &site.get("/jobs/alerts").await.text);
    site.server.kill();
    check("an unreachable server", &site.get(&format!("{GROUP}/pending")).await.text);
}

/// A colour as red, green and blue.
type Colour = [f64; 3];

/// The colours of a palette: `--name: #rrggbb`.
fn palette(css: &str) -> BTreeMap<String, Colour> {
    let colours = css.split("--").skip(1).filter_map(|rest| {
        let (name, value) = rest.split_once(": #")?;
        let digits = value.get(..6)?;
        let part =
            |at: usize| Some(f64::from(u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?));
        Some((name.to_owned(), [part(0)?, part(2)?, part(4)?]))
    });
    colours.collect()
}

/// The relative luminance of WCAG 2.
fn luminance(colour: Colour) -> f64 {
    let [red, green, blue] = colour.map(|part| {
        let part = part / 255.0;
        if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    });
    [red * 0.2126, green * 0.7152, blue * 0.0722].iter().sum()
}

fn contrast(one: Colour, other: Colour) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

#[tokio::test]
async fn colours_have_the_contrast_of_wcag_aa_in_light_and_dark() {
    assert!((contrast([0.0; 3], [255.0; 3]) - 21.0).abs() < 0.01, "black on white");
    assert!((contrast([118.0; 3], [255.0; 3]) - 4.54).abs() < 0.01, "a grey of a known contrast");
    let site = Site::start().await;
    let css = site.get("/jobs/assets/dashboard.css").await.text;
    let (light, rest) = css.split_once("@media (prefers-color-scheme: dark)").unwrap();
    let dark = rest.split_once("* { box-sizing").unwrap().0;
    // What is written with a colour, or drawn with it, on what.
    let texts = [
        ("ink", &["ground", "paper", "brand-soft", "bad-soft", "warn-soft"][..]),
        ("soft", &["ground", "paper"]),
        ("brand", &["ground", "paper", "brand-soft"]),
        ("bad", &["ground", "paper", "bad-soft"]),
        ("warn", &["warn-soft"]),
    ];
    // The border of a control, and what shows where the keyboard is.
    let shapes = [("edge", &["ground", "paper"][..]), ("brand", &["ground", "paper"])];
    for (scheme, colours) in [("light", palette(light)), ("dark", palette(dark))] {
        for (needed, pairs) in [(4.5, &texts[..]), (3.0, &shapes[..])] {
            for (colour, grounds) in pairs {
                for ground in *grounds {
                    let found = contrast(colours[*colour], colours[*ground]);
                    assert!(found >= needed, "{scheme}: {colour} on {ground} has {found:.2}");
                }
            }
        }
    }
    // Nothing makes a colour weaker, and the outline of the focus stays.
    assert!(!css.contains("opacity"), "contrast is computed for full colours");
    assert!(css.contains(":focus-visible { outline: 2px solid var(--brand)"));
    assert_eq!(css.matches("outline: none").count(), 1, "only the target of the skip link");
}

#[test]
fn the_rules_find_what_is_broken() {
    let good = "<!DOCTYPE html><html lang=\"en\"><head><title>A · streamjobs</title></head><body>\
        <a href=\"#main\">Skip</a><header><nav aria-label=\"Pages\"></nav></header><p aria-live=\"polite\"></p>\
        <main><h1>A</h1><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"T\"><table><tr>\
        <th scope=\"col\">B</th></tr></table></div><form method=\"post\"><input type=\"hidden\" name=\"token\">\
        <label>C <input name=\"c\"></label><button>Send</button></form></main><footer></footer></body></html>";
    check("a good page", good);
    for (part, wrong) in [
        (" lang=\"en\"", ""),
        ("<h1>A</h1>", "<h2>A</h2>"),
        ("<h1>A</h1>", "<h1>A</h1><h3>B</h3>"),
        (" scope=\"col\"", ""),
        ("B</th>", "</th>"),
        (" tabindex=\"0\"", ""),
        (" aria-label=\"Pages\"", ""),
        ("<label>C ", "<label>"),
        ("Send", ""),
        ("name=\"token\"", "name=\"other\""),
        ("<button>", "<button onclick=\"x\">"),
        ("<button>", "<button tabindex=\"1\">"),
        ("<p aria-live=\"polite\"></p>", ""),
        ("Skip</a>", "Skip</a><i id=\"a\"></i><i id=\"a\"></i>"),
        ("Skip</a>", "Skip</a><svg role=\"img\"></svg>"),
        ("Skip</a>", "Skip</a><a href=\"\">x</a>"),
    ] {
        let bad = good.replacen(part, wrong, 1);
        assert_ne!(bad, good, "{part}");
        let found = std::panic::catch_unwind(|| check("a bad page", &bad));
        assert!(found.is_err(), "{part} -> {wrong}");
    }
}
