//! A running demo, and requests to it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use streamjobs_tests::eventually::eventually;
use streamjobs_tests::process::Worker;
use streamjobs_tests::server::RedisServer;

pub const DEADLINE: Duration = Duration::from_secs(30);

/// A demo that runs on the test's own server.
pub struct Demo {
    pub process: Worker,
    pub server: RedisServer,
    pub address: String,
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub text: String,
}

impl Demo {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_on(RedisServer::start().unwrap(), arguments)
    }

    pub fn start_on(server: RedisServer, arguments: &[&str]) -> Self {
        let url = server.url();
        Self::with(server, &[&["--redis-url", &url], arguments].concat())
    }

    /// A demo on a private Redis of its own. The test's server is not used.
    pub fn start_alone(arguments: &[&str]) -> Self {
        Self::with(RedisServer::start().unwrap(), arguments)
    }

    fn with(server: RedisServer, arguments: &[&str]) -> Self {
        let mut process = Worker::builder(env!("CARGO_BIN_EXE_demo"));
        for argument in ["--port", "0"].iter().chain(arguments) {
            process = process.arg(argument);
        }
        let process = process.start().unwrap();
        let line = process.wait_for(|line| line.starts_with("demo page:"), DEADLINE);
        let address = line.rsplit("http://").next().unwrap().trim_end_matches('/').to_owned();
        Self { process, server, address }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &[], body)
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut connection = TcpStream::connect(&self.address).unwrap();
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        let host = if headers.iter().any(|(name, _)| *name == "host") {
            String::new()
        } else {
            format!("host: {}\r\n", self.address)
        };
        let kind = if headers.iter().any(|(name, _)| *name == "content-type") {
            ""
        } else {
            "content-type: application/x-www-form-urlencoded\r\n"
        };
        let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let (headers, length) = (headers.collect::<String>(), body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{host}{headers}connection: close\r\ncontent-length: {length}\r\n\
             {kind}\r\n{body}"
        );
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), text: text.to_owned() }
    }

    pub fn state(&self) -> Value {
        self.get("/state").json()
    }

    pub fn group(&self, name: &str) -> Value {
        let state = self.state();
        let groups = state["groups"].as_array().unwrap();
        groups.iter().find(|group| group["name"] == name).cloned().unwrap_or(Value::Null)
    }

    /// A figure of one group's counter.
    pub fn figure(&self, group: &str, name: &str) -> u64 {
        self.group(group)["figures"][name].as_u64().unwrap_or(u64::MAX)
    }

    /// Waits until a group has no waiting jobs.
    #[track_caller]
    pub fn wait_until_done(&self, group: &str) {
        let over = || self.figure(group, "waiting") == 0;
        eventually(DEADLINE, &format!("{group} has no waiting jobs"), over);
    }

    /// Pauses a group, and waits until its workers are paused.
    pub fn pause(&self, group: &str, workers: &[&str]) {
        // Worker processes do not report when they are paused.
        for process in ["process-1", "process-2"] {
            self.post("/kill", &format!("name={process}")).json();
        }
        self.post("/pause", &format!("group={group}")).json();
        let paused = || workers.iter().all(|label| self.consumer(group, label)["paused"] == true);
        eventually(DEADLINE, "it is paused", paused);
    }

    pub fn labels(&self, group: &str) -> Vec<String> {
        let group = self.group(group);
        let consumers = group["consumers"].as_array().cloned().unwrap_or_default();
        consumers.iter().map(|consumer| consumer["label"].as_str().unwrap().to_owned()).collect()
    }

    pub fn consumer(&self, group: &str, label: &str) -> Value {
        let group = self.group(group);
        let consumers = group["consumers"].as_array().cloned().unwrap_or_default();
        consumers.into_iter().find(|consumer| consumer["label"] == label).unwrap_or(Value::Null)
    }
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        serde_json::from_str(&self.text).unwrap()
    }

    #[track_caller]
    pub fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }
}
