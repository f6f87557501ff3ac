//! What groups did, for charts.

use std::time::Duration;

use streamjobs::__store::trends::{TrendNote, TrendRange, TrendStep};
use streamjobs::__store::{Queue, Store};
use streamjobs::stream::DurationCounts;
use streamjobs::{EntryId, GroupName};

use super::{BoxError, Case, Stage};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! trends_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, trends:
            what_several_processes_note_is_added_in_both_rings,
            the_backlog_of_a_step_is_the_highest_that_was_seen,
            groups_have_trends_of_their_own,
            a_group_without_notes_has_no_steps,
        }
    };
}

fn counts(milliseconds: &[u64]) -> DurationCounts {
    let mut counts = DurationCounts::default();
    for milliseconds in milliseconds {
        counts.record(Duration::from_millis(*milliseconds));
    }
    counts
}

fn note(done: u64, failed: u64, run: &[u64]) -> TrendNote {
    let (queue_time, run_time) = (counts(&[5]), counts(run));
    TrendNote { done, failed, queue_time, run_time, ..TrendNote::default() }
}

/// All steps of a range together, because a case may run across the end of a minute.
async fn whole(
    store: &dyn Store,
    queue: &Queue,
    range: TrendRange,
) -> Result<(usize, TrendNote), BoxError> {
    let (now, steps) = store.trend(queue, range).await?;
    assert!(EntryId::new(now, 0) > EntryId::ZERO);
    let mut sum = TrendNote::default();
    for TrendStep { note, .. } in &steps {
        sum.done += note.done;
        sum.failed += note.failed;
        sum.queue_time.add(&note.queue_time);
        sum.run_time.add(&note.run_time);
        sum.waiting = sum.waiting.max(note.waiting);
        sum.oldest = sum.oldest.max(note.oldest);
    }
    Ok((steps.len(), sum))
}

const RANGES: [TrendRange; 2] = [TrendRange::SixHours, TrendRange::SevenDays];

/// Two processes, one of which notes twice.
pub async fn what_several_processes_note_is_added_in_both_rings(stage: &Stage) -> Case {
    let (store, queue) = (stage.store.as_ref(), &stage.queue);
    let other = store.fork();
    store.note_trend(queue, &note(3, 1, &[10, 10, 900])).await?;
    other.note_trend(queue, &note(40, 0, &[900, 3_600_000])).await?;
    store.note_trend(queue, &note(0, 2, &[])).await?;
    for range in RANGES {
        let (steps, sum) = whole(store, queue, range).await?;
        assert!((1..=2).contains(&steps), "{range:?}: {steps}");
        assert_eq!((sum.done, sum.failed, sum.queue_time.count()), (43, 3, 3), "{range:?}");
        assert_eq!(sum.run_time, counts(&[10, 10, 900, 900, 3_600_000]), "{range:?}");
    }
    Ok(())
}

/// The notes may come in either order.
pub async fn the_backlog_of_a_step_is_the_highest_that_was_seen(stage: &Stage) -> Case {
    let (store, queue) = (stage.store.as_ref(), &stage.queue);
    for (waiting, oldest) in [(5, 70), (900, 60), (0, 0)] {
        let oldest = Duration::from_millis(oldest);
        store.note_trend(queue, &TrendNote { waiting, oldest, ..TrendNote::default() }).await?;
    }
    for range in RANGES {
        let (_, sum) = whole(store, queue, range).await?;
        assert_eq!((sum.waiting, sum.oldest), (900, Duration::from_millis(70)), "{range:?}");
    }
    Ok(())
}

/// The other group of the stream has nothing.
pub async fn groups_have_trends_of_their_own(stage: &Stage) -> Case {
    let (store, queue) = (stage.store.as_ref(), &stage.queue);
    let other = Queue { group: GroupName::new("other")?, ..queue.clone() };
    store.note_trend(queue, &note(1, 0, &[])).await?;
    store.note_trend(&other, &note(0, 7, &[])).await?;
    for range in RANGES {
        assert_eq!(whole(store, queue, range).await?.1.failed, 0);
        assert_eq!(whole(store, &other, range).await?.1.failed, 7);
    }
    Ok(())
}

/// It has no steps with zeros either.
pub async fn a_group_without_notes_has_no_steps(stage: &Stage) -> Case {
    for range in RANGES {
        assert_eq!(whole(stage.store.as_ref(), &stage.queue, range).await?.0, 0);
    }
    Ok(())
}
