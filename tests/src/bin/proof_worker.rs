//! A process of its own for the proofs: it does guarded work, writes down what it does, and stops
//! at a fail point if it is told to.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test program reports by its output and its end"
)]

use std::env;
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgPoolOptions;
use streamjobs::__proof::{FailPoint, on_fail_point};
use streamjobs::config::{GroupOptions, KeyOrder};
use streamjobs::{
    Backoff, Client, Job, JobError, Runtime, RuntimeBuilder, State, handler, handlers,
};
use streamjobs_postgres::{Once, OnceMember, Postgres};
use streamjobs_tests::history::{Deed, Disturbance, Writer};
use streamjobs_tests::process::end_with_parent;
use streamjobs_tests::proof::{Amended, Order, Running, Shipped};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

#[handler(group = "guarded")]
async fn guarded(
    order: Order,
    tx: &mut Once,
    State(history): State<Arc<Writer>>,
    job: Job,
) -> Result<(), JobError> {
    run_within(&order, tx, &history, &job).await
}

/// The same for a member of a batch, whose end is written in the transaction of its effect.
#[handler(group = "guarded")]
async fn member(
    order: Order,
    tx: &mut OnceMember,
    State(history): State<Arc<Writer>>,
    job: Job,
) -> Result<(), JobError> {
    run_within(&order, tx, &history, &job).await
}

async fn run_within(
    order: &Order,
    tx: &mut PgConnection,
    history: &Writer,
    job: &Job,
) -> Result<(), JobError> {
    let running = Running::begin(history, order, job);
    if let Err(error) = order.work(job).await {
        running.failed(&error);
        return Err(error);
    }
    sqlx::query("INSERT INTO effects (job, consumer, count) VALUES ($1, $2, $3)")
        .bind(job.event_id().as_str())
        .bind(job.consumer().as_str())
        .bind(i64::try_from(job.delivery_count()).unwrap())
        .execute(tx)
        .await?;
    running.done();
    Ok(())
}

#[handler(group = "plain")]
async fn plain(order: Order, State(history): State<Arc<Writer>>, job: Job) -> Result<(), JobError> {
    run(&order, &history, &job).await
}

#[handler(group = "plain")]
async fn amended(
    Amended(order): Amended,
    State(history): State<Arc<Writer>>,
    job: Job,
) -> Result<(), JobError> {
    run(&order, &history, &job).await
}

#[handler(group = "plain")]
async fn shipped(
    Shipped(order): Shipped,
    State(history): State<Arc<Writer>>,
    job: Job,
) -> Result<(), JobError> {
    run(&order, &history, &job).await
}

async fn run(order: &Order, history: &Writer, job: &Job) -> Result<(), JobError> {
    let running = Running::begin(history, order, job);
    if let Err(error) = order.work(job).await {
        running.failed(&error);
        return Err(error);
    }
    running.done();
    Ok(())
}

/// Arms the fail point in `PROOF_FAIL`, such as `ack.after_send:abort:3`: it acts when the point
/// has been reached that often.
fn arm(order: &str, history: Arc<Writer>) {
    let mut words = order.split(':');
    let mut word = || words.next().unwrap().to_owned();
    let (name, action, nth) = (word(), word(), word().parse::<u64>().unwrap());
    let point = FailPoint::ALL.into_iter().find(|point| point.name() == name).unwrap();
    let reached = AtomicU64::new(0);
    on_fail_point(move |here| {
        if here != point || reached.fetch_add(1, Ordering::SeqCst) + 1 != nth {
            return;
        }
        say(&format!("reached {name}"));
        let pid = std::process::id();
        let broken = |what| history.write(Deed::Broken { fault: u64::from(pid), what });
        match action.as_str() {
            "panic" => {
                broken(Disturbance::Panic { pid });
                panic!("as ordered at {name}");
            }
            "abort" => {
                broken(Disturbance::Kill { pid });
                std::process::abort();
            }
            // The parent does something to this process, or to its surroundings.
            "ask" => ask_parent(),
            other => panic!("no such action: {other}"),
        }
    });
}

/// Stands still until the parent has done what it wants to do at this point.
fn ask_parent() {
    let address = env::var("PROOF_CONTROL").unwrap();
    let mut control = TcpStream::connect(address).unwrap();
    control.write_all(b"?").unwrap();
    let _answer = control.read(&mut [0]);
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A process whose output is not read continues to work.
    let _closed = writeln!(out, "{line}").and_then(|()| out.flush()).is_err();
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Connects and starts. In a cluster, a node may be away at this moment; a single server is there.
async fn start(history: &Arc<Writer>) -> Runtime {
    let url = env::var("PROOF_URL").unwrap();
    let Some(partitions) = number("PROOF_PARTITIONS") else {
        let client = Client::connect(&url).await.unwrap();
        return runtime(&client, history).await.start().await.unwrap();
    };
    let partitions = u16::try_from(partitions).unwrap();
    let begun = Instant::now();
    loop {
        let error: Box<dyn Error> =
            match Client::builder(&url).partitions("orders", partitions).connect().await {
                Ok(client) => match runtime(&client, history).await.start().await {
                    Ok(runtime) => return runtime,
                    Err(error) => error.into(),
                },
                Err(error) => error.into(),
            };
        say(&format!("not started: {error}"));
        assert!(begun.elapsed() < PATIENCE, "not started: {error}");
        sleep_until(Instant::now() + Duration::from_millis(100)).await;
    }
}

/// A runtime with all settings from the environment.
async fn runtime(client: &Client, history: &Arc<Writer>) -> RuntimeBuilder {
    let slots = NonZeroU32::new(u32::try_from(number("PROOF_SLOTS").unwrap()).unwrap()).unwrap();
    let options = GroupOptions::new()
        .lease(Duration::from_millis(number("PROOF_LEASE_MS").unwrap()))
        .concurrency(slots)
        .backoff(Backoff::exponential(Duration::from_millis(20), Duration::from_secs(1)));
    let mut builder = Runtime::builder(client)
        .block(Duration::from_millis(200))
        .promote_interval(Duration::from_millis(number("PROOF_PROMOTE_MS").unwrap_or(50)))
        .grace(Duration::from_millis(number("PROOF_GRACE_MS").unwrap_or(5_000)))
        .state(Arc::clone(history));
    if let Ok(url) = env::var("PROOF_DATABASE_URL") {
        let pool = PgPoolOptions::new().max_connections(u32::from(POOL)).connect(&url).await;
        builder = builder.state(Postgres::open(pool.unwrap()).await.unwrap());
        let (handlers, options) = match env::var("PROOF_KIND").as_deref() {
            Ok("ordered") => (handlers![guarded], options.order(KeyOrder::Block)),
            Ok("fair") => (handlers![guarded], options.fair()),
            Ok("members") => (handlers![member], options),
            Ok(other) => panic!("no such kind: {other}"),
            Err(_) => (handlers![guarded], options),
        };
        builder = builder.handlers(handlers).group("guarded", options);
    } else {
        // The event types that this version of the program knows.
        let handlers = match number("PROOF_VERSION").unwrap_or(1) {
            1 => handlers![plain].to_vec(),
            2 => handlers![plain, amended].to_vec(),
            _ => handlers![plain, amended, shipped].to_vec(),
        };
        builder = builder.handlers(handlers).group("plain", options);
    }
    if let Ok(key) = env::var("PROOF_KEY") {
        builder = builder.read_keys("orders", [key]);
    }
    builder
}

#[tokio::main]
async fn main() {
    end_with_parent();
    let history =
        Arc::new(Writer::open(&PathBuf::from(env::var("PROOF_HISTORY").unwrap())).unwrap());
    if let Ok(order) = env::var("PROOF_FAIL") {
        arm(&order, Arc::clone(&history));
    }
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let runtime = start(&history).await;
    history.write(Deed::Ready { consumer: runtime.consumer().to_string() });
    say(&format!("consumer {}", runtime.consumer()));
    say("ready");
    terminated.recv().await;
    let report = runtime.shutdown().await;
    history.write(Deed::Stopped {
        finished: report.finished,
        released: report.released,
        abandoned: u64::try_from(report.abandoned.len()).unwrap(),
    });
    say("stopped");
}

/// How long to keep trying to start on a cluster.
const PATIENCE: Duration = Duration::from_secs(25);

/// How many connections to the database there are.
const POOL: u8 = 8;
