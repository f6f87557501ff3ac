//! The places of a group's limit over all processes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::entry::{EntryId, Inlet};
use crate::model::limit::{CodeLimit, HoldRule, HoldScope};
use crate::runtime::observe::{QueueContext, QueueEvent};
use crate::runtime::state::{LaneSignal, PlaceSignal, ReaderUnblock, jittered, lock};
use crate::store::{HoldSweep, StoreError, SweepCursors};

/// Frees places when jobs end, and tells the reader which jobs can go on after that. A group without a limit has no
/// places to free.
#[derive(Debug)]
pub(crate) struct LimitPlaces {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) lane: Arc<LaneSignal>,
    pub(crate) unblock: Arc<ReaderUnblock>,
    pub(crate) freed: Arc<PlaceSignal>,
    /// When to check next for places whose job may be gone.
    pub(crate) next_sweep: Mutex<Instant>,
    /// The limits of another process that were reported last.
    pub(crate) reported: Mutex<Option<String>>,
    /// The limit that an operator has set for the option of this process, by the last answer.
    pub(crate) set: Mutex<Option<CodeLimit>>,
}

impl LimitPlaces {
    pub(crate) fn rule(&self) -> Option<HoldRule> {
        self.context.config.limit
    }

    /// Acknowledges the entries of finished jobs and frees their places. Returns how many entries were
    /// pending.
    pub(crate) async fn finish(
        &self,
        rule: HoldRule,
        acks: &[(Inlet, EntryId)],
    ) -> Result<usize, StoreError> {
        let finished = self.context.finish(rule, acks).await?;
        self.went_on(finished.fed).await;
        Ok(finished.acknowledged)
    }

    /// Frees the places of jobs that ended in another way, or that let other jobs pass. After an error, a
    /// sweep frees them.
    pub(crate) async fn give_back(&self, places: &[(Inlet, EntryId)]) {
        let Some(rule) = self.rule().filter(|_| !places.is_empty()) else { return };
        let context = &self.context;
        match context.store.finish(context.queue(), rule, places).await {
            Ok(finished) => self.went_on(finished.fed).await,
            Err(error) => context.report.store_failed("give a place in the limit back", &error),
        }
    }

    /// Frees places whose job is gone, once a lease. `parked` is how many jobs wait for a place: a group
    /// without a limit may still have some from an earlier limit. `set` is the limit that an operator has set: if it
    /// has changed, jobs of lines may go on now.
    pub(crate) async fn sweep(
        &self,
        parked: u64,
        set: Option<CodeLimit>,
    ) -> Result<(), StoreError> {
        let (now, rule) = (Instant::now(), self.rule());
        let is_changed = self.has_changed(set);
        if *lock(&self.next_sweep) > now && !is_changed || rule.is_none() && parked == 0 {
            return Ok(());
        }
        *lock(&self.next_sweep) = now + jittered(self.context.config.lease.max(SWEEP_MIN));
        let (mut cursors, mut ended, mut fed) = (SweepCursors::default(), 0, 0);
        let others = loop {
            let sweep = HoldSweep { rule, cursors };
            let swept = self.context.store.sweep_holds(self.context.queue(), sweep).await;
            // Otherwise jobs that a changed limit lets go on would wait for the next sweep.
            let swept = swept.inspect_err(|_| *lock(&self.next_sweep) = now + SWEEP_MIN)?;
            (cursors, ended, fed) = (swept.cursors, ended + swept.ended, fed + swept.fed);
            if cursors == SweepCursors::END {
                break swept.others;
            }
        };
        self.context.report.queue(QueueEvent::PlacesFreed(ended));
        self.compare(others.filter(|_| rule.is_some()));
        self.went_on(fed).await;
        Ok(())
    }

    /// Notes and reports the limit that an operator has set for the option of this process. Returns whether it has
    /// changed.
    fn has_changed(&self, set: Option<CodeLimit>) -> bool {
        let Some(code) = self.rule().and_then(CodeLimit::of) else { return false };
        let set = set.filter(|set| set.option == code.option);
        let before = std::mem::replace(&mut *lock(&self.set), set);
        if before != set {
            let (limit, in_code) = (set.unwrap_or(code).limit, code.limit);
            self.context.report.queue(QueueEvent::LimitChanged { limit, in_code });
        }
        before != set
    }

    /// Whether jobs wait in lines from which the reader takes: another process may have put them there.
    pub(crate) fn lines_wait(&self, parked: u64) -> bool {
        parked > 0 && self.rule().is_some_and(|rule| rule.scope == HoldScope::Share)
    }

    /// Reports a different limit of another process, once.
    fn compare(&self, others: Option<String>) {
        let mut reported = lock(&self.reported);
        if let Some(others) =
            others.as_deref().filter(|others| Some(*others) != reported.as_deref())
        {
            self.context.report.queue(QueueEvent::LimitsDiffer { others });
        }
        *reported = others;
    }

    /// Tells the reader that places are free, and that this many jobs are in the lane.
    async fn went_on(&self, fed: usize) {
        self.freed.note();
        if fed > 0 {
            self.lane.raise();
            self.unblock.unblock(self.context.store.as_ref(), self.context.config.block).await;
        }
    }
}

/// The shortest time between two sweeps. A sweep costs about as much as a hundred jobs, so groups with short leases
/// sweep less often than once a lease.
const SWEEP_MIN: Duration = Duration::from_secs(2);
