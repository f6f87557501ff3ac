//! Fair shares of keys: which jobs a take hands out, and that no job waits while a slot is free.

use std::num::NonZeroU32;

use bytes::Bytes;
use streamjobs::__store::holds::{HoldRule, HoldScope};
use streamjobs::__store::{Delivery, Finished, HoldSweep, Inlet, Left, SweepCursors, Taken};
use streamjobs::EntryId;
use streamjobs::config::Retention;

use super::holds::{names, publish};
use super::{BoxError, Case, Stage, append, fields};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! shares_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, shares:
            the_key_with_the_fewest_jobs_in_flight_is_next,
            keys_with_as_many_in_flight_take_turns,
            a_key_is_found_behind_many_jobs_of_another,
            no_slot_stays_free_while_a_job_waits,
            jobs_without_a_key_have_one_share,
            jobs_that_come_back_have_the_share_of_their_key,
            an_entry_delivered_again_beyond_the_free_slots_gives_its_place_back,
            lines_from_before_the_shares_get_theirs,
            an_end_that_is_told_twice_counts_once,
            a_job_that_waits_says_since_when,
        }
    };
}

const SHARE: HoldRule =
    HoldRule { scope: HoldScope::Share, limit: NonZeroU32::MAX, blocks: false, is_order: false };

async fn take(stage: &Stage, slots: usize) -> Result<Taken, BoxError> {
    Ok(stage.store.take(&stage.queue, &stage.me, Inlet::STREAM, slots, SHARE).await?)
}

async fn finish(stage: &Stage, of: &[Delivery]) -> Result<Finished, BoxError> {
    let places = of.iter().map(|of| (of.inlet, of.entry.id())).collect::<Vec<_>>();
    Ok(stage.store.finish(&stage.queue, SHARE, &places).await?)
}

/// Runs jobs one after the other in one slot until none is left. Returns their names in order.
async fn one_by_one(stage: &Stage) -> Result<Vec<String>, BoxError> {
    let mut ran = Vec::new();
    loop {
        let taken = take(stage, 1).await?;
        if taken.deliveries.is_empty() && taken.left == Left::Drained {
            return Ok(ran);
        }
        ran.extend(names(&taken.deliveries).into_iter().map(str::to_owned));
        assert_eq!(finish(stage, &taken.deliveries).await?.acknowledged, taken.deliveries.len());
    }
}

/// Asserts that no shares and no jobs are left.
async fn assert_empty(stage: &Stage) -> Case {
    let cursors = SweepCursors::default();
    let swept =
        stage.store.sweep_holds(&stage.queue, HoldSweep { rule: Some(SHARE), cursors }).await?;
    assert_eq!((swept.ended, swept.fed, swept.parked), (0, 0, 0));
    assert!(stage.pending(Inlet::STREAM).is_empty() && stage.pending(Inlet::LANE).is_empty());
    Ok(())
}

/// This holds whatever comes first in the stream.
pub async fn the_key_with_the_fewest_jobs_in_flight_is_next(stage: &Stage) -> Case {
    let ids = publish(stage, &["a:1", "a:2", "a:3", "a:4", "b:1", "b:2"]).await?;
    let first = take(stage, 2).await?;
    assert_eq!((names(&first.deliveries), first.parked), (vec!["a:1", "b:1"], 4));
    assert_eq!(stage.pending(Inlet::STREAM).len(), 2, "those that wait are not pending");
    let [a, b] = &first.deliveries[..] else { return Err("two were handed out".into()) };
    assert_eq!(finish(stage, std::slice::from_ref(b)).await?, Finished { acknowledged: 1, fed: 0 });
    let second = take(stage, 1).await?;
    assert_eq!(names(&second.deliveries), ["b:2"], "a has one in flight");
    let [b] = &second.deliveries[..] else { return Err("one was handed out".into()) };
    assert_eq!(b.inlet, Inlet::LANE);
    let origin = ids.get(5).map(ToString::to_string);
    assert_eq!(b.entry.text("sj-origin"), origin.as_deref());
    assert_eq!(b.entry.field("binary"), Some(&Bytes::from_static(b"\0\xff\r\n")));
    finish(stage, std::slice::from_ref(a)).await?;
    assert_eq!(names(&take(stage, 2).await?.deliveries), ["a:2", "a:3"]);
    assert_eq!(names(&take(stage, 9).await?.deliveries), ["a:4"]);
    assert_eq!(take(stage, 9).await?.left, Left::Drained);
    Ok(())
}

/// This holds even if each job ends before the next one is asked for. The jobs of a key keep their
/// order.
pub async fn keys_with_as_many_in_flight_take_turns(stage: &Stage) -> Case {
    publish(stage, &["a:1", "a:2", "a:3", "a:4", "b:1", "b:2", "c:1"]).await?;
    let ran = one_by_one(stage).await?;
    assert_eq!(ran, ["a:1", "b:1", "c:1", "a:2", "b:2", "a:3", "a:4"]);
    assert_empty(stage).await
}

/// The stream has more entries than one take reads ahead.
pub async fn a_key_is_found_behind_many_jobs_of_another(stage: &Stage) -> Case {
    let noisy = (0..900).map(|number| format!("a:{number}")).collect::<Vec<_>>();
    publish(stage, &noisy.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    publish(stage, &["b:1", "b:2"]).await?;
    let ran = one_by_one(stage).await?;
    assert_eq!(ran.len(), 902);
    let late = ran.iter().position(|name| name == "b:2");
    assert!(late.is_some_and(|place| place < 8), "{late:?}");
    assert_empty(stage).await
}

/// The same holds for a slot of another process.
pub async fn no_slot_stays_free_while_a_job_waits(stage: &Stage) -> Case {
    publish(stage, &["a:1", "a:2", "a:3", "a:4", "a:5"]).await?;
    let first = take(stage, 1).await?;
    assert_eq!((names(&first.deliveries), first.parked), (vec!["a:1"], 4));
    let others = stage.store.take(&stage.queue, &stage.other, Inlet::LANE, 9, SHARE).await?;
    assert_eq!(names(&others.deliveries), ["a:2", "a:3", "a:4", "a:5"]);
    publish(stage, &["a:6", "b:1"]).await?;
    let more = take(stage, 9).await?;
    assert_eq!((names(&more.deliveries), more.left), (vec!["b:1", "a:6"], Left::Drained));
    for taken in [first, others, more] {
        finish(stage, &taken.deliveries).await?;
    }
    assert_empty(stage).await
}

/// All of them together have one share.
pub async fn jobs_without_a_key_have_one_share(stage: &Stage) -> Case {
    publish(stage, &["one", "two", "three", "a:1", "a:2"]).await?;
    assert_eq!(one_by_one(stage).await?, ["one", "a:1", "two", "a:2", "three"]);
    assert_empty(stage).await
}

/// The job that comes back is a redriven dead letter; a retry would do the same.
pub async fn jobs_that_come_back_have_the_share_of_their_key(stage: &Stage) -> Case {
    publish(stage, &["a:1", "a:2", "b:1", "b:2"]).await?;
    let first = take(stage, 1).await?;
    let [dead] = &first.deliveries[..] else { return Err("one was handed out".into()) };
    let (queue, me, letter) = (&stage.queue, &stage.me, dead.entry.fields().to_vec());
    stage.store.store_dead_letter(queue, me, dead.hold(), None, &letter).await?;
    assert_eq!(finish(stage, &first.deliveries).await?, Finished { acknowledged: 0, fed: 0 });
    let letters = stage.store.dead_letters(queue, streamjobs::EntryId::ZERO, 9).await?;
    let [letter] = &letters[..] else { return Err("there is one dead letter".into()) };
    let job = dead.entry.fields().to_vec();
    assert!(stage.store.redrive(queue, letter.id(), &job).await?.is_some());
    // It goes behind the other job of its key.
    assert_eq!(one_by_one(stage).await?, ["b:1", "a:2", "b:2", "a:1"]);
    assert_empty(stage).await
}

/// It then waits like any other.
pub async fn an_entry_delivered_again_beyond_the_free_slots_gives_its_place_back(
    stage: &Stage,
) -> Case {
    publish(stage, &["a:1", "a:2", "a:3"]).await?;
    let taken = take(stage, 3).await?;
    assert_eq!(taken.deliveries.len(), 3);
    stage.raw.destroy_group(&stage.key(Inlet::STREAM), stage.queue.group.as_str());
    assert!(stage.store.recreate(&stage.queue).await?);
    let again = take(stage, 1).await?;
    assert_eq!((names(&again.deliveries), again.parked), (vec!["a:1"], 2));
    finish(stage, &again.deliveries).await?;
    assert_eq!(one_by_one(stage).await?, ["a:2", "a:3"]);
    assert_empty(stage).await
}

/// They are from a time when the group had an order.
pub async fn lines_from_before_the_shares_get_theirs(stage: &Stage) -> Case {
    let key =
        HoldRule { scope: HoldScope::Key, limit: NonZeroU32::MIN, blocks: true, is_order: true };
    let jobs = ["a:1", "a:2", "a:3"].map(|name| {
        let mut job = fields(name);
        job.push((Bytes::from_static(b"sj-key"), Bytes::from_static(b"a")));
        job
    });
    let (store, stream) = (stage.store.as_ref(), &stage.queue.stream);
    append(store, stream, Retention::Unlimited, jobs.to_vec()).await;
    let ordered = store.take(&stage.queue, &stage.me, Inlet::STREAM, 9, key).await?;
    assert_eq!((ordered.deliveries.len(), ordered.parked), (1, 2));
    let cursors = SweepCursors::default();
    store.sweep_holds(&stage.queue, HoldSweep { rule: Some(SHARE), cursors }).await?;
    let taken = take(stage, 9).await?;
    assert_eq!(names(&taken.deliveries), ["a:2", "a:3"]);
    finish(stage, &ordered.deliveries).await?;
    finish(stage, &taken.deliveries).await?;
    assert_empty(stage).await
}

/// Otherwise a key would seem to have fewer jobs in flight than it has.
pub async fn an_end_that_is_told_twice_counts_once(stage: &Stage) -> Case {
    publish(stage, &["a:1", "a:2", "a:3", "a:4", "b:1", "b:2"]).await?;
    let taken = take(stage, 4).await?;
    assert_eq!(names(&taken.deliveries), ["a:1", "b:1", "a:2", "b:2"]);
    let [first, ..] = &taken.deliveries[..] else { return Err("four were handed out".into()) };
    let twice = [first.clone(), first.clone()];
    assert_eq!(finish(stage, &twice).await?.acknowledged, 1);
    assert_eq!(finish(stage, &twice).await?.acknowledged, 0);
    publish(stage, &["c:1"]).await?;
    // Key c has no job in flight, a has one, b two.
    assert_eq!(names(&take(stage, 1).await?.deliveries), ["c:1"]);
    assert_eq!(names(&take(stage, 9).await?.deliveries), ["a:3", "a:4"]);
    Ok(())
}

/// Since its publication, and after a redrive since that, also in a second line. What a publisher wrote is no such time.
pub async fn a_job_that_waits_says_since_when(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let job = |id: &'static str| {
        let mut job = fields(id);
        for (name, value) in [("sj-id", id), ("sj-key", "a"), ("sj-since", "7")] {
            job.push((Bytes::from_static(name.as_bytes()), value.into()));
        }
        job
    };
    let jobs = ["1", "2", "3"].map(job).into();
    let stored = append(store.as_ref(), &queue.stream, Retention::Unlimited, jobs).await;
    let ids = stored.into_iter().collect::<Result<Vec<_>, _>>()?;
    let since = |delivery: &Delivery| delivery.entry.text("sj-since").map(str::to_owned);
    let published = |number: usize| ids.get(number).map(|id| id.milliseconds().to_string());
    let first = take(stage, 1).await?.deliveries;
    assert_eq!(first.first().map(names_of), Some("1"));
    finish(stage, &first).await?;
    let second = take(stage, 1).await?.deliveries;
    let [held] = &second[..] else { return Err("the second was handed out".into()) };
    assert_eq!((names_of(held), since(held)), ("2", published(1)));
    let letter = held.entry.fields().to_vec();
    store.store_dead_letter(queue, &stage.me, held.hold(), None, &letter).await?;
    finish(stage, &second).await?;
    stage.pass(3).await?;
    let letters = store.dead_letters(queue, EntryId::ZERO, 9).await?;
    let [letter] = &letters[..] else { return Err("there is one dead letter".into()) };
    let redriven = job("2").into_iter().filter(|(name, _)| name != "sj-since").collect::<Vec<_>>();
    let redriven = store.redrive(queue, letter.id(), &redriven).await?.ok_or("it is redriven")?;
    let third = take(stage, 1).await?.deliveries;
    let [held] = &third[..] else { return Err("the third was handed out".into()) };
    assert_eq!((names_of(held), since(held)), ("3", published(2)));
    finish(stage, &third).await?;
    let fourth = take(stage, 1).await?.deliveries;
    let [held] = &fourth[..] else { return Err("the redriven one was handed out".into()) };
    let expected = Some(redriven.milliseconds().to_string());
    assert_eq!((names_of(held), since(held)), ("2", expected));
    Ok(())
}

fn names_of(delivery: &Delivery) -> &str {
    delivery.entry.text("name").unwrap_or_default()
}
