//! Marks of what a group has begun and done.

use std::time::Duration;

use streamjobs::__store::marks::{MarkBegin, Marked};
use streamjobs::__store::{Queue, StoreError};
use streamjobs::{EntryId, GroupName};

use super::{Case, LEASE, Stage};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! marks_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, marks:
            work_is_begun_by_one_and_done_for_all,
            the_same_job_takes_its_work_over_at_once,
            abandoned_work_is_taken_over_when_its_time_is_over,
        }
    };
}

const KEY: &str = "order-1:placed{x}";

/// A first entry of an event, and a second one of the same event.
const ONE: EntryId = EntryId::new(1, 0);
const TWO: EntryId = EntryId::new(2, 0);

fn by(owner: &str, origin: EntryId) -> MarkBegin<'_> {
    MarkBegin::new(owner, origin, LEASE, LEASE)
}

async fn begin(stage: &Stage, begin: MarkBegin<'_>) -> Result<Marked, StoreError> {
    stage.store.begin_mark(&stage.queue, KEY, begin).await
}

/// Other jobs leave begun work alone, and finished work is finished for all.
pub async fn work_is_begun_by_one_and_done_for_all(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    assert_eq!(begin(stage, by("a", ONE)).await?, Marked::Begun { takeover: false });
    let Marked::Running { rest } = begin(stage, by("b", TWO)).await? else {
        return Err("it is running".into());
    };
    assert!(rest > LEASE / 2 && rest <= LEASE, "{rest:?}");
    store.finish_mark(queue, KEY, LEASE).await?;
    for (owner, origin) in [("a", ONE), ("b", TWO)] {
        assert_eq!(begin(stage, by(owner, origin)).await?, Marked::Done);
    }
    assert!(!store.undo_mark(queue, KEY, "a").await?, "what is done stays done");
    assert_eq!(begin(stage, by("a", ONE)).await?, Marked::Done);
    let other = Queue { stream: queue.stream.clone(), group: GroupName::new("other")? };
    let elsewhere = store.begin_mark(&other, KEY, by("a", ONE)).await?;
    assert_eq!(elsewhere, Marked::Begun { takeover: false }, "groups do not share marks");
    Ok(())
}

/// The same job takes over its work at once, and the earlier attempt cannot undo that.
pub async fn the_same_job_takes_its_work_over_at_once(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    begin(stage, by("a", ONE)).await?;
    assert_eq!(begin(stage, by("b", ONE)).await?, Marked::Begun { takeover: true });
    assert!(!store.undo_mark(queue, KEY, "a").await?);
    assert!(matches!(begin(stage, by("c", TWO)).await?, Marked::Running { .. }));
    assert!(store.undo_mark(queue, KEY, "b").await?);
    assert!(!store.undo_mark(queue, KEY, "b").await?, "once");
    assert_eq!(begin(stage, by("c", TWO)).await?, Marked::Begun { takeover: false });
    begin(stage, by("d", TWO)).await?;
    store.finish_mark(queue, KEY, LEASE).await?;
    assert_eq!(begin(stage, by("d", TWO)).await?, Marked::Done, "whichever attempt owned it");
    Ok(())
}

/// Abandoned work can be taken over when its time is over, and every mark expires.
pub async fn abandoned_work_is_taken_over_when_its_time_is_over(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let short = Duration::from_millis(5);
    begin(stage, MarkBegin::new("a", ONE, short, LEASE)).await?;
    stage.pass(10).await?;
    assert_eq!(begin(stage, by("b", TWO)).await?, Marked::Begun { takeover: true });
    assert!(matches!(begin(stage, by("a", ONE)).await?, Marked::Running { .. }));
    // Long enough that a busy machine still sees it done.
    store.finish_mark(queue, KEY, Duration::from_secs(1)).await?;
    assert_eq!(begin(stage, by("a", ONE)).await?, Marked::Done);
    stage.pass(1_005).await?;
    let brief = MarkBegin::new("a", ONE, short, Duration::ZERO);
    assert_eq!(begin(stage, brief).await?, Marked::Begun { takeover: false }, "forgotten");
    stage.pass(10).await?;
    assert_eq!(begin(stage, by("b", TWO)).await?, Marked::Begun { takeover: false });
    store.finish_mark(queue, KEY, Duration::MAX).await?;
    let long = MarkBegin::new("c", ONE, Duration::MAX, Duration::MAX);
    assert_eq!(begin(stage, long).await?, Marked::Done);
    Ok(())
}
