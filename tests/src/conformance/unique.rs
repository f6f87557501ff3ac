//! Locks of unique events.

use std::num::NonZeroU64;
use std::time::Duration;

use futures_util::future::join_all;
use streamjobs::__store::unique::UniqueLock;
use streamjobs::__store::{
    Delivery, FenceResult, Inlet, NewUnique, StoreError, UniqueAck, UniqueAppend, UniqueHolder,
};
use streamjobs::config::Retention;
use streamjobs::unique::UniqueDigest;
use streamjobs::{EntryId, EventId, Fields};

use super::{BoxError, Case, Stage, fields};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! unique_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, unique:
            an_event_that_is_the_same_is_refused_until_the_time_of_the_first_is_over,
            of_fifty_publishers_at_once_one_appends_and_the_others_are_told_which,
            a_repetition_of_a_unique_event_finds_its_own_entry,
            unique_events_are_appended_with_the_retention_of_appending,
            an_acknowledgement_ends_the_lock_of_its_own_event_alone,
            a_dead_letter_ends_the_lock_and_a_retry_keeps_it,
            a_released_lock_is_free_and_that_of_another_event_is_left,
        }
    };
}

const FAR: Duration = Duration::from_secs(3_600);

fn id(text: &str) -> Result<EventId, BoxError> {
    Ok(EventId::new(text)?)
}

fn digest(text: &str) -> Result<UniqueDigest, BoxError> {
    Ok(UniqueDigest::of_key("t", None, text)?)
}

fn lock(of: &str, event: &str) -> Result<UniqueLock, BoxError> {
    Ok(UniqueLock { digest: digest(of)?, event_id: id(event)? })
}

async fn publish_for(
    stage: &Stage,
    of: &str,
    event: &str,
    window: Duration,
) -> Result<UniqueAppend, BoxError> {
    let (digest, id, fields) = (digest(of)?, id(event)?, fields(event));
    let event = NewUnique { digest, id, window, fields };
    Ok(stage.store.publish_unique(&stage.queue.stream, Retention::Unlimited, event).await?)
}

async fn publish(stage: &Stage, of: &str, event: &str) -> Result<UniqueAppend, BoxError> {
    publish_for(stage, of, event, FAR).await
}

async fn holder(stage: &Stage, of: &str) -> Result<Option<String>, BoxError> {
    let holder = stage.store.unique_holder(&stage.queue.stream, &digest(of)?).await?;
    Ok(holder.map(|holder| holder.event_id.as_str().to_owned()))
}

fn length(stage: &Stage) -> usize {
    stage.raw.length(stage.queue.stream.as_str())
}

/// The server's clock decides.
pub async fn an_event_that_is_the_same_is_refused_until_the_time_of_the_first_is_over(
    stage: &Stage,
) -> Case {
    let UniqueAppend::Appended(entry) =
        publish_for(stage, "a", "e-1", Duration::from_millis(500)).await?
    else {
        return Err("it is the first".into());
    };
    let UniqueAppend::Stands(stands) = publish(stage, "a", "e-2").await? else {
        return Err("the first one stands".into());
    };
    assert_eq!((stands.event_id.as_str(), stands.entry_id), ("e-1", entry));
    assert!(stands.rest <= Duration::from_millis(500) && !stands.rest.is_zero(), "{stands:?}");
    assert!(matches!(publish(stage, "b", "e-3").await?, UniqueAppend::Appended(_)));
    assert_eq!((length(stage), holder(stage, "a").await?.as_deref()), (2, Some("e-1")));
    stage.pass(500).await?;
    assert_eq!(holder(stage, "a").await?, None);
    assert!(matches!(publish(stage, "a", "e-4").await?, UniqueAppend::Appended(_)));
    let UniqueAppend::Stands(stands) = publish(stage, "a", "e-5").await? else {
        return Err("the fourth one stands".into());
    };
    assert_eq!((stands.event_id.as_str(), length(stage)), ("e-4", 3));
    Ok(())
}

/// The check and the append are one step.
pub async fn of_fifty_publishers_at_once_one_appends_and_the_others_are_told_which(
    stage: &Stage,
) -> Case {
    let ids = (0..50).map(|number| format!("e-{number}")).collect::<Vec<_>>();
    let answers = join_all(ids.iter().map(|event| publish(stage, "a", event))).await;
    let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    let stands = answers.iter().filter_map(|answer| match answer {
        UniqueAppend::Appended(_) => None,
        UniqueAppend::Stands(stands) => Some((&stands.event_id, stands.entry_id)),
    });
    let stands = stands.collect::<Vec<_>>();
    let new = ids.iter().zip(&answers).find_map(|(event, answer)| match answer {
        UniqueAppend::Appended(entry) => Some((event.as_str(), *entry)),
        UniqueAppend::Stands(_) => None,
    });
    let (event, entry) = new.ok_or("one is new")?;
    assert_eq!((stands.len(), length(stage)), (49, 1));
    assert!(stands.iter().all(|(of, at)| (of.as_str(), *at) == (event, entry)), "{stands:?}");
    Ok(())
}

/// So a repetition of an unconfirmed call is safe.
pub async fn a_repetition_of_a_unique_event_finds_its_own_entry(stage: &Stage) -> Case {
    let UniqueAppend::Appended(entry) = publish(stage, "a", "e 1: x").await? else {
        return Err("it is the first".into());
    };
    for _ in 0..2 {
        let UniqueAppend::Stands(UniqueHolder { event_id, entry_id, .. }) =
            publish(stage, "a", "e 1: x").await?
        else {
            return Err("it stands".into());
        };
        assert_eq!((event_id.as_str(), entry_id), ("e 1: x", entry));
    }
    assert_eq!(length(stage), 1);
    Ok(())
}

/// Publishing applies the same retention.
pub async fn unique_events_are_appended_with_the_retention_of_appending(stage: &Stage) -> Case {
    let two = Retention::MaxLenExact(NonZeroU64::MIN.saturating_add(1));
    for name in ["a", "b", "c", "d"] {
        let (digest, id) = (digest(name)?, id(name)?);
        let event = NewUnique { digest, id, window: FAR, fields: fields(name) };
        stage.store.publish_unique(&stage.queue.stream, two, event).await?;
    }
    assert_eq!(length(stage), 2);
    let entries = stage.read(&stage.me, Inlet::STREAM, 9).await?;
    let expected = vec![fields("c"), fields("d")];
    assert_eq!(
        entries.iter().map(|read| read.entry.fields().to_vec()).collect::<Vec<_>>(),
        expected
    );
    Ok(())
}

/// This holds whichever consumer owns the entry by then, in the stream and in the lane.
pub async fn an_acknowledgement_ends_the_lock_of_its_own_event_alone(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let acknowledge = async |inlet, id, lock| {
        let acks = [UniqueAck { inlet, id, lock }];
        let mut answers = store.acknowledge_unique(queue, &acks).await;
        answers.pop().unwrap_or(Err(StoreError::Protocol { command: "test" }))
    };
    publish(stage, "a", "e-1").await?;
    publish(stage, "b", "e-2").await?;
    let read = stage.read(&stage.me, Inlet::STREAM, 9).await?;
    let ids = read.iter().map(Delivery::hold).map(|hold| hold.id).collect::<Vec<_>>();
    let [first, second] = <[EntryId; 2]>::try_from(ids).map_err(|_| "two were read")?;
    assert!(acknowledge(Inlet::STREAM, first, lock("a", "e-0")?).await?, "pending");
    assert_eq!(holder(stage, "a").await?.as_deref(), Some("e-1"), "it is another event's");
    assert!(!acknowledge(Inlet::STREAM, first, lock("a", "e-1")?).await?, "not any more");
    assert_eq!(holder(stage, "a").await?, None, "it is done all the same");
    assert!(acknowledge(Inlet::STREAM, second, lock("c", "e-2")?).await?);
    assert_eq!(holder(stage, "b").await?.as_deref(), Some("e-2"));
    let lane = stage.key(Inlet::LANE);
    let third = stage.raw.append(&lane, fields("e-2"));
    assert_eq!(stage.read(&stage.me, Inlet::LANE, 9).await?.len(), 1);
    assert!(acknowledge(Inlet::LANE, third, lock("b", "e-2")?).await?);
    assert_eq!((holder(stage, "b").await?, stage.raw.length(&lane)), (None, 0));
    assert_eq!((stage.pending(Inlet::STREAM).len(), stage.pending(Inlet::LANE).len()), (0, 0));
    Ok(())
}

/// A retry is the same job.
pub async fn a_dead_letter_ends_the_lock_and_a_retry_keeps_it(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    for (of, event) in [("a", "e-1"), ("b", "e-2"), ("c", "e-3"), ("d", "e-4")] {
        publish(stage, of, event).await?;
    }
    let read = stage.read(&stage.me, Inlet::STREAM, 9).await?;
    let holds = read.iter().map(Delivery::hold).collect::<Vec<_>>();
    let letter = |of: &str, event: &str, group: &str| {
        let mut letter: Fields = vec![("sj-dead-event".into(), event.to_owned().into())];
        letter.push(("sj-unique".into(), format!("{} {group}", digest(of)?).into()));
        Ok::<_, BoxError>(letter)
    };
    let letters =
        [letter("a", "e-1", "work")?, letter("b", "e-2", "mail")?, letter("c", "e-9", "work")?];
    for (hold, letter) in holds.iter().zip(&letters) {
        let stored = store.store_dead_letter(queue, &stage.me, *hold, None, letter).await?;
        assert_eq!(stored, FenceResult::Owned);
    }
    assert_eq!(holder(stage, "a").await?, None);
    assert_eq!(holder(stage, "b").await?.as_deref(), Some("e-2"), "another group's");
    assert_eq!(holder(stage, "c").await?.as_deref(), Some("e-3"), "another event's");
    let last = *holds.last().ok_or("four were read")?;
    let mut job = letter("d", "e-4", "work")?;
    let retried = store.schedule_retry(queue, &stage.me, last, None, FAR, &job).await?;
    assert_eq!(retried, FenceResult::Owned);
    assert_eq!(holder(stage, "d").await?.as_deref(), Some("e-4"));
    job.push(("type".into(), "t".into()));
    let refused = store.store_dead_letter(queue, &stage.me, last, None, &job).await?;
    assert_eq!(refused, FenceResult::NotPending);
    assert_eq!(holder(stage, "d").await?.as_deref(), Some("e-4"), "nothing was dead-lettered");
    Ok(())
}

/// A lock is released by hand, or by the event that has it.
pub async fn a_released_lock_is_free_and_that_of_another_event_is_left(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let release = async |of: Option<&str>| {
        let of = of.map(id).transpose()?;
        Ok::<_, BoxError>(store.release_unique(stream, &digest("a")?, of.as_ref()).await?)
    };
    assert_eq!(release(None).await?, None);
    publish(stage, "a", "e-1").await?;
    assert_eq!(release(Some("e-2")).await?, None);
    assert_eq!(holder(stage, "a").await?.as_deref(), Some("e-1"));
    let released = release(Some("e-1")).await?.ok_or("it stood")?;
    assert_eq!((released.event_id.as_str(), holder(stage, "a").await?), ("e-1", None));
    publish(stage, "a", "e-3").await?;
    assert!(release(None).await?.is_some_and(|released| released.event_id.as_str() == "e-3"));
    assert_eq!((release(None).await?, length(stage)), (None, 2));
    Ok(())
}
