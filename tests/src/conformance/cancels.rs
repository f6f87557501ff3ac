//! Marks that cancel jobs.

use streamjobs::__store::dead_letters::{RedriveRequest, RedriveToken};
use streamjobs::__store::{CancelMark, FenceResult, Inlet};
use streamjobs::{EntryId, EventId, GroupName};

use super::{BoxError, Case, LEASE, Stage, fields};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! cancels_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, cancels:
            marks_have_growing_numbers_and_are_read_from_any_of_them,
            a_mark_that_is_set_again_has_the_highest_number,
            the_removal_of_a_mark_has_a_number_of_its_own,
            promotions_say_the_number_of_the_last_mark,
            redriven_jobs_say_which_marks_are_older_than_they_are,
        }
    };
}

async fn cancel(stage: &Stage, group: Option<&str>, id: &str) -> Result<u64, BoxError> {
    let group = group.map(GroupName::new).transpose()?;
    let stream = &stage.queue.stream;
    Ok(stage.store.cancel(stream, group.as_ref(), &EventId::new(id)?).await?)
}

async fn marks(stage: &Stage, after: u64) -> Result<Vec<CancelMark>, BoxError> {
    Ok(stage.store.cancel_marks(&stage.queue.stream, after, 100).await?.marks)
}

fn mark(event_id: &str, group: Option<&str>, number: u64) -> CancelMark {
    CancelMark { event_id: event_id.to_owned(), group: group.map(str::to_owned), number }
}

/// So a process that knows some of them reads only the others.
pub async fn marks_have_growing_numbers_and_are_read_from_any_of_them(stage: &Stage) -> Case {
    let before = stage.now().await?.0;
    assert_eq!(marks(stage, 0).await?, []);
    let one = cancel(stage, None, "e-1").await?;
    let two = cancel(stage, Some("work"), "e-1").await?;
    let three = cancel(stage, Some("work"), "e 2").await?;
    assert!(before <= one && one < two && two < three, "{before} {one} {two} {three}");
    let all = [mark("e-1", None, one), mark("e-1", Some("work"), two)];
    let all = [&all[..], &[mark("e 2", Some("work"), three)]].concat();
    assert_eq!(marks(stage, 0).await?, all);
    assert_eq!(marks(stage, one).await?, all.get(1..).unwrap_or_default());
    assert_eq!(marks(stage, three).await?, []);
    let page = stage.store.cancel_marks(&stage.queue.stream, 0, 2).await?;
    assert_eq!((page.marks.len(), page.last(), page.has_more), (2, Some(two), true));
    Ok(())
}

/// There is still only one mark.
pub async fn a_mark_that_is_set_again_has_the_highest_number(stage: &Stage) -> Case {
    cancel(stage, None, "e-1").await?;
    let other = cancel(stage, None, "e-2").await?;
    let again = cancel(stage, None, "e-1").await?;
    assert_eq!(marks(stage, 0).await?, [mark("e-2", None, other), mark("e-1", None, again)]);
    Ok(())
}

/// From then on, a process that reads the next marks learns that a mark is gone.
pub async fn the_removal_of_a_mark_has_a_number_of_its_own(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let (one, group) = (EventId::new("e-1")?, GroupName::new("work")?);
    assert!(!store.uncancel(stream, None, &one).await?);
    assert_eq!(store.cancel_marks(stream, 0, 9).await?.last(), None, "nothing was removed");
    let first = cancel(stage, None, "e-1").await?;
    assert!(!store.uncancel(stream, Some(&group), &one).await?, "a mark for all stays");
    let last = cancel(stage, None, "e-2").await?;
    assert!(store.uncancel(stream, None, &one).await?);
    assert!(!store.uncancel(stream, None, &one).await?);
    let page = store.cancel_marks(stream, last, 9).await?;
    assert!(page.marks.is_empty() && page.removed.is_some_and(|number| number > last));
    assert!(first < last && marks(stage, 0).await? == [mark("e-2", None, last)]);
    Ok(())
}

/// Processes read marks only where there are new ones.
pub async fn promotions_say_the_number_of_the_last_mark(stage: &Stage) -> Case {
    let promote = async || stage.store.promote(&stage.queue, &stage.me, 0).await;
    assert_eq!(promote().await?.cancels, 0);
    let number = cancel(stage, Some("other group"), "e-1").await?;
    assert_eq!(promote().await?.cancels, number);
    stage.store.uncancel(&stage.queue.stream, None, &EventId::new("e-1")?).await?;
    assert_eq!(promote().await?.cancels, number, "there was no such mark");
    let group = GroupName::new("other group")?;
    stage.store.uncancel(&stage.queue.stream, Some(&group), &EventId::new("e-1")?).await?;
    assert!(promote().await?.cancels > number);
    Ok(())
}

/// A cancelled job runs if it is redriven.
pub async fn redriven_jobs_say_which_marks_are_older_than_they_are(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let redriven = async |token: &str| -> Result<Vec<Option<u64>>, BoxError> {
        let mut said = Vec::new();
        for hold in stage.deliver(1).await? {
            let stored =
                store.store_dead_letter(queue, &stage.me, hold, None, &fields("dead")).await?;
            assert_eq!(stored, FenceResult::Owned);
        }
        for letter in store.dead_letters(queue, EntryId::ZERO, 9).await? {
            assert!(store.redrive(queue, letter.id(), &fields("back")).await?.is_some());
        }
        let jobs = [RedriveRequest { fields: fields("back"), token: RedriveToken::new(token)? }];
        for answer in store.redrive_archived(queue, &jobs, LEASE).await {
            assert!(answer?.is_some());
        }
        for delivery in stage.read(&stage.me, Inlet::LANE, 9).await? {
            said.push(delivery.entry.text("sj-redriven").map(str::parse).transpose()?);
        }
        Ok(said)
    };
    assert_eq!(redriven("one").await?, [None, None], "nothing was cancelled");
    let number = cancel(stage, None, "e-1").await?;
    let said = redriven("two").await?;
    assert!(said.len() == 2 && said.iter().all(|said| said == &Some(number)));
    let later = cancel(stage, None, "e-1").await?;
    assert!(said.iter().all(|said| said.is_some_and(|said| said < later)), "{said:?} {later}");
    Ok(())
}
