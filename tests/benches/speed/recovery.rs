//! How soon the jobs of a killed process start elsewhere, beside how many it had, and how fast is done what
//! a consumer of other software left.

use std::io::{BufRead, BufReader};
use std::num::NonZeroU32;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::json;
use streamjobs::config::GroupOptions;
use streamjobs::{Runtime, handlers};
use streamjobs_tests::server::RedisServer;
use tokio::time::sleep_until;

use crate::child::Task;
use crate::job::{self, Counter};
use crate::table::Table;
use crate::work::server;
use crate::{Settings, by_hand, ours};

const JOBS: [usize; 6] = [1, 16, 64, 200, 1_000, 5_000];
const LEASES: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(10)];

pub async fn run(settings: &Settings, table: &mut Table) {
    for lease in LEASES {
        for jobs in JOBS {
            let name = format!("recovery: {jobs} jobs, lease of {} s", lease.as_secs());
            if !settings.wants(&name) {
                continue;
            }
            let [first, half, last] = recover(jobs, lease);
            let text = format!("first {first:.2} s, half {half:.2} s, last {last:.2} s");
            let figures = json!({ "jobs": jobs, "lease": lease.as_secs(),
                "first": first, "half": half, "last": last });
            table.note(&name, &text, figures);
        }
    }
    let name = format!("recovery: {FOREIGN} entries of another consumer");
    if settings.wants(&name) {
        let events = FOREIGN / settings.share;
        let (new, left) = (done_in(events, None).await, done_in(events, Some(LEASES[0])).await);
        let ratio = new.as_secs_f64() / left.as_secs_f64();
        let text = format!("{new:.2?} when new, {left:.2?} when left: {ratio:.2} of the speed");
        let figures = json!({ "events": events, "new": new.as_secs_f64(),
            "left": left.as_secs_f64(), "ratio": ratio });
        table.note(&name, &text, figures);
    }
}

/// How long so many events take with 200 slots, from the first one done to the last one; with a lease, when
/// another consumer has got all of them, and that lease is over.
async fn done_in(events: usize, left: Option<Duration>) -> Duration {
    let server = server(false);
    let client = ours::client(&server).await;
    by_hand::fill(&server, events, 150);
    if let Some(lease) = left {
        server.query::<()>(&["XGROUP", "CREATE", "orders", "bench", "0"]);
        for _ in 0..events.div_ceil(PAGE) {
            let read = ["XREADGROUP", "GROUP", "bench", "peer", "COUNT", "5000"];
            server.query::<redis::Value>(&[&read[..], &["STREAMS", "orders", ">"]].concat());
        }
        sleep_until(tokio::time::Instant::now() + lease).await;
    }
    let counter = Counter::expect(events);
    let options = GroupOptions::new().concurrency(NonZeroU32::new(200).unwrap());
    let options = options.lease(left.unwrap_or(LEASES[0]));
    let builder = Runtime::builder(&client).handlers(handlers![job::count]).state(counter.clone());
    let runtime = builder.group("bench", options).start().await.unwrap();
    counter.reached().await;
    let took = counter.first().elapsed();
    assert!(runtime.shutdown().await.abandoned.is_empty());
    took
}

const FOREIGN: usize = 300_000;
const PAGE: usize = 5_000;

/// One process has so many jobs, another one as many free slots. How many seconds after the death of
/// the one the first, the middle and the last job start in the other.
fn recover(jobs: usize, lease: Duration) -> [f64; 3] {
    let server = server(false);
    let owner = Holder::start(&server, jobs, lease);
    by_hand::fill(&server, jobs, 150);
    owner.starts(jobs);
    let heir = Holder::start(&server, jobs, lease);
    let killed = Instant::now();
    drop(owner);
    let mut starts = heir.starts(jobs);
    starts.sort_unstable();
    [0, (jobs - 1) / 2, jobs - 1].map(|place| (starts[place] - killed).as_secs_f64())
}

/// A process that is killed when it is dropped.
struct Holder {
    child: Child,
    starts: Receiver<Instant>,
}

impl Holder {
    /// Returns when the process reads.
    fn start(server: &RedisServer, slots: usize, lease: Duration) -> Self {
        let lease = usize::try_from(lease.as_millis()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(Task::Hold(slots, lease).words(server));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, starts) = sync_channel(slots);
        let (ready, is_ready) = sync_channel(1);
        std::thread::spawn(move || {
            while let Some(Ok(line)) = lines.next() {
                let told = match line.as_str() {
                    "ready" => ready.send(()).is_ok(),
                    _ => tell.send(Instant::now()).is_ok(),
                };
                if !told {
                    return;
                }
            }
        });
        is_ready.recv().unwrap();
        Self { child, starts }
    }

    /// When this many jobs have started, in any order.
    fn starts(&self, jobs: usize) -> Vec<Instant> {
        let next = |_| self.starts.recv_timeout(PATIENCE).expect("a job that does not start");
        (0..jobs).map(next).collect()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _gone = self.child.kill().and_then(|()| self.child.wait()).is_ok();
    }
}

/// Longer than any recovery takes.
const PATIENCE: Duration = Duration::from_secs(600);
