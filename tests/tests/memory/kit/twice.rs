//! Jobs that are delivered once more after their success.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::config::GroupOptions;
use streamjobs::once::OnceMark;
use streamjobs::testing::Streams;
use streamjobs::unique::Unique;
use streamjobs::{Event, EventId, Job, JobError, Runtime, State, handler, handlers};

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", unique = "plan")]
struct Placed {
    plan: String,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(EventId, u32, u64)>>>);

impl Log {
    fn runs(&self) -> Vec<(u32, u64)> {
        self.0.lock().unwrap().iter().map(|(_, attempt, delivery)| (*attempt, *delivery)).collect()
    }
}

#[handler(group = "work", backoff = "1m")]
async fn work(order: Placed, job: Job, State(log): State<Log>) -> Result<(), JobError> {
    log.0.lock().unwrap().push((job.event_id().clone(), job.attempt(), job.delivery_count()));
    let is_again = log.0.lock().unwrap().len() > 1;
    match order.plan.as_str() {
        "fails first" if job.attempt() == 1 => Err("not yet".into()),
        "is not idempotent" if is_again && job.attempt() == 1 => Err("charged before".into()),
        _ => Ok(()),
    }
}

#[handler(group = "mails", timeout = "1m")]
async fn mail(_order: Placed, _mark: &mut OnceMark, job: Job, State(log): State<Log>) {
    log.0.lock().unwrap().push((job.event_id().clone(), job.attempt(), job.delivery_count()));
}

#[handler(group = "careful", max_deliveries = 1)]
async fn careful(_order: Placed) {}

fn placed(plan: &str) -> Placed {
    Placed { plan: plan.to_owned() }
}

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn each_job_runs_once_more_as_a_redelivery_of_the_same_event() {
    let (streams, log) = (Streams::new(), Log::default());
    streams.deliver_twice();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(log.clone());
    let runtime = builder.start().await.unwrap();
    let id = client.publish(&placed("fine")).await.unwrap().event_id;
    let drained = streams.drain(Duration::ZERO).await.unwrap();
    assert_eq!((drained.done, drained.repeated), (1, 1));
    assert_eq!(log.runs(), [(1, 1), (1, 2)]);
    assert!(log.0.lock().unwrap().iter().all(|(event, ..)| *event == id));
    assert!(drained.took < Duration::from_secs(15), "{:?}", drained.took);
    assert_eq!(streams.drain(HOUR).await.unwrap().repeated, 0, "and no third time");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_succeeds_at_its_retry_is_repeated_then_and_only_then() {
    let (streams, log) = (Streams::new(), Log::default());
    streams.deliver_twice();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(log.clone());
    let runtime = builder.start().await.unwrap();
    client.publish(&placed("fails first")).await.unwrap();
    let drained = streams.drain(HOUR).await.unwrap();
    assert_eq!((drained.done, drained.failed, drained.repeated), (1, 1, 1));
    assert_eq!(log.runs(), [(1, 1), (2, 1), (2, 2)]);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_not_idempotent_shows_itself() {
    let (streams, log) = (Streams::new(), Log::default());
    streams.deliver_twice();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(log.clone());
    let runtime = builder.start().await.unwrap();
    client.publish(&placed("is not idempotent")).await.unwrap();
    let drained = streams.drain(HOUR).await.unwrap();
    assert_eq!((drained.done, drained.failed, drained.repeated), (1, 1, 1));
    assert_eq!(log.runs(), [(1, 1), (1, 2), (2, 1)], "it failed the second time and was retried");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_guard_skips_the_second_delivery_and_limits_see_it() {
    let (streams, log) = (Streams::new(), Log::default());
    streams.deliver_twice();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![mail, careful]).state(log.clone());
    let runtime = builder.start().await.unwrap();
    client.publish(&placed("fine")).await.unwrap();
    let drained = streams.drain(HOUR).await.unwrap();
    assert_eq!((drained.done, drained.repeated, log.runs()), (1, 2, vec![(1, 1)]));
    assert_eq!(runtime.counters().claimed, 2);
    let letter = &drained.dead_letters[0];
    assert_eq!((letter.group.as_str(), letter.letter.reason.as_str()), ("careful", "crashed"));
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_lock_of_a_unique_event_ends_with_the_second_success() {
    let (streams, log) = (Streams::new(), Log::default());
    streams.deliver_twice();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(log.clone());
    let runtime = builder.start().await.unwrap();
    let until_done = || Unique::until_done("work", HOUR);
    let publish = async || client.publish_unique(&until_done(), &placed("fine")).await.unwrap();
    publish().await;
    streams.advance(Duration::from_secs(1)).await;
    assert_eq!(log.runs().len(), 2, "the call waits for the second delivery");
    publish().await;
    let drained = streams.drain(Duration::ZERO).await.unwrap();
    assert_eq!((drained.done, log.runs().len()), (1, 4));
    let _ = runtime.shutdown().await;
}

/// The steps that end a job with a limit are others, and a lock has one more.
#[tokio::test(start_paused = true)]
async fn a_job_of_a_limited_group_is_repeated_as_any_other() {
    for (is_unique, plan, runs) in [
        (false, "fine", vec![(1, 1), (1, 2)]),
        (false, "fails first", vec![(1, 1), (2, 1), (2, 2)]),
        (true, "fine", vec![(1, 1), (1, 2)]),
        (true, "fails first", vec![(1, 1), (2, 1), (2, 2)]),
    ] {
        let (streams, log) = (Streams::new(), Log::default());
        streams.deliver_twice();
        let client = streams.client();
        let builder = Runtime::builder(&client).handlers(handlers![work]).state(log.clone());
        let limited = GroupOptions::new().concurrency_total(NonZeroU32::new(2).unwrap());
        let runtime = builder.group("work", limited).start().await.unwrap();
        if is_unique {
            let until_done = Unique::until_done("work", HOUR);
            client.publish_unique(&until_done, &placed(plan)).await.unwrap();
        } else {
            client.publish(&placed(plan)).await.unwrap();
        }
        let drained = streams.drain(HOUR).await.unwrap();
        let case = format!("{plan}, unique: {is_unique}");
        assert_eq!((drained.done, drained.repeated, log.runs()), (1, 1, runs), "{case}");
        let _ = runtime.shutdown().await;
    }
}
