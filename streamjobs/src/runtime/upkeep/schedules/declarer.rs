//! Declares the schedules of the code: at the start, and from time to time afterwards.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::name::ScheduleName;
use crate::model::schedule::{Schedule, StoredContent};
use crate::runtime::observe::{QueueContext, QueueEvent, ScheduleEvent};
use crate::runtime::state::{jittered, lock};
use crate::store::schedules::DECLARED_FOR;
use crate::store::{Declared, Mark, NewSchedule, NextTime, ScheduleKind, ServerTime, StoreError};

/// The schedules that the code of this process has for one stream key. All consumers of the stream share
/// them, because the process starts once.
#[derive(Debug, Default)]
pub(crate) struct Declarations {
    schedules: Vec<(Schedule, NewSchedule)>,
    /// The schedules that have not been declared since the start.
    starting: Mutex<HashSet<ScheduleName>>,
    /// What was logged.
    told: Mutex<HashSet<(String, &'static str)>>,
    next: Mutex<Option<Instant>>,
}

impl Declarations {
    pub(crate) fn new(schedules: Vec<Schedule>) -> Self {
        let starting = schedules.iter().map(|schedule| schedule.name().clone()).collect();
        let schedules = schedules.into_iter().map(|schedule| {
            let new = new_schedule(&schedule, ScheduleKind::Code);
            (schedule, new)
        });
        Self { schedules: schedules.collect(), starting: Mutex::new(starting), ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.schedules.is_empty()
    }

    /// The schedule of this name and definition.
    pub(super) fn find(&self, name: &str, digest: &str) -> Option<&Schedule> {
        let is_it =
            |(_, new): &&(Schedule, NewSchedule)| new.name.as_str() == name && new.digest == digest;
        self.schedules.iter().find(is_it).map(|(schedule, _)| schedule)
    }

    /// Whether the code has a schedule of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.schedules.iter().any(|(_, new)| new.name.as_str() == name)
    }

    /// Whether to log this, because it was not logged before.
    pub(super) fn tells(&self, name: &str, why: &'static str) -> bool {
        let mut told = lock(&self.told);
        // Names that another client stores must not fill the memory.
        told.len() < TOLD_MAX && told.insert((name.to_owned(), why))
    }

    /// Forgets what was logged about this schedule, so that it is logged again.
    fn forget(&self, name: &str) {
        lock(&self.told).retain(|(told, _)| told != name);
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.is_empty() && lock(&self.next).is_none_or(|next| next <= now)
    }

    /// Declares all schedules of the code, at this time of the server's clock. The next declaration follows after
    /// about a minute.
    pub(super) async fn declare(
        &self,
        context: &QueueContext,
        now: ServerTime,
    ) -> Result<(), StoreError> {
        let (stream, begun) = (&context.queue().stream, Instant::now());
        let names = self.schedules.iter().map(|(_, new)| (new.name.clone(), new.digest.clone()));
        let names = names.collect::<Vec<_>>();
        let marks = match context.store.mark_declared(stream, &names).await {
            Err(error @ StoreError::Refused { .. }) => {
                // Schedules that are declared already continue to fire.
                context.report.store_failed(DECLARE, &error);
                *lock(&self.next) = Some(Instant::now() + jittered(REFUSED_INTERVAL));
                return Ok(());
            }
            marks => marks?,
        };
        context.report.answered();
        for ((schedule, new), mark) in self.schedules.iter().zip(marks) {
            let is_starting = lock(&self.starting).contains(&new.name);
            let is_mine = match mark {
                Mark::Same => false,
                Mark::Unplaced | Mark::Missing => true,
                Mark::Other(silent) => is_starting || silent >= DECLARED_FOR,
                Mark::OtherKind(_) | Mark::Unreadable => false,
            };
            if let (false, Some(why)) = (is_mine, obstacle(mark)) {
                self.tell(context, &new.name, why);
            }
            if is_mine {
                let now = ServerTime(now.0.saturating_add(wide(begun.elapsed())));
                let silence = if is_starting { Duration::ZERO } else { DECLARED_FOR };
                match self.declare_one(context, (schedule, new), now, silence).await {
                    Ok(()) => {}
                    Err(error @ StoreError::Refused { .. }) => {
                        context.report.store_failed(DECLARE, &error);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            lock(&self.starting).remove(&new.name);
        }
        *lock(&self.next) = Some(Instant::now() + jittered(INTERVAL));
        Ok(())
    }

    async fn declare_one(
        &self,
        context: &QueueContext,
        (schedule, new): (&Schedule, &NewSchedule),
        now: ServerTime,
        silence: Duration,
    ) -> Result<(), StoreError> {
        let stream = &context.queue().stream;
        let mut from = now;
        for _ in 0..TRIES {
            let Ok(Some(at)) = schedule.next_after(from.0) else {
                self.tell(context, &new.name, NO_NEXT);
                return Ok(());
            };
            let next = NextTime { at, from };
            let declared = context.payload_store.declare(stream, new, next, silence).await?;
            let why = match declared {
                Declared::Same => return Ok(()),
                Declared::Stored => {
                    self.forget(new.name.as_str());
                    let (schedule, when) = (new.name.as_str(), &*schedule.in_words());
                    context
                        .report
                        .queue(QueueEvent::Schedule(ScheduleEvent::Declared { schedule, when }));
                    return Ok(());
                }
                Declared::Stale(clock) => {
                    from = clock;
                    continue;
                }
                Declared::Other(_) => ELSEWHERE,
                Declared::OtherKind(_) => NAME_TAKEN,
                Declared::Unreadable => UNREADABLE,
                Declared::Full => FULL,
            };
            self.tell(context, &new.name, why);
            return Ok(());
        }
        Ok(())
    }

    fn tell(&self, context: &QueueContext, name: &ScheduleName, why: &'static str) {
        if self.tells(name.as_str(), why) {
            let schedule = name.as_str();
            context.report.queue(QueueEvent::Schedule(ScheduleEvent::NotFired { schedule, why }));
        }
    }
}

/// A schedule in the form that stores take.
pub(crate) fn new_schedule(schedule: &Schedule, kind: ScheduleKind) -> NewSchedule {
    let StoredContent { digest, about, fields } = schedule.stored();
    NewSchedule { name: schedule.name().clone(), digest, kind, about, fields }
}

fn obstacle(mark: Mark) -> Option<&'static str> {
    match mark {
        Mark::Other(_) => Some(ELSEWHERE),
        Mark::OtherKind(_) => Some(NAME_TAKEN),
        Mark::Unreadable => Some(UNREADABLE),
        Mark::Same | Mark::Unplaced | Mark::Missing => None,
    }
}

fn wide(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) const ELSEWHERE: &str = "a process that started later declares it differently";
const NAME_TAKEN: &str = "a schedule that was stored at run time has its name";
pub(super) const UNREADABLE: &str = "its stored definition cannot be read";
pub(super) const NO_NEXT: &str = "its next time cannot be computed";
const FULL: &str = "the stream has too many schedules";
const DECLARE: &str = "declare schedules";
/// The time between two declarations. Ten such intervals pass before another process takes over.
const INTERVAL: Duration = Duration::from_secs(60);
/// The interval after a refusal.
const REFUSED_INTERVAL: Duration = Duration::from_secs(10);
const TRIES: usize = 3;
const TOLD_MAX: usize = 10_000;
