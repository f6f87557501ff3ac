//! The definitions of a stream's schedules, as this process has last read them.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::declarer::{Declarations, ELSEWHERE, UNREADABLE};
use crate::model::name::ScheduleName;
use crate::model::schedule::Schedule;
use crate::runtime::observe::{QueueContext, QueueEvent, ScheduleEvent};
use crate::runtime::state::jittered;
use crate::store::schedules::{DECLARED_FOR, ListedSchedules, ScheduleFacts, StoredSpec};
use crate::store::{
    Declared, DueSchedules, NewSchedule, NextTime, ScheduleKind, ServerTime, StoreError,
};

/// What this process knows about the schedules of one stream key.
#[derive(Debug, Default)]
pub(super) struct Known {
    version: Option<u64>,
    by_name: HashMap<String, Definition>,
    /// How many schedules should have a next time, including those that have lost it.
    placed: u64,
    /// When the definitions were last read.
    restored: Option<Instant>,
    /// When to check next for schedules that no process declares any more.
    audit: Option<Instant>,
}

/// A stored definition.
#[derive(Debug)]
pub(super) enum Definition {
    /// This process fires it.
    Fired { digest: String, schedule: Box<Schedule> },
    /// This process does not fire it, for this reason.
    Left(&'static str),
    /// It belongs to the code of other processes.
    Foreign,
}

impl Known {
    pub(super) fn get(&self, name: &str) -> Option<&Definition> {
        self.by_name.get(name)
    }

    /// Makes the definitions be read again.
    pub(super) fn forget(&mut self) {
        self.version = None;
    }

    /// Reads the definitions, if they may have changed.
    pub(super) async fn refresh(
        &mut self,
        context: &QueueContext,
        declared: &Declarations,
        looked: &DueSchedules,
    ) -> Result<(), StoreError> {
        let now = Instant::now();
        let is_short = looked.count < self.placed;
        let restores = is_short && self.restored.is_none_or(|at| now >= at + RESTORE_INTERVAL);
        if self.version == Some(looked.version) && !restores {
            return Ok(());
        }
        let (mut by_name, mut placed, mut unplaced) = (HashMap::new(), 0, Vec::new());
        let (mut after, mut read) = (String::new(), None);
        loop {
            let stream = &context.queue().stream;
            let page =
                context.payload_store.schedules(stream, from(&after), PAGE_MAX, true).await?;
            context.report.answered();
            // The version of the first page, so that anything that has changed since is read again.
            read = read.or(Some(page.version));
            let last = page.schedules.last().map(|facts| facts.name.clone());
            for facts in page.schedules {
                let name = facts.name.clone();
                placed += u64::from(facts.record.paused.is_none());
                unplaced.extend(unplaced_of(&facts));
                by_name.insert(name, definition(context, declared, facts));
            }
            match last.filter(|_| page.has_more) {
                Some(last) => after = last,
                None => break,
            }
        }
        (self.by_name, self.version, self.placed) = (by_name, read, placed);
        self.restored = Some(now);
        self.restore(context, unplaced, looked.now).await
    }

    /// Gives a next time to stored schedules that have lost theirs. Schedules of the code get it from
    /// their processes.
    async fn restore(
        &self,
        context: &QueueContext,
        unplaced: Vec<NewSchedule>,
        from: ServerTime,
    ) -> Result<(), StoreError> {
        for new in unplaced {
            let definition = self.by_name.get(new.name.as_str());
            let Some(Definition::Fired { schedule, .. }) = definition else { continue };
            let Ok(Some(at)) = schedule.next_after(from.0) else { continue };
            let (stream, next) = (&context.queue().stream, NextTime { at, from });
            let schedule = new.name.as_str();
            match context.payload_store.declare(stream, &new, next, Duration::MAX).await {
                Ok(Declared::Same | Declared::Stored) => {
                    let restored = ScheduleEvent::Restored { schedule };
                    context.report.queue(QueueEvent::Schedule(restored));
                }
                // It will be looked for again.
                Ok(_) => {}
                Err(error @ StoreError::Refused { .. }) => {
                    context.report.store_failed("restore a schedule", &error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Every now and then, counts the schedules that no live process declares, and forgets those that no process has
    /// declared for long.
    pub(super) async fn audit(&mut self, context: &QueueContext) -> Result<(), StoreError> {
        let now = Instant::now();
        if self.audit.is_some_and(|audit| now < audit) {
            return Ok(());
        }
        let (stream, mut undeclared, mut names) = (&context.queue().stream, 0, Vec::new());
        let mut after = String::new();
        loop {
            let page = context.store.schedules(stream, from(&after), PAGE_MAX, false).await?;
            for facts in &page.schedules {
                let silence = silence(facts, page.now.0);
                undeclared += u64::from(silence.is_some_and(|silence| silence >= DECLARED_FOR));
                if silence.is_some_and(|silence| silence >= FORGOTTEN_AFTER) {
                    names.push(facts.name.clone());
                }
            }
            match page.schedules.last().filter(|_| page.has_more) {
                Some(last) => after.clone_from(&last.name),
                None => break,
            }
        }
        context.report.metrics.seen.set_undeclared_schedules(undeclared);
        if !names.is_empty() {
            let forgotten = context.store.forget_schedules(stream, &names, FORGOTTEN_AFTER).await?;
            context.report.queue(QueueEvent::Schedule(ScheduleEvent::Forgotten(forgotten.0)));
        }
        self.audit = Some(now + jittered(AUDIT_INTERVAL));
        Ok(())
    }
}

fn from(after: &str) -> ListedSchedules<'_> {
    ListedSchedules::After(after)
}

/// How long no process has declared a schedule of the code.
fn silence(facts: &ScheduleFacts, now: u64) -> Option<Duration> {
    let spec = facts.spec.as_ref().filter(|spec| spec.kind == ScheduleKind::Code);
    let declared = spec.map(|_| facts.record.declared.unwrap_or(facts.record.since));
    declared.map(|at| Duration::from_millis(now.saturating_sub(at)))
}

/// A stored schedule that has no next time although it is not paused.
fn unplaced_of(facts: &ScheduleFacts) -> Option<NewSchedule> {
    let ScheduleFacts { name, next: None, spec: Some(spec), record } = facts else { return None };
    if spec.kind != ScheduleKind::Stored || record.paused.is_some() {
        return None;
    }
    let StoredSpec { digest, kind, about, fields, .. } = spec.clone();
    Some(NewSchedule { name: ScheduleName::new(name).ok()?, digest, kind, about, fields })
}

fn definition(context: &QueueContext, declared: &Declarations, facts: ScheduleFacts) -> Definition {
    let ScheduleFacts { name, spec, .. } = facts;
    let Some(StoredSpec { digest, kind, about, fields, .. }) = spec else {
        return Definition::Left(UNREADABLE);
    };
    let schedule = match kind {
        ScheduleKind::Code => declared.find(&name, &digest).cloned(),
        ScheduleKind::Stored => Schedule::read(&context.queue().stream, &name, &about, fields),
    };
    match (schedule, kind) {
        (Some(schedule), _) => Definition::Fired { digest, schedule: Box::new(schedule) },
        (None, ScheduleKind::Code) if declared.has(&name) => Definition::Left(ELSEWHERE),
        (None, ScheduleKind::Code) => Definition::Foreign,
        (None, ScheduleKind::Stored) => Definition::Left(UNREADABLE),
    }
}

/// How often to look for lost next times. Schedules that cannot be read or that no process declares
/// count as lost too, so the search may find nothing.
const RESTORE_INTERVAL: Duration = Duration::from_secs(30);
const PAGE_MAX: usize = 500;
const AUDIT_INTERVAL: Duration = Duration::from_secs(600);
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 24 * 60 * 60);
