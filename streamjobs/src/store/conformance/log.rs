//! The stream as a log: looking, and what an operator does.

use std::time::Duration;

use super::{Case, LEASE, Stage, fields};
use crate::model::entry::{Delivery, EntryId, Inlet};
use crate::model::name::ConsumerName;
use crate::store::StoreError;
use crate::store::inspect::{PendingLook, Span};
use crate::store::operate::{
    Cut, Destination, Obstacle, Permitted, Selected, Trim, Trimmed, Unfinished,
};

/// What is seen is what was done.
pub async fn what_is_seen_of_a_stream_and_its_group_is_what_was_done(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let ids = stage.append(5).await?;
    let read = stage.read(&stage.me, Inlet::STREAM, 3).await?;
    let first = read.first().ok_or("three entries")?;
    store.acknowledge(queue, &[(Inlet::STREAM, first.entry.id())]).await?;
    let stream = store.stream_info(&queue.stream).await?.ok_or("there is a stream")?;
    assert_eq!((stream.length, stream.added, stream.groups), (5, 5, 1));
    assert_eq!((stream.first, stream.last), (ids.first().copied(), ids.last().copied()));
    let group = store.group_facts(queue).await?;
    assert_eq!((group.read, group.lag), (Some(3), Some(2)));
    assert_eq!((Some(group.cursor), group.next), (ids.get(2).copied(), ids.get(3).copied()));
    assert_eq!((group.pending, group.retrying, group.dead_letters), (2, 0, Some(0)));
    assert!(group.oldest_pending.is_some() && group.paused.is_none());
    assert_eq!(store.group_names(&queue.stream).await?, ["work"]);
    stage.hands.flush();
    assert_eq!(store.stream_info(&queue.stream).await?, None);
    assert!(store.group_names(&queue.stream).await?.is_empty());
    assert!(matches!(store.group_facts(queue).await, Err(StoreError::GroupMissing)));
    assert!(matches!(store.consumers(queue).await, Err(StoreError::GroupMissing)));
    Ok(())
}

/// A loss that no dead letter can tell of is told by a count, once.
pub async fn what_is_trimmed_before_its_delivery_is_counted_once(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    stage.append(100).await?;
    let read = stage.read(&stage.me, Inlet::STREAM, 10).await?;
    for delivery in &read {
        store.acknowledge(queue, &[(Inlet::STREAM, delivery.entry.id())]).await?;
    }
    let trimmed = shorten(stage, Cut::Length(5), true, Unfinished::Lose).await?;
    assert_eq!((trimmed.removed, trimmed.length), (95, 5));
    assert_eq!(store.heartbeat(queue, &stage.me, "{}").await?.trimmed_unread, 85);
    assert_eq!(store.heartbeat(queue, &stage.me, "{}").await?.trimmed_unread, 0, "told once");
    let facts = store.group_facts(queue).await?;
    assert_eq!((facts.trimmed_unread, facts.lag), (85, Some(5)));
    assert_eq!(stage.read(&stage.me, Inlet::STREAM, 10).await?.len(), 5);
    assert_eq!(store.heartbeat(queue, &stage.me, "{}").await?.trimmed_unread, 0);
    assert_eq!(store.group_facts(queue).await?.lag, Some(0), "no phantom stays");
    stage.append(7).await?;
    shorten(stage, Cut::Length(0), true, Unfinished::Lose).await?;
    assert_eq!(
        store.heartbeat(queue, &stage.me, "{}").await?.trimmed_unread,
        7,
        "an empty stream too"
    );
    Ok(())
}

/// A job is as old as the entry that was published, wherever the job is now.
pub async fn the_oldest_unfinished_entry_is_found_wherever_its_job_is(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let oldest = async || -> Result<Option<EntryId>, StoreError> {
        let oldest = store.oldest_unfinished(queue).await?;
        assert!(oldest.complete);
        Ok(oldest.published)
    };
    assert_eq!(oldest().await?, None, "nothing was ever published");
    let ids = stage.append(3).await?;
    let [first, second, third] = ids.as_slice() else { return Err("three".into()) };
    assert_eq!(oldest().await?, Some(*first), "not delivered");
    let read = stage.read(&stage.me, Inlet::STREAM, 3).await?;
    assert_eq!(oldest().await?, Some(*first), "pending");
    let holds = read.iter().map(Delivery::hold).collect::<Vec<_>>();
    store.acknowledge(queue, &[(Inlet::STREAM, *first)]).await?;
    assert_eq!(oldest().await?, Some(*second));
    let mut job = fields("again");
    job.push(("sj-origin".into(), second.to_string().into()));
    let second_hold = *holds.get(1).ok_or("three holds")?;
    store.schedule_retry(queue, &stage.me, second_hold, None, Duration::ZERO, &job).await?;
    store.acknowledge(queue, &[(Inlet::STREAM, *third)]).await?;
    assert_eq!(oldest().await?, Some(*second), "set aside");
    store.promote(queue, 9).await?;
    assert_eq!(oldest().await?, Some(*second), "in the lane");
    let lane = stage.read(&stage.me, Inlet::LANE, 9).await?;
    assert_eq!(oldest().await?, Some(*second), "pending in the lane");
    let id = lane.first().ok_or("a job")?.entry.id();
    store.acknowledge(queue, &[(Inlet::LANE, id)]).await?;
    assert_eq!(oldest().await?, None, "all is done");
    stage.hands.destroy_group(&stage.key(Inlet::STREAM), "work");
    assert!(matches!(store.oldest_unfinished(queue).await, Err(StoreError::GroupMissing)));
    Ok(())
}

/// Counting is bounded.
pub async fn counting_ends_at_its_limit(stage: &Stage) -> Case {
    let ids = stage.append(45).await?;
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let after = *ids.get(4).ok_or("ids")?;
    let all = store.count_after(stream, after, 1_000).await?;
    assert_eq!((all.entries, all.complete), (40, true));
    let some = store.count_after(stream, after, 20).await?;
    assert!((20..30).contains(&some.entries) && !some.complete, "{some:?}");
    let none = store.count_after(stream, EntryId::MAX, 20).await?;
    assert_eq!((none.entries, none.complete), (0, true));
    Ok(())
}

/// Pending entries can be gone through, and filtered.
pub async fn pending_entries_are_paged_and_filtered(stage: &Stage) -> Case {
    let holds = stage.deliver(5).await?;
    stage.append(2).await?;
    stage.read(&stage.other, Inlet::STREAM, 2).await?;
    let all = PendingLook {
        inlet: Inlet::STREAM,
        after: EntryId::ZERO,
        idle: Duration::ZERO,
        consumer: None,
        limit: 4,
    };
    let store = &stage.store;
    let first = store.pending(&stage.queue, all).await?;
    assert_eq!(first.len(), 4);
    let after = first.last().ok_or("four rows")?.id;
    assert_eq!(store.pending(&stage.queue, PendingLook { after, ..all }).await?.len(), 3);
    let consumer = Some(stage.other.as_str());
    assert_eq!(store.pending(&stage.queue, PendingLook { consumer, ..all }).await?.len(), 2);
    let old = holds.get(2).ok_or("five holds")?;
    stage.abandon(*old);
    let idle = store.pending(&stage.queue, PendingLook { idle: LEASE, ..all }).await?;
    assert_eq!(idle.iter().map(|row| row.id).collect::<Vec<_>>(), [old.id]);
    assert!(idle.iter().all(|row| row.delivery_count == 1 && row.consumer == "me"));
    let past = PendingLook { after: EntryId::MAX, ..all };
    assert!(store.pending(&stage.queue, past).await?.is_empty());
    Ok(())
}

/// A range is read from either end.
pub async fn a_range_is_read_from_either_end(stage: &Stage) -> Case {
    let ids = stage.append(5).await?;
    let (from, to) = (*ids.get(1).ok_or("ids")?, *ids.get(3).ok_or("ids")?);
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let read = async |span, newest_first, limit| -> Result<Vec<EntryId>, StoreError> {
        let entries = store.range(stream, span, newest_first, limit).await?;
        Ok(entries.iter().map(crate::model::entry::Entry::id).collect())
    };
    assert_eq!(Some(read(Span { from, to }, false, 9).await?.as_slice()), ids.get(1..=3));
    assert_eq!(read(Span { from, to }, true, 1).await?, [to]);
    assert!(read(Span { from: to, to: from }, false, 9).await?.is_empty());
    let everything = Span { from: EntryId::ZERO, to: EntryId::MAX };
    assert_eq!(read(everything, false, 9).await?, ids);
    assert!(stage.pending(Inlet::STREAM).is_empty(), "nothing was delivered");
    Ok(())
}

/// Following a stream touches no group.
pub async fn a_tail_waits_for_what_comes_and_touches_no_group(stage: &Stage) -> Case {
    let ids = stage.append(2).await?;
    let last = *ids.last().ok_or("two ids")?;
    let mut tail = stage.store.tail(&stage.queue.stream).await?;
    assert!(tail.read(last, 9, Duration::from_millis(20)).await?.is_empty());
    let (read, appended) =
        tokio::join!(tail.read(last, 9, Duration::from_secs(10)), stage.append(1));
    let seen = read?.iter().map(crate::model::entry::Entry::id).collect::<Vec<_>>();
    assert_eq!(seen, appended?);
    assert!(stage.pending(Inlet::STREAM).is_empty());
    Ok(())
}

/// Whoever gets an entry gets it as it was; what cannot be moved is named.
pub async fn moved_entries_keep_their_count_and_their_idle_time(stage: &Stage) -> Case {
    let holds = stage.deliver(3).await?;
    let [kept, gone, _] = holds.as_slice() else { return Err("three holds".into()) };
    stage.abandon(*kept);
    stage.hands.delete(&stage.key(Inlet::STREAM), gone.id);
    let unknown = EntryId::new(1, 1);
    let ids = [kept.id, gone.id, unknown];
    let to = Destination { consumer: Some(&stage.other), abandoned: false };
    let store = &stage.store;
    let page = store.move_pending(&stage.queue, Inlet::STREAM, Selected::Ids(&ids), to).await?;
    assert_eq!((page.moved, page.trimmed), (vec![kept.id], vec![gone.id]));
    assert_eq!((page.missing, page.left), (vec![unknown], vec![]));
    let row = stage.row(kept.id).ok_or("still pending")?;
    assert_eq!((row.consumer.as_str(), row.delivery_count), ("other", 1));
    assert!(row.idle >= LEASE, "{row:?}");
    assert!(stage.row(gone.id).is_none());
    assert_eq!(stage.hands.length(&stage.dead_key()), 1, "a loss is told");
    let renewed = store.renew(&stage.queue, &stage.me, &[*kept]).await?;
    assert_eq!(
        renewed.answers,
        [crate::store::FenceResult::TakenOver],
        "the former owner is fenced"
    );
    Ok(())
}

/// Everything of one consumer can be given to another, and nothing else.
pub async fn all_of_one_consumer_is_handed_over_page_by_page(stage: &Stage) -> Case {
    let holds = stage.deliver(1_200).await?;
    stage.append(1).await?;
    let third = ConsumerName::new("third")?;
    stage.read(&third, Inlet::STREAM, 1).await?;
    let to = Destination { consumer: Some(&stage.other), abandoned: false };
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

/// Released entries are taken up by the next sweep, and processes are told to look.
pub async fn what_is_made_to_look_abandoned_is_claimed_at_once(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    let released = stage.store.promote(&stage.queue, 1).await?.released;
    let to = Destination { consumer: None, abandoned: true };
    let selected = Selected::Ids(&[hold.id]);
    stage.store.move_pending(&stage.queue, Inlet::STREAM, selected, to).await?;
    let row = stage.row(hold.id).ok_or("still pending")?;
    assert_eq!((row.consumer.as_str(), row.delivery_count), ("me", 1));
    assert!(stage.store.promote(&stage.queue, 1).await?.released > released);
    let (_, claimed, _) = stage.claim_idle(&stage.other, EntryId::ZERO, 9).await?;
    assert_eq!(claimed.iter().map(|one| one.delivery_count).collect::<Vec<_>>(), [2]);
    let before = stage.store.promote(&stage.queue, 1).await?.released;
    stage.store.call_sweep(&stage.queue).await?;
    assert!(stage.store.promote(&stage.queue, 1).await?.released > before);
    Ok(())
}

/// Nothing is skipped unless told.
pub async fn a_group_moves_over_undelivered_entries_only_when_told(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let ids = stage.append(4).await?;
    let refused = store.move_group(queue, None, Unfinished::Keep).await?;
    assert!(matches!(refused, Permitted::Refused(Obstacle::Unfinished { undelivered: true, .. })));
    let second = ids.get(1).copied();
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
    let beat = store.heartbeat(queue, &stage.me, "{}").await?;
    assert_eq!(beat.trimmed_unread, 0, "what it has done before is not lost to it");
    Ok(())
}

/// A group goes when nothing is left of it, or when told, and never under a living process.
pub async fn a_group_is_destroyed_only_when_it_is_done_or_when_told(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let hold = stage.deliver_one().await?;
    stage.append(1).await?;
    let refused = store.destroy_group(queue, Unfinished::Keep).await?;
    let Permitted::Refused(Obstacle::Unfinished { pending, undelivered, .. }) = refused else {
        return Err(format!("{refused:?} instead of a refusal").into());
    };
    assert_eq!((pending, undelivered), (1, true));
    store.heartbeat(queue, &stage.me, "{}").await?;
    let refused = store.destroy_group(queue, Unfinished::Lose).await?;
    assert!(matches!(refused, Permitted::Refused(Obstacle::Alive { .. })), "{refused:?}");
    store.acknowledge(queue, &[(hold.inlet, hold.id)]).await?;
    assert!(store.retire(queue, &stage.me).await?);
    assert_eq!(store.destroy_group(queue, Unfinished::Lose).await?, Permitted::Done);
    assert!(matches!(store.group_facts(queue).await, Err(StoreError::GroupMissing)));
    assert!(store.delete_stream(&queue.stream, std::slice::from_ref(&queue.group)).await?);
    assert!(!store.delete_stream(&queue.stream, &[]).await?);
    Ok(())
}

/// No cut goes past what a group needs, unless told, and it says who held it up.
pub async fn a_cut_stops_at_what_a_group_needs_unless_told(stage: &Stage) -> Case {
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

/// A group that needs nothing of what is there holds nothing up.
pub async fn a_cut_of_what_is_done_is_held_up_by_nobody(stage: &Stage) -> Case {
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

/// What a consumer says about itself is heard with its beat, and gone with it.
pub async fn consumers_say_who_they_are_with_every_beat(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let hold = stage.deliver_one().await?;
    store.heartbeat(queue, &stage.me, r#"{"host":"here"}"#).await?;
    stage.append(1).await?;
    stage.read(&stage.other, Inlet::STREAM, 1).await?;
    let seen = store.consumers(queue).await?;
    let [me, other] = seen.consumers.as_slice() else { return Err("two consumers".into()) };
    assert_eq!((me.name.as_str(), me.pending), ("me", 1));
    assert!(me.about.as_deref() == Some(r#"{"host":"here"}"#) && me.beat.is_some());
    assert!(me.beat.is_some_and(|beat| beat <= seen.now.0));
    assert!(other.about.is_none() && other.beat.is_none(), "it never beat");
    store.acknowledge(queue, &[(hold.inlet, hold.id)]).await?;
    store.retire(queue, &stage.me).await?;
    stage.read(&stage.me, Inlet::STREAM, 1).await?;
    let again = store.consumers(queue).await?.consumers;
    assert!(again.iter().all(|consumer| consumer.about.is_none()), "{again:?}");
    Ok(())
}

async fn shorten(
    stage: &Stage,
    cut: Cut,
    exact: bool,
    unfinished: Unfinished,
) -> Result<Trimmed, StoreError> {
    stage.store.trim(&stage.queue.stream, Trim { cut, exact, unfinished }).await
}
