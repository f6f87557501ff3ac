//! The past attempts of jobs that do not end well at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::dead_letter::AttemptHistory;
use streamjobs::stream::{JobReport, JobState};
use streamjobs::testing::Streams;
use streamjobs::{Client, Event, EventId, Job, JobError, ResultExt, Runtime, handler, handlers};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct Order {
    /// What its attempts do, one after another; the last one is repeated.
    plan: Vec<String>,
}

#[handler(group = "billing", max_attempts = 14, backoff = "1m", timeout = "5s")]
async fn charge(order: Order, job: Job) -> Result<(), JobError> {
    let failures = job.attempt() as usize - 1;
    tokio::time::advance(Duration::from_millis(3_200)).await;
    match order.plan.get(failures).or(order.plan.last()).map_or("done", String::as_str) {
        "done" => Ok(()),
        "panic" => panic!("a bug"),
        "hang" => std::future::pending().await,
        "snooze" if job.is_first_delivery() => Err("locked").later(Duration::from_secs(60)),
        "limit" => Err("429").limited(Duration::from_secs(60)),
        "reject" => Err("not a card").dead(),
        error => Err(error.to_owned().into()),
    }
}

async fn publish(client: &Client, plan: &[&str]) -> EventId {
    let plan = plan.iter().map(|&word| word.to_owned()).collect();
    client.publish(&Order { plan }).await.unwrap().event_id
}

async fn job(client: &Client, id: &EventId) -> JobReport {
    client.stream("orders").unwrap().event(id).await.unwrap().jobs.remove(0)
}

fn told(history: &AttemptHistory) -> Vec<(u32, &'static str, Option<&str>)> {
    let attempts = history.attempts.iter();
    attempts.map(|past| (past.attempt, past.end.as_str(), past.error.as_deref())).collect()
}

#[tokio::test(start_paused = true)]
async fn each_attempt_says_how_it_ended_and_a_redriven_job_goes_on() {
    let streams = Streams::new();
    let client = streams.client();
    let runtime =
        Runtime::builder(&client).handlers(handlers![self::charge]).start().await.unwrap();
    let done = publish(&client, &["done"]).await;
    let failing = publish(&client, &["the card was declined", "panic", "hang", "reject"]).await;
    streams.drain(Duration::from_secs(30)).await.unwrap();
    assert!(job(&client, &done).await.attempts.is_empty(), "a success leaves nothing");

    let waiting = job(&client, &failing).await;
    let JobState::Retrying(retry) = &waiting.state else { panic!("{waiting:?}") };
    let [first] = &waiting.attempts.attempts[..] else { panic!("{waiting:?}") };
    assert_eq!((first.attempt, first.end.as_str(), first.lost_before()), (1, "failed", 0));
    assert_eq!(first.error.as_deref(), Some("the card was declined"));
    assert_eq!(first.retry_at, Some(retry.due));
    assert!(first.took >= Duration::from_millis(3_200), "{first:?}");
    assert!(first.took < Duration::from_secs(5), "{first:?}");
    let consumers = client.stream("orders").unwrap().group("billing").unwrap();
    let consumers = consumers.consumers().await.unwrap();
    assert_eq!(first.process, consumers[0].name);

    streams.drain(Duration::from_secs(3_600)).await.unwrap();
    let dead = job(&client, &failing).await;
    let JobState::Dead(letter) = &dead.state else { panic!("{dead:?}") };
    let expected = [
        (1, "failed", Some("the card was declined")),
        (2, "panicked", Some("the handler panicked: a bug")),
        (3, "timed_out", Some("the handler ran for longer than 5s")),
        (4, "rejected", Some("not a card")),
    ];
    assert_eq!(told(&dead.attempts), expected);
    let began = dead.attempts.attempts.iter().map(|past| past.began);
    assert!(began.is_sorted(), "{dead:?}");
    let letters = client.dead_letters("orders", "billing").unwrap();
    let whole = letters.get(letter.address()).await.unwrap();
    assert_eq!(whole.history, dead.attempts);

    // The error may quote a payload.
    assert!(!format!("{dead:?}").contains("the handler panicked"), "{dead:?}");
    letters.redrive(letter.address()).await.unwrap();
    streams.drain(Duration::from_secs(30)).await.unwrap();
    let again = job(&client, &failing).await;
    let last = (1, "failed", Some("the card was declined"));
    assert_eq!(told(&again.attempts), [&expected[..], &[last]].concat());
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn snoozes_are_told_apart_and_only_the_last_ten_attempts_are_kept() {
    let streams = Streams::new();
    let client = streams.client();
    let runtime =
        Runtime::builder(&client).handlers(handlers![self::charge]).start().await.unwrap();
    let snoozed = publish(&client, &["snooze"]).await;
    streams.drain(Duration::from_secs(30)).await.unwrap();
    let waiting = job(&client, &snoozed).await;
    assert_eq!(told(&waiting.attempts), [(1, "snoozed", Some("locked"))]);
    let failing = publish(&client, &["no"]).await;
    streams.drain(Duration::from_secs(36_000)).await.unwrap();
    let dead = job(&client, &failing).await;
    assert!(matches!(dead.state, JobState::Dead(_)), "{dead:?}");
    assert_eq!((dead.attempts.attempts.len(), dead.attempts.left_out), (10, 4));
    let numbers = dead.attempts.attempts.iter().map(|past| past.attempt);
    assert_eq!(numbers.collect::<Vec<_>>(), (5..=14).collect::<Vec<_>>());
    let limited = publish(&client, &["limit"]).await;
    streams.drain(Duration::from_secs(30)).await.unwrap();
    assert_eq!(told(&job(&client, &limited).await.attempts), [(1, "limited", Some("429"))]);
    let _ = runtime.shutdown().await;
}
