//! The browser: what it can be told, what it complains of, and that nothing of it stays.

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use streamjobs_tests::browser::Browser;
use streamjobs_tests::process::is_running;
use tokio::net::TcpListener;

const PAGE: &str = "<!DOCTYPE html><title>A page</title><meta name=viewport content=\"width=device-width\"><h1>Hello</h1><input name=word>
    <select name=kind><option>one</option><option>two</option></select>
    <button onclick=\"document.querySelector('h1').textContent = confirm('sure?') ? 'yes' : 'no'\">ask</button>";
const FORBIDDEN: &str =
    "<!DOCTYPE html><meta http-equiv=content-security-policy content=\"script-src 'none'\">
    <h1>Hello</h1><script>document.querySelector('h1').textContent = 'ran'</script>";

/// Serves the pages until the set is dropped.
async fn pages() -> (String, tokio::task::JoinSet<()>) {
    let app = Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/forbidden", get(|| async { Html(FORBIDDEN) }))
        .route("/broken", get(|| async { Html("<script>nothing.there()</script>") }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, serving)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_read_typed_into_clicked_and_answered() {
    let (address, _serving) = pages().await;
    let browser = Browser::start().await.unwrap();
    browser.open(&address).await.unwrap();
    browser.shows("h1", "Hello").await;
    browser.fill("[name=word]", "a word").await.unwrap();
    browser.choose("[name=kind]", "two").await.unwrap();
    let seen =
        "return [document.querySelector('input').value, document.querySelector('select').value]";
    assert_eq!(browser.run(seen).await.unwrap(), serde_json::json!(["a word", "two"]));
    browser.click("button").await.unwrap();
    browser.accept().await.unwrap();
    browser.shows("h1", "yes").await;
    browser.click("button").await.unwrap();
    browser.dismiss().await.unwrap();
    browser.shows("h1", "no").await;
    browser.resize(390, 800).await.unwrap();
    browser.prefer_dark().await.unwrap();
    let seen = "return [window.innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]";
    assert_eq!(browser.run(seen).await.unwrap(), serde_json::json!([390, true]));
    assert!(
        browser.click("#missing").await.is_err()
            && browser.choose("[name=kind]", "x").await.is_err()
    );
    assert_eq!(browser.count("option").await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_forbids_and_what_a_script_breaks_is_complained_of() {
    let (address, _serving) = pages().await;
    let browser = Browser::start().await.unwrap();
    browser.open(&format!("{address}/forbidden")).await.unwrap();
    browser.shows("h1", "Hello").await;
    let complaints = browser.complaints().await.unwrap();
    assert!(
        complaints.iter().any(|text| text.contains("Content Security Policy")),
        "{complaints:?}"
    );
    browser.open(&format!("{address}/broken")).await.unwrap();
    let complaints = browser.complaints().await.unwrap();
    assert!(
        complaints.iter().any(|text| text.contains("nothing is not defined")),
        "{complaints:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_browser_stays_when_it_is_dropped() {
    let browser = Browser::start().await.unwrap();
    browser.open("about:blank").await.unwrap();
    let processes = browser.processes();
    assert!(processes.len() > 2, "the driver, the browser and a page: {processes:?}");
    let dir = browser.dir();
    let made = std::fs::read_dir(dir.join("temp")).unwrap();
    let made = made.map(|item| item.unwrap().file_name().into_string().unwrap());
    let made = made.collect::<Vec<_>>();
    assert!(made.iter().any(|name| name.contains("org.chromium.Chromium")), "{made:?}");
    let socket = std::fs::read_link(dir.join("profile/SingletonSocket")).unwrap();
    assert!(socket.starts_with(dir.join("temp")), "{socket:?}");
    drop(browser);
    assert!(!dir.exists(), "its folders are gone with it");
    let gone = || processes.iter().all(|process| !is_running(*process));
    streamjobs_tests::eventually::eventually(
        std::time::Duration::from_secs(20),
        "all are gone",
        gone,
    );
}
