//! A dashboard on a port, and what its pages cost.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use streamjobs::{Client, StreamName};
use streamjobs_dashboard::{Access, Dashboard, Denied};
use streamjobs_postgres::Postgres;
use streamjobs_tests::figures::median;
use streamjobs_tests::server::RedisServer;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

/// Serves the dashboard that was made last.
pub struct Site {
    pub server: RedisServer,
    pub client: Client,
    streams: Vec<StreamName>,
    archive: Option<Postgres>,
    app: Arc<Mutex<Router>>,
    address: String,
    _serving: JoinSet<()>,
}

/// What is known when a page is loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing: the dashboard has just been started.
    Nothing,
    /// What it has read so far, and that is older than the refresh interval.
    Everything,
}

impl Site {
    pub async fn start(server: RedisServer, streams: &[String], archive: Option<Postgres>) -> Self {
        let client = Client::connect(&server.url()).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let app = Arc::new(Mutex::new(Router::new()));
        let front = Router::new().fallback(pass).with_state(Arc::clone(&app));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, front).await.unwrap() });
        let streams = streams.iter().map(|name| StreamName::new(name.as_str()).unwrap()).collect();
        let site = Self { server, client, streams, archive, app, address, _serving: serving };
        site.forget();
        site
    }

    /// Starts the dashboard anew.
    pub fn forget(&self) {
        let all = |_: &Parts| Ok::<_, Denied>(Access::read_only("me").payloads().allow_all());
        let dashboard = Dashboard::builder(self.client.clone(), all).streams(self.streams.clone());
        let dashboard = match &self.archive {
            Some(archive) => dashboard.archive(archive),
            None => dashboard,
        };
        *self.app.lock().unwrap() = Router::new().nest("/jobs", dashboard.build().router());
    }

    /// Loads a page, and returns its bytes.
    pub fn ask(&self, path: &str) -> usize {
        let mut connection = TcpStream::connect(&self.address).unwrap();
        let host = &self.address;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{path}: {}", text(&answer));
        answer.len()
    }

    /// The requests that a page sends to Redis, and the commands that run for them.
    fn commands(&self, path: &str) -> (usize, usize) {
        let mut monitor = TcpStream::connect(("127.0.0.1", self.server.port())).unwrap();
        monitor.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(monitor);
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line).unwrap();
        assert_eq!(line, b"+OK\r\n");
        self.ask(path);
        self.server.command(&["ECHO", "the page has been loaded"]);
        let (mut requests, mut commands) = (0, 0);
        loop {
            line.clear();
            lines.read_until(b'\n', &mut line).unwrap();
            let line = text(&line);
            if line.contains("the page has been loaded") {
                return (requests, commands);
            }
            commands += 1;
            requests += usize::from(!line.contains(" lua] "));
        }
    }

    /// Prints what a page costs. Returns its address if it is slow.
    pub fn measure(&self, path: &str, known: Known, loads: usize) -> Option<String> {
        let prepare = || match known {
            Known::Nothing => self.forget(),
            Known::Everything => wait(REFRESHED),
        };
        prepare();
        let (requests, commands) = self.commands(path);
        let mut bytes = 0;
        let mut load = || {
            prepare();
            let start = Instant::now();
            bytes = bytes.max(self.ask(path));
            start.elapsed()
        };
        let mut all = || (0..loads).map(|_| load()).collect::<Vec<_>>();
        let slowest = |times: &[Duration]| times.iter().copied().max().unwrap_or_default();
        let (first, mut again) = (all(), "");
        let mut times = first;
        if slowest(&times) > SLOW {
            (times, again) = (all(), ", loaded again");
        }
        let (half, most) = (ms(median(times.clone())), ms(slowest(&times)));
        let kib = bytes as f64 / 1024.0;
        println!(
            "| `{path}` | {half:.1} ms | {most:.1} ms{again} | {requests} | {commands} | {kib:.0} KiB |"
        );
        (slowest(&times) > SLOW).then(|| path.to_owned())
    }
}

/// Prints the names of what [`Site::measure`] prints.
pub fn heading(what: &str) {
    println!("\n{what}\n\n| page | median | slowest | requests | commands | size |");
    println!("|---|---|---|---|---|---|");
}

async fn pass(State(app): State<Arc<Mutex<Router>>>, request: Request) -> Response {
    let app = app.lock().unwrap().clone();
    app.oneshot(request).await.unwrap_or_else(|never| match never {})
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

pub fn wait(time: Duration) {
    let (_open, never) = sync_channel::<()>(0);
    assert_eq!(never.recv_timeout(time), Err(RecvTimeoutError::Timeout));
}

/// After which the dashboard reads the state again.
pub const REFRESHED: Duration = Duration::from_millis(2_050);
/// What a page may take.
const SLOW: Duration = Duration::from_millis(300);
