//! Claims idle entries: those of consumers that stopped renewing their leases.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::model::entry::{EntryId, Inlet};
use crate::runtime::intake::{Admission, BatchSizer};
use crate::runtime::observe::{QueueContext, QueueEvent};
use crate::runtime::state::{
    Activity, Clock, InFlight, LostReplies, PauseGate, RaisedDemand, ReaderUnblock, ReapSignal,
    Slot, SlotDemand, Slots, StartsFor, TakenStarts, TransferLock, jittered, most_of,
    stopped_before,
};
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
    pub(crate) batch: BatchSizer,
    /// Where the next scan of the stream and the next scan of the lane continue.
    pub(crate) cursors: [EntryId; 2],
}

impl Reaper {
    /// Scans every third of a lease, give or take a fifth, and at once on request, until the stop.
    /// A pause defers scans to its end. When another process has scanned meanwhile and found
    /// nothing idle, the next scan is due an interval after that scan.
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
            if stopped_before(&stop, self.gate.opened()).await {
                return;
            }
            if !requested && self.activity.rules_out_claims(Instant::now()) {
                continue;
            }
            let valid = if requested { Duration::ZERO } else { most_of(interval) };
            delay = delay.saturating_sub(self.scan(valid, &stop).await);
        }
    }

    /// Scans the stream and the lane until neither has idle entries, or there are no slots for them. A scan by
    /// another process counts if it is younger than `valid`. Returns the age of such a scan.
    async fn scan(&mut self, valid: Duration, stop: &CancellationToken) -> Duration {
        let mut scanned_before = Duration::ZERO;
        let [mut stream, mut lane] = self.cursors;
        // The demand lasts until the end of the scan. Without it, the reader would take all free slots for a read
        // that waits, and this wait would have to be ended before the next claim.
        let mut demand = None;
        let mut inlets = [(Inlet::STREAM, &mut stream, true), (Inlet::LANE, &mut lane, true)];
        while inlets.iter().any(|(.., has_more)| *has_more) {
            for (inlet, cursor, has_more) in inlets.iter_mut().filter(|(.., has_more)| *has_more) {
                match self.claim_idle(*inlet, cursor, valid, &mut demand, stop).await {
                    Ok(Scan::HasMore) => continue,
                    Ok(Scan::Ended) => {}
                    Ok(Scan::NotFound { ago }) => scanned_before = scanned_before.max(ago),
                    // The reader recreates a lost group.
                    Err(StoreError::GroupMissing) => {}
                    Err(error) => {
                        self.context.report.store_failed("claim idle entries", &error);
                        if error.is_unconfirmed() {
                            self.batch.lost();
                            self.lost_replies.suspect();
                        }
                    }
                }
                *has_more = false;
            }
        }
        self.cursors = [stream, lane];
        scanned_before
    }

    /// Goes through the pending list page by page while there are idle entries and free slots.
    async fn claim_idle(
        &mut self,
        inlet: Inlet,
        cursor: &mut EntryId,
        mut valid: Duration,
        demand: &mut Option<RaisedDemand>,
        stop: &CancellationToken,
    ) -> Result<Scan, StoreError> {
        let (context, lease) = (Arc::clone(&self.context), self.context.config.lease);
        // A scan that begins in the middle of the list continues at its beginning.
        let mut ends = usize::from(*cursor == EntryId::ZERO);
        let (mut found, mut total) = (0, 0);
        for _page in 0..PAGES_MAX {
            if stop.is_cancelled() || self.gate.is_shut() {
                return Ok(Scan::Ended);
            }
            // After a page with idle entries there are probably more.
            if found == 0
                && let Idle::NotFound { ago } =
                    context.store.has_idle(context.queue(), inlet, lease, valid).await?
            {
                return Ok(Scan::NotFound { ago });
            }
            valid = Duration::ZERO;
            demand.get_or_insert_with(|| self.slot_request.demand());
            let Some(room) = self.room(stop).await? else { return Ok(Scan::Ended) };
            let Some(claimed) = self.claim_page(inlet, cursor, room).await? else {
                return Ok(Scan::Ended);
            };
            found = claimed;
            total += found;
            ends += usize::from(*cursor == EntryId::ZERO);
            // An idle entry may be in flight here. It is skipped, however often it is found.
            if found == 0 && ends > 1 {
                return Ok(Scan::Ended);
            }
        }
        Ok(if total > 0 { Scan::HasMore } else { Scan::Ended })
    }

    /// Slots for claims, and starts for them; `None` if it takes too long to get any.
    async fn room(&mut self, stop: &CancellationToken) -> Result<Option<ClaimRoom>, StoreError> {
        let starts = Arc::clone(&self.admission.starts);
        let until = Instant::now() + self.context.config.lease / 3;
        loop {
            if starts.applies() && timeout_at(until, starts.opened()).await.is_err() {
                return Ok(None);
            }
            let slots = self.slot_request.take(stop).await;
            // A pause may have begun during the wait for slots.
            if slots.is_empty() || self.gate.is_shut() || stop.is_cancelled() {
                return Ok(None);
            }
            let limit = self.batch.ask(slots.len());
            if !starts.applies() {
                return Ok(Some(ClaimRoom { slots, limit, starts: None }));
            }
            let taken = starts.take(limit, StartsFor::Claim).await?;
            if taken.count > 0 {
                return Ok(Some(ClaimRoom { slots, limit: taken.count, starts: Some(taken) }));
            }
        }
    }

    /// Claims the idle entries of one page. Returns how many were found; `None` while claims have
    /// to wait.
    async fn claim_page(
        &mut self,
        inlet: Inlet,
        cursor: &mut EntryId,
        room: ClaimRoom,
    ) -> Result<Option<usize>, StoreError> {
        let claimed = self.claim_started(inlet, cursor, room.slots, room.limit).await;
        if let Err(error) = &claimed {
            self.admission.give_back_after(error, room.starts, inlet).await;
        }
        let page = claimed?;
        if let Some(taken) = room.starts {
            let unused = taken.count.saturating_sub(page.map_or(0, |page| page.claimed));
            self.admission.give_back(taken, unused, inlet).await;
        }
        Ok(page.map(|page| page.claimed + page.trimmed))
    }

    /// Claims up to `limit` entries that are idle; `None` while claims have to wait.
    async fn claim_started(
        &mut self,
        inlet: Inlet,
        cursor: &mut EntryId,
        slots: Vec<Slot>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
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
            limit,
            expected: Some(expected),
            skip: &skip,
        };
        let _open = self.admission.acks.during_claim.open();
        match self.context.claim_idle(claim).await? {
            ClaimedPage::ClockOff { now } => {
                self.clock.stepped(Instant::now(), now);
                Ok(None)
            }
            ClaimedPage::Page { cursor: next, claimed, trimmed, .. } => {
                *cursor = next;
                let page = Page { claimed: claimed.len(), trimmed };
                self.batch.arrived(&claimed);
                self.admission.admit(claimed, slots, sent).await;
                Ok(Some(page))
            }
        }
    }
}

/// Gets slots for claims from a busy reader.
#[derive(Debug)]
pub(crate) struct SlotRequest {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) demand: Arc<SlotDemand>,
    pub(crate) unblock: Arc<ReaderUnblock>,
}

impl SlotRequest {
    /// Demands slots from the reader until the guard is dropped.
    fn demand(&self) -> RaisedDemand {
        self.demand.raise()
    }

    /// Takes free slots under a demand; none if none became free within a third of the lease. For slots of a set it
    /// waits until the queue's turn, or the stop: who leaves the line may never be the first in it.
    ///
    /// A reader that waits on the server has all free slots, so its wait is ended.
    async fn take(&self, stop: &CancellationToken) -> Vec<Slot> {
        let free = self.slots.take_free(CLAIMS_MAX);
        if !free.is_empty() {
            return free;
        }
        let config = &self.context.config;
        let limit = config.lease / 3;
        let unblocked = async {
            self.unblock.unblock(self.context.store.as_ref(), limit).await;
            // The reader has released its slots by now, or is busy with what it read.
            match self.slots.are_of_set() {
                true => stop.cancelled().await,
                false => sleep(config.block.min(limit)).await,
            }
        };
        let first = tokio::select! {
            biased;
            slot = self.slots.take() => slot,
            () = unblocked => None,
        };
        let mut slots = Vec::from_iter(first);
        if !slots.is_empty() {
            slots.extend(self.slots.take_free(CLAIMS_MAX - 1));
        }
        slots
    }
}

/// The room for the entries that are claimed from a page.
struct ClaimRoom {
    slots: Vec<Slot>,
    limit: usize,
    /// Starts that are left over are given back.
    starts: Option<TakenStarts>,
}

/// What was idle on one page.
#[derive(Clone, Copy)]
struct Page {
    claimed: usize,
    trimmed: usize,
}

/// How far one inlet was scanned.
enum Scan {
    /// Nothing is idle: a scan found that this long ago.
    NotFound { ago: Duration },
    /// Nothing more can be claimed now.
    Ended,
    /// It is the other inlet's turn.
    HasMore,
}

/// An inlet is scanned this many pages of 1,000 pending entries at a time. If none of them had an idle
/// entry, the next scan continues.
const PAGES_MAX: usize = 20;
/// One step claims at most this many entries, payloads included: a short pause for the server.
const CLAIMS_MAX: usize = 100;
