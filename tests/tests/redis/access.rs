//! Users with exactly the rules that the doctor prints: each does what it is for, and the server
//! refuses it nothing on the way.

use std::num::NonZeroU64;
use std::time::Duration;

use streamjobs::config::{Retention, Start};
use streamjobs::dead_letter::{Reason, Taker};
use streamjobs::doctor::Access;
use streamjobs::once::OnceMark;
use streamjobs::schedule::{Schedule, ScheduleName};
use streamjobs::stream::{Cancellation, Cut, PendingQuery, Rescheduled, Unfinished};
use streamjobs::unique::{Unique, UniqueDigest};
use streamjobs::{
    Backoff, Client, ConsumerName, Event, EventId, Job, JobError, Runtime, State, StreamName,
    handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;

use crate::app::{DEADLINE, Order, Work, options, order, quick, settled, until, work};

/// How a user with the printed rule connects, from now on and with nothing in the log of refusals.
fn user(server: &RedisServer, access: Access) -> String {
    user_named(server, "bob", access)
}

fn user_named(server: &RedisServer, name: &str, access: Access) -> String {
    let rule = access.rule(name, &[StreamName::new("orders").unwrap()]);
    server.command(&["ACL", "SETUSER", name, "reset", "on", ">canary"]);
    server.command(&[&rule.split(' ').collect::<Vec<_>>(), server.form_rights()].concat());
    server.command(&["ACL", "LOG", "RESET"]);
    server.command(&["SCRIPT", "FLUSH"]);
    server.command(&["CONFIG", "RESETSTAT"]);
    server.url_as(name, "canary")
}

#[tokio::test]
async fn a_rule_takes_selectors_away_and_covers_a_stream_with_a_space() {
    let server = RedisServer::start().unwrap();
    server.command(&["ACL", "SETUSER", "bob", "on", ">canary", "(~* +@all)"]);
    let rule = Access::Publish.rule("bob", &[StreamName::new("or ders").unwrap()]);
    server.command(&rule.split(' ').collect::<Vec<_>>());
    let may = |words: &[&str]| {
        let asked = [&["ACL", "DRYRUN", "bob"][..], words].concat();
        server.query::<String>(&asked) == "OK"
    };
    assert!(may(&["XADD", "or ders", "*", "a", "b"]));
    assert!(!may(&["XADD", "orders", "*", "a", "b"]));
    assert!(!may(&["GET", "or ders"]), "the selector is gone");
}

/// The commands of the rule that the server has not run for the user.
fn unused(server: &RedisServer, access: Access) -> Vec<String> {
    let stats = server.query::<String>(&["INFO", "commandstats"]);
    let rule = access.rule("bob", &[]);
    let granted = rule.split(' ').filter_map(|word| word.strip_prefix('+'));
    let unused = granted.filter(|name| !stats.contains(&format!("cmdstat_{name}:")));
    unused.map(str::to_owned).collect()
}

/// What the server has refused a user: its log, as text.
fn refused(server: &RedisServer) -> Vec<String> {
    let log = server.command(&["ACL", "LOG"]);
    let rows = log.as_sequence().unwrap_or_default().iter();
    rows.map(|row| format!("{row:?}")).collect()
}

/// The names of mails that were sent, once per event.
#[derive(Clone, Default)]
struct Sent(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

/// Fails at its first attempt, and always for the order that is called so.
#[handler(group = "work")]
async fn mail(
    order: Order,
    job: Job,
    mark: &mut OnceMark,
    State(sent): State<Sent>,
) -> Result<(), JobError> {
    match order.id.as_str() {
        "dead" => return Err(JobError::dead("no such customer")),
        "retried" if job.attempt() == 1 => return Err("not now".into()),
        _ => {}
    }
    let _first = !mark.is_takeover();
    sent.0.lock().unwrap().push(order.id);
    Ok(())
}

#[tokio::test]
async fn a_publisher_publishes_with_any_retention_and_may_do_nothing_else() {
    let server = RedisServer::start().unwrap();
    let url = user(&server, Access::Publish);
    for retention in [Retention::default(), Retention::MaxLen(NonZeroU64::MIN.saturating_add(9))] {
        let client = Client::builder(&url).retention(Order::STREAM, retention);
        let client = client.connect().await.unwrap();
        client.publish(&order(1)).await.unwrap();
        for answer in client.publish_all(&[order(2), order(3)]).await {
            answer.unwrap();
        }
    }
    assert_eq!((server.length("orders"), refused(&server)), (6, Vec::new()));
    // Only partitions need the rest of the rule.
    let client = Client::builder(&url).partitions("orders", 3).connect().await.unwrap();
    client.publish(&order(4)).await.unwrap();
    assert_eq!((unused(&server, Access::Publish), refused(&server)), (Vec::new(), Vec::new()));
    let client = Client::connect(&url).await.unwrap();
    let error = client.stream("orders").unwrap().newest(1).await.unwrap_err().to_string();
    assert!(error.contains("the user lacks a right"), "{error}");
    assert_eq!(refused(&server).len(), 1, "what is refused is in the log");
}

/// It is used on the first events ever, so that a call enters its own.
#[tokio::test]
async fn a_scheduler_schedules_cancels_and_reschedules_and_may_read_nothing() {
    let server = RedisServer::start().unwrap();
    let url = user(&server, Access::Schedule);
    let client = Client::builder(&url).partitions("orders", 3).connect().await.unwrap();
    let soon = Duration::from_millis(50);
    for number in 0..9 {
        client
            .publish_in(soon, &Order { id: "1".into(), customer: number.to_string() })
            .await
            .unwrap();
    }
    let partitions = client.partitions(&StreamName::new("orders").unwrap());
    let lengths = partitions.iter().map(|name| server.length(name.as_str()));
    assert_eq!(lengths.sum::<usize>(), 9, "they entered by themselves");
    let waiting = client.scheduled("orders").unwrap();
    let hour = Duration::from_secs(3_600);
    let id = client.publish_in(hour, &order(2)).await.unwrap().event_id().clone();
    let later = std::time::SystemTime::now() + hour * 2;
    assert_ne!(waiting.reschedule(&id, later).await.unwrap(), Rescheduled::NotScheduled);
    assert!(waiting.cancel(&id).await.unwrap());
    let id = client.publish_in(hour, &order(3)).await.unwrap().event_id().clone();
    assert!(matches!(waiting.run_now(&id).await.unwrap(), Rescheduled::Published(_)));
    let unique = Unique::within(hour).key("a");
    assert!(client.publish_unique(&unique, &order(4)).await.unwrap().is_new());
    assert!(client.publish_unique(&unique, &order(5)).await.unwrap().is_duplicate());
    let digest = UniqueDigest::of_key("order.placed", Some("alice"), "a").unwrap();
    assert!(client.unique("orders").unwrap().release(&digest, None).await.unwrap().is_some());
    assert_eq!((unused(&server, Access::Schedule), refused(&server)), (Vec::new(), Vec::new()));
    let error = client.stream("orders").unwrap().newest(1).await.unwrap_err().to_string();
    assert!(error.contains("the user lacks a right"), "{error}");
}

#[tokio::test]
async fn a_worker_enters_scheduled_events_and_restores_lost_ones() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&user(&server, Access::Work)).await.unwrap();
    let ran = Work::fine();
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(ran.clone());
    let builder = builder.schedule(hourly("code"));
    let runtime = quick(builder.group("work", options())).start().await.unwrap();
    until(DEADLINE, "declared", || server.query::<usize>(&["ZCARD", "{orders}:schedules"]) == 1)
        .await;
    client.publish_in(Duration::from_millis(300), &order(1)).await.unwrap();
    ran.wait_for(1).await;
    client.publish_in(Duration::from_secs(1), &order(2)).await.unwrap();
    server.command(&["DEL", "{orders}:later"]);
    ran.wait_for(2).await;
    until(DEADLINE, "counted", || runtime.counters().scheduled_restored == 1).await;
    let _ = runtime.shutdown().await;
    assert_eq!(refused(&server), Vec::<String>::new());
}

/// The name is a pattern as well, which the rule must not be.
#[tokio::test]
async fn a_rule_for_a_stream_whose_name_is_a_pattern_is_for_that_stream_alone() {
    let server = RedisServer::start().unwrap();
    let [own, other] = ["or*rs", "orders"].map(|name| StreamName::new(name).unwrap());
    let rule = Access::Publish.rule("bob", std::slice::from_ref(&own));
    server.command(&["ACL", "SETUSER", "bob", "on", ">canary"]);
    // As a command line reads a word in quotation marks.
    let words = rule.split(' ').map(|word| word.trim_matches('"').replace(r"\\", r"\"));
    let words = words.collect::<Vec<_>>();
    let words = words.iter().map(String::as_str).collect::<Vec<_>>();
    server.command(&[&words, server.form_rights()].concat());
    let client = Client::connect(&server.url_as("bob", "canary")).await.unwrap();
    client.publish_to(&own, &order(1), EventId::generate()).await.unwrap();
    let error = client.publish_to(&other, &order(2), EventId::generate()).await.unwrap_err();
    assert!(error.to_string().contains("the user lacks a right"), "{error}");
    assert_eq!((server.length("or*rs"), server.length("orders")), (1, 0));
}

/// In order, through a retry and the sweep of a place whose job is gone.
#[tokio::test]
async fn a_worker_runs_the_jobs_of_a_key_in_order() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&user(&server, Access::Work)).await.unwrap();
    server.command(&["HSET", "{orders}:holds:work", "s:5-0", "bob"]);
    server.command(&["HSET", "{orders}:busy:work", "bob", "1"]);
    let sent = Sent::default();
    let builder = Runtime::builder(&client).handlers(handlers![mail]).state(sent.clone());
    let ordered = options().order(streamjobs::config::KeyOrder::Block);
    let runtime = quick(builder.group("work", ordered)).start().await.unwrap();
    for id in ["one", "retried", "three"] {
        client.publish(&order(id)).await.unwrap();
    }
    until(DEADLINE, "all are done", || sent.0.lock().unwrap().len() == 3).await;
    assert_eq!(*sent.0.lock().unwrap(), ["one", "retried", "three"]);
    until(DEADLINE, "swept", || runtime.counters().places_freed == 1).await;
    settled(&runtime).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_worker_runs_retries_recovers_and_dead_letters_jobs() {
    // Whole nodes are trimmed.
    let server = RedisServer::builder().config("stream-node-max-entries", "1").start().unwrap();
    let url = user(&server, Access::Work);
    let client = Client::builder(&url).retention("orders", Retention::History(NonZeroU64::MIN));
    let client = client.connect().await.unwrap();
    // A job of a process that died, and one that waits for its retry.
    server.command(&["XGROUP", "CREATE", "orders", "work", "0", "MKSTREAM"]);
    client.publish(&order("of the dead")).await.unwrap();
    server.command(&["XREADGROUP", "GROUP", "work", "dead", "STREAMS", "orders", ">"]);
    let sent = Sent::default();
    let builder = Runtime::builder(&client).handlers(handlers![mail]).state(sent.clone());
    let runtime = quick(builder.group("work", options())).start().await.unwrap();
    for id in ["fine", "retried", "dead"] {
        let unique = Unique::until_done("work", Duration::from_secs(60)).key(id);
        assert!(client.publish_unique(&unique, &order(id)).await.unwrap().is_new());
    }
    until(DEADLINE, "all are done", || sent.0.lock().unwrap().len() == 3).await;
    until(DEADLINE, "one is dead", || server.length("{orders}:dead:work") == 1).await;
    until(DEADLINE, "trimmed", || server.length("orders") <= 1).await;
    settled(&runtime).await;
    let counters = runtime.counters();
    assert_eq!((counters.retried, counters.dead_lettered, counters.claimed), (1, 1, 1));
    // A cancelled job ends without having run.
    let operator = Client::connect(&server.url()).await.unwrap();
    let cancelled = EventId::new("cancelled").unwrap();
    operator.stream("orders").unwrap().cancel(&cancelled).await.unwrap();
    let ended = async || {
        client.publish_with_id(&order("cancelled"), cancelled.clone()).await.unwrap();
        let letters = client.dead_letters("orders", "work").unwrap();
        letters.list(None, 10).await.unwrap().letters.last().unwrap().reason == Reason::Cancelled
    };
    eventually_async(DEADLINE, "the worker knows the mark", ended).await;
    // The last one that was published may be on its way to the dead letters yet.
    let drained = async || {
        let groups = operator.stream("orders").unwrap().groups().await.unwrap();
        groups.iter().all(|group| group.backlog.entries + group.pending == 0)
    };
    eventually_async(DEADLINE, "each has ended", drained).await;
    let dead = server.length("{orders}:dead:work");
    assert_eq!(server.query::<Vec<String>>(&["KEYS", "{orders}:unique:*"]), [""; 0]);
    // More readers share connections, and another one tells them what has changed.
    for _ in 0..5 {
        runtime.add_consumer("work").await.unwrap();
    }
    let told = || server.client_list().iter().any(|client| client.flags.contains('t'));
    until(DEADLINE, "readers are told", told).await;
    // As an archive does.
    let by = Taker::new(ConsumerName::unique("archive").unwrap());
    let letters = client.dead_letters("orders", "work").unwrap();
    let taken = letters.take(&by, 10).await.unwrap().letters;
    let ids = taken.iter().map(|letter| letter.id).collect::<Vec<_>>();
    assert_eq!((letters.settle(&by, &ids).await.unwrap(), ids.len()), (dead, dead));
    // A group that was destroyed is made again.
    server.command(&["XGROUP", "DESTROY", "orders", "work"]);
    until(DEADLINE, "recreated", || runtime.counters().groups_recreated > 0).await;
    eventually_async(DEADLINE, "published", async || client.publish(&order("last")).await.is_ok())
        .await;
    until(DEADLINE, "done", || sent.0.lock().unwrap().iter().any(|id| id == "last")).await;
    let _ = runtime.shutdown().await;
    assert_eq!(refused(&server), Vec::<String>::new());
}

/// The events are in another partition than the first, as are their retry and their dead letter.
#[tokio::test]
async fn a_publisher_and_a_worker_of_a_stream_with_partitions_need_no_further_right() {
    let server = RedisServer::start().unwrap();
    let publisher = user_named(&server, "publisher", Access::Publish);
    let worker = user_named(&server, "worker", Access::Work);
    let connect = async |url: &str, count| {
        Client::builder(url).partitions("orders", count).connect().await.unwrap()
    };
    // Each of them may add partitions.
    let _with_fewer = connect(&worker, 6).await;
    let publisher = connect(&publisher, 12).await;
    let client = connect(&worker, 12).await;
    let sent = Sent::default();
    let builder = Runtime::builder(&client).handlers(handlers![mail]).state(sent.clone());
    let runtime = quick(builder.group("work", options())).start().await.unwrap();
    for id in ["retried", "dead"] {
        publisher.publish(&order(id)).await.unwrap();
    }
    let others = (0..50).map(|id| Order { id: id.to_string(), customer: id.to_string() });
    for answer in publisher.publish_all(&others.collect::<Vec<_>>()).await {
        answer.unwrap();
    }
    until(DEADLINE, "all are done", || sent.0.lock().unwrap().len() == 51).await;
    settled(&runtime).await;
    let counters = runtime.counters();
    assert_eq!((counters.retried, counters.dead_lettered), (1, 1));
    let partitions = client.partitions(&StreamName::new("orders").unwrap());
    let lengths = partitions.iter().map(|name| server.length(name.as_str()));
    assert!(lengths.clone().skip(1).all(|length| length > 0), "{:?}", lengths.collect::<Vec<_>>());
    let dead = partitions.iter().map(|name| server.length(&format!("{name}:dead:work")));
    assert_eq!(dead.skip(1).sum::<usize>(), 1, "the dead letter is beside its partition");
    let _ = runtime.shutdown().await;
    assert_eq!(refused(&server), Vec::<String>::new());
}

#[tokio::test]
async fn jobs_of_a_lost_retry_set_come_back_for_a_worker() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&user(&server, Access::Work)).await.unwrap();
    let twice = Work::new(|_, job| async move {
        if job.attempt() == 1 { Err(JobError::retry("not now")) } else { Ok(()) }
    });
    let later = options().backoff(Backoff::fixed(Duration::from_secs(1)));
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(twice.clone());
    let runtime = quick(builder.group("work", later)).start().await.unwrap();
    client.publish(&order(1)).await.unwrap();
    until(DEADLINE, "waiting for retry", || runtime.counters().retried == 1).await;
    server.command(&["DEL", "{orders}:retry:work"]);
    twice.wait_for(2).await;
    let _ = runtime.shutdown().await;
    assert_eq!(refused(&server), Vec::<String>::new());
}

#[tokio::test]
async fn a_reader_reads_everything_and_changes_nothing() {
    let server = RedisServer::start().unwrap();
    let app = prepared(&server).await;
    let client = Client::connect(&user(&server, Access::Read)).await.unwrap();
    let stream = client.stream("orders").unwrap();
    let group = stream.group("work").unwrap();
    stream.info().await.unwrap();
    stream.sizes().await.unwrap();
    let digest = UniqueDigest::of_key("order.placed", None, "a").unwrap();
    let lock = format!("{{orders}}:unique:{digest}");
    server.command(&["SET", &lock, "1-1 e-1", "PX", "60000"]);
    assert!(client.unique("orders").unwrap().holder(&digest).await.unwrap().is_some());
    assert_eq!(stream.groups().await.unwrap().len(), 1);
    assert_eq!(stream.newest(10).await.unwrap().len(), 5);
    group.info().await.unwrap();
    group.oldest_unfinished().await.unwrap();
    assert_eq!(group.consumers().await.unwrap().len(), 1);
    group.diagnose().await.unwrap();
    assert_eq!(group.pending(PendingQuery::new()).await.unwrap().entries.len(), 2);
    let retries = group.retries(None, 10).await.unwrap().jobs;
    assert_eq!(group.retries(Some(&retries[0].cursor()), 10).await.unwrap().jobs, Vec::new());
    let waiting = client.scheduled("orders").unwrap();
    let first = waiting.list(None, 1).await.unwrap();
    assert_eq!(waiting.list(first.next.as_ref(), 9).await.unwrap().events.len(), 1);
    assert_eq!(waiting.count().await.unwrap(), 2);
    assert!(stream.cancelled(0, 10).await.unwrap().is_empty());
    let schedules = client.schedules("orders").unwrap();
    assert_eq!(schedules.list(None, 10).await.unwrap().schedules.len(), 1);
    assert_eq!(schedules.history(None, 10).await.unwrap().len(), 1);
    let letters = group.dead_letters();
    assert_eq!(letters.list(None, 10).await.unwrap().letters.len(), 1);
    letters.summaries(None, 10).await.unwrap();
    letters.newest_summaries(None, 10).await.unwrap();
    let mut tail = stream.tail().await.unwrap();
    app.publish(&order("last")).await.unwrap();
    tail.next().await.unwrap();
    let mut replay = stream.replay(..);
    replay.next().await.unwrap().unwrap();
    let checkup = client.doctor_for([("orders", "work")]).await.unwrap();
    assert!(checkup.to_string().contains("no right to run CONFIG GET"), "{checkup}");
    // That one is for more retries than are read at once.
    assert_eq!(unused(&server, Access::Read), ["hlen"]);
    assert_eq!(refused(&server), Vec::<String>::new());
    let error = group.pause().await.unwrap_err().to_string();
    assert!(error.contains("the user lacks a right"), "{error}");
}

#[tokio::test]
async fn an_operator_does_every_operation() {
    let server = RedisServer::start().unwrap();
    prepared(&server).await;
    let client = Client::connect(&user(&server, Access::Operate)).await.unwrap();
    let stream = client.stream("orders").unwrap();
    let group = stream.group("work").unwrap();
    let pending = group.pending(PendingQuery::new()).await.unwrap().entries;
    let ids = pending.iter().map(|entry| entry.id).collect::<Vec<_>>();
    let [one, two] = ["one", "two"].map(|name| ConsumerName::new(name).unwrap());
    assert_eq!(group.claim(&ids, &one).await.unwrap().moved.len(), 2);
    assert_eq!(group.hand_over(&one, &two).await.unwrap().moved.len(), 2);
    assert_eq!(group.release(&ids[..1]).await.unwrap().moved.len(), 1);
    assert_eq!(group.acknowledge(&ids[..1]).await.unwrap(), 1);
    let _ = group.remove_consumer(&two).await.unwrap();
    group.reap_now().await.unwrap();
    assert!(group.pause().await.unwrap() && group.resume().await.unwrap());
    let jobs = group.retries(None, 10).await.unwrap().jobs;
    assert_eq!(group.run_now(&[jobs[0].id.clone()]).await.unwrap(), 1);
    let letters = group.dead_letters();
    let letter = letters.list(None, 10).await.unwrap().letters.remove(0);
    letters.redrive(letter.id).await.unwrap();
    let event = letter.event_id.clone().unwrap();
    let keep = Duration::from_secs(60);
    letters.redrive_archived(&letter.fields, &event, None, "token", keep).await.unwrap();
    letters.purge(&[letter.id]).await.unwrap();
    let waiting = client.scheduled("orders").unwrap();
    let events = waiting.list(None, 10).await.unwrap().events;
    let later = std::time::SystemTime::now() + Duration::from_secs(7_200);
    assert_ne!(waiting.reschedule(&events[0].id, later).await.unwrap(), Rescheduled::NotScheduled);
    assert_ne!(waiting.run_now(&events[0].id).await.unwrap(), Rescheduled::NotScheduled);
    assert!(waiting.cancel(&events[1].id).await.unwrap());
    assert_eq!(stream.cancel(&event).await.unwrap(), Cancellation::Marked);
    group.cancel(&event).await.unwrap();
    assert!(stream.uncancel(&event).await.unwrap() && group.uncancel(&event).await.unwrap());
    let schedules = client.schedules("orders").unwrap();
    let name = ScheduleName::new("stored").unwrap();
    schedules.pause(&name).await.unwrap();
    assert!(schedules.resume(&name).await.unwrap());
    schedules.run_now(&name).await.unwrap();
    assert!(schedules.remove(&name).await.unwrap());
    assert!(schedules.put(&hourly("stored")).await.unwrap());
    group.move_to(Start::Beginning, Unfinished::Lose).await.unwrap();
    stream.trim(Cut::Length(1), Unfinished::Lose).await.unwrap();
    group.destroy(Unfinished::Lose).await.unwrap();
    assert!(group.create(Start::Beginning).await.unwrap());
    assert!(stream.delete(Unfinished::Lose).await.unwrap());
    assert_eq!(refused(&server), Vec::<String>::new());
}

/// Five entries: two pending, one that waits for a retry, one dead letter, and one of a schedule that was run
/// by hand; two scheduled events; and a client with all rights.
async fn prepared(server: &RedisServer) -> Client {
    let client = Client::connect(&server.url()).await.unwrap();
    let later = options().backoff(Backoff::fixed(Duration::from_secs(600)));
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(Work::new(
        |order, _| async move {
            match order.id.as_str() {
                "dead" => Err(JobError::dead("no such customer")),
                _ => Err(JobError::retry("not now")),
            }
        },
    ));
    let runtime = quick(builder.group("work", later)).start().await.unwrap();
    for id in ["dead", "retried"] {
        client.publish(&order(id)).await.unwrap();
    }
    until(DEADLINE, "prepared", || {
        let counters = runtime.counters();
        (counters.retried, counters.dead_lettered) == (1, 1)
    })
    .await;
    let _ = runtime.shutdown().await;
    for id in ["one", "two"] {
        client.publish(&order(id)).await.unwrap();
    }
    server.command(&["XREADGROUP", "GROUP", "work", "gone", "STREAMS", "orders", ">"]);
    for hours in [1, 2] {
        client.publish_in(Duration::from_secs(3_600) * hours, &order(hours)).await.unwrap();
    }
    let schedules = client.schedules("orders").unwrap();
    schedules.put(&hourly("stored")).await.unwrap();
    schedules.run_now(&ScheduleName::new("stored").unwrap()).await.unwrap();
    client
}

fn hourly(name: &str) -> Schedule {
    let schedule = Schedule::every(name, Duration::from_secs(3_600)).unwrap();
    schedule.publishes(&order("hourly")).unwrap()
}
