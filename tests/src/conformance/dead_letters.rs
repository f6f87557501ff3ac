//! Dead letters that go to an archive.

use std::time::Duration;

use streamjobs::__store::dead_letters::{RedriveRequest, RedriveToken, Taker};
use streamjobs::__store::{FenceResult, Inlet, StandIn, StoreError, StoredDeadLetter};
use streamjobs::{ConsumerName, EntryId, GroupName};

use super::{Case, LEASE, Stage, fields};
use crate::conformance::BoxError;

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! dead_letters_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, dead_letters:
            letters_are_taken_by_one_taker_each_in_order_and_settled,
            a_letter_that_was_not_taken_is_not_removed,
            letters_are_still_taken_until_they_are_redriven_purged_or_taken_by_another,
            letters_whose_lease_is_over_are_taken_again_before_new_ones,
            taken_letters_that_are_missing_are_reported_once,
            taking_without_letters_creates_nothing,
            takers_of_another_group_get_every_letter_too,
            a_letter_about_a_loss_waits_while_its_consumer_lives,
            a_job_comes_back_once_under_its_token,
            a_token_is_forgotten_after_its_time,
            a_letter_stays_if_its_group_is_gone,
            dead_letters_are_paged_redriven_once_and_purged,
        }
    };
}

const ARCHIVE: &str = "archive";

fn taker(name: &str) -> Result<Taker, BoxError> {
    Ok(Taker::new(ConsumerName::new(name)?).lease(LEASE))
}

fn ids(letters: &[StoredDeadLetter]) -> Vec<EntryId> {
    letters.iter().map(StoredDeadLetter::id).collect()
}

async fn dead_letter(stage: &Stage, count: usize) -> Result<Vec<EntryId>, BoxError> {
    for hold in stage.deliver(count).await? {
        stage.store.store_dead_letter(&stage.queue, &stage.me, hold, None, &fields("dead")).await?;
    }
    Ok(ids(&stage.store.dead_letters(&stage.queue, EntryId::ZERO, 1_000).await?))
}

/// A letter goes to one taker, and is removed once it is settled.
pub async fn letters_are_taken_by_one_taker_each_in_order_and_settled(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let dead_lettered = dead_letter(stage, 5).await?;
    let (one, two) = (taker("one")?, taker("two")?);
    let first = store.take_letters(queue, &one, 3).await?;
    let second = store.take_letters(queue, &two, 9).await?;
    assert_eq!((first.has_more, second.has_more), (true, false));
    let (first, second) = (first.letters, second.letters);
    assert_eq!([ids(&first), ids(&second)].concat(), dead_lettered);
    assert!(first.iter().all(|letter| letter.fields() == fields("dead")));
    assert!(store.take_letters(queue, &one, 9).await?.letters.is_empty());
    assert_eq!(store.group_facts(queue).await?.dead_letters, Some(5), "taken is still there");
    assert_eq!(
        store.settle_letters(queue, &one, &dead_lettered).await?,
        5,
        "whichever taker took them"
    );
    assert_eq!(store.settle_letters(queue, &one, &dead_lettered).await?, 0, "once");
    assert_eq!(stage.raw.length(&stage.dead_key()), 0);
    assert!(stage.raw.pending(&stage.dead_key(), ARCHIVE).is_empty());
    Ok(())
}

/// After a failover a server may give out an id again: a letter that was not taken is not stored
/// elsewhere.
pub async fn a_letter_that_was_not_taken_is_not_removed(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let one = taker("one")?;
    let dead_lettered = dead_letter(stage, 2).await?;
    let taken = ids(&store.take_letters(queue, &one, 1).await?.letters);
    assert_eq!(store.settle_letters(queue, &one, &dead_lettered).await?, 1);
    let left = ids(&store.dead_letters(queue, EntryId::ZERO, 9).await?);
    assert_eq!([taken, left].concat(), dead_lettered);
    assert_eq!(store.take_letters(queue, &one, 9).await?.letters.len(), 1);
    Ok(())
}

/// An archive that could not store its letters for a while asks which of them it still has.
pub async fn letters_are_still_taken_until_they_are_redriven_purged_or_taken_by_another(
    stage: &Stage,
) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let (one, two) = (taker("one")?, taker("two")?);
    assert!(store.still_taken(queue, &one, &[EntryId::new(1, 0)]).await?.is_empty());
    let dead_lettered = dead_letter(stage, 6).await?;
    assert!(store.still_taken(queue, &one, &dead_lettered).await?.is_empty(), "no group yet");
    let taken = ids(&store.take_letters(queue, &one, 5).await?.letters);
    assert_eq!(store.still_taken(queue, &one, &dead_lettered).await?, taken, "one is not taken");
    assert!(store.still_taken(queue, &two, &dead_lettered).await?.is_empty());
    let [purged, redriven, settled, moved, kept] = taken.as_slice() else {
        return Err("five".into());
    };
    assert_eq!(store.purge(queue, &[*purged]).await?, 1);
    assert!(store.redrive(queue, *redriven, &fields("back")).await?.is_some());
    assert_eq!(store.settle_letters(queue, &one, &[*settled]).await?, 1);
    stage.raw.age(&stage.dead_key(), ARCHIVE, *moved, LEASE * 2);
    assert_eq!(ids(&store.take_letters(queue, &two, 1).await?.letters), [*moved]);
    let asked = [*kept, *moved, *purged, *redriven, *settled];
    assert_eq!(store.still_taken(queue, &one, &asked).await?, [*kept]);
    assert_eq!(store.still_taken(queue, &two, &asked).await?, [*moved]);
    assert!(store.still_taken(queue, &one, &[]).await?.is_empty());
    Ok(())
}

/// The letters of a crashed taker go to the next one; a live taker keeps its letters.
pub async fn letters_whose_lease_is_over_are_taken_again_before_new_ones(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let dead_lettered = dead_letter(stage, 2).await?;
    let (one, two) = (taker("one")?, taker("two")?);
    assert_eq!(store.take_letters(queue, &one, 9).await?.letters.len(), 2);
    let late = *dead_lettered.first().ok_or("two letters")?;
    stage.raw.age(&stage.dead_key(), ARCHIVE, late, LEASE * 2);
    let new = *dead_letter(stage, 1).await?.last().ok_or("a letter")?;
    assert_eq!(ids(&store.take_letters(queue, &two, 1).await?.letters), [late]);
    assert_eq!(ids(&store.take_letters(queue, &two, 9).await?.letters), [new]);
    let rows = stage.raw.pending(&stage.dead_key(), ARCHIVE);
    let owners = rows.iter().map(|row| row.consumer.as_str()).collect::<Vec<_>>();
    assert_eq!(owners, ["two", "one", "two"]);
    Ok(())
}

/// A letter that an operator removed is reported once.
pub async fn taken_letters_that_are_missing_are_reported_once(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let dead_lettered = dead_letter(stage, 3).await?;
    let one = taker("one")?;
    assert_eq!(store.take_letters(queue, &one, 9).await?.letters.len(), 3);
    let [purged, redriven, kept] = dead_lettered.as_slice() else { return Err("three".into()) };
    for id in &dead_lettered {
        stage.raw.age(&stage.dead_key(), ARCHIVE, *id, LEASE * 2);
    }
    assert_eq!(store.purge(queue, &[*purged]).await?, 1);
    assert!(store.redrive(queue, *redriven, &fields("back")).await?.is_some());
    let again = store.take_letters(queue, &one, 9).await?;
    assert_eq!((ids(&again.letters), again.missing), (vec![*kept], 2));
    assert_eq!(stage.raw.pending(&stage.dead_key(), ARCHIVE).len(), 1);
    assert_eq!(store.take_letters(queue, &one, 9).await?.missing, 0);
    assert_eq!(stage.read(&stage.me, Inlet::LANE, 9).await?.len(), 1, "the job runs again");
    Ok(())
}

/// Taking from a group without letters creates no keys.
pub async fn taking_without_letters_creates_nothing(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let one = taker("one")?;
    let none = store.take_letters(queue, &one, 9).await?;
    assert_eq!((none.letters.len(), none.missing), (0, 0));
    assert_eq!(store.settle_letters(queue, &one, &[EntryId::new(1, 0)]).await?, 0);
    dead_letter(stage, 1).await?;
    assert!(store.take_letters(queue, &one, 0).await?.letters.is_empty());
    stage.raw.destroy_group(&stage.dead_key(), ARCHIVE);
    assert_eq!(store.take_letters(queue, &one, 9).await?.letters.len(), 1);
    stage.raw.destroy_group(&stage.dead_key(), ARCHIVE);
    assert_eq!(store.take_letters(queue, &one, 9).await?.letters.len(), 1, "lost and recreated");
    Ok(())
}

/// Two archives see every letter.
pub async fn takers_of_another_group_get_every_letter_too(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let dead_lettered = dead_letter(stage, 2).await?;
    let other = taker("one")?.group(GroupName::new("second")?);
    for by in [taker("one")?, other] {
        assert_eq!(ids(&store.take_letters(queue, &by, 9).await?.letters), dead_lettered);
    }
    Ok(())
}

/// A consumer with a job in flight whose payload was trimmed may still replace the letter, so an archive
/// does not take it.
pub async fn a_letter_about_a_loss_waits_while_its_consumer_lives(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let hold = stage.deliver_one().await?;
    store.heartbeat(queue, &stage.me, "{}").await?;
    stage.raw.delete(&stage.key(Inlet::STREAM), hold.id);
    let renewed = store.renew(queue, &stage.me, &[hold]).await?.answers;
    let [FenceResult::Trimmed(letter)] = renewed.as_slice() else {
        return Err("a trimmed entry".into());
    };
    let one = taker("one")?;
    let none = store.take_letters(queue, &one, 1).await?;
    assert_eq!((none.letters.len(), none.has_more), (0, true), "it was passed over");
    stage.raw.age(&stage.dead_key(), ARCHIVE, *letter, LEASE * 2);
    let none = store.take_letters(queue, &one, 1).await?;
    assert_eq!((none.letters.len(), none.has_more), (0, false), "it lives still");
    let job = fields("again");
    store
        .schedule_retry(
            queue,
            &stage.me,
            hold,
            Some(StandIn::DeadLetter(*letter)),
            Duration::ZERO,
            &job,
        )
        .await?;
    assert_eq!(
        store.promote(queue, &stage.me, 9).await?.promoted,
        1,
        "nothing of the job was lost"
    );
    let lost = stage.deliver_one().await?;
    stage.raw.delete(&stage.key(Inlet::STREAM), lost.id);
    store.renew(queue, &stage.me, &[lost]).await?;
    assert!(store.take_letters(queue, &one, 9).await?.letters.is_empty());
    store.retire(queue, &stage.me).await?;
    stage.raw.age(&stage.dead_key(), ARCHIVE, letters_end(stage).await?, LEASE * 2);
    assert_eq!(
        store.take_letters(queue, &one, 9).await?.letters.len(),
        1,
        "it is not in flight any more"
    );
    Ok(())
}

async fn letters_end(stage: &Stage) -> Result<EntryId, BoxError> {
    let letters = stage.store.dead_letters(&stage.queue, EntryId::ZERO, 9).await?;
    Ok(letters.last().ok_or("a letter")?.id())
}

/// A job comes back once under its token, to a group that is there.
pub async fn a_job_comes_back_once_under_its_token(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let job = |token: &str, name: &str| -> Result<RedriveRequest, BoxError> {
        Ok(RedriveRequest { fields: fields(name), token: RedriveToken::new(token)? })
    };
    let jobs = [job("a", "first")?, job("b", "second")?, job("a", "third")?];
    let answers = store.redrive_archived(queue, &jobs, LEASE).await;
    let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert!(matches!(answers.as_slice(), [Some(one), Some(two), None] if one < two));
    assert_eq!(store.redrive_archived(queue, &jobs, LEASE).await.len(), 3);
    let delivered = stage.read(&stage.me, Inlet::LANE, 9).await?;
    let back = delivered.iter().map(|delivery| delivery.entry.fields().to_vec());
    assert_eq!(back.collect::<Vec<_>>(), [fields("first"), fields("second")]);
    assert!(store.redrive_archived(queue, &[], LEASE).await.is_empty());
    stage.raw.destroy_group(&stage.key(Inlet::STREAM), "work");
    let more = [job("a", "first")?, job("c", "late")?];
    let answers = store.redrive_archived(queue, &more, LEASE).await;
    assert!(matches!(answers.as_slice(), [Ok(None), Err(StoreError::GroupMissing)]), "{answers:?}");
    assert_eq!(stage.raw.length(&stage.key(Inlet::LANE)), 2, "nothing else came");
    store.recreate(queue).await?;
    let answers = store.redrive_archived(queue, &more, LEASE).await;
    assert!(matches!(answers.as_slice(), [Ok(None), Ok(Some(_))]), "{answers:?}");
    Ok(())
}

/// A token is kept for as long as was asked for.
pub async fn a_token_is_forgotten_after_its_time(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let jobs = [RedriveRequest { fields: fields("x"), token: RedriveToken::new("a")? }];
    for keep in [Duration::ZERO, Duration::from_millis(5)] {
        assert!(matches!(
            store.redrive_archived(queue, &jobs, keep).await.as_slice(),
            [Ok(Some(_))]
        ));
        stage.pass(10).await?;
    }
    assert!(matches!(
        store.redrive_archived(queue, &jobs, Duration::MAX).await.as_slice(),
        [Ok(Some(_))]
    ));
    assert!(matches!(store.redrive_archived(queue, &jobs, LEASE).await.as_slice(), [Ok(None)]));
    assert_eq!(stage.raw.length(&stage.key(Inlet::LANE)), 3);
    Ok(())
}

/// Without the group, nothing would show the job or run it.
pub async fn a_letter_stays_if_its_group_is_gone(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let hold = stage.deliver_one().await?;
    store.store_dead_letter(queue, &stage.me, hold, None, &fields("dead")).await?;
    let letter = letters_end(stage).await?;
    stage.raw.destroy_group(&stage.key(Inlet::STREAM), "work");
    let refused = store.redrive(queue, letter, &fields("back")).await;
    assert!(matches!(refused, Err(StoreError::GroupMissing)), "{refused:?}");
    assert!(store.dead_letter(queue, letter).await?.is_some());
    assert_eq!(stage.raw.length(&stage.key(Inlet::LANE)), 0);
    store.recreate(queue).await?;
    assert!(store.redrive(queue, letter, &fields("back")).await?.is_some());
    Ok(())
}

/// Dead letters are read page by page, and each is redriven once.
pub async fn dead_letters_are_paged_redriven_once_and_purged(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    for hold in stage.deliver(5).await? {
        store.store_dead_letter(queue, &stage.me, hold, None, &fields("dead")).await?;
    }
    let first = store.dead_letters(queue, EntryId::ZERO, 3).await?;
    let last = first.last().ok_or("three letters")?.id();
    let rest = store.dead_letters(queue, last, 10).await?;
    assert_eq!((first.len(), rest.len()), (3, 2));
    assert!(store.redrive(queue, last, &fields("back")).await?.is_some());
    assert!(store.redrive(queue, last, &fields("back")).await?.is_none());
    assert!(store.dead_letter(queue, last).await?.is_none());
    let delivered = stage.read(&stage.me, Inlet::LANE, 9).await?;
    assert_eq!(
        delivered.iter().map(|one| one.entry.fields().to_vec()).collect::<Vec<_>>(),
        [fields("back")]
    );
    let ids = rest.iter().map(|letter| letter.id()).chain([last]).collect::<Vec<_>>();
    assert_eq!(store.purge(queue, &ids).await?, 2);
    assert_eq!(stage.raw.length(&stage.dead_key()), 2);
    Ok(())
}
