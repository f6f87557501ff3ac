//! The definitions of a stream's schedules, as this process has last read them.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::declarer::{Declarations, ELSEWHERE, UNREADABLE};
use crate::model::schedule::Schedule;
use crate::runtime::observe::{QueueContext, QueueEvent};
use crate::runtime::state::jittered;
use crate::store::schedules::{DECLARED_FOR, ScheduleFacts, StoredSpec};
use crate::store::{ScheduleKind, StoreError};

/// What this process knows of the schedules of one stream key.
#[derive(Debug, Default)]
pub(super) struct Known {
    version: Option<u64>,
    by_name: HashMap<String, Definition>,
    /// When to look for schedules that no process declares any more.
    audit: Option<Instant>,
}

/// A definition that is stored.
#[derive(Debug)]
pub(super) enum Definition {
    /// This process fires it.
    Fired { digest: String, schedule: Box<Schedule> },
    /// It does not, and this is why.
    Left(&'static str),
}

impl Known {
    pub(super) fn get(&self, name: &str) -> Option<&Definition> {
        self.by_name.get(name)
    }

    /// Reads the definitions, if they may have changed.
    pub(super) async fn refresh(
        &mut self,
        context: &QueueContext,
        declared: &Declarations,
        version: u64,
    ) -> Result<(), StoreError> {
        if self.version == Some(version) {
            return Ok(());
        }
        let mut by_name = HashMap::new();
        let (mut after, mut read) = (String::new(), None);
        loop {
            let stream = &context.queue().stream;
            let page = context.payload_store.schedules(stream, &after, PAGE_MAX, true).await?;
            context.report.answered();
            // The oldest: what has changed since is read again.
            read = read.or(Some(page.version));
            let last = page.schedules.last().map(|facts| facts.name.clone());
            for facts in page.schedules {
                let name = facts.name.clone();
                by_name.insert(name, definition(context, declared, facts));
            }
            match last.filter(|_| page.has_more) {
                Some(last) => after = last,
                None => break,
            }
        }
        (self.by_name, self.version) = (by_name, read);
        Ok(())
    }

    /// Now and then, counts the schedules that no living process declares, and has those forgotten that
    /// none has declared for long.
    pub(super) async fn audit(&mut self, context: &QueueContext) -> Result<(), StoreError> {
        let now = Instant::now();
        if self.audit.is_some_and(|audit| now < audit) {
            return Ok(());
        }
        let (stream, mut undeclared, mut names) = (&context.queue().stream, 0, Vec::new());
        let mut after = String::new();
        loop {
            let page = context.store.schedules(stream, &after, PAGE_MAX, false).await?;
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
            context.report.queue(QueueEvent::SchedulesForgotten(forgotten.0));
        }
        self.audit = Some(now + jittered(AUDIT_INTERVAL));
        Ok(())
    }
}

/// For how long no process has declared a schedule that is in code.
fn silence(facts: &ScheduleFacts, now: u64) -> Option<Duration> {
    let spec = facts.spec.as_ref().filter(|spec| spec.kind == ScheduleKind::Code);
    let declared = spec.map(|_| facts.record.declared.unwrap_or(facts.record.since));
    declared.map(|at| Duration::from_millis(now.saturating_sub(at)))
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
        (None, ScheduleKind::Code) => Definition::Left(ELSEWHERE),
        (None, ScheduleKind::Stored) => Definition::Left(UNREADABLE),
    }
}

const PAGE_MAX: usize = 500;
const AUDIT_INTERVAL: Duration = Duration::from_secs(600);
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 24 * 60 * 60);
