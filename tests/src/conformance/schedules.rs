//! Schedules: declarations, firings, pauses, and what other clients do to them.

use std::num::NonZeroU64;
use std::time::Duration;

use streamjobs::__store::inspect::Span;
use streamjobs::__store::schedules::{ListedSchedules, ScheduleFacts, ScheduleName};
use streamjobs::__store::{
    Declared, DueSchedules, Fired, Firing, Mark, NewSchedule, NextTime, Occurrence, Ran,
    RemovedSchedule, ScheduleKind, Score, ServerTime, StoreError,
};
use streamjobs::config::Retention;
use streamjobs::{Entry, EntryId};

use super::{BoxError, Case, Stage, fields};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! schedules_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, schedules:
            a_schedule_begins_at_its_next_time_and_keeps_it_under_the_same_definition,
            the_last_definition_stands_and_makes_up_nothing,
            a_definition_that_was_declared_lately_can_be_left_as_it_is,
            what_was_computed_from_another_time_is_refused,
            a_next_time_that_has_passed_meanwhile_is_refused_where_it_would_count,
            a_firing_publishes_all_of_its_occurrences_and_moves_the_next_time,
            a_firing_is_refused_unless_time_definition_and_score_are_the_expected_ones,
            of_two_processes_that_fire_one_is_first,
            firings_of_one_call_have_an_answer_each,
            firings_publish_with_the_retention_of_appending,
            a_paused_schedule_is_not_due_and_begins_anew_when_it_is_resumed,
            a_run_by_hand_publishes_one_event_and_moves_nothing,
            a_schedule_that_a_process_declares_cannot_be_removed_and_any_other_can,
            schedules_that_no_process_declares_are_forgotten,
            a_schedule_without_a_place_gets_it_back_and_a_place_without_a_schedule_goes,
            a_definition_that_cannot_be_read_stays_and_stops_nothing_else,
            schedules_are_listed_in_pages_by_name,
        }
    };
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: u64 = 3_600_000;

fn name(text: &str) -> Result<ScheduleName, BoxError> {
    Ok(ScheduleName::new(text)?)
}

fn schedule(text: &str, digest: &str, kind: ScheduleKind) -> Result<NewSchedule, BoxError> {
    let (digest, about) = (digest.to_owned(), format!("{{\"of\":\"{text}\"}}"));
    Ok(NewSchedule { name: name(text)?, digest, kind, about, fields: fields(text) })
}

async fn declare_at(
    stage: &Stage,
    text: &str,
    digest: &str,
    at: u64,
) -> Result<Declared, BoxError> {
    let (from, schedule) = (stage.now().await?, schedule(text, digest, ScheduleKind::Code)?);
    let next = NextTime { at, from };
    let declared = stage.store.declare(&stage.queue.stream, &schedule, next, Duration::ZERO);
    Ok(declared.await?)
}

/// Declares a schedule that is due now.
async fn declare_due(stage: &Stage, text: &str) -> Result<u64, BoxError> {
    let now = stage.now().await?.0;
    assert_eq!(declare_at(stage, text, "d1", now).await?, Declared::Stored);
    Ok(now)
}

async fn due(stage: &Stage) -> Result<DueSchedules, StoreError> {
    stage.store.due_schedules(&stage.queue.stream, 0).await
}

async fn facts(stage: &Stage, text: &str) -> Result<Option<ScheduleFacts>, StoreError> {
    let page =
        stage.store.schedules(&stage.queue.stream, ListedSchedules::Only(text), 1, true).await?;
    Ok(page.schedules.into_iter().find(|facts| facts.name == text))
}

async fn next_of(stage: &Stage, text: &str) -> Result<Option<u64>, StoreError> {
    Ok(facts(stage, text).await?.and_then(|facts| facts.next).map(|score| score.at))
}

fn firing(text: &str, expected: &Score, times: &[u64], next: u64) -> Result<Firing, BoxError> {
    let occurrence = |due: &u64| Occurrence { due: *due, fields: fields(&due.to_string()) };
    Ok(Firing {
        name: name(text)?,
        expected: expected.clone(),
        digest: "d1".to_owned(),
        next,
        occurrences: times.iter().map(occurrence).collect(),
        missed: 2,
        busy: None,
    })
}

async fn fire(stage: &Stage, firings: Vec<Firing>) -> Result<Vec<Fired>, StoreError> {
    let stream = &stage.queue.stream;
    let answers = stage.store.fire(stream, Retention::Unlimited, "me", firings).await;
    answers.into_iter().collect()
}

fn score(at: u64) -> Score {
    Score { text: at.to_string(), at }
}

async fn entries(stage: &Stage) -> Result<Vec<Entry>, StoreError> {
    let span = Span { from: EntryId::ZERO, to: EntryId::MAX };
    stage.store.range(&stage.queue.stream, span, false, 1_000).await
}

/// A process that starts again does not move the next time.
pub async fn a_schedule_begins_at_its_next_time_and_keeps_it_under_the_same_definition(
    stage: &Stage,
) -> Case {
    let stream = &stage.queue.stream;
    let before = due(stage).await?;
    assert_eq!((before.count, before.due.len(), before.next_due), (0, 0, None));
    let at = stage.now().await?.0 + HOUR;
    assert_eq!(declare_at(stage, "nightly", "d1", at).await?, Declared::Stored);
    let after = due(stage).await?;
    assert_eq!((after.count, after.due.len()), (1, 0));
    assert!(after.version > before.version);
    assert!(after.next_due.is_some_and(|next| next <= Duration::from_millis(HOUR)));
    assert_eq!(declare_at(stage, "nightly", "d1", at + 5).await?, Declared::Same);
    assert_eq!(next_of(stage, "nightly").await?, Some(at));
    assert_eq!(due(stage).await?.version, after.version, "nothing is read again");
    let declared = [(name("nightly")?, "d1".to_owned()), (name("other")?, "d2".to_owned())];
    let marks = stage.store.mark_declared(stream, &declared).await?;
    assert_eq!(marks, [Mark::Same, Mark::Missing]);
    let stored = facts(stage, "nightly").await?.ok_or("it is there")?;
    let spec = stored.spec.ok_or("it can be read")?;
    assert_eq!((spec.kind, spec.digest.as_str()), (ScheduleKind::Code, "d1"));
    assert_eq!((spec.about.as_str(), &spec.fields), ("{\"of\":\"nightly\"}", &fields("nightly")));
    assert!(spec.bytes > 0 && stored.record.declared.is_some() && stored.record.since > 0);
    Ok(())
}

/// This holds even if the old definition was overdue.
pub async fn the_last_definition_stands_and_makes_up_nothing(stage: &Stage) -> Case {
    let now = declare_due(stage, "nightly").await?;
    let version = due(stage).await?.version;
    assert_eq!(declare_at(stage, "nightly", "d2", now + HOUR).await?, Declared::Stored);
    assert_eq!(next_of(stage, "nightly").await?, Some(now + HOUR));
    assert!(due(stage).await?.version > version);
    let fired = fire(stage, vec![firing("nightly", &score(now), &[now], now + 1)?]).await?;
    assert_eq!(fired, [Fired::Moved], "what the old one has computed");
    let marks = [(name("nightly")?, "d1".to_owned())];
    let marks = stage.store.mark_declared(&stage.queue.stream, &marks).await?;
    assert!(matches!(marks[..], [Mark::Other(quiet)] if quiet < MINUTE), "{marks:?}");
    assert_eq!(entries(stage).await?, []);
    Ok(())
}

/// So a live process takes over only if the newer ones are gone.
pub async fn a_definition_that_was_declared_lately_can_be_left_as_it_is(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let at = stage.now().await?.0 + HOUR;
    declare_at(stage, "nightly", "d1", at).await?;
    let other = schedule("nightly", "d2", ScheduleKind::Code)?;
    let next = NextTime { at: at + 1, from: stage.now().await? };
    let declared = store.declare(stream, &other, next, MINUTE).await?;
    assert!(matches!(declared, Declared::Other(quiet) if quiet < MINUTE), "{declared:?}");
    assert_eq!(next_of(stage, "nightly").await?, Some(at));
    stage.pass(30).await?;
    let declared = store.declare(stream, &other, next, Duration::from_millis(20)).await?;
    assert_eq!(declared, Declared::Stored);
    assert_eq!(next_of(stage, "nightly").await?, Some(at + 1));
    let stored = schedule("nightly", "d3", ScheduleKind::Stored)?;
    let declared = store.declare(stream, &stored, next, Duration::ZERO).await?;
    assert_eq!(declared, Declared::OtherKind(ScheduleKind::Code), "kinds do not mix");
    Ok(())
}

/// The time is wrong if a request arrives late, or if a process has a wrong estimate of the
/// server's clock.
pub async fn what_was_computed_from_another_time_is_refused(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let now = stage.now().await?.0;
    let new = schedule("nightly", "d1", ScheduleKind::Stored)?;
    for from in [now - 61_000, now + 70_000].map(ServerTime) {
        let next = NextTime { at: now + 5, from };
        let declared = store.declare(stream, &new, next, Duration::ZERO).await?;
        let Declared::Stale(clock) = declared else { return Err("it is stale".into()) };
        assert!(clock.0 >= now);
    }
    assert_eq!(facts(stage, "nightly").await?, None);
    let next = NextTime { at: now + HOUR, from: ServerTime(now) };
    store.declare(stream, &new, next, Duration::ZERO).await?;
    assert!(store.pause_schedule(stream, &new.name).await?);
    let next = NextTime { at: now + HOUR, from: ServerTime(now - 61_000) };
    let resumed = store.resume_schedule(stream, &new.name, "d1", next).await?;
    assert!(matches!(resumed, Declared::Stale(_)), "{resumed:?}");
    Ok(())
}

/// The definition before may have fired it by then.
pub async fn a_next_time_that_has_passed_meanwhile_is_refused_where_it_would_count(
    stage: &Stage,
) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let from = stage.now().await?;
    let at = from.0 + 1;
    let [same, other] = ["d1", "d2"].map(|digest| schedule("nightly", digest, ScheduleKind::Code));
    let (same, other) = (same?, other?);
    let begun = NextTime { at, from: ServerTime(at) };
    assert_eq!(store.declare(stream, &same, begun, Duration::ZERO).await?, Declared::Stored);
    stage.pass(5).await?;
    let fired = fire(stage, vec![firing("nightly", &score(at), &[at], at + HOUR)?]).await?;
    assert!(matches!(fired[..], [Fired::Published(_)]), "{fired:?}");
    let next = NextTime { at, from };
    let declared = store.declare(stream, &other, next, Duration::ZERO).await?;
    assert!(matches!(declared, Declared::Stale(clock) if clock.0 > at), "{declared:?}");
    assert_eq!(store.declare(stream, &same, next, Duration::ZERO).await?, Declared::Same);
    assert_eq!(next_of(stage, "nightly").await?, Some(at + HOUR), "nothing was changed");
    assert!(store.pause_schedule(stream, &same.name).await?);
    let resumed = store.resume_schedule(stream, &same.name, "d1", next).await?;
    assert!(matches!(resumed, Declared::Stale(clock) if clock.0 > at), "{resumed:?}");
    assert_eq!(next_of(stage, "nightly").await?, None, "it is paused yet");
    Ok(())
}

/// In their order, each with the time at which it was due.
pub async fn a_firing_publishes_all_of_its_occurrences_and_moves_the_next_time(
    stage: &Stage,
) -> Case {
    let now = declare_due(stage, "nightly").await?;
    let looked = due(stage).await?;
    let [(named, expected)] = &looked.due[..] else { return Err("one is due".into()) };
    assert_eq!((named.as_str(), expected), ("nightly", &score(now)));
    let times = [now - 2, now - 1, now];
    let fired = fire(stage, vec![firing(named, expected, &times, now + HOUR)?]).await?;
    let [Fired::Published(ids)] = &fired[..] else { return Err(format!("{fired:?}").into()) };
    let entries = entries(stage).await?;
    assert_eq!(*ids, entries.iter().map(Entry::id).collect::<Vec<_>>());
    for (entry, at) in entries.iter().zip(times) {
        let mut expected = fields(&at.to_string());
        expected.push(("sj-due".into(), at.to_string().into()));
        assert_eq!(entry.fields(), expected);
    }
    let stored = facts(stage, "nightly").await?.ok_or("it is there")?;
    assert_eq!(stored.next, Some(score(now + HOUR)));
    let record = stored.record;
    assert_eq!((record.fired, record.missed, record.runs), (3, 2, 0));
    assert_eq!((record.last, record.last_entry), (Some(now), ids.last().copied()));
    assert_eq!(due(stage).await?.due, []);
    let stream = stage.queue.stream.schedule_log();
    let log = stage.store.range(&stream, Span { from: EntryId::ZERO, to: EntryId::MAX }, true, 10);
    let log = log.await?;
    let text = |name: &str| log.first().and_then(|line| line.text(name)).map(str::to_owned);
    let said = ["schedule", "due", "count", "missed", "by"].map(text);
    let due = now.to_string();
    assert_eq!(said, ["nightly", &due, "3", "2", "me"].map(|text| Some(text.to_owned())));
    Ok(())
}

/// Nothing is published then, and the next time stays.
pub async fn a_firing_is_refused_unless_time_definition_and_score_are_the_expected_ones(
    stage: &Stage,
) -> Case {
    let now = declare_due(stage, "nightly").await?;
    let next = now + HOUR;
    let refused = async |change: &dyn Fn(&mut Firing)| {
        let mut firing = firing("nightly", &score(now), &[now], next)?;
        change(&mut firing);
        let fired = fire(stage, vec![firing]).await?.pop();
        Ok::<_, BoxError>(fired.ok_or("an answer")?)
    };
    assert_eq!(refused(&|firing| firing.expected = score(now - 1)).await?, Fired::Moved);
    assert_eq!(refused(&|firing| firing.digest = "d2".to_owned()).await?, Fired::Changed);
    let missing = name("missing")?;
    assert_eq!(refused(&|firing| firing.name = missing.clone()).await?, Fired::Moved);
    stage.raw.place_schedule(&stage.queue.stream, "nightly", next);
    assert_eq!(refused(&|firing| firing.expected = score(next)).await?, Fired::Early);
    assert_eq!(next_of(stage, "nightly").await?, Some(next));
    assert_eq!(entries(stage).await?, []);
    assert_eq!(facts(stage, "nightly").await?.ok_or("it is there")?.record.fired, 0);
    Ok(())
}

/// A repetition after a lost answer also counts as the second.
pub async fn of_two_processes_that_fire_one_is_first(stage: &Stage) -> Case {
    let now = declare_due(stage, "nightly").await?;
    let firing = firing("nightly", &score(now), &[now], now + HOUR)?;
    let first = fire(stage, vec![firing.clone()]).await?;
    assert!(matches!(first[..], [Fired::Published(_)]));
    assert_eq!(fire(stage, vec![firing.clone(), firing]).await?, [Fired::Moved, Fired::Moved]);
    assert_eq!(entries(stage).await?.len(), 1);
    Ok(())
}

/// A refused firing does not concern the others.
pub async fn firings_of_one_call_have_an_answer_each(stage: &Stage) -> Case {
    let mut firings = Vec::new();
    for number in 0..120 {
        let text = format!("s{number:03}");
        let now = declare_due(stage, &text).await?;
        let expected = if number % 3 == 0 { now + 1 } else { now };
        firings.push(firing(&text, &score(expected), &[now], now + HOUR)?);
    }
    let fired = fire(stage, firings).await?;
    for (number, fired) in fired.iter().enumerate() {
        let is_refused = matches!(fired, Fired::Moved);
        assert_eq!(is_refused, number % 3 == 0, "{number}: {fired:?}");
    }
    assert_eq!((fired.len(), entries(stage).await?.len()), (120, 80));
    assert_eq!(due(stage).await?.due.len(), 40);
    Ok(())
}

/// Publishing applies the same retention.
pub async fn firings_publish_with_the_retention_of_appending(stage: &Stage) -> Case {
    let now = declare_due(stage, "nightly").await?;
    let two = Retention::MaxLenExact(NonZeroU64::MIN.saturating_add(1));
    let firing = firing("nightly", &score(now), &[now - 2, now - 1, now], now + HOUR)?;
    let fired = stage.store.fire(&stage.queue.stream, two, "me", vec![firing]).await;
    assert!(fired.iter().all(Result::is_ok), "{fired:?}");
    assert_eq!(stage.raw.length(stage.queue.stream.as_str()), 2);
    Ok(())
}

/// This holds whether it was due or not.
pub async fn a_paused_schedule_is_not_due_and_begins_anew_when_it_is_resumed(
    stage: &Stage,
) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let (now, nightly) = (declare_due(stage, "nightly").await?, name("nightly")?);
    let version = due(stage).await?.version;
    assert!(store.pause_schedule(stream, &nightly).await?);
    assert!(!store.pause_schedule(stream, &name("other")?).await?);
    let looked = due(stage).await?;
    assert_eq!((looked.due.len(), looked.count), (0, 0));
    assert!(looked.version > version);
    let paused = facts(stage, "nightly").await?.ok_or("it is there")?;
    assert!(paused.next.is_none() && paused.record.paused.is_some_and(|at| at >= now));
    let fired = fire(stage, vec![firing("nightly", &score(now), &[now], now + 1)?]).await?;
    assert_eq!(fired, [Fired::Moved]);
    stage.raw.place_schedule(stream, "nightly", now);
    let fired = fire(stage, vec![firing("nightly", &score(now), &[now], now + 1)?]).await?;
    assert_eq!(fired, [Fired::Paused], "another client has given it a time");
    assert!(store.pause_schedule(stream, &nightly).await?);
    assert_eq!(declare_at(stage, "nightly", "d2", now + 1).await?, Declared::Stored);
    assert_eq!(next_of(stage, "nightly").await?, None, "a new definition is paused as well");
    let next = NextTime { at: now + HOUR, from: stage.now().await? };
    let resumed = store.resume_schedule(stream, &nightly, "d1", next).await?;
    assert_eq!(resumed, Declared::Other(Duration::ZERO));
    let resumed = store.resume_schedule(stream, &nightly, "d2", next).await?;
    assert_eq!(resumed, Declared::Stored);
    let resumed = store.resume_schedule(stream, &nightly, "d2", next).await?;
    assert_eq!(resumed, Declared::Same, "it is not paused");
    assert_eq!(next_of(stage, "nightly").await?, Some(now + HOUR));
    Ok(())
}

/// This works while it is paused, too.
pub async fn a_run_by_hand_publishes_one_event_and_moves_nothing(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let at = stage.now().await?.0 + HOUR;
    declare_at(stage, "nightly", "d1", at).await?;
    let nightly = name("nightly")?;
    let run = async |digest: &str| {
        store.run_schedule(stream, Retention::Unlimited, &nightly, digest, fields("x")).await
    };
    let Ran::Published(entry) = run("d1").await? else { return Err("it runs".into()) };
    assert_eq!(run("d2").await?, Ran::Changed);
    assert_eq!(next_of(stage, "nightly").await?, Some(at));
    store.pause_schedule(stream, &nightly).await?;
    assert!(matches!(run("d1").await?, Ran::Published(_)));
    let entries = entries(stage).await?;
    assert_eq!((entries.len(), entries.first().map(Entry::id)), (2, Some(entry)));
    assert_eq!(entries.first().map(Entry::fields), Some(&*fields("x")));
    let record = facts(stage, "nightly").await?.ok_or("it is there")?.record;
    assert_eq!((record.runs, record.fired, record.last), (2, 0, None));
    Ok(())
}

/// A live process would declare a schedule of its code again.
pub async fn a_schedule_that_a_process_declares_cannot_be_removed_and_any_other_can(
    stage: &Stage,
) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let at = stage.now().await?.0 + HOUR;
    declare_at(stage, "code", "d1", at).await?;
    let stored = schedule("stored", "d1", ScheduleKind::Stored)?;
    let next = NextTime { at, from: stage.now().await? };
    store.declare(stream, &stored, next, Duration::ZERO).await?;
    assert_eq!(store.declare(stream, &stored, next, Duration::ZERO).await?, Declared::Same);
    let remove =
        async |text: &str| Ok::<_, BoxError>(store.remove_schedule(stream, &name(text)?).await?);
    assert_eq!(remove("code").await?, RemovedSchedule::Declared);
    assert_eq!(remove("stored").await?, RemovedSchedule::Removed);
    assert_eq!(remove("stored").await?, RemovedSchedule::Missing);
    assert_eq!(facts(stage, "stored").await?, None);
    assert_eq!(due(stage).await?.count, 1);
    Ok(())
}

/// Schedules that were stored at run time stay.
pub async fn schedules_that_no_process_declares_are_forgotten(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let at = stage.now().await?.0 + HOUR;
    declare_at(stage, "code", "d1", at).await?;
    let stored = schedule("stored", "d1", ScheduleKind::Stored)?;
    let next = NextTime { at, from: stage.now().await? };
    store.declare(stream, &stored, next, Duration::ZERO).await?;
    let names = ["code", "stored", "missing"].map(str::to_owned);
    assert_eq!(store.forget_schedules(stream, &names, MINUTE).await?, (0, 0));
    stage.pass(30).await?;
    let silence = Duration::from_millis(20);
    assert_eq!(store.forget_schedules(stream, &names, silence).await?, (1, 0));
    assert_eq!(facts(stage, "code").await?, None);
    assert!(facts(stage, "stored").await?.is_some());
    assert_eq!(due(stage).await?.count, 1);
    Ok(())
}

/// Another part was lost to an eviction.
pub async fn a_schedule_without_a_place_gets_it_back_and_a_place_without_a_schedule_goes(
    stage: &Stage,
) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let at = stage.now().await?.0 + HOUR;
    declare_at(stage, "nightly", "d1", at).await?;
    stage.raw.lose_schedule_places(stream);
    let declared = [(name("nightly")?, "d1".to_owned())];
    assert_eq!(store.mark_declared(stream, &declared).await?, [Mark::Unplaced]);
    let version = due(stage).await?.version;
    assert_eq!(declare_at(stage, "nightly", "d1", at + 7).await?, Declared::Same);
    assert_eq!(next_of(stage, "nightly").await?, Some(at + 7));
    assert!(due(stage).await?.version > version);
    stage.raw.lose_schedule_specs(stream);
    let names = ["nightly".to_owned()];
    assert_eq!(store.forget_schedules(stream, &names, MINUTE).await?, (0, 1));
    assert_eq!(due(stage).await?.count, 0);
    assert_eq!(store.mark_declared(stream, &declared).await?, [Mark::Missing]);
    Ok(())
}

/// An operator can remove it.
pub async fn a_definition_that_cannot_be_read_stays_and_stops_nothing_else(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let now = declare_due(stage, "bad").await?;
    stage.raw.garble_schedule(stream, "bad");
    declare_due(stage, "good").await?;
    assert_eq!(declare_at(stage, "bad", "d1", now).await?, Declared::Unreadable);
    let declared = [(name("bad")?, "d1".to_owned()), (name("good")?, "d1".to_owned())];
    let marks = store.mark_declared(stream, &declared).await?;
    assert_eq!(marks, [Mark::Unreadable, Mark::Same]);
    let looked = due(stage).await?;
    let mut firings = Vec::new();
    for (text, expected) in &looked.due {
        firings.push(firing(text, expected, &[now], now + HOUR)?);
    }
    firings.sort_by(|one, other| one.name.cmp(&other.name));
    let fired = fire(stage, firings).await?;
    assert!(matches!(fired[..], [Fired::Changed, Fired::Published(_)]), "{fired:?}");
    let names = ["bad".to_owned()];
    assert_eq!(store.forget_schedules(stream, &names, Duration::ZERO).await?, (0, 0));
    let bad = facts(stage, "bad").await?.ok_or("it stays")?;
    assert_eq!((bad.spec, bad.next), (None, Some(score(now))));
    let removed = store.remove_schedule(stream, &name("bad")?).await?;
    assert_eq!(removed, RemovedSchedule::Removed);
    Ok(())
}

/// Payloads are included if they are asked for.
pub async fn schedules_are_listed_in_pages_by_name(stage: &Stage) -> Case {
    let (store, stream) = (&stage.store, &stage.queue.stream);
    let at = stage.now().await?.0 + HOUR;
    for text in ["c", "a", "b", "e", "d"] {
        declare_at(stage, text, "d1", at).await?;
    }
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = store.schedules(stream, ListedSchedules::After(&after), 2, false).await?;
        assert!(page.schedules.len() <= 2 && page.version == due(stage).await?.version);
        for facts in &page.schedules {
            assert!(facts.spec.as_ref().is_some_and(|spec| spec.fields.is_empty()));
        }
        names.extend(page.schedules.into_iter().map(|facts| facts.name));
        after = names.last().cloned().unwrap_or_default();
        if !page.has_more {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    Ok(())
}
