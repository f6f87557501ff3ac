//! Renewing, releasing, scheduling retries and claiming.

use std::time::Duration;

use streamjobs::__store::inspect::{RetriesFrom, RetryFacts};
use streamjobs::__store::{
    ClaimedPage, FenceResult, Hold, Idle, IdleClaim, Inlet, ServerTime, StoreError,
};
use streamjobs::EntryId;

use super::{Case, LEASE, Stage, fields};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! consume_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, consume:
            a_renewal_resets_idle_time_and_not_the_count,
            a_renewal_by_another_attempt_is_refused,
            a_renewal_of_a_trimmed_entry_leaves_a_dead_letter,
            a_released_entry_is_claimable_at_once_and_uncounted,
            a_job_waiting_for_retry_comes_back_whole_in_the_lane,
            a_job_waiting_for_retry_waits_for_its_delay,
            jobs_waiting_for_retry_are_seen_in_the_order_in_which_they_are_due,
            retries_of_other_clients_are_seen_with_their_names,
            a_job_that_is_to_run_now_is_due_at_once,
            a_dead_lettered_job_is_stored_whole_and_acknowledged,
            a_claim_takes_idle_entries_and_counts_them,
            a_claim_goes_by_the_lease_of_whom_it_takes_from,
            a_claim_skips_the_named_entries,
            a_claim_keeps_its_limit_and_its_cursor,
            a_claim_stores_trimmed_entries_as_dead_letters,
            a_claim_with_an_unexpected_clock_takes_nothing,
            a_scan_without_idle_entries_is_shared_for_a_while,
            idle_entries_are_seen_without_being_touched,
            lost_deliveries_are_found_and_recovered_uncounted,
        }
    };
}

/// A renewal changes only the idle time.
pub async fn a_renewal_resets_idle_time_and_not_the_count(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    stage.abandon(hold);
    let renewed = stage.store.renew(&stage.queue, &stage.me, &[hold]).await?;
    assert_eq!(renewed.answers, [FenceResult::Owned]);
    let row = stage.row(hold.id).ok_or("still pending")?;
    assert!(row.idle < LEASE);
    assert_eq!((row.delivery_count, row.consumer.as_str()), (1, "me"));
    assert!(renewed.now <= stage.now().await?);
    Ok(())
}

/// Owner and count together are the token.
pub async fn a_renewal_by_another_attempt_is_refused(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    let older = Hold { delivery_count: 7, ..hold };
    let gone = Hold { id: EntryId::new(1, 1), ..hold };
    let answers = stage.store.renew(&stage.queue, &stage.me, &[older, gone]).await?.answers;
    assert_eq!(answers, [FenceResult::TakenOver, FenceResult::NotPending]);
    let answers = stage.store.renew(&stage.queue, &stage.other, &[hold]).await?.answers;
    assert_eq!(answers, [FenceResult::TakenOver]);
    assert_eq!(stage.row(hold.id).map(|row| row.consumer), Some("me".to_owned()));
    Ok(())
}

/// The step that finds a trimmed payload stores a dead letter.
pub async fn a_renewal_of_a_trimmed_entry_leaves_a_dead_letter(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    stage.raw.delete(&stage.key(Inlet::STREAM), hold.id);
    let answers = stage.store.renew(&stage.queue, &stage.me, &[hold]).await?.answers;
    let Some(FenceResult::Trimmed(letter)) = answers.first().copied() else {
        return Err("a trimmed entry was renewed".into());
    };
    let letter = stage.store.dead_letter(&stage.queue, letter).await?.ok_or("the letter")?;
    let noted =
        ["sj-dead-reason", "sj-dead-source", "sj-dead-consumer"].map(|name| letter.text(name));
    assert_eq!(noted, [Some("trimmed"), Some("stream"), Some("me")]);
    assert_eq!(letter.text("sj-dead-entry"), Some(hold.id.to_string().as_str()));
    assert!(stage.pending(Inlet::STREAM).is_empty());
    Ok(())
}

/// A release is not counted as a delivery.
pub async fn a_released_entry_is_claimable_at_once_and_uncounted(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    let before = stage.store.promote(&stage.queue, &stage.me, 1).await?.released;
    let answers = stage.store.release(&stage.queue, &stage.me, &[hold]).await?;
    assert_eq!(answers, [FenceResult::Owned]);
    let row = stage.row(hold.id).ok_or("it is pending")?;
    assert!(row.consumer == "streamjobs-released" && row.idle < LEASE, "{row:?}");
    let after = stage.store.promote(&stage.queue, &stage.me, 1).await?.released;
    assert_ne!(after, before, "other processes see it");
    let scan = stage.store.has_idle(&stage.queue, Inlet::STREAM, LEASE, Duration::ZERO).await?;
    assert_eq!(scan, Idle::Found);
    let (_, claimed, _) = stage.claim_idle(&stage.other, EntryId::ZERO, 5).await?;
    assert_eq!(claimed.iter().map(|one| one.delivery_count).collect::<Vec<_>>(), [1]);
    let refused = stage.store.release(&stage.queue, &stage.me, &[hold]).await?;
    assert_eq!(refused, [FenceResult::TakenOver]);
    Ok(())
}

/// A failed job travels with every byte.
pub async fn a_job_waiting_for_retry_comes_back_whole_in_the_lane(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    let job = fields("again");
    let (store, queue) = (&stage.store, &stage.queue);
    let checked = store.schedule_retry(queue, &stage.me, hold, None, Duration::ZERO, &job).await?;
    assert_eq!((checked, stage.pending(Inlet::STREAM).len()), (FenceResult::Owned, 0));
    let promoted = store.promote(queue, &stage.me, 10).await?;
    assert_eq!((promoted.promoted, promoted.waiting, promoted.next_due), (1, 1, None));
    let delivered = stage.read(&stage.other, Inlet::LANE, 5).await?;
    assert_eq!(delivered.first().map(|one| one.entry.fields().to_vec()), Some(job));
    stage.deliver_one().await?;
    let found = store.promote(queue, &stage.me, 10).await?;
    assert_eq!((found.waiting, found.pending), (0, 2), "one in the lane, one on the stream");
    Ok(())
}

/// A job comes back when it is due, and not before.
pub async fn a_job_waiting_for_retry_waits_for_its_delay(stage: &Stage) -> Case {
    let holds = stage.deliver(2).await?;
    for (hold, delay) in holds.into_iter().zip([Duration::from_secs(3600), Duration::from_secs(60)])
    {
        stage
            .store
            .schedule_retry(&stage.queue, &stage.me, hold, None, delay, &fields("later"))
            .await?;
    }
    let promoted = stage.store.promote(&stage.queue, &stage.me, 10).await?;
    assert_eq!((promoted.promoted, promoted.waiting), (0, 0));
    let due = promoted.next_due.ok_or("two jobs wait")?;
    assert!(due > Duration::from_secs(50) && due <= Duration::from_secs(60), "{due:?}");
    Ok(())
}

/// Retries are read page by page.
pub async fn jobs_waiting_for_retry_are_seen_in_the_order_in_which_they_are_due(
    stage: &Stage,
) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let holds = stage.deliver(3).await?;
    for (hold, seconds) in holds.iter().zip([300, 100, 200]) {
        let mut job = fields("later");
        job.push(("sj-id".into(), format!("due-in-{seconds}").into()));
        job.push(("sj-attempt".into(), "2".into()));
        job.push(("sj-origin".into(), hold.id.to_string().into()));
        job.push(("sj-error".into(), "no luck".into()));
        let delay = Duration::from_secs(seconds);
        store.schedule_retry(queue, &stage.me, *hold, None, delay, &job).await?;
    }
    let page = store.retries(queue, RetriesFrom::First, 2).await?;
    let [first, second] = page.jobs.as_slice() else { return Err("two jobs".into()) };
    assert!(page.has_more);
    assert_eq!(first.event_id.as_deref(), Some("due-in-100"));
    assert_eq!((first.failures, first.error.as_deref()), (Some(2), Some("no luck")));
    assert_eq!(first.origin, holds.get(1).map(|hold| hold.id));
    let wait = first.due.saturating_sub(page.now.0);
    assert!(wait > 90_000 && wait <= 100_000, "{wait}");
    let rest = store.retries(queue, after(second), 2).await?;
    let ids = rest.jobs.iter().map(|job| job.event_id.clone()).collect::<Vec<_>>();
    assert_eq!((ids, rest.has_more), (vec![Some("due-in-300".to_owned())], false));
    let gone = RetriesFrom::After { name: "s:9-9", due: second.due };
    for from in [gone, RetriesFrom::Due(second.due)] {
        let rest = store.retries(queue, from, 9).await?;
        assert_eq!(rest.jobs.len(), 2, "nothing is passed over: {from:?}");
    }
    let beyond = store.retries(queue, RetriesFrom::Due(u64::MAX >> 12), 9).await?;
    assert!(beyond.jobs.is_empty() && !beyond.has_more);
    assert!(store.has_retry(queue, &second.name).await?);
    assert!(!store.has_retry(queue, "s:9-9").await?);
    stage.raw.flush();
    let missing = store.retries(queue, RetriesFrom::First, 2).await;
    assert!(matches!(missing, Err(StoreError::GroupMissing)));
    Ok(())
}

fn after(job: &RetryFacts) -> RetriesFrom<'_> {
    RetriesFrom::After { name: &job.name, due: job.due }
}

/// A retry of another client is reported as it is, and does not end the paging.
pub async fn retries_of_other_clients_are_seen_with_their_names(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let hold = stage.deliver_one().await?;
    let delay = Duration::from_secs(3_600);
    store.schedule_retry(queue, &stage.me, hold, None, delay, &fields("later")).await?;
    for (name, due) in [("theirs 2", 2), ("theirs 1", 1)] {
        stage.raw.schedule_retry(queue, name, due);
    }
    let page = store.retries(queue, RetriesFrom::First, 2).await?;
    let seen = page.jobs.iter().map(|job| (job.name.as_str(), job.due, job.event_id.as_deref()));
    assert_eq!(seen.collect::<Vec<_>>(), [("theirs 1", 1, None), ("theirs 2", 2, None)]);
    let rest = store.retries(queue, RetriesFrom::After { name: "theirs 2", due: 2 }, 2).await?;
    assert_eq!((page.has_more, rest.jobs.len(), rest.has_more), (true, 1, false));
    Ok(())
}

/// Only jobs in the retry set become due.
pub async fn a_job_that_is_to_run_now_is_due_at_once(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    for hold in stage.deliver(2).await? {
        let delay = Duration::from_secs(3600);
        store.schedule_retry(queue, &stage.me, hold, None, delay, &fields("later")).await?;
    }
    let page = store.retries(queue, RetriesFrom::First, 9).await?;
    let name = page.jobs.last().ok_or("two jobs")?.name.as_str();
    assert_eq!(store.run_now(queue, &[name, "s:9-9"]).await?, 1);
    assert_eq!(store.run_now(queue, &[name]).await?, 0, "it is due already");
    assert_eq!(store.promote(queue, &stage.me, 10).await?.promoted, 1);
    assert_eq!(store.run_now(queue, &[name]).await?, 0, "and is not added again");
    assert_eq!(store.retries(queue, RetriesFrom::First, 9).await?.jobs.len(), 1);
    Ok(())
}

/// A dead letter is stored before its entry is acknowledged.
pub async fn a_dead_lettered_job_is_stored_whole_and_acknowledged(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    let letter = fields("dead");
    let refused =
        stage.store.store_dead_letter(&stage.queue, &stage.other, hold, None, &letter).await?;
    assert_eq!((refused, stage.raw.length(&stage.dead_key())), (FenceResult::TakenOver, 0));
    let checked =
        stage.store.store_dead_letter(&stage.queue, &stage.me, hold, None, &letter).await?;
    assert_eq!((checked, stage.pending(Inlet::STREAM).len()), (FenceResult::Owned, 0));
    let stored = stage.store.dead_letters(&stage.queue, EntryId::ZERO, 10).await?;
    assert_eq!(stored.iter().map(|one| one.fields().to_vec()).collect::<Vec<_>>(), [letter]);
    Ok(())
}

/// A claim is a delivery; what is fresh stays with its owner.
pub async fn a_claim_takes_idle_entries_and_counts_them(stage: &Stage) -> Case {
    let holds = stage.deliver(3).await?;
    let [idle, fresh, mine] = holds.as_slice() else { return Err("three entries".into()) };
    stage.abandon(*idle);
    let (cursor, claimed, trimmed) = stage.claim_idle(&stage.other, EntryId::ZERO, 10).await?;
    let ids = claimed.iter().map(|one| (one.entry.id(), one.delivery_count)).collect::<Vec<_>>();
    assert_eq!((ids, cursor, trimmed), (vec![(idle.id, 2)], EntryId::ZERO, 0));
    assert_eq!(stage.row(fresh.id).map(|row| row.consumer), Some("me".to_owned()));
    // A consumer claims from itself as well: what it does with such entries is not the store's
    // concern.
    stage.abandon(*mine);
    let (_, claimed, _) = stage.claim_idle(&stage.me, EntryId::ZERO, 10).await?;
    assert_eq!(claimed.iter().map(|one| one.delivery_count).collect::<Vec<_>>(), [2]);
    Ok(())
}

/// This holds whether the claimer's own lease is shorter or longer. Versions that do not write
/// their lease send three heartbeats within one.
pub async fn a_claim_goes_by_the_lease_of_whom_it_takes_from(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    let key = stage.key(Inlet::STREAM);
    for (about, idle, is_claimed) in [
        (r#"{"lease":600000}"#, LEASE * 9, false),
        (r#"{"beat_every":200000}"#, LEASE * 9, false),
        (r#"{"lease":600000}"#, LEASE * 10, true),
        (r#"{"beat_every":1000}"#, LEASE - LEASE / 9, false),
        (r#"{"lease":1000,"beat_every":900000}"#, LEASE / 2, true),
        ("not what this version writes", LEASE - LEASE / 9, false),
        (r#"{"lease":1e300}"#, LEASE, true),
        ("{}", LEASE, true),
    ] {
        stage.store.heartbeat(&stage.queue, &stage.me, about).await?;
        let count = stage.row(hold.id).ok_or("it is pending")?.delivery_count;
        stage.raw.age(&key, stage.queue.group.as_str(), hold.id, idle);
        let scan = stage.store.has_idle(&stage.queue, Inlet::STREAM, LEASE, Duration::ZERO).await?;
        assert_eq!(scan == Idle::Found, is_claimed, "{about}, idle for {idle:?}: {scan:?}");
        let (_, claimed, _) = stage.claim_idle(&stage.other, EntryId::ZERO, 10).await?;
        assert_eq!(claimed.len() == 1, is_claimed, "{about}, idle for {idle:?}");
        if is_claimed {
            // Back to the first consumer, which says nothing any more.
            stage.store.heartbeat(&stage.queue, &stage.other, r#"{"lease":1}"#).await?;
            stage.pass(1).await?;
            let (_, back, _) = stage.claim_idle(&stage.me, EntryId::ZERO, 10).await?;
            assert_eq!(back.first().map(|delivery| delivery.delivery_count), Some(count + 2));
        }
    }
    Ok(())
}

/// An entry in flight is not claimed, however idle it is.
pub async fn a_claim_skips_the_named_entries(stage: &Stage) -> Case {
    let holds = stage.deliver(3).await?;
    holds.iter().for_each(|hold| stage.abandon(*hold));
    let [one, other, third] = holds.as_slice() else { return Err("three entries".into()) };
    let claim = IdleClaim {
        inlet: Inlet::STREAM,
        lease: LEASE,
        cursor: EntryId::ZERO,
        limit: 10,
        expected: None,
        skip: &[one.id, third.id],
    };
    let page = stage.store.claim_idle(&stage.queue, &stage.me, claim).await?;
    let ClaimedPage::Page { claimed, .. } = page else { return Err("no page".into()) };
    let ids = claimed.iter().map(|one| one.entry.id()).collect::<Vec<_>>();
    assert_eq!(ids, [other.id]);
    assert_eq!(stage.row(one.id).map(|row| row.delivery_count), Some(1));
    Ok(())
}

/// A long pending list is scanned page by page.
pub async fn a_claim_keeps_its_limit_and_its_cursor(stage: &Stage) -> Case {
    let holds = stage.deliver(2_300).await?;
    for hold in holds.iter().rev().take(5) {
        stage.abandon(*hold);
    }
    let (mut cursor, mut claimed, mut pages) = (EntryId::ZERO, Vec::new(), 0);
    loop {
        let (next, some, _) = stage.claim_idle(&stage.other, cursor, 2).await?;
        assert!(some.len() <= 2);
        claimed.extend(some);
        pages += 1;
        cursor = next;
        if cursor == EntryId::ZERO {
            break;
        }
        assert!(pages < 20, "the cursor does not come to an end");
    }
    assert_eq!(claimed.len(), 5);
    Ok(())
}

/// The claim that finds a loss stores it, and only for abandoned entries.
pub async fn a_claim_stores_trimmed_entries_as_dead_letters(stage: &Stage) -> Case {
    let holds = stage.deliver(2).await?;
    let [idle, live] = holds.as_slice() else { return Err("two entries".into()) };
    stage.abandon(*idle);
    for hold in &holds {
        stage.raw.delete(&stage.key(Inlet::STREAM), hold.id);
    }
    let (_, claimed, trimmed) = stage.claim_idle(&stage.other, EntryId::ZERO, 10).await?;
    assert_eq!((claimed.len(), trimmed), (0, 1));
    let letters = stage.store.dead_letters(&stage.queue, EntryId::ZERO, 10).await?;
    let lost = letters.iter().map(|letter| letter.text("sj-dead-entry")).collect::<Vec<_>>();
    assert_eq!(lost, [Some(idle.id.to_string().as_str())]);
    assert!(stage.row(live.id).is_some(), "its owner may still finish it");
    Ok(())
}

/// A delayed claim, or a clock that was set, takes nothing from live consumers.
pub async fn a_claim_with_an_unexpected_clock_takes_nothing(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    stage.abandon(hold);
    let ServerTime(now) = stage.now().await?;
    for expected in [now - 100_000, now + 100_000] {
        let claim = IdleClaim {
            inlet: Inlet::STREAM,
            lease: LEASE,
            cursor: EntryId::ZERO,
            limit: 10,
            expected: Some((ServerTime(expected), Duration::from_secs(20))),
            skip: &[],
        };
        let page = stage.store.claim_idle(&stage.queue, &stage.other, claim).await?;
        assert!(matches!(page, ClaimedPage::ClockOff { now: ServerTime(at) } if at >= now));
    }
    assert_eq!(stage.row(hold.id).map(|row| row.consumer), Some("me".to_owned()));
    Ok(())
}

/// One process scans for all whose lease is the same or longer.
pub async fn a_scan_without_idle_entries_is_shared_for_a_while(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    let scan =
        async |inlet, lease, valid| stage.store.has_idle(&stage.queue, inlet, lease, valid).await;
    let (hour, none) = (Duration::from_secs(3_600), Idle::NotFound { ago: Duration::ZERO });
    assert_eq!(scan(Inlet::STREAM, LEASE, hour).await?, none, "no scan was shared yet");
    stage.abandon(hold);
    stage.pass(1).await?;
    for lease in [LEASE, LEASE * 2] {
        let answer = scan(Inlet::STREAM, lease, hour).await?;
        let Idle::NotFound { ago } = answer else { return Err("the first scan is shared".into()) };
        assert!(ago > Duration::ZERO && ago < hour, "{ago:?}");
    }
    let shorter = scan(Inlet::STREAM, LEASE / 2, hour).await?;
    assert_eq!(shorter, Idle::Found, "a shorter lease scans itself");
    let later = scan(Inlet::STREAM, LEASE, Duration::from_millis(1)).await?;
    assert_eq!(later, Idle::Found, "the first scan is too old");
    assert_eq!(scan(Inlet::LANE, LEASE, hour).await?, none, "each inlet has a scan of its own");
    Ok(())
}

/// A scan changes nothing.
pub async fn idle_entries_are_seen_without_being_touched(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    let scan = async |inlet| stage.store.has_idle(&stage.queue, inlet, LEASE, Duration::ZERO).await;
    let none = Idle::NotFound { ago: Duration::ZERO };
    assert_eq!(scan(Inlet::STREAM).await?, none);
    stage.abandon(hold);
    assert_eq!(scan(Inlet::STREAM).await?, Idle::Found);
    assert_eq!(scan(Inlet::LANE).await?, none);
    let row = stage.row(hold.id).ok_or("still pending")?;
    assert!(row.idle >= LEASE && row.delivery_count == 1);
    Ok(())
}

/// A lost answer loses no job and counts no delivery.
pub async fn lost_deliveries_are_found_and_recovered_uncounted(stage: &Stage) -> Case {
    let holds = stage.deliver(5).await?;
    stage.append(1).await?;
    stage.read(&stage.other, Inlet::STREAM, 1).await?;
    let (store, queue, me) = (&stage.store, &stage.queue, &stage.me);
    let first = store.own_pending(queue, me, Inlet::STREAM, EntryId::ZERO, 3).await?;
    let cursor = first.last().ok_or("three rows")?.id;
    let rest = store.own_pending(queue, me, Inlet::STREAM, cursor, 10).await?;
    assert_eq!([first.clone(), rest].concat(), holds, "only what is this consumer's");
    let stale = Hold { delivery_count: 9, ..*first.first().ok_or("three rows")? };
    let recovered = store.recover(queue, me, &[stale, *first.last().ok_or("three rows")?]).await?;
    let counts = recovered.iter().map(|one| (one.entry.id(), one.delivery_count));
    assert_eq!(counts.collect::<Vec<_>>(), [(cursor, 1)]);
    assert!(store.recover(queue, &stage.other, &holds).await?.is_empty());
    Ok(())
}
