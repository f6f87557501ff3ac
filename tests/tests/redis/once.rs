use std::sync::Mutex;
use std::time::Duration;

use streamjobs::once::{OnceMark, ServerMarks, conformance};
use streamjobs::{EventId, JobError, Runtime, RuntimeBuilder, State, handler, handlers};
use streamjobs_tests::server::RedisServer;

use crate::app::{App, DEADLINE, Gate, Order, options, order, quick, until};

/// What the handler was told at each start, and what holds it back.
#[derive(Clone, Default)]
struct Mails {
    takeovers: std::sync::Arc<Mutex<Vec<bool>>>,
    gate: Gate,
}

impl Mails {
    fn takeovers(&self) -> Vec<bool> {
        self.takeovers.lock().unwrap().clone()
    }
}

#[handler(group = "work")]
async fn mail(
    _order: Order,
    mark: &mut OnceMark,
    State(mails): State<Mails>,
) -> Result<(), JobError> {
    mails.takeovers.lock().unwrap().push(mark.is_takeover());
    mails.gate.passed().await;
    Ok(())
}

fn runtime(app: &App, mails: &Mails) -> RuntimeBuilder {
    let builder = Runtime::builder(&app.client).handlers(handlers![mail]).state(mails.clone());
    quick(builder.group("work", options()))
}

fn mark(id: &EventId) -> String {
    format!("{{orders}}:once:work:{{{id}}}")
}

#[tokio::test]
async fn marks_on_the_server_keep_their_contract() {
    let app = App::start().await;
    conformance::check::<ServerMarks, _>(&app.client, ()).await.unwrap();
    let seconds: i64 = app.server.query(&["TTL", &app.server.query::<String>(&["RANDOMKEY"])]);
    assert!((1..=7 * 24 * 60 * 60).contains(&seconds), "the server forgets them: {seconds}");
}

#[tokio::test]
async fn an_event_that_comes_again_in_any_way_is_done_once() {
    let (app, mails) = (App::start().await, Mails::default());
    let runtimes = [
        runtime(&app, &mails).start().await.unwrap(),
        runtime(&app, &mails).start().await.unwrap(),
    ];
    let id = EventId::generate();
    for _ in 0..50 {
        app.client.publish_with_id(&order(1), id.clone()).await.unwrap();
    }
    let snoozed = || runtimes.iter().map(|runtime| runtime.counters().snoozed).sum::<u64>();
    until(DEADLINE, "the others wait", || snoozed() >= 49 && app.pending("work") == 1).await;
    // Either process may have been the first to begin.
    let running = app.server.pending("orders", "work").remove(0).id;
    assert_eq!(app.server.query::<String>(&["HGET", &mark(&id), "origin"]), running);
    mails.gate.open();
    app.drained("work").await;
    assert_eq!(mails.takeovers(), [false]);
    assert!(app.server.query::<bool>(&["HEXISTS", &mark(&id), "done"]));
    assert_eq!(app.server.length("{orders}:dead:work"), 0, "waiting charges nothing");
    for runtime in runtimes {
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_job_of_a_dead_process_is_taken_over_at_once_and_told_so() {
    let (app, mails) = (App::start().await, Mails::default());
    let published = app.client.publish(&order(1)).await.unwrap();
    let id = published.event_id;
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0"]);
    let read = ["XREADGROUP", "GROUP", "work", "dead", "COUNT", "1", "STREAMS", "orders", ">"];
    app.server.command(&read);
    // What the dead process has left: a mark that runs out in a quarter of an hour.
    let until_then: u64 = app.server.query::<Vec<u64>>(&["TIME"])[0] * 1_000 + 900_000;
    let (origin, until_then) = (published.entry_id.to_string(), until_then.to_string());
    let fields = ["owner", "dead", "origin", &origin, "until", &until_then];
    app.server.command(&[&["HSET", &mark(&id)][..], &fields].concat());
    app.server.age("orders", "work", &origin, Duration::from_secs(60));
    mails.gate.open();
    let runtime = runtime(&app, &mails).start().await.unwrap();
    app.drained("work").await;
    assert_eq!((mails.takeovers(), runtime.counters().snoozed), (vec![true], 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn marked_work_goes_on_while_the_server_is_full() {
    let (app, mails) = (App::start().await, Mails::default());
    app.publish(3).await;
    app.server.command(&["XGROUP", "CREATE", "orders", "work", "0"]);
    let runtime = runtime(&app, &mails).start().await.unwrap();
    until(DEADLINE, "all have begun", || mails.takeovers().len() == 3).await;
    app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    mails.gate.open();
    until(DEADLINE, "done while full", || app.pending("work") == 0).await;
    assert_eq!((mails.takeovers().len(), runtime.counters().succeeded), (3, 3));
    app.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_user_without_rights_on_marks_gets_dead_letters_and_no_endless_loop() {
    let server = RedisServer::start().unwrap();
    let rules = ["ACL", "SETUSER", "app", "on", ">p", "~*", "&*", "+@all", "-pexpire"];
    server.command(&rules);
    let client = streamjobs::Client::connect(&server.url_as("app", "p")).await.unwrap();
    let (app, mails) = (App { server, client }, Mails::default());
    mails.gate.open();
    let runtime = runtime(&app, &mails).start().await.unwrap();
    app.publish(1).await;
    until(DEADLINE, "dead-lettered", || app.server.length("{orders}:dead:work") == 1).await;
    assert!(mails.takeovers().is_empty(), "nothing runs unmarked");
    let _ = runtime.shutdown().await;
}
