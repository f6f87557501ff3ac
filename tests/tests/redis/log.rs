//! The stream as a log: what is seen of it.

use std::ops::Bound;
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use streamjobs::config::Retention;
use streamjobs::stream::{
    Cut, EntryAddress, GroupInfo, Liveness, PendingQuery, Stream, StreamError, Unfinished,
};
use streamjobs::{Client, EntryId};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;

use crate::app::{App, DEADLINE, Gate, Order, Work, order, until};

fn orders(app: &App) -> Stream {
    app.client.stream("orders").unwrap()
}

async fn work(app: &App) -> GroupInfo {
    orders(app).group("work").unwrap().info().await.unwrap()
}

/// A group made by hand, that reads by hand.
fn read_by_hand(app: &App, consumer: &str, count: usize) {
    let count = count.to_string();
    let words =
        ["XREADGROUP", "GROUP", "work", consumer, "COUNT", &count, "STREAMS", "orders", ">"];
    app.server.command(&words);
}

fn make_group(app: &App) {
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0", "MKSTREAM"]);
}

#[tokio::test]
async fn a_stream_tells_its_length_its_ends_and_its_memory() {
    let app = App::start().await;
    assert_eq!(orders(&app).length().await.unwrap(), 0);
    assert!(matches!(orders(&app).info().await, Err(StreamError::Missing { .. })));
    app.publish(7).await;
    let info = orders(&app).info().await.unwrap();
    assert_eq!((orders(&app).length().await.unwrap(), info.length, info.added), (7, 7, 7));
    let entries = app.server.entries("orders");
    assert_eq!(info.first.unwrap().to_string(), entries[0].id);
    assert_eq!(info.last.unwrap().to_string(), entries[6].id);
    assert_eq!(info.last, Some(info.last_id));
    assert!(info.bytes.unwrap() > 100);
}

#[tokio::test]
async fn a_group_tells_its_cursor_its_backlog_and_what_is_pending() {
    let app = App::start().await;
    make_group(&app);
    app.publish(10).await;
    read_by_hand(&app, "a", 4);
    let groups = orders(&app).groups().await.unwrap();
    assert_eq!(groups.len(), 1);
    let group = &groups[0];
    assert_eq!((group.group.as_str(), group.stream.as_str()), ("work", "orders"));
    assert_eq!((group.pending, group.backlog.entries, group.backlog.exact), (4, 6, true));
    assert_eq!(group.cursor.to_string(), app.server.entries("orders")[3].id);
    assert_eq!((group.retrying, group.dead_letters, group.trimmed_unread), (0, Some(0), 0));
    assert!(group.oldest_pending.is_some() && group.oldest_waiting.is_some());
}

#[tokio::test]
async fn the_backlog_is_right_where_the_server_names_a_phantom_lag() {
    let app = App::start().await;
    make_group(&app);
    app.publish(10).await;
    read_by_hand(&app, "a", 3);
    app.server.command(&["XTRIM", "orders", "MAXLEN", "=", "2"]);
    let passed_by = work(&app).await;
    assert_eq!((passed_by.backlog.entries, passed_by.backlog.exact), (2, true));
    assert_eq!(passed_by.trimmed_unread, 5);
    read_by_hand(&app, "a", 1);
    assert_eq!(work(&app).await.backlog.entries, 1);
    read_by_hand(&app, "a", 1);
    let done = work(&app).await;
    assert_eq!((done.backlog.entries, done.backlog.exact), (0, true), "{done:?}");
}

#[tokio::test]
async fn the_backlog_is_counted_where_the_lag_is_null_or_negative() {
    let app = App::start().await;
    app.publish(10).await;
    let ids = app.server.entries("orders").into_iter().map(|entry| entry.id).collect::<Vec<_>>();
    app.server.command(&["XGROUP", "CREATE", "orders", "work", &ids[3]]);
    let middle = work(&app).await;
    assert_eq!((middle.backlog.entries, middle.backlog.exact), (6, true), "{middle:?}");
    let words = ["XGROUP", "SETID", "orders", "work", &ids[3], "ENTRIESREAD", "1007"];
    app.server.command(&words);
    let negative = work(&app).await;
    assert_eq!((negative.backlog.entries, negative.backlog.exact), (6, true), "{negative:?}");
    app.server.command(&["XDEL", "orders", &ids[6]]);
    let deleted = work(&app).await;
    assert_eq!((deleted.backlog.entries, deleted.backlog.exact), (5, true), "{deleted:?}");
}

#[tokio::test]
async fn a_backlog_that_cannot_be_counted_to_its_end_says_at_least() {
    let app = App::start().await;
    app.publish(3_000).await;
    let id = app.server.entries("orders")[9].id.clone();
    app.server.command(&["XGROUP", "CREATE", "orders", "work", &id]);
    let backlog = work(&app).await.backlog;
    assert!(!backlog.exact && (1_000..3_000).contains(&backlog.entries), "{backlog:?}");
    assert!(backlog.to_string().starts_with("at least 10"), "{backlog}");
}

#[tokio::test]
async fn what_is_trimmed_before_its_delivery_is_counted_for_each_group() {
    let server = RedisServer::start().unwrap();
    let cap = std::num::NonZeroU64::new(100).unwrap();
    let client = Client::builder(&server.url())
        .retention("orders", Retention::MaxLenExact(cap))
        .connect()
        .await
        .unwrap();
    let app = App { server, client };
    let group = orders(&app).group("work").unwrap();
    assert!(group.create(streamjobs::config::Start::Beginning).await.unwrap());
    app.publish(1_000).await;
    assert_eq!(group.info().await.unwrap().trimmed_unread, 900, "it is seen without a runtime");
    let runtime = app.runtime(&Work::fine()).start().await.unwrap();
    app.drained("work").await;
    until(DEADLINE, "counted", || runtime.counters().trimmed_unread == 900).await;
    let info = group.info().await.unwrap();
    assert_eq!((info.trimmed_unread, info.backlog.entries), (900, 0), "and not twice");
    assert_eq!(group.diagnose().await.unwrap().problems.len(), 1);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn consumers_tell_who_they_are_and_whether_they_live() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.runtime(&gated).start().await.unwrap();
    app.publish(3).await;
    gated.wait_for(3).await;
    app.server.command(&["XGROUP", "CREATECONSUMER", "orders", "work", "stranger"]);
    let group = orders(&app).group("work").unwrap();
    let found = async || {
        let consumers = group.consumers().await.unwrap();
        let mine = consumers.iter().find(|one| one.name == runtime.consumer().as_str()).cloned();
        (mine, consumers.len())
    };
    eventually_async(DEADLINE, "a heartbeat reports three jobs", async || {
        found().await.0.is_some_and(|mine| mine.in_flight == Some(3))
    })
    .await;
    let (mine, count) = found().await;
    let mine = mine.unwrap();
    assert_eq!((count, mine.pending, mine.slots), (2, 3, Some(16)));
    assert_eq!((mine.liveness, mine.process), (Liveness::Alive, Some(std::process::id())));
    assert!(mine.host.is_some_and(|host| !host.is_empty()) && mine.started.is_some());
    assert_eq!(mine.version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    let consumers = group.consumers().await.unwrap();
    let stranger = consumers.iter().find(|one| one.name == "stranger").unwrap();
    assert_eq!((stranger.liveness, stranger.in_flight), (Liveness::Unknown, None));
    gate.open();
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_idle_process_is_shown_right_after_its_start() {
    let app = App::start().await;
    let runtime = app.runtime(&Work::fine()).start().await.unwrap();
    let group = orders(&app).group("work").unwrap();
    let consumers = group.consumers().await.unwrap();
    let shown = consumers.iter().map(|one| (one.name.as_str(), one.liveness, one.slots));
    let expected = [(runtime.consumer().as_str(), Liveness::Alive, Some(16))];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    assert!(group.diagnose().await.unwrap().is_healthy());
    let _ = runtime.shutdown().await;
    assert!(group.consumers().await.unwrap().is_empty());
}

#[tokio::test]
async fn pending_entries_are_paged_and_filtered_by_idle_time_consumer_and_deliveries() {
    let app = App::start().await;
    make_group(&app);
    app.publish(25).await;
    read_by_hand(&app, "a", 20);
    read_by_hand(&app, "b", 5);
    let group = orders(&app).group("work").unwrap();
    let (mut after, mut seen, mut pages) = (EntryAddress::from(EntryId::ZERO), Vec::new(), 0);
    loop {
        let page = group.pending(PendingQuery::new().limit(10).after(after)).await.unwrap();
        seen.extend(page.entries.iter().map(|entry| entry.id.to_string()));
        pages += 1;
        let Some(next) = page.next else { break };
        after = next;
    }
    let all = app.server.pending("orders", "work").into_iter().map(|row| row.id);
    assert_eq!((seen, pages), (all.collect::<Vec<_>>(), 3));
    let of_b = group.pending(PendingQuery::new().consumer("b")).await.unwrap();
    assert_eq!(of_b.entries.len(), 5);
    let old = app.server.pending("orders", "work")[3].id.clone();
    app.server.age("orders", "work", &old, Duration::from_secs(60));
    let idle = PendingQuery::new().idle_min(Duration::from_secs(30));
    let idle = group.pending(idle).await.unwrap().entries;
    assert_eq!(idle.iter().map(|entry| entry.id.to_string()).collect::<Vec<_>>(), [&*old]);
    app.server.command(&["XCLAIM", "orders", "work", "b", "0", &old]);
    let often = group.pending(PendingQuery::new().deliveries_min(2)).await.unwrap().entries;
    assert_eq!(often.iter().map(|entry| entry.delivery_count).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn history_is_replayed_by_ids_milliseconds_and_times_without_touching_a_group() {
    let app = App::start().await;
    make_group(&app);
    app.publish(250).await;
    read_by_hand(&app, "a", 3);
    let ids = app.server.entries("orders").into_iter().map(|entry| entry.id.parse().unwrap());
    let ids = ids.collect::<Vec<EntryId>>();
    let stream = orders(&app);
    let replayed = async |replay: streamjobs::stream::Replay| -> Vec<EntryId> {
        replay.map_ok(|entry| entry.id()).try_collect().await.unwrap()
    };
    assert_eq!(replayed(stream.replay(..)).await, ids);
    assert_eq!(replayed(stream.replay(ids[10]..=ids[20])).await, ids[10..=20]);
    let after = (Bound::Excluded(ids[10]), Bound::Included(ids[12]));
    assert_eq!(replayed(stream.replay(after)).await, ids[11..=12]);
    let (first, last) = (ids[0].milliseconds(), ids[249].milliseconds());
    assert_eq!(replayed(stream.replay(first..=last)).await, ids);
    let hour = Duration::from_secs(3_600);
    assert_eq!(replayed(stream.replay(SystemTime::now() - hour..)).await, ids);
    assert!(replayed(stream.replay(..SystemTime::now() - hour)).await.is_empty());
    let mut events = stream.replay_events::<Order>(ids[5]..);
    assert_eq!(events.next().await.unwrap().unwrap(), (ids[5].into(), order(5)));
    let entry = stream.entry(ids[7]).await.unwrap().unwrap();
    assert_eq!((entry.id(), entry.event_type()), (ids[7], Some("order.placed")));
    assert!(stream.entry(EntryId::new(1, 1)).await.unwrap().is_none());
    let newest = stream.newest(2).await.unwrap();
    assert_eq!(newest.iter().map(|entry| entry.id()).collect::<Vec<_>>(), [ids[249], ids[248]]);
    assert_eq!((app.pending("work"), app.cursor("work")), (3, ids[2].to_string()));
}

#[tokio::test]
async fn a_replay_of_events_tells_what_it_cannot_read_and_goes_on() {
    let app = App::start().await;
    app.publish(1).await;
    app.server.command(&["XADD", "orders", "*", "type", "order.placed", "data", "no json"]);
    app.server.command(&["XADD", "orders", "*", "type", "another", "x", "y"]);
    app.publish(1).await;
    let mut events = orders(&app).replay_events::<Order>(..);
    assert!(events.next().await.unwrap().is_ok());
    let error = events.next().await.unwrap().unwrap_err();
    assert!(matches!(error, StreamError::Decode { .. }) && !error.to_string().contains("no json"));
    assert!(events.next().await.unwrap().is_ok(), "other types are passed over");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_tail_gives_what_comes_and_survives_its_connection() {
    let app = App::start().await;
    app.publish(2).await;
    let mut tail = orders(&app).tail().await.unwrap();
    app.publish(3).await;
    for number in 0..3 {
        let entry = tail.next().await.unwrap();
        assert_eq!(entry.event_type(), Some("order.placed"), "{number}");
    }
    let given_up = tokio::time::timeout(Duration::from_millis(50), tail.next()).await;
    assert!(given_up.is_err(), "nothing came");
    app.publish(1).await;
    app.server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    app.client.publish(&order("last")).await.ok();
    let next = tail.next().await.unwrap();
    assert_eq!(next.id().to_string(), app.server.entries("orders")[5].id);
    assert!(app.server.try_query::<redis::Value>(&["XINFO", "GROUPS", "orders"]).is_ok());
}

#[tokio::test]
async fn the_oldest_of_many_that_wait_is_found_and_very_many_are_told_as_such() {
    let app = App::start().await;
    make_group(&app);
    let group = orders(&app).group("work").unwrap();
    // Each failed job remembers the entry it was published as; the oldest is anywhere among them.
    let retrying = |from: u32, count: u32| {
        let script = "for i = 0, ARGV[2] - 1 do local n = ARGV[1] + i
            local fields = {'type', 't', 'data', string.rep('x', 100), 'sj-origin', n .. '-7'}
            redis.call('HSET', KEYS[1], 's:' .. n .. '-7', cmsgpack.pack(fields))
            redis.call('ZADD', KEYS[2], 1e15 + n, 's:' .. n .. '-7') end";
        let (from, count) = (from.to_string(), count.to_string());
        let keys = ["{orders}:retry-records:work", "{orders}:retry:work"];
        app.server.command(&["EVAL", script, "2", keys[0], keys[1], &from, &count]);
    };
    retrying(5_000, 3_000);
    retrying(400, 1);
    let oldest = group.oldest_unfinished().await.unwrap();
    assert_eq!((oldest.published, oldest.complete), (Some(EntryId::new(400, 7)), true));
    retrying(10_000, 20_000);
    let began = std::time::Instant::now();
    let oldest = group.oldest_unfinished().await.unwrap();
    assert!(!oldest.complete && oldest.published.is_some(), "{oldest:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn jobs_waiting_for_retry_behind_names_of_others_are_found_and_what_runs_now_is_due_at_zero()
{
    let app = App::start().await;
    make_group(&app);
    let group = orders(&app).group("work").unwrap();
    let script = "for i = 1, 2500 do redis.call('ZADD', KEYS[1], i, 'theirs ' .. i) end
        for i = 1, 3 do redis.call('ZADD', KEYS[1], 1e15 + i, 's:' .. i .. '-0') end";
    app.server.command(&["EVAL", script, "1", "{orders}:retry:work"]);
    let page = group.retries(None, 2).await.unwrap();
    let ids = page.jobs.iter().map(|job| job.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids, ["s:1-0", "s:2-0"]);
    let rest = group.retries(page.next.as_ref(), 2).await.unwrap();
    assert_eq!((rest.jobs.len(), &rest.next), (1, &None));
    assert_eq!(group.run_now(&[rest.jobs[0].id.clone()]).await.unwrap(), 1);
    let first = group.retries(None, 1).await.unwrap().jobs.remove(0);
    assert_eq!((first.id.to_string(), first.due), ("s:3-0".to_owned(), 0));
    assert!(first.due_in.is_zero());
}

#[tokio::test]
async fn an_unreachable_server_is_an_error_in_every_call_and_never_zeros() {
    let app = App::start().await;
    make_group(&app);
    app.publish(3).await;
    let (stream, group) = (orders(&app), orders(&app).group("work").unwrap());
    let ids = [EntryId::new(1, 0)];
    let consumer = streamjobs::ConsumerName::new("a").unwrap();
    app.server.kill();
    let began = std::time::Instant::now();
    let keep = Unfinished::Keep;
    let failures = [
        stream.length().await.err(),
        stream.info().await.err(),
        stream.groups().await.err(),
        stream.entry(ids[0]).await.err(),
        stream.newest(5).await.err(),
        stream.replay(..).next().await.and_then(Result::err),
        stream.tail().await.err(),
        stream.tail_after(ids[0]).await.err(),
        stream.trim(Cut::Length(1), keep).await.err(),
        stream.trim_exactly(Cut::Length(1), keep).await.err(),
        stream.delete(keep).await.err(),
        group.info().await.err(),
        group.consumers().await.err(),
        group.oldest_unfinished().await.err(),
        group.diagnose().await.err(),
        group.pending(PendingQuery::new()).await.err(),
        group.create(streamjobs::config::Start::Beginning).await.err(),
        group.move_to(streamjobs::config::Start::End, keep).await.err(),
        group.destroy(keep).await.err(),
        group.acknowledge(&ids).await.err(),
        group.claim(&ids, &consumer).await.err(),
        group.release(&ids).await.err(),
        group.reap_now().await.err(),
        group.hand_over(&consumer, &consumer).await.err(),
        group.remove_consumer(&consumer).await.err(),
    ];
    for (number, failure) in failures.iter().enumerate() {
        let failure = failure.as_ref().unwrap_or_else(|| panic!("call {number} gave an answer"));
        assert!(matches!(failure, StreamError::Server { .. }), "call {number}: {failure:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(8) * 24, "each within its deadline");
    assert!(group.dead_letters().list(None, 5).await.is_err());
}

#[tokio::test]
async fn a_server_that_hangs_is_an_error_within_the_deadline() {
    let app = App::start().await;
    app.publish(1).await;
    app.server.freeze();
    let began = std::time::Instant::now();
    assert!(matches!(orders(&app).info().await, Err(StreamError::Server { .. })));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    app.server.thaw();
}
