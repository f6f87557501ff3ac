//! Limits over all processes: takes, ends, and the sweep.

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use streamjobs::__store::holds::{HoldRule, HoldScope};
use streamjobs::__store::{
    Delivery, FenceResult, Finished, HeldPlace, HoldSweep, Inlet, Left, LineFacts, StandIn,
    StoreError, SweepCursors, SweptHolds, Taken,
};
use streamjobs::config::Retention;
use streamjobs::{EntryId, Fields};

use super::{BoxError, Case, LEASE, Stage, append, fields};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! holds_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, holds:
            jobs_of_one_key_go_one_after_the_other_and_other_keys_beside_them,
            a_limit_of_two_admits_two_of_a_key,
            jobs_without_a_key_are_not_limited,
            keys_may_be_long_and_have_any_byte,
            a_job_keeps_its_place_while_it_waits_for_its_retry,
            a_place_that_is_given_back_lets_the_next_go_before_the_retry,
            a_job_that_another_consumer_claims_keeps_its_place,
            an_entry_that_is_delivered_again_after_the_group_was_lost_has_its_place,
            a_redriven_job_goes_behind_those_that_wait,
            a_limit_of_the_group_leaves_in_the_stream_what_it_does_not_admit,
            a_sweep_ends_the_places_of_jobs_that_are_gone_and_of_no_others,
            lines_go_on_without_a_limit_unless_a_live_process_has_one,
            a_group_with_lines_is_not_done_and_takes_them_along_when_it_is_removed,
            promotions_say_how_many_jobs_wait,
            the_job_for_which_a_line_waits_is_found_wherever_it_is,
            a_search_for_the_job_of_a_line_says_how_far_it_went,
        }
    };
}

pub(super) const KEY: HoldRule =
    HoldRule { scope: HoldScope::Key, limit: NonZeroU32::MIN, blocks: true, is_order: true };

pub(super) fn rule(scope: HoldScope, limit: u32) -> Result<HoldRule, BoxError> {
    let limit = NonZeroU32::new(limit).ok_or("a limit is at least one")?;
    Ok(HoldRule { scope, limit, blocks: false, is_order: false })
}

fn job(key: Option<&[u8]>, name: &str) -> Fields {
    let mut job = fields(name);
    let key = key.map(|key| (Bytes::from_static(b"sj-key"), Bytes::copy_from_slice(key)));
    job.extend(key);
    job
}

/// Publishes jobs, each named by its key and a word, as in `a:one`.
pub(super) async fn publish(stage: &Stage, jobs: &[&str]) -> Result<Vec<EntryId>, BoxError> {
    let entry = |text: &&str| match text.split_once(':') {
        Some((key, _)) => job(Some(key.as_bytes()), text),
        None => job(None, text),
    };
    let jobs = jobs.iter().map(entry).collect();
    let stored =
        append(stage.store.as_ref(), &stage.queue.stream, Retention::Unlimited, jobs).await;
    Ok(stored.into_iter().collect::<Result<_, _>>()?)
}

pub(super) async fn take(stage: &Stage, inlet: Inlet, rule: HoldRule) -> Result<Taken, BoxError> {
    Ok(stage.store.take(&stage.queue, &stage.me, inlet, 100, rule).await?)
}

pub(super) async fn finish(
    stage: &Stage,
    rule: HoldRule,
    of: &Delivery,
) -> Result<Finished, BoxError> {
    Ok(stage.store.finish(&stage.queue, rule, &[(of.inlet, of.entry.id())]).await?)
}

pub(super) fn names(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().filter_map(|delivery| delivery.entry.text("name")).collect()
}

pub(super) fn only(mut taken: Taken) -> Result<Delivery, BoxError> {
    let first = taken.deliveries.pop().ok_or("nothing was admitted")?;
    assert!(taken.deliveries.is_empty(), "{:?}", names(&taken.deliveries));
    Ok(first)
}

pub(super) async fn sweep(stage: &Stage, rule: Option<HoldRule>) -> Result<SweptHolds, BoxError> {
    let cursors = SweepCursors::default();
    Ok(stage.store.sweep_holds(&stage.queue, HoldSweep { rule, cursors }).await?)
}

/// Sweeps until everything has been examined. Returns how many jobs went on.
pub(super) async fn sweep_all(stage: &Stage, rule: HoldRule) -> Result<usize, BoxError> {
    let (mut cursors, mut fed) = (SweepCursors::default(), 0);
    while cursors != SweepCursors::END {
        let sweep = HoldSweep { rule: Some(rule), cursors };
        let swept = stage.store.sweep_holds(&stage.queue, sweep).await?;
        (cursors, fed) = (swept.cursors, fed + swept.fed);
    }
    Ok(fed)
}

/// Runs all jobs from the lane to their end. Returns their names in order.
pub(super) async fn drained(stage: &Stage, rule: HoldRule) -> Result<Vec<String>, BoxError> {
    let mut ran = Vec::new();
    loop {
        let taken = take(stage, Inlet::LANE, rule).await?;
        if taken.deliveries.is_empty() {
            return Ok(ran);
        }
        for delivery in &taken.deliveries {
            ran.extend(delivery.entry.text("name").map(str::to_owned));
            assert_eq!(finish(stage, rule, delivery).await?.acknowledged, 1);
        }
    }
}

/// Whether nothing is left of any limit.
pub(super) async fn is_empty(stage: &Stage, rule: HoldRule) -> Result<bool, BoxError> {
    let swept = sweep(stage, Some(rule)).await?;
    Ok((swept.ended, swept.fed, swept.parked) == (0, 0, 0)
        && stage.pending(Inlet::STREAM).is_empty()
        && stage.pending(Inlet::LANE).is_empty())
}

/// They run in the order of the stream. A job that waited has the id of its published entry.
pub async fn jobs_of_one_key_go_one_after_the_other_and_other_keys_beside_them(
    stage: &Stage,
) -> Case {
    let ids = publish(stage, &["a:1", "a:2", "b:1", "a:3"]).await?;
    let taken = take(stage, Inlet::STREAM, KEY).await?;
    assert_eq!((taken.left, taken.parked), (Left::Drained, 2));
    assert_eq!(names(&taken.deliveries), ["a:1", "b:1"]);
    assert_eq!(stage.pending(Inlet::STREAM).len(), 2, "those in a line are not pending");
    assert!(take(stage, Inlet::LANE, KEY).await?.deliveries.is_empty());
    let [a, b] = &taken.deliveries[..] else { return Err("two were admitted".into()) };
    assert_eq!(finish(stage, KEY, b).await?, Finished { acknowledged: 1, fed: 0 });
    assert_eq!(finish(stage, KEY, a).await?, Finished { acknowledged: 1, fed: 1 });
    publish(stage, &["a:4"]).await?;
    let behind = take(stage, Inlet::STREAM, KEY).await?;
    assert_eq!((behind.parked, behind.deliveries.len()), (1, 0), "the line goes first");
    let second = only(take(stage, Inlet::LANE, KEY).await?)?;
    assert_eq!(second.entry.text("name"), Some("a:2"));
    let origin = ids.get(1).map(ToString::to_string);
    assert_eq!(second.entry.text("sj-origin"), origin.as_deref());
    // Those without an event id have one that all of their other fields decide about.
    assert_eq!(second.entry.text("sj-since"), None);
    assert_eq!(second.entry.field("binary"), Some(&Bytes::from_static(b"\0\xff\r\n")));
    assert_eq!(finish(stage, KEY, &second).await?, Finished { acknowledged: 1, fed: 1 });
    assert_eq!(drained(stage, KEY).await?, ["a:3", "a:4"]);
    assert!(is_empty(stage, KEY).await?);
    Ok(())
}

/// A third job of the key waits.
pub async fn a_limit_of_two_admits_two_of_a_key(stage: &Stage) -> Case {
    let two = rule(HoldScope::Key, 2)?;
    publish(stage, &["a:1", "a:2", "a:3", "a:4", "b:1"]).await?;
    let taken = take(stage, Inlet::STREAM, two).await?;
    assert_eq!(names(&taken.deliveries), ["a:1", "a:2", "b:1"]);
    for delivery in &taken.deliveries {
        finish(stage, two, delivery).await?;
    }
    let fed = take(stage, Inlet::LANE, two).await?;
    assert_eq!(names(&fed.deliveries), ["a:3", "a:4"]);
    Ok(())
}

/// Jobs without a key have no order either.
pub async fn jobs_without_a_key_are_not_limited(stage: &Stage) -> Case {
    publish(stage, &["one", "two", ":three", ":four"]).await?;
    let taken = take(stage, Inlet::STREAM, KEY).await?;
    assert_eq!((names(&taken.deliveries).len(), taken.parked), (4, 0));
    for delivery in &taken.deliveries {
        assert_eq!(finish(stage, KEY, delivery).await?, Finished { acknowledged: 1, fed: 0 });
    }
    assert!(is_empty(stage, KEY).await?);
    Ok(())
}

/// Nothing about a key's text keeps a job from running.
pub async fn keys_may_be_long_and_have_any_byte(stage: &Stage) -> Case {
    let long = vec![b'x'; 100_000];
    let keys: [&[u8]; 6] = [b"1:a:", b"*", b"\0\xff\r\n", b"#", &long, b"[("];
    for key in keys {
        let jobs = vec![job(Some(key), "first"), job(Some(key), "second")];
        append(stage.store.as_ref(), &stage.queue.stream, Retention::Unlimited, jobs).await;
        let first = only(take(stage, Inlet::STREAM, KEY).await?)?;
        assert_eq!(finish(stage, KEY, &first).await?, Finished { acknowledged: 1, fed: 1 });
        let second = only(take(stage, Inlet::LANE, KEY).await?)?;
        assert_eq!(second.entry.field("sj-key").map(AsRef::as_ref), Some(key));
        assert_eq!(finish(stage, KEY, &second).await?, Finished { acknowledged: 1, fed: 0 });
    }
    assert!(is_empty(stage, KEY).await?);
    Ok(())
}

/// The retry of a job, with the field that says which entry has its place.
pub(super) fn retry_of(delivery: &Delivery) -> Fields {
    let source = if delivery.inlet.is_lane() { 'l' } else { 's' };
    let mut job = delivery.entry.fields().to_vec();
    job.retain(|(name, _)| name != "sj-held");
    let held = format!("{source}:{}", delivery.entry.id());
    job.push((Bytes::from_static(b"sj-held"), held.into()));
    job
}

pub(super) async fn fail(stage: &Stage, of: &Delivery, job: &Fields) -> Case {
    let (queue, me, delay) = (&stage.queue, &stage.me, Duration::ZERO);
    let scheduled = stage.store.schedule_retry(queue, me, of.hold(), None, delay, job).await?;
    assert_eq!(scheduled, FenceResult::Owned);
    Ok(())
}

pub(super) async fn promote(stage: &Stage) -> Result<usize, BoxError> {
    stage.pass(1).await?;
    Ok(stage.store.promote(&stage.queue, &stage.me, 100).await?.promoted)
}

/// The job keeps it through any number of retries, and while it is in the lane unread.
pub async fn a_job_keeps_its_place_while_it_waits_for_its_retry(stage: &Stage) -> Case {
    publish(stage, &["a:1", "a:2"]).await?;
    let mut running = only(take(stage, Inlet::STREAM, KEY).await?)?;
    for _ in 0..3 {
        fail(stage, &running, &retry_of(&running)).await?;
        assert_eq!(sweep(stage, Some(KEY)).await?.ended, 0, "it waits for its retry");
        assert_eq!(promote(stage).await?, 1);
        assert_eq!(sweep(stage, Some(KEY)).await?.ended, 0, "it is in the lane");
        running = only(take(stage, Inlet::LANE, KEY).await?)?;
        assert_eq!(running.entry.text("name"), Some("a:1"));
        assert_eq!(sweep(stage, Some(KEY)).await?.ended, 0, "it is pending");
    }
    assert_eq!(finish(stage, KEY, &running).await?, Finished { acknowledged: 1, fed: 1 });
    assert_eq!(drained(stage, KEY).await?, ["a:2"]);
    assert!(is_empty(stage, KEY).await?);
    Ok(())
}

/// The retry goes behind the jobs that wait by then.
pub async fn a_place_that_is_given_back_lets_the_next_go_before_the_retry(stage: &Stage) -> Case {
    publish(stage, &["a:1", "a:2", "a:3"]).await?;
    let first = only(take(stage, Inlet::STREAM, KEY).await?)?;
    fail(stage, &first, &first.entry.fields().to_vec()).await?;
    let skip = HoldRule { blocks: false, ..KEY };
    assert_eq!(sweep(stage, Some(skip)).await?.ended, 1, "as if its process had died");
    assert_eq!(drained(stage, KEY).await?, ["a:2", "a:3"]);
    assert_eq!(promote(stage).await?, 1);
    assert_eq!(drained(stage, KEY).await?, ["a:1"]);
    assert!(is_empty(stage, KEY).await?);
    publish(stage, &["a:1", "a:2", "a:3"]).await?;
    let first = only(take(stage, Inlet::STREAM, KEY).await?)?;
    fail(stage, &first, &first.entry.fields().to_vec()).await?;
    assert_eq!(finish(stage, KEY, &first).await?, Finished { acknowledged: 0, fed: 1 });
    assert_eq!(promote(stage).await?, 1);
    let taken = take(stage, Inlet::LANE, KEY).await?;
    assert_eq!((names(&taken.deliveries), taken.parked), (vec!["a:2"], 1));
    assert_eq!(finish(stage, KEY, &only(taken)?).await?, Finished { acknowledged: 1, fed: 1 });
    assert_eq!(drained(stage, KEY).await?, ["a:3", "a:1"]);
    assert!(is_empty(stage, KEY).await?);
    Ok(())
}

/// A hold belongs to the job.
pub async fn a_job_that_another_consumer_claims_keeps_its_place(stage: &Stage) -> Case {
    publish(stage, &["a:1", "a:2"]).await?;
    let first = only(take(stage, Inlet::STREAM, KEY).await?)?;
    stage.abandon(first.hold());
    let (_, claimed, _) = stage.claim_idle(&stage.other, EntryId::ZERO, 9).await?;
    let [claimed] = &claimed[..] else { return Err("it was not claimed".into()) };
    assert_eq!(sweep(stage, Some(KEY)).await?.ended, 0);
    assert!(take(stage, Inlet::LANE, KEY).await?.deliveries.is_empty());
    assert_eq!(finish(stage, KEY, claimed).await?, Finished { acknowledged: 1, fed: 1 });
    Ok(())
}

/// It is not put into its own line. Entries that are examined before it have no place: if the limit
/// counted jobs of dead processes, it would never admit theirs again.
pub async fn an_entry_that_is_delivered_again_after_the_group_was_lost_has_its_place(
    stage: &Stage,
) -> Case {
    publish(stage, &["a:1"]).await?;
    only(take(stage, Inlet::STREAM, KEY).await?)?;
    stage.raw.destroy_group(&stage.key(Inlet::STREAM), stage.queue.group.as_str());
    assert!(stage.store.recreate(&stage.queue).await?);
    let again = only(take(stage, Inlet::STREAM, KEY).await?)?;
    stage.raw.destroy_group(&stage.key(Inlet::STREAM), stage.queue.group.as_str());
    let lost = stage.store.take(&stage.queue, &stage.me, Inlet::STREAM, 9, KEY).await;
    assert!(matches!(lost, Err(StoreError::GroupMissing)), "{lost:?}");
    assert!(stage.store.recreate(&stage.queue).await?);
    assert_eq!(sweep(stage, Some(KEY)).await?.ended, 1);
    let once_more = only(take(stage, Inlet::STREAM, KEY).await?)?;
    assert_eq!(once_more.entry.id(), again.entry.id());
    assert_eq!(finish(stage, KEY, &again).await?, Finished { acknowledged: 1, fed: 0 });
    assert!(is_empty(stage, KEY).await?);
    Ok(())
}

/// It has no place from before the redrive.
pub async fn a_redriven_job_goes_behind_those_that_wait(stage: &Stage) -> Case {
    publish(stage, &["a:1", "a:2", "a:3"]).await?;
    let first = only(take(stage, Inlet::STREAM, KEY).await?)?;
    let (queue, me, letter) = (&stage.queue, &stage.me, first.entry.fields().to_vec());
    let stored = stage.store.store_dead_letter(queue, me, first.hold(), None, &letter).await?;
    assert_eq!(stored, FenceResult::Owned);
    assert_eq!(finish(stage, KEY, &first).await?, Finished { acknowledged: 0, fed: 1 });
    let letters = stage.store.dead_letters(queue, EntryId::ZERO, 9).await?;
    let [letter] = &letters[..] else { return Err("there is one dead letter".into()) };
    let job = first.entry.fields().to_vec();
    assert!(stage.store.redrive(queue, letter.id(), &job).await?.is_some());
    assert_eq!(drained(stage, KEY).await?, ["a:2", "a:3", "a:1"]);
    assert!(is_empty(stage, KEY).await?);
    Ok(())
}

/// This holds whatever keys the jobs have.
pub async fn a_limit_of_the_group_leaves_in_the_stream_what_it_does_not_admit(
    stage: &Stage,
) -> Case {
    let two = rule(HoldScope::Group, 2)?;
    publish(stage, &["a:1", "two", "b:3", "four"]).await?;
    let taken = take(stage, Inlet::STREAM, two).await?;
    assert_eq!((taken.left, taken.parked), (Left::Full, 0));
    assert_eq!(names(&taken.deliveries), ["a:1", "two"]);
    let full = take(stage, Inlet::STREAM, two).await?;
    assert_eq!((full.left, full.deliveries.len()), (Left::Full, 0));
    assert_eq!(stage.pending(Inlet::STREAM).len(), 2);
    let [one, _] = &taken.deliveries[..] else { return Err("two were admitted".into()) };
    finish(stage, two, one).await?;
    // A job that comes through the lane waits in a line, and goes before the jobs in the stream.
    let job = one.entry.fields().to_vec();
    let token = streamjobs::__store::dead_letters::RedriveToken::new("t")?;
    let request = streamjobs::__store::dead_letters::RedriveRequest { fields: job, token };
    let third = only(take(stage, Inlet::STREAM, two).await?)?;
    for answer in stage.store.redrive_archived(&stage.queue, &[request], LEASE).await {
        assert!(answer?.is_some());
    }
    assert_eq!(take(stage, Inlet::LANE, two).await?.parked, 1);
    assert_eq!(finish(stage, two, &third).await?, Finished { acknowledged: 1, fed: 1 });
    assert_eq!(take(stage, Inlet::STREAM, two).await?.left, Left::Full);
    assert_eq!(drained(stage, two).await?, ["a:1"]);
    assert_eq!(names(&take(stage, Inlet::STREAM, two).await?.deliveries), ["four"]);
    Ok(())
}

/// This test ends such a job by hand, for a key that has a line.
pub async fn a_sweep_ends_the_places_of_jobs_that_are_gone_and_of_no_others(stage: &Stage) -> Case {
    publish(stage, &["a:1", "a:2", "a:3", "b:1"]).await?;
    let taken = take(stage, Inlet::STREAM, KEY).await?;
    let [a, b] = &taken.deliveries[..] else { return Err("two were admitted".into()) };
    assert_eq!(stage.store.acknowledge(&stage.queue, &[(a.inlet, a.entry.id())]).await?, 1);
    let swept = sweep(stage, Some(KEY)).await?;
    assert_eq!((swept.ended, swept.fed, swept.parked), (1, 1, 1));
    let swept = sweep(stage, Some(KEY)).await?;
    assert_eq!((swept.ended, swept.fed, swept.parked), (0, 0, 1), "the next is in the lane");
    let second = only(take(stage, Inlet::LANE, KEY).await?)?;
    let removed = Some(StandIn::Removed);
    let letter = second.entry.fields().to_vec();
    let (queue, me) = (&stage.queue, &stage.me);
    stage.store.store_dead_letter(queue, me, second.hold(), removed, &letter).await?;
    let swept = sweep(stage, Some(KEY)).await?;
    assert_eq!((swept.ended, swept.fed, swept.parked), (1, 1, 0), "as if its process had died");
    assert_eq!(drained(stage, KEY).await?, ["a:3"]);
    assert_eq!(finish(stage, KEY, b).await?.acknowledged, 1);
    assert!(is_empty(stage, KEY).await?);
    Ok(())
}

/// Such lines remain from a version whose groups had a limit.
pub async fn lines_go_on_without_a_limit_unless_a_live_process_has_one(stage: &Stage) -> Case {
    publish(stage, &["a:1", "a:2", "a:3"]).await?;
    let first = only(take(stage, Inlet::STREAM, KEY).await?)?;
    let about = format!(r#"{{"beat_every":60000,"limits":"{}"}}"#, KEY.text());
    stage.store.heartbeat(&stage.queue, &stage.other, &about).await?;
    let swept = sweep(stage, None).await?;
    assert_eq!((swept.fed, swept.parked, swept.others), (0, 2, Some(KEY.text())));
    assert_eq!(sweep(stage, Some(KEY)).await?.others, None, "it says the same");
    stage.store.heartbeat(&stage.queue, &stage.other, r#"{"beat_every":60000}"#).await?;
    assert_eq!(sweep(stage, Some(KEY)).await?.others.as_deref(), Some("none"));
    let swept = sweep(stage, None).await?;
    assert_eq!((swept.fed, swept.parked, swept.others), (2, 0, None));
    let lane = stage.read(&stage.me, Inlet::LANE, 9).await?;
    assert_eq!(names(&lane), ["a:2", "a:3"]);
    let acks = [&first, &lane[0], &lane[1]].map(|delivery| (delivery.inlet, delivery.entry.id()));
    assert_eq!(stage.store.acknowledge(&stage.queue, &acks).await?, 3);
    assert!(is_empty(stage, KEY).await?, "nor has it left places");
    Ok(())
}

/// The first removal must not lose work; the second one may.
pub async fn a_group_with_lines_is_not_done_and_takes_them_along_when_it_is_removed(
    stage: &Stage,
) -> Case {
    use streamjobs::__store::admin::{Permitted, Unfinished};
    publish(stage, &["a:1", "a:2"]).await?;
    let first = only(take(stage, Inlet::STREAM, KEY).await?)?;
    stage.store.acknowledge(&stage.queue, &[(first.inlet, first.entry.id())]).await?;
    let kept = stage.store.destroy_group(&stage.queue, Unfinished::Keep).await?;
    assert!(matches!(kept, Permitted::Refused(_)), "{kept:?}");
    let removed = stage.store.destroy_group(&stage.queue, Unfinished::Lose).await?;
    assert!(matches!(removed, Permitted::Done), "{removed:?}");
    stage.store.prepare(&stage.queue, streamjobs::config::Start::End).await?;
    assert!(is_empty(stage, KEY).await?);
    Ok(())
}

/// A process without a limit gets the number too, and lets the jobs go on.
pub async fn promotions_say_how_many_jobs_wait(stage: &Stage) -> Case {
    let parked = async || -> Result<u64, BoxError> {
        Ok(stage.store.promote(&stage.queue, &stage.me, 0).await?.parked)
    };
    assert_eq!(parked().await?, 0);
    publish(stage, &["a:1", "a:2", "a:3"]).await?;
    let first = only(take(stage, Inlet::STREAM, KEY).await?)?;
    assert_eq!(parked().await?, 2);
    finish(stage, KEY, &first).await?;
    assert_eq!(parked().await?, 1);
    Ok(())
}

/// The job is running, waits for its retry, is on its way back, or was released by its process.
pub async fn the_job_for_which_a_line_waits_is_found_wherever_it_is(stage: &Stage) -> Case {
    let found = async || stage.store.line_holder(&stage.queue, 100).await;
    let place = async || -> Result<HeldPlace, BoxError> {
        let facts = found().await?.ok_or("no line")?;
        assert_eq!((facts.key.as_str(), facts.jobs), ("a", 2));
        assert_eq!((facts.looked, facts.complete), (2, true));
        Ok(facts.place.ok_or("no place")?)
    };
    let first = with_id(job(Some(b"a"), "a:1"), "e-1");
    let (store, stream) = (stage.store.as_ref(), &stage.queue.stream);
    let jobs = vec![job(Some(b"b"), "b:1"), first];
    append(store, stream, Retention::Unlimited, jobs)
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let mut taken = take(stage, Inlet::STREAM, KEY).await?.deliveries;
    assert_eq!(found().await?, None, "no job waits");
    publish(stage, &["a:2", "a:3"]).await?;
    assert_eq!(take(stage, Inlet::STREAM, KEY).await?.parked, 2);
    let running = taken.pop().ok_or("two were admitted")?;
    let expected = HeldPlace {
        inlet: Inlet::STREAM,
        entry: running.entry.id(),
        event_id: Some("e-1".to_owned()),
        consumer: Some(stage.me.to_string()),
        idle: place().await?.idle,
        due: None,
    };
    assert_eq!(place().await?.idle.map(|idle| idle < LEASE), Some(true));
    assert_eq!(HeldPlace { idle: expected.idle, ..place().await? }, expected);
    fail(stage, &running, &retry_of(&running)).await?;
    let waiting = place().await?;
    assert!(waiting.due.is_some(), "{waiting:?}");
    let nowhere = HeldPlace { consumer: None, idle: None, ..expected };
    assert_eq!(HeldPlace { due: None, ..waiting }, nowhere);
    assert_eq!(promote(stage).await?, 1);
    assert_eq!(place().await?, nowhere, "it is in the lane");
    let running = only(take(stage, Inlet::LANE, KEY).await?)?;
    let again = place().await?;
    assert_eq!((again.inlet, again.entry), (Inlet::LANE, running.entry.id()));
    assert_eq!(again.event_id.as_deref(), Some("e-1"));
    assert_eq!(again.consumer, Some(stage.me.to_string()));
    stage.store.release(&stage.queue, &stage.me, &[running.hold()]).await?;
    assert_eq!(place().await?.consumer.as_deref(), Some(""));
    Ok(())
}

/// If there are many places, the server examines only some of them.
pub async fn a_search_for_the_job_of_a_line_says_how_far_it_went(stage: &Stage) -> Case {
    let keys = (0..700).map(|number| format!("k{number}:1")).collect::<Vec<_>>();
    publish(stage, &keys.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    publish(stage, &["k7:2"]).await?;
    let (mut running, mut parked) = (0, 0);
    while running + parked < keys.len() + 1 {
        let taken = take(stage, Inlet::STREAM, KEY).await?;
        (running, parked) = (running + taken.deliveries.len(), parked + taken.parked);
    }
    assert_eq!(parked, 1);
    let look = async |places| -> Result<LineFacts, BoxError> {
        Ok(stage.store.line_holder(&stage.queue, places).await?.ok_or("no line")?)
    };
    let part = look(60).await?;
    assert!(!part.complete && (60..400).contains(&part.looked), "{part:?}");
    let whole = look(10_000).await?;
    assert_eq!((whole.looked, whole.complete), (700, true));
    assert!(whole.place.is_some_and(|place| place.consumer == Some(stage.me.to_string())));
    Ok(())
}

fn with_id(mut job: Fields, id: &'static str) -> Fields {
    job.push((Bytes::from_static(b"sj-id"), Bytes::from_static(id.as_bytes())));
    job
}
