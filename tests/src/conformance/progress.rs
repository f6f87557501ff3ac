//! The progress of running jobs.

use std::time::Duration;

use streamjobs::__store::inspect::PendingFilter;
use streamjobs::__store::progress::Reported;
use streamjobs::__store::{Hold, Inlet};
use streamjobs::stream::Progress;
use streamjobs::{ConsumerName, EntryId};

use super::{BoxError, Case, Stage, fields};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! progress_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, progress:
            progress_is_shown_beside_the_pending_entry_with_its_age,
            the_last_progress_of_a_job_replaces_the_one_before,
            an_attempt_that_has_lost_its_entry_writes_and_removes_nothing,
            an_entry_that_is_not_pending_has_no_progress,
            entries_of_the_lane_have_progress_of_their_own,
        }
    };
}

async fn write(
    stage: &Stage,
    consumer: &ConsumerName,
    hold: Hold,
    said: Option<(u64, Option<u64>, &str)>,
) -> Case {
    let reported = said.map(|(done, of, text)| Reported::new(done, of, text));
    Ok(stage.store.write_progress(&stage.queue, consumer, &[(hold, reported)]).await?)
}

/// The progress of each pending entry.
async fn shown(stage: &Stage, inlet: Inlet) -> Result<Vec<Option<Progress>>, BoxError> {
    let (after, idle) = (EntryId::ZERO, Duration::ZERO);
    let filter = PendingFilter { inlet, after, idle, consumer: None, limit: 100 };
    let rows = stage.store.pending(&stage.queue, filter).await?;
    Ok(stage.store.read_progress(&stage.queue, inlet, &rows).await?)
}

/// The amounts alone.
async fn amounts(stage: &Stage, inlet: Inlet) -> Result<Vec<Option<u64>>, BoxError> {
    let shown = shown(stage, inlet).await?;
    Ok(shown.into_iter().map(|progress| progress.map(|progress| progress.done)).collect())
}

/// Only jobs that report progress show some.
pub async fn progress_is_shown_beside_the_pending_entry_with_its_age(stage: &Stage) -> Case {
    let holds = stage.deliver(3).await?;
    let [one, two, _] = holds.as_slice() else { return Err("three were delivered".into()) };
    let before = stage.now().await?.0;
    write(stage, &stage.me, *one, Some((3, Some(10), "pages of a report"))).await?;
    write(stage, &stage.me, *two, Some((7, None, ""))).await?;
    let shown = shown(stage, Inlet::STREAM).await?;
    let passed = Duration::from_millis(stage.now().await?.0 - before);
    let [Some(first), Some(second), None] = shown.as_slice() else {
        return Err(format!("{shown:?}").into());
    };
    assert_eq!((first.done, first.of, first.text.as_str()), (3, Some(10), "pages of a report"));
    assert_eq!((second.done, second.of, second.text.as_str()), (7, None, ""));
    assert!(first.age <= passed && second.age <= first.age, "{first:?} {second:?} {passed:?}");
    assert_eq!(stage.store.read_progress(&stage.queue, Inlet::STREAM, &[]).await?, []);
    Ok(())
}

/// A repetition changes nothing, and a removal removes it.
pub async fn the_last_progress_of_a_job_replaces_the_one_before(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    for done in [1, 2, 2] {
        write(stage, &stage.me, hold, Some((done, None, "x"))).await?;
    }
    assert_eq!(amounts(stage, Inlet::STREAM).await?, [Some(2)]);
    for _ in 0..2 {
        write(stage, &stage.me, hold, None).await?;
        assert_eq!(amounts(stage, Inlet::STREAM).await?, [None]);
    }
    Ok(())
}

/// What it has written before is not shown, because it belongs to another attempt.
pub async fn an_attempt_that_has_lost_its_entry_writes_and_removes_nothing(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    write(stage, &stage.me, hold, Some((5, None, "first"))).await?;
    stage.abandon(hold);
    stage.claim_idle(&stage.other, EntryId::ZERO, 10).await?;
    assert_eq!(amounts(stage, Inlet::STREAM).await?, [None]);
    write(stage, &stage.me, hold, Some((6, None, "late"))).await?;
    assert_eq!(amounts(stage, Inlet::STREAM).await?, [None]);
    let second = Hold { delivery_count: hold.delivery_count + 1, ..hold };
    write(stage, &stage.other, second, Some((1, None, "second"))).await?;
    write(stage, &stage.me, hold, None).await?;
    write(stage, &stage.me, hold, Some((7, None, "late"))).await?;
    assert_eq!(amounts(stage, Inlet::STREAM).await?, [Some(1)]);
    Ok(())
}

/// It was acknowledged before the progress was written.
pub async fn an_entry_that_is_not_pending_has_no_progress(stage: &Stage) -> Case {
    let hold = stage.deliver_one().await?;
    stage.store.acknowledge(&stage.queue, &[(hold.inlet, hold.id)]).await?;
    write(stage, &stage.me, hold, Some((5, None, "late"))).await?;
    assert_eq!(amounts(stage, Inlet::STREAM).await?, []);
    Ok(())
}

/// An entry of the lane may have the same id as one in the stream.
pub async fn entries_of_the_lane_have_progress_of_their_own(stage: &Stage) -> Case {
    stage.raw.append(&stage.key(Inlet::LANE), fields("in the lane"));
    let delivered = stage.read(&stage.me, Inlet::LANE, 1).await?;
    let hold = delivered.first().ok_or("nothing is in the lane")?.hold();
    write(stage, &stage.me, hold, Some((4, None, "in the lane"))).await?;
    assert_eq!(amounts(stage, Inlet::LANE).await?, [Some(4)]);
    let of_stream = Hold { inlet: Inlet::STREAM, ..hold };
    write(stage, &stage.me, of_stream, None).await?;
    assert_eq!(amounts(stage, Inlet::LANE).await?, [Some(4)]);
    Ok(())
}
