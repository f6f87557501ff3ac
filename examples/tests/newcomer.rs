//! What a newcomer does: a new crate outside of the workspace, filled with what the README and the page
//! `docs/start.md` print, and nothing else.
//!
//! Each Rust block behind `<!-- file: src/… -->` is a part of that file, and each line `cargo add …` of a shell
//! block is a dependency: crates of this repository from their folders, others in the version of its lock file.
//! Cargo is called offline with the target directory of these tests, so that only the crate itself is new.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests say what is wrong by failing"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use streamjobs_tests::eventually::eventually;
use streamjobs_tests::process::Worker;
use streamjobs_tests::server::RedisServer;

const README: &str = include_str!("../../README.md");
const START: &str = include_str!("../../docs/start.md");

/// How long a build may take where nothing has been built with these features before.
const BUILD: Duration = Duration::from_secs(600);
const WITHIN: Duration = Duration::from_secs(30);

/// Cells of the table of consumers: none is pending, one is done, none has failed.
const DONE: &str =
    "<td class=\"number\">0</td><td class=\"number\">1</td><td class=\"number\">0</td>";

/// `ops:a long random text`, as a browser sends it.
const LOGIN: &str = "Basic b3BzOmEgbG9uZyByYW5kb20gdGV4dA==";

#[test]
fn the_pages_lead_from_nothing_to_an_application_with_metrics_and_a_dashboard() {
    let server = RedisServer::start().unwrap();
    let mut newcomer = Crate::new("shop");

    newcomer.follow(README);
    newcomer.cargo("build", &[]);
    let mut program = newcomer.start(&server);
    program.wait_for(|line| line == "alice: your order o-1 was placed", WITHIN);
    program.interrupt();
    assert!(program.wait(WITHIN).success(), "{program:?}");

    newcomer.follow(START);
    newcomer.cargo("build", &[]);
    newcomer
        .cargo("test", &["--", "--exact", "tests::a_mail_that_cannot_be_sent_is_tried_five_times"]);
    let mut program = newcomer.start(&server);
    let line = program.wait_for(|line| line.starts_with("listening on "), WITHIN);
    let address = line.trim_start_matches("listening on ").to_owned();
    let accepted = ask(&address, "POST /users", "{\"email\":\"alice@example.org\"}");
    assert!(accepted.starts_with("HTTP/1.1 202 Accepted"), "{accepted}");
    program.wait_for(|line| line == "welcome, alice@example.org", WITHIN);
    eventually(WITHIN, "the metrics count the job", || {
        let metrics = ask(&address, "GET /metrics", "");
        let mut done =
            metrics.lines().filter(|line| line.starts_with("streamjobs_jobs_finished_total{"));
        done.any(|line| {
            line.contains("\"welcome\"") && line.contains("\"ok\"") && line.ends_with(" 1")
        })
    });
    eventually(WITHIN, "the dashboard shows the job as done", || {
        let page = ask(&address, "GET /jobs/streams/users/groups/welcome", "");
        assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
        page.contains(DONE)
    });
    program.terminate();
    program.wait_for(|line| line == "stopped: 0 released, 0 abandoned", WITHIN);
    assert_eq!(program.wait(WITHIN).code(), Some(0), "{program:?}");
}

/// A crate of a newcomer, deleted when this is dropped.
struct Crate {
    name: &'static str,
    folder: PathBuf,
    /// By kind of dependency and name: the features, and whether those of the default are among them.
    needs: BTreeMap<(&'static str, String), (BTreeSet<String>, bool)>,
}

impl Crate {
    fn new(name: &'static str) -> Self {
        // The same path in each run, else the target directory would keep a program of each.
        let mut hash = DefaultHasher::new();
        target().hash(&mut hash);
        let folder = env::temp_dir().join(format!("streamjobs-newcomer-{:x}", hash.finish()));
        let _ = fs::remove_dir_all(&folder);
        let new = Self { name, folder: folder.join(name), needs: BTreeMap::new() };
        let made =
            Worker::builder(env!("CARGO")).arg("new").arg("--quiet").arg("--vcs").arg("none");
        let mut made = made.arg(&new.folder).start().unwrap();
        assert!(made.wait(WITHIN).success(), "{made:?}");
        fs::copy(root().join("Cargo.lock"), new.folder.join("Cargo.lock")).unwrap();
        new
    }

    /// Does what the page says.
    fn follow(&mut self, page: &str) {
        for line in page.lines().filter_map(|line| line.strip_prefix("cargo add ")) {
            self.add(line.split('#').next().unwrap_or_default());
        }
        let mut files = BTreeMap::<&str, String>::new();
        for part in page.split("<!-- file: ").skip(1) {
            let (file, rest) = part.split_once(" -->\n").unwrap();
            let block = rest.strip_prefix("```rust\n").unwrap();
            *files.entry(file).or_default() += block.split("```").next().unwrap();
        }
        assert!(files.contains_key("src/main.rs"), "the page has a program");
        for (file, code) in files {
            fs::write(self.folder.join(file), code).unwrap();
        }
        self.declare();
    }

    /// One `cargo add`, but the one that takes what the registry does not have yet from the repository.
    fn add(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (mut names, mut features) = (Vec::new(), Vec::new());
        let (mut kind, mut default) = ("dependencies", true);
        while let Some(word) = words.next() {
            match word {
                "--dev" => kind = "dev-dependencies",
                "--no-default-features" => default = false,
                "--features" => features.extend(words.next().unwrap().split(',')),
                "--git" => return,
                name => {
                    assert!(!name.starts_with('-'), "{name} in cargo add {line}");
                    names.push(name);
                }
            }
        }
        for name in names {
            let need = self.needs.entry((kind, name.to_owned())).or_default();
            need.0.extend(features.iter().copied().map(str::to_owned));
            need.1 |= default;
        }
    }

    /// Writes what was added into the manifest.
    fn declare(&self) {
        let manifest = self.folder.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        let mut text = text.split("[dependencies").next().unwrap().to_owned();
        for ((kind, name), (features, default)) in &self.needs {
            let from = match name.starts_with("streamjobs") {
                true => format!("path = {:?}", root().join(name)),
                false => "version = \"*\"".to_owned(),
            };
            let features = Vec::from_iter(features);
            text += &format!(
                "[{kind}.{name}]\n{from}\nfeatures = {features:?}\ndefault-features = {default}\n"
            );
        }
        fs::write(manifest, text).unwrap();
    }

    fn cargo(&self, command: &str, more: &[&str]) {
        let cargo = Worker::builder(env!("CARGO")).arg(command).arg("--quiet").arg("--offline");
        let cargo = cargo.arg("--manifest-path").arg(self.folder.join("Cargo.toml"));
        // As the workspace builds what both need.
        let cargo = cargo
            .env("CARGO_TARGET_DIR", target())
            .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
        let cargo = more.iter().fold(cargo, |cargo, word| cargo.arg(word));
        let mut cargo = cargo.start().unwrap();
        assert!(cargo.wait(BUILD).success(), "{cargo:?}");
        if command == "test" {
            assert!(cargo.find(|line| line.contains("1 passed")).is_some(), "{cargo:?}");
        }
    }

    fn start(&self, server: &RedisServer) -> Worker {
        let program = Worker::builder(target().join("debug").join(self.name));
        let program = program.env("REDIS_URL", server.url()).env("ADDRESS", "127.0.0.1:0");
        program.env("DASHBOARD_PASSWORD", "a long random text").start().unwrap()
    }
}

impl Drop for Crate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.folder.parent().unwrap());
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The target directory of this test: `…/debug/deps/newcomer-…` is the test.
fn target() -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned()
}

/// The whole answer to one request.
fn ask(address: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    let kind = "content-type: application/json\r\nconnection: close";
    let length = body.len();
    write!(
        stream,
        "{head} HTTP/1.1\r\nhost: x\r\nauthorization: {LOGIN}\r\n{kind}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
