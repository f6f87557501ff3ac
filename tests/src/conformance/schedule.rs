//! Events that wait for their time.

use std::num::NonZeroU64;
use std::time::Duration;

use streamjobs::__store::schedule::ScheduledFacts;
use streamjobs::__store::{
    Due, Entered, NewScheduled, Rescheduled, ScheduledFrom, Scheduling, StoreError, inspect::Span,
};
use streamjobs::config::Retention;
use streamjobs::{Entry, EntryId, EventId};

use super::{BoxError, Case, Stage, fields};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! schedule_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, schedule:
            an_event_waits_until_it_is_due_and_enters_with_its_fields,
            the_first_time_of_an_event_id_stands_while_it_waits,
            what_is_due_already_is_appended_at_once,
            a_cancelled_event_never_enters,
            a_changed_time_counts_and_a_past_one_enters_at_once,
            scheduled_events_enter_with_the_retention_of_appending,
            a_page_of_due_events_is_limited,
            events_that_lost_their_place_get_it_back,
            events_without_a_record_are_removed_and_counted,
            a_stream_whose_records_are_all_lost_is_still_looked_at,
            pages_of_waiting_events_have_each_once_in_order,
            a_stream_is_known_to_be_scheduled_to_from_the_first_event_on,
        }
    };
}

fn id(text: &str) -> Result<EventId, BoxError> {
    Ok(EventId::new(text)?)
}

fn event(name: &str, due: Due) -> Result<NewScheduled, BoxError> {
    Ok(NewScheduled { id: id(name)?, due, fields: fields(name) })
}

async fn schedule(stage: &Stage, name: &str, due: Due) -> Result<Scheduling, BoxError> {
    let events = vec![event(name, due)?];
    let mut answers = stage.store.schedule(&stage.queue.stream, Retention::Unlimited, events).await;
    Ok(answers.pop().ok_or("an answer")??)
}

async fn enter(stage: &Stage, limit: usize) -> Result<Entered, StoreError> {
    stage.store.enter(&stage.queue.stream, Retention::Unlimited, limit, 0).await
}

async fn entries(stage: &Stage) -> Result<Vec<Entry>, StoreError> {
    let span = Span { from: EntryId::ZERO, to: EntryId::MAX };
    stage.store.range(&stage.queue.stream, span, false, 1_000).await
}

async fn names(stage: &Stage) -> Result<Vec<String>, StoreError> {
    let entries = entries(stage).await?;
    let name = |entry: &Entry| entry.text("name").map(str::to_owned).unwrap_or_default();
    Ok(entries.iter().map(name).collect())
}

const SOON: Duration = Duration::from_millis(40);
const FAR: Duration = Duration::from_secs(3_600);

/// It is in no backlog before, and afterwards it is an entry like any other.
pub async fn an_event_waits_until_it_is_due_and_enters_with_its_fields(stage: &Stage) -> Case {
    let before = stage.now().await?.0;
    let Scheduling::Waits { due, repeated: false, .. } =
        schedule(stage, "a", Due::In(SOON)).await?
    else {
        return Err("it waits".into());
    };
    assert!(due >= before + 40, "{due} {before}");
    schedule(stage, "b", Due::At(due + 3_600_000)).await?;
    let ahead = stage.store.look_ahead(&stage.queue.stream).await?;
    assert_eq!((ahead.waiting, ahead.misplaced), (2, 0));
    assert!(ahead.next_due.is_some_and(|next| next <= SOON), "{ahead:?}");
    assert_eq!(entries(stage).await?, []);
    stage.pass(40).await?;
    let entered = enter(stage, 500).await?;
    assert_eq!((entered.lateness.len(), entered.lost, entered.has_more), (1, 0, false));
    assert_eq!((entered.upcoming.waiting, entered.restored, entered.stranded), (1, 0, 0));
    assert!(entered.upcoming.next_due.is_some_and(|next| next > FAR / 2));
    let entry = entries(stage).await?.pop().ok_or("an entry")?;
    let mut expected = fields("a");
    expected.push(("sj-due".into(), due.to_string().into()));
    assert_eq!(entry.fields(), expected);
    assert!(entry.id().milliseconds() >= due, "never early");
    assert_eq!(enter(stage, 500).await?.lateness.len(), 0);
    assert_eq!(stage.store.scheduled_count(&stage.queue.stream).await?, 1);
    Ok(())
}

/// So a repetition of an unconfirmed call is safe.
pub async fn the_first_time_of_an_event_id_stands_while_it_waits(stage: &Stage) -> Case {
    let Scheduling::Waits { due, .. } = schedule(stage, "a", Due::In(FAR)).await? else {
        return Err("it waits".into());
    };
    for other in [Due::In(FAR * 2), Due::At(0), Due::In(Duration::ZERO)] {
        let again = schedule(stage, "a", other).await?;
        assert_eq!(again, Scheduling::Waits { due, repeated: true, unwatched: None });
    }
    assert_eq!(stage.store.scheduled_count(&stage.queue.stream).await?, 1);
    assert_eq!(entries(stage).await?, []);
    Ok(())
}

/// An event with a past time or without a delay is published at once.
pub async fn what_is_due_already_is_appended_at_once(stage: &Stage) -> Case {
    let now = stage.now().await?.0;
    let stream = &stage.queue.stream;
    let mut events = vec![event("a", Due::At(0))?, event("b", Due::In(Duration::ZERO))?];
    events.extend([event("c", Due::At(now - 1))?, event("d", Due::In(FAR))?]);
    let answers = stage.store.schedule(stream, Retention::Unlimited, events).await;
    let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    let ids = answers.iter().filter_map(|answer| match answer {
        Scheduling::Entered(id) => Some(*id),
        Scheduling::Waits { .. } => None,
    });
    let entries = entries(stage).await?;
    assert_eq!(ids.collect::<Vec<_>>(), entries.iter().map(Entry::id).collect::<Vec<_>>());
    assert_eq!(names(stage).await?, ["a", "b", "c"]);
    assert_eq!(entries.first().map(Entry::fields), Some(&*fields("a")));
    assert_eq!(stage.store.scheduled_count(stream).await?, 1);
    Ok(())
}

/// The answer says whether it waited.
pub async fn a_cancelled_event_never_enters(stage: &Stage) -> Case {
    let stream = &stage.queue.stream;
    schedule(stage, "a", Due::In(SOON)).await?;
    schedule(stage, "b", Due::In(SOON)).await?;
    assert!(stage.store.unschedule(stream, &id("a")?).await?);
    assert!(!stage.store.unschedule(stream, &id("a")?).await?, "once");
    assert!(!stage.store.unschedule(stream, &id("c")?).await?);
    stage.pass(40).await?;
    assert_eq!(enter(stage, 500).await?.lateness.len(), 1);
    assert!(!stage.store.unschedule(stream, &id("b")?).await?, "it has entered");
    assert_eq!(names(stage).await?, ["b"]);
    Ok(())
}

/// Only an event that still waits can have its time changed.
pub async fn a_changed_time_counts_and_a_past_one_enters_at_once(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let change = async |name: &str, due| {
        let changed = store.reschedule(stream, Retention::Unlimited, &id(name)?, due).await;
        Ok::<_, BoxError>(changed?)
    };
    assert_eq!(change("a", Due::In(FAR)).await?, Rescheduled::NotScheduled);
    for name in ["a", "b", "c"] {
        schedule(stage, name, Due::In(SOON)).await?;
    }
    let Rescheduled::Waits(due) = change("a", Due::In(FAR)).await? else {
        return Err("it waits".into());
    };
    assert_eq!(change("b", Due::At(due + 1)).await?, Rescheduled::Waits(due + 1));
    stage.pass(40).await?;
    assert_eq!(enter(stage, 500).await?.lateness.len(), 1);
    assert_eq!(names(stage).await?, ["c"]);
    let Rescheduled::Entered(entry, None) = change("b", Due::In(Duration::ZERO)).await? else {
        return Err("it has entered".into());
    };
    let last = entries(stage).await?.pop().ok_or("an entry")?;
    assert_eq!((last.id(), last.text("name")), (entry, Some("b")));
    let said = last.text("sj-due").and_then(|due| due.parse::<u64>().ok());
    assert!(said.is_some_and(|said| said <= entry.milliseconds()), "the new time: {said:?}");
    assert_eq!(change("b", Due::In(FAR)).await?, Rescheduled::NotScheduled);
    let waits = store.scheduled(stream, ScheduledFrom::First, 10).await?.events;
    let waits = waits.iter().map(|event| (event.name.as_str(), event.due)).collect::<Vec<_>>();
    assert_eq!(waits, [("a", due)]);
    Ok(())
}

/// Publishing applies the same retention.
pub async fn scheduled_events_enter_with_the_retention_of_appending(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let two = Retention::MaxLenExact(NonZeroU64::MIN.saturating_add(1));
    for name in ["a", "b", "c", "d", "e"] {
        schedule(stage, name, Due::In(SOON)).await?;
    }
    stage.pass(40).await?;
    assert_eq!(store.enter(stream, two, 500, 0).await?.lateness.len(), 5);
    assert_eq!(stage.raw.length(stream.as_str()), 2);
    let at_once = vec![event("f", Due::At(1))?, event("g", Due::In(FAR))?];
    for answer in store.schedule(stream, two, at_once).await {
        answer?;
    }
    assert_eq!(stage.raw.length(stream.as_str()), 2);
    store.reschedule(stream, two, &id("g")?, Due::At(0)).await?;
    assert_eq!(names(stage).await?, ["f", "g"]);
    Ok(())
}

/// The answer says that more events are due.
pub async fn a_page_of_due_events_is_limited(stage: &Stage) -> Case {
    for name in ["a", "b", "c", "d", "e"] {
        schedule(stage, name, Due::In(SOON)).await?;
    }
    stage.pass(40).await?;
    assert_eq!(enter(stage, 0).await?.lateness.len(), 0);
    for (entered, has_more) in [(2, true), (2, true), (1, false)] {
        let page = enter(stage, 2).await?;
        assert_eq!((page.lateness.len(), page.has_more), (entered, has_more));
    }
    assert_eq!(entries(stage).await?.len(), 5);
    Ok(())
}

/// The set was evicted or deleted; the records know when each event is due.
pub async fn events_that_lost_their_place_get_it_back(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    schedule(stage, "a", Due::In(SOON)).await?;
    schedule(stage, "b", Due::In(FAR)).await?;
    let Rescheduled::Waits(due) =
        store.reschedule(stream, Retention::Unlimited, &id("b")?, Due::In(FAR / 2)).await?
    else {
        return Err("it waits".into());
    };
    stage.raw.lose_schedule(stream);
    let ahead = store.look_ahead(stream).await?;
    assert_eq!((ahead.waiting, ahead.misplaced, ahead.next_due), (0, 2, None));
    let again = schedule(stage, "b", Due::In(FAR)).await?;
    assert!(
        matches!(again, Scheduling::Waits { due: stands, repeated: true, .. } if stands == due)
    );
    stage.pass(40).await?;
    let entered = enter(stage, 500).await?;
    assert_eq!((entered.restored, entered.lateness.len(), entered.stranded), (2, 1, 0));
    let events = store.scheduled(stream, ScheduledFrom::First, 10).await?.events;
    assert_eq!(events.iter().map(|event| event.due).collect::<Vec<_>>(), [due]);
    assert_eq!(enter(stage, 500).await?.restored, 0);
    stage.raw.lose_schedule(stream);
    assert!(store.unschedule(stream, &id("b")?).await?, "it can be cancelled all the same");
    assert_eq!(store.look_ahead(stream).await?.misplaced, 0);
    Ok(())
}

/// Without a record, there is nothing to append.
pub async fn events_without_a_record_are_removed_and_counted(stage: &Stage) -> Case {
    let stream = &stage.queue.stream;
    schedule(stage, "a", Due::In(SOON)).await?;
    schedule(stage, "b", Due::In(SOON)).await?;
    stage.raw.lose_scheduled_record(stream, "a");
    stage.pass(40).await?;
    let entered = enter(stage, 500).await?;
    assert_eq!((entered.lost, entered.lateness.len()), (1, 1));
    assert_eq!((entered.upcoming.waiting, enter(stage, 500).await?.lost), (0, 0));
    assert_eq!(names(stage).await?, ["b"]);
    Ok(())
}

/// The sign that events are scheduled to the stream is one of the records.
pub async fn a_stream_whose_records_are_all_lost_is_still_looked_at(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    schedule(stage, "a", Due::In(SOON)).await?;
    schedule(stage, "b", Due::In(FAR)).await?;
    stage.raw.lose_scheduled_records(&queue.stream);
    let ahead = store.look_ahead(&queue.stream).await?;
    assert_eq!((ahead.used, ahead.waiting, ahead.misplaced), (true, 2, 0));
    assert!(store.promote(queue, &stage.me, 0).await?.scheduled, "promoters say so");
    stage.pass(40).await?;
    let entered = enter(stage, 500).await?;
    assert_eq!((entered.lost, entered.lateness.len(), entered.upcoming.used), (1, 0, true));
    assert!(store.unschedule(&queue.stream, &id("b")?).await?);
    assert!(!store.look_ahead(&queue.stream).await?.used, "nothing waits");
    assert!(!store.promote(queue, &stage.me, 0).await?.scheduled);
    let again = schedule(stage, "c", Due::In(FAR)).await?;
    assert!(matches!(again, Scheduling::Waits { repeated: false, .. }), "{again:?}");
    assert!(store.look_ahead(&queue.stream).await?.used);
    Ok(())
}

/// This holds even if the last event of a page is gone.
pub async fn pages_of_waiting_events_have_each_once_in_order(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let at = stage.now().await?.0 + 3_600_000;
    for (name, later) in [("c", 1), ("a", 0), ("b", 1), ("d", 2)] {
        let mut event = event(name, Due::At(at + later))?;
        event.fields.push(("sj-key".into(), "alice".into()));
        for answer in store.schedule(stream, Retention::Unlimited, vec![event]).await {
            answer?;
        }
    }
    let page = store.scheduled(stream, ScheduledFrom::First, 3).await?;
    let ids = |events: &[ScheduledFacts]| {
        events.iter().map(|event| event.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (ids(&page.events), page.has_more),
        (vec!["a".into(), "b".into(), "c".into()], true)
    );
    let first = page.events.first().ok_or("a first")?;
    assert_eq!((first.event_type.as_deref(), first.key.as_deref()), (Some("t"), Some("alice")));
    assert!(first.due == at && first.bytes > 20, "{first:?}");
    let after = ScheduledFrom::After { id: "b", due: at + 1 };
    assert_eq!(ids(&store.scheduled(stream, after, 9).await?.events), ["c", "d"]);
    assert!(store.unschedule(stream, &id("b")?).await?);
    assert_eq!(ids(&store.scheduled(stream, after, 9).await?.events), ["c", "d"]);
    let due = ScheduledFrom::Due(at + 2);
    assert_eq!(ids(&store.scheduled(stream, due, 9).await?.events), ["d"]);
    assert_eq!(ids(&store.scheduled(stream, ScheduledFrom::Due(at + 3), 9).await?.events), [""; 0]);
    Ok(())
}

/// Until every process has learned it, an answer says how soon its event is due.
pub async fn a_stream_is_known_to_be_scheduled_to_from_the_first_event_on(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let known = async || {
        let promoted = store.promote(queue, &stage.me, 0).await?.scheduled;
        Ok::<_, StoreError>((store.look_ahead(&queue.stream).await?.used, promoted))
    };
    assert_eq!(known().await?, (false, false));
    let short = Duration::from_millis(400);
    let answer = schedule(stage, "a", Due::In(short)).await?;
    assert!(
        matches!(answer, Scheduling::Waits { unwatched: Some(rest), .. } if rest == short),
        "{answer:?}"
    );
    let far = schedule(stage, "b", Due::In(short * 2)).await?;
    assert!(matches!(far, Scheduling::Waits { unwatched: None, .. }), "it can be cancelled");
    assert_eq!(known().await?, (true, true));
    for name in ["a", "b"] {
        assert!(store.unschedule(&queue.stream, &id(name)?).await?);
    }
    assert_eq!(known().await?, (true, true), "from then on");
    assert_eq!(store.look_ahead(&queue.stream).await?.misplaced, 0);
    stage.pass(5_000).await?;
    let answer = schedule(stage, "a", Due::In(short)).await?;
    assert!(matches!(answer, Scheduling::Waits { unwatched: None, .. }), "{answer:?}");
    Ok(())
}
