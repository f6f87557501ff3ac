use std::time::Duration;

use streamjobs::{Backoff, JobError, ResultExt};
use tokio::time::Instant;

use crate::app::{App, DEADLINE, Work, options, order, settled, until};

#[tokio::test]
async fn a_failed_job_comes_back_with_its_attempt_raised_until_it_succeeds() {
    let app = App::start().await;
    let flaky = Work::new(|_, job| async move {
        if job.attempt() < 3 { Err("not yet".into()) } else { Ok(()) }
    });
    let runtime = app.runtime(&flaky).start().await.unwrap();
    let published = app.client.publish(&order(1)).await.unwrap();
    flaky.wait_for(3).await;
    app.drained("work").await;
    settled(&runtime).await;
    let runs = flaky.runs();
    assert_eq!(runs.iter().map(|run| run.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(runs.iter().map(|run| run.delivery_count).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(runs.iter().map(|run| run.first).collect::<Vec<_>>(), [true, false, false]);
    assert!(runs.iter().all(|run| run.event_id == published.event_id.as_str()));
    let counters = runtime.counters();
    assert_eq!(
        (counters.failed, counters.retried, counters.succeeded, counters.dead_lettered),
        (2, 2, 1, 0)
    );
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_waiting_job_is_out_of_the_stream_and_takes_no_slot() {
    let app = App::start().await;
    let failing =
        Work::new(
            |order, _| async move { if order.id == "bad" { Err("no".into()) } else { Ok(()) } },
        );
    let long = options().backoff(Backoff::fixed(Duration::from_secs(3600)));
    let one = long.concurrency(std::num::NonZeroU32::new(1).unwrap());
    let runtime = app.bare(&failing).group("work", one).start().await.unwrap();
    app.client.publish(&order("bad")).await.unwrap();
    app.publish(20).await;
    failing.wait_for(21).await;
    until(DEADLINE, "only the retries job is left", || app.left("work") == 1).await;
    assert_eq!(app.pending("work"), 0);
    assert_eq!(app.number(&["ZCARD", "{orders}:retry:work"]), 1);
    assert_eq!(app.number(&["HLEN", "{orders}:retry-records:work"]), 1);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn no_retry_comes_before_its_time() {
    let app = App::start().await;
    let delay = Duration::from_millis(300);
    let times = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = times.clone();
    let failing = Work::new(move |_, job| {
        noted.lock().unwrap().push(Instant::now());
        async move { if job.attempt() == 1 { Err::<(), _>("later").retry_after(delay) } else { Ok(()) } }
    });
    let runtime = app.runtime(&failing).start().await.unwrap();
    app.publish(10).await;
    failing.wait_for(20).await;
    app.drained("work").await;
    let times = times.lock().unwrap().clone();
    // Every order failed once before any came back, so the n-th return belongs to the n-th failure
    // at the latest: the first return comes no sooner than the delay after the first failure.
    assert!(times[10].duration_since(times[0]) >= delay - Duration::from_millis(2), "{times:?}");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_retried_job_is_done_by_any_process_of_the_group() {
    let app = App::start().await;
    let failing = Work::new(|_, _| async {
        Err(JobError::retry_after(Duration::from_millis(100), "elsewhere"))
    });
    let first = app.runtime(&failing).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    failing.wait_for(1).await;
    let _ = first.shutdown().await;
    let fine = Work::fine();
    let second = app.runtime(&fine).start().await.unwrap();
    fine.wait_for(1).await;
    app.drained("work").await;
    assert_eq!(fine.runs()[0].attempt, failing.count() as u32 + 1);
    let _ = second.shutdown().await;
}

#[tokio::test]
async fn a_job_that_is_put_off_at_its_last_attempt_is_scheduled_for_retry_and_not_dead_lettered() {
    let app = App::start().await;
    let gate = crate::app::Gate::default();
    let passed = gate.clone();
    let locked = Work::new(move |_, job| {
        let passed = passed.clone();
        async move {
            match job.is_first_delivery() {
                true => Err::<(), _>("locked").later(Duration::from_millis(50)),
                false => {
                    passed.passed().await;
                    Ok(())
                }
            }
        }
    });
    let once = options().max_attempts(std::num::NonZeroU32::MIN);
    let runtime = app.bare(&locked).group("work", once).start().await.unwrap();
    let published = app.client.publish(&order(1)).await.unwrap();
    // The next attempt is the first once more, and comes from the lane.
    locked.wait_for(2).await;
    let lane = app.server.entries("{orders}:lane:work").remove(0);
    assert_eq!(lane.text("sj-origin"), Some(published.entry_id.to_string()));
    assert_eq!(
        (lane.text("sj-attempt"), lane.text("sj-error")),
        (Some("0".into()), Some("locked".into()))
    );
    assert_eq!((app.pending("work"), app.number(&["EXISTS", "{orders}:dead:work"])), (0, 0));
    gate.open();
    app.drained("work").await;
    settled(&runtime).await;
    let attempts =
        locked.runs().iter().map(|run| (run.attempt, run.delivery_count)).collect::<Vec<_>>();
    assert_eq!(attempts, [(1, 1), (1, 1)]);
    assert_eq!(app.number(&["EXISTS", "{orders}:dead:work"]), 0);
    let counters = runtime.counters();
    assert_eq!((counters.snoozed, counters.failed, counters.succeeded), (1, 0, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn binary_payloads_survive_a_retry_byte_for_byte() {
    let app = App::start().await;
    let (seen, mut entries) = tokio::sync::mpsc::channel(4);
    let looking = Work::new(move |_, job| {
        let seen = seen.clone();
        async move {
            seen.send(job.entry().clone()).await.unwrap();
            if job.attempt() == 1 { Err("again".into()) } else { Ok(()) }
        }
    });
    let runtime = app.runtime(&looking).start().await.unwrap();
    let binary: &[u8] = b"\x00\xff\r\n\x80";
    let mut add = redis::cmd("XADD");
    add.arg("orders")
        .arg("*")
        .arg("type")
        .arg("order.placed")
        .arg("id")
        .arg("1")
        .arg("customer")
        .arg("a");
    add.arg("blob").arg(binary).arg("").arg("");
    app.run(&add);
    let first = entries.recv().await.unwrap();
    let second = entries.recv().await.unwrap();
    assert_ne!(first.id(), second.id());
    assert_eq!(second.field("blob").map(|blob| &blob[..]), Some(binary));
    assert_eq!(second.text("sj-origin"), Some(first.id().to_string().as_str()));
    assert!(second.field("").is_some_and(|value| value.is_empty()));
    app.drained("work").await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_panic_is_a_failure_like_any_other_and_the_runtime_lives_on() {
    let app = App::start().await;
    let panicking = Work::new(|order, job| async move {
        match (order.id.as_str(), job.attempt()) {
            ("0", 1) => panic!("a static text"),
            ("1", 1) => panic!("a formatted text: {}", order.customer),
            ("2", 1) => std::panic::panic_any(17_u32),
            ("3", 1) => {
                struct Loud;
                impl Drop for Loud {
                    fn drop(&mut self) {
                        panic!("in a drop");
                    }
                }
                let _loud = Loud;
                Ok(())
            }
            _ => Ok(()),
        }
    });
    let runtime = app.runtime(&panicking).start().await.unwrap();
    app.publish(6).await;
    panicking.wait_for(10).await;
    app.drained("work").await;
    settled(&runtime).await;
    let counters = runtime.counters();
    assert_eq!((counters.failed, counters.succeeded, counters.dead_lettered), (4, 6, 0));
    assert!(runtime.health().is_healthy());
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_ended_and_tried_again() {
    let app = App::start().await;
    let slow = Work::new(|_, job| async move {
        if job.attempt() == 1 {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let short = options().timeout(Duration::from_millis(50));
    let runtime = app.bare(&slow).group("work", short).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    slow.wait_for(2).await;
    app.drained("work").await;
    settled(&runtime).await;
    assert_eq!((runtime.counters().failed, runtime.counters().succeeded), (1, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn what_a_handler_leaves_running_behind_extends_no_lease() {
    let app = App::start().await;
    let gate = crate::app::Gate::default();
    let (held, tasks) =
        (gate.clone(), std::sync::Arc::new(std::sync::Mutex::new(tokio::task::JoinSet::new())));
    let spawning = tasks.clone();
    let leaving = Work::new(move |_, _| {
        let (held, spawning) = (held.clone(), spawning.clone());
        async move {
            spawning.lock().unwrap().spawn(async move { held.passed().await });
            Ok(())
        }
    });
    let runtime = app.runtime(&leaving).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    app.drained("work").await;
    // Nothing is in flight while the task that was left behind still runs.
    settled(&runtime).await;
    assert_eq!(tasks.lock().unwrap().len(), 1);
    let report = runtime.shutdown().await;
    assert!(report.abandoned.is_empty(), "a shutdown does not wait for it either");
    gate.open();
}

#[derive(Clone)]
struct Wide(std::sync::Arc<std::sync::atomic::AtomicUsize>);

#[streamjobs::handler(group = "wide", stream = "orders", max_attempts = 2)]
async fn take_wide(
    entry: streamjobs::Entry,
    streamjobs::State(done): streamjobs::State<Wide>,
    job: streamjobs::Job,
) -> Result<(), JobError> {
    if job.attempt() == 1 {
        return Err("once more".into());
    }
    done.0.fetch_add(entry.fields().len(), std::sync::atomic::Ordering::SeqCst);
    Ok(())
}

/// Adds an entry with so many fields, its type included.
fn add_wide(app: &App, fields: usize) {
    let mut add = redis::cmd("XADD");
    add.arg("orders").arg("*").arg("type").arg("wide");
    for number in 1..fields {
        add.arg(number).arg("");
    }
    app.run(&add);
}

#[tokio::test]
async fn entries_of_other_clients_are_retried_however_wide_and_the_widest_block_no_other() {
    let app = App::start().await;
    let done = Wide(std::sync::Arc::default());
    let builder = streamjobs::Runtime::builder(&app.client)
        .handlers(streamjobs::handlers![take_wide])
        .state(done.clone());
    // So many fields take their time in a debug build, and this is not about leases.
    let long = options().lease(Duration::from_secs(60));
    let runtime = crate::app::quick(builder.group("wide", long)).start().await.unwrap();
    // More than a script can hand on in one call.
    add_wide(&app, 20_000);
    let dead = "{orders}:dead:wide";
    until(DEADLINE, "the widest is dead-lettered", || app.server.length(dead) == 1).await;
    add_wide(&app, 900);
    add_wide(&app, 70);
    app.drained("wide").await;
    settled(&runtime).await;
    let fields = done.0.load(std::sync::atomic::Ordering::SeqCst);
    // Each retry carries seven fields of ours.
    assert_eq!((fields, runtime.counters().dead_lettered), (900 + 70 + 14, 1));
    let letters = app.client.dead_letters("orders", "wide").unwrap();
    let letter = letters.list(None, 1).await.unwrap().letters.remove(0);
    assert_eq!((letter.fields.len(), letter.attempts), (20_000, 1));
    let error = letter.error.unwrap();
    assert!(error.contains("once more") && error.contains("20000 fields"), "{error}");
    let _ = runtime.shutdown().await;
}
