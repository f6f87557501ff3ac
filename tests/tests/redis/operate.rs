//! What an operator does to streams, groups and pending entries.

use std::time::Duration;

use streamjobs::config::{Retention, Start};
use streamjobs::stream::{Cut, EntryAddress, Group, PendingQuery, StreamError, Unfinished};
use streamjobs::{Client, ConsumerName, EntryId};
use streamjobs_tests::server::RedisServer;

use crate::app::{App, DEADLINE, Work, options, order, orders, settled, until};

fn group(app: &App) -> Group {
    app.client.stream("orders").unwrap().group("work").unwrap()
}

fn named(name: &str) -> ConsumerName {
    ConsumerName::new(name).unwrap()
}

fn ids(app: &App) -> Vec<EntryId> {
    app.server.entries("orders").into_iter().map(|entry| entry.id.parse().unwrap()).collect()
}

/// Entries that a consumer of other software has received and holds.
async fn pending_for(app: &App, consumer: &str, count: usize) {
    group(app).create(Start::Beginning).await.unwrap();
    app.publish(count).await;
    read(app, consumer, count);
}

/// An id of so many seconds ago.
fn id_of(seconds: u64) -> String {
    let then = std::time::SystemTime::now() - Duration::from_secs(seconds);
    format!("{}-0", then.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis())
}

fn read(app: &App, consumer: &str, count: usize) {
    let count = count.to_string();
    let words =
        ["XREADGROUP", "GROUP", "work", consumer, "COUNT", &count, "STREAMS", "orders", ">"];
    app.server.command(&words);
}

#[tokio::test]
async fn claimed_entries_change_hands_with_their_counts_and_idle_times_begin_anew() {
    let app = App::start().await;
    pending_for(&app, "a", 3).await;
    let ids = ids(&app);
    app.server.age("orders", "work", &ids[0].to_string(), Duration::from_secs(90));
    let moved = group(&app).claim(&[ids[0], EntryId::new(5, 5)], &named("b")).await.unwrap();
    assert_eq!(
        (moved.moved, moved.missing),
        (vec![ids[0].into()], vec![EntryId::new(5, 5).into()])
    );
    let rows = app.server.pending("orders", "work");
    assert_eq!((rows[0].consumer.as_str(), rows[0].deliveries), ("b", 1));
    assert!(rows[0].idle < Duration::from_secs(90), "{rows:?}");
    assert!(rows[1..].iter().all(|row| row.consumer == "a"));
}

#[tokio::test]
async fn a_hand_over_loses_nothing_and_raises_no_count() {
    let app = App::start().await;
    pending_for(&app, "a", 1_300).await;
    let ids = ids(&app);
    app.server.command(&["XDEL", "orders", &ids[7].to_string()]);
    let moved = group(&app).hand_over(&named("a"), &named("b")).await.unwrap();
    assert_eq!((moved.moved.len(), moved.trimmed), (1_299, vec![ids[7].into()]));
    let rows = app.server.pending("orders", "work");
    assert!(rows.iter().all(|row| row.consumer == "b" && row.deliveries == 1));
    let letters = group(&app).dead_letters().list(None, 10).await.unwrap().letters;
    assert_eq!(letters.iter().map(|letter| letter.entry_id).collect::<Vec<_>>(), [Some(ids[7])]);
}

#[tokio::test]
async fn released_entries_are_done_at_once_however_long_the_lease_is() {
    let app = App::start().await;
    pending_for(&app, "dead", 10).await;
    let work = Work::fine();
    let lease = options().lease(Duration::from_secs(3_600));
    let runtime = app.bare(&work).group("work", lease).start().await.unwrap();
    let released = group(&app).release(&ids(&app)).await.unwrap();
    assert_eq!(released.moved.len(), 10);
    work.wait_for(10).await;
    app.drained("work").await;
    settled(&runtime).await;
    assert!(work.runs().iter().all(|run| run.delivery_count == 1 && run.attempt == 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn entries_given_to_a_live_process_are_done_there_at_once_and_uncounted() {
    let app = App::start().await;
    pending_for(&app, "dead", 10).await;
    let works = [Work::fine(), Work::fine()];
    let options = || options().lease(Duration::from_secs(3_600));
    let other = app.bare(&works[0]).group("work", options()).start().await.unwrap();
    let chosen = app.bare(&works[1]).group("work", options()).start().await.unwrap();
    let moved = group(&app).claim(&ids(&app)[..4], chosen.consumer()).await.unwrap();
    assert_eq!(moved.moved.len(), 4);
    let moved = group(&app).hand_over(&named("dead"), chosen.consumer()).await.unwrap();
    assert_eq!(moved.moved.len(), 6);
    works[1].wait_for(10).await;
    app.drained("work").await;
    assert!(works[1].runs().iter().all(|run| run.delivery_count == 1 && run.attempt == 1));
    assert_eq!(works[0].count(), 0, "the other process has had none");
    let _ = (other.shutdown().await, chosen.shutdown().await);
}

#[tokio::test]
async fn removing_a_consumer_under_load_loses_no_entry() {
    let app = App::start().await;
    let work = Work::fine();
    let runtime = app.runtime(&work).start().await.unwrap();
    let mut lost = 0;
    for round in 0..20 {
        let name = format!("leaver-{round}");
        app.publish(30).await;
        read(&app, &name, 10);
        let removed = group(&app).remove_consumer(&named(&name)).await.unwrap();
        lost += removed.trimmed.len() + removed.unstored.len();
    }
    app.drained("work").await;
    until(DEADLINE, "all done", || work.distinct() == 30 && work.count() >= 600).await;
    settled(&runtime).await;
    assert_eq!((lost, runtime.counters().succeeded), (0, 600));
    let consumers = group(&app).consumers().await.unwrap();
    assert!(consumers.iter().all(|one| !one.name.starts_with("leaver")), "{consumers:?}");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_consumer_that_keeps_reading_is_not_removed_and_loses_nothing() {
    let app = App::start().await;
    pending_for(&app, "a", 3).await;
    let unknown = group(&app).remove_consumer(&named("nobody")).await.unwrap();
    assert!(unknown.moved.is_empty(), "who is not there is gone");
    let moved = group(&app).remove_consumer(&named("a")).await.unwrap();
    assert_eq!((moved.moved.len(), app.pending("work")), (3, 3));
    app.publish(1).await;
    read(&app, "a", 1);
    assert_eq!(app.pending("work"), 4, "it is recreated by its next read");
}

#[tokio::test]
async fn entries_acknowledged_by_hand_are_done() {
    let app = App::start().await;
    pending_for(&app, "a", 3).await;
    let ids = ids(&app);
    assert_eq!(group(&app).acknowledge(&ids[..2]).await.unwrap(), 2);
    assert_eq!(group(&app).acknowledge(&ids[..2]).await.unwrap(), 0);
    assert_eq!(group(&app).acknowledge(&ids[..0]).await.unwrap(), 0);
    assert_eq!(app.pending("work"), 1);
}

#[tokio::test]
async fn the_lane_of_a_group_that_others_made_is_empty_and_no_missing_group() {
    let app = App::start().await;
    let lane = group(&app).lane();
    let missing = lane.pending(PendingQuery::new()).await.unwrap_err();
    assert!(matches!(missing, StreamError::GroupMissing { .. }), "{missing}");
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0", "MKSTREAM"]);
    app.publish(1).await;
    read(&app, "a", 1);
    let ids = ids(&app);
    assert!(lane.pending(PendingQuery::new()).await.unwrap().entries.is_empty());
    let all = ids.iter().map(EntryAddress::from).collect::<Vec<_>>();
    assert_eq!(lane.release(&ids).await.unwrap().missing, all);
    assert_eq!(lane.claim(&ids, &named("b")).await.unwrap().missing, all);
    assert_eq!(lane.acknowledge(&ids).await.unwrap(), 0);
    assert_eq!(app.server.pending("orders", "work")[0].consumer, "a");
}

#[tokio::test]
async fn a_claim_request_for_a_missing_group_is_refused_and_leaves_nothing_behind() {
    let app = App::start().await;
    let missing = group(&app).reap_now().await.unwrap_err();
    assert!(matches!(missing, StreamError::GroupMissing { .. }), "{missing}");
    let keys: Vec<String> = app.server.query(&["KEYS", "*"]);
    assert!(keys.is_empty(), "{keys:?}");
}

#[tokio::test]
async fn a_group_is_destroyed_only_when_told_to_lose_and_never_under_a_process() {
    let app = App::start().await;
    pending_for(&app, "a", 2).await;
    let refused = group(&app).destroy(Unfinished::Keep).await.unwrap_err();
    assert!(refused.to_string().contains("2 pending entries"), "{refused}");
    let runtime = app.runtime(&Work::fine()).start().await.unwrap();
    until(DEADLINE, "a heartbeat", || app.calls("hset") > 0).await;
    let refused = group(&app).destroy(Unfinished::Lose).await.unwrap_err();
    assert!(matches!(refused, StreamError::Alive { .. }), "{refused}");
    let _ = runtime.shutdown().await;
    group(&app).destroy(Unfinished::Lose).await.unwrap();
    let missing = group(&app).destroy(Unfinished::Lose).await.unwrap_err();
    assert!(matches!(missing, StreamError::GroupMissing { .. }), "{missing}");
    assert_eq!(app.server.length("orders"), 2, "the stream is the others' as well");
    let keys: Vec<String> = app.server.query(&["KEYS", "{orders}*"]);
    assert!(keys.is_empty(), "{keys:?}");
}

#[tokio::test]
async fn a_group_skips_entries_only_when_told_and_can_go_back() {
    let app = App::start().await;
    let work = Work::fine();
    group(&app).create(Start::Beginning).await.unwrap();
    app.publish(5).await;
    let refused = group(&app).move_to(Start::End, Unfinished::Keep).await.unwrap_err();
    assert!(refused.to_string().contains("undelivered entries"), "{refused}");
    group(&app).move_to(Start::After(ids(&app)[2]), Unfinished::Lose).await.unwrap();
    let runtime = app.runtime(&work).start().await.unwrap();
    work.wait_for(2).await;
    app.drained("work").await;
    group(&app).move_to(Start::Beginning, Unfinished::Keep).await.unwrap();
    app.client.publish(&order("wakes the reader")).await.unwrap();
    work.wait_for(8).await;
    app.drained("work").await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_stream_is_deleted_with_all_that_is_its_own_only_when_told() {
    let app = App::start().await;
    let work = Work::new(|_, _| async { Err(streamjobs::JobError::dead("no")) });
    let runtime = app.runtime(&work).start().await.unwrap();
    app.publish(2).await;
    app.drained("work").await;
    let _ = runtime.shutdown().await;
    let stream = app.client.stream("orders").unwrap();
    let refused = stream.delete(Unfinished::Keep).await.unwrap_err();
    assert!(refused.to_string().contains("2 dead letters"), "{refused}");
    app.client.publish(&order("kept")).await.unwrap();
    assert!(stream.delete(Unfinished::Lose).await.unwrap());
    assert!(!stream.delete(Unfinished::Lose).await.unwrap());
    let keys: Vec<String> = app.server.query(&["KEYS", "*"]);
    assert!(keys.is_empty(), "{keys:?}");
}

#[tokio::test]
async fn a_stream_that_was_deleted_begins_anew_with_the_next_start() {
    let app = App::start().await;
    let before = Work::fine();
    let runtime = app.runtime(&before).start().await.unwrap();
    app.publish(5).await;
    app.drained("work").await;
    let _ = runtime.shutdown().await;
    assert!(app.client.stream("orders").unwrap().delete(Unfinished::Lose).await.unwrap());
    app.publish(3).await;
    let after = Work::fine();
    let runtime = app.runtime(&after).start().await.unwrap();
    let twice = app.runtime(&after).start().await.unwrap();
    after.wait_for(3).await;
    app.drained("work").await;
    let info = group(&app).info().await.unwrap();
    assert_eq!((after.count(), info.trimmed_unread, info.backlog.entries), (3, 0, 0));
    let groups = app.client.stream("orders").unwrap().groups().await.unwrap();
    assert_eq!(groups.len(), 1, "a second start makes nothing a second time");
    let _ = (runtime.shutdown().await, twice.shutdown().await);
}

#[tokio::test]
async fn a_trim_by_length_or_age_keeps_what_a_group_needs_unless_told() {
    let app = App::start().await;
    pending_for(&app, "a", 500).await;
    let stream = app.client.stream("orders").unwrap();
    let kept = stream.trim(Cut::Length(10), Unfinished::Keep).await.unwrap();
    assert_eq!((kept.removed, kept.length), (0, 500));
    assert_eq!(kept.blocked_by.as_ref().map(|(group, _)| group.as_str()), Some("work"));
    let ids = ids(&app);
    group(&app).acknowledge(&ids[..300]).await.unwrap();
    let exact = stream.trim_exactly(Cut::Length(10), Unfinished::Keep).await.unwrap();
    assert_eq!((exact.removed, exact.length), (300, 200));
    assert_eq!(exact.blocked_by, Some(("work".to_owned(), ids[300])));
    let aged = stream.trim(Cut::Age(Duration::ZERO), Unfinished::Keep).await.unwrap();
    assert_eq!((aged.removed, aged.blocked_by.is_some()), (0, true));
    let young = stream.trim(Cut::Age(Duration::from_secs(600)), Unfinished::Lose).await.unwrap();
    assert_eq!((young.removed, young.blocked_by), (0, None), "nothing is that old");
    let before = stream.trim_exactly(Cut::Before(ids[350]), Unfinished::Lose).await.unwrap();
    assert_eq!((before.removed, before.length), (50, 150));
}

#[tokio::test]
async fn an_approximate_cut_of_a_small_stream_may_remove_nothing() {
    let app = App::start().await;
    app.publish(90).await;
    let stream = app.client.stream("orders").unwrap();
    let about = stream.trim(Cut::Length(50), Unfinished::Lose).await.unwrap();
    assert_eq!((about.removed, about.length, about.more), (0, 90, false));
    let exact = stream.trim_exactly(Cut::Length(50), Unfinished::Lose).await.unwrap();
    assert_eq!((exact.removed, exact.length), (40, 50));
    app.publish(250).await;
    let about = stream.trim(Cut::Length(50), Unfinished::Lose).await.unwrap();
    assert!(about.removed > 0 && (50..200).contains(&about.length), "{about:?}");
}

#[tokio::test]
async fn what_a_large_trim_leaves_it_says_and_the_next_call_takes() {
    let app = App::start().await;
    app.publish(2_500).await;
    let stream = app.client.stream("orders").unwrap();
    let (mut removed, mut calls, mut more) = (0, 0, true);
    while more {
        let trimmed = stream.trim_exactly(Cut::Length(100), Unfinished::Keep).await.unwrap();
        (removed, calls, more) = (removed + trimmed.removed, calls + 1, trimmed.more);
    }
    assert_eq!((removed, calls, app.server.length("orders")), (2_400, 3, 100));
}

#[tokio::test]
async fn a_cut_of_very_many_entries_is_made_in_steps_to_the_entry() {
    let app = App::start().await;
    // By the server itself: publishing so many takes longer than the cut.
    let publish = "for n = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'type', 't') end";
    app.server.command(&["EVAL", publish, "1", "orders", "150050"]);
    let stream = app.client.stream("orders").unwrap();
    let stays = stream.newest(7).await.unwrap().pop().unwrap().id();
    let (mut removed, mut calls, mut more) = (0, 0, true);
    while more {
        let cut = stream.trim_exactly(Cut::Before(stays), Unfinished::Keep).await.unwrap();
        (removed, calls, more) = (removed + cut.removed, calls + 1, cut.more);
    }
    assert_eq!((removed, calls, app.server.length("orders")), (150_043, 2, 7));
}

#[tokio::test]
async fn a_claim_request_reaches_a_process_with_a_long_lease() {
    let app = App::start().await;
    let work = Work::fine();
    let lease = Duration::from_secs(600);
    let runtime = app.bare(&work).group("work", options().lease(lease)).start().await.unwrap();
    app.publish(1).await;
    work.wait_for(1).await;
    app.server.command(&["XGROUP", "CREATECONSUMER", "orders", "work", "dead"]);
    let id = app.client.publish(&orders(1)[0]).await.unwrap().entry_id.to_string();
    work.wait_for(2).await;
    app.drained("work").await;
    let words = ["XCLAIM", "orders", "work", "dead", "0", &id, "FORCE", "IDLE", "700000"];
    app.server.command(&words);
    group(&app).reap_now().await.unwrap();
    work.wait_for(3).await;
    app.drained("work").await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn retention_by_age_leaves_what_is_young() {
    let server = RedisServer::start().unwrap();
    let client = Client::builder(&server.url())
        .retention("orders", Retention::MaxAge(Duration::from_secs(3_600)))
        .connect()
        .await
        .unwrap();
    let app = App { server, client };
    let (old, young) = (id_of(7_200), id_of(60));
    app.server.command(&["XADD", "orders", &old, "type", "order.placed", "data", "{}"]);
    app.server.command(&["XADD", "orders", &young, "type", "order.placed", "data", "{}"]);
    let stream = app.client.stream("orders").unwrap();
    let cut = Cut::Age(Duration::from_secs(3_600));
    let trimmed = stream.trim_exactly(cut, Unfinished::Keep).await.unwrap();
    assert_eq!((trimmed.removed, trimmed.length), (1, 1));
    assert_eq!(app.server.entries("orders")[0].id, young);
}
