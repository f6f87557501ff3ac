//! Scheduled events on a real server: races, memory, partitions, and what quiet processes notice.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use streamjobs::__store::inspect::RetriesFrom;
use streamjobs::__store::{Due, NewScheduled, Queue, ScheduledFrom, Scheduling};
use streamjobs::config::{Retention, Start};
use streamjobs::error::Refusal;
use streamjobs::stream::{Rescheduled, Scheduled};
use streamjobs::{
    Client, ConsumerName, Event, EventId, Fields, GroupName, Runtime, StreamName, handlers,
};
use streamjobs_tests::proxy::{FaultProxy, Mode};
use streamjobs_tests::server::{EntryRow, RedisServer};
use tokio::time::{Instant, sleep_until};

use crate::app::{
    App, DEADLINE, Gate, LEASE, Order, Work, options, order, orders, quick, settled, until, work,
};

/// An event without a key.
#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.reminder")]
struct Reminder {
    id: usize,
}

fn id(number: usize) -> EventId {
    EventId::new(format!("e-{number}")).unwrap()
}

fn soon(delay: Duration) -> SystemTime {
    SystemTime::now() + delay
}

/// The event ids in the stream, in order.
fn entered(server: &RedisServer) -> Vec<String> {
    server.entries("orders").iter().filter_map(|entry| entry.text("sj-id")).collect()
}

/// Schedules events of these numbers.
async fn schedule(client: &Client, numbers: std::ops::Range<usize>, at: SystemTime) {
    let events = orders(numbers.end);
    let items = numbers.map(|number| (at, id(number), &events[number]));
    for answer in client.publish_all_at(items).await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn each_due_event_is_cancelled_or_entered_by_eight_of_each_and_never_both() {
    const COUNT: usize = 1_000;
    let app = App::start().await;
    let delay = Duration::from_secs(1);
    schedule(&app.client, 0..COUNT, soon(delay)).await;
    sleep_until(Instant::now() + delay).await;
    let stream = StreamName::new("orders").unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let client = Client::connect(&app.server.url()).await.unwrap();
        let (store, stream) = (streamjobs::__store::of(&client), stream.clone());
        tasks.spawn(async move {
            while store.scheduled_count(&stream).await.unwrap() > 0 {
                store.enter(&stream, Retention::Unlimited, 7, 0).await.unwrap();
            }
            Vec::new()
        });
        tasks.spawn(async move {
            let (waiting, mut removed) = (client.scheduled("orders").unwrap(), Vec::new());
            for number in (0..COUNT).map(|number| (number * 7 + worker * 123) % COUNT).step_by(2) {
                if waiting.cancel(&id(number)).await.unwrap() {
                    removed.push(id(number).to_string());
                }
            }
            removed
        });
    }
    let removed = tasks.join_all().await.into_iter().flatten().collect::<Vec<_>>();
    let entered = entered(&app.server);
    let distinct = removed.iter().chain(&entered).collect::<HashSet<_>>().len();
    assert_eq!((removed.len() + entered.len(), distinct), (COUNT, COUNT), "removed and entered");
    assert!(!removed.is_empty() && !entered.is_empty(), "both had a part: {}", removed.len());
    let early = |entry: &EntryRow| {
        let due = entry.text("sj-due").unwrap().parse::<u64>().unwrap();
        entry.id.split('-').next().unwrap().parse::<u64>().unwrap() < due
    };
    assert!(!app.server.entries("orders").iter().any(early));
}

#[tokio::test]
async fn many_events_due_at_once_delay_no_renewal_of_a_job() {
    const COUNT: usize = 20_000;
    let app = App::start().await;
    let gate = Gate::default();
    let passed = gate.clone();
    let work = Work::new(move |order, _| {
        let gate = passed.clone();
        async move {
            if order.id == "held" {
                gate.passed().await;
            }
            Ok(())
        }
    });
    let runtime = app.runtime(&work).start().await.unwrap();
    app.client.publish(&order("held")).await.unwrap();
    work.wait_for(1).await;
    let at = soon(Duration::from_secs(8));
    schedule(&app.client, 0..COUNT, at).await;
    assert!(SystemTime::now() < at, "all are due at once");
    let begun = Instant::now();
    until(DEADLINE * 3, "all have run", || work.distinct() == COUNT + 1).await;
    println!("{COUNT} events: entered and run {:?} after they were scheduled", begun.elapsed());
    let counters = runtime.counters();
    assert_eq!((counters.leases_lost, counters.claimed, counters.claims_refused), (0, 0, 0));
    assert_eq!((counters.scheduled_entered, work.count()), (COUNT as u64, COUNT + 1));
    gate.open();
    settled(&runtime).await;
    assert_eq!(runtime.counters().refused_late, 0);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_short_delay_is_kept_while_the_consumers_are_quiet() {
    let app = App::start().await;
    let work = Work::fine();
    let builder = Runtime::builder(&app.client).handlers(handlers![self::work]).state(work.clone());
    let runtime = builder.group("work", options().lease(LEASE)).start().await.unwrap();
    let publisher = Client::connect(&app.server.url()).await.unwrap();
    for round in 1..=5 {
        // Longer than the lease: the group is idle then.
        sleep_until(Instant::now() + LEASE * 4).await;
        publisher.publish_in(Duration::from_millis(200), &order(round)).await.unwrap();
        work.wait_for(round).await;
    }
    let lateness = app.server.entries("orders").into_iter().map(|entry| {
        let due = entry.text("sj-due").unwrap().parse::<u64>().unwrap();
        entry.id.split('-').next().unwrap().parse::<u64>().unwrap().checked_sub(due).unwrap()
    });
    let mut lateness = lateness.collect::<Vec<_>>();
    lateness.sort_unstable();
    println!("late by {lateness:?} ms");
    // What the machine adds is bounded once, and mostly small.
    assert!(lateness[4] < 1_000 && lateness[2] <= 550, "{lateness:?}");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_server_out_of_memory_refuses_to_schedule_and_lets_events_enter() {
    let app = App::start().await;
    let work = Work::fine();
    let runtime = app.runtime(&work).start().await.unwrap();
    schedule(&app.client, 0..3, soon(Duration::from_secs(2))).await;
    app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let events = orders(5);
    let items = (3..5).map(|number| (soon(LEASE), id(number), &events[number]));
    for answer in app.client.publish_all_at(items).await {
        let error = answer.unwrap_err();
        assert!(!error.is_unconfirmed(), "certainly not stored: {error}");
        assert_eq!(error.refusal(), Some(Refusal::OutOfMemory), "{error}");
    }
    let waiting = app.client.scheduled("orders").unwrap();
    assert!(waiting.cancel(&id(0)).await.unwrap(), "a cancellation frees memory");
    assert!(waiting.reschedule(&id(1), soon(DEADLINE)).await.is_err());
    assert!(matches!(waiting.run_now(&id(1)).await.unwrap(), Rescheduled::Published(_)));
    work.wait_for(2).await;
    assert_eq!(waiting.count().await.unwrap(), 0, "the refused ones do not wait");
    app.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    settled(&runtime).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_event_of_a_partition_is_found_by_its_id_alone() {
    let server = RedisServer::start().unwrap();
    let connect =
        async || Client::builder(&server.url()).partitions("orders", 5).connect().await.unwrap();
    let (publisher, other) = (connect().await, connect().await);
    let at = soon(DEADLINE * 20);
    let mut partitions = HashSet::new();
    for number in 0..40 {
        for (repeated, client) in [(false, &publisher), (true, &other)] {
            let event = Reminder { id: number };
            let answer = client.publish_at_with_id(at, &event, id(number)).await.unwrap();
            let Scheduled::Waits(event) = answer else { panic!("it waits") };
            assert_eq!(event.repeated, repeated, "{number}");
            partitions.insert(event.partition.unwrap());
        }
    }
    assert_eq!(partitions.len(), 5, "they are spread");
    let waiting = other.scheduled("orders").unwrap();
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = waiting.list(after.as_ref(), 7).await.unwrap();
        listed.extend(page.events.into_iter().map(|event| (event.due, event.partition, event.id)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(listed.is_sorted_by_key(|(due, partition, _)| (*due, *partition)));
    assert_eq!(listed.iter().map(|(.., id)| id).collect::<HashSet<_>>().len(), 40);
    assert_eq!((waiting.count().await.unwrap(), listed.len()), (40, 40));
    for number in 0..40 {
        match number % 4 {
            0 => assert!(waiting.cancel(&id(number)).await.unwrap()),
            1 => assert!(matches!(
                waiting.run_now(&id(number)).await.unwrap(),
                Rescheduled::Published(_)
            )),
            2 => assert!(matches!(
                waiting.reschedule(&id(number), at + DEADLINE).await.unwrap(),
                Rescheduled::Waits { .. }
            )),
            _ => {}
        }
    }
    assert_eq!(waiting.count().await.unwrap(), 20);
    let names = publisher.partitions(&StreamName::new("orders").unwrap());
    assert_eq!(names.iter().map(|name| server.length(name.as_str())).sum::<usize>(), 10);
}

#[tokio::test]
async fn events_of_every_partition_enter_and_each_runs_once() {
    let server = RedisServer::start().unwrap();
    let client = Client::builder(&server.url()).partitions("orders", 6).connect().await.unwrap();
    let work = Work::fine();
    let mut runtimes = Vec::new();
    for _ in 0..2 {
        let builder = Runtime::builder(&client).handlers(handlers![self::work]).state(work.clone());
        runtimes.push(quick(builder.group("work", options())).start().await.unwrap());
    }
    let events = (0..300).map(|id| Order { id: id.to_string(), customer: id.to_string() });
    let events = events.collect::<Vec<_>>();
    let at = soon(Duration::from_secs(2));
    let items = events.iter().enumerate().map(|(number, event)| (at, id(number), event));
    for answer in client.publish_all_at(items).await {
        answer.unwrap();
    }
    until(DEADLINE, "all have run", || work.distinct() == 300).await;
    let mut entered = 0;
    for runtime in runtimes {
        settled(&runtime).await;
        entered += runtime.counters().scheduled_entered;
        let _ = runtime.shutdown().await;
    }
    assert_eq!((work.count(), entered), (300, 300));
}

#[tokio::test]
async fn a_repetition_of_an_unconfirmed_call_changes_nothing() {
    let app = App::start().await;
    let proxy = FaultProxy::start(&app.server).unwrap();
    let through = Client::connect(proxy.url()).await.unwrap();
    let hour = Duration::from_secs(3_600);
    through.publish_in(hour, &order("before")).await.unwrap();
    proxy.set(Mode::DropReplies);
    let error = through.publish_in_with_id(hour, &order(1), id(1)).await.unwrap_err();
    assert!(error.is_unconfirmed(), "{error}");
    let again = app.client.publish_in_with_id(hour * 2, &order(1), id(1)).await.unwrap();
    assert!(matches!(again, Scheduled::Waits(event) if event.repeated), "it was stored");
    assert_eq!(app.client.scheduled("orders").unwrap().count().await.unwrap(), 2);
}

#[tokio::test]
async fn a_scheduled_event_that_fails_is_retried_and_dead_lettered_as_any_other() {
    let app = App::start().await;
    let work = Work::new(|_, job| async move {
        if job.attempt() < 3 { Err("again".into()) } else { Err(streamjobs::JobError::dead("no")) }
    });
    let runtime = app.runtime(&work).start().await.unwrap();
    app.client.publish_in_with_id(LEASE / 4, &order(1), id(1)).await.unwrap();
    work.wait_for(3).await;
    let letters = app.client.dead_letters("orders", "work").unwrap();
    until(DEADLINE, "one is dead", || runtime.counters().dead_lettered == 1).await;
    let letter = letters.list(None, 10).await.unwrap().letters.remove(0);
    assert_eq!((letter.event_id.clone(), letter.attempts), (Some(id(1)), 3));
    letters.redrive(letter.id).await.unwrap();
    work.wait_for(4).await;
    assert!(work.runs().iter().all(|run| run.event_id == id(1).to_string()));
    let _ = runtime.shutdown().await;
}

/// As with rules that another hand has written.
#[tokio::test]
async fn an_event_whose_place_is_refused_leaves_no_record() {
    let app = App::start().await;
    let rule = "reset on >canary ~* &* +@all -zadd";
    let words = ["ACL", "SETUSER", "bob"].into_iter().chain(rule.split(' '));
    app.server.command(&words.collect::<Vec<_>>());
    let client = Client::connect(&app.server.url_as("bob", "canary")).await.unwrap();
    for round in 0..2 {
        let error = client.publish_in_with_id(LEASE, &order(1), id(1)).await.unwrap_err();
        assert!(!error.is_unconfirmed(), "{round}: {error}");
        let stored = app.server.query::<usize>(&["HEXISTS", "{orders}:later-records", "e-1"]);
        assert_eq!(stored, 0, "{round}: it is certainly not stored");
    }
    let again = app.client.publish_in_with_id(LEASE, &order(1), id(1)).await.unwrap();
    assert!(matches!(again, Scheduled::Waits(event) if !event.repeated));
}

/// Each call reads about a megabyte of records, and one that cannot be read is not looked for again.
#[tokio::test]
async fn pages_of_restored_events_are_bounded_and_end_with_an_unreadable_record() {
    let app = App::start().await;
    let (store, stream) =
        (streamjobs::__store::of(&app.client), StreamName::new("orders").unwrap());
    let large = |name: &str| Order { id: name.to_owned(), customer: "c".repeat(200_000) };
    let events = (0..30).map(|number| large(&number.to_string())).collect::<Vec<_>>();
    let at = soon(DEADLINE * 60);
    let items = events.iter().enumerate().map(|(number, event)| (at, id(number), event));
    for answer in app.client.publish_all_at(items).await {
        answer.unwrap();
    }
    app.server.command(&["HSET", "{orders}:later-records", "theirs", "text"]);
    app.server.command(&["DEL", "{orders}:later"]);
    let (mut cursor, mut restored, mut lost, mut calls) = (0, 0, 0, 0);
    while store.look_ahead(&stream).await.unwrap().misplaced > 0 {
        let entered = store.enter(&stream, Retention::Unlimited, 500, cursor).await.unwrap();
        assert!(entered.restored <= 10, "{entered:?}");
        (cursor, restored) = (entered.cursor, restored + entered.restored);
        (lost, calls) = (lost + entered.lost, calls + 1);
        assert!(calls < 40, "it ends");
    }
    assert_eq!((restored, lost), (30, 1));
    assert_eq!(app.server.query::<usize>(&["HEXISTS", "{orders}:later-records", "theirs"]), 0);
}

/// Another client has set them: no look may fail of it, and nothing else is late.
#[tokio::test]
async fn infinite_times_of_other_clients_are_bounded() {
    let app = App::start().await;
    let store = streamjobs::__store::of(&app.client);
    let queue = Queue {
        stream: StreamName::new("orders").unwrap(),
        group: GroupName::new("work").unwrap(),
    };
    let (me, far) = (ConsumerName::new("me").unwrap(), Duration::from_secs(100 * 365 * 86_400));
    schedule(&app.client, 1..3, soon(DEADLINE * 60)).await;
    store.prepare(&queue, Start::Beginning).await.unwrap();
    for key in ["{orders}:later", "{orders}:retry:work"] {
        app.server.command(&["ZADD", key, "+inf", "e-1"]);
        app.server.command(&["ZREM", key, "e-2"]);
    }
    let ahead = store.look_ahead(&queue.stream).await.unwrap();
    assert!(ahead.next_due.is_some_and(|due| due > far), "{ahead:?}");
    let promoted = store.promote(&queue, &me, 10).await.unwrap();
    assert!(promoted.next_due.is_some_and(|due| due > far), "{promoted:?}");
    let listed = store.scheduled(&queue.stream, ScheduledFrom::First, 9).await.unwrap().events;
    assert_eq!(listed[0].due, 253_402_300_799_999);
    let retries = store.retries(&queue, RetriesFrom::First, 9).await.unwrap();
    assert_eq!((retries.jobs.len(), listed.len()), (1, 1));
    app.server.command(&["ZADD", "{orders}:later", "-inf", "e-1"]);
    let ahead = store.look_ahead(&queue.stream).await.unwrap();
    assert_eq!(ahead.next_due, Some(Duration::ZERO));
    let moved = store.enter(&queue.stream, Retention::Unlimited, 9, 0).await.unwrap();
    assert_eq!((moved.lateness.len(), moved.restored), (1, 1));
    assert_eq!(entered(&app.server), ["e-1"]);
}

/// The server does nothing else while it decodes and appends them.
#[tokio::test]
async fn wide_events_enter_a_few_at_once_and_usual_ones_in_whole_pages() {
    let app = App::start().await;
    let (store, stream) =
        (streamjobs::__store::of(&app.client), StreamName::new("orders").unwrap());
    for (fields, page) in [(8, 500), (64, 93), (990, 7)] {
        let fields = (0..fields).map(|_| ("x".into(), "1".into())).collect::<Fields>();
        let hour = Due::In(Duration::from_secs(3_600));
        let event = |number| NewScheduled { id: id(number), due: hour, fields: fields.clone() };
        let events = (0..500).map(event).collect();
        for answer in store.schedule(&stream, Retention::Unlimited, events).await {
            assert!(matches!(answer.unwrap(), Scheduling::Waits { repeated: false, .. }));
        }
        let mut all_due = ["ZADD", "{orders}:later", "XX"].map(str::to_owned).to_vec();
        all_due.extend((0..500).flat_map(|number| ["1".to_owned(), id(number).to_string()]));
        app.server.command(&all_due);
        let mut left = 500;
        while left > 0 {
            let moved = store.enter(&stream, Retention::Unlimited, 500, 0).await.unwrap();
            assert_eq!(moved.lateness.len(), page.min(left), "of {} fields", fields.len());
            left -= moved.lateness.len();
            assert_eq!(moved.has_more, left > 0 || page == 500);
        }
    }
    assert_eq!(app.server.length("orders"), 1_500);
}

/// The stream has two ids left: an event is either in it or waits, whatever ends a page.
#[tokio::test]
async fn events_before_a_refused_one_have_entered_and_do_not_wait() {
    let app = App::start().await;
    let (store, stream) =
        (streamjobs::__store::of(&app.client), StreamName::new("orders").unwrap());
    schedule(&app.client, 1..6, soon(DEADLINE * 60)).await;
    // Records that another client wrote are lost, and end nothing: no list of words, and one of other kinds.
    let records = "{orders}:later-records";
    for (id, words) in [("e-2", "7"), ("e-4", "{'a', {}, 'sj-due', '1'}")] {
        let script = format!("return redis.call('HSET', KEYS[1], '{id}', cmsgpack.pack({words}))");
        app.server.command(&["EVAL", &script, "1", records]);
    }
    app.server.command(&["XADD", "orders", "1-1", "sj-id", "first"]);
    app.server.command(&["XSETID", "orders", &format!("{}-{}", u64::MAX, u64::MAX - 2)]);
    for number in 1..6 {
        app.server.command(&["ZADD", "{orders}:later", "1", &format!("e-{number}")]);
    }
    let enter = || store.enter(&stream, Retention::Unlimited, 500, 0);
    let moved = enter().await.unwrap();
    assert_eq!((moved.lateness.len(), moved.lost, moved.has_more), (2, 2, false));
    for _ in 0..2 {
        let error = enter().await.unwrap_err();
        assert!(error.to_string().contains("exhausted"), "{error}");
        assert_eq!(entered(&app.server), ["first", "e-1", "e-3"]);
        assert_eq!(store.scheduled_count(&stream).await.unwrap(), 1);
    }
    app.server.command(&["DEL", "orders"]);
    let moved = enter().await.unwrap();
    assert_eq!((moved.lateness.len(), moved.lost, moved.has_more), (1, 0, false));
    assert_eq!(entered(&app.server), ["e-5"]);
    assert_eq!(app.server.query::<usize>(&["EXISTS", "{orders}:later", records]), 1);
}

#[tokio::test]
async fn keys_of_another_type_are_an_error_and_nothing_is_half_stored() {
    let app = App::start().await;
    app.server.command(&["SET", "{orders}:later", "text"]);
    let error = app.client.publish_in(LEASE, &order(1)).await.unwrap_err();
    assert!(!error.is_unconfirmed() && error.to_string().contains("WRONGTYPE"), "{error}");
    assert_eq!(app.server.query::<usize>(&["EXISTS", "{orders}:later-records"]), 0);
    app.server.command(&["DEL", "{orders}:later"]);
    app.server.command(&["SET", "orders", "text"]);
    app.client.publish_in(LEASE, &order(1)).await.unwrap_err();
    assert_eq!(app.server.query::<usize>(&["EXISTS", "{orders}:later"]), 0);
}
