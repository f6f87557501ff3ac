//! Claims idle entries: those of consumers that stopped renewing their leases.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::model::entry::{EntryId, Inlet};
use crate::runtime::intake::admission::Admission;
use crate::runtime::intake::slot_request::SlotRequest;
use crate::runtime::observe::events::QueueEvent;
use crate::runtime::observe::queue_context::QueueContext;
use crate::runtime::state::activity::Activity;
use crate::runtime::state::clock::Clock;
use crate::runtime::state::in_flight::InFlight;
use crate::runtime::state::pause_gate::PauseGate;
use crate::runtime::state::signals::{LostReplies, ReapSignal, TransferLock};
use crate::runtime::state::slots::Slot;
use crate::runtime::state::wait::{jittered, most_of};
use crate::store::{ClaimedPage, Idle, IdleClaim, StoreError};

/// The claiming loop of one queue.
#[derive(Debug)]
pub(crate) struct Reaper {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) slot_request: SlotRequest,
    pub(crate) admission: Arc<Admission>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) gate: Arc<PauseGate>,
    pub(crate) reap: Arc<ReapSignal>,
    pub(crate) lost_replies: Arc<LostReplies>,
    pub(crate) transfer: Arc<TransferLock>,
    /// Where the next scan of the stream continues, and that of the lane.
    pub(crate) cursors: [EntryId; 2],
}

impl Reaper {
    /// Scans every third of a lease, give or take a fifth, and at once on request, until the stop.
    /// A pause defers scans to its end. When another process has scanned meanwhile and found
    /// nothing idle, the next scan is due an interval after that one.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let interval = self.context.config.lease / 3;
        let mut delay = jittered(interval);
        loop {
            let requested = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.reap.requested() => true,
                () = sleep(delay) => false,
            };
            delay = jittered(interval);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.gate.opened() => {}
            }
            if !requested && self.activity.rules_out_claims(Instant::now()) {
                continue;
            }
            let valid = if requested { Duration::ZERO } else { most_of(interval) };
            delay = delay.saturating_sub(self.scan(valid, &stop).await);
        }
    }

    /// Scans the stream and the lane. A scan by another process counts if it is younger than
    /// `valid`: the age of such a scan.
    async fn scan(&mut self, valid: Duration, stop: &CancellationToken) -> Duration {
        let mut scanned_before = Duration::ZERO;
        let [mut stream, mut lane] = self.cursors;
        for (inlet, cursor) in [(Inlet::STREAM, &mut stream), (Inlet::LANE, &mut lane)] {
            match self.claim_idle(inlet, cursor, valid, stop).await {
                Ok(ago) => scanned_before = scanned_before.max(ago),
                // The reader recreates a lost group.
                Err(StoreError::GroupMissing) => {}
                Err(error) => {
                    self.context.report.store_failed("claim idle entries", &error);
                    if error.is_unconfirmed() {
                        self.lost_replies.suspect();
                    }
                }
            }
        }
        self.cursors = [stream, lane];
        scanned_before
    }

    /// Goes through the pending list page by page while there are idle entries and free slots: how
    /// long ago another process has scanned it, if that scan counts.
    async fn claim_idle(
        &self,
        inlet: Inlet,
        cursor: &mut EntryId,
        mut valid: Duration,
        stop: &CancellationToken,
    ) -> Result<Duration, StoreError> {
        let (store, queue, lease) =
            (&self.context.store, self.context.queue(), self.context.config.lease);
        // A scan that begins in the middle of the list continues at its beginning.
        let mut ends = usize::from(*cursor == EntryId::ZERO);
        for _page in 0..PAGES_MAX {
            if stop.is_cancelled() || self.gate.is_shut() {
                break;
            }
            if let Idle::NotFound { ago } = store.has_idle(queue, inlet, lease, valid).await? {
                return Ok(ago);
            }
            valid = Duration::ZERO;
            let slots = self.slot_request.take().await;
            // A pause may have begun during the wait for slots.
            if slots.is_empty() || self.gate.is_shut() {
                break;
            }
            let Some(found) = self.claim_page(inlet, cursor, slots).await? else { break };
            ends += usize::from(*cursor == EntryId::ZERO);
            // An idle entry may be in flight here. It is skipped, however often it is found.
            if found == 0 && ends > 1 {
                break;
            }
        }
        Ok(Duration::ZERO)
    }

    /// Claims what is idle on one page: how much was found, or none while claims have to wait.
    async fn claim_page(
        &self,
        inlet: Inlet,
        cursor: &mut EntryId,
        slots: Vec<Slot>,
    ) -> Result<Option<usize>, StoreError> {
        let lease = self.context.config.lease;
        let _transfer = self.transfer.lock().await;
        let sent = Instant::now();
        let Some(expected) = self.clock.expectation(sent) else {
            let why = "the server has been silent, so live consumers renew first";
            self.context.report.queue(QueueEvent::ClaimRefused { why });
            return Ok(None);
        };
        let skip = self.in_flight.overdue(inlet, sent, lease);
        let claim = IdleClaim {
            inlet,
            lease,
            cursor: *cursor,
            limit: slots.len(),
            expected: Some(expected),
            skip: &skip,
        };
        match self.context.claim_idle(claim).await? {
            ClaimedPage::ClockOff { now } => {
                self.clock.stepped(Instant::now(), now);
                Ok(None)
            }
            ClaimedPage::Page { cursor: next, claimed, trimmed, left: _ } => {
                *cursor = next;
                let found = claimed.len() + trimmed;
                self.admission.admit(claimed, slots, sent).await;
                Ok(Some(found))
            }
        }
    }
}

/// One scan goes through at most this many pages of 1,000 pending entries; the next continues.
const PAGES_MAX: usize = 20;
