//! A process of its own for the crash tests: it runs one group and prints what happens.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test program reports by its output and its end"
)]

use std::env;
use std::io::Write;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::config::GroupOptions;
use streamjobs::once::OnceMark;
use streamjobs::{
    Client, Event, Job, JobError, Rate, Runtime, State, StreamName, handler, handlers,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    id: String,
    customer: String,
}

/// What the process does with its jobs: `quick`; `hold` (until it is told to stop); `abort` or `overflow` (at the job
/// called poison); `abort-beside` (as soon as all others run beside it, which wait for the job called innocent);
/// `ordered:<percent>`; `clock` (prints the server's time); or `sleep:<milliseconds>`. With `marked:` in front, the
/// work is marked.
#[derive(Clone)]
struct Mode(String);

#[handler(group = "work")]
async fn work(order: Order, State(mode): State<Mode>, job: Job) -> Result<(), JobError> {
    act(&order, &mode.0, &job).await
}

#[handler(group = "work")]
async fn marked(
    order: Order,
    mark: &mut OnceMark,
    State(mode): State<Mode>,
    job: Job,
) -> Result<(), JobError> {
    if mark.is_takeover() {
        say(&format!("takeover {}", order.id));
    }
    act(&order, mode.0.trim_start_matches(MARKED), &job).await
}

/// Writes the beginning and the end of each run into a list on the server, in the order in which they happen over all
/// processes, and fails as often as `ordered:<percent>` says.
#[handler(
    group = "work",
    order = "key",
    max_attempts = 1_000,
    max_deliveries = 1_000,
    backoff = "5ms..50ms"
)]
async fn ordered(
    order: Order,
    State(mode): State<Mode>,
    State(log): State<redis::aio::MultiplexedConnection>,
    job: Job,
) -> Result<(), JobError> {
    let percent = mode.0.trim_start_matches(ORDERED).parse::<u64>().unwrap();
    note(&log, &format!("begin {} {}", order.customer, order.id)).await;
    let lot = order.id.parse::<u64>().unwrap() * 31 + u64::from(job.attempt()) * 17;
    if lot % 100 < percent && job.attempt() < 4 {
        return Err(JobError::retry("not yet"));
    }
    note(&log, &format!("end {} {}", order.customer, order.id)).await;
    Ok(())
}

async fn note(log: &redis::aio::MultiplexedConnection, line: &str) {
    let mut log = log.clone();
    redis::cmd("RPUSH").arg("runs").arg(line).query_async::<()>(&mut log).await.unwrap();
}

async fn act(order: &Order, mode: &str, job: &Job) -> Result<(), JobError> {
    say(&format!("start {} {} {}", order.id, job.attempt(), job.delivery_count()));
    match mode {
        "quick" => {}
        "clock" => {
            let stream = StreamName::new("orders").unwrap();
            let now = streamjobs::__store::of(job.client()).now(&stream).await.unwrap();
            say(&format!("clock {}", now.0));
        }
        "abort" if order.id == "poison" => std::process::abort(),
        "abort-beside" if order.id == "poison" => {
            // Four jobs were published for each death so far, and all of them are meant to die with it.
            let neighbours = u32::try_from(4 * (job.delivery_count() - 1)).unwrap();
            drop(NEIGHBOURS.acquire_many(neighbours).await.unwrap());
            std::process::abort();
        }
        "overflow" if order.id == "poison" => println!("{}", overflow(0)),
        "abort" | "overflow" => {}
        "abort-beside" if order.id == "innocent" => INNOCENT.add_permits(Semaphore::MAX_PERMITS),
        "abort-beside" => {
            NEIGHBOURS.add_permits(1);
            drop(INNOCENT.acquire().await.unwrap());
        }
        "hold" => {
            job.cancelled().cancelled().await;
            say(&format!("told {} lost={}", order.id, job.lease_lost()));
            std::future::pending::<()>().await;
        }
        mode => {
            let milliseconds = mode.strip_prefix("sleep:").unwrap().parse().unwrap();
            sleep_until(Instant::now() + Duration::from_millis(milliseconds)).await;
        }
    }
    say(&format!("end {}", order.id));
    Ok(())
}

/// Calls itself until the stack is full.
fn overflow(depth: u64) -> u64 {
    // Using the answer keeps the compiler from turning this into a loop.
    if depth == u64::MAX { 0 } else { std::hint::black_box(overflow(depth + 1)) + 1 }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A process whose output is not read continues to work.
    let _closed = writeln!(out, "{line}").and_then(|()| out.flush()).is_err();
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

const MARKED: &str = "marked:";
const ORDERED: &str = "ordered:";

/// Opened as soon as the job called innocent has run in this process.
static INNOCENT: Semaphore = Semaphore::const_new(0);
/// A permit for each job that runs beside the one called poison.
static NEIGHBOURS: Semaphore = Semaphore::const_new(0);

#[tokio::main]
async fn main() {
    let client = Client::connect(&env::var("WORKER_URL").unwrap()).await.unwrap();
    let mut options = GroupOptions::new();
    if let Some(lease) = number("WORKER_LEASE_MS") {
        options = options.lease(Duration::from_millis(lease));
    }
    if let Some(slots) = number("WORKER_SLOTS") {
        options = options.concurrency(NonZeroU32::new(u32::try_from(slots).unwrap()).unwrap());
    }
    if let Ok(rate) = env::var("WORKER_RATE") {
        let (rate, burst) = rate.split_once(' ').unwrap();
        options = options.rate(rate.parse::<Rate>().unwrap().burst(burst.parse().unwrap()));
    }
    let mode = env::var("WORKER_MODE").unwrap_or_else(|_| "quick".to_owned());
    let handlers = match &*mode {
        mode if mode.starts_with(MARKED) => handlers![marked],
        mode if mode.starts_with(ORDERED) => handlers![ordered],
        _ => handlers![work],
    };
    let log = redis::Client::open(env::var("WORKER_URL").unwrap()).unwrap();
    let log = log.get_multiplexed_async_connection().await.unwrap();
    let mut builder = Runtime::builder(&client).handlers(handlers).group("work", options);
    if let Some(grace) = number("WORKER_GRACE_MS") {
        builder = builder.grace(Duration::from_millis(grace));
    }
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let runtime = builder.state(Mode(mode)).state(log).start().await.unwrap();
    say(&format!("ready {}", runtime.consumer()));
    terminated.recv().await;
    let report = runtime.shutdown().await;
    let (finished, released, abandoned) =
        (report.finished, report.released, report.abandoned.len());
    say(&format!("stopped finished={finished} released={released} abandoned={abandoned}"));
}
