//! The progress of running jobs on a server.

use std::time::Duration;

use streamjobs::stream::{PendingQuery, Progress};
use streamjobs::{Client, Runtime, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::proxy::{FaultProxy, Mode};
use tokio::time::{Instant, sleep_until};

use crate::app::{App, DEADLINE, Gate, Work, options, order, quick, work};

const KEY: &str = "{orders}:progress:work";

/// Says every ten milliseconds how far it is, until the gate is open.
fn reporting(gate: &Gate) -> Work {
    let gate = gate.clone();
    Work::new(move |_, job| {
        let gate = gate.clone();
        async move {
            let reports = async {
                for done in 1.. {
                    job.progress(done, None, "steps");
                    sleep_until(Instant::now() + Duration::from_millis(10)).await;
                }
            };
            tokio::select! {
                () = gate.passed() => {}
                () = reports => {}
            }
            Ok(())
        }
    })
}

/// The progress of the only pending entry.
async fn shown(app: &App) -> Option<Progress> {
    let group = app.client.stream("orders").unwrap().group("work").unwrap();
    let page = group.pending(PendingQuery::new()).await.unwrap();
    page.entries.into_iter().find_map(|entry| entry.progress)
}

async fn until(app: &App, what: &str, holds: impl Fn(Progress) -> bool) {
    eventually_async(DEADLINE, what, async || shown(app).await.is_some_and(&holds)).await;
}

#[tokio::test]
async fn a_running_job_shows_its_progress_which_ends_with_it() {
    let (app, gate) = (App::start().await, Gate::default());
    let reports = reporting(&gate);
    let runtime = app.runtime(&reports).start().await.unwrap();
    assert_eq!(app.number(&["EXISTS", KEY]), 0, "there is no job yet");
    app.client.publish(&order(1)).await.unwrap();
    until(&app, "the first report", |progress| progress.done >= 1).await;
    let first = shown(&app).await.unwrap();
    assert_eq!((first.of, first.text.as_str()), (None, "steps"));
    until(&app, "a later report", |progress| progress.done > first.done).await;
    assert!(app.number(&["PTTL", KEY]) > 23 * 3_600_000);
    assert_eq!(app.number(&["HLEN", KEY]), 1);
    gate.open();
    app.drained("work").await;
    crate::app::until(DEADLINE, "removed", || app.number(&["EXISTS", KEY]) == 0).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_full_server_takes_no_progress_and_the_job_is_done_all_the_same() {
    let (app, gate) = (App::start().await, Gate::default());
    let reports = reporting(&gate);
    let runtime = app.runtime(&reports).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    until(&app, "the first report", |progress| progress.done >= 1).await;
    app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let old = |progress: Progress| progress.age > Duration::from_secs(2);
    until(&app, "the age grows although the job reports", old).await;
    gate.open();
    app.drained("work").await;
    let counters = runtime.counters();
    assert_eq!((counters.succeeded, counters.failed, counters.leases_lost), (1, 0, 0));
    crate::app::until(DEADLINE, "removed", || app.number(&["EXISTS", KEY]) == 0).await;
    app.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_key_of_another_type_hides_progress_and_fails_no_job() {
    let (app, gate) = (App::start().await, Gate::default());
    app.server.command(&["RPUSH", KEY, "x"]);
    let reports = reporting(&gate);
    let runtime = app.runtime(&reports).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    reports.wait_for(1).await;
    assert_eq!(shown(&app).await, None);
    gate.open();
    app.drained("work").await;
    assert_eq!((runtime.counters().succeeded, runtime.counters().failed), (1, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn lost_answers_cost_neither_the_job_nor_its_lease_and_progress_goes_on() {
    let (app, gate) = (App::start().await, Gate::default());
    let proxy = FaultProxy::start(&app.server).unwrap();
    let client = Client::connect(proxy.url()).await.unwrap();
    let reports = reporting(&gate);
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(reports.clone());
    let runtime = quick(builder).group("work", options()).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    until(&app, "the first report", |progress| progress.done >= 1).await;
    let (before, faults) = (shown(&app).await.unwrap().done, proxy.faults());
    proxy.set(Mode::LoseReplyTo(KEY.to_owned()));
    crate::app::until(DEADLINE, "answers are lost", || proxy.faults() > faults).await;
    proxy.set(Mode::Pass);
    until(&app, "later reports are written", |progress| progress.done > before + 100).await;
    gate.open();
    app.drained("work").await;
    crate::app::until(DEADLINE, "done once", || runtime.counters().succeeded == 1).await;
    assert_eq!((reports.count(), runtime.counters().failed), (1, 0));
    let _ = runtime.shutdown().await;
}
