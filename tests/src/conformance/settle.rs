//! Settling entries that are not pending any more.

use std::time::Duration;

use streamjobs::__store::inspect::RetriesFrom;
use streamjobs::__store::{FenceResult, Hold, Inlet, NewRetry, StandIn, StoreError};
use streamjobs::EntryId;

use super::holds::{KEY, only, publish, sweep, take};
use super::{Case, LEASE, Stage, fields};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! settle_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, settle:
            a_settled_entry_cannot_be_settled_again,
            a_trimmed_entry_can_still_be_retried_and_dead_lettered,
            a_letter_about_a_loss_is_replaced_by_the_job_it_stands_for,
            an_entry_that_was_removed_is_settled_by_the_attempt_that_knows_it,
            an_entry_that_will_be_delivered_again_is_not_settled,
            an_entry_whose_stream_is_gone_is_settled_by_the_attempt_that_knows_it,
            a_trimmed_job_keeps_its_place_while_its_attempt_is_renewed,
            a_late_acknowledgement_of_what_another_consumer_has_is_a_move,
            what_an_operator_acknowledges_is_a_move_in_the_same_step,
            retries_of_one_step_have_an_answer_each_and_leave_the_others_alone,
            many_retries_are_scheduled_in_one_step_wherever_their_entries_are,
        }
    };
}

/// After a lost answer the step is repeated, and finds that it was done.
pub async fn a_settled_entry_cannot_be_settled_again(stage: &Stage) -> Case {
    let holds = stage.deliver(2).await?;
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    for expected in [FenceResult::Owned, FenceResult::NotPending] {
        for (number, hold) in holds.iter().enumerate() {
            let checked = match number {
                0 => store.store_dead_letter(queue, me, *hold, None, &fields("x")).await?,
                _ => {
                    store
                        .schedule_retry(queue, me, *hold, None, Duration::ZERO, &fields("x"))
                        .await?
                }
            };
            assert_eq!(checked, expected);
        }
    }
    assert_eq!(stage.raw.length(&stage.dead_key()), 1);
    assert_eq!(store.promote(queue, &stage.me, 10).await?.promoted, 1);
    Ok(())
}

/// The attempt has the payload and does not need it in the stream.
pub async fn a_trimmed_entry_can_still_be_retried_and_dead_lettered(stage: &Stage) -> Case {
    let holds = stage.deliver(2).await?;
    for (number, hold) in holds.into_iter().enumerate() {
        stage.raw.delete(&stage.key(Inlet::STREAM), hold.id);
        let checked = match number {
            0 => {
                stage
                    .store
                    .store_dead_letter(&stage.queue, &stage.me, hold, None, &fields("x"))
                    .await?
            }
            _ => {
                let delay = Duration::ZERO;
                stage
                    .store
                    .schedule_retry(&stage.queue, &stage.me, hold, None, delay, &fields("x"))
                    .await?
            }
        };
        assert_eq!(checked, FenceResult::Owned);
    }
    assert!(stage.pending(Inlet::STREAM).is_empty());
    Ok(())
}

/// The letter about a loss stands for the entry, and the attempt that has the payload can replace it.
pub async fn a_letter_about_a_loss_is_replaced_by_the_job_it_stands_for(stage: &Stage) -> Case {
    let holds = stage.deliver(3).await?;
    for hold in &holds {
        stage.raw.delete(&stage.key(Inlet::STREAM), hold.id);
    }
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    let answers = store.renew(queue, me, &holds).await?.answers;
    let letter = |answer: &FenceResult| match answer {
        FenceResult::Trimmed(letter) => Some(StandIn::DeadLetter(*letter)),
        _ => None,
    };
    let letters = answers.iter().map(letter).collect::<Vec<_>>();
    assert!(letters.iter().all(Option::is_some), "{answers:?}");
    let [dead, retried, purged] = holds.as_slice() else { return Err("three entries".into()) };
    let [dead_letter, retry_letter, purged_letter] = letters.as_slice() else {
        return Err("three letters".into());
    };
    assert_eq!(
        store.store_dead_letter(queue, me, *dead, None, &fields("x")).await?,
        FenceResult::NotPending
    );
    for expected in [FenceResult::Owned, FenceResult::NotPending] {
        assert_eq!(
            store.store_dead_letter(queue, me, *dead, *dead_letter, &fields("dead")).await?,
            expected
        );
        let delay = Duration::ZERO;
        let checked = store
            .schedule_retry(queue, me, *retried, *retry_letter, delay, &fields("again"))
            .await?;
        assert_eq!(checked, expected);
    }
    let Some(StandIn::DeadLetter(letter)) = purged_letter else { return Err("a letter".into()) };
    store.purge(queue, &[*letter]).await?;
    let checked = store
        .schedule_retry(queue, me, *purged, *purged_letter, Duration::ZERO, &fields("x"))
        .await?;
    assert_eq!(checked, FenceResult::NotPending, "an operator has purged it");
    let stored = store.dead_letters(queue, EntryId::ZERO, 10).await?;
    let names = stored.iter().map(|letter| letter.text("name")).collect::<Vec<_>>();
    assert_eq!(
        (names, store.promote(queue, &stage.me, 10).await?.promoted),
        (vec![Some("dead")], 1)
    );
    Ok(())
}

/// A consumer that is deleted by hand takes its entries with it. The attempt still has the job.
pub async fn an_entry_that_was_removed_is_settled_by_the_attempt_that_knows_it(
    stage: &Stage,
) -> Case {
    let holds = stage.deliver(2).await?;
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    let (key, group) = (stage.key(Inlet::STREAM), queue.group.as_str());
    stage.raw.delete_consumer(&key, group, me.as_str());
    let answers = store.renew(queue, me, &holds).await?.answers;
    assert_eq!(answers, [FenceResult::NotPending; 2]);
    let [retried, dead] = holds.as_slice() else { return Err("two entries".into()) };
    for (stand_in, expected) in [
        (None, FenceResult::NotPending),
        (Some(StandIn::Removed), FenceResult::Owned),
        // The answer was lost: the retry is there.
        (Some(StandIn::Removed), FenceResult::Owned),
    ] {
        let delay = Duration::from_secs(1_000);
        let job = fields("again");
        let checked = store.schedule_retry(queue, me, *retried, stand_in, delay, &job).await?;
        assert_eq!(checked, expected);
    }
    assert_eq!(store.retries(queue, RetriesFrom::First, 9).await?.jobs.len(), 1);
    let stand_in = Some(StandIn::Removed);
    let checked = store.store_dead_letter(queue, me, *dead, stand_in, &fields("dead")).await?;
    assert_eq!((checked, stage.raw.length(&stage.dead_key())), (FenceResult::Owned, 1));
    let taken = stage.deliver_one().await?;
    let checked =
        store.store_dead_letter(queue, &stage.other, taken, stand_in, &fields("x")).await?;
    assert_eq!(checked, FenceResult::TakenOver, "another attempt has it");
    Ok(())
}

/// After a failover the group's cursor may be before entries that are in flight.
pub async fn an_entry_that_will_be_delivered_again_is_not_settled(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    let (key, group) = (stage.key(Inlet::STREAM), queue.group.as_str());
    stage.raw.destroy_group(&key, group);
    store.prepare(queue, streamjobs::config::Start::Beginning).await?;
    let answers = store.renew(queue, me, &[hold]).await?.answers;
    assert_eq!(answers, [FenceResult::Undelivered]);
    for stand_in in [None, Some(StandIn::Removed)] {
        let checked = store.store_dead_letter(queue, me, hold, stand_in, &fields("x")).await?;
        assert_eq!(checked, FenceResult::Undelivered);
    }
    assert_eq!(stage.raw.length(&stage.dead_key()), 0);
    Ok(())
}

/// The key was deleted or evicted, and the group was created again: the job is only in the attempt's memory.
pub async fn an_entry_whose_stream_is_gone_is_settled_by_the_attempt_that_knows_it(
    stage: &Stage,
) -> Case {
    let hold = stage.deliver_one().await?;
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    stage.raw.lose_key(&stage.key(Inlet::STREAM));
    store.prepare(queue, streamjobs::config::Start::Beginning).await?;
    let answers = store.renew(queue, me, &[hold]).await?.answers;
    assert_eq!(answers, [FenceResult::NotPending]);
    for (stand_in, expected) in
        [(None, FenceResult::NotPending), (Some(StandIn::Removed), FenceResult::Owned)]
    {
        let checked = store.store_dead_letter(queue, me, hold, stand_in, &fields("x")).await?;
        assert_eq!(checked, expected);
    }
    assert_eq!(stage.raw.length(&stage.dead_key()), 1);
    Ok(())
}

/// The owner of an entry that was acknowledged by another consumer is told that this was no removal.
pub async fn a_late_acknowledgement_of_what_another_consumer_has_is_a_move(stage: &Stage) -> Case {
    let holds = stage.deliver(3).await?;
    let [own, claimed, kept] = holds.as_slice() else { return Err("three entries".into()) };
    let (store, queue, me, other) = (&stage.store, &stage.queue, &stage.me, &stage.other);
    let moves = async || Ok::<_, StoreError>(store.renew(queue, me, &[*kept]).await?.moves);
    let inlet = Inlet::STREAM;
    assert_eq!(store.acknowledge_late(queue, Some(me), &[(inlet, own.id)]).await?, 1);
    assert_eq!(store.acknowledge_late(queue, Some(me), &[(inlet, own.id)]).await?, 0, "again");
    assert_eq!(moves().await?, 0, "no other consumer had it");
    stage.raw.age(&stage.key(inlet), queue.group.as_str(), claimed.id, 2 * LEASE);
    let (_, taken, _) = stage.claim_idle(other, EntryId::ZERO, 5).await?;
    assert_eq!(taken.iter().map(|taken| taken.entry.id()).collect::<Vec<_>>(), [claimed.id]);
    for expected in [1, 0] {
        let acknowledged = store.acknowledge_late(queue, Some(me), &[(inlet, claimed.id)]).await?;
        assert_eq!((acknowledged, moves().await?), (expected, 1));
    }
    assert_eq!(stage.pending(inlet).iter().map(|row| row.id).collect::<Vec<_>>(), [kept.id]);
    stage.raw.lose_key(&stage.key(inlet));
    assert_eq!(store.acknowledge_late(queue, Some(me), &[(inlet, kept.id)]).await?, 0, "no group");
    Ok(())
}

/// Its owner learns of it although the operator's request is lost after it was obeyed, and is repeated.
pub async fn what_an_operator_acknowledges_is_a_move_in_the_same_step(stage: &Stage) -> Case {
    let holds = stage.deliver(2).await?;
    let [ended, kept] = holds.as_slice() else { return Err("two entries".into()) };
    let (store, queue) = (&stage.store, &stage.queue);
    for expected in [1, 0] {
        let acks = [(Inlet::STREAM, ended.id)];
        assert_eq!(store.acknowledge_late(queue, None, &acks).await?, expected);
        assert_eq!(store.renew(queue, &stage.me, &[*kept]).await?.moves, 1);
    }
    Ok(())
}

/// Jobs of both inlets that are owned, owned by another consumer, done, trimmed, removed, and twice there.
pub async fn retries_of_one_step_have_an_answer_each_and_leave_the_others_alone(
    stage: &Stage,
) -> Case {
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    let early = stage.deliver_one().await?;
    store.schedule_retry(queue, me, early, None, Duration::ZERO, &fields("lane")).await?;
    stage.pass(0).await?;
    assert_eq!(store.promote(queue, me, 10).await?.promoted, 1);
    let lane = stage.read(me, Inlet::LANE, 1).await?;
    let lane = lane.first().ok_or("one in the lane")?.hold();
    let holds = stage.deliver(4).await?;
    let [owned, done, trimmed, bystander] = holds.as_slice() else { return Err("four".into()) };
    let taken = stage.append(1).await?;
    let taken_id = *taken.first().ok_or("one")?;
    stage.read(&stage.other, Inlet::STREAM, 1).await?;
    let taken = Hold { inlet: Inlet::STREAM, id: taken_id, delivery_count: 1 };
    let undelivered = *stage.append(1).await?.first().ok_or("one")?;
    store.acknowledge(queue, &[(Inlet::STREAM, done.id)]).await?;
    stage.raw.delete(&stage.key(Inlet::STREAM), trimmed.id);
    let answers = store.renew(queue, me, &[*trimmed]).await?.answers;
    let Some(FenceResult::Trimmed(letter)) = answers.first() else { return Err("gone".into()) };
    let counted = Hold { delivery_count: 2, ..*owned };
    let retries = [
        retry(counted, None),
        retry(*owned, None),
        retry(*done, None),
        retry(taken, None),
        retry(lane, None),
        retry(*trimmed, Some(StandIn::DeadLetter(*letter))),
        retry(*done, Some(StandIn::Removed)),
        retry(*owned, None),
        retry(*trimmed, Some(StandIn::DeadLetter(*letter))),
        // A letter that is replaced stands for nothing any more.
        retry(Hold { id: undelivered, ..taken }, Some(StandIn::DeadLetter(*letter))),
    ];
    let answers = store.schedule_retries(queue, me, &retries).await;
    let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (yes, gone, other) = (FenceResult::Owned, FenceResult::NotPending, FenceResult::TakenOver);
    assert_eq!(
        answers,
        [other, yes, gone, other, yes, yes, yes, gone, gone, FenceResult::Undelivered]
    );
    let waiting = store.retries(queue, RetriesFrom::First, 20).await?.jobs;
    assert_eq!(waiting.len(), 4, "{waiting:?}");
    assert_eq!(stage.raw.length(&stage.dead_key()), 0, "its retry has replaced it");
    let pending = stage.pending(Inlet::STREAM).iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(pending, [bystander.id, taken_id]);
    assert_eq!(
        (stage.pending(Inlet::LANE).len(), stage.raw.length(&stage.key(Inlet::LANE))),
        (0, 0)
    );
    assert!(store.schedule_retries(queue, me, &[]).await.is_empty());
    stage.raw.flush();
    for answer in store.schedule_retries(queue, me, &retries).await {
        assert!(matches!(answer, Err(StoreError::GroupMissing)), "{answer:?}");
    }
    Ok(())
}

/// There are more of them than one call takes, in any order, next to each other and far apart in the
/// pending list.
pub async fn many_retries_are_scheduled_in_one_step_wherever_their_entries_are(
    stage: &Stage,
) -> Case {
    let holds = stage.deliver(400).await?;
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    let far = holds.iter().step_by(40);
    let near = holds.iter().skip(150).enumerate().filter(|(place, _)| *place != 50);
    let near = near.map(|(_, hold)| hold);
    let mut retried = far.chain(near).copied().collect::<Vec<_>>();
    retried.sort_by_key(|hold| hold.id);
    retried.dedup();
    retried.reverse();
    let retries = retried.iter().map(|hold| retry(*hold, None)).collect::<Vec<_>>();
    for expected in [FenceResult::Owned, FenceResult::NotPending] {
        let answers = store.schedule_retries(queue, me, &retries).await;
        assert_eq!(answers.len(), retries.len());
        for answer in answers {
            assert_eq!(answer?, expected);
        }
    }
    let left = stage.pending(Inlet::STREAM).iter().map(|row| row.id).collect::<Vec<_>>();
    let expected = holds.iter().filter(|hold| !retried.contains(hold)).map(|hold| hold.id);
    assert_eq!(left, expected.collect::<Vec<_>>());
    let waiting = store.retries(queue, RetriesFrom::First, 500).await?.jobs;
    assert_eq!(waiting.len(), retried.len());
    Ok(())
}

fn retry(hold: Hold, stand_in: Option<StandIn>) -> NewRetry {
    NewRetry { hold, stand_in, delay: Duration::from_secs(1_000), job: fields("again") }
}

/// Its entry is not pending any more, and the next job of its key must not start beside it.
pub async fn a_trimmed_job_keeps_its_place_while_its_attempt_is_renewed(stage: &Stage) -> Case {
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    let says = async |lease: u32| {
        let about = format!(r#"{{"beat_every":60000,"lease":{lease}}}"#);
        store.heartbeat(queue, me, &about).await
    };
    says(60_000).await?;
    publish(stage, &["a:1", "a:2"]).await?;
    let first = only(take(stage, Inlet::STREAM, KEY).await?)?;
    stage.raw.delete(&stage.key(Inlet::STREAM), first.entry.id());
    let answers = store.renew(queue, me, &[first.hold()]).await?.answers;
    assert!(matches!(answers[..], [FenceResult::Trimmed(_)]), "{answers:?}");
    for _renewal in 0..2 {
        assert_eq!(sweep(stage, Some(KEY)).await?.ended, 0);
        let answers = store.renew(queue, me, &[first.hold()]).await?.answers;
        assert_eq!(answers, [FenceResult::NotPending]);
    }
    // Another process does not keep it, and without renewals the place ends with the lease.
    says(1).await?;
    stage.pass(2).await?;
    store.renew(queue, &stage.other, &[first.hold()]).await?;
    let swept = sweep(stage, Some(KEY)).await?;
    assert_eq!((swept.ended, swept.fed, swept.parked), (1, 1, 0));
    store.renew(queue, me, &[first.hold()]).await?;
    let second = only(take(stage, Inlet::LANE, KEY).await?)?;
    assert_eq!(second.entry.text("name"), Some("a:2"));
    Ok(())
}
