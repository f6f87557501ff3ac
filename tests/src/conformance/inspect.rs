//! Reading the state of streams, groups and consumers.

use std::time::Duration;

use bytes::Bytes;
use streamjobs::__store::admin::{Cut, Permitted, Unfinished};
use streamjobs::__store::inspect::{JobPlace, PendingFilter, PreviewOf, RetriesFrom, Span};
use streamjobs::__store::{Delivery, Inlet, StoreError};
use streamjobs::config::Retention;
use streamjobs::stream::EntryPreview;
use streamjobs::{Entry, EntryId};

use super::admin::shorten;
use super::{Case, LEASE, Stage, append, fields};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! inspect_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, inspect:
            the_state_of_a_stream_and_its_group_is_what_was_done,
            what_is_trimmed_before_its_delivery_is_counted_once,
            the_oldest_unfinished_entry_is_found_wherever_its_job_is,
            a_job_in_a_line_is_unfinished,
            counting_ends_at_its_limit,
            pending_entries_are_paged_and_filtered,
            a_range_is_read_from_either_end,
            previews_have_the_beginnings_of_values_in_the_order_asked_for,
            a_tail_waits_for_what_comes_and_touches_no_group,
            consumers_describe_themselves_with_every_heartbeat,
            a_consumer_is_shown_before_its_first_read,
            failed_jobs_are_found_with_their_errors,
            released_entries_belong_to_no_consumer_and_are_not_idle,
            what_a_job_carries_of_its_attempts_is_read_wherever_it_is,
        }
    };
}

/// The reported state is what the steps did.
pub async fn the_state_of_a_stream_and_its_group_is_what_was_done(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let ids = stage.append(5).await?;
    let read = stage.read(&stage.me, Inlet::STREAM, 3).await?;
    let first = read.first().ok_or("three entries")?;
    store.acknowledge(queue, &[(Inlet::STREAM, first.entry.id())]).await?;
    let stream = store.stream_info(&queue.stream).await?.ok_or("there is a stream")?;
    assert_eq!((stream.length, stream.added, stream.groups), (5, 5, 1));
    assert_eq!((stream.first, stream.last), (ids.first().copied(), ids.last().copied()));
    let sizes = store.stream_sizes(&queue.stream).await?.ok_or("there is a stream")?;
    assert_eq!((sizes.length, sizes.added, sizes.groups), (5, 5, 1));
    let group = store.group_facts(queue).await?;
    assert_eq!((group.read, group.lag), (Some(3), Some(2)));
    assert_eq!((Some(group.cursor), group.next), (ids.get(2).copied(), ids.get(3).copied()));
    assert_eq!((group.pending, group.retrying, group.dead_letters), (2, 0, Some(0)));
    assert!(group.oldest_pending.is_some() && group.paused.is_none());
    assert_eq!(store.group_names(&queue.stream).await?, ["work"]);
    stage.raw.flush();
    assert_eq!(store.stream_info(&queue.stream).await?, None);
    assert_eq!(store.stream_sizes(&queue.stream).await?, None);
    assert!(store.group_names(&queue.stream).await?.is_empty());
    assert!(matches!(store.group_facts(queue).await, Err(StoreError::GroupMissing)));
    assert!(matches!(store.consumers(queue).await, Err(StoreError::GroupMissing)));
    Ok(())
}

/// A loss without a dead letter is reported by a count, once.
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
    assert_eq!(store.heartbeat(queue, &stage.me, "{}").await?.trimmed_unread, 0, "reported once");
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
    assert_eq!(oldest().await?, Some(*second), "waiting for retry");
    store.promote(queue, &stage.me, 9).await?;
    assert_eq!(oldest().await?, Some(*second), "in the lane");
    let lane = stage.read(&stage.me, Inlet::LANE, 9).await?;
    assert_eq!(oldest().await?, Some(*second), "pending in the lane");
    let id = lane.first().ok_or("a job")?.entry.id();
    store.acknowledge(queue, &[(Inlet::LANE, id)]).await?;
    assert_eq!(oldest().await?, None, "all is done");
    stage.raw.destroy_group(&stage.key(Inlet::STREAM), "work");
    assert!(matches!(store.oldest_unfinished(queue).await, Err(StoreError::GroupMissing)));
    Ok(())
}

/// Its entry is acknowledged, and nothing of it is in the lane or waits for a retry.
pub async fn a_job_in_a_line_is_unfinished(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let ids = super::holds::publish(stage, &["a:1", "a:2", "a:3"]).await?;
    let [first, second, _] = ids.as_slice() else { return Err("three".into()) };
    let taken = store.take(queue, &stage.me, Inlet::STREAM, 9, super::holds::KEY).await?;
    assert_eq!((taken.deliveries.len(), taken.parked), (1, 2));
    assert_eq!(store.oldest_unfinished(queue).await?.published, Some(*first));
    store.acknowledge(queue, &[(Inlet::STREAM, *first)]).await?;
    let oldest = store.oldest_unfinished(queue).await?;
    assert_eq!((oldest.published, oldest.complete), (Some(*second), true));
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
    let all = PendingFilter {
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
    assert_eq!(store.pending(&stage.queue, PendingFilter { after, ..all }).await?.len(), 3);
    let consumer = Some(stage.other.as_str());
    assert_eq!(store.pending(&stage.queue, PendingFilter { consumer, ..all }).await?.len(), 2);
    let old = holds.get(2).ok_or("five holds")?;
    stage.abandon(*old);
    let idle = store.pending(&stage.queue, PendingFilter { idle: LEASE, ..all }).await?;
    assert_eq!(idle.iter().map(|row| row.id).collect::<Vec<_>>(), [old.id]);
    assert!(idle.iter().all(|row| row.delivery_count == 1 && row.consumer == "me"));
    let past = PendingFilter { after: EntryId::MAX, ..all };
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
        Ok(entries.iter().map(Entry::id).collect())
    };
    assert_eq!(Some(read(Span { from, to }, false, 9).await?.as_slice()), ids.get(1..=3));
    assert_eq!(read(Span { from, to }, true, 1).await?, [to]);
    assert!(read(Span { from: to, to: from }, false, 9).await?.is_empty());
    let everything = Span { from: EntryId::ZERO, to: EntryId::MAX };
    assert_eq!(read(everything, false, 9).await?, ids);
    assert!(stage.pending(Inlet::STREAM).is_empty(), "nothing was delivered");
    Ok(())
}

/// A list gets only what it shows, and the sizes of the rest.
pub async fn previews_have_the_beginnings_of_values_in_the_order_asked_for(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let ids = stage.append(5).await?;
    let all = Span { from: EntryId::ZERO, to: EntryId::MAX };
    let of = PreviewOf::Entries { value: 1 };
    for newest_first in [false, true] {
        let (mut seen, mut span) = (Vec::new(), all);
        loop {
            let page = store.previews(stream, span, newest_first, 2, of).await?;
            let whole = store.range(stream, span, newest_first, 2).await?;
            for (preview, entry) in page.entries.iter().zip(&whole) {
                assert_eq!((preview.id, preview.event_type()), (entry.id(), entry.event_type()));
                for (field, (name, value)) in preview.fields.iter().zip(entry.fields()) {
                    let shown = if *name == "type" { value.len() } else { value.len().min(1) };
                    assert_eq!((&field.name, field.bytes), (name, value.len() as u64));
                    assert_eq!(field.value, value.slice(..shown));
                }
                assert_eq!(preview.fields.len(), entry.fields().len());
                seen.push(preview.id);
            }
            let last = seen.last().copied().filter(|_| page.has_more);
            match last.and_then(|last| if newest_first { last.previous() } else { last.next() }) {
                Some(to) if newest_first => span.to = to,
                Some(from) => span.from = from,
                None => break,
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, ids);
    }
    let none = store.previews(stream, all, true, 0, of).await?;
    assert!(none.entries.is_empty() && !none.has_more);
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
    let seen = read?.iter().map(Entry::id).collect::<Vec<_>>();
    assert_eq!(seen, appended?);
    assert!(stage.pending(Inlet::STREAM).is_empty());
    Ok(())
}

/// The description comes with the heartbeat and is removed with the consumer.
pub async fn consumers_describe_themselves_with_every_heartbeat(stage: &Stage) -> Case {
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
    assert!(other.about.is_none() && other.beat.is_none(), "it never sent a heartbeat");
    store.acknowledge(queue, &[(hold.inlet, hold.id)]).await?;
    store.retire(queue, &stage.me).await?;
    stage.read(&stage.me, Inlet::STREAM, 1).await?;
    let again = store.consumers(queue).await?.consumers;
    assert!(again.iter().all(|consumer| consumer.about.is_none()), "{again:?}");
    Ok(())
}

/// A process that has not read yet is known by its heartbeat, until the heartbeat is removed.
pub async fn a_consumer_is_shown_before_its_first_read(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    assert!(store.consumers(queue).await?.consumers.is_empty());
    store.heartbeat(queue, &stage.me, r#"{"slots":16}"#).await?;
    let seen = store.consumers(queue).await?;
    let [me] = seen.consumers.as_slice() else { return Err("one consumer".into()) };
    assert_eq!((me.name.as_str(), me.pending), ("me", 0));
    assert_eq!(me.about.as_deref(), Some(r#"{"slots":16}"#));
    stage.deliver_one().await?;
    let seen = store.consumers(queue).await?.consumers;
    assert_eq!(seen.iter().map(|one| one.pending).collect::<Vec<_>>(), [1], "and once");
    Ok(())
}

/// New dead letters and failed jobs that wait for retry are distinguished from snoozed ones.
pub async fn failed_jobs_are_found_with_their_errors(stage: &Stage) -> Case {
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    let job = |pairs: [(&'static str, String); 2]| {
        pairs
            .map(|(name, value)| (Bytes::from_static(name.as_bytes()), Bytes::from(value)))
            .to_vec()
    };
    let holds = stage.deliver(20).await?;
    let (snoozed, rest) = holds.split_at(8);
    for (number, hold) in snoozed.iter().enumerate() {
        let delay = Duration::from_secs(number as u64 + 60);
        let fields = job([("sj-attempt", "0".into()), ("sj-error", "later".into())]);
        store.schedule_retry(queue, me, *hold, None, delay, &fields).await?;
    }
    let facts = store.group_facts(queue).await?;
    assert_eq!((facts.retrying, facts.retry_error), (8, None), "snoozed jobs have not failed");
    assert_eq!((facts.new_dead_letters, facts.dead_letter_error), (0, None));
    let (failed, dead) = rest.split_at(1);
    let long = "x".repeat(1_000);
    for hold in failed {
        let fields = job([("sj-attempt", "2".into()), ("sj-error", long.clone())]);
        store.schedule_retry(queue, me, *hold, None, Duration::from_secs(900), &fields).await?;
    }
    for (number, hold) in dead.iter().enumerate() {
        let error = format!("error {number}");
        let fields = job([("sj-dead-reason", "rejected".into()), ("sj-dead-error", error)]);
        store.store_dead_letter(queue, me, *hold, None, &fields).await?;
    }
    let facts = store.group_facts(queue).await?;
    assert_eq!(facts.retry_error.as_deref(), long.get(..300), "the last one that is due");
    assert_eq!(facts.new_dead_letters, 11);
    assert_eq!(facts.dead_letter_error.as_deref(), Some("error 10"));
    let letters = store.dead_letters(queue, EntryId::ZERO, 1).await?;
    let first = letters.first().ok_or("a dead letter")?.id();
    store.purge(queue, &[first]).await?;
    assert_eq!(store.group_facts(queue).await?.new_dead_letters, 10, "what is gone is no problem");
    Ok(())
}

/// Released entries are counted by themselves: they have no owner that could have died.
pub async fn released_entries_belong_to_no_consumer_and_are_not_idle(stage: &Stage) -> Case {
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    let holds = stage.deliver(300).await?;
    let (released, kept) = holds.split_at(299);
    store.release(queue, me, released).await?;
    for hold in released.iter().take(2) {
        stage.abandon(*hold);
    }
    let facts = store.group_facts(queue).await?;
    assert_eq!((facts.pending, facts.released), (300, 299));
    assert!(facts.oldest_pending.is_some_and(|idle| idle < LEASE), "{facts:?}");
    kept.iter().for_each(|hold| stage.abandon(*hold));
    let facts = store.group_facts(queue).await?;
    assert!(facts.oldest_pending.is_some_and(|idle| idle >= LEASE), "{facts:?}");
    store.release(queue, me, kept).await?;
    let facts = store.group_facts(queue).await?;
    assert_eq!((facts.released, facts.oldest_pending), (300, None));
    store.retire_dead(queue, Duration::from_secs(3_600)).await?;
    assert!(store.retire(queue, me).await?);
    assert!(store.consumers(queue).await?.consumers.is_empty());
    let destroyed = store.destroy_group(queue, Unfinished::Lose).await?;
    assert_eq!(destroyed, Permitted::Done, "no process is alive");
    Ok(())
}

/// The past attempts of a job travel with it, and are read without its payload.
pub async fn what_a_job_carries_of_its_attempts_is_read_wherever_it_is(stage: &Stage) -> Case {
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    let line = |n: u64| {
        format!(r#"{{"n":{n},"attempt":1,"end":"failed","at":5,"ms":6,"by":"w","deliveries":1}}"#)
    };
    let job = || {
        let mut job = fields("x");
        job.push(("sj-history".into(), [line(1), line(2)].join("\n").into()));
        job
    };
    let known = async |of| {
        let history = store.past_attempts(queue, of).await?;
        Ok::<_, StoreError>((history.attempts.len(), history.left_out))
    };
    let [retried, dead] = stage.deliver(2).await?[..] else { return Err("two entries".into()) };
    store.schedule_retry(queue, me, retried, None, Duration::ZERO, &job()).await?;
    let mut letter = job();
    letter.insert(0, ("sj-dead-attempt".into(), line(3).into()));
    store.store_dead_letter(queue, me, dead, None, &letter).await?;

    let retries = store.retries(queue, RetriesFrom::First, 1).await?.jobs;
    let name = &retries.first().ok_or("a retry")?.name;
    assert_eq!(known(JobPlace::Retry(name)).await?, (2, 0));
    let letters = store.dead_letters(queue, EntryId::ZERO, 1).await?;
    let letter = letters.first().ok_or("a letter")?.id();
    assert_eq!(known(JobPlace::Dead(letter)).await?, (3, 0));
    store.promote(queue, me, 1).await?;
    let lane = stage.read(me, Inlet::LANE, 1).await?;
    let lane = lane.first().ok_or("an entry of the lane")?.entry.id();
    assert_eq!(known(JobPlace::Lane(lane)).await?, (2, 0));
    // Neither lists of entries nor lists of letters transfer it.
    let span = Span { from: EntryId::ZERO, to: EntryId::MAX };
    let field = |entry: &EntryPreview| {
        let mut fields = entry.fields.iter().filter(|field| field.name == "sj-history");
        fields.next().map(|field| field.value.len())
    };
    append(store.as_ref(), &queue.stream, Retention::Unlimited, vec![job()]).await;
    for (of, expected) in [(PreviewOf::Entries { value: 0 }, Some(0)), (PreviewOf::Letters, None)] {
        let shown = store.previews(&queue.stream, span, true, 1, of).await?.entries;
        assert_eq!(shown.first().map(field), Some(expected), "{of:?}");
    }
    // A job that is not there any more has none.
    let gone = EntryId::MAX;
    for of in [JobPlace::Retry(name), JobPlace::Lane(gone), JobPlace::Dead(gone)] {
        assert_eq!(known(of).await?, (0, 0), "{of:?}");
    }
    Ok(())
}
