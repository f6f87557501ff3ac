//! Groups, consumers, retention and dead letters.

use std::time::Duration;

use streamjobs::__store::admin::{Cut, Trim, Unfinished};
use streamjobs::__store::{
    BeginAt, GroupMade, Inlet, Prepared, Queue, ReadRequest, ReaderSetup, ServerTime, StoreError,
};
use streamjobs::config::{Retention, Start};
use streamjobs::{EntryId, GroupName};

use super::{BoxError, Case, Stage, append, fields};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! group_upkeep_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, group_upkeep:
            preparing_twice_changes_nothing,
            a_group_starts_where_it_is_configured_to,
            a_group_begins_with_what_came_since_a_time,
            a_group_keeps_what_was_known_of_partitions_when_it_was_created,
            a_recreated_group_does_not_count_as_new,
            a_destroyed_group_is_recreated_at_its_floor,
            a_flushed_group_is_missing_until_it_is_recreated_at_the_beginning,
            a_floor_stands_before_the_lowest_pending_entry,
            a_consumer_is_retired_only_with_nothing_pending,
            only_silent_consumers_are_retired,
            a_consumer_counts_as_gone_by_its_own_interval,
            a_type_is_declared_while_a_consumer_with_it_is_alive,
            types_that_wait_without_a_handler_are_shown,
            consumers_that_say_no_types_may_have_any,
            a_due_job_stays_for_a_consumer_that_declares_its_type,
            jobs_whose_place_in_the_retry_set_was_lost_get_it_back,
            a_group_whose_stream_was_deleted_is_told_from_a_new_one,
            a_paused_group_promotes_nothing_until_it_is_resumed,
            trimming_history_keeps_what_any_group_needs,
        }
    };
}

/// The jobs still exist in the records, each due when it was before.
pub async fn jobs_whose_place_in_the_retry_set_was_lost_get_it_back(stage: &Stage) -> Case {
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    let now = stage.now().await?.0;
    for (hold, due) in stage.deliver(3).await?.into_iter().zip([None, Some(1), Some(now + 500_000)])
    {
        let mut job = fields("again");
        job.extend(due.map(|due: u64| ("sj-due".into(), due.to_string().into())));
        let delay = Duration::from_secs(1_000);
        store.schedule_retry(queue, me, hold, None, delay, &job).await?;
    }
    stage.raw.lose_retry_set(queue);
    assert!(store.set_paused(queue, true).await?);
    assert_eq!(store.promote(queue, me, 10).await?.restored, 0);
    assert!(store.set_paused(queue, false).await?);
    let observed = store.promote(queue, me, 0).await?;
    assert_eq!((observed.restored, observed.misplaced), (0, 3), "it only looks");
    let promoted = store.promote(queue, me, 10).await?;
    assert_eq!((promoted.restored, promoted.promoted, promoted.waiting), (3, 2, 2));
    assert_eq!(promoted.misplaced, 0);
    let due = promoted.next_due.ok_or("one job is due later")?;
    assert!(due > Duration::from_secs(400) && due <= Duration::from_secs(500), "{due:?}");
    assert_eq!(store.promote(queue, me, 10).await?.restored, 0);
    Ok(())
}

/// A group that begins again with a new stream has lost what was in the old one.
pub async fn a_group_whose_stream_was_deleted_is_told_from_a_new_one(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    stage.deliver(2).await?;
    store.heartbeat(queue, &stage.me, "{}").await?;
    stage.raw.destroy_group(&stage.key(Inlet::STREAM), queue.group.as_str());
    stage.append(1).await?;
    assert_eq!(store.prepare(queue, Start::End).await?, Prepared::Recreated);
    assert_eq!(store.prepare(queue, Start::End).await?, Prepared::Found);
    Ok(())
}

/// Any number of processes may prepare.
pub async fn preparing_twice_changes_nothing(stage: &Stage) -> Case {
    stage.append(3).await?;
    stage.read(&stage.me, Inlet::STREAM, 1).await?;
    assert_eq!(stage.store.prepare(&stage.queue, Start::End).await?, Prepared::Found);
    assert!(!stage.store.recreate(&stage.queue).await?);
    assert_eq!(stage.read(&stage.me, Inlet::STREAM, 10).await?.len(), 2);
    Ok(())
}

/// The start position counts the first time.
pub async fn a_group_starts_where_it_is_configured_to(stage: &Stage) -> Case {
    let ids = stage.append(3).await?;
    let second = *ids.get(1).ok_or("three ids")?;
    let beyond = EntryId::new(9_999_999_999_999, 7);
    let starts = [
        (Start::Beginning, 3),
        (Start::After(second), 1),
        (Start::End, 0),
        (Start::After(beyond), 0),
    ];
    for (number, (start, expected)) in starts.into_iter().enumerate() {
        let group = GroupName::new(format!("group-{number}"))?;
        let queue = Queue { stream: stage.queue.stream.clone(), group };
        assert_eq!(stage.store.prepare(&queue, start).await?, Prepared::Created);
        let mut reader = stage
            .store
            .reader(&queue, &stage.me, ReaderSetup::waiting(Duration::from_secs(2)))
            .await?;
        let request = ReadRequest { acks: &[], inlet: Inlet::STREAM, count: 9, block: None };
        assert_eq!(reader.read(request).await?.deliveries?.len(), expected, "{start:?}");
        // What does not exist yet is not skipped.
        let cursor = stage.store.group_facts(&queue).await?.cursor;
        assert!(Some(&cursor) <= ids.last(), "{start:?}: {cursor}");
    }
    Ok(())
}

/// It is for partitions in which a group is created later than in the first one.
pub async fn a_group_begins_with_what_came_since_a_time(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    stage.append(2).await?;
    stage.pass(1).await?;
    let middle = stage.now().await?;
    stage.append(3).await?;
    let far = ServerTime(middle.0 + 100_000_000);
    let starts = [(ServerTime(0), 5), (middle, 3), (far, 0)];
    for (number, (since, expected)) in starts.into_iter().enumerate() {
        let group = GroupName::new(format!("since-{number}"))?;
        let queue = Queue { stream: stream.clone(), group };
        let at = BeginAt::Since(since);
        assert_eq!(store.prepare_at(&queue, at, None).await?, Prepared::Created);
        assert_eq!(store.prepare(&queue, Start::Beginning).await?, Prepared::Found);
        let setup = ReaderSetup::waiting(Duration::from_secs(2));
        let mut reader = store.reader(&queue, &stage.me, setup).await?;
        let request = || ReadRequest { acks: &[], inlet: Inlet::STREAM, count: 9, block: None };
        assert_eq!(reader.read(request()).await?.deliveries?.len(), expected, "{since:?}");
        if since == far {
            // What comes next is before that time, and is not lost.
            stage.append(1).await?;
            assert_eq!(reader.read(request()).await?.deliveries?.len(), 1);
        }
    }
    Ok(())
}

/// Only its first creation writes it, and only on a stream with several partitions.
pub async fn a_group_keeps_what_was_known_of_partitions_when_it_was_created(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let named = |name: &str| -> Result<_, BoxError> {
        Ok(Queue { stream: stream.clone(), group: GroupName::new(name)? })
    };
    let create = async |queue: &Queue, told: Option<u16>| -> Result<GroupMade, BoxError> {
        assert_eq!(store.group_made(queue).await?, GroupMade::New);
        let prepared = store.prepare_at(queue, BeginAt::Start(Start::End), told).await?;
        assert_eq!(prepared, Prepared::Created);
        Ok(store.group_made(queue).await?)
    };
    assert_eq!(store.group_made(&stage.queue).await?, GroupMade::Unknown, "one partition");
    let before = stage.now().await?;
    store.partitions(stream, 4).await?;
    assert_eq!(create(&named("of-another-partition")?, None).await?, GroupMade::Unknown);
    for (name, told, stored) in [("few", 1, 4), ("all", 4, 4), ("more", 8, 4)] {
        let made = create(&named(name)?, Some(told)).await?;
        let GroupMade::With(birth) = made else { return Err(format!("{made:?}").into()) };
        assert_eq!((birth.told, birth.stored), (told, stored));
        let time = birth.time.ok_or("the time is known")?;
        assert!(before <= time && time <= stage.now().await?, "{before:?} {time:?}");
    }
    let first = store.group_made(&named("all")?).await?;
    store.partitions(stream, 12).await?;
    stage.raw.destroy_group(&stage.key(Inlet::STREAM), "all");
    let again = store.prepare_at(&named("all")?, BeginAt::Start(Start::End), Some(12)).await?;
    assert_eq!(again, Prepared::Recreated);
    assert_eq!(store.group_made(&named("all")?).await?, first);
    Ok(())
}

/// Nothing is known of the group that was lost.
pub async fn a_recreated_group_does_not_count_as_new(stage: &Stage) -> Case {
    stage.store.partitions(&stage.queue.stream, 4).await?;
    stage.raw.flush();
    stage.store.partitions(&stage.queue.stream, 4).await?;
    assert!(stage.store.recreate(&stage.queue).await?);
    assert_eq!(stage.store.group_made(&stage.queue).await?, GroupMade::Unknown);
    Ok(())
}

/// Finished entries are not delivered again, and no others are skipped.
pub async fn a_destroyed_group_is_recreated_at_its_floor(stage: &Stage) -> Case {
    let holds = stage.deliver(4).await?;
    for hold in holds.iter().take(2) {
        stage.store.acknowledge(&stage.queue, &[(hold.inlet, hold.id)]).await?;
    }
    stage.store.heartbeat(&stage.queue, &stage.me, "{}").await?;
    stage.raw.destroy_group(&stage.key(Inlet::STREAM), "work");
    let missing = stage.read(&stage.me, Inlet::STREAM, 9).await;
    assert!(matches!(missing, Err(StoreError::GroupMissing)));
    assert!(stage.store.recreate(&stage.queue).await?);
    let again = stage.read(&stage.me, Inlet::STREAM, 9).await?;
    let expected = holds.iter().skip(2).map(|hold| hold.id).collect::<Vec<_>>();
    assert_eq!(again.iter().map(|one| one.entry.id()).collect::<Vec<_>>(), expected);
    Ok(())
}

/// Every step reports the missing group, and none creates it.
pub async fn a_flushed_group_is_missing_until_it_is_recreated_at_the_beginning(
    stage: &Stage,
) -> Case {
    let hold = stage.deliver_one().await?;
    stage.raw.flush();
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    let missing = |answer: Result<(), StoreError>| matches!(answer, Err(StoreError::GroupMissing));
    assert!(missing(stage.read(me, Inlet::STREAM, 1).await.map(drop)));
    assert!(missing(store.renew(queue, me, &[hold]).await.map(drop)));
    assert!(missing(
        store.schedule_retry(queue, me, hold, None, Duration::ZERO, &fields("x")).await.map(drop)
    ));
    assert!(missing(store.store_dead_letter(queue, me, hold, None, &fields("x")).await.map(drop)));
    assert!(missing(store.heartbeat(queue, me, "{}").await.map(drop)));
    assert_eq!(store.acknowledge(queue, &[(hold.inlet, hold.id)]).await?, 0);
    let id = stage.raw.append(&stage.key(Inlet::STREAM), fields("after"));
    assert!(store.recreate(queue).await?);
    let delivered = stage.read(me, Inlet::STREAM, 9).await?;
    assert_eq!(delivered.iter().map(|one| one.entry.id()).collect::<Vec<_>>(), [id]);
    Ok(())
}

/// A recreated group begins at the floor.
pub async fn a_floor_stands_before_the_lowest_pending_entry(stage: &Stage) -> Case {
    let holds = stage.deliver(2).await?;
    let [first, second] = holds.as_slice() else { return Err("two entries".into()) };
    let floor = stage.store.heartbeat(&stage.queue, &stage.me, "{}").await?.floor;
    assert_eq!(Some(floor), first.id.previous());
    for hold in &holds {
        stage.store.acknowledge(&stage.queue, &[(hold.inlet, hold.id)]).await?;
    }
    assert_eq!(stage.store.heartbeat(&stage.queue, &stage.me, "{}").await?.floor, second.id);
    Ok(())
}

/// Removing a consumer never removes work.
pub async fn a_consumer_is_retired_only_with_nothing_pending(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    let key = stage.key(Inlet::STREAM);
    assert!(!stage.store.retire(&stage.queue, &stage.me).await?);
    assert_eq!(stage.raw.consumers(&key, "work"), ["me"]);
    stage.store.acknowledge(&stage.queue, &[(hold.inlet, hold.id)]).await?;
    assert!(stage.store.retire(&stage.queue, &stage.me).await?);
    assert!(stage.raw.consumers(&key, "work").is_empty());
    assert!(stage.store.retire(&stage.queue, &stage.me).await?, "gone is gone");
    Ok(())
}

/// A consumer without a heartbeat is given one, and is kept for the time of silence.
pub async fn only_silent_consumers_are_retired(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    stage.store.acknowledge(&stage.queue, &[(hold.inlet, hold.id)]).await?;
    stage.store.heartbeat(&stage.queue, &stage.me, "{}").await?;
    stage.append(1).await?;
    stage.read(&stage.other, Inlet::STREAM, 1).await?;
    assert_eq!(stage.store.retire_dead(&stage.queue, Duration::from_secs(3600)).await?, 0);
    stage.pass(2).await?;
    assert_eq!(stage.store.retire_dead(&stage.queue, Duration::ZERO).await?, 1);
    assert_eq!(stage.raw.consumers(&stage.key(Inlet::STREAM), "work"), ["other"]);
    Ok(())
}

/// A process with a long lease sends heartbeats rarely: processes with a short lease do not forget it meanwhile, and
/// with it how long its entries are its own.
pub async fn a_consumer_counts_as_gone_by_its_own_interval(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let hold = stage.deliver_one().await?;
    store.acknowledge(queue, &[(hold.inlet, hold.id)]).await?;
    store.heartbeat(queue, &stage.me, r#"{"beat_every":60000,"lease":180000}"#).await?;
    stage.pass(20).await?;
    assert_eq!(store.retire_dead(queue, Duration::from_millis(1)).await?, 0);
    assert_eq!(stage.raw.consumers(&stage.key(Inlet::STREAM), "work"), ["me"]);
    // A heartbeat without an interval, as other software's consumers are given one.
    store.heartbeat(queue, &stage.me, "{}").await?;
    stage.pass(20).await?;
    assert_eq!(store.retire_dead(queue, Duration::from_millis(1)).await?, 1);
    Ok(())
}

/// A heartbeat declares its types until it counts as missed; then the time without a handler begins.
pub async fn a_type_is_declared_while_a_consumer_with_it_is_alive(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let (now, minute) = (stage.now().await?, Duration::from_secs(60));
    let unknown = store.sight_type(queue, "b", now, minute).await?;
    assert!(!unknown.declared && unknown.undeclared_for < Duration::from_secs(10), "{unknown:?}");
    store.heartbeat(queue, &stage.me, r#"{"beat_every":1,"types":["a","b"]}"#).await?;
    let declared = store.sight_type(queue, "b", now, minute).await?;
    assert_eq!((declared.declared, declared.undeclared_for), (true, Duration::ZERO));
    assert!(!store.sight_type(queue, "c", now, minute).await?.declared);
    stage.pass(1_010).await?;
    let ended = store.sight_type(queue, "b", now, minute).await?;
    assert!(!ended.declared && ended.undeclared_for < unknown.undeclared_for + minute, "{ended:?}");
    for any in [r#"{"types":["*"]}"#, r#"{"types":["a"],"types_cut":true}"#] {
        store.heartbeat(queue, &stage.me, any).await?;
        assert!(store.sight_type(queue, "c", now, minute).await?.declared, "{any}");
    }
    Ok(())
}

/// Types that were met recently are listed unless a live consumer declares them. Long names count
/// from the job's own time, and are not kept.
pub async fn types_that_wait_without_a_handler_are_shown(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let (now, minute) = (stage.now().await?, Duration::from_secs(60));
    assert!(store.group_facts(queue).await?.unhandled.is_empty());
    let long = "x".repeat(300);
    for name in ["b", "a", "c", &long] {
        assert!(!store.sight_type(queue, name, now, minute).await?.declared);
    }
    assert_eq!(store.group_facts(queue).await?.unhandled, ["a", "b", "c"]);
    store.heartbeat(queue, &stage.me, r#"{"types":["c"]}"#).await?;
    assert_eq!(store.group_facts(queue).await?.unhandled, ["a", "b"]);
    let old = streamjobs::__store::ServerTime(now.0 - 120_000);
    assert!(store.sight_type(queue, &long, old, minute).await?.undeclared_for >= minute * 2);
    assert!(store.sight_type(queue, "a", old, minute).await?.undeclared_for < minute);
    store.retire_dead(queue, Duration::from_secs(3_600)).await?;
    assert_eq!(store.group_facts(queue).await?.unhandled, ["a", "b"]);
    Ok(())
}

/// An older version does not write its types. A process of such a version is looked for before a job
/// would be given up.
pub async fn consumers_that_say_no_types_may_have_any(stage: &Stage) -> Case {
    let (store, queue, now) = (&stage.store, &stage.queue, stage.now().await?);
    store.heartbeat(queue, &stage.me, r#"{"beat_every":1,"types":[]}"#).await?;
    let zero = Duration::ZERO;
    assert!(!store.sight_type(queue, "a", now, zero).await?.declared);
    store.heartbeat(queue, &stage.other, r#"{"beat_every":1}"#).await?;
    assert!(!store.sight_type(queue, "a", now, Duration::from_secs(60)).await?.declared);
    assert!(store.sight_type(queue, "a", now, zero).await?.declared);
    stage.pass(1_010).await?;
    assert!(!store.sight_type(queue, "a", now, zero).await?.declared, "it has died");
    Ok(())
}

/// The consumer that moves a job usually reads it too, so a consumer without the type leaves it to
/// those that have it.
pub async fn a_due_job_stays_for_a_consumer_that_declares_its_type(stage: &Stage) -> Case {
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    for (number, hold) in stage.deliver(2).await?.into_iter().enumerate() {
        let delay = Duration::from_secs(60) * u32::try_from(number)?;
        store.schedule_retry(queue, me, hold, None, delay, &fields("again")).await?;
    }
    store.heartbeat(queue, me, r#"{"types":["a"]}"#).await?;
    store.heartbeat(queue, &stage.other, r#"{"types":["t"]}"#).await?;
    let left = store.promote(queue, me, 10).await?;
    assert_eq!((left.promoted, left.left), (0, 0));
    assert!(left.next_due > Some(Duration::from_secs(30)), "{left:?}: the next one, not this one");
    assert_eq!(store.promote(queue, &stage.other, 10).await?.promoted, 1);
    let hold = stage.deliver_one().await?;
    store.schedule_retry(queue, me, hold, None, Duration::ZERO, &fields("any")).await?;
    store.heartbeat(queue, me, "{}").await?;
    assert_eq!(store.promote(queue, me, 10).await?.promoted, 1, "it may have the type");
    Ok(())
}

/// A pause is seen at the next promotion, and outlives the loss of the group.
pub async fn a_paused_group_promotes_nothing_until_it_is_resumed(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let hold = stage.deliver_one().await?;
    store.schedule_retry(queue, &stage.me, hold, None, Duration::ZERO, &fields("again")).await?;
    assert!(store.set_paused(queue, true).await?);
    assert!(!store.set_paused(queue, true).await?, "it is paused already");
    let found = store.promote(queue, &stage.me, 10).await?;
    assert_eq!((found.paused, found.promoted, found.next_due), (true, 0, None));
    stage.raw.destroy_group(&stage.key(Inlet::STREAM), "work");
    store.recreate(queue).await?;
    assert!(store.promote(queue, &stage.me, 10).await?.paused);
    assert!(store.set_paused(queue, false).await?);
    assert!(!store.set_paused(queue, false).await?, "it is resumed already");
    let found = store.promote(queue, &stage.me, 0).await?;
    assert_eq!((found.paused, found.promoted), (false, 0), "a limit of zero moves nothing");
    assert_eq!(store.promote(queue, &stage.me, 10).await?.promoted, 1);
    assert_eq!(stage.read(&stage.me, Inlet::LANE, 9).await?.len(), 1);
    Ok(())
}

/// Only history that no group needs is trimmed.
pub async fn trimming_history_keeps_what_any_group_needs(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let history =
        |entries| Trim { cut: Cut::Length(entries), exact: false, unfinished: Unfinished::Keep };
    let holds = stage.deliver(1_000).await?;
    stage.append(500).await?;
    let held = store.trim(stream, history(10)).await?;
    assert_eq!((held.removed, held.blocked_by.is_some()), (0, true), "nothing is acknowledged");
    for hold in holds.iter().take(600) {
        store.acknowledge(&stage.queue, &[(hold.inlet, hold.id)]).await?;
    }
    store.trim(stream, history(1_200)).await?;
    let length = stage.raw.length(&stage.key(Inlet::STREAM));
    assert!((1_200..1_400).contains(&length), "{length}: the window stays");
    store.trim(stream, history(10)).await?;
    let length = stage.raw.length(&stage.key(Inlet::STREAM));
    assert!((900..1_100).contains(&length), "{length}: the pending and the unread stay");
    assert_eq!(stage.read(&stage.me, Inlet::STREAM, 1_000).await?.len(), 500);
    append(store.as_ref(), stream, Retention::Unlimited, vec![fields("x")]).await;
    Ok(())
}
