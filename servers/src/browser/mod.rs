//! A browser without a window, operated as a person would.
//!
//! Chromium and its driver are the ones that the environment names, or else installed ones, or else
//! ones that are installed now, which one line on standard error announces.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::eventually::eventually_async;
use crate::machine::{Ending, Guardian, PORTS_TRIED, ServerError, free_port};

mod command;
mod program;

use self::command::Extra;

/// How long a browser may take until it answers, on a machine that is busy with other things.
const READY: Duration = Duration::from_secs(60);
/// How long a page may take until it shows what a test waits for.
const SHOWN: Duration = Duration::from_secs(30);

/// How many browsers run at once in one process. Each keeps a core busy for seconds; more of them
/// would only make each other's waits longer.
static RUNNING: Semaphore = Semaphore::const_new(2);

/// The driver is ended by its process id, and so is everything that it started: the browser's
/// processes stay in the process group of the shell that started the driver.
const ENDING: Ending = Ending {
    farewell: "kill -9 \"$pid\"",
    afterwards: "for stat in /proc/[0-9]*/stat; do \
                 { read -r line <\"$stat\"; } 2>/dev/null || continue; \
                 number=${line%% *}; set -- ${line##*) }; \
                 if [ \"$3\" = \"$$\" ] && [ \"$number\" != \"$$\" ]; then kill -9 \"$number\"; fi; \
                 done 2>/dev/null",
};

/// Why there is no browser, or why it refused a command.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BrowserError {
    /// Its programs are missing, or do not start.
    #[error(transparent)]
    Program(#[from] ServerError),
    /// The driver did not start a browser.
    #[error("chromium did not start")]
    Session(#[source] Box<fantoccini::error::NewSessionError>),
    /// The driver refused a command.
    #[error("the browser did not {what}")]
    Command {
        /// What the browser was told to do.
        what: String,
        /// What the driver answered.
        #[source]
        source: Box<fantoccini::error::CmdError>,
    },
}

/// A browser with one page. It ends, and its profile is removed, when it is dropped and when this
/// process ends.
pub struct Browser {
    client: Client,
    guardian: Guardian,
    _running: SemaphorePermit<'static>,
}

impl Browser {
    /// Starts a browser with an empty profile. Waits while two other browsers of this process run, so
    /// a test that needs several can start at most two.
    ///
    /// # Errors
    ///
    /// If there is no browser or no driver and they cannot be installed, or if they do not start.
    pub async fn start() -> Result<Self, BrowserError> {
        let (chromium, driver) = tokio::task::spawn_blocking(program::find_or_install)
            .await
            .expect("looking for a program does not panic")?;
        let running = RUNNING.acquire().await.expect("it is never closed");
        let mut last = BrowserError::from(ServerError::NoPort);
        for _ in 0..PORTS_TRIED {
            let port = free_port().map_err(ServerError::from)?;
            let words = |dir: &Path| {
                // Driver and browser leave folders behind when they are killed.
                let temp = dir.join("temp");
                std::fs::create_dir(&temp)?;
                let mut variable = OsString::from("TMPDIR=");
                variable.push(&temp);
                let port = OsString::from(format!("--port={port}"));
                let driver = driver.clone().into_os_string();
                Ok(vec!["env".into(), variable, driver, port, "--allowed-ips=127.0.0.1".into()])
            };
            let mut guardian = Guardian::start(None, &ENDING, words)?;
            if is_listening(port, &mut guardian).await {
                match connect(port, &chromium, guardian.dir()).await {
                    Ok(client) => return Ok(Self { client, guardian, _running: running }),
                    // On a busy machine Chromium may end right after its start.
                    Err(error) => last = error,
                }
            } else {
                last = ServerError::Ended { log: guardian.log() }.into();
            }
        }
        Err(last)
    }

    /// Goes to an address and waits until it has loaded.
    ///
    /// # Errors
    ///
    /// If the browser cannot.
    ///
    /// # Panics
    ///
    /// If it has not loaded within half a minute.
    pub async fn open(&self, url: &str) -> Result<(), BrowserError> {
        let went = self.client.goto(url).await;
        went.map_err(|source| failed(&format!("open {url}"), source))?;
        // On a busy machine the driver answers before the page's own style is there.
        let loaded = "const links = document.querySelectorAll('link[rel=stylesheet]');
            return document.readyState === 'complete'
                && [...links].every((link) => link.sheet !== null);";
        self.until("the page has loaded", loaded).await;
        Ok(())
    }

    /// The address of the page.
    ///
    /// # Errors
    ///
    /// If the browser does not answer.
    pub async fn address(&self) -> Result<String, BrowserError> {
        let url = self.client.current_url().await;
        Ok(url.map_err(|source| failed("tell its address", source))?.to_string())
    }

    /// Runs a script, as the body of a function, in the page. Returns what the function returns.
    ///
    /// # Errors
    ///
    /// If the script throws.
    pub async fn run(&self, script: &str) -> Result<Value, BrowserError> {
        let ran = self.client.execute(script, Vec::new()).await;
        ran.map_err(|source| failed(&format!("run {script}"), source))
    }

    /// The visible text of the first element that a CSS selector finds.
    ///
    /// # Errors
    ///
    /// If no element matches.
    pub async fn text(&self, selector: &str) -> Result<String, BrowserError> {
        let what = format!("read {selector}");
        let found = self.find(selector, &what).await?;
        found.text().await.map_err(|source| failed(&what, source))
    }

    /// How many elements a CSS selector finds.
    ///
    /// # Errors
    ///
    /// If the browser does not answer.
    pub async fn count(&self, selector: &str) -> Result<usize, BrowserError> {
        let found = self.client.find_all(Locator::Css(selector)).await;
        Ok(found.map_err(|source| failed(&format!("count {selector}"), source))?.len())
    }

    /// Waits until a script returns true.
    ///
    /// # Panics
    ///
    /// If it does not within half a minute.
    pub async fn until(&self, what: &str, script: &str) {
        let holds = async || self.run(script).await.is_ok_and(|answer| answer == Value::Bool(true));
        eventually_async(SHOWN, what, holds).await;
    }

    /// Waits until the first element that a CSS selector finds shows a text.
    ///
    /// # Panics
    ///
    /// If it does not within half a minute.
    pub async fn shows(&self, selector: &str, text: &str) {
        let what = format!("{selector} shows {text:?}");
        let shows = async || self.text(selector).await.is_ok_and(|shown| shown.contains(text));
        eventually_async(SHOWN, &what, shows).await;
    }

    /// Clicks the first element that a CSS selector finds.
    ///
    /// # Errors
    ///
    /// If no element matches, or it cannot be clicked.
    pub async fn click(&self, selector: &str) -> Result<(), BrowserError> {
        let what = format!("click {selector}");
        let found = self.find(selector, &what).await?;
        found.click().await.map_err(|source| failed(&what, source))
    }

    /// Empties a field and types a text into it.
    ///
    /// # Errors
    ///
    /// If no element matches.
    pub async fn fill(&self, selector: &str, text: &str) -> Result<(), BrowserError> {
        let what = format!("fill {selector}");
        let found = self.find(selector, &what).await?;
        found.clear().await.map_err(|source| failed(&what, source))?;
        found.send_keys(text).await.map_err(|source| failed(&what, source))
    }

    /// Chooses an option of a select by its value.
    ///
    /// # Errors
    ///
    /// If no element matches.
    pub async fn choose(&self, selector: &str, value: &str) -> Result<(), BrowserError> {
        let script = "const [selector, value] = arguments;
            const select = document.querySelector(selector);
            select.value = value;
            if (select.value !== value) throw new Error('there is no such option');
            select.dispatchEvent(new Event('change', { bubbles: true }));";
        let chosen = self.client.execute(script, vec![selector.into(), value.into()]).await;
        let what = || format!("choose {value} in {selector}");
        chosen.map(drop).map_err(|source| failed(&what(), source))
    }

    /// Types keys into the element that has the focus.
    ///
    /// # Errors
    ///
    /// If no element takes keys.
    pub async fn press(&self, keys: &str) -> Result<(), BrowserError> {
        let active = self.client.active_element().await;
        let active = active.map_err(|source| failed("find what has the focus", source))?;
        active.send_keys(keys).await.map_err(|source| failed("press a key", source))
    }

    /// The key that leaves a field.
    #[must_use]
    pub fn escape() -> String {
        char::from(Key::Escape).to_string()
    }

    /// Confirms the dialog that the page shows.
    ///
    /// # Errors
    ///
    /// If it shows none.
    pub async fn accept(&self) -> Result<(), BrowserError> {
        self.client.accept_alert().await.map_err(|source| failed("accept a question", source))
    }

    /// Cancels the dialog that the page shows.
    ///
    /// # Errors
    ///
    /// If it shows none.
    pub async fn dismiss(&self) -> Result<(), BrowserError> {
        self.client.dismiss_alert().await.map_err(|source| failed("dismiss a question", source))
    }

    /// Gives the page a window of this size, like that of a phone or of a desktop.
    ///
    /// # Errors
    ///
    /// If the browser refuses.
    pub async fn resize(&self, width: u32, height: u32) -> Result<(), BrowserError> {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await
    }

    /// Makes the browser prefer a dark color scheme, as a person's system can.
    ///
    /// # Errors
    ///
    /// If the browser refuses.
    pub async fn prefer_dark(&self) -> Result<(), BrowserError> {
        let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
        self.devtools("Emulation.setEmulatedMedia", dark).await
    }

    /// Makes the browser prefer a light color scheme, as it does from the start.
    ///
    /// # Errors
    ///
    /// If the browser refuses.
    pub async fn prefer_light(&self) -> Result<(), BrowserError> {
        let light = json!({ "features": [{ "name": "prefers-color-scheme", "value": "light" }] });
        self.devtools("Emulation.setEmulatedMedia", light).await
    }

    /// A picture of what the page shows, as PNG.
    ///
    /// # Errors
    ///
    /// If the browser does not take one.
    pub async fn picture(&self) -> Result<Vec<u8>, BrowserError> {
        self.client.screenshot().await.map_err(|source| failed("take a picture", source))
    }

    /// What the browser has complained about since the last call: errors of scripts, and anything
    /// that its policy forbade.
    ///
    /// # Errors
    ///
    /// If the browser does not answer.
    pub async fn complaints(&self) -> Result<Vec<String>, BrowserError> {
        let log = self.client.issue_cmd(Extra::new("se/log", json!({ "type": "browser" }))).await;
        let log = log.map_err(|source| failed("tell its log", source))?;
        let entries = log.as_array().cloned().unwrap_or_default();
        let severe = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        Ok(severe.filter_map(|entry| entry["message"].as_str().map(str::to_owned)).collect())
    }

    /// The folder with all files of the driver and the browser.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.guardian.dir().to_path_buf()
    }

    /// The processes of the driver and the browser, on systems with `/proc`.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let group = group_of(self.guardian.pid());
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let all = all.filter_map(|item| item.file_name().to_str()?.parse::<u32>().ok());
        all.filter(|process| group.is_some() && group_of(*process) == group).collect()
    }

    async fn find(&self, selector: &str, what: &str) -> Result<Element, BrowserError> {
        let found = self.client.find(Locator::Css(selector)).await;
        found.map_err(|source| failed(what, source))
    }

    async fn devtools(&self, command: &str, params: Value) -> Result<(), BrowserError> {
        let body = json!({ "cmd": command, "params": params });
        let done = self.client.issue_cmd(Extra::new("goog/cdp/execute", body)).await;
        done.map(drop).map_err(|source| failed(command, source))
    }
}

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browser").finish_non_exhaustive()
    }
}

/// The process group of a process.
fn group_of(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(2)?.parse().ok()
}

fn failed(what: &str, source: fantoccini::error::CmdError) -> BrowserError {
    BrowserError::Command { what: what.to_owned(), source: Box::new(source) }
}

/// Whether the driver starts to listen before it ends. It ends without listening if another process
/// has taken its port.
async fn is_listening(port: u16, guardian: &mut Guardian) -> bool {
    let end = tokio::time::Instant::now() + READY;
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    while tokio::time::Instant::now() < end && guardian.alive() {
        polls.tick().await;
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return guardian.alive();
        }
    }
    false
}

async fn connect(port: u16, chromium: &PathBuf, dir: &Path) -> Result<Client, BrowserError> {
    let profile = dir.join("profile");
    let options = json!({
        "binary": chromium,
        "args": [
            "--headless=new",
            // Tests run as root on machines that are used for nothing else.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-extensions",
            "--disable-background-networking",
            "--disable-component-update",
            "--window-size=1280,1000",
            format!("--user-data-dir={}", profile.display()),
        ],
    });
    let Value::Object(capabilities) = json!({
        "goog:chromeOptions": options,
        "goog:loggingPrefs": { "browser": "ALL" },
        "unhandledPromptBehavior": "ignore",
    }) else {
        unreachable!("it is written as an object")
    };
    let mut builder = ClientBuilder::new(HttpConnector::new());
    let driver = format!("http://127.0.0.1:{port}");
    let connected = builder.capabilities(capabilities).connect(&driver);
    connected.await.map_err(|error| BrowserError::Session(Box::new(error)))
}
