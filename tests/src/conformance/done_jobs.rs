//! Notes of finished jobs.

use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::__store::done_jobs::{DoneNote, KeepDone};
use streamjobs::EntryId;

use super::{Case, LEASE, Stage};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! done_jobs_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, done_jobs:
            notes_are_kept_up_to_a_number_and_the_oldest_go_first,
            notes_are_removed_when_their_time_is_over,
        }
    };
}

fn notes(count: u64) -> Vec<DoneNote> {
    let note = |number: u64| DoneNote {
        event_id: format!("e-{number}"),
        event_type: Some("order.placed".to_owned()),
        key: Some("alice".to_owned()),
        origin: EntryId::new(number, 0),
        began: number,
        took: Duration::from_millis(7),
        attempt: 1,
        process: "web-1".to_owned(),
    };
    (1..=count).map(note).collect()
}

fn keep(time: Duration, most: u32) -> KeepDone {
    KeepDone { time, most: NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN) }
}

/// The bound is exact.
pub async fn notes_are_kept_up_to_a_number_and_the_oldest_go_first(stage: &Stage) -> Case {
    let (store, queue, key) = (&stage.store, &stage.queue, stage.queue.done_key());
    store.note_done(queue, keep(LEASE, 5), &[]).await?;
    assert_eq!(stage.raw.length(&key), 0);
    store.note_done(queue, keep(LEASE, 5), &notes(3)).await?;
    assert_eq!(stage.raw.length(&key), 3);
    store.note_done(queue, keep(LEASE, 5), &notes(4)).await?;
    assert_eq!(stage.raw.length(&key), 5);
    store.note_done(queue, keep(LEASE, 200), &notes(200)).await?;
    assert_eq!(stage.raw.length(&key), 200);
    Ok(())
}

/// The notes of a group that continues to work are removed with its next note, and those of an idle
/// group with the key.
pub async fn notes_are_removed_when_their_time_is_over(stage: &Stage) -> Case {
    let (store, queue, key) = (&stage.store, &stage.queue, stage.queue.done_key());
    store.note_done(queue, keep(LEASE, 9), &notes(2)).await?;
    stage.pass(60).await?;
    store.note_done(queue, keep(Duration::from_millis(50), 9), &notes(1)).await?;
    assert_eq!(stage.raw.length(&key), 1, "the older ones are gone");
    stage.pass(60).await?;
    assert_eq!(stage.raw.length(&key), 0);
    Ok(())
}
