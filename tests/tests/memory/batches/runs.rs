//! When a run begins, and what becomes of its jobs.

use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::config::{GroupOptions, Retention};
use streamjobs::dead_letter::Reason;
use streamjobs::middleware::Next;
use streamjobs::testing::{Next as After, perform};
use streamjobs::{Fields, Job, Runtime, StreamName, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::Instant;

use super::{Log, Page, Stage, audited, indexed, pages};

#[tokio::test(start_paused = true)]
async fn a_run_begins_when_it_is_full_or_its_first_job_has_waited() {
    let stage = Stage::new();
    stage.publish(&[("fine", 230)]).await;
    let begun = Instant::now();
    let runtime = stage.start().await;
    stage.until_done(&runtime, "search", 230).await;
    let mut sizes = stage.log.sizes();
    let last = stage.log.0.lock().unwrap().runs[2].1 - begun;
    sizes.sort_unstable();
    assert_eq!((sizes, stage.log.done()), (vec![30, 100, 100], pages(0..230)));
    let wait = Duration::from_secs(2);
    assert!(last >= wait && last < wait * 2, "{last:?}");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_hundred_jobs_one_poison_is_dead_and_the_others_run_twice_at_most() {
    for plan in ["fail", "panic", "hang"] {
        let stage = Stage::new();
        stage.publish(&[("fine", 50), (plan, 1), ("fine", 49)]).await;
        let runtime = stage.start().await;
        let ended = async || stage.letters("search").await.len() == 1;
        eventually_async(Duration::from_secs(600), "the poison is dead", ended).await;
        stage.until_done(&runtime, "search", 99).await;
        let letter = stage.letters("search").await.remove(0);
        assert_eq!((letter.reason, letter.attempts), (Reason::Exhausted, 2), "{plan}");
        let expected = pages(0..50).into_iter().chain(51..100).collect::<Vec<_>>();
        assert_eq!(stage.log.done(), expected, "{plan}");
        assert!(expected.iter().all(|page| stage.log.runs_of(*page) <= 2), "{plan}");
        assert_eq!(runtime.counters().failed, 2, "{plan}: the attempts of the poison alone count");
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_counts_for_no_job_that_is_done_alone() {
    let stage = Stage::new();
    stage.publish(&[("fine", 5), ("fail once", 1)]).await;
    let runtime = stage.start().await;
    stage.until_done(&runtime, "search", 6).await;
    let counters = runtime.counters();
    assert_eq!((counters.failed, counters.snoozed), (0, 0));
    assert_eq!(stage.log.sizes(), [6, 1, 1, 1, 1, 1, 1]);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_the_handler_fails_ends_by_its_own_error_and_the_others_are_done() {
    let stage = Stage::new();
    stage.publish(&[("fine", 3), ("mark", 1), ("fine", 3)]).await;
    let runtime = stage.start().await;
    stage.until_done(&runtime, "search", 6).await;
    let ended = async || stage.letters("search").await.len() == 1;
    eventually_async(Duration::from_secs(600), "it has failed twice", ended).await;
    let letter = stage.letters("search").await.remove(0);
    assert_eq!((letter.attempts, letter.error.as_deref()), (2, Some("not this one")));
    assert_eq!(stage.log.sizes(), [7, 1], "its second attempt is alone");
    assert_eq!(stage.log.done(), [0, 1, 2, 4, 5, 6]);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_run_puts_off_comes_back_together_and_counts_as_no_failure() {
    let stage = Stage::new();
    stage.publish(&[("fine", 9), ("busy", 1)]).await;
    let runtime = stage.start().await;
    stage.until_done(&runtime, "search", 10).await;
    let counters = runtime.counters();
    assert_eq!((counters.snoozed, counters.failed), (10, 0));
    assert_eq!(stage.log.sizes(), [10, 10]);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_is_dead_and_keeps_no_other_from_its_run() {
    let stage = Stage::new();
    let raw = |payload: &str| {
        let fields = [("type", "page.changed"), ("payload", payload)];
        fields.into_iter().map(|(name, value)| (name.into(), value.to_owned().into())).collect()
    };
    let stream = StreamName::new("pages").unwrap();
    let store = streamjobs::__store::of(&stage.client);
    let fields: Fields = raw("no page");
    store.append_one(&stream, Retention::Unlimited, fields).await.unwrap();
    stage.publish(&[("fine", 4)]).await;
    let runtime = stage.start().await;
    stage.until_done(&runtime, "search", 4).await;
    let letters = stage.letters("search").await;
    assert_eq!(
        letters.iter().map(|letter| letter.reason).collect::<Vec<_>>(),
        [Reason::Undecodable]
    );
    assert_eq!(stage.log.sizes(), [4]);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_process_leaves_runs_alone() {
    let stage = Stage::new();
    stage.publish(&[("fine", 3), ("hang once", 1)]).await;
    let dead = stage.start().await;
    let begun = async || stage.log.sizes() == [4];
    eventually_async(Duration::from_secs(60), "the run has begun", begun).await;
    drop(dead);
    let runtime = stage.start().await;
    stage.until_done(&runtime, "search", 4).await;
    assert_eq!(stage.log.sizes(), [4, 1, 1, 1, 1]);
    assert_eq!(stage.log.done(), pages(0..4));
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_no_further_job_and_ends_what_has_begun() {
    let stage = Stage::new();
    let runtime = stage.start().await;
    stage.publish(&[("fine", 3)]).await;
    let read = async || stage.streams.pending("pages", "search").len() == 3;
    eventually_async(Duration::from_secs(60), "the jobs have begun", read).await;
    let stopped = Instant::now();
    let report = runtime.shutdown().await;
    assert!(stopped.elapsed() < Duration::from_secs(1), "{:?}", stopped.elapsed());
    assert_eq!((stage.log.sizes(), stage.log.done()), (vec![3], pages(0..3)), "{report:?}");
    assert!(stage.streams.pending("pages", "search").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_a_stop_ends_is_handed_back_uncounted() {
    let stage = Stage::new();
    stage.publish(&[("fine", 2), ("hang once", 1)]).await;
    let runtime = stage.start().await;
    let begun = async || stage.log.sizes() == [3];
    eventually_async(Duration::from_secs(60), "the run has begun", begun).await;
    let _ = runtime.shutdown().await;
    assert_eq!(stage.log.done(), [0; 0]);
    let counts = stage.streams.pending("pages", "search");
    assert!(counts.iter().all(|(.., deliveries)| *deliveries == 0), "{counts:?}");
    assert_eq!(counts.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_leaves_its_run_and_the_others_are_done() {
    let stage = Stage::new();
    stage.publish(&[("slow", 3)]).await;
    let runtime = stage.start().await;
    let begun = async || stage.log.sizes() == [3];
    eventually_async(Duration::from_secs(60), "the run has begun", begun).await;
    let stream = stage.client.stream("pages").unwrap();
    let first = stage.streams.published::<Page>().unwrap().remove(0);
    stream.cancel(&first.event_id).await.unwrap();
    stage.until_done(&runtime, "search", 2).await;
    let letters = stage.letters("search").await;
    assert_eq!((letters.len(), letters[0].reason), (1, Reason::Cancelled));
    assert_eq!(stage.log.sizes(), [3], "no job has run again");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_cancelled_in_a_failed_run_does_not_begin_again() {
    let stage = Stage::new();
    stage.publish(&[("until cancelled", 1), ("fine", 2)]).await;
    let runtime = stage.start().await;
    let begun = async || stage.log.sizes() == [3];
    eventually_async(Duration::from_secs(60), "the run has begun", begun).await;
    let first = stage.streams.published::<Page>().unwrap().remove(0);
    stage.client.stream("pages").unwrap().cancel(&first.event_id).await.unwrap();
    stage.until_done(&runtime, "search", 2).await;
    assert_eq!((stage.log.sizes(), stage.log.runs_of(0)), (vec![3, 1, 1], 1));
    let letters = stage.letters("search").await;
    assert_eq!((letters.len(), letters[0].reason), (1, Reason::Cancelled));
    let _ = runtime.shutdown().await;
}

/// What is committed is done, also for a job that is cancelled meanwhile.
#[tokio::test(start_paused = true)]
async fn middleware_is_around_each_job_and_a_run_takes_entries_too() {
    let stage = Stage::new();
    let log = stage.log.clone();
    let around = move |job: Job, next: Next| {
        let log = log.clone();
        async move {
            let result = next.run().await;
            log.note(format!("{} {}", job.delivery_count(), result.is_ok()));
            result
        }
    };
    stage.publish(&[("fine", 3)]).await;
    let builder = Runtime::builder(&stage.client).handlers(handlers![audited]).around(around);
    let runtime = builder.state(stage.log.clone()).start().await.unwrap();
    stage.until_done(&runtime, "audit", 3).await;
    let expected = ["page.changed page.changed page.changed", "1 true", "1 true", "1 true"];
    assert_eq!(stage.log.notes(), expected);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_never_full_and_a_long_wait_are_refused() {
    let stage = Stage::new();
    let ten = NonZeroU32::new(10).unwrap();
    let options = GroupOptions::new().concurrency(ten).lease(Duration::from_secs(3));
    let error = stage.builder().group("search", options).start().await.unwrap_err().to_string();
    for part in ["indexed", "batch = 100", "runs 10 jobs at once", "waits 2s", "(1s)"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_test_performs_one_event_without_a_wait() {
    let (log, begun) = (Log::default(), Instant::now());
    let page = |plan: &str| Page { number: 7, plan: plan.to_owned() };
    let performed = perform::<indexed>(&page("fine")).state(log.clone()).await.unwrap();
    assert_eq!(performed.next, After::Done);
    let failed = perform::<indexed>(&page("mark")).state(log.clone()).await.unwrap();
    assert!(matches!(failed.next, After::Retry { error, .. } if error == "not this one"));
    assert_eq!((log.done(), begun.elapsed()), (vec![7], Duration::ZERO));
}
