//! Finds idle entries of consumers that are not heard of, and claims them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::model::entry::{EntryId, Inlet};
use crate::model::fail_point::FailPoint;
use crate::model::mutant::Mutant;
use crate::runtime::consumer::queue::{Assignment, QueueContext};
use crate::runtime::state::slots::Slot;
use crate::runtime::state::wait::jittered;
use crate::store::{ClaimedPage, Idle, IdleClaim, StoreError};

/// The reaping loop of one queue.
pub(crate) struct Reaper {
    context: Arc<QueueContext>,
    assignments: mpsc::Sender<Vec<Assignment>>,
    /// Where the next sweep of the stream goes on, and of the lane.
    cursors: [EntryId; 2],
}

impl Reaper {
    pub(crate) fn new(
        context: Arc<QueueContext>,
        assignments: mpsc::Sender<Vec<Assignment>>,
    ) -> Self {
        Self { context, assignments, cursors: [EntryId::ZERO; 2] }
    }

    /// Sweeps every third of a lease, give or take a fifth, and at once when entries were handed
    /// back or somebody asks, until the stop. A pause puts sweeps off until its end. If another process
    /// has looked meanwhile and found nothing, the next sweep is due so long after that look.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let interval = self.context.config.lease / 3;
        let mut delay = jittered(interval);
        loop {
            let asked = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.context.reap_now.notified() => true,
                () = sleep(delay) => false,
            };
            delay = jittered(interval);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.context.gate.opened() => {}
            }
            if !asked && self.context.quiet.nothing_is_idle(Instant::now()) {
                continue;
            }
            // Less than any interval, so that one process by itself looks every time.
            let valid = if asked { Duration::ZERO } else { interval / 4 * 3 };
            let mut looked = Duration::ZERO;
            let [mut stream, mut lane] = self.cursors;
            for (inlet, cursor) in [(Inlet::STREAM, &mut stream), (Inlet::LANE, &mut lane)] {
                match self.claim_idle(inlet, cursor, valid, &stop).await {
                    Ok(ago) => looked = looked.max(ago),
                    // The reader makes a lost group again.
                    Err(StoreError::GroupMissing) => {}
                    Err(error) => {
                        self.context.report.server_error("claim idle entries", &error);
                        if error.is_unconfirmed() {
                            self.context.suspect.store(true, Ordering::Release);
                        }
                    }
                }
            }
            self.cursors = [stream, lane];
            delay = delay.saturating_sub(looked);
        }
    }

    /// Goes through the pending list page by page while there are idle entries and free slots. Answers
    /// how long ago another process has looked, if that look counts.
    async fn claim_idle(
        &self,
        inlet: Inlet,
        cursor: &mut EntryId,
        mut valid: Duration,
        stop: &CancellationToken,
    ) -> Result<Duration, StoreError> {
        let context = &self.context;
        // A pass that begins in the middle of the list goes on at its beginning.
        let mut ends = usize::from(*cursor == EntryId::ZERO);
        for _page in 0..PAGES_MAX {
            if stop.is_cancelled() || context.gate.is_shut() {
                break;
            }
            let (queue, lease) = (&context.queue, context.config.lease);
            if let Idle::NotFound { ago } =
                context.store.has_idle(queue, inlet, lease, valid).await?
            {
                return Ok(ago);
            }
            valid = Duration::ZERO;
            let slots = self.slots().await;
            // A pause may have come while it waited for slots.
            if slots.is_empty() || context.gate.is_shut() {
                break;
            }
            let Some(found) = self.claim_page(inlet, cursor, slots).await? else { break };
            ends += usize::from(*cursor == EntryId::ZERO);
            // What is idle may be in flight here, and is passed by however often it is met.
            if found == 0 && ends > 1 {
                break;
            }
        }
        Ok(Duration::ZERO)
    }

    /// Claims what is idle on one page: how much was found, or nothing while claims have to wait.
    async fn claim_page(
        &self,
        inlet: Inlet,
        cursor: &mut EntryId,
        mut slots: Vec<Slot>,
    ) -> Result<Option<usize>, StoreError> {
        let context = &self.context;
        let Ok(_intake) = context.intake.acquire().await else { return Ok(None) };
        let sent = Instant::now();
        let Some(expected) = context.clock.expectation(sent) else {
            let why = "the server has been silent, so live owners renew first";
            context.report.claim_refused(why);
            return Ok(None);
        };
        let in_flight = context.held.silent(inlet, sent, context.config.lease);
        let sweep = IdleClaim {
            inlet,
            lease: context.config.lease,
            cursor: *cursor,
            limit: slots.len(),
            expected: Some(expected).filter(|_| !Mutant::SweepUntimed.is_seeded()),
            skip: &in_flight,
        };
        match context.store.claim_idle(&context.queue, &context.identity.consumer, sweep).await? {
            ClaimedPage::ClockOff { now } => {
                context.clock.stepped(Instant::now(), now);
                context.report.claim_refused("the server's clock is not where it was expected");
                Ok(None)
            }
            ClaimedPage::Page { cursor: next, claimed, trimmed, left } => {
                *cursor = if Mutant::CursorStays.is_seeded() { EntryId::ZERO } else { next };
                context.report.left(left);
                let found = claimed.len() + trimmed;
                if trimmed > 0 {
                    context.report.trimmed(trimmed);
                }
                if !claimed.is_empty() {
                    FailPoint::ClaimAfterReply.reached();
                    context.report.claimed(claimed.len());
                    let assignments = context.admit(claimed, &mut slots, sent);
                    // The dispatcher outlives every reaper; if it is gone, so is the runtime.
                    let _gone = self.assignments.send(assignments).await.is_err();
                }
                Ok(Some(found))
            }
        }
    }

    /// Takes free slots. While the reader waits on the server it has them all, so it is woken, and
    /// whoever queues for a slot before it asks again comes first.
    async fn slots(&self) -> Vec<Slot> {
        let context = &self.context;
        let patience = context.config.lease / 3;
        let woken = async {
            context.wake.wake(context.store.as_ref(), patience).await;
            // The reader has given its slots back by now, or is busy with what it read.
            sleep(context.config.block.min(patience)).await;
        };
        context.reaper_wants.store(context.slots.size().div_ceil(WANTED_SHARE), Ordering::Release);
        let first = tokio::select! {
            biased;
            slot = context.slots.take() => slot,
            () = woken => None,
        };
        context.reaper_wants.store(0, Ordering::Release);
        let mut slots = Vec::from_iter(first);
        if !slots.is_empty() {
            slots.extend(context.free_slots(CLAIMS_MAX - 1));
        }
        slots
    }
}

/// A claim of one step, payloads included, stays a short pause for the server.
const CLAIMS_MAX: usize = 100;
/// One run goes through at most this many pages of 1,000 pending entries; the next goes on.
const PAGES_MAX: usize = 20;
/// Under load the reaper asks the reader for this part of all slots.
const WANTED_SHARE: usize = 8;
