use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::stream::PendingQuery;
use streamjobs_tests::server::PendingRow;
use tokio::time::Instant;

use crate::app::{App, DEADLINE, Gate, Work, options, order, until};

#[tokio::test]
async fn shutdown_waits_for_running_jobs_and_leaves_nothing() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.runtime(&gated).start().await.unwrap();
    app.publish(5).await;
    gated.wait_for(5).await;
    // A reader that does not wait needs no unblocking, and the shutdown would not show.
    let waits = || app.server.info("blocked_clients").as_deref() == Some("1");
    until(DEADLINE, "a read that waits", waits).await;
    let opener = async {
        // The reader has stopped when its consumer has no open request any more.
        until(DEADLINE, "draining", || app.calls("client|unblock") > 0).await;
        gate.open();
    };
    let (report, ()) = tokio::join!(runtime.shutdown(), opener);
    assert_eq!((report.finished, report.released, report.abandoned.len()), (5, 0, 0));
    assert_eq!((app.pending("work"), gated.count()), (0, 5));
    let consumers: Vec<redis::Value> =
        redis::from_redis_value(app.server.command(&["XINFO", "CONSUMERS", "orders", "work"]))
            .unwrap();
    assert!(consumers.is_empty(), "a consumer with nothing pending goes with its process");
}

#[tokio::test]
async fn a_clean_stop_hands_back_uncounted_and_others_have_it_within_a_second() {
    let app = App::start().await;
    let gate = Gate::default();
    let stuck = Work::gated(&gate);
    // A lease far longer than the test: nothing here may wait for it.
    let long = options().lease(Duration::from_secs(3600)).concurrency(NonZeroU32::new(10).unwrap());
    let leaving =
        app.bare(&stuck).group("work", long).grace(Duration::from_millis(1)).start().await.unwrap();
    app.publish(10).await;
    stuck.wait_for(10).await;
    let fresh = Work::fine();
    let staying = app.bare(&fresh).group("work", long).start().await.unwrap();
    let report = leaving.shutdown().await;
    assert_eq!((report.released, report.abandoned.len()), (10, 0), "{report:?}");
    let stopped = Instant::now();
    app.drained("work").await;
    assert!(stopped.elapsed() < Duration::from_secs(1), "took {:?}", stopped.elapsed());
    assert!(fresh.runs().iter().all(|run| run.attempt == 1 && run.delivery_count == 1));
    let _ = staying.shutdown().await;
}

#[tokio::test]
async fn jobs_cut_off_by_the_end_of_grace_are_released_and_reported() {
    let app = App::start().await;
    let endless = Work::new(|_, _| async {
        std::future::pending::<()>().await;
        Ok(())
    });
    let runtime = app.runtime(&endless).grace(Duration::from_millis(50)).start().await.unwrap();
    app.publish(3).await;
    endless.wait_for(3).await;
    let report = runtime.shutdown().await;
    assert_eq!((report.finished, report.released, report.abandoned.len()), (0, 3, 0));
    let pending = app.server.pending("orders", "work");
    let released = |row: &PendingRow| row.deliveries == 0 && row.consumer == "streamjobs-released";
    assert!(pending.iter().all(released), "{pending:?}");
    let group = app.client.stream("orders").unwrap().group("work").unwrap();
    let info = group.info().await.unwrap();
    assert_eq!((info.pending, info.released, info.oldest_pending), (0, 3, None));
    assert!(group.consumers().await.unwrap().is_empty(), "no ended process is shown as alive");
    let shown = group.pending(PendingQuery::new()).await.unwrap().entries;
    assert!(shown.len() == 3 && shown.iter().all(|entry| entry.consumer.is_empty()), "{shown:?}");
    let fresh = Work::fine();
    let next = app.runtime(&fresh).start().await.unwrap();
    let started = Instant::now();
    app.drained("work").await;
    assert!(started.elapsed() < Duration::from_secs(1), "took {:?}", started.elapsed());
    assert!(fresh.runs().iter().all(|run| run.attempt == 1 && run.delivery_count == 1));
    let _ = next.shutdown().await;
}

/// Without room, it cannot be stored that the job began. It is released all the same.
#[tokio::test]
async fn a_job_that_can_expire_is_released_by_a_server_without_room() {
    let app = App::start().await;
    let gate = Gate::default();
    let stuck = Work::gated(&gate);
    let expiring = options().expires(Duration::from_secs(3600));
    let builder = app.bare(&stuck).group("work", expiring).grace(Duration::from_millis(50));
    let runtime = builder.start().await.unwrap();
    app.publish(1).await;
    stuck.wait_for(1).await;
    app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let report = runtime.shutdown().await;
    assert_eq!((report.released, report.abandoned.len()), (1, 0), "{report:?}");
    let pending = app.server.pending("orders", "work");
    let released = |row: &PendingRow| row.deliveries == 0 && row.consumer == "streamjobs-released";
    assert!(pending.len() == 1 && pending.iter().all(released), "{pending:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_blocks_its_thread_is_reported_as_abandoned() {
    let app = App::start().await;
    let (release, blocked) = std::sync::mpsc::sync_channel::<()>(0);
    let blocked = std::sync::Arc::new(std::sync::Mutex::new(blocked));
    let deaf = Work::new(move |_, _| {
        let blocked = blocked.clone();
        async move {
            // It ends when the test drops the other end.
            let _released = blocked.lock().unwrap().recv();
            Ok(())
        }
    });
    let grace = Duration::from_millis(20);
    let runtime = app.runtime(&deaf).grace(grace).start().await.unwrap();
    let entry_id = app.client.publish(&order(1)).await.unwrap().entry_id;
    deaf.wait_for(1).await;
    // What docs/guarantees.md says of a handler that never yields.
    let documented = grace + Duration::from_secs(16);
    let report = tokio::time::timeout(documented, runtime.shutdown()).await.unwrap();
    assert_eq!((report.finished, report.released), (0, 0));
    let left = report.abandoned.iter().map(|job| (job.stream.as_str(), job.entry_id));
    assert_eq!(left.collect::<Vec<_>>(), [("orders", entry_id)]);
    assert_eq!(app.pending("work"), 1, "it is not acknowledged");
    drop(release);
}

#[tokio::test]
async fn dropping_the_runtime_leaves_its_work_to_be_claimed() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.runtime(&gated).start().await.unwrap();
    app.publish(4).await;
    gated.wait_for(4).await;
    drop(runtime);
    let fresh = Work::fine();
    let next = app.runtime(&fresh).start().await.unwrap();
    app.drained("work").await;
    assert_eq!(fresh.distinct(), 4);
    let _ = next.shutdown().await;
}

#[tokio::test]
async fn starting_and_stopping_deletes_nothing() {
    let app = App::start().await;
    app.publish(30).await;
    app.server.command(&["XGROUP", "CREATE", "orders", "elsewhere", "0"]);
    app.server.command(&[
        "XREADGROUP",
        "GROUP",
        "elsewhere",
        "c",
        "COUNT",
        "7",
        "STREAMS",
        "orders",
        ">",
    ]);
    let fine = Work::fine();
    let runtime = app.runtime(&fine).start().await.unwrap();
    app.drained("work").await;
    let _ = runtime.shutdown().await;
    assert_eq!(app.server.length("orders"), 30);
    assert_eq!(app.server.pending("orders", "elsewhere").len(), 7);
    assert_eq!(app.server.pending("orders", "work").len(), 0);
}

#[tokio::test]
async fn shutdown_ends_even_when_the_server_is_gone() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.runtime(&gated).grace(Duration::from_millis(100)).start().await.unwrap();
    app.publish(2).await;
    gated.wait_for(2).await;
    app.server.kill();
    gate.open();
    let report = tokio::time::timeout(DEADLINE, runtime.shutdown()).await.unwrap();
    assert_eq!(report.abandoned.len(), 2, "the server never learnt that they are done");
}
