//! Consumers that come and go while the runtime works.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use streamjobs::error::ControlError;
use streamjobs::{ConsumerName, Runtime};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::{ClientRow, RedisServer};
use tokio::sync::Semaphore;
use tokio::time::{Instant, interval};

use crate::app::{App, DEADLINE, Gate, Work, options, order, settled, until};

/// The names that the server has for the group.
fn names(app: &App) -> BTreeSet<String> {
    let rows: Vec<HashMap<String, redis::Value>> =
        app.server.query(&["XINFO", "CONSUMERS", "orders", "work"]);
    let name = |row: &HashMap<String, redis::Value>| redis::from_redis_value(row["name"].clone());
    rows.iter().map(|row| name(row).unwrap()).collect()
}

/// The names that the runtime has.
fn live(runtime: &Runtime) -> BTreeSet<String> {
    runtime.consumers().iter().map(|consumer| consumer.name.to_string()).collect()
}

fn many(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

/// Waits until only the runtime's own consumers have a name on the server.
async fn only_the_living(app: &App, runtime: &Runtime) {
    until(DEADLINE, "only live names", || names(app).is_subset(&live(runtime))).await;
}

/// Is stuck the first time it gets an order, and succeeds from then on.
fn stuck_at_first() -> Work {
    let seen = Arc::new(Mutex::new(HashSet::new()));
    Work::new(move |order, _| {
        let first = seen.lock().unwrap().insert(order.id);
        async move { if first { std::future::pending().await } else { Ok(()) } }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_consumers_come_and_go_under_load_and_nothing_is_lost() {
    let app = App::start().await;
    let brief = Work::new(|_, _| async {
        let mut pace = interval(Duration::from_millis(5));
        pace.tick().await;
        pace.tick().await;
        Ok(())
    });
    let runtime = app.runtime(&brief).start().await.unwrap();
    let (over, client) = (Arc::new(AtomicUsize::new(0)), app.client.clone());
    let cycles = async {
        for _ in 0..100 {
            let name = runtime.add_consumer("work").await.unwrap();
            let works = || brief.runs().iter().any(|run| run.consumer == name.as_str());
            until(DEADLINE, "it takes part", works).await;
            let report = runtime.remove_consumer(&name).await.unwrap();
            assert!(report.abandoned.is_empty(), "{report:?}");
        }
        over.store(1, Ordering::SeqCst);
    };
    let load = async {
        let (mut published, mut pace) = (0, interval(Duration::from_millis(10)));
        while over.load(Ordering::SeqCst) == 0 {
            pace.tick().await;
            for _ in 0..2 {
                client.publish(&order(published)).await.unwrap();
                published += 1;
            }
        }
        published
    };
    let began = Instant::now();
    let ((), published) = tokio::join!(cycles, load);
    let rate = f64::from(published) / began.elapsed().as_secs_f64();
    assert!(rate >= 33.0, "{rate} events a second are no load");
    app.drained("work").await;
    settled(&runtime).await;
    let published = usize::try_from(published).unwrap();
    assert_eq!((brief.distinct(), brief.count()), (published, published), "lost, or run twice");
    assert!(brief.runs().iter().all(|run| run.attempt == 1 && run.delivery_count == 1));
    let used = brief.runs().iter().map(|run| run.consumer.clone()).collect::<HashSet<_>>();
    assert!(used.len() > 100, "{} consumers had work", used.len());
    assert_eq!(app.pending("work"), 0);
    only_the_living(&app, &runtime).await;
    let counters = runtime.counters();
    assert_eq!(counters.claimed, counters.released, "only what was never started moves on");
    assert_eq!((counters.leases_lost, counters.delivered_again, counters.dead_lettered), (0, 0, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn what_a_removed_consumer_hands_back_is_elsewhere_within_a_second_uncounted() {
    let app = App::start().await;
    let stuck = stuck_at_first();
    // A lease far longer than the test: nothing here may wait for it.
    let long = options().lease(Duration::from_secs(3600)).concurrency(many(5));
    let builder = app.bare(&stuck).group("work", long).grace(Duration::from_millis(50));
    let runtime = builder.start().await.unwrap();
    let leaving = runtime.consumer().clone();
    app.publish(5).await;
    stuck.wait_for(5).await;
    let staying = runtime.add_consumer("work").await.unwrap();
    let report = runtime.remove_consumer(&leaving).await.unwrap();
    assert_eq!((report.finished, report.released, report.abandoned.len()), (0, 5, 0));
    let removed = Instant::now();
    app.drained("work").await;
    assert!(removed.elapsed() < Duration::from_secs(1), "took {:?}", removed.elapsed());
    let again = stuck.runs().split_off(5);
    assert!(again.iter().all(|run| run.consumer == staying.as_str()));
    assert!(again.iter().all(|run| run.attempt == 1 && run.delivery_count == 1), "{again:?}");
    only_the_living(&app, &runtime).await;
    assert_eq!(live(&runtime), BTreeSet::from([staying.to_string()]));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn running_handlers_of_a_removed_consumer_finish_within_the_grace() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.runtime(&gated).start().await.unwrap();
    app.publish(3).await;
    gated.wait_for(3).await;
    let name = runtime.consumer().clone();
    let opener = async {
        until(DEADLINE, "leaving", || runtime.consumers()[0].leaving).await;
        assert!(runtime.health().queues.is_empty(), "what leaves is not expected to read");
        gate.open();
    };
    // Asked for twice, it is one removal.
    let (one, two, ()) =
        tokio::join!(runtime.remove_consumer(&name), runtime.remove_consumer(&name), opener);
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.finished, one.released, one.abandoned.len()), (3, 0, 0));
    assert_eq!(one, two);
    assert_eq!((app.pending("work"), names(&app).len()), (0, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn the_last_consumer_can_go_and_the_next_one_makes_its_group_again() {
    let app = App::start().await;
    let fine = Work::fine();
    let runtime = app.runtime(&fine).start().await.unwrap();
    app.publish(1).await;
    app.drained("work").await;
    // No peer is needed.
    let _ = runtime.remove_consumer(&runtime.consumer().clone()).await.unwrap();
    assert!(runtime.consumers().is_empty() && names(&app).is_empty());
    app.publish(4).await;
    assert_eq!(app.undelivered("work"), 4, "the work waits");
    app.server.command(&["XGROUP", "DESTROY", "orders", "work"]);
    let name = runtime.add_consumer("work").await.unwrap();
    until(DEADLINE, "all done", || fine.count() >= 5).await;
    app.drained("work").await;
    assert_eq!(live(&runtime), BTreeSet::from([name.to_string()]));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn concurrent_additions_share_connections_and_no_name_and_leave_none_behind() {
    let app = App::start().await;
    let fine = Work::fine();
    let runtime = app.runtime(&fine).start().await.unwrap();
    app.publish(1).await;
    app.drained("work").await;
    let before = app.connections();
    let added = join_all((0..8).map(|_| runtime.add_consumer("work"))).await;
    let added = added.into_iter().map(Result::unwrap).collect::<BTreeSet<ConsumerName>>();
    assert_eq!((added.len(), runtime.consumers().len()), (8, 9));
    assert!(runtime.health().is_healthy(), "a consumer that begins to read is not a sick one");
    // One for reading and one that says what changes, instead of nine.
    until(DEADLINE, "connections are shared", || app.connections() == before + 1).await;
    app.publish(50).await;
    app.drained("work").await;
    let removed = join_all(added.iter().map(|name| runtime.remove_consumer(name))).await;
    assert!(removed.into_iter().all(|report| report.unwrap().abandoned.is_empty()));
    until(DEADLINE, "all closed", || app.connections() == before).await;
    only_the_living(&app, &runtime).await;
    assert_eq!(fine.count(), 51);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn unknown_groups_and_names_are_refused_and_change_nothing() {
    let app = App::start().await;
    let fine = Work::fine();
    let runtime = app.runtime(&fine).start().await.unwrap();
    let error = runtime.add_consumer("ghost").await.unwrap_err();
    assert!(matches!(&error, ControlError::UnknownGroup { group } if group == "ghost"));
    let stranger = ConsumerName::new("stranger").unwrap();
    let error = runtime.remove_consumer(&stranger).await.unwrap_err();
    assert_eq!(error.to_string(), "this runtime has no consumer stranger");
    assert!(runtime.set_concurrency("ghost", many(1)).is_err());
    assert!(runtime.pause("ghost").is_err() && runtime.resume("ghost").is_err());
    assert!(runtime.reap_now("ghost").is_err());
    assert_eq!(runtime.consumers().len(), 1);
    let control = runtime.control();
    let _ = runtime.shutdown().await;
    let error = control.add_consumer("work").await.unwrap_err();
    assert!(matches!(error, ControlError::ShutDown));
    assert!(matches!(control.pause("work"), Err(ControlError::ShutDown)));
}

#[tokio::test]
async fn a_failed_addition_leaves_nothing_behind() {
    let app = App::on(RedisServer::builder().append_only(true).start().unwrap()).await;
    let fine = Work::fine();
    let runtime = app.runtime(&fine).start().await.unwrap();
    let waits = |row: &ClientRow| row.flags.contains('b');
    until(DEADLINE, "a reader waits", || app.server.client_list().iter().any(waits)).await;
    let before = app.connections();
    app.server.kill();
    let failed = tokio::time::timeout(DEADLINE, runtime.add_consumer("work")).await.unwrap();
    assert!(matches!(failed, Err(ControlError::Group { .. })), "{failed:?}");
    assert_eq!(runtime.consumers().len(), 1);
    app.server.restart().unwrap();
    // The client's own connection is one that broke.
    let back = async || app.client.publish(&order(1)).await.is_ok();
    eventually_async(DEADLINE, "published", back).await;
    app.drained("work").await;
    until(DEADLINE, "as before", || app.connections() == before).await;
    only_the_living(&app, &runtime).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_removal_without_the_server_says_what_it_had_to_leave_and_nothing_is_lost() {
    // With its usual setting, a killed server may lack what it has acknowledged a second before.
    let server = RedisServer::builder().append_only(true).config("appendfsync", "always");
    let app = App::on(server.start().unwrap()).await;
    let stuck = stuck_at_first();
    // A lease far longer than the test: what the handlers have is theirs until they give it up.
    let long = options().lease(Duration::from_secs(3600));
    let builder = app.bare(&stuck).group("work", long).grace(Duration::from_millis(50));
    let runtime = builder.start().await.unwrap();
    let leaving = runtime.consumer().clone();
    app.publish(3).await;
    stuck.wait_for(3).await;
    let staying = runtime.add_consumer("work").await.unwrap();
    app.server.kill();
    let removal = tokio::time::timeout(DEADLINE, runtime.remove_consumer(&leaving)).await.unwrap();
    let report = removal.unwrap();
    assert_eq!((report.released, report.abandoned.len()), (0, 3), "{report:?}");
    assert_eq!(live(&runtime), BTreeSet::from([staying.to_string()]));
    app.server.restart().unwrap();
    for row in app.server.pending("orders", "work") {
        assert_eq!((row.consumer.as_str(), row.deliveries), (leaving.as_str(), 1));
        app.server.age("orders", "work", &row.id, Duration::from_secs(7200));
    }
    // A scan on the broken connection has no result.
    let reaped = || runtime.reap_now("work").is_ok() && stuck.count() == 6;
    until(DEADLINE, "done by the other", reaped).await;
    app.drained("work").await;
    only_the_living(&app, &runtime).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn shutdown_stops_all_consumers_at_once_and_reports_them_together() {
    let app = App::start().await;
    let stuck = Work::new(|_, _| std::future::pending());
    let options = options().concurrency(many(2));
    let grace = Duration::from_millis(300);
    let builder = app.bare(&stuck).group("work", options).grace(grace);
    let runtime = builder.start().await.unwrap();
    for _ in 0..3 {
        runtime.add_consumer("work").await.unwrap();
    }
    app.publish(8).await;
    stuck.wait_for(8).await;
    let consumers = runtime.consumers();
    assert!(consumers.iter().all(|one| (one.concurrency, one.in_flight) == (2, 2)));
    let report = runtime.shutdown().await;
    assert_eq!((report.finished, report.released, report.abandoned.len()), (0, 8, 0));
    assert!(report.took < grace * 4, "one after the other: {:?}", report.took);
    let pending = app.server.pending("orders", "work");
    assert!(pending.iter().all(|row| row.deliveries == 0), "{pending:?}");
}

/// Handlers that end one by one, and how many of them there were at once.
#[derive(Clone)]
struct Meter {
    tickets: Arc<Semaphore>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Meter {
    fn work() -> (Self, Work) {
        let tickets = Arc::new(Semaphore::new(0));
        let meter = Self { tickets, running: Arc::default(), most: Arc::default() };
        let inner = meter.clone();
        let work = Work::new(move |_, _| {
            let meter = inner.clone();
            async move {
                let running = meter.running.fetch_add(1, Ordering::SeqCst) + 1;
                meter.most.fetch_max(running, Ordering::SeqCst);
                meter.tickets.acquire().await.unwrap().forget();
                meter.running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        });
        (meter, work)
    }

    async fn until_running(&self, count: usize) {
        let running = || self.running.load(Ordering::SeqCst) == count;
        until(DEADLINE, &format!("{count} running"), running).await;
    }
}

#[tokio::test]
async fn concurrency_rises_at_once_and_falls_without_cutting_anything() {
    let app = App::start().await;
    let (meter, work) = Meter::work();
    let builder = app.bare(&work).group("work", options().concurrency(many(2)));
    let runtime = builder.start().await.unwrap();
    app.publish(40).await;
    meter.until_running(2).await;
    runtime.set_concurrency("work", many(6)).unwrap();
    meter.until_running(6).await;
    runtime.set_concurrency("work", many(3)).unwrap();
    assert_eq!(runtime.consumers()[0].concurrency, 3);
    meter.tickets.add_permits(3);
    meter.until_running(3).await;
    settled_at(&app, 3).await;
    assert_eq!(work.count(), 6, "three slots have gone, so three ends are no room");
    meter.most.store(0, Ordering::SeqCst);
    meter.tickets.add_permits(100);
    app.drained("work").await;
    assert!(meter.most.load(Ordering::SeqCst) <= 3);
    assert_eq!((work.count(), work.distinct(), runtime.counters().leases_lost), (40, 40, 0));
    // What is added later has the new bound, too.
    runtime.add_consumer("work").await.unwrap();
    assert!(runtime.consumers().iter().all(|consumer| consumer.concurrency == 3));
    let _ = runtime.shutdown().await;
}

/// Waits until the server knows that all but so many have ended.
async fn settled_at(app: &App, pending: usize) {
    until(DEADLINE, "acknowledged", || app.pending("work") == pending).await;
}

#[tokio::test]
async fn concurrency_can_change_all_the_time_under_load() {
    let app = App::start().await;
    let brief = Work::new(|_, _| async {
        tokio::task::yield_now().await;
        Ok(())
    });
    let runtime = app.runtime(&brief).start().await.unwrap();
    let changes = async {
        for round in 0..200_u32 {
            runtime.set_concurrency("work", many(1 + round * 13 % 40)).unwrap();
            app.client.publish(&order(10_000 + round)).await.unwrap();
        }
    };
    tokio::join!(changes, app.publish(2_000));
    app.drained("work").await;
    assert_eq!((brief.count(), brief.distinct()), (2_200, 2_200));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn reaping_now_finds_idle_work_without_waiting_for_the_interval() {
    let app = App::start().await;
    let stuck = stuck_at_first();
    let long = options().lease(Duration::from_secs(3600));
    let dying = app.bare(&stuck).group("work", long).start().await.unwrap();
    app.publish(2).await;
    stuck.wait_for(2).await;
    drop(dying);
    for row in app.server.pending("orders", "work") {
        app.server.age("orders", "work", &row.id, Duration::from_secs(7200));
    }
    let runtime = app.bare(&stuck).group("work", long).start().await.unwrap();
    runtime.reap_now("work").unwrap();
    app.drained("work").await;
    assert_eq!((stuck.count(), runtime.counters().claimed), (4, 2));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_consumer_can_have_a_name_of_its_own_and_be_the_one_that_claims() {
    let app = App::start().await;
    let work = Work::fine();
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0", "MKSTREAM"]);
    let published = app.client.publish(&order(1)).await.unwrap();
    app.server.command(&["XREADGROUP", "GROUP", "work", "ghost", "STREAMS", "orders", ">"]);
    let patient = options().lease(Duration::from_secs(60));
    let runtime = app.runtime(&work).group("work", patient).start().await.unwrap();
    let control = runtime.control();
    let name = control.add_consumer_named("work", "packer").await.unwrap();
    assert!(name.as_str().starts_with("packer-"), "{name}");
    app.server.age("orders", "work", &published.entry_id.to_string(), Duration::from_secs(100));
    control.reap_now_by(&name).unwrap();
    work.wait_for(1).await;
    assert_eq!(work.runs()[0].consumer, name.as_str());
    let unknown = ConsumerName::new("nobody").unwrap();
    let refused = control.reap_now_by(&unknown);
    assert!(matches!(refused, Err(ControlError::UnknownConsumer { .. })));
    let refused = control.add_consumer_named("work", "a{b").await;
    assert!(refused.is_err(), "that is no name");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn consumers_tell_what_they_have_done_with_every_beat() {
    let app = App::start().await;
    let work = Work::new(|order, job| async move {
        if order.id == crate::app::order(2).id && job.attempt() == 1 {
            Err("not yet".into())
        } else {
            Ok(())
        }
    });
    let runtime = app.runtime(&work).start().await.unwrap();
    for id in [1, 2, 3] {
        app.client.publish(&order(id)).await.unwrap();
    }
    work.wait_for(4).await;
    let group = app.client.stream("orders").unwrap().group("work").unwrap();
    let told = async || {
        let consumers = group.consumers().await.unwrap();
        consumers
            .iter()
            .any(|one| (one.done, one.failed, one.claimed) == (Some(3), Some(1), Some(0)))
    };
    eventually_async(DEADLINE, "they have told", told).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_job_that_is_scheduled_for_retry_is_seen_and_can_run_at_once() {
    let app = App::start().await;
    let work = Work::new(|_, job| async move {
        if job.attempt() == 1 { Err("try later".into()) } else { Ok(()) }
    });
    let slow = options().backoff(streamjobs::Backoff::fixed(Duration::from_secs(3_600)));
    let runtime = app.runtime(&work).group("work", slow).start().await.unwrap();
    let published = app.client.publish(&order(7)).await.unwrap();
    let group = app.client.stream("orders").unwrap().group("work").unwrap();
    let there = async || group.retries(None, 10).await.unwrap().jobs.len() == 1;
    eventually_async(DEADLINE, "waiting for retry", there).await;
    let page = group.retries(None, 10).await.unwrap();
    let job = &page.jobs[0];
    assert_eq!(job.event_id.as_deref(), Some(published.event_id.as_str()));
    assert_eq!((job.attempts, job.error.as_deref()), (1, Some("try later")));
    assert_eq!((job.origin, page.next.as_ref()), (Some(published.entry_id), None));
    assert!(job.due_in > Duration::from_secs(3_000), "{job:?}");
    assert_eq!(group.run_now(std::slice::from_ref(&job.id)).await.unwrap(), 1);
    work.wait_for(2).await;
    assert_eq!(work.runs()[1].attempt, 2, "its failure stays counted");
    assert!(group.retries(None, 10).await.unwrap().jobs.is_empty());
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn the_newest_dead_letters_come_first_and_page_by_page() {
    let app = App::start().await;
    let work = Work::new(|order, _| async move {
        Err(streamjobs::JobError::dead(format!("order {} is wrong", order.id)))
    });
    let runtime = app.runtime(&work).start().await.unwrap();
    for id in 1..=5 {
        app.client.publish(&order(id)).await.unwrap();
    }
    until(DEADLINE, "dead-lettered", || app.server.length("{orders}:dead:work") == 5).await;
    let letters = app.client.dead_letters("orders", "work").unwrap();
    let oldest_first = letters.list(None, 10).await.unwrap().letters;
    let mut newest_first = letters.newest(None, 2).await.unwrap();
    let mut seen = newest_first.letters.clone();
    while let Some(before) = newest_first.next {
        newest_first = letters.newest(Some(before), 2).await.unwrap();
        seen.extend(newest_first.letters.clone());
    }
    seen.reverse();
    assert_eq!(seen, oldest_first);
    let kinds = seen.iter().map(streamjobs::dead_letter::DeadLetter::fingerprint);
    assert_eq!(kinds.collect::<BTreeSet<_>>().len(), 1, "one kind of failure");
    let _ = runtime.shutdown().await;
}
