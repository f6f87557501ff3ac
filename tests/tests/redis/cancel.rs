//! Cancelled jobs on a real server: restarts, other processes, partitions, and what others write.

use std::time::Duration;

use streamjobs::dead_letter::Reason;
use streamjobs::stream::Cancellation;
use streamjobs::{CancelReason, Client, EventId, JobError, Runtime, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::sync::mpsc;

use crate::app::{App, DEADLINE, Gate, Work, options, order, orders, quick, settled, until};

fn id(number: usize) -> EventId {
    EventId::new(format!("e-{number}")).unwrap()
}

async fn publish(app: &App, count: usize) {
    let events = orders(count);
    let items = events.iter().enumerate().map(|(number, event)| (id(number), event));
    for answer in app.client.publish_all_with_ids(items).await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn cancelled_jobs_never_run_although_all_processes_restart() {
    const COUNT: usize = 300;
    let app = App::start().await;
    let gate = Gate::default();
    let held = Work::gated(&gate);
    let first = app.runtime(&held).start().await.unwrap();
    publish(&app, COUNT).await;
    until(DEADLINE, "some run", || held.count() > 0).await;
    let stream = app.client.stream("orders").unwrap();
    for number in (200..COUNT).step_by(2) {
        assert_eq!(stream.cancel(&id(number)).await.unwrap(), Cancellation::Marked);
    }
    drop(first);
    let work = Work::fine();
    let two =
        [app.runtime(&work).start().await.unwrap(), app.runtime(&work).start().await.unwrap()];
    app.drained("work").await;
    let letters = app.client.dead_letters("orders", "work").unwrap();
    let letters = letters.list(None, 1_000).await.unwrap().letters;
    assert!(letters.iter().all(|letter| letter.reason == Reason::Cancelled), "{letters:?}");
    let mut cancelled =
        letters.iter().map(|letter| letter.event_id.clone().unwrap()).collect::<Vec<_>>();
    cancelled.sort_by_key(|id| id.as_str().to_owned());
    let expected = (200..COUNT).step_by(2).map(id).collect::<Vec<_>>();
    assert_eq!(cancelled, expected);
    assert!(!work.runs().iter().any(|run| expected.iter().any(|id| id.as_str() == run.event_id)));
    for runtime in two {
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_job_that_runs_in_another_process_is_stopped_in_every_partition() {
    let app = App::start().await;
    let client = Client::builder(&app.server.url()).partitions("orders", 4).connect().await;
    let client = client.unwrap();
    let (said, mut reasons) = mpsc::channel(8);
    let work = Work::new(move |order, job| {
        let said = said.clone();
        async move {
            if order.id != "fine" {
                job.cancelled().cancelled().await;
                said.send((order.id, job.cancel_reason())).await.unwrap();
                return Err(JobError::retry("stopped"));
            }
            Ok(())
        }
    });
    let builder = Runtime::builder(&client).handlers(handlers![crate::app::work]);
    let runtime = quick(builder.state(work.clone()).group("work", options()));
    let runtime = runtime.start().await.unwrap();
    for number in 0..8 {
        client.publish_with_id(&order(number), id(number)).await.unwrap();
    }
    work.wait_for(8).await;
    let operator = Client::builder(&app.server.url()).partitions("orders", 4).connect().await;
    let stream = operator.unwrap().stream("orders").unwrap();
    for number in 0..8 {
        stream.cancel(&id(number)).await.unwrap();
    }
    assert_eq!(stream.cancelled(0, 100).await.unwrap().len(), 8, "each is listed once");
    for _ in 0..8 {
        let (_, reason) = tokio::time::timeout(DEADLINE, reasons.recv()).await.unwrap().unwrap();
        assert_eq!(reason, Some(CancelReason::Requested));
    }
    settled(&runtime).await;
    assert_eq!((runtime.counters().dead_lettered, runtime.counters().retried), (8, 0));
    let _ = runtime.shutdown().await;
    assert_eq!(work.count(), 8);
}

#[tokio::test]
async fn old_marks_are_removed_and_there_are_at_most_a_hundred_thousand() {
    let app = App::start().await;
    let stream = app.client.stream("orders").unwrap();
    let key = "{orders}:cancelled";
    app.server.command(&["ZADD", key, "1000", "long ago"]);
    let fill = "local now = redis.call('TIME')[1] * 1000 - 1000000 \
                for i = 1, 100010 do redis.call('ZADD', KEYS[1], now + i, 'm-' .. i) end";
    app.server.command(&["EVAL", fill, "1", key]);
    stream.cancel(&id(1)).await.unwrap();
    assert_eq!(app.server.query::<usize>(&["ZCARD", key]), 100_000);
    let gone = |member: &str| app.server.command(&["ZSCORE", key, member]) == redis::Value::Nil;
    assert!(gone("long ago") && gone("m-11") && !gone("m-12") && !gone("e-1"));
    let work = Work::fine();
    let runtime = app.runtime(&work).start().await.unwrap();
    app.client.publish_with_id(&order(0), EventId::new("m-11").unwrap()).await.unwrap();
    app.client.publish_with_id(&order(1), EventId::new("m-12").unwrap()).await.unwrap();
    app.drained("work").await;
    let ran = work.runs().into_iter().map(|run| run.event_id).collect::<Vec<_>>();
    assert_eq!(ran, ["m-11"], "all pages of marks were read before the first job");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_mark_counts_again_after_the_server_lost_all_and_its_clock_is_behind() {
    let app = App::start().await;
    let stream = app.client.stream("orders").unwrap();
    let ahead = "redis.call('ZADD', KEYS[1], redis.call('TIME')[1] * 1000 + 3600000, 'another')";
    app.server.command(&["EVAL", ahead, "1", "{orders}:cancelled"]);
    let work = Work::fine();
    let runtime = app.runtime(&work).start().await.unwrap();
    app.server.command(&["DEL", "{orders}:cancelled"]);
    // What another client has set to no time hides nothing.
    app.server.command(&["ZADD", "{orders}:cancelled", "inf", "theirs"]);
    stream.cancel(&id(1)).await.unwrap();
    let settled =
        async || {
            let group = stream.group("work").unwrap();
            publish(&app, 1).await;
            app.client.publish_with_id(&order(1), id(1)).await.unwrap();
            app.drained("work").await;
            let letters = app.client.dead_letters("orders", "work").unwrap();
            let known =
                letters.list(None, 10).await.unwrap().letters.iter().any(|letter| {
                    letter.reason == Reason::Cancelled && letter.event_id == Some(id(1))
                });
            assert_eq!(group.info().await.unwrap().backlog.entries, 0);
            known
        };
    eventually_async(DEADLINE, "the processes know the new mark", settled).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_key_of_another_type_stops_no_job_and_is_named_when_something_is_cancelled() {
    let app = App::start().await;
    app.server.command(&["SET", "{orders}:cancelled", "theirs"]);
    let work = Work::fine();
    let runtime = app.runtime(&work).start().await.unwrap();
    publish(&app, 20).await;
    work.wait_for(20).await;
    let error = app.client.stream("orders").unwrap().cancel(&id(1)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("cannot cancel an event of stream orders: "), "{text}");
    assert!(text.contains("WRONGTYPE"), "{text}");
    assert!(!error.is_unconfirmed());
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_job_that_waits_for_its_retry_ends_when_that_is_due() {
    let app = App::start().await;
    let work =
        Work::new(|_, _| async { Err(JobError::retry_after(Duration::from_secs(2), "not yet")) });
    let runtime = app.runtime(&work).start().await.unwrap();
    publish(&app, 1).await;
    let waits = || app.server.query::<usize>(&["ZCARD", "{orders}:retry:work"]) == 1;
    until(DEADLINE, "it waits", waits).await;
    app.client.stream("orders").unwrap().group("work").unwrap().cancel(&id(0)).await.unwrap();
    let dead = || app.server.length("{orders}:dead:work") == 1;
    until(DEADLINE, "it ends", dead).await;
    let _ = runtime.shutdown().await;
    assert_eq!(work.count(), 1);
}
