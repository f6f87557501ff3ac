//! Fires schedules when they are due.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::declarer::{Declarations, NO_NEXT};
use super::known::{Definition, Known};
use super::planned::{bytes_of, firing};
use crate::model::config::Retention;
use crate::model::entry::EntryId;
use crate::model::name::StreamName;
use crate::runtime::observe::{QueueContext, QueueEvent, ScheduleEvent};
use crate::runtime::state::{
    Beat, COALESCE, LoopBackoff, ScheduleUse, stopped_before, stopped_within,
};
use crate::store::{DueSchedules, Fired, Firing, Score, ServerTime, StoreError};

/// The firing loop of one queue. Only one queue of a stream in this process works at a time. Every
/// process fires, and the script accepts the first firing.
#[derive(Debug)]
pub(crate) struct Firer {
    pub(crate) context: Arc<QueueContext>,
    /// The retention to apply when events are published.
    pub(crate) retention: Retention,
    pub(crate) usage: Arc<ScheduleUse>,
    pub(crate) beat: Beat,
    pub(crate) declared: Arc<Declarations>,
}

/// What the loop also knows.
#[derive(Debug, Default)]
struct Memory {
    known: Known,
    /// Schedules whose next time cannot be computed, or that the server refused to fire, and until when to leave them
    /// alone.
    postponed: HashMap<Place, Instant>,
}

/// A schedule at one of its times: its name, and its score as the server prints it.
type Place = (String, String);

impl Memory {
    fn postpone(&mut self, place: Place, pause: Duration) {
        self.postponed.retain(|(name, _), _| *name != place.0);
        self.postponed.insert(place, Instant::now() + pause);
    }
}

/// What one round has done.
#[derive(Debug, Default)]
struct Progress {
    /// Schedules that got a new next time, from this process or another one.
    moved: usize,
    /// Whether a definition differed from the one that this process has read.
    changed: bool,
    /// The schedules that the server refused to fire, with the reason.
    refused: Vec<(Place, StoreError)>,
}

impl Firer {
    /// Fires due schedules every half second, or when the next one is due, until the stop. If its code
    /// has no schedules, it sends nothing until promoters report that the stream has some.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (usage, mut turn) = (Arc::clone(&self.usage), None);
        if stopped_before(&stop, async { turn = usage.turn().await }).await {
            return;
        }
        let (mut memory, mut backoff) = (Memory::default(), LoopBackoff::new());
        loop {
            if self.declared.is_empty()
                && !usage.is_used()
                && stopped_before(&stop, usage.begun_or_unheard()).await
            {
                break;
            }
            let delay = match self.round(&mut memory).await {
                Ok(delay) => {
                    backoff.reset();
                    delay
                }
                Err(error) => {
                    self.context.report.store_failed("fire schedules", &error);
                    backoff.wait(&stop).await;
                    Duration::ZERO
                }
            };
            if stopped_within(&stop, delay).await {
                break;
            }
        }
        drop(turn);
    }

    /// Checks for due schedules and fires them. Returns how long until the next check.
    async fn round(&self, memory: &mut Memory) -> Result<Duration, StoreError> {
        let (store, report) = (&self.context.store, &self.context.report);
        let mut looked = store.due_schedules(self.stream(), 0).await?;
        report.answered();
        self.usage.heard(Instant::now(), looked.used);
        if self.declared.is_due(Instant::now()) {
            self.declared.declare(&self.context, looked.now).await?;
            looked = store.due_schedules(self.stream(), 0).await?;
        }
        let (mut skipped, mut all) = (0, Progress::default());
        loop {
            memory.known.refresh(&self.context, &self.declared, &looked).await?;
            let before = all.moved;
            self.fire_due(memory, &looked, &mut all).await?;
            if !looked.has_more {
                break;
            }
            // Later schedules have moved to the places of those that were fired.
            skipped += looked.due.len().saturating_sub(all.moved - before);
            looked = store.due_schedules(self.stream(), skipped).await?;
        }
        memory.known.audit(&self.context).await?;
        if all.changed {
            memory.known.forget();
        }
        for (place, error) in all.refused {
            report.store_failed("fire schedules", &error);
            memory.postpone(place, REFUSED_FOR);
        }
        let look = self.beat.until_look(Instant::now());
        // This process or another one has set new times, which may be soon.
        let next = if all.moved > 0 { Some(AFTER_FIRING) } else { looked.next_due };
        Ok(next.map_or(look, |due| due.max(COALESCE).min(look)))
    }

    /// Fires those schedules of a page that this process may fire.
    async fn fire_due(
        &self,
        memory: &mut Memory,
        looked: &DueSchedules,
        all: &mut Progress,
    ) -> Result<(), StoreError> {
        let (mut firings, mut bytes) = (Vec::new(), 0);
        let mut unknown = Vec::new();
        for (name, expected) in &looked.due {
            match memory.known.get(name) {
                None => unknown.push(name.clone()),
                Some(Definition::Left(why)) => self.tell(name, why),
                Some(Definition::Foreign) => {}
                Some(Definition::Fired { .. }) => {
                    let Some(firing) = self.firing(memory, name, expected, looked.now).await else {
                        continue;
                    };
                    bytes += bytes_of(&firing);
                    firings.push(firing);
                }
            }
            if bytes >= BYTES_MAX || firings.len() >= FIRINGS_MAX {
                self.fire(std::mem::take(&mut firings), all).await?;
                bytes = 0;
            }
        }
        self.fire(firings, all).await?;
        if !unknown.is_empty() {
            let lost = self.context.store.forget_schedules(self.stream(), &unknown, Duration::MAX);
            self.context.report.queue(QueueEvent::Schedule(ScheduleEvent::Lost(lost.await?.1)));
        }
        Ok(())
    }

    /// The firing of one schedule; `None` if its next time cannot be computed. In that case it is tried again in an
    /// hour, and its time is not moved.
    async fn firing(
        &self,
        memory: &mut Memory,
        name: &str,
        expected: &Score,
        now: ServerTime,
    ) -> Option<Firing> {
        let Some(Definition::Fired { digest, schedule }) = memory.known.get(name) else {
            return None;
        };
        let place = (name.to_owned(), expected.text.clone());
        if memory.postponed.get(&place).is_some_and(|until| Instant::now() < *until) {
            return None;
        }
        let whole = &self.context.whole;
        match firing(whole, schedule, digest, expected.clone(), now).await {
            Ok(firing) => Some(firing),
            Err(_) => {
                self.tell(name, NO_NEXT);
                memory.postpone(place, POSTPONED_FOR);
                None
            }
        }
    }

    /// Fires schedules. A refusal of one schedule does not affect the others: only an error of the connection ends
    /// the round at once.
    async fn fire(&self, firings: Vec<Firing>, all: &mut Progress) -> Result<(), StoreError> {
        if firings.is_empty() {
            return Ok(());
        }
        let sent = firings.iter().map(|firing| {
            let due = firing.occurrences.iter().map(|occurrence| occurrence.due);
            let place = (firing.name.as_str().to_owned(), firing.expected.text.clone());
            (place, firing.missed, due.collect::<Vec<_>>())
        });
        let sent = sent.collect::<Vec<_>>();
        let (store, by) = (&self.context.payload_store, self.context.consumer().as_str());
        let answers = store.fire(self.stream(), self.retention, by, firings).await;
        let mut broke = None;
        for (answer, (place, missed, due)) in answers.into_iter().zip(sent) {
            match answer {
                Ok(Fired::Published(entries)) => {
                    all.moved += 1;
                    self.fired(&entries, &due, (missed, 0));
                }
                Ok(Fired::Skipped { published, skipped }) => {
                    all.moved += 1;
                    self.fired(&published, &due, (missed, skipped));
                }
                Ok(Fired::Moved) => all.moved += 1,
                Ok(Fired::Changed) => all.changed = true,
                Ok(Fired::Paused | Fired::Early) => {}
                Err(error @ StoreError::Refused { .. }) => all.refused.push((place, error)),
                Err(error) => broke = Some(error),
            }
        }
        broke.map_or(Ok(()), Err)
    }

    fn fired(&self, entries: &[EntryId], due: &[u64], (missed, skipped): (u64, u64)) {
        let report = &self.context.report;
        report.answered();
        for (entry, due) in entries.iter().zip(due) {
            let late = entry.milliseconds().saturating_sub(*due);
            report.metrics.firing_lateness.record(Duration::from_millis(late));
        }
        report.queue(QueueEvent::Schedule(ScheduleEvent::Fired(entries.len())));
        report.queue(QueueEvent::Schedule(ScheduleEvent::Missed(missed)));
        report.queue(QueueEvent::Schedule(ScheduleEvent::Skipped(skipped)));
    }

    fn tell(&self, name: &str, why: &'static str) {
        if self.declared.tells(name, why) {
            let event = QueueEvent::Schedule(ScheduleEvent::NotFired { schedule: name, why });
            self.context.report.queue(event);
        }
    }

    fn stream(&self) -> &StreamName {
        &self.context.queue().stream
    }
}

/// How soon to check again after a firing. This limits how often this process checks if other processes always fire
/// first.
const AFTER_FIRING: Duration = Duration::from_millis(20);
/// How many bytes are sent at once.
const BYTES_MAX: usize = 1024 * 1024;
const FIRINGS_MAX: usize = 50;
const POSTPONED_FOR: Duration = Duration::from_secs(3_600);
/// How long a schedule waits that the server refused to fire. The other schedules do not wait.
const REFUSED_FOR: Duration = Duration::from_secs(1);
