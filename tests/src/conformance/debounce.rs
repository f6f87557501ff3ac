//! Debounced events: a waiting event is replaced by one that is the same.

use std::time::Duration;

use streamjobs::__store::schedule::DebounceTimes;
use streamjobs::__store::{Debounced, Due, NewDebounced, Rescheduled, ScheduledFrom, StoreError};
use streamjobs::config::Retention;
use streamjobs::{Entry, EntryId, EventId};

use super::{BoxError, Case, Stage, fields};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! debounce_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, debounce:
            a_debounced_event_replaces_the_one_that_waits_and_begins_the_delay_anew,
            no_debounced_event_waits_longer_than_the_longest_wait_of_the_first,
            the_time_of_the_first_can_stand_while_its_payload_is_replaced,
            a_repetition_of_a_debounced_event_changes_nothing_while_it_waits,
            debounced_events_are_listed_moved_and_cancelled_by_their_name,
            a_debounced_event_after_an_entered_one_waits_as_the_first,
            a_debounced_event_that_lost_its_place_keeps_what_it_knows,
        }
    };
}

const TIMES: DebounceTimes = DebounceTimes {
    delay: Duration::from_secs(60),
    wait_max: Duration::from_secs(3_600),
    keeps_time: false,
};

fn id(text: &str) -> Result<EventId, BoxError> {
    Ok(EventId::new(text)?)
}

async fn debounce(
    stage: &Stage,
    name: &str,
    event: &str,
    times: DebounceTimes,
) -> Result<Debounced, BoxError> {
    let mut fields = fields(event);
    fields.push(("sj-id".into(), event.to_owned().into()));
    let event = NewDebounced { name: id(name)?, id: id(event)?, times, fields };
    Ok(stage.store.debounce(&stage.queue.stream, event).await?)
}

/// Name, event id and due time of each waiting event.
async fn waits(stage: &Stage) -> Result<Vec<(String, Option<String>, u64)>, StoreError> {
    let page = stage.store.scheduled(&stage.queue.stream, ScheduledFrom::First, 10).await?;
    Ok(page.events.into_iter().map(|event| (event.name, event.event_id, event.due)).collect())
}

/// The names in the payloads of the entries.
async fn entered(stage: &Stage) -> Result<Vec<Entry>, BoxError> {
    stage.store.enter(&stage.queue.stream, Retention::Unlimited, 500, 0).await?;
    let span = streamjobs::__store::inspect::Span { from: EntryId::ZERO, to: EntryId::MAX };
    Ok(stage.store.range(&stage.queue.stream, span, false, 1_000).await?)
}

fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().filter_map(|entry| entry.text("sj-id")).collect()
}

/// Only the last one enters.
pub async fn a_debounced_event_replaces_the_one_that_waits_and_begins_the_delay_anew(
    stage: &Stage,
) -> Case {
    let times = DebounceTimes { delay: Duration::from_millis(200), ..TIMES };
    let before = stage.now().await?.0;
    let first = debounce(stage, "u:a", "e-1", times).await?;
    assert_eq!((first.replaced, first.repeated), (None, false));
    assert!(first.due >= before + 200, "{} {before}", first.due);
    debounce(stage, "u:b", "e-2", times).await?;
    stage.pass(5).await?;
    let second = debounce(stage, "u:a", "e-3", times).await?;
    assert_eq!((second.replaced, second.repeated), (Some(id("e-1")?), false));
    assert!(second.due >= first.due + 5, "{} {}", second.due, first.due);
    assert_eq!(stage.store.scheduled_count(&stage.queue.stream).await?, 2);
    assert_eq!(stage.store.look_ahead(&stage.queue.stream).await?.misplaced, 0);
    stage.pass(300).await?;
    let entries = entered(stage).await?;
    assert_eq!(names(&entries), ["e-2", "e-3"]);
    let last = entries.last().ok_or("two have entered")?;
    assert_eq!(last.text("sj-due"), Some(second.due.to_string().as_str()));
    assert!(last.id().milliseconds() >= second.due, "never early");
    let payload = last.fields().get(..5).ok_or("its payload")?;
    assert_eq!(payload, fields("e-3"));
    Ok(())
}

/// An event runs even during a steady flow of others.
pub async fn no_debounced_event_waits_longer_than_the_longest_wait_of_the_first(
    stage: &Stage,
) -> Case {
    let wait_max = Duration::from_millis(60_050);
    let times = DebounceTimes { wait_max, ..TIMES };
    let before = stage.now().await?.0;
    let first = debounce(stage, "u:a", "e-1", times).await?.due;
    let after = stage.now().await?.0;
    assert!((before + 60_000..=after + 60_000).contains(&first));
    stage.pass(80).await?;
    for event in ["e-2", "e-3"] {
        let due = debounce(stage, "u:a", event, times).await?.due;
        assert_eq!(due, first + 50, "{event}");
        stage.pass(20).await?;
    }
    Ok(())
}

/// At most one event enters in each delay, with the newest payload.
pub async fn the_time_of_the_first_can_stand_while_its_payload_is_replaced(stage: &Stage) -> Case {
    let times = DebounceTimes { keeps_time: true, ..TIMES };
    let first = debounce(stage, "u:a", "e-1", times).await?;
    stage.pass(5).await?;
    let second = debounce(stage, "u:a", "e-2", times).await?;
    assert_eq!((second.due, second.replaced), (first.due, Some(id("e-1")?)));
    assert_eq!(waits(stage).await?, [("u:a".into(), Some("e-2".into()), first.due)]);
    Ok(())
}

/// So a repetition of an unconfirmed call is safe.
pub async fn a_repetition_of_a_debounced_event_changes_nothing_while_it_waits(
    stage: &Stage,
) -> Case {
    let first = debounce(stage, "u:a", "e-1", TIMES).await?;
    stage.pass(5).await?;
    let again = debounce(stage, "u:a", "e-1", TIMES).await?;
    assert_eq!(again, Debounced { due: first.due, replaced: None, repeated: true });
    assert_eq!(waits(stage).await?, [("u:a".into(), Some("e-1".into()), first.due)]);
    Ok(())
}

/// Other waiting events are named by their event ids instead.
pub async fn debounced_events_are_listed_moved_and_cancelled_by_their_name(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    debounce(stage, "u:a", "e-1", TIMES).await?;
    let due = stage.now().await?.0 + 7_200_000;
    let moved = store.reschedule(stream, Retention::Unlimited, &id("u:a")?, Due::At(due)).await?;
    assert_eq!(moved, Rescheduled::Waits(due));
    assert_eq!(waits(stage).await?, [("u:a".into(), Some("e-1".into()), due)]);
    let next = debounce(stage, "u:a", "e-2", TIMES).await?;
    assert!(next.due < due && next.replaced == Some(id("e-1")?), "{next:?}");
    assert!(!store.unschedule(stream, &id("e-2")?).await?, "it waits under its name");
    assert!(store.unschedule(stream, &id("u:a")?).await?);
    assert_eq!((waits(stage).await?, entered(stage).await?), (Vec::new(), Vec::new()));
    let last = debounce(stage, "u:a", "e-3", TIMES).await?;
    assert_eq!((last.replaced, last.repeated), (None, false));
    let now = Due::In(Duration::ZERO);
    let entered = store.reschedule(stream, Retention::Unlimited, &id("u:a")?, now).await?;
    assert!(matches!(entered, Rescheduled::Entered(_, Some(event)) if event == id("e-3")?));
    Ok(())
}

/// It begins a new round.
pub async fn a_debounced_event_after_an_entered_one_waits_as_the_first(stage: &Stage) -> Case {
    let (delay, wait_max) = (Duration::from_millis(20), Duration::from_millis(40));
    let times = DebounceTimes { delay, wait_max, ..TIMES };
    debounce(stage, "u:a", "e-1", times).await?;
    stage.pass(20).await?;
    assert_eq!(names(&entered(stage).await?), ["e-1"]);
    let before = stage.now().await?.0;
    let next = debounce(stage, "u:a", "e-2", times).await?;
    assert!(next.replaced.is_none() && next.due >= before + 20, "{next:?}");
    stage.pass(20).await?;
    assert_eq!(names(&entered(stage).await?), ["e-1", "e-2"]);
    Ok(())
}

/// The set was evicted or deleted.
pub async fn a_debounced_event_that_lost_its_place_keeps_what_it_knows(stage: &Stage) -> Case {
    let first = debounce(stage, "u:a", "e-1", TIMES).await?;
    stage.raw.lose_schedule(&stage.queue.stream);
    let times = DebounceTimes { keeps_time: true, ..TIMES };
    let second = debounce(stage, "u:a", "e-2", times).await?;
    assert_eq!((second.due, second.replaced), (first.due, Some(id("e-1")?)));
    assert_eq!(waits(stage).await?, [("u:a".into(), Some("e-2".into()), first.due)]);
    stage.raw.lose_scheduled_record(&stage.queue.stream, "u:a");
    let third = debounce(stage, "u:a", "e-3", TIMES).await?;
    assert_eq!((third.replaced, waits(stage).await?.len()), (None, 1));
    Ok(())
}
