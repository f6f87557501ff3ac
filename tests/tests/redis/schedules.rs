//! Schedules on a real server: processes that die, what was missed, memory, rights, partitions and keys of
//! other types.

use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::__store::Mark;
use streamjobs::__store::schedules::ListedSchedules;
use streamjobs::doctor::Check;
use streamjobs::schedule::{Missed, Schedule, ScheduleName, ScheduleState, SchedulesError, Tick};
use streamjobs::{
    Client, Event, Job, Runtime, RuntimeBuilder, State, StreamName, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::{EntryRow, RedisServer};
use tokio::time::{Instant, sleep_until};

use crate::app::{DEADLINE, options, quick, until};

/// The occurrences that ran, with their numbers of missed ones.
#[derive(Clone, Default)]
struct Runs(std::sync::Arc<std::sync::Mutex<Vec<(u64, u64)>>>);

impl Runs {
    fn all(&self) -> Vec<(u64, u64)> {
        self.0.lock().unwrap().clone()
    }
}

#[handler(group = "work")]
async fn work(tick: Tick, _job: Job, State(runs): State<Runs>) {
    runs.0.lock().unwrap().push((tick.at, tick.missed));
}

fn builder(client: &Client, runs: &Runs) -> RuntimeBuilder {
    let builder = Runtime::builder(client).handlers(handlers![work]).state(runs.clone());
    quick(builder.group("work", options()))
}

fn all() -> Missed {
    Missed::All { max: NonZeroU32::MAX, within: Duration::from_secs(24 * 3_600) }
}

fn seconds() -> Schedule {
    Schedule::every("often", Duration::from_secs(1)).unwrap().missed(all())
}

fn name(text: &str) -> ScheduleName {
    ScheduleName::new(text).unwrap()
}

fn dues(server: &RedisServer, stream: &str) -> Vec<u64> {
    let due = |entry: EntryRow| entry.text("sj-due").and_then(|due| due.parse().ok());
    server.entries(stream).into_iter().filter_map(due).collect()
}

fn clock(server: &RedisServer) -> u64 {
    let time = server.query::<Vec<u64>>(&["TIME"]);
    time[0] * 1_000 + time[1] / 1_000
}

async fn pass(time: Duration) {
    sleep_until(Instant::now() + time).await;
}

#[tokio::test]
async fn eight_processes_of_which_some_die_publish_each_second_once_and_in_order() {
    let server = RedisServer::start().unwrap();
    let (runs, mut fleet) = (Runs::default(), Vec::new());
    let start = async || {
        let client = Client::connect(&server.url()).await.unwrap();
        builder(&client, &runs).schedule(seconds()).start().await.unwrap()
    };
    for _ in 0..8 {
        fleet.push(start().await);
    }
    let fired = |runtime: &Runtime| runtime.counters().schedules_fired;
    let mut fired_before = 0;
    for round in 0..12 {
        pass(Duration::from_millis(970)).await;
        let place = round * 5 % fleet.len();
        let gone = std::mem::replace(&mut fleet[place], start().await);
        fired_before += fired(&gone);
        match round % 2 {
            0 => drop(gone),
            _ => drop(gone.shutdown().await),
        }
    }
    // What one has fired between the count and its end is not in it.
    let counted = fired_before + fleet.iter().map(fired).sum::<u64>();
    assert!(counted > 0, "they count what they have fired");
    let due = dues(&server, "ticks");
    assert!(due.len() >= 11, "{due:?}");
    assert!(due.windows(2).all(|pair| pair[1] - pair[0] == 1_000), "{due:?}");
    let ids = server.entries("ticks").into_iter().filter_map(|entry| entry.text("sj-id"));
    assert_eq!(ids.collect::<BTreeSet<_>>().len(), server.entries("ticks").len());
    for runtime in fleet {
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn three_hours_down_are_none_one_or_all_occurrences() {
    for (missed, published, counted) in
        [(Missed::None, 0, 36), (Missed::One, 1, 35), (all(), 36, 0)]
    {
        let server = RedisServer::start().unwrap();
        let client = Client::connect(&server.url()).await.unwrap();
        // The last occurrence is two and a half minutes old.
        let (period, now) = (300_000, clock(&server));
        let last = now - 150_000;
        let offset = Duration::from_millis(last % period);
        let five = || {
            let five = Schedule::every("five", Duration::from_millis(period)).unwrap();
            five.offset(offset).unwrap().missed(missed)
        };
        let runs = Runs::default();
        let runtime = builder(&client, &runs).schedule(five()).start().await.unwrap();
        let placed = || server.query::<usize>(&["ZCARD", "{ticks}:schedules"]) == 1;
        until(DEADLINE, "declared", placed).await;
        let _ = runtime.shutdown().await;
        let first = last - 35 * period;
        server.command(&["ZADD", "{ticks}:schedules", &first.to_string(), "five"]);
        let runtime = builder(&client, &runs).schedule(five()).start().await.unwrap();
        let over = || server.query::<u64>(&["ZSCORE", "{ticks}:schedules", "five"]) > now;
        until(DEADLINE, "made up", over).await;
        until(DEADLINE, "they ran", || runs.all().len() == published).await;
        let due = dues(&server, "ticks");
        assert_eq!((due.len(), runtime.counters().schedules_missed), (published, counted));
        assert!(due.is_sorted() && due.last().is_none_or(|due| *due == last), "{due:?}");
        if published == 1 {
            assert_eq!(runs.all(), [(last, 35)]);
        }
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_server_out_of_memory_fires_and_refuses_to_store() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let runs = Runs::default();
    let runtime = builder(&client, &runs).schedule(seconds()).start().await.unwrap();
    until(DEADLINE, "it fires", || !runs.all().is_empty()).await;
    let (store, stream) = (streamjobs::__store::of(&client), StreamName::new("ticks").unwrap());
    let page = store.schedules(&stream, ListedSchedules::After(""), 9, false).await.unwrap();
    let facts = page.schedules.into_iter().next().unwrap();
    let name = ScheduleName::new(&*facts.name).unwrap();
    let aged = "local record = cmsgpack.unpack(redis.call('HGET', KEYS[1], ARGV[1])) \
                for digest, at in pairs(record.declared) do record.declared[digest] = at - 100000 end \
                redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(record))";
    server.command(&["EVAL", aged, "1", "{ticks}:schedule-specs", &format!("{name}#")]);
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let declared = [(name, facts.spec.unwrap().digest)];
    let marks = store.mark_declared(&stream, &declared).await.unwrap();
    assert_eq!(marks, [Mark::Same], "it is declared again");
    let schedules = client.schedules("ticks").unwrap();
    let other = Schedule::every("other", Duration::from_secs(60)).unwrap();
    let error = schedules.put(&other).await.unwrap_err();
    assert!(error.to_string().contains("out of memory") && !error.is_unconfirmed(), "{error}");
    let before = dues(&server, "ticks").len();
    until(DEADLINE, "it fires all the same", || dues(&server, "ticks").len() >= before + 3).await;
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(schedules.list(None, 10).await.unwrap().schedules.len(), 1);
    let due = dues(&server, "ticks");
    assert!(due.windows(2).all(|pair| pair[1] - pair[0] == 1_000), "{due:?}");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn keys_of_another_type_are_an_error_and_move_nothing() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let runs = Runs::default();
    let runtime = builder(&client, &runs).schedule(seconds()).start().await.unwrap();
    until(DEADLINE, "it fires", || !runs.all().is_empty()).await;
    // The log counts for nothing.
    server.command(&["SET", "{ticks}:schedule-log", "text"]);
    let before = dues(&server, "ticks").len();
    until(DEADLINE, "it fires without a log", || dues(&server, "ticks").len() > before + 1).await;
    // The stream does.
    server.command(&["RENAME", "ticks", "kept:{ticks}"]);
    server.command(&["SET", "ticks", "text"]);
    let errors = runtime.counters().server_errors;
    until(DEADLINE, "refused", || runtime.counters().server_errors > errors + 3).await;
    server.command(&["DEL", "ticks"]);
    server.command(&["RENAME", "kept:{ticks}", "ticks"]);
    let before = dues(&server, "ticks").len();
    until(DEADLINE, "it fires again", || dues(&server, "ticks").len() > before + 1).await;
    let due = dues(&server, "ticks");
    assert!(due.windows(2).all(|pair| pair[1] - pair[0] == 1_000), "none is lost: {due:?}");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_schedule_is_in_the_partition_of_its_name_and_the_handle_finds_all() {
    let server = RedisServer::start().unwrap();
    let client = Client::builder(&server.url()).partitions("ticks", 3).connect().await.unwrap();
    let runs = Runs::default();
    let names = ["a", "b", "c", "d", "e", "f"];
    let schedules = client.schedules("ticks").unwrap();
    for name in names {
        let schedule = Schedule::every(name, Duration::from_secs(1)).unwrap();
        assert!(schedules.put(&schedule).await.unwrap());
    }
    let partitions = client.partitions(&StreamName::new("ticks").unwrap());
    let key = |stream: &StreamName| match stream.as_str() {
        "ticks" => "{ticks}:schedules".to_owned(),
        other => format!("{other}:schedules"),
    };
    let counts = partitions.iter().map(|stream| server.query::<usize>(&["ZCARD", &key(stream)]));
    let counts = counts.collect::<Vec<_>>();
    assert_eq!(counts.iter().sum::<usize>(), 6);
    assert!(counts.iter().filter(|count| **count > 0).count() > 1, "{counts:?}");
    let runtime = builder(&client, &runs).start().await.unwrap();
    until(DEADLINE, "all have fired", || {
        let fired = partitions.iter().map(|stream| server.length(stream.as_str()));
        fired.sum::<usize>() >= 12
    })
    .await;
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = schedules.list(after.as_ref(), 1).await.unwrap();
        listed.extend(page.schedules.iter().map(|info| info.name.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, names);
    schedules.pause(&name("c")).await.unwrap();
    let paused = schedules.get(&name("c")).await.unwrap().unwrap();
    assert!(
        paused.state == ScheduleState::Paused && paused.fired > 0 && paused.partition.is_some()
    );
    let ran = schedules.run_now(&name("c")).await.unwrap();
    assert_eq!(ran.partition, paused.partition);
    let history = schedules.history(Some(&name("c")), 100).await.unwrap();
    assert!(history.len() as u64 == paused.fired + 1 && history[0].due.is_none(), "{history:?}");
    assert!(schedules.remove(&name("c")).await.unwrap());
    assert!(schedules.get(&name("c")).await.unwrap().is_none());
    let _ = runtime.shutdown().await;
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "ticks", type = "rebill", key = "account")]
struct Rebill {
    account: String,
}

fn rebill(name: &str, account: &str) -> Schedule {
    let often = Schedule::every(name, Duration::from_secs(1)).unwrap();
    often.publishes(&Rebill { account: account.to_owned() }).unwrap()
}

/// Else jobs of one key could run at the same time.
#[tokio::test]
async fn a_schedule_whose_event_has_a_key_is_in_the_partition_of_the_key() {
    let server = RedisServer::start().unwrap();
    let client = Client::builder(&server.url()).partitions("ticks", 3).connect().await.unwrap();
    let schedules = client.schedules("ticks").unwrap();
    let accounts = ["a", "b", "c", "d", "e", "f"];
    for account in accounts {
        assert!(schedules.put(&rebill(&format!("stored-{account}"), account)).await.unwrap());
    }
    let declared = accounts.map(|account| rebill(&format!("declared-{account}"), account));
    let runs = Runs::default();
    let runtime = declared.into_iter().fold(builder(&client, &runs), RuntimeBuilder::schedule);
    let runtime = runtime.start().await.unwrap();
    let mut partitions = HashSet::new();
    for account in accounts {
        let event = Rebill { account: account.to_owned() };
        let published = client.publish(&event).await.unwrap().partition;
        partitions.insert(published);
        for kind in ["stored", "declared"] {
            let name = name(&format!("{kind}-{account}"));
            let get = async || schedules.get(&name).await.unwrap();
            eventually_async(DEADLINE, "it fires", async || {
                get().await.is_some_and(|it| it.fired > 0)
            })
            .await;
            assert_eq!(get().await.unwrap().partition, published, "{name}");
        }
    }
    assert!(partitions.len() > 1, "{partitions:?}");
    let moved = accounts.map(|account| rebill("stored-a", account));
    let mut refused = 0;
    for schedule in moved {
        match schedules.put(&schedule).await {
            Ok(_) => {}
            Err(SchedulesError::OtherPartition { name, .. }) if name == "stored-a" => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((1..6).contains(&refused), "{refused}");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn the_doctor_names_a_schedule_that_no_process_declares() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let gone = Schedule::every("gone", Duration::from_secs(3_600)).unwrap();
    let runtime = builder(&client, &Runs::default()).schedule(gone).start().await.unwrap();
    let placed = || server.query::<usize>(&["ZCARD", "{ticks}:schedules"]) == 1;
    until(DEADLINE, "declared", placed).await;
    let _ = runtime.shutdown().await;
    let found = async || {
        let checkup = client.doctor_for([("ticks", "work")]).await.unwrap();
        let of = checkup.findings.into_iter().filter(|found| found.check == Check::Schedules);
        of.map(|found| found.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found().await, Vec::<String>::new());
    // Its last declaration was long ago.
    let script = "redis.call('HSET', KEYS[1], 'gone#', cmsgpack.pack({since = 1}))";
    server.command(&["EVAL", script, "1", "{ticks}:schedule-specs"]);
    let found = found().await;
    assert_eq!(found.len(), 1, "{found:?}");
    let text = "info schedules: no living process declares schedule gone of stream ticks";
    assert!(found[0].starts_with(text), "{found:?}");
    assert_eq!(
        client.schedules("ticks").unwrap().get(&name("gone")).await.unwrap().unwrap().state,
        ScheduleState::Undeclared
    );
}

/// The copies of before stay where they are until they are forgotten.
#[tokio::test]
async fn schedules_are_resumed_in_each_partition_that_has_a_copy_of_them() {
    const COPIES: usize = 8;
    let server = RedisServer::start().unwrap();
    let names = ["a", "b", "c", "d", "e", "f"];
    let start = async |client: &Client| {
        let hours = names.map(|name| Schedule::every(name, Duration::from_secs(3_600)).unwrap());
        let builder = builder(client, &Runs::default());
        hours.into_iter().fold(builder, RuntimeBuilder::schedule).start().await.unwrap()
    };
    let before = Client::connect(&server.url()).await.unwrap();
    let first = start(&before).await;
    let count = |key: &str| server.query::<usize>(&["ZCARD", key]);
    until(DEADLINE, "declared", || count("{ticks}:schedules") == 6).await;
    let client = Client::builder(&server.url()).partitions("ticks", 3).connect().await.unwrap();
    let second = start(&client).await;
    let partitions = client.partitions(&StreamName::new("ticks").unwrap());
    let keys = partitions.iter().map(|stream| match stream.as_str() {
        "ticks" => "{ticks}:schedules".to_owned(),
        other => format!("{other}:schedules"),
    });
    let keys = keys.collect::<Vec<_>>();
    let placed = || keys.iter().map(|key| count(key)).sum::<usize>();
    // Which partition a name has does not change between releases.
    until(DEADLINE, "declared where they are now", || placed() == COPIES).await;
    let schedules = client.schedules("ticks").unwrap();
    for text in names {
        schedules.pause(&name(text)).await.unwrap();
    }
    assert_eq!(placed(), 0, "paused");
    for text in names {
        assert!(schedules.resume(&name(text)).await.unwrap());
        assert!(!schedules.resume(&name(text)).await.unwrap());
    }
    assert_eq!(placed(), COPIES);
    for runtime in [first, second] {
        let _ = runtime.shutdown().await;
    }
}
