//! Real processes that are killed, frozen and told to stop, on a real server.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use streamjobs_tests::eventually::eventually;
use streamjobs_tests::process::{Worker, is_running};
use streamjobs_tests::server::RedisServer;

pub const DEADLINE: Duration = Duration::from_secs(40);

#[derive(Clone, Copy)]
pub struct Plan<'a> {
    pub mode: &'a str,
    pub lease: Option<u64>,
    pub slots: u64,
    pub grace: u64,
    /// The rate and its burst, as in `50/1s 20`.
    pub rate: Option<&'a str>,
}

pub const QUICK: Plan<'static> =
    Plan { mode: "quick", lease: Some(600), slots: 8, grace: 5_000, rate: None };

pub fn worker(server: &RedisServer, plan: &Plan<'_>) -> Worker {
    worker_of(env!("CARGO_BIN_EXE_worker").into(), server, plan)
}

/// A worker of another build, such as the one that a deploy replaces: its program is
/// `STREAMJOBS_OTHER_WORKER`. Without that it is this build's.
fn other_worker(server: &RedisServer, plan: &Plan<'_>) -> Worker {
    let program = std::env::var_os("STREAMJOBS_OTHER_WORKER").map(PathBuf::from);
    worker_of(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_worker").into()), server, plan)
}

fn worker_of(program: PathBuf, server: &RedisServer, plan: &Plan<'_>) -> Worker {
    let worker = begun(program, server, plan);
    worker.wait_for(|line| line.starts_with("ready "), DEADLINE);
    worker
}

/// A worker whose first job may end it before it says that it is ready.
fn begun(program: PathBuf, server: &RedisServer, plan: &Plan<'_>) -> Worker {
    let url = server.url();
    let (slots, grace) = (plan.slots.to_string(), plan.grace.to_string());
    let lease = plan.lease.map(|lease| lease.to_string());
    let mut builder = Worker::builder(program)
        .env("WORKER_URL", url)
        .env("WORKER_MODE", plan.mode)
        .env("WORKER_SLOTS", slots)
        .env("WORKER_GRACE_MS", grace);
    if let Some(lease) = lease {
        builder = builder.env("WORKER_LEASE_MS", lease);
    }
    if let Some(rate) = plan.rate {
        builder = builder.env("WORKER_RATE", rate);
    }
    builder.start().unwrap()
}

pub fn publish(server: &RedisServer, ids: impl IntoIterator<Item = String>) {
    let mut pipe = redis::pipe();
    for id in ids {
        pipe.cmd("XADD").arg("orders").arg("*").arg("type").arg("order.placed");
        pipe.arg("id").arg(id).arg("customer").arg("a").ignore();
    }
    let client = redis::Client::open(server.plain_url()).unwrap();
    pipe.query::<()>(&mut client.get_connection().unwrap()).unwrap();
}

/// The orders whose handlers ended, over all workers.
fn ended<'a>(workers: impl IntoIterator<Item = &'a Worker>) -> Vec<String> {
    lines(workers, "end ")
}

pub fn started<'a>(workers: impl IntoIterator<Item = &'a Worker>) -> Vec<String> {
    lines(workers, "start ")
}

pub fn lines<'a>(workers: impl IntoIterator<Item = &'a Worker>, prefix: &str) -> Vec<String> {
    let all = workers.into_iter().flat_map(Worker::lines);
    all.filter_map(|line| line.strip_prefix(prefix).map(str::to_owned)).collect()
}

fn distinct(lines: &[String]) -> usize {
    lines.iter().collect::<HashSet<_>>().len()
}

#[test]
fn jobs_of_killed_processes_are_done_elsewhere_and_none_is_lost() {
    let server = RedisServer::start().unwrap();
    let plan = Plan { mode: "sleep:20", ..QUICK };
    let mut living = (0..3).map(|_| worker(&server, &plan)).collect::<Vec<_>>();
    let mut dead = Vec::new();
    publish(&server, (0..400).map(|id| id.to_string()));
    for kill in 1..=5 {
        let all = || dead.iter().chain(&living);
        eventually(DEADLINE, "some progress", || distinct(&ended(all())) >= kill * 50);
        let mut victim = living.remove(0);
        victim.kill();
        dead.push(victim);
        living.push(worker(&server, &plan));
    }
    let all = || dead.iter().chain(&living);
    eventually(DEADLINE, "all done", || distinct(&ended(all())) == 400);
    eventually(DEADLINE, "nothing pending", || server.pending("orders", "work").is_empty());
    let extra = started(all()).len() - 400;
    assert!(extra <= 5 * 8 * 2, "{extra} extra runs after five kills of eight slots");
}

#[test]
fn with_default_settings_a_killed_process_is_noticed_within_lease_claim_interval_and_a_second() {
    let server = RedisServer::start().unwrap();
    // Every slot is needed: no job ends.
    let plan = Plan { mode: "hold", lease: None, slots: 200, ..QUICK };
    let mut victim = worker(&server, &plan);
    publish(&server, (0..200).map(|id| id.to_string()));
    eventually(DEADLINE, "all running", || started([&victim]).len() == 200);
    let heir = worker(&server, &plan);
    victim.kill();
    let killed = Instant::now();
    eventually(DEADLINE, "all started elsewhere", || distinct(&started([&heir])) == 200);
    let took = killed.elapsed();
    println!("all started elsewhere {took:?} after the kill");
    // A lease of 10 s, a claim interval of a third of it give or take a fifth, and a second.
    assert!(took < Duration::from_secs(15), "took {took:?}");
}

#[test]
fn a_job_killed_between_its_effect_and_its_acknowledgement_is_delivered_again() {
    let server = RedisServer::start().unwrap();
    let mut victim = worker(&server, &Plan { mode: "hold", ..QUICK });
    publish(&server, ["effect".to_owned()]);
    eventually(DEADLINE, "the effect", || started([&victim]).len() == 1);
    victim.kill();
    let heir = worker(&server, &QUICK);
    eventually(DEADLINE, "again", || started([&heir]) == ["effect 1 2"]);
    eventually(DEADLINE, "acknowledged", || server.pending("orders", "work").is_empty());
}

#[test]
fn marked_work_of_a_killed_process_is_taken_over_by_its_job_and_by_no_other() {
    let server = RedisServer::start().unwrap();
    let publish = || {
        let fields = ["type", "order.placed", "id", "1", "customer", "a", "sj-id", "e-1"];
        server.query::<String>(&[&["XADD", "orders", "*"][..], &fields].concat())
    };
    let mut victim = worker(&server, &Plan { mode: "marked:hold", ..QUICK });
    let origin = publish();
    eventually(DEADLINE, "in the middle", || started([&victim]).len() == 1);
    let heir = worker(&server, &Plan { mode: "marked:quick", ..QUICK });
    publish();
    let waiting = || server.query::<usize>(&["ZCARD", "{orders}:retry:work"]);
    eventually(DEADLINE, "the second job of the event waits", || waiting() == 1);
    let mark = |field: &str| -> Option<String> {
        server.query(&["HGET", "{orders}:once:work:{e-1}", field])
    };
    assert_eq!((mark("origin"), mark("done")), (Some(origin), None));
    victim.kill();
    eventually(DEADLINE, "taken over and told so", || lines([&heir], "takeover ") == ["1"]);
    let pending = || server.pending("orders", "work").len() + waiting();
    let lane = || server.length("{orders}:lane:work");
    eventually(DEADLINE, "both jobs are over", || pending() + lane() == 0);
    eventually(DEADLINE, "it says so", || !ended([&heir]).is_empty());
    assert_eq!(ended([&heir]), ["1"], "the second job found it done");
    assert!(mark("done").is_some() && mark("owner").is_none());
    assert_eq!(server.length("{orders}:dead:work"), 0);
}

#[test]
fn a_frozen_process_loses_its_job_learns_of_it_and_takes_nothing_back() {
    let server = RedisServer::start().unwrap();
    let sleeper = worker(&server, &Plan { mode: "hold", ..QUICK });
    publish(&server, ["1".to_owned()]);
    eventually(DEADLINE, "running", || started([&sleeper]).len() == 1);
    sleeper.freeze();
    let thief = worker(&server, &Plan { mode: "hold", ..QUICK });
    eventually(DEADLINE, "taken over", || started([&thief]) == ["1 1 2"]);
    let owner = server.pending("orders", "work").remove(0).consumer;
    sleeper.thaw();
    sleeper.wait_for(|line| line == "told 1 lost=true", DEADLINE);
    let row = server.pending("orders", "work").remove(0);
    assert_eq!((row.consumer, row.deliveries), (owner, 2));
    thief.terminate();
    thief.wait_for(|line| line.starts_with("stopped"), DEADLINE);
}

#[test]
fn a_short_freeze_changes_nothing() {
    let server = RedisServer::start().unwrap();
    let plan = Plan { mode: "sleep:1500", lease: Some(3_000), ..QUICK };
    let (sleeper, other) = (worker(&server, &plan), worker(&server, &plan));
    publish(&server, (0..4).map(|id| id.to_string()));
    eventually(DEADLINE, "running", || started([&sleeper, &other]).len() == 4);
    sleeper.freeze();
    let aged = || {
        server.pending("orders", "work").iter().any(|row| row.idle > Duration::from_millis(1_300))
    };
    // Either the sleeper's entries grow old for a while, or all four run in the other process.
    if !started([&sleeper]).is_empty() {
        eventually(DEADLINE, "a third of the lease without a renewal", aged);
    }
    sleeper.thaw();
    eventually(DEADLINE, "done", || ended([&sleeper, &other]).len() == 4);
    assert_eq!(started([&sleeper, &other]).len(), 4);
}

/// A rolling deploy that changes the lease: both settings run beside each other for a while.
#[test]
fn processes_with_another_lease_take_no_running_job_of_each_other() {
    let server = RedisServer::start().unwrap();
    let jobs = Plan { mode: "sleep:3000", slots: 4, ..QUICK };
    let long = other_worker(&server, &Plan { lease: Some(60_000), ..jobs });
    publish(&server, (0..4).map(|id| format!("long-{id}")));
    eventually(DEADLINE, "all in the first process", || started([&long]).len() == 4);
    let short = worker(&server, &Plan { lease: Some(1_000), ..jobs });
    publish(&server, (0..4).map(|id| format!("short-{id}")));
    eventually(DEADLINE, "all in the second process", || started([&short]).len() == 4);
    let late = other_worker(&server, &Plan { lease: Some(60_000), ..jobs });
    eventually(DEADLINE, "all done", || ended([&long, &short, &late]).len() == 8);
    assert_eq!(started([&long, &short, &late]).len(), 8, "each job ran once");
    eventually(DEADLINE, "nothing pending", || server.pending("orders", "work").is_empty());
}

#[test]
fn a_terminated_process_hands_its_work_to_another_within_a_second_uncounted() {
    let server = RedisServer::start().unwrap();
    // Nothing may wait for this lease.
    let hold = Plan { mode: "hold", lease: Some(3_600_000), slots: 2, grace: 10, rate: None };
    let leaving = worker(&server, &hold);
    publish(&server, (0..50).map(|id| id.to_string()));
    eventually(DEADLINE, "running", || started([&leaving]).len() == 2);
    leaving.terminate();
    leaving.wait_for(|line| line == "stopped finished=0 released=2 abandoned=0", DEADLINE);
    let heir = worker(&server, &Plan { lease: Some(3_600_000), ..QUICK });
    let began = Instant::now();
    eventually(DEADLINE, "all done elsewhere", || distinct(&ended([&heir])) == 50);
    assert!(began.elapsed() < Duration::from_secs(2), "took {:?}", began.elapsed());
    let runs = started([&heir]);
    assert!(runs.iter().all(|run| run.ends_with(" 1 1")), "{runs:?}");
    eventually(DEADLINE, "nothing pending", || server.pending("orders", "work").is_empty());
}

#[test]
fn a_job_that_kills_its_process_is_dead_lettered_after_so_many_deaths() {
    let server = RedisServer::start().unwrap();
    die_until_dead_lettered(&server, &Plan { mode: "abort", lease: Some(300), ..QUICK }, |_| ());
}

#[test]
fn a_job_that_overflows_the_stack_is_dead_lettered_like_any_that_kills_its_process() {
    let server = RedisServer::start().unwrap();
    die_until_dead_lettered(&server, &Plan { mode: "overflow", lease: Some(300), ..QUICK }, |_| ());
}

/// Each death counts for all that ran in that process, so a neighbour of the last death has one
/// delivery more, and neither it nor what comes later is dead-lettered with the culprit.
#[test]
fn neighbours_of_a_poison_job_that_died_with_it_less_often_are_done() {
    let server = RedisServer::start().unwrap();
    // Long enough on a busy machine: a lease that a living process loses is one more delivery, and the
    // poison job would then wait for more neighbours than there are.
    let plan = Plan { mode: "abort-beside", lease: Some(3_000), slots: 32, ..QUICK };
    let neighbours = |death| {
        let id = |number| format!("{death}-{number}");
        publish(&server, (0..4).map(id));
    };
    let current = die_until_dead_lettered(&server, &plan, neighbours);
    let all = || distinct(&ended([&current])) == 4 * 4 + 1;
    eventually(DEADLINE, "every neighbour and the innocent", all);
    assert_eq!(server.length("{orders}:dead:work"), 1, "dead letters: the poison job alone");
    let oldest = started([&current]).into_iter().filter(|line| line.starts_with("1-"));
    let counts = oldest.map(|line| line.rsplit(' ').next().unwrap().to_owned());
    assert_eq!(counts.collect::<Vec<_>>(), ["5"; 4], "they have died with it four times");
}

/// Publishes one job that kills its process, starts another process after each of the five deaths,
/// publishes what `beside` says before each of the last four, and returns the process that stored the dead letter.
fn die_until_dead_lettered(
    server: &RedisServer,
    plan: &Plan<'_>,
    beside: impl Fn(usize),
) -> Worker {
    publish(server, ["poison".to_owned()]);
    let mut deaths = 0;
    let start = || begun(env!("CARGO_BIN_EXE_worker").into(), server, plan);
    let mut current = start();
    while server.length("{orders}:dead:work") == 0 {
        let dead_lettered = || server.length("{orders}:dead:work") == 1;
        let seen = OnPanic(|| {
            println!("after {deaths} deaths: {:#?}", current.lines());
            println!("{:#?}", server.pending("orders", "work"));
        });
        eventually(DEADLINE, "a death or a dead letter", || {
            dead_lettered() || !is_running(current.pid())
        });
        drop(seen);
        if !is_running(current.pid()) {
            deaths += 1;
            assert!(deaths <= 5, "more deaths than deliveries are allowed");
            if deaths < 5 {
                beside(deaths);
            }
            current = start();
        }
    }
    assert_eq!(deaths, 5);
    publish(server, ["innocent".to_owned()]);
    let innocent = || ended([&current]).contains(&"innocent".to_owned());
    eventually(DEADLINE, "work goes on", innocent);
    eventually(DEADLINE, "nothing pending", || server.pending("orders", "work").is_empty());
    current
}

#[test]
fn killed_and_restarted_processes_share_the_work_of_twenty_rounds() {
    let server = RedisServer::start().unwrap();
    let mut all = vec![worker(&server, &QUICK)];
    for round in 0..20 {
        publish(&server, (0..20).map(|id| format!("{round}-{id}")));
        all.last_mut().unwrap().kill();
        all.push(worker(&server, &QUICK));
    }
    eventually(DEADLINE, "all done", || distinct(&ended(&all)) == 400);
    eventually(DEADLINE, "nothing pending", || server.pending("orders", "work").is_empty());
}

/// Says what there is to see when the test fails meanwhile.
struct OnPanic<F: Fn()>(F);

impl<F: Fn()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

/// Each process may die between any two requests of its loops, and the publisher repeats all it has sent.
#[test]
fn scheduled_events_enter_once_though_processes_are_killed_all_the_time() {
    const COUNT: usize = 10_000;
    let server = RedisServer::start().unwrap();
    let plan = Plan { slots: 64, ..QUICK };
    let mut living = (0..3).map(|_| worker(&server, &plan)).collect::<Vec<_>>();
    let now = std::time::SystemTime::now();
    let due = |number: usize| now + Duration::from_millis(6_000 + number as u64 % 6_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = streamjobs::Client::connect(&server.url()).await.unwrap();
        let events = (0..COUNT).map(|number| {
            let stream = streamjobs::StreamName::new("orders").unwrap();
            let field = |name: &'static str, value: String| (name.into(), value.into());
            let fields = vec![
                field("type", "order.placed".to_owned()),
                field("id", number.to_string()),
                field("customer", "a".to_owned()),
                field("sj-id", format!("e-{number}")),
            ];
            (due(number), streamjobs::EncodedEvent::from_parts(stream, fields).unwrap())
        });
        let events = events.collect::<Vec<_>>();
        for answers in [client.publish_encoded_at(events.clone()).await, {
            client.publish_encoded_at(events).await
        }] {
            assert!(answers.into_iter().all(|answer| answer.is_ok_and(|answer| answer.waits())));
        }
    });
    let begun = server.length("orders");
    assert_eq!(begun, 0, "none is due before all are scheduled twice");
    let mut dead = Vec::new();
    for kill in 1..=12 {
        eventually(DEADLINE, "some have entered", || server.length("orders") >= kill * 700);
        let mut victim = living.remove(0);
        victim.kill();
        dead.push(victim);
        living.push(worker(&server, &plan));
    }
    eventually(DEADLINE, "all have entered", || server.length("orders") >= COUNT);
    let entries = server.entries("orders");
    let ids = entries.iter().filter_map(|entry| entry.text("sj-id")).collect::<HashSet<_>>();
    assert_eq!((entries.len(), ids.len()), (COUNT, COUNT), "each id once");
    let is_early = |entry: &streamjobs_tests::server::EntryRow| {
        let due = entry.text("sj-due").unwrap().parse::<u64>().unwrap();
        entry.id.split('-').next().unwrap().parse::<u64>().unwrap() < due
    };
    assert!(!entries.iter().any(is_early));
    let left = server.query::<usize>(&["ZCARD", "{orders}:later"]);
    let records = server.query::<Vec<String>>(&["HKEYS", "{orders}:later-records"]);
    assert_eq!((left, records), (0, vec![String::new()]), "only since when events are scheduled");
}

#[derive(streamjobs::Event, serde::Serialize, serde::Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct EachSecond {
    id: String,
    customer: String,
}

#[test]
fn a_schedule_of_seconds_fires_once_each_though_processes_are_killed_all_the_time() {
    use streamjobs::schedule::{Missed, Schedule};

    let server = RedisServer::start().unwrap();
    let mut living = (0..8).map(|_| worker(&server, &QUICK)).collect::<Vec<_>>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = streamjobs::Client::connect(&server.url()).await.unwrap();
        let event = EachSecond { id: "each".into(), customer: "a".into() };
        let hour = Duration::from_secs(3_600);
        let all = Missed::All { max: std::num::NonZeroU32::MAX, within: hour };
        let schedule = Schedule::every("each", Duration::from_secs(1)).unwrap().missed(all);
        let schedule = schedule.publishes(&event).unwrap();
        assert!(client.schedules("orders").unwrap().put(&schedule).await.unwrap());
    });
    let mut dead = Vec::new();
    for kill in 1..=12 {
        eventually(DEADLINE, "it has fired", || server.length("orders") >= kill);
        let mut victim = living.remove(0);
        victim.kill();
        dead.push(victim);
        living.push(worker(&server, &QUICK));
    }
    let last = server.length("orders") + 2;
    eventually(DEADLINE, "it goes on", || server.length("orders") >= last);
    let entries = server.entries("orders");
    let due = entries.iter().map(|entry| entry.text("sj-due").unwrap().parse::<u64>().unwrap());
    let due = due.collect::<Vec<_>>();
    assert!(due.windows(2).all(|pair| pair[1] - pair[0] == 1_000), "once, in order: {due:?}");
    let ids = entries.iter().filter_map(|entry| entry.text("sj-id")).collect::<HashSet<_>>();
    assert_eq!(ids.len(), entries.len());
    let is_early = |entry: &streamjobs_tests::server::EntryRow| {
        let due = entry.text("sj-due").unwrap().parse::<u64>().unwrap();
        entry.id.split('-').next().unwrap().parse::<u64>().unwrap() < due
    };
    assert!(!entries.iter().any(is_early));
}
