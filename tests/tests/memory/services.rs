//! Services beside the consumers, on streams in memory and under a paused clock.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::config::Retention;
use streamjobs::error::{BoxError, StartError};
use streamjobs::service::{BoxFuture, Service, ServiceContext};
use streamjobs::testing::Streams;
use streamjobs::{Client, Event, Runtime, RuntimeBuilder, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    seconds: u64,
}

/// What happened, and when.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<(&'static str, Instant)>>>);

impl Diary {
    fn note(&self, what: &'static str) {
        self.0.lock().unwrap().push((what, Instant::now()));
    }

    fn words(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().iter().map(|(what, _)| *what).collect()
    }

    fn times(&self, what: &str) -> Vec<Instant> {
        let notes = self.0.lock().unwrap();
        notes.iter().filter(|(noted, _)| *noted == what).map(|(_, at)| *at).collect()
    }
}

/// Takes as long as its order says.
#[handler(group = "work")]
async fn work(order: Order, State(diary): State<Diary>) {
    diary.note("job began");
    after(Duration::from_secs(order.seconds)).await;
    diary.note("job ended");
}

type Prepare = dyn Fn() -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync;
type Run = dyn Fn(usize, ServiceContext) -> BoxFuture<'static, ()> + Send + Sync;

/// Does in each run, counted from 1, what its test says.
struct Scripted {
    prepare: Box<Prepare>,
    run: Box<Run>,
    runs: AtomicUsize,
}

impl Scripted {
    fn new<R>(run: impl Fn(usize, ServiceContext) -> R + Send + Sync + 'static) -> Self
    where
        R: Future<Output = ()> + Send + 'static,
    {
        let run =
            move |number, context| -> BoxFuture<'static, ()> { Box::pin(run(number, context)) };
        let prepare = || -> BoxFuture<'static, _> { Box::pin(async { Ok(()) }) };
        Self { prepare: Box::new(prepare), run: Box::new(run), runs: AtomicUsize::new(0) }
    }

    fn prepared<R>(prepare: impl Fn() -> R + Send + Sync + 'static) -> Self
    where
        R: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let prepare = move || -> BoxFuture<'static, _> { Box::pin(prepare()) };
        let never = Self::new(|_, _| async { panic!("it must not run") });
        Self { prepare: Box::new(prepare), ..never }
    }
}

impl Service for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn prepare<'a>(&'a self, _: &'a ServiceContext) -> BoxFuture<'a, Result<(), BoxError>> {
        (self.prepare)()
    }

    fn run(&self, context: ServiceContext) -> BoxFuture<'_, ()> {
        (self.run)(self.runs.fetch_add(1, Ordering::SeqCst) + 1, context)
    }
}

fn runtime(client: &Client, diary: &Diary) -> RuntimeBuilder {
    Runtime::builder(client).handlers(handlers![self::work]).state(diary.clone())
}

async fn after(delay: Duration) {
    sleep_until(Instant::now() + delay).await;
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_async(Duration::from_secs(3600), what, async || condition()).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_is_stopped_after_the_last_job_has_ended_and_is_waited_for() {
    let (client, diary) = (Streams::new().client(), Diary::default());
    let (noted, publisher) = (diary.clone(), client.clone());
    let service = Scripted::new(move |_, context| {
        let (noted, publisher) = (noted.clone(), publisher.clone());
        async move {
            publisher.publish(&Order { seconds: 20 }).await.unwrap();
            context.stop().cancelled().await;
            noted.note("told to stop");
            after(Duration::from_secs(4)).await;
            noted.note("stopped");
        }
    });
    let runtime = runtime(&client, &diary).service(service).start().await.unwrap();
    until("the job runs", || !diary.words().is_empty()).await;
    let report = runtime.shutdown().await;
    assert_eq!(diary.words(), ["job began", "job ended", "told to stop", "stopped"]);
    assert_eq!((report.finished, report.abandoned.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_ends_too_soon_is_run_again_after_a_pause_that_grows() {
    let (client, diary) = (Streams::new().client(), Diary::default());
    let noted = diary.clone();
    let service = Scripted::new(move |run, context| {
        noted.note("run");
        assert!(run != 1, "before there is a future");
        async move {
            match run {
                2 => panic!("in the future"),
                3 | 5 => {}
                4 => after(Duration::from_secs(60)).await,
                _ => context.stop().cancelled().await,
            }
        }
    });
    let runtime = runtime(&client, &diary).service(service).start().await.unwrap();
    until("the sixth run", || diary.times("run").len() == 6).await;
    assert_eq!(runtime.counters().services_ended, 5);
    assert!(runtime.health().is_healthy(), "the consumers are not concerned");
    let (runs, minute) = (diary.times("run"), Duration::from_secs(60));
    let mut pauses = runs.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>();
    // The fourth run lasted for a minute, and the pause after it is short again.
    pauses[3] = pauses[3].checked_sub(minute).unwrap();
    for (pause, bound) in pauses.iter().zip([1, 2, 4, 1, 2].map(Duration::from_secs)) {
        // Half of the bound at least.
        let late = bound + Duration::from_millis(100);
        assert!((bound / 2..=late).contains(pause), "{pauses:?}");
    }
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn no_pause_between_runs_is_longer_than_half_a_minute_and_a_stop_ends_it() {
    let (client, diary) = (Streams::new().client(), Diary::default());
    let noted = diary.clone();
    let service = Scripted::new(move |_, _| {
        noted.note("run");
        async { panic!("every time") }
    });
    let runtime = runtime(&client, &diary).service(service).start().await.unwrap();
    until("many runs", || diary.times("run").len() == 20).await;
    let runs = diary.times("run");
    let last = runs[19] - runs[18];
    assert!((Duration::from_secs(15)..=Duration::from_secs(31)).contains(&last), "{last:?}");
    let report = runtime.shutdown().await;
    assert!(report.took < Duration::from_secs(5), "{report:?}");
}

/// What a start says with this service, which never comes to a run.
async fn refused(service: Scripted) -> String {
    let (streams, diary) = (Streams::new(), Diary::default());
    let client = streams.client();
    client.publish(&Order { seconds: 0 }).await.unwrap();
    let noted = diary.clone();
    let other = Scripted::new(move |_, _| {
        noted.note("run");
        std::future::pending()
    });
    let start = runtime(&client, &diary).service(other).service(service).start().await;
    let Err(StartError::Service { name, source }) = start else { panic!("{start:?}") };
    assert_eq!(name, "scripted");
    after(Duration::from_secs(60)).await;
    assert!(diary.words().is_empty(), "neither a job nor another service runs");
    assert!(client.stream("orders").unwrap().groups().await.unwrap().is_empty());
    source.to_string()
}

#[tokio::test(start_paused = true)]
async fn a_service_that_cannot_be_prepared_refuses_the_start() {
    let missing = Scripted::prepared(|| async { Err("the schema is missing".into()) });
    assert_eq!(refused(missing).await, "the schema is missing");
    let panicking = Scripted::prepared(|| async { panic!("in the future") });
    assert_eq!(refused(panicking).await, "it panicked: in the future");
    let early = || -> std::future::Ready<_> { panic!("before there is a future") };
    assert_eq!(refused(Scripted::prepared(early)).await, "it panicked: before there is a future");
    let hanging = Scripted::prepared(std::future::pending);
    assert_eq!(refused(hanging).await, "it took longer than 30s");
}

/// Says that it was dropped.
struct Noticed(Arc<AtomicBool>);

impl Drop for Noticed {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A service that ignores its stop, and whether it is gone.
fn deaf() -> (Scripted, Arc<AtomicBool>) {
    let gone = Arc::new(AtomicBool::new(false));
    let noticed = gone.clone();
    let service = Scripted::new(move |_, _| {
        let noticed = Noticed(noticed.clone());
        async move {
            let _noticed = noticed;
            std::future::pending().await
        }
    });
    (service, gone)
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_stop_is_dropped_after_five_seconds() {
    let (client, (service, gone)) = (Streams::new().client(), deaf());
    let runtime = runtime(&client, &Diary::default()).service(service).start().await.unwrap();
    until("reading", || runtime.health().is_healthy()).await;
    let report = runtime.shutdown().await;
    assert!(gone.load(Ordering::SeqCst));
    let took = Duration::from_secs(5)..Duration::from_secs(6);
    assert!(took.contains(&report.took), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_dropped_takes_its_services_along() {
    let (client, (service, gone)) = (Streams::new().client(), deaf());
    let runtime = runtime(&client, &Diary::default()).service(service).start().await.unwrap();
    after(Duration::from_secs(60)).await;
    assert!(!gone.load(Ordering::SeqCst));
    drop(runtime);
    until("gone", || gone.load(Ordering::SeqCst)).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_learns_what_its_runtime_serves_and_stops_no_other() {
    let day = Duration::from_secs(24 * 60 * 60);
    let builder = Client::builder("").retention("orders:a", Retention::MaxAge(day));
    let client = Streams::new().client_with(builder).unwrap();
    let (diary, seen) = (Diary::default(), Arc::new(Mutex::new(Vec::new())));
    let noted = seen.clone();
    let looking = Scripted::new(move |_, context| {
        noted.lock().unwrap().push(context.queues().to_vec());
        context.stop().cancel();
        async move { assert!(context.stopped_within(Duration::from_secs(1)).await) }
    });
    let noted = diary.clone();
    let other = Scripted::new(move |_, context| {
        let noted = noted.clone();
        async move {
            assert!(!context.stopped_within(Duration::from_secs(600)).await);
            noted.note("not stopped");
            context.stop().cancelled().await;
        }
    });
    let builder = runtime(&client, &diary).read_keys("orders", ["orders:a", "orders:b"]);
    let runtime = builder.service(looking).service(other).start().await.unwrap();
    until("the wait is over", || diary.words() == ["not stopped"]).await;
    let runs = seen.lock().unwrap().clone();
    assert!(runs.len() > 1 && runtime.counters().services_ended >= 2, "a stop of its own making");
    let served = runs[0].iter().map(|queue| (queue.stream.as_str(), queue.group.as_str()));
    assert_eq!(served.collect::<Vec<_>>(), [("orders:a", "work"), ("orders:b", "work")]);
    // Five attempts of at most ten minutes of back-off, each with five leases of ten seconds.
    let horizon = day + 5 * Duration::from_secs(600 + 5 * 10) + Duration::from_secs(600);
    assert_eq!(
        runs[0].iter().map(|queue| queue.horizon).collect::<Vec<_>>(),
        [Some(horizon), None]
    );
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_process_may_run_services_alone_if_it_says_so() {
    let (client, diary) = (Streams::new().client(), Diary::default());
    let noted = diary.clone();
    let service = move || {
        let noted = noted.clone();
        Scripted::new(move |_, context| {
            noted.note("run");
            async move { context.stop().cancelled().await }
        })
    };
    let runtime = Runtime::builder(&client).handlers([]).service(service()).start().await.unwrap();
    until("it runs", || diary.words() == ["run"]).await;
    assert!(runtime.health().is_healthy() && runtime.consumers().is_empty());
    let report = runtime.shutdown().await;
    assert!(report.abandoned.is_empty());
    let refused = Runtime::builder(&client).handlers([]).start().await.unwrap_err();
    assert!(matches!(refused, StartError::Handlers(_)), "nothing at all is a mistake: {refused}");
}
