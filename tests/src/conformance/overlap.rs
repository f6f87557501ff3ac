//! Schedules that skip an occurrence while the job of the last one has not ended.

use std::time::Duration;

use bytes::Bytes;
use streamjobs::__store::holds::{HoldRule, HoldScope};
use streamjobs::__store::schedules::{ListedSchedules, ScheduleName, ScheduleRecord};
use streamjobs::__store::{
    Declared, Delivery, Fired, Firing, Hold, Inlet, NewSchedule, NextTime, Occurrence,
    ScheduleKind, Score, StandIn,
};
use streamjobs::config::Retention;
use streamjobs::{EntryId, Fields};

use super::{BoxError, Case, Stage, fields};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! overlap_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, overlap:
            an_occurrence_is_skipped_until_the_job_of_the_last_one_is_done,
            an_occurrence_is_skipped_while_a_retry_waits_and_runs,
            an_occurrence_is_skipped_while_the_job_waits_in_a_line,
            a_dead_letter_ends_a_job,
            a_job_that_is_gone_skips_nothing,
            of_several_occurrences_at_once_the_first_is_published,
        }
    };
}

/// A schedule of seconds in the past: after each firing, the next occurrence is due at once.
struct Timer<'a> {
    stage: &'a Stage,
    at: u64,
}

impl<'a> Timer<'a> {
    async fn new(stage: &'a Stage) -> Result<Self, BoxError> {
        let from = stage.now().await?;
        let schedule = NewSchedule {
            name: ScheduleName::new("often")?,
            digest: "d1".to_owned(),
            kind: ScheduleKind::Code,
            about: "{}".to_owned(),
            fields: Vec::new(),
        };
        let at = from.0 - 1_000_000;
        let next = NextTime { at, from };
        let stream = &stage.queue.stream;
        let declared = stage.store.declare(stream, &schedule, next, Duration::ZERO).await?;
        assert_eq!(declared, Declared::Stored);
        Ok(Self { stage, at })
    }

    /// Fires this many occurrences. Returns the entries that were published, and how many were
    /// skipped.
    async fn fire(&mut self, count: u64) -> Result<(Vec<EntryId>, u64), BoxError> {
        let (at, next) = (self.at, self.at + count * 1_000);
        let occurrence = |number: u64| {
            let mut fields = fields(&number.to_string());
            fields.push((Bytes::from_static(b"sj-key"), Bytes::from_static(b"k")));
            Occurrence { due: at + number * 1_000, fields }
        };
        let firing = Firing {
            name: ScheduleName::new("often")?,
            expected: Score { text: at.to_string(), at },
            digest: "d1".to_owned(),
            next,
            occurrences: (0..count).map(occurrence).collect(),
            missed: 0,
            busy: Some(self.stage.queue.group.clone()),
        };
        self.at = next;
        let (stream, firings) = (&self.stage.queue.stream, vec![firing]);
        let answers = self.stage.store.fire(stream, Retention::Unlimited, "me", firings).await;
        match answers.into_iter().next().ok_or("an answer")?? {
            Fired::Published(entries) => Ok((entries, 0)),
            Fired::Skipped { published, skipped } => Ok((published, skipped)),
            other => Err(format!("{other:?}").into()),
        }
    }

    async fn publishes(&mut self) -> Result<EntryId, BoxError> {
        let (entries, skipped) = self.fire(1).await?;
        assert_eq!((entries.len(), skipped), (1, 0), "the last one has ended");
        Ok(*entries.first().ok_or("an entry")?)
    }

    async fn skips(&mut self, why: &str) -> Case {
        let before = self.record().await?;
        let (entries, skipped) = self.fire(1).await?;
        assert_eq!((entries.len(), skipped), (0, 1), "{why}");
        let after = self.record().await?;
        let counted = ScheduleRecord { skipped: before.skipped + 1, ..before };
        assert_eq!(after, counted, "{why}");
        Ok(())
    }

    async fn record(&self) -> Result<ScheduleRecord, BoxError> {
        let (stream, only) = (&self.stage.queue.stream, ListedSchedules::Only("often"));
        let page = self.stage.store.schedules(stream, only, 1, false).await?;
        let facts = page.schedules.into_iter().next().ok_or("the schedule")?;
        assert_eq!(facts.next.map(|score| score.at), Some(self.at), "the next time is set");
        Ok(facts.record)
    }
}

async fn read_one(stage: &Stage, inlet: Inlet) -> Result<Delivery, BoxError> {
    stage.read(&stage.me, inlet, 1).await?.pop().ok_or_else(|| "nothing was delivered".into())
}

async fn acknowledge(stage: &Stage, of: Hold) -> Case {
    stage.store.acknowledge(&stage.queue, &[(of.inlet, of.id)]).await?;
    Ok(())
}

/// The job of an entry in the form of a retry.
fn again(origin: EntryId) -> Fields {
    let mut job = fields("again");
    job.push((Bytes::from_static(b"sj-origin"), origin.to_string().into()));
    job
}

async fn retry(stage: &Stage, of: Hold, job: &Fields) -> Case {
    let (queue, me) = (&stage.queue, &stage.me);
    stage.store.schedule_retry(queue, me, of, None::<StandIn>, Duration::ZERO, job).await?;
    Ok(())
}

async fn promote(stage: &Stage) -> Case {
    stage.pass(1).await?;
    assert_eq!(stage.store.promote(&stage.queue, &stage.me, 100).await?.promoted, 1);
    Ok(())
}

/// First the job waits, then it runs.
pub async fn an_occurrence_is_skipped_until_the_job_of_the_last_one_is_done(stage: &Stage) -> Case {
    let mut timer = Timer::new(stage).await?;
    for _ in 0..2 {
        let entry = timer.publishes().await?;
        timer.skips("it waits to be read").await?;
        let job = read_one(stage, Inlet::STREAM).await?;
        assert_eq!(job.entry.id(), entry);
        timer.skips("it runs").await?;
        acknowledge(stage, job.hold()).await?;
    }
    timer.publishes().await?;
    let record = timer.record().await?;
    assert_eq!((record.fired, record.skipped, record.missed), (3, 4, 0));
    Ok(())
}

/// There are two retries, each with another entry.
pub async fn an_occurrence_is_skipped_while_a_retry_waits_and_runs(stage: &Stage) -> Case {
    let mut timer = Timer::new(stage).await?;
    let entry = timer.publishes().await?;
    let mut job = read_one(stage, Inlet::STREAM).await?;
    for _ in 0..2 {
        retry(stage, job.hold(), &again(entry)).await?;
        timer.skips("its retry waits").await?;
        promote(stage).await?;
        timer.skips("its retry is in the lane").await?;
        job = read_one(stage, Inlet::LANE).await?;
        timer.skips("its retry runs").await?;
    }
    acknowledge(stage, job.hold()).await?;
    timer.publishes().await?;
    Ok(())
}

/// It waits behind another job of its key.
pub async fn an_occurrence_is_skipped_while_the_job_waits_in_a_line(stage: &Stage) -> Case {
    let limit = std::num::NonZeroU32::MIN;
    let rule = HoldRule { scope: HoldScope::Key, limit, blocks: true, is_order: true };
    let take =
        async |inlet: Inlet| stage.store.take(&stage.queue, &stage.me, inlet, 100, rule).await;
    let mut other = fields("other");
    other.push((Bytes::from_static(b"sj-key"), Bytes::from_static(b"k")));
    let stream = &stage.queue.stream;
    super::append(stage.store.as_ref(), stream, Retention::Unlimited, vec![other]).await;
    let mut timer = Timer::new(stage).await?;
    timer.publishes().await?;
    let first = take(Inlet::STREAM).await?;
    assert_eq!(first.deliveries.len(), 1, "the other is in the line");
    timer.skips("it waits in the line").await?;
    let entries = first.deliveries.iter().map(|job| (job.inlet, job.entry.id()));
    stage.store.finish(&stage.queue, rule, &entries.collect::<Vec<_>>()).await?;
    timer.skips("it is in the lane").await?;
    let second = take(Inlet::LANE).await?;
    let entries = second.deliveries.iter().map(|job| (job.inlet, job.entry.id()));
    stage.store.finish(&stage.queue, rule, &entries.collect::<Vec<_>>()).await?;
    timer.publishes().await?;
    Ok(())
}

/// A dead letter waits for a person, and no occurrence waits for that.
pub async fn a_dead_letter_ends_a_job(stage: &Stage) -> Case {
    let mut timer = Timer::new(stage).await?;
    timer.publishes().await?;
    let job = read_one(stage, Inlet::STREAM).await?;
    let (queue, me, letter) = (&stage.queue, &stage.me, fields("dead"));
    stage.store.store_dead_letter(queue, me, job.hold(), None, &letter).await?;
    timer.publishes().await?;
    timer.skips("the next one waits").await
}

/// However the job ended, no occurrence waits for it.
pub async fn a_job_that_is_gone_skips_nothing(stage: &Stage) -> Case {
    let (stream, group) = (stage.queue.stream.as_str(), stage.queue.group.as_str());
    let mut timer = Timer::new(stage).await?;
    let waiting = timer.publishes().await?;
    stage.raw.delete(stream, waiting);
    let running = timer.publishes().await?;
    let job = read_one(stage, Inlet::STREAM).await?;
    assert_eq!(job.entry.id(), running);
    stage.raw.delete(stream, running);
    timer.publishes().await?;
    timer.skips("it waits to be read").await?;
    stage.raw.destroy_group(stream, group);
    timer.publishes().await?;
    timer.publishes().await?;
    Ok(())
}

/// The other occurrences would run at the same time.
pub async fn of_several_occurrences_at_once_the_first_is_published(stage: &Stage) -> Case {
    let mut timer = Timer::new(stage).await?;
    let (entries, skipped) = timer.fire(4).await?;
    assert_eq!((entries.len(), skipped), (1, 3));
    let (entries, skipped) = timer.fire(2).await?;
    assert_eq!((entries.len(), skipped), (0, 2));
    let record = timer.record().await?;
    assert_eq!((record.fired, record.skipped, record.last), (1, 5, Some(timer.at - 6_000)));
    Ok(())
}
