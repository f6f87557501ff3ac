//! Groups that are paused, in one process and in all of them.

use std::time::Duration;

use streamjobs::__store::{self as store, Queue};
use streamjobs::{GroupName, Runtime, StreamName};

use crate::app::{App, DEADLINE, Gate, Work, options, settled, until};

/// Pauses the group in every process, or resumes it.
async fn set_paused(app: &App, paused: bool) {
    let (stream, group) = (StreamName::new("orders").unwrap(), GroupName::new("work").unwrap());
    let queue = Queue { stream, group };
    assert!(store::of(&app.client).set_paused(&queue, paused).await.unwrap());
}

async fn paused(runtime: &Runtime) {
    until(DEADLINE, "paused", || runtime.consumers().iter().all(|consumer| consumer.paused)).await;
    assert!(runtime.health().is_healthy() && runtime.health().queues[0].paused);
}

/// Waits until the loops have asked the server many times over.
async fn a_while(app: &App) {
    let before = app.calls("evalsha");
    until(DEADLINE, "the loops go on", || app.calls("evalsha") > before + 40).await;
}

/// Whether some reader waits on the server.
fn waits(app: &App) -> bool {
    app.server.client_list().iter().any(|client| client.flags.contains('b'))
}

#[tokio::test]
async fn a_pause_reaches_every_process_and_so_does_its_end() {
    let app = App::start().await;
    let (one, two) = (Work::fine(), Work::fine());
    let first = app.runtime(&one).start().await.unwrap();
    let second = app.runtime(&two).start().await.unwrap();
    app.publish(4).await;
    app.drained("work").await;
    set_paused(&app, true).await;
    paused(&first).await;
    paused(&second).await;
    until(DEADLINE, "no read waits", || !waits(&app)).await;
    let done = one.count() + two.count();
    app.publish(10).await;
    a_while(&app).await;
    assert_eq!((one.count() + two.count(), app.undelivered("work")), (done, 10));
    assert!(first.health().is_healthy() && second.health().is_healthy());
    set_paused(&app, false).await;
    app.drained("work").await;
    assert_eq!(one.count() + two.count(), done + 10);
    let _ = (first.shutdown().await, second.shutdown().await);
}

#[tokio::test]
async fn a_read_that_waits_is_ended_by_a_pause() {
    let app = App::start().await;
    let fine = Work::fine();
    let patient = options().lease(Duration::from_secs(3600));
    let builder = app.bare(&fine).group("work", patient).block(Duration::from_secs(60));
    let runtime = builder.start().await.unwrap();
    until(DEADLINE, "a read waits", || waits(&app)).await;
    assert!(runtime.pause("work").unwrap());
    assert!(!runtime.pause("work").unwrap(), "it is paused already");
    until(DEADLINE, "no read waits", || !waits(&app)).await;
    app.publish(1).await;
    a_while(&app).await;
    assert_eq!((fine.count(), app.undelivered("work")), (0, 1));
    assert!(runtime.resume("work").unwrap());
    app.drained("work").await;
    until(DEADLINE, "a read waits again", || waits(&app)).await;
    set_paused(&app, true).await;
    until(DEADLINE, "no read waits for all", || !waits(&app)).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn running_jobs_end_during_a_pause_and_are_acknowledged() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.runtime(&gated).start().await.unwrap();
    app.publish(3).await;
    gated.wait_for(3).await;
    set_paused(&app, true).await;
    paused(&runtime).await;
    // Many leases: what runs is renewed all the while.
    a_while(&app).await;
    gate.open();
    until(DEADLINE, "acknowledged", || app.pending("work") == 0).await;
    settled(&runtime).await;
    let counters = runtime.counters();
    assert_eq!((counters.acknowledged, counters.leases_lost, gated.count()), (3, 0, 3));
    paused(&runtime).await;
    let report = runtime.shutdown().await;
    assert!(report.abandoned.is_empty(), "a paused runtime stops like any other");
}

#[tokio::test]
async fn a_pause_here_leaves_the_work_to_other_processes() {
    let app = App::start().await;
    let (one, two) = (Work::fine(), Work::fine());
    let here = app.runtime(&one).start().await.unwrap();
    let elsewhere = app.runtime(&two).start().await.unwrap();
    here.pause("work").unwrap();
    // What is added during a pause begins with it.
    here.add_consumer("work").await.unwrap();
    assert!(here.consumers().iter().all(|consumer| consumer.paused));
    until(DEADLINE, "the other reads", || elsewhere.health().is_healthy()).await;
    until(DEADLINE, "one waits", || {
        app.server.client_list().iter().filter(|client| client.flags.contains('b')).count() == 1
    })
    .await;
    let before = one.count();
    app.publish(20).await;
    app.drained("work").await;
    assert_eq!((one.count() - before, two.count()), (0, 20));
    // Both pauses have to be over.
    set_paused(&app, true).await;
    paused(&elsewhere).await;
    a_while(&app).await;
    here.resume("work").unwrap();
    app.publish(5).await;
    a_while(&app).await;
    assert_eq!(one.count() + two.count(), 20);
    set_paused(&app, false).await;
    app.drained("work").await;
    let _ = (here.shutdown().await, elsewhere.shutdown().await);
}

#[tokio::test]
async fn jobs_waiting_for_retry_wait_for_the_end_of_a_pause() {
    let app = App::start().await;
    let gate = Gate::default();
    let failing = {
        let gate = gate.clone();
        Work::new(move |_, job| {
            let gate = gate.clone();
            async move {
                gate.passed().await;
                if job.attempt() == 1 { Err("once more".into()) } else { Ok(()) }
            }
        })
    };
    let runtime = app.runtime(&failing).start().await.unwrap();
    app.publish(2).await;
    failing.wait_for(2).await;
    runtime.pause("work").unwrap();
    set_paused(&app, true).await;
    paused(&runtime).await;
    gate.open();
    let aside = || app.number(&["ZCARD", "{orders}:retry:work"]);
    until(DEADLINE, "waiting for retry", || aside() == 2).await;
    a_while(&app).await;
    assert_eq!((aside(), failing.count()), (2, 2), "due, and not promoted");
    set_paused(&app, false).await;
    a_while(&app).await;
    assert_eq!((aside(), failing.count()), (2, 2), "this process is still paused");
    runtime.resume("work").unwrap();
    app.drained("work").await;
    assert_eq!(failing.count(), 4);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_process_that_starts_during_a_pause_reads_nothing_before_its_end() {
    let app = App::start().await;
    let fine = Work::fine();
    let runtime = app.runtime(&fine).start().await.unwrap();
    set_paused(&app, true).await;
    paused(&runtime).await;
    let _ = runtime.shutdown().await;
    app.publish(5).await;
    let reads = app.calls("xreadgroup");
    let runtime = app.runtime(&fine).start().await.unwrap();
    paused(&runtime).await;
    a_while(&app).await;
    assert_eq!((app.calls("xreadgroup"), fine.count()), (reads, 0));
    set_paused(&app, false).await;
    app.drained("work").await;
    assert_eq!(fine.count(), 5);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn nothing_is_claimed_during_a_pause_and_everything_right_after_it() {
    let app = App::start().await;
    let stuck = Work::new(|_, _| std::future::pending());
    let dying = app.runtime(&stuck).start().await.unwrap();
    app.publish(3).await;
    stuck.wait_for(3).await;
    drop(dying);
    set_paused(&app, true).await;
    for row in app.server.pending("orders", "work") {
        app.server.age("orders", "work", &row.id, Duration::from_secs(60));
    }
    let fine = Work::fine();
    let runtime = app.runtime(&fine).start().await.unwrap();
    runtime.reap_now("work").unwrap();
    a_while(&app).await;
    assert_eq!((fine.count(), runtime.counters().claimed), (0, 0));
    set_paused(&app, false).await;
    app.drained("work").await;
    assert_eq!((fine.count(), runtime.counters().claimed), (3, 3));
    let _ = runtime.shutdown().await;
}
