//! Results of jobs.

use std::time::Duration;

use bytes::Bytes;
use streamjobs::__store::{DeadSign, Queue, ResultFacts, ResultKept, StoredResult};
use streamjobs::{EventId, GroupName};

use super::{BoxError, Case, LEASE, Stage};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! results_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, results:
            the_first_result_of_a_job_stays,
            a_result_is_forgotten_when_its_time_is_over,
            a_dead_letter_has_a_sign_until_it_runs_again_or_is_done,
            results_belong_to_one_group_and_are_shown_without_what_is_in_them,
        }
    };
}

fn id() -> Result<EventId, BoxError> {
    Ok(EventId::new("o-1:{x}")?)
}

async fn keep(stage: &Stage, json: &'static str, keep: Duration) -> Result<ResultKept, BoxError> {
    let json = Bytes::from_static(json.as_bytes());
    Ok(stage.store.keep_result(&stage.queue, &id()?, &json, keep).await?)
}

async fn kept(stage: &Stage) -> Result<Option<StoredResult>, BoxError> {
    Ok(stage.store.result(&stage.queue, &id()?).await?)
}

fn json(text: &'static str) -> Option<StoredResult> {
    Some(StoredResult::Json(Bytes::from_static(text.as_bytes())))
}

/// A repeated run does not change a result that others may have seen.
pub async fn the_first_result_of_a_job_stays(stage: &Stage) -> Case {
    assert_eq!(kept(stage).await?, None);
    assert_eq!(keep(stage, "{\"cents\":7}", LEASE).await?, ResultKept::Kept);
    assert_eq!(keep(stage, "8", LEASE).await?, ResultKept::Present);
    assert_eq!(keep(stage, "{\"cents\":7}", LEASE).await?, ResultKept::Present);
    assert_eq!(kept(stage).await?, json("{\"cents\":7}"));
    assert!(!format!("{:?}", kept(stage).await?).contains("cents"), "no result in Debug");
    Ok(())
}

/// Every result expires, whatever time was asked for.
pub async fn a_result_is_forgotten_when_its_time_is_over(stage: &Stage) -> Case {
    keep(stage, "1", Duration::ZERO).await?;
    stage.pass(5).await?;
    assert_eq!(kept(stage).await?, None);
    assert_eq!(keep(stage, "2", Duration::MAX).await?, ResultKept::Kept);
    assert_eq!(kept(stage).await?, json("2"));
    Ok(())
}

/// A result replaces the sign, and the sign never replaces a result.
pub async fn a_dead_letter_has_a_sign_until_it_runs_again_or_is_done(stage: &Stage) -> Case {
    let (store, queue, id) = (&stage.store, &stage.queue, id()?);
    let sign = DeadSign { reason: "exhausted", error: Some("no\nprice") };
    let dead = || {
        let (reason, error) = ("exhausted".to_owned(), Some("no\nprice".to_owned()));
        Some(StoredResult::Dead { reason, error })
    };
    store.unsign_dead(queue, &id).await?;
    store.sign_dead(queue, &id, &sign, LEASE).await?;
    store.sign_dead(queue, &id, &sign, LEASE).await?;
    assert_eq!(kept(stage).await?, dead());
    let facts = store.result_facts(&queue.stream, std::slice::from_ref(&queue.group), &id).await?;
    assert_eq!(facts, [None], "a sign is no result");
    store.unsign_dead(queue, &id).await?;
    assert_eq!(kept(stage).await?, None);
    store.sign_dead(queue, &id, &sign, LEASE).await?;
    assert_eq!(keep(stage, "7", LEASE).await?, ResultKept::Kept);
    store.sign_dead(queue, &id, &sign, LEASE).await?;
    store.unsign_dead(queue, &id).await?;
    assert_eq!(kept(stage).await?, json("7"));
    Ok(())
}

/// Another group has a result of its own on the same event.
pub async fn results_belong_to_one_group_and_are_shown_without_what_is_in_them(
    stage: &Stage,
) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let [other, third] = [GroupName::new("other")?, GroupName::new("third")?];
    let groups = [stage.queue.group.clone(), other.clone(), third];
    keep(stage, "[1,2]", LEASE).await?;
    let of_other = Queue { stream: stream.clone(), group: other };
    store.keep_result(&of_other, &id()?, &Bytes::from_static(b"\"y\""), LEASE * 2).await?;
    assert_eq!(kept(stage).await?, json("[1,2]"));
    assert_eq!(store.result(&of_other, &id()?).await?, json("\"y\""));
    let facts = store.result_facts(stream, &groups, &id()?).await?;
    let [Some(one), Some(two), None] = facts.as_slice() else {
        return Err(format!("two of three: {facts:?}").into());
    };
    let within = |facts: &ResultFacts, most| facts.rest <= most && facts.rest > most / 2;
    assert!(one.bytes == Some(5) && within(one, LEASE), "{one:?}");
    assert!(two.bytes == Some(3) && within(two, LEASE * 2), "{two:?}");
    assert_eq!(store.result_facts(stream, &[], &id()?).await?, []);
    let unknown = store.result_facts(stream, &groups, &EventId::new("o-2")?).await?;
    assert_eq!(unknown, [None, None, None]);
    Ok(())
}
