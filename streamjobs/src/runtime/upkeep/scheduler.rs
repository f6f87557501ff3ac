//! Moves scheduled events to their stream when they are due.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::config::Retention;
use crate::model::name::StreamName;
use crate::runtime::observe::{QueueContext, QueueEvent};
use crate::runtime::state::{
    Beat, COALESCE, LoopBackoff, ScheduleUse, lock, stopped_before, stopped_within,
};
use crate::store::{Entered, StoreError, Upcoming};

/// The scheduling loop of one queue. Only one queue of a stream in this process works at a time: scheduled
/// events belong to the stream, and no pause of a group stops it.
#[derive(Debug)]
pub(crate) struct Scheduler {
    pub(crate) context: Arc<QueueContext>,
    /// The retention to apply when events enter.
    pub(crate) retention: Retention,
    pub(crate) usage: Arc<ScheduleUse>,
    pub(crate) beat: Beat,
    pub(crate) waiting: Arc<WaitingCounts>,
    /// Where the last call ended its search for events that lost their place.
    pub(crate) cursor: u64,
}

/// How many events wait in each partition of a stream, as this process last saw it.
#[derive(Debug, Default)]
pub(crate) struct WaitingCounts {
    by_partition: Mutex<HashMap<StreamName, u64>>,
}

impl WaitingCounts {
    /// Takes the count of one partition. Returns the count of all.
    fn take(&self, partition: &StreamName, waiting: u64) -> u64 {
        let mut counts = lock(&self.by_partition);
        match counts.get_mut(partition) {
            Some(count) => *count = waiting,
            None => drop(counts.insert(partition.clone(), waiting)),
        }
        counts.values().sum()
    }
}

/// What the loop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Checks what waits, at the common beat.
    Look,
    /// Moves due events, after this delay.
    Enter(Duration),
}

impl Scheduler {
    /// Moves due events every half second, or when the next one is due, until the stop. As long as no event was ever
    /// scheduled to the stream, the loop asks nothing, and promoters report the first event.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let (usage, mut turn) = (Arc::clone(&self.usage), None);
        if stopped_before(&stop, async { turn = usage.turn().await }).await {
            return;
        }
        let mut backoff = LoopBackoff::new();
        let mut next = Next::Look;
        loop {
            next = match self.round(next).await {
                Ok(next) => {
                    backoff.reset();
                    next
                }
                Err(error) => {
                    self.context.report.store_failed("enter scheduled events", &error);
                    backoff.wait(&stop).await;
                    Next::Look
                }
            };
            let now = Instant::now();
            let is_stopped = match next {
                Next::Enter(delay) => stopped_within(&stop, delay).await,
                Next::Look if usage.is_used() => {
                    stopped_within(&stop, self.beat.until_look(now)).await
                }
                Next::Look => stopped_before(&stop, usage.begun_or_unheard()).await,
            };
            if is_stopped {
                break;
            }
        }
        drop(turn);
    }

    async fn round(&mut self, step: Next) -> Result<Next, StoreError> {
        if step == Next::Look {
            let ahead = self.context.store.look_ahead(self.stream()).await?;
            self.context.report.answered();
            if ahead.next_due != Some(Duration::ZERO) && ahead.misplaced == 0 {
                return Ok(self.after(&ahead));
            }
        }
        let (upcoming, has_more) = self.enter().await?;
        let next = self.after(&upcoming);
        Ok(if has_more { Next::Enter(Duration::ZERO) } else { next })
    }

    /// Takes what was seen. Returns what to do next unless more events are due.
    fn after(&self, upcoming: &Upcoming) -> Next {
        self.see(upcoming);
        let look = self.beat.until_look(Instant::now());
        match upcoming.next_due {
            Some(due) if due < look => Next::Enter(due.max(COALESCE)),
            _ => Next::Look,
        }
    }

    /// Moves one page of due events. Returns what waits, and whether more events are due. If so, the next page
    /// follows at once; requests of other clients get their turn between two pages.
    async fn enter(&mut self) -> Result<(Upcoming, bool), StoreError> {
        let (report, stream) = (&self.context.report, self.stream());
        let store = &self.context.payload_store;
        let entered = store.enter(stream, self.retention, PAGE_MAX, self.cursor).await?;
        report.answered();
        let Entered { lateness, lost, restored, stranded, has_more, cursor, upcoming } = entered;
        for late in &lateness {
            report.metrics.scheduled_lateness.record(*late);
        }
        report.queue(QueueEvent::ScheduledEntered(lateness.len()));
        report.queue(QueueEvent::ScheduledLost(lost));
        report.queue(QueueEvent::ScheduledRestored(restored));
        report.schedule_stranded(stranded);
        self.cursor = cursor;
        Ok((upcoming, has_more))
    }

    fn see(&self, upcoming: &Upcoming) {
        self.usage.heard(Instant::now(), upcoming.used);
        let all = self.waiting.take(self.stream(), upcoming.waiting);
        let metrics = &self.context.report.metrics;
        let shown = if metrics.of_partition { upcoming.waiting } else { all };
        metrics.seen.set_scheduled(shown);
    }

    fn stream(&self) -> &StreamName {
        &self.context.queue().stream
    }
}

/// How many events one script moves.
const PAGE_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_partitions_add_up() {
        let counts = WaitingCounts::default();
        let [one, two] = ["orders", "orders:p1:{1801}"].map(|name| StreamName::new(name).unwrap());
        assert_eq!(counts.take(&one, 3), 3);
        assert_eq!(counts.take(&two, 4), 7);
        assert_eq!(counts.take(&one, 0), 4);
    }
}
