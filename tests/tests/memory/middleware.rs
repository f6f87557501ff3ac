//! Middleware around jobs, on streams in memory under a paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::dead_letter::{DeadLetter, Reason};
use streamjobs::middleware::{Middleware, Next, RunFailure};
use streamjobs::testing::Streams;
use streamjobs::{
    Begin, Client, Event, Job, JobError, JobResource, Requirements, Runtime, RuntimeBuilder, State,
    handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Placed {
    /// What the handler does with it.
    plan: String,
}

/// What has happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Notes how it ends; its rollback takes three seconds.
struct Slow(Log);

impl JobResource for Slow {
    async fn begin(job: &Job) -> Result<Begin<Self>, JobError> {
        Ok(Begin::Run(Self(job.state().unwrap())))
    }

    async fn commit(self) -> Result<(), JobError> {
        self.0.note("committed");
        Ok(())
    }

    async fn rollback(self) {
        wait(3).await;
        self.0.note("rolled back");
    }
}

#[handler(group = "work", timeout = "10s", max_attempts = 2, backoff = "1s", wrap = innermost)]
async fn placed(order: Placed, State(log): State<Log>, _slow: &mut Slow) -> Result<(), JobError> {
    log.note(format!("run {}", order.plan));
    match order.plan.as_str() {
        "fail" => return Err(JobError::retry("broken")),
        "panic" => panic!("a bug"),
        "hang" => std::future::pending().await,
        _ => {}
    }
    Ok(())
}

async fn innermost(job: Job, next: Next) -> Result<(), JobError> {
    noted("handler", job, next).await
}

/// Notes when it begins and how the rest has ended.
async fn noted(name: &str, job: Job, next: Next) -> Result<(), JobError> {
    let log = job.state::<Log>().unwrap();
    log.note(format!("{name} in"));
    let result = next.run().await;
    let shown = match &result {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("{error}"),
    };
    log.note(format!("{name} out: {shown}"));
    result
}

async fn wait(seconds: u64) {
    sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
}

struct Stage {
    streams: Streams,
    client: Client,
    log: Log,
}

impl Stage {
    fn new() -> Self {
        let streams = Streams::new();
        Self { client: streams.client(), streams, log: Log::default() }
    }

    fn builder(&self) -> RuntimeBuilder {
        let builder = Runtime::builder(&self.client).handlers(handlers![placed]);
        builder.state(self.log.clone())
    }

    async fn publish(&self, plan: &str) {
        self.client.publish(&Placed { plan: plan.to_owned() }).await.unwrap();
    }

    async fn letters(&self) -> Vec<DeadLetter> {
        let letters = self.client.dead_letters("orders", "work").unwrap();
        letters.list(None, 10).await.unwrap().letters
    }

    /// Waits for the only dead letter.
    async fn letter(&self) -> DeadLetter {
        let stored = async || self.letters().await.len() == 1;
        eventually_async(Duration::from_secs(600), "one dead letter", stored).await;
        self.letters().await.remove(0)
    }

    /// What became of one event in a runtime with this middleware: a dead letter.
    async fn dead(plan: &str, middleware: impl Middleware) -> (Self, DeadLetter) {
        let stage = Self::new();
        let runtime = stage.builder().around(middleware).start().await.unwrap();
        stage.publish(plan).await;
        let letter = stage.letter().await;
        let _ = runtime.shutdown().await;
        (stage, letter)
    }
}

async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    eventually_async(Duration::from_secs(600), what, condition).await;
}

#[tokio::test(start_paused = true)]
async fn the_runtimes_is_outermost_then_the_groups_then_the_handlers() {
    let stage = Stage::new();
    let runtime = stage.builder();
    let runtime = runtime
        .around_group("work", |job, next| noted("group", job, next))
        .around(|job, next| noted("first", job, next))
        .around(|job, next| noted("second", job, next));
    let runtime = runtime.start().await.unwrap();
    stage.publish("fine").await;
    until("it is done", async || runtime.counters().acknowledged == 1).await;
    let _ = runtime.shutdown().await;
    let expected = [
        "first in",
        "second in",
        "group in",
        "handler in",
        "run fine",
        "committed",
        "handler out: ok",
        "group out: ok",
        "second out: ok",
        "first out: ok",
    ];
    assert_eq!(stage.log.all(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_error_can_get_another_meaning() {
    let dead = |_: Job, next: Next| async { next.run().await.map_err(JobError::into_dead) };
    let (stage, letter) = Stage::dead("fail", dead).await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Rejected, 1));
    assert_eq!(letter.error.as_deref(), Some("broken"));
    let expected = ["handler in", "run fail", "rolled back", "handler out: broken"];
    assert_eq!(stage.log.all(), expected);

    let replaced = |job: Job, next: Next| async move {
        let result = next.run().await;
        result.map_err(|error| match job.is_last_attempt() {
            true => JobError::retry(format!("at last: {error}")),
            false => error.into_later(Duration::from_secs(50)),
        })
    };
    let stage = Stage::new();
    let runtime = stage.builder().around(replaced).start().await.unwrap();
    stage.publish("fail").await;
    until("snoozed", async || runtime.counters().snoozed == 3).await;
    assert_eq!(runtime.counters().failed, 0, "a snooze counts as no failure");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_is_refused_without_a_run() {
    let refuse = |job: Job, _next: Next| async move {
        match job.delivery_count() {
            0 => Ok(()),
            _ => Err(JobError::dead("not for us")),
        }
    };
    let (stage, letter) = Stage::dead("fine", refuse).await;
    assert_eq!((letter.reason, letter.error.as_deref()), (Reason::Rejected, Some("not for us")));
    assert_eq!(stage.log.all(), [""; 0], "neither the handler nor its middleware has run");
}

#[tokio::test(start_paused = true)]
async fn no_middleware_makes_a_success_of_what_was_not_done() {
    let forgive = |_: Job, next: Next| async {
        let _forgiven = next.run().await;
        Ok(())
    };
    let (_, letter) = Stage::dead("fail", forgive).await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Exhausted, 2));
    assert_eq!(letter.error.as_deref(), Some("broken"));

    let skip = |_: Job, _: Next| async { Ok(()) };
    let (stage, letter) = Stage::dead("fine", skip).await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Exhausted, 2));
    let error = letter.error.unwrap();
    assert_eq!(error, "middleware returned `Ok`, and the job has not run");
    assert_eq!(stage.log.all(), [""; 0]);

    let hurried = |_: Job, next: Next| async {
        let _late = tokio::time::timeout(Duration::from_secs(1), next.run()).await;
        Ok(())
    };
    let (stage, letter) = Stage::dead("hang", hurried).await;
    assert_eq!((letter.reason, letter.error), (Reason::Exhausted, Some(error)));
    assert!(!stage.log.all().contains(&"rolled back".to_owned()), "the future was dropped");
}

#[tokio::test(start_paused = true)]
async fn a_success_can_become_a_failure() {
    let audited = |job: Job, next: Next| async move {
        next.run().await?;
        if job.attempt() == 1 { Err("the audit is not reachable".into()) } else { Ok(()) }
    };
    let stage = Stage::new();
    let runtime = stage.builder().around(audited).start().await.unwrap();
    stage.publish("fine").await;
    until("it is done", async || runtime.counters().acknowledged == 1).await;
    let counters = runtime.counters();
    assert_eq!((counters.failed, counters.retried, counters.succeeded), (1, 1, 1));
    assert_eq!(stage.log.all().iter().filter(|line| *line == "committed").count(), 2);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn panics_and_timeouts_are_seen_and_stay_what_they_are_when_they_are_handed_on() {
    for (plan, text) in
        [("panic", "the handler panicked: a bug"), ("hang", "the handler ran for longer than 10s")]
    {
        let plain = Stage::new();
        let runtime = plain.builder().start().await.unwrap();
        plain.publish(plan).await;
        let expected = plain.letter().await;
        let _ = runtime.shutdown().await;
        let outer = |job, next| noted("outer", job, next);
        let (stage, letter) = Stage::dead(plan, outer).await;
        assert_eq!((letter.reason, &letter.error), (Reason::Exhausted, &expected.error));
        assert_eq!(letter.error.as_deref(), Some(text));
        let seen = format!("outer out: {text}");
        assert_eq!(stage.log.all().iter().filter(|line| **line == seen).count(), 2);
    }
    let dead = |_: Job, next: Next| async {
        next.run().await.map_err(|error| match error.run_failure() {
            Some(RunFailure::Panicked(text)) => JobError::dead(format!("never again: {text}")),
            _ => error,
        })
    };
    let (_, letter) = Stage::dead("panic", dead).await;
    assert_eq!(letter.error.as_deref(), Some("never again: a bug"));
    assert_eq!((letter.reason, letter.attempts), (Reason::Rejected, 1));
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_cannot_be_decoded_is_seen_and_stays_one_unless_it_is_snoozed() {
    let seen = Log::default();
    let notes = seen.clone();
    let watch = move |job: Job, next: Next| {
        let notes = notes.clone();
        async move {
            let result = next.run().await;
            let error = result.unwrap_err();
            assert!(matches!(error.run_failure(), Some(RunFailure::Undecodable(_))), "{error:?}");
            notes.note(format!("{}", job.delivery_count()));
            if notes.all().len() < 3 {
                return Err(error.into_later(Duration::from_secs(5)));
            }
            Err(error)
        }
    };
    let stage = Stage::new();
    let runtime = stage.builder().around(watch).start().await.unwrap();
    let other = streamjobs::EncodedEvent::new(&Placed { plan: "fine".to_owned() }).unwrap();
    let mut fields = other.fields().to_vec();
    fields[1].1 = "{".into();
    let other = streamjobs::EncodedEvent::from_parts(other.stream().clone(), fields).unwrap();
    assert!(stage.client.publish_encoded(vec![other]).await[0].is_ok());
    assert_eq!(stage.letter().await.reason, Reason::Undecodable);
    assert_eq!(seen.all().len(), 3);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_middleware_fails_the_attempt() {
    let broken = |job: Job, next: Next| async move {
        assert!(job.attempt() > 1, "before");
        next.run().await?;
        panic!("after")
    };
    let (stage, letter) = Stage::dead("fine", broken).await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Exhausted, 2));
    assert_eq!(letter.error.as_deref(), Some("the handler panicked: after"));
    assert_eq!(stage.log.all()[..2], ["handler in", "run fine"]);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_an_attempt_is_that_of_its_middleware_too() {
    let slow = |_: Job, next: Next| async {
        wait(3_600).await;
        next.run().await
    };
    let began = Instant::now();
    let (stage, letter) = Stage::dead("fine", slow).await;
    assert_eq!(letter.error.as_deref(), Some("the handler ran for longer than 10s"));
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(stage.log.all(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_outcome_of_a_run_stands_when_its_middleware_does_not_end() {
    let endless = |_: Job, next: Next| async {
        let result = next.run().await;
        wait(3_600).await;
        result
    };
    let stage = Stage::new();
    let runtime = stage.builder().around(endless).start().await.unwrap();
    stage.publish("fine").await;
    until("it is done", async || runtime.counters().acknowledged == 1).await;
    assert_eq!((runtime.counters().succeeded, runtime.counters().failed), (1, 0));
    let _ = runtime.shutdown().await;

    let (stage, letter) = Stage::dead("fail", endless).await;
    assert_eq!((letter.attempts, letter.error.as_deref()), (2, Some("broken")));
    assert_eq!(stage.log.all()[3], "handler out: broken");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_waits_for_the_rollback_and_leaves_middleware_a_moment() {
    let tidy = |job: Job, next: Next| async move {
        let result = next.run().await;
        let log = job.state::<Log>().unwrap();
        sleep_until(Instant::now() + Duration::from_millis(900)).await;
        log.note("tidied up");
        wait(1).await;
        log.note("too late");
        result
    };
    let (stage, letter) = Stage::dead("hang", tidy).await;
    assert_eq!(letter.error.as_deref(), Some("the handler ran for longer than 10s"));
    let expected = [
        "handler in",
        "run hang",
        "rolled back",
        "handler out: the handler ran for longer than 10s",
        "tidied up",
    ];
    assert_eq!(stage.log.all()[..5], expected);
    assert_eq!(stage.log.all().len(), 10, "two attempts");
}

#[tokio::test(start_paused = true)]
async fn a_run_in_another_task_ends_before_its_job() {
    #[expect(clippy::disallowed_methods, reason = "what applications do")]
    let detached = |_: Job, next: Next| async {
        tokio::spawn(next.run());
        Ok(())
    };
    let stage = Stage::new();
    let runtime = stage.builder().around(detached).start().await.unwrap();
    stage.publish("fine").await;
    until("it is done", async || runtime.counters().acknowledged == 1).await;
    assert_eq!((runtime.counters().succeeded, runtime.counters().failed), (1, 0));
    let expected = ["handler in", "run fine", "committed", "handler out: ok"];
    assert_eq!(stage.log.all(), expected);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_stands_whatever_middleware_makes_of_it() {
    let dead = |_: Job, next: Next| async { next.run().await.map_err(JobError::into_dead) };
    #[handler(group = "work")]
    async fn hangs(_: Placed) {
        std::future::pending().await
    }
    let stage = Stage::new();
    let builder = Runtime::builder(&stage.client).handlers(handlers![hangs]).around(dead);
    let runtime = builder.grace(Duration::from_secs(1)).start().await.unwrap();
    stage.publish("hang").await;
    let running = async || runtime.health().queues.iter().any(|queue| queue.in_flight == 1);
    until("it runs", running).await;
    let report = runtime.shutdown().await;
    assert_eq!((report.released, report.abandoned.len()), (1, 0));
    assert!(stage.letters().await.is_empty());
    assert_eq!(stage.streams.pending("orders", "work").len(), 1);
}

/// A limit on how many jobs run at once, of the kind that needs fields.
struct Tenants {
    known: Vec<&'static str>,
}

impl Middleware for Tenants {
    async fn around(&self, job: Job, next: Next) -> Result<(), JobError> {
        let tenant = job.state::<&'static str>().unwrap_or_default();
        if !self.known.contains(&tenant) {
            return Err(JobError::dead(format!("unknown tenant {tenant}")));
        }
        next.run().await
    }

    fn require(&self, requirements: &mut Requirements) {
        requirements.state::<&'static str>();
    }
}

#[tokio::test(start_paused = true)]
async fn middleware_with_fields_needs_its_states_and_a_group_that_exists() {
    let stage = Stage::new();
    let tenants = || Tenants { known: vec!["acme"] };
    let error = stage.builder().around_group("work", tenants()).start().await.unwrap_err();
    assert!(error.to_string().contains("placed"), "{error}");
    assert!(error.to_string().contains("needs State<&str>"), "{error}");
    let error = stage.builder().around_group("wrok", tenants()).start().await.unwrap_err();
    assert!(error.to_string().contains("no handler belongs to group \"wrok\""), "{error}");
    let runtime = stage.builder().around_group("work", tenants()).state("acme");
    let runtime = runtime.start().await.unwrap();
    stage.publish("fine").await;
    until("it is done", async || runtime.counters().acknowledged == 1).await;
    let _ = runtime.shutdown().await;
}
