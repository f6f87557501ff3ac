use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::config::Unhandled;
use streamjobs::dead_letter::Reason;
use streamjobs::{Client, ResultExt};

use crate::app::{App, DEADLINE, Gate, Work, options, order, settled, until};

async fn letters(client: &Client) -> Vec<streamjobs::dead_letter::DeadLetter> {
    client.dead_letters("orders", "work").unwrap().list(None, 100).await.unwrap().letters
}

async fn dead_lettered(app: &App, count: usize) -> Vec<streamjobs::dead_letter::DeadLetter> {
    let what = format!("{count} dead letters");
    until(DEADLINE, &what, || app.server.length("{orders}:dead:work") == count).await;
    letters(&app.client).await
}

#[tokio::test]
async fn a_job_that_always_fails_is_dead_lettered_after_its_last_attempt() {
    let app = App::start().await;
    let failing = Work::new(|_, _| async { Err("the mail server says no".into()) });
    let runtime = app.runtime(&failing).start().await.unwrap();
    let published = app.client.publish(&order(1)).await.unwrap();
    let letter = dead_lettered(&app, 1).await.remove(0);
    assert_eq!((letter.reason, letter.attempts, failing.count()), (Reason::Exhausted, 5, 5));
    assert_eq!(letter.error.as_deref(), Some("the mail server says no"));
    assert_eq!(
        (letter.origin, letter.event_id.clone()),
        (Some(published.entry_id), Some(published.event_id))
    );
    assert_eq!(letter.event_type(), Some("order.placed"));
    let (first, last) = (letter.first_delivery.unwrap(), letter.last_delivery.unwrap());
    assert!(
        published.entry_id.milliseconds() <= first + 1
            && first < last
            && last <= letter.id.milliseconds() + 1,
        "published {}, first {first}, last {last}, dead-lettered {}",
        published.entry_id.milliseconds(),
        letter.id.milliseconds()
    );
    app.drained("work").await;
    settled(&runtime).await;
    assert_eq!((runtime.counters().dead_lettered, runtime.counters().failed), (1, 5));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_rejected_job_runs_once_and_is_dead_lettered_at_once() {
    let app = App::start().await;
    let rejecting = Work::new(|_, _| async { Err::<(), _>("this customer does not exist").dead() });
    let runtime = app.runtime(&rejecting).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    let letter = dead_lettered(&app, 1).await.remove(0);
    assert_eq!((letter.reason, rejecting.count()), (Reason::Rejected, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_decoded_is_dead_lettered_at_first_sight_with_its_bytes() {
    let app = App::start().await;
    let fine = Work::fine();
    let runtime = app.runtime(&fine).start().await.unwrap();
    let corpus: [&[u8]; 9] = [
        b"",
        b"{\"id\":\"1\",\"customer\":\"secret-canary\"",
        b"{\"id\":1,\"customer\":\"secret-canary\"}",
        b"{\"id\":\"1\"}",
        b"{\"id\":\"1\",\"customer\":\"a\"}trailing",
        b"{\"id\":\"\\ud800\",\"customer\":\"a\"}",
        b"\xff\xfe\x00",
        b"{\"id\":\"1\",\"id\":\"2\",\"customer\":\"a\"}",
        b"[[[[1e999]]]]",
    ];
    for data in corpus {
        app.run(
            redis::cmd("XADD")
                .arg("orders")
                .arg("*")
                .arg("type")
                .arg("order.placed")
                .arg("data")
                .arg(data),
        );
    }
    let letters = dead_lettered(&app, corpus.len()).await;
    for (letter, data) in letters.iter().zip(corpus) {
        assert_eq!(
            (letter.reason, letter.attempts, letter.delivery_count),
            (Reason::Undecodable, 0, 1)
        );
        assert_eq!(letter.fields[1].1, data, "byte for byte");
        let error = letter.error.as_deref().unwrap();
        assert!(!error.contains("canary"), "{error}");
    }
    app.drained("work").await;
    assert_eq!(fine.count(), 0);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_entry_without_our_fields_is_dead_lettered_and_loops_nowhere() {
    let app = App::start().await;
    let runtime = app.runtime(&Work::fine()).start().await.unwrap();
    app.server.command(&["XADD", "orders", "*", "hello", "world"]);
    let letter = dead_lettered(&app, 1).await.remove(0);
    assert_eq!(letter.reason, Reason::Undecodable);
    assert!(letter.error.unwrap().contains("`type`"));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn strange_shapes_of_entries_are_dead_lettered_whole() {
    let app = App::start().await;
    // A hundred thousand fields take their time on a slow machine, and this is not about leases.
    let long = options().lease(Duration::from_secs(60));
    let runtime = app.bare(&Work::fine()).group("work", long).start().await.unwrap();
    let mut wide = redis::cmd("XADD");
    wide.arg("orders").arg("*").arg("type").arg("order.placed");
    for number in 0..100_000 {
        wide.arg(number).arg("");
    }
    app.run(&wide);
    let twice =
        ["XADD", "orders", "*", "type", "order.placed", "id", "1", "id", "2", "customer", "a"];
    app.server.command(&twice);
    app.server.command(&["XADD", "orders", "*", "type", "order.placed", "", "", "id", "1"]);
    app.server.command(&[
        "XADD",
        "orders",
        "*",
        "type",
        "order.placed",
        "data",
        "{}",
        "data",
        "{}",
    ]);
    let letters = dead_lettered(&app, 4).await;
    let wide = letters.iter().find(|letter| letter.fields.len() == 100_001).unwrap();
    assert!(wide.error.as_deref().unwrap().contains("100000 fields"), "every field is kept");
    assert!(letters.iter().all(|letter| letter.reason == Reason::Undecodable));
    app.drained("work").await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn an_entry_delivered_too_often_is_dead_lettered_without_being_run() {
    let app = App::start().await;
    app.client.publish(&order(1)).await.unwrap();
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0"]);
    app.server.command(&["XREADGROUP", "GROUP", "work", "dead", "STREAMS", "orders", ">"]);
    let id = app.server.entries("orders")[0].id.clone();
    // The server's count after five deliveries that no process survived.
    app.server.command(&[
        "XCLAIM",
        "orders",
        "work",
        "dead",
        "0",
        &id,
        "RETRYCOUNT",
        "5",
        "JUSTID",
    ]);
    let never = Work::fine();
    let runtime = app.runtime(&never).start().await.unwrap();
    let letter = dead_lettered(&app, 1).await.remove(0);
    assert_eq!((letter.reason, letter.delivery_count, never.count()), (Reason::Crashed, 6, 0));
    app.drained("work").await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn fresh_work_flows_while_a_poison_job_cycles() {
    let app = App::start().await;
    let picky = Work::new(|order, _| async move {
        if order.id == "poison" { Err("no".into()) } else { Ok(()) }
    });
    let one = options()
        .concurrency(NonZeroU32::MIN)
        .backoff(streamjobs::Backoff::fixed(Duration::from_millis(1)));
    let runtime = app.bare(&picky).group("work", one).start().await.unwrap();
    app.client.publish(&order("poison")).await.unwrap();
    app.publish(500).await;
    dead_lettered(&app, 1).await;
    app.drained("work").await;
    assert_eq!(picky.count(), 505);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn types_without_a_handler_follow_the_choice_of_the_group() {
    for (choice, dead) in
        [(Unhandled::Acknowledge, 0), (Unhandled::DeadLetter, 1), (Unhandled::Leave, 1)]
    {
        let app = App::start().await;
        let short = options().unhandled(choice).unhandled_after(Duration::from_secs(1));
        let builder = app.bare(&Work::fine()).group("work", short);
        let runtime = builder.start().await.unwrap();
        app.server.command(&["XADD", "orders", "*", "type", "order.unknown", "data", "{}"]);
        if dead == 1 {
            let letter = dead_lettered(&app, 1).await.remove(0);
            assert_eq!(letter.reason, Reason::Unhandled);
            assert_eq!((letter.attempts, letter.delivery_count), (0, 1), "{choice:?}");
            assert_eq!(letter.event_type(), Some("order.unknown"));
        }
        until(DEADLINE, "counted", || runtime.counters().unhandled >= 1).await;
        app.drained("work").await;
        assert_eq!(app.server.length("{orders}:dead:work"), dead, "{choice:?}");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_type_unknown_here_is_left_for_a_process_that_knows_it() {
    let app = App::start().await;
    let leave = options();
    let old = app.bare(&Work::fine()).group("work", leave).start().await.unwrap();
    app.server.command(&["XADD", "orders", "*", "type", "order.new", "data", "{}"]);
    until(DEADLINE, "seen by the old version", || old.counters().unhandled >= 1).await;
    let (seen, mut entries) = tokio::sync::mpsc::channel(8);
    let builder = streamjobs::Runtime::builder(&app.client).handlers(streamjobs::handlers![newer]);
    let builder = crate::app::quick(builder.state(New(seen)).group("work", leave));
    let new = builder.start().await.unwrap();
    let _ = old.shutdown().await;
    assert_eq!(entries.recv().await.as_deref(), Some("order.new"));
    app.drained("work").await;
    assert_eq!(app.server.length("{orders}:dead:work"), 0);
    let _ = new.shutdown().await;
}

#[derive(Clone)]
struct New(tokio::sync::mpsc::Sender<String>);

#[streamjobs::handler(group = "work", stream = "orders")]
async fn newer(entry: streamjobs::Entry, streamjobs::State(seen): streamjobs::State<New>) {
    let event_type = entry.event_type().unwrap_or_default().to_owned();
    let _closed = seen.0.send(event_type).await.is_err();
}

#[tokio::test]
async fn a_payload_trimmed_under_a_dead_process_is_reported_as_unknown() {
    let app = App::start().await;
    app.publish(2).await;
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0"]);
    app.server.command(&["XREADGROUP", "GROUP", "work", "dead", "STREAMS", "orders", ">"]);
    app.server.command(&["XTRIM", "orders", "MAXLEN", "0"]);
    let never = Work::fine();
    let runtime = app.runtime(&never).start().await.unwrap();
    let letters = dead_lettered(&app, 2).await;
    assert!(
        letters.iter().all(|letter| letter.reason == Reason::Trimmed && letter.fields.is_empty())
    );
    assert!(letters.iter().all(|letter| letter.consumer.as_deref() == Some("dead")));
    app.drained("work").await;
    until(DEADLINE, "counted", || runtime.counters().trimmed == 2).await;
    assert_eq!(never.count(), 0);
    let refused = app.client.dead_letters("orders", "work").unwrap().redrive(letters[0].id).await;
    assert!(refused.unwrap_err().to_string().contains("it has no payload"));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_payload_trimmed_under_a_running_handler_is_no_loss_when_it_succeeds() {
    let app = App::start().await;
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.runtime(&gated).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    gated.wait_for(1).await;
    app.server.command(&["XTRIM", "orders", "MAXLEN", "0"]);
    let letter = dead_lettered(&app, 1).await.remove(0);
    assert_eq!(letter.reason, Reason::Trimmed, "while it runs, its outcome is unknown");
    gate.open();
    until(DEADLINE, "the letter is taken back", || app.server.length("{orders}:dead:work") == 0)
        .await;
    settled(&runtime).await;
    assert_eq!(
        (runtime.counters().trimmed, runtime.counters().succeeded, gated.count()),
        (1, 1, 1)
    );
    let _ = runtime.shutdown().await;
}

/// Starts a job, takes its payload from the stream while it runs, and waits until that is noticed.
async fn trimmed_while_running(app: &App, work: &Work) {
    app.client.publish(&order(1)).await.unwrap();
    work.wait_for(1).await;
    app.server.command(&["XTRIM", "orders", "MAXLEN", "0"]);
    let letter = dead_lettered(app, 1).await.remove(0);
    assert_eq!((letter.reason, letter.fields.len()), (Reason::Trimmed, 0));
}

#[tokio::test]
async fn a_job_whose_payload_was_trimmed_is_tried_again_with_the_payload_in_hand() {
    let app = App::start().await;
    let gate = Gate::default();
    let held = gate.clone();
    let flaky = Work::new(move |_, job| {
        let held = held.clone();
        async move {
            held.passed().await;
            if job.attempt() == 1 { Err("once more".into()) } else { Ok(()) }
        }
    });
    let runtime = app.runtime(&flaky).start().await.unwrap();
    trimmed_while_running(&app, &flaky).await;
    gate.open();
    flaky.wait_for(2).await;
    app.drained("work").await;
    let runs = flaky.runs();
    assert_eq!((runs[1].attempt, &runs[1].event_id), (2, &runs[0].event_id));
    assert_eq!(app.server.length("{orders}:dead:work"), 0, "the retry took the letter's place");
    settled(&runtime).await;
    assert_eq!((runtime.counters().retried, runtime.counters().refused_late), (1, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_rejected_job_whose_payload_was_trimmed_is_dead_lettered_with_the_payload_in_hand() {
    let app = App::start().await;
    let gate = Gate::default();
    let held = gate.clone();
    let rejecting = Work::new(move |_, _| {
        let held = held.clone();
        async move {
            held.passed().await;
            Err::<(), _>("never").dead()
        }
    });
    let runtime = app.runtime(&rejecting).start().await.unwrap();
    trimmed_while_running(&app, &rejecting).await;
    gate.open();
    until(DEADLINE, "dead-lettered again", || runtime.counters().dead_lettered == 1).await;
    let letter = dead_lettered(&app, 1).await.remove(0);
    assert_eq!((letter.reason, letter.error.as_deref()), (Reason::Rejected, Some("never")));
    assert_eq!(letter.event_type(), Some("order.placed"));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_job_cut_off_whose_payload_was_trimmed_is_released_with_the_payload_in_hand() {
    for noticed in [true, false] {
        let app = App::start().await;
        let endless = Work::gated(&Gate::default());
        // Where the loss is not to be noticed before the stop, no renewal comes before it.
        let lease = if noticed { crate::app::LEASE } else { Duration::from_secs(600) };
        let builder = app.bare(&endless).group("work", options().lease(lease));
        let runtime = builder.grace(Duration::from_millis(1)).start().await.unwrap();
        if noticed {
            trimmed_while_running(&app, &endless).await;
        } else {
            app.client.publish(&order(1)).await.unwrap();
            endless.wait_for(1).await;
            app.server.command(&["XTRIM", "orders", "MAXLEN", "0"]);
        }
        let report = runtime.shutdown().await;
        assert_eq!((report.released, report.abandoned.len()), (1, 0), "{report:?}");
        let fresh = Work::fine();
        let next = app.runtime(&fresh).start().await.unwrap();
        fresh.wait_for(1).await;
        app.drained("work").await;
        assert_eq!((fresh.runs()[0].attempt, fresh.runs()[0].delivery_count), (1, 1));
        assert_eq!(app.server.length("{orders}:dead:work"), 0);
        let _ = next.shutdown().await;
    }
}

#[tokio::test]
async fn lost_payloads_that_no_dead_letter_can_tell_of_are_counted_and_wait() {
    let app = App::start().await;
    app.publish(2).await;
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0"]);
    app.server.command(&["XREADGROUP", "GROUP", "work", "dead", "STREAMS", "orders", ">"]);
    app.server.command(&["XTRIM", "orders", "MAXLEN", "0"]);
    // A job that is due, and whose record another client has deleted.
    app.server.command(&["ZADD", "{orders}:retry:work", "1", "s:1-1"]);
    app.server.command(&["SET", "{orders}:dead:work", "not a stream"]);
    let runtime = app.runtime(&Work::fine()).start().await.unwrap();
    until(DEADLINE, "said more than once", || runtime.counters().left > 6).await;
    assert_eq!((app.pending("work"), app.number(&["ZCARD", "{orders}:retry:work"])), (2, 1));
    app.server.command(&["DEL", "{orders}:dead:work"]);
    let letters = dead_lettered(&app, 3).await;
    assert!(letters.iter().all(|letter| letter.reason == Reason::Trimmed));
    app.drained("work").await;
    let _ = runtime.shutdown().await;
}
