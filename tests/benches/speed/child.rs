//! Work that has a process of its own: workers beside each other, and what runs under an instrument.

use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZeroU32;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use streamjobs::config::{GroupOptions, Retention};
use streamjobs::{Client, Runtime, RuntimeBuilder, handlers};
use streamjobs_tests::server::RedisServer;
use tokio::task::JoinSet;

use crate::job::{self, Counter};
use crate::work::Side;
use crate::{by_hand, ours, scheduled, wake};

/// What a child does, as its command line says it.
#[derive(Clone, Copy)]
pub enum Task {
    /// Works with so many slots until its input ends.
    Work(Side, usize),
    /// Starts so many jobs and does not end them, with a lease of so many milliseconds. Says each start.
    Hold(usize, usize),
    /// Has so many groups until its input ends.
    Idle(usize),
    /// Has a group without work, and so many schedules, until its input ends.
    Schedules(usize),
    /// Waits with so many groups on so many streams for so many events a second.
    Wake(usize, usize, usize),
    /// Drains streams with so many groups, each with so many events and slots.
    DrainMany(usize, usize, usize),
    /// Drains so many events with so many slots, and ends.
    Drain(usize, usize),
    /// The same where jobs that are done are noted for an hour.
    DrainNoted(usize, usize),
    /// The same without trends.
    DrainUncharted(usize, usize),
    /// The same where each job fails once and is retried at once.
    DrainFailing(usize, usize),
    /// Publishes so many events in batches, and ends.
    PublishBatches(usize),
    /// Publishes so many events one by one from 100 tasks, and ends.
    Publish(usize),
}

impl Task {
    /// The words behind the program's name.
    pub fn words(self, server: &RedisServer) -> Vec<String> {
        let (name, numbers) = match self {
            Self::Work(Side::Ours, slots) => ("work", vec![slots]),
            Self::Work(Side::ByHand, slots) => ("work-by-hand", vec![slots]),
            Self::Hold(slots, lease) => ("hold", vec![slots, lease]),
            Self::Idle(groups) => ("idle", vec![groups]),
            Self::Schedules(schedules) => ("schedules", vec![schedules]),
            Self::Wake(groups, streams, rate) => ("wake", vec![groups, streams, rate]),
            Self::DrainMany(groups, events, slots) => ("drain-many", vec![groups, events, slots]),
            Self::Drain(events, slots) => ("drain", vec![events, slots]),
            Self::DrainNoted(events, slots) => ("drain-noted", vec![events, slots]),
            Self::DrainUncharted(events, slots) => ("drain-uncharted", vec![events, slots]),
            Self::DrainFailing(events, slots) => ("drain-failing", vec![events, slots]),
            Self::PublishBatches(events) => ("publish-batches", vec![events]),
            Self::Publish(events) => ("publish", vec![events]),
        };
        let words = [CHILD.to_owned(), server.url(), name.to_owned()];
        words.into_iter().chain(numbers.iter().map(usize::to_string)).collect()
    }
}

/// Does what the command line says if it makes this process a child.
pub async fn run() -> bool {
    let words = std::env::args().skip(1).collect::<Vec<_>>();
    let [child, url, name, numbers @ ..] = words.as_slice() else { return false };
    if child != CHILD {
        return false;
    }
    let numbers = numbers.iter().map(|word| word.parse().unwrap()).collect::<Vec<usize>>();
    match (name.as_str(), numbers.as_slice()) {
        ("work", [slots]) => work(url, *slots).await,
        ("work-by-hand", [slots]) => work_by_hand(url, *slots).await,
        ("hold", [slots, lease]) => hold(url, *slots, *lease).await,
        ("idle", [groups]) => idle(url, *groups).await,
        ("schedules", [count]) => schedules(url, *count).await,
        ("wake", [groups, streams, rate]) => wake::child(url, *groups, *streams, *rate).await,
        ("drain-many", [groups, events, slots]) => {
            wake::drain(url, *groups, *events, *slots).await;
        }
        ("drain", [events, slots]) => drain(url, *events, *slots, |builder| builder).await,
        ("drain-noted", [events, slots]) => {
            let noted = GroupOptions::new().keep_done(Duration::from_secs(3600));
            drain(url, *events, *slots, |builder| builder.defaults(noted)).await;
        }
        ("drain-uncharted", [events, slots]) => {
            drain(url, *events, *slots, |builder| builder.trends(false)).await;
        }
        ("drain-failing", [events, slots]) => {
            let slots = NonZeroU32::new(u32::try_from(*slots).unwrap()).unwrap();
            ours::fail_each_once(&client(url).await, slots, *events).await;
        }
        ("publish-batches", [events]) => {
            ours::publish_in_batches(&client(url).await, &ours::orders(*events, 150)).await;
        }
        ("publish", [events]) => ours::publish_singly(&client(url).await, 100, *events, 150).await,
        _ => panic!("no such work: {words:?}"),
    }
    true
}

pub async fn client(url: &str) -> Client {
    Client::builder(url).retention_default(Retention::Unlimited).connect().await.unwrap()
}

fn runtime(client: &Client, counter: &Counter, slots: usize) -> RuntimeBuilder {
    let slots = NonZeroU32::new(u32::try_from(slots).unwrap()).unwrap();
    let options = GroupOptions::new().concurrency(slots);
    let builder = Runtime::builder(client).handlers(handlers![job::count]);
    builder.state(counter.clone()).group("bench", options)
}

async fn work(url: &str, slots: usize) {
    let client = client(url).await;
    told_to_begin().await;
    let runtime = runtime(&client, &Counter::default(), slots).start().await.unwrap();
    input_ended().await;
    let _ = runtime.shutdown().await;
}

async fn work_by_hand(url: &str, slots: usize) {
    let (reading, acking) = (by_hand::connect(url).await, by_hand::connect(url).await);
    told_to_begin().await;
    let mut looping = JoinSet::new();
    looping.spawn(by_hand::read_loop(reading, acking, Counter::default(), slots, false));
    input_ended().await;
    looping.abort_all();
}

async fn hold(url: &str, slots: usize, lease: usize) {
    let client = client(url).await;
    let lease = Duration::from_millis(u64::try_from(lease).unwrap());
    let slots = NonZeroU32::new(u32::try_from(slots).unwrap()).unwrap();
    let options = GroupOptions::new().concurrency(slots).lease(lease);
    let builder = Runtime::builder(&client).handlers(handlers![job::hold]);
    let _runtime = builder.group("bench", options).start().await.unwrap();
    told_to_begin().await;
}

async fn idle(url: &str, groups: usize) {
    let client = client(url).await;
    told_to_begin().await;
    let handlers = (0..groups).map(|number| job::count_in(format!("idle-{number}")));
    let builder = Runtime::builder(&client).state(Counter::default());
    let runtime = builder.handlers(handlers).start().await.unwrap();
    input_ended().await;
    let _ = runtime.shutdown().await;
}

async fn schedules(url: &str, count: usize) {
    let client = client(url).await;
    told_to_begin().await;
    let runtime = scheduled::child(&client, count).await;
    input_ended().await;
    let _ = runtime.shutdown().await;
}

async fn drain(
    url: &str,
    events: usize,
    slots: usize,
    with: impl FnOnce(RuntimeBuilder) -> RuntimeBuilder,
) {
    let (client, counter) = (client(url).await, Counter::expect(events));
    let runtime = with(runtime(&client, &counter, slots)).start().await.unwrap();
    counter.reached().await;
    let _ = runtime.shutdown().await;
}

/// Says that it is ready, and waits for a line.
async fn told_to_begin() {
    println!("ready");
    let waiting = tokio::task::spawn_blocking(|| {
        let mut line = Vec::new();
        // Byte by byte, so that nothing behind the line is taken.
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            if std::io::stdin().lock().read(&mut byte).unwrap() == 0 {
                return;
            }
            line.extend(byte);
        }
    });
    waiting.await.unwrap();
}

async fn input_ended() {
    let waiting =
        tokio::task::spawn_blocking(|| std::io::stdin().lock().read_to_end(&mut Vec::new()));
    waiting.await.unwrap().unwrap();
}

/// A child that works until it is dropped.
pub struct Worker {
    child: Child,
}

impl Worker {
    /// Starts a child whose task ends with its input. Returns when it is connected and waits for
    /// [`begin`](Self::begin).
    pub fn start(server: &RedisServer, task: Task) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(task.words(server));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child }
    }

    pub fn begin(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"begin\n").unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _status = self.child.wait().is_ok();
    }
}

const CHILD: &str = "child";
