//! What an operator does.

use std::time::Duration;

use streamjobs::__store::admin::{
    Cut, Destination, Obstacle, Permitted, Selected, Trim, Trimmed, Unfinished,
};
use streamjobs::__store::{FenceResult, Idle, Inlet, StoreError};
use streamjobs::{ConsumerName, EntryId};

use super::{Case, LEASE, Stage};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! admin_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, admin:
            moved_entries_keep_their_count_and_are_not_aged,
            all_of_one_consumer_is_handed_over_page_by_page,
            entries_that_an_operator_releases_are_claimed_at_once,
            what_is_handed_over_to_a_live_process_is_claimed_by_it_alone_at_once,
            a_group_moves_over_undelivered_entries_only_if_they_may_be_lost,
            a_group_that_is_moved_beyond_the_end_gets_what_is_published_later,
            a_group_is_destroyed_only_if_it_is_done_or_its_work_may_be_lost,
            a_cut_stops_at_what_a_group_needs_unless_it_may_lose_it,
            a_cut_of_finished_entries_is_not_blocked,
        }
    };
}

/// A moved entry keeps its state; entries that cannot be moved are named.
pub async fn moved_entries_keep_their_count_and_are_not_aged(stage: &Stage) -> Case {
    let holds = stage.deliver(3).await?;
    let [kept, gone, _] = holds.as_slice() else { return Err("three holds".into()) };
    stage.abandon(*kept);
    stage.raw.delete(&stage.key(Inlet::STREAM), gone.id);
    let unknown = EntryId::new(1, 1);
    let ids = [kept.id, gone.id, unknown];
    let to = Destination::Consumer(&stage.other);
    let store = &stage.store;
    let page = store.move_pending(&stage.queue, Inlet::STREAM, Selected::Ids(&ids), to).await?;
    assert_eq!((page.moved, page.trimmed), (vec![kept.id], vec![gone.id]));
    assert_eq!((page.missing, page.unstored), (vec![unknown], vec![]));
    let row = stage.row(kept.id).ok_or("still pending")?;
    assert_eq!((row.consumer.as_str(), row.delivery_count), ("other", 1));
    assert!(row.idle < LEASE, "{row:?}");
    assert!(stage.row(gone.id).is_none());
    assert_eq!(stage.raw.length(&stage.dead_key()), 1, "a loss is reported");
    let renewed = store.renew(&stage.queue, &stage.me, &[*kept]).await?;
    assert_eq!(renewed.answers, [FenceResult::TakenOver], "the former owner is fenced");
    Ok(())
}

/// Everything of one consumer can be given to another, and nothing else.
pub async fn all_of_one_consumer_is_handed_over_page_by_page(stage: &Stage) -> Case {
    let holds = stage.deliver(1_200).await?;
    stage.append(1).await?;
    let third = ConsumerName::new("third")?;
    stage.read(&third, Inlet::STREAM, 1).await?;
    let to = Destination::Consumer(&stage.other);
    let (mut after, mut moved, mut pages) = (EntryId::ZERO, 0, 0);
    loop {
        let selected = Selected::Of(&stage.me, after);
        let page = stage.store.move_pending(&stage.queue, Inlet::STREAM, selected, to).await?;
        moved += page.moved.len();
        pages += 1;
        let Some(next) = page.next else { break };
        after = next;
    }
    assert_eq!(moved, holds.len());
    assert!(pages <= 4, "{pages} pages");
    let rows = stage.pending(Inlet::STREAM);
    assert!(rows.iter().all(|row| row.consumer != "me" && row.delivery_count == 1));
    assert_eq!(rows.iter().filter(|row| row.consumer == "third").count(), 1);
    assert!(stage.store.retire(&stage.queue, &stage.me).await?);
    Ok(())
}

/// The next claim takes them, and processes see that there is work to claim.
pub async fn entries_that_an_operator_releases_are_claimed_at_once(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    let released = stage.store.promote(&stage.queue, &stage.me, 1).await?.released;
    let to = Destination::Released;
    let selected = Selected::Ids(&[hold.id]);
    stage.store.move_pending(&stage.queue, Inlet::STREAM, selected, to).await?;
    let row = stage.row(hold.id).ok_or("still pending")?;
    assert_eq!((row.consumer.as_str(), row.delivery_count), ("streamjobs-released", 0));
    let renewed = stage.store.renew(&stage.queue, &stage.me, &[hold]).await?;
    assert_eq!(renewed.answers, [FenceResult::TakenOver], "its handler learns of it");
    assert_eq!(renewed.moves, 1, "and that it was moved");
    let recorded = stage.store.heartbeat(&stage.queue, &stage.me, "{}").await?;
    assert_eq!(recorded.moves, 1);
    assert!(stage.store.promote(&stage.queue, &stage.me, 1).await?.released > released);
    let (_, claimed, _) = stage.claim_idle(&stage.other, EntryId::ZERO, 9).await?;
    assert_eq!(claimed.iter().map(|one| one.delivery_count).collect::<Vec<_>>(), [1], "uncounted");
    let before = stage.store.promote(&stage.queue, &stage.me, 1).await?.released;
    stage.store.request_claim(&stage.queue).await?;
    assert!(stage.store.promote(&stage.queue, &stage.me, 1).await?.released > before);
    Ok(())
}

/// It is uncounted, and once the process has stopped, any other one may claim it.
pub async fn what_is_handed_over_to_a_live_process_is_claimed_by_it_alone_at_once(
    stage: &Stage,
) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let holds = stage.deliver(3).await?;
    let ids = holds.iter().map(|hold| hold.id).collect::<Vec<_>>();
    let third = ConsumerName::new("third")?;
    store.heartbeat(queue, &stage.other, r#"{"lease":600000}"#).await?;
    let to = Destination::Consumer(&stage.other);
    let hand_over = || store.move_pending(queue, Inlet::STREAM, Selected::Ids(&ids), to);
    assert_eq!(hand_over().await?.moved, ids);
    assert_eq!(hand_over().await?.moved, ids, "again, as after a lost answer");
    let owner = "streamjobs-released:other";
    let rows = stage.pending(Inlet::STREAM);
    assert!(rows.iter().all(|row| row.consumer == owner && row.delivery_count == 0), "{rows:?}");
    let scan = store.has_idle(queue, Inlet::STREAM, LEASE, Duration::ZERO).await?;
    assert_eq!(scan, Idle::Found);
    let names = store.consumers(queue).await?.consumers.into_iter().map(|one| one.name);
    assert!(!names.collect::<Vec<_>>().contains(&owner.to_owned()), "it is no consumer");

    let (_, claimed, _) = stage.claim_idle(&third, EntryId::ZERO, 9).await?;
    assert!(claimed.is_empty(), "{claimed:?}");
    let (_, claimed, _) = stage.claim_idle(&stage.other, EntryId::ZERO, 2).await?;
    let counts = claimed.iter().map(|one| one.delivery_count).collect::<Vec<_>>();
    assert_eq!(counts, [1, 1], "uncounted");
    hand_over().await?;
    let rows = stage.pending(Inlet::STREAM);
    let owners = rows.iter().map(|row| row.consumer.as_str()).collect::<Vec<_>>();
    assert_eq!(owners, ["other", "other", owner], "what runs there already goes on");
    for done in &ids[..2] {
        store.acknowledge(queue, &[(Inlet::STREAM, *done)]).await?;
    }
    assert!(store.retire(queue, &stage.other).await?);
    let (_, claimed, _) = stage.claim_idle(&third, EntryId::ZERO, 9).await?;
    assert_eq!(claimed.len(), 1, "the process has stopped");
    Ok(())
}

/// Skipping is refused by default.
pub async fn a_group_moves_over_undelivered_entries_only_if_they_may_be_lost(
    stage: &Stage,
) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let ids = stage.append(4).await?;
    let checked = store.check_move_group(queue, None, Unfinished::Keep).await?;
    let refused = store.move_group(queue, None, Unfinished::Keep).await?;
    assert_eq!(checked, refused);
    assert!(matches!(refused, Permitted::Refused(Obstacle::Unfinished { undelivered: true, .. })));
    let second = ids.get(1).copied();
    assert_eq!(store.check_move_group(queue, second, Unfinished::Lose).await?, Permitted::Done);
    assert_eq!(store.group_facts(queue).await?.cursor, EntryId::ZERO, "a check moves nothing");
    assert_eq!(store.move_group(queue, second, Unfinished::Lose).await?, Permitted::Done);
    assert_eq!(stage.read(&stage.me, Inlet::STREAM, 9).await?.len(), 2);
    assert_eq!(
        store.move_group(queue, Some(EntryId::ZERO), Unfinished::Keep).await?,
        Permitted::Done
    );
    let again = stage.read(&stage.me, Inlet::STREAM, 9).await?;
    assert_eq!(again.iter().map(|one| one.entry.id()).collect::<Vec<_>>(), ids);
    assert_eq!(store.group_facts(queue).await?.lag, Some(0));
    for delivery in &again {
        store.acknowledge(queue, &[(Inlet::STREAM, delivery.entry.id())]).await?;
    }
    shorten(stage, Cut::Length(1), true, Unfinished::Lose).await?;
    store.move_group(queue, Some(EntryId::ZERO), Unfinished::Keep).await?;
    let recorded = store.heartbeat(queue, &stage.me, "{}").await?;
    assert_eq!(recorded.trimmed_unread, 0, "what it has done before is not lost to it");
    Ok(())
}

/// The id may be a slip, or of another partition, whose server has another clock.
pub async fn a_group_that_is_moved_beyond_the_end_gets_what_is_published_later(
    stage: &Stage,
) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let last = stage.append(2).await?.last().copied();
    stage.read(&stage.me, Inlet::STREAM, 9).await?;
    let beyond = Some(EntryId::new(9_999_999_999_999, 7));
    for unfinished in [Unfinished::Keep, Unfinished::Lose] {
        assert_eq!(store.move_group(queue, beyond, unfinished).await?, Permitted::Done);
        let facts = store.group_facts(queue).await?;
        assert_eq!((Some(facts.cursor), facts.lag), (last, Some(0)));
    }
    let later = stage.append(1).await?;
    let read = stage.read(&stage.me, Inlet::STREAM, 9).await?;
    assert_eq!(read.iter().map(|one| one.entry.id()).collect::<Vec<_>>(), later);
    Ok(())
}

/// A group with unfinished work or a live process is kept.
pub async fn a_group_is_destroyed_only_if_it_is_done_or_its_work_may_be_lost(
    stage: &Stage,
) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let hold = stage.deliver_one().await?;
    stage.append(1).await?;
    let checked = store.check_destroy_group(queue, Unfinished::Keep).await?;
    let refused = store.destroy_group(queue, Unfinished::Keep).await?;
    assert_eq!(checked, refused);
    let Permitted::Refused(Obstacle::Unfinished { pending, undelivered, .. }) = refused else {
        return Err(format!("{refused:?} instead of a refusal").into());
    };
    assert_eq!((pending, undelivered), (1, true));
    store.heartbeat(queue, &stage.me, "{}").await?;
    let checked = store.check_destroy_group(queue, Unfinished::Lose).await?;
    let refused = store.destroy_group(queue, Unfinished::Lose).await?;
    assert_eq!(checked, refused);
    assert!(matches!(refused, Permitted::Refused(Obstacle::Alive { .. })), "{refused:?}");
    store.acknowledge(queue, &[(hold.inlet, hold.id)]).await?;
    assert!(store.retire(queue, &stage.me).await?);
    assert_eq!(store.check_destroy_group(queue, Unfinished::Lose).await?, Permitted::Done);
    assert_eq!(store.group_facts(queue).await?.length, 2, "a check removes nothing");
    assert_eq!(store.destroy_group(queue, Unfinished::Lose).await?, Permitted::Done);
    assert!(matches!(store.group_facts(queue).await, Err(StoreError::GroupMissing)));
    assert!(store.delete_stream(&queue.stream, std::slice::from_ref(&queue.group)).await?);
    assert!(!store.delete_stream(&queue.stream, &[]).await?);
    Ok(())
}

/// A cut reports the group that blocked it.
pub async fn a_cut_stops_at_what_a_group_needs_unless_it_may_lose_it(stage: &Stage) -> Case {
    let holds = stage.deliver(300).await?;
    let done = holds.iter().take(200).map(|hold| (hold.inlet, hold.id)).collect::<Vec<_>>();
    stage.store.acknowledge(&stage.queue, &done).await?;
    let first_needed = holds.get(200).ok_or("300 holds")?.id;
    let about = shorten(stage, Cut::Length(200), false, Unfinished::Keep).await?;
    assert!(about.removed <= 100 && about.blocked_by.is_none(), "{about:?}");
    let exact = shorten(stage, Cut::Length(50), true, Unfinished::Keep).await?;
    assert_eq!(exact.length, 100, "{exact:?}");
    assert_eq!(exact.blocked_by, Some(("work".to_owned(), first_needed)));
    let before = Cut::Before(holds.get(250).ok_or("300 holds")?.id);
    let kept = shorten(stage, before, true, Unfinished::Keep).await?;
    assert_eq!((kept.removed, kept.blocked_by.is_some()), (0, true));
    let cut = shorten(stage, before, true, Unfinished::Lose).await?;
    assert_eq!((cut.removed, cut.length, cut.blocked_by), (50, 50, None));
    let young = shorten(stage, Cut::Age(LEASE), true, Unfinished::Lose).await?;
    assert_eq!(young.removed, 0);
    let all = shorten(stage, Cut::Length(0), true, Unfinished::Lose).await?;
    assert_eq!((all.removed, all.length), (50, 0));
    assert_eq!(shorten(stage, Cut::Length(0), true, Unfinished::Keep).await?, Trimmed::default());
    Ok(())
}

/// A group that needs none of the entries blocks nothing.
pub async fn a_cut_of_finished_entries_is_not_blocked(stage: &Stage) -> Case {
    let holds = stage.deliver(300).await?;
    let done = holds.iter().map(|hold| (hold.inlet, hold.id)).collect::<Vec<_>>();
    stage.store.acknowledge(&stage.queue, &done).await?;
    stage.append(50).await?;
    let exact = shorten(stage, Cut::Length(50), true, Unfinished::Keep).await?;
    assert_eq!((exact.removed, exact.blocked_by), (300, None));
    let fresh = stage.read(&stage.me, Inlet::STREAM, 50).await?;
    let last = fresh.last().ok_or("fifty entries")?.entry.id();
    for delivery in &fresh {
        stage.store.acknowledge(&stage.queue, &[(Inlet::STREAM, delivery.entry.id())]).await?;
    }
    let beyond = Cut::Before(EntryId::new(last.milliseconds() + 1, 0));
    let about = shorten(stage, beyond, false, Unfinished::Keep).await?;
    assert_eq!(about.blocked_by, None, "all of it is done");
    Ok(())
}

/// Trims, and compares an exact trim with the check before it.
pub(super) async fn shorten(
    stage: &Stage,
    cut: Cut,
    exact: bool,
    unfinished: Unfinished,
) -> Result<Trimmed, StoreError> {
    let trim = Trim { cut, exact, unfinished };
    let checked = stage.store.check_trim(&stage.queue.stream, trim).await?;
    let trimmed = stage.store.trim(&stage.queue.stream, trim).await?;
    if exact {
        assert_eq!(checked, trimmed, "{trim:?}");
    }
    Ok(trimmed)
}
