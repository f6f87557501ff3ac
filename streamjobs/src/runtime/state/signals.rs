//! Signals between loops. The first line of each names the loops that get it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::handler::{HandlerDef, Lease};
use crate::model::attempts::AttemptEnd;
use crate::model::block::InBlock;
use crate::model::entry::{Delivery, EntryId, Hold, Inlet};
use crate::model::event::Envelope;
use crate::model::name::ConsumerName;
use crate::model::policy::Verdict;
use crate::runtime::state::{Slot, lock};
use crate::store::Queue;

/// Admission to dispatcher: a delivery with a slot to run in.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) delivery: InBlock<Delivery>,
    pub(crate) lease: InBlock<Lease>,
    pub(crate) slot: Slot,
}

/// Promoter to reader: undelivered entries are in the lane.
#[derive(Debug, Default)]
pub(crate) struct LaneSignal {
    raised: AtomicBool,
}

impl LaneSignal {
    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
    }

    /// Called when the lane has been read to its end.
    pub(crate) fn clear(&self) {
        self.raised.store(false, Ordering::Release);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }
}

/// Settling and upkeep to reader: places in the group's limit may be free. A signal that comes before the reader waits
/// is kept.
#[derive(Debug, Default)]
pub(crate) struct PlaceSignal {
    freed: Notify,
}

impl PlaceSignal {
    pub(crate) fn note(&self) {
        self.freed.notify_one();
    }

    /// Waits until places may be free. Cancel safe.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }
}

/// Promoter and control to reaper: scan for idle entries without waiting for the interval.
pub(crate) type ReapSignal = Request;

/// Reader and reaper to lease keeper: an entry whose lease is partly over was delivered, so renew
/// without waiting for the interval.
pub(crate) type RenewSignal = Request;

/// A request to a loop to act now. Requests that it has not taken yet count as one.
#[derive(Debug, Default)]
pub(crate) struct Request {
    requested: Notify,
}

impl Request {
    pub(crate) fn request(&self) {
        self.requested.notify_one();
    }

    /// Waits for a request, which may have been made earlier.
    ///
    /// Cancel safe.
    pub(crate) async fn requested(&self) {
        self.requested.notified().await;
    }
}

/// Reaper to reader: idle entries were found, so leave slots for them. Otherwise the reader would use each slot that an
/// acknowledgement frees for its next read, and keep the other slots while it waits on the server.
#[derive(Debug, Default)]
pub(crate) struct SlotDemand {
    raised: AtomicBool,
    lowered: Notify,
}

impl SlotDemand {
    /// Raises the demand until the guard is dropped.
    pub(crate) fn raise(self: &Arc<Self>) -> RaisedDemand {
        self.raised.store(true, Ordering::Release);
        RaisedDemand { demand: Arc::clone(self) }
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Waits for the end of the demand. It may have ended and begun again by then.
    ///
    /// Cancel safe.
    pub(crate) async fn lowered(&self) {
        let lowered = self.lowered.notified();
        if self.is_raised() {
            lowered.await;
        }
    }
}

/// The reaper wants slots while this exists.
#[derive(Debug)]
#[must_use = "the demand ends when it is dropped"]
pub(crate) struct RaisedDemand {
    demand: Arc<SlotDemand>,
}

impl Drop for RaisedDemand {
    fn drop(&mut self) {
        self.demand.raised.store(false, Ordering::Release);
        self.demand.lowered.notify_waiters();
    }
}

/// Reader and reaper to recovery: an answer was lost, so the server may have delivered entries that
/// this process does not know about.
#[derive(Debug, Default)]
pub(crate) struct LostReplies {
    suspected: AtomicBool,
}

impl LostReplies {
    pub(crate) fn suspect(&self) {
        self.suspected.store(true, Ordering::Release);
    }

    pub(crate) fn are_suspected(&self) -> bool {
        self.suspected.load(Ordering::Acquire)
    }

    /// Whether replies may have been lost since the last call.
    pub(crate) fn take(&self) -> bool {
        self.suspected.swap(false, Ordering::AcqRel)
    }
}

/// Acks to admission, inside the acks themselves: which jobs were acknowledged while a claim was on its way. The claim
/// may have taken their entries before the acknowledgement removed them, and the jobs must not run again.
#[derive(Debug, Default)]
pub(crate) struct DoneDuringClaim {
    done: Mutex<Option<BTreeSet<(Inlet, EntryId)>>>,
}

impl DoneDuringClaim {
    /// Records that a claim is about to be sent. It is on its way until the guard is dropped.
    pub(crate) fn open(&self) -> OpenClaim<'_> {
        *lock(&self.done) = Some(BTreeSet::new());
        OpenClaim { of: self }
    }

    pub(crate) fn note(&self, entries: impl Iterator<Item = (Inlet, EntryId)>) {
        if let Some(done) = &mut *lock(&self.done) {
            done.extend(entries);
        }
    }

    pub(crate) fn contains(&self, hold: Hold) -> bool {
        lock(&self.done).as_ref().is_some_and(|done| done.contains(&(hold.inlet, hold.id)))
    }
}

/// A claim is on its way while this exists.
#[derive(Debug)]
#[must_use = "the claim is over when it is dropped"]
pub(crate) struct OpenClaim<'a> {
    of: &'a DoneDuringClaim,
}

impl Drop for OpenClaim<'_> {
    fn drop(&mut self) {
        *lock(&self.of.done) = None;
    }
}

/// Group repair to admission and lease keeper: how often the group was lost and recreated. Entries
/// that were delivered in an earlier epoch are not pending any more, and no other consumer has them.
#[derive(Debug, Default)]
pub(crate) struct GroupEpoch {
    count: AtomicU64,
}

impl GroupEpoch {
    pub(crate) fn advance(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn current(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
}

/// Between recovery and reaper: held during each step that moves entries to this consumer outside a
/// plain read, so that recovery never considers an entry lost that the reaper is about to register.
pub(crate) type TransferLock = tokio::sync::Mutex<()>;

/// Trimmer to watcher: the group whose unacknowledged entries stopped the last trimming of a stream.
#[derive(Debug, Default)]
pub(crate) struct TrimBlocker {
    group: Mutex<Option<String>>,
}

impl TrimBlocker {
    pub(crate) fn set(&self, group: Option<String>) {
        *lock(&self.group) = group;
    }

    pub(crate) fn group(&self) -> Option<String> {
        lock(&self.group).clone()
    }
}

/// Executor to settler: a verdict other than an acknowledgement, on its way to the server.
#[derive(Debug)]
pub(crate) struct Settlement {
    pub(crate) delivery: InBlock<Delivery>,
    pub(crate) envelope: Envelope,
    pub(crate) hold: Hold,
    /// When the attempt began, by the server's clock.
    pub(crate) began_at: u64,
    pub(crate) failures: u32,
    /// How the handler's run ended, and how long it took; `None` if the handler did not run.
    pub(crate) run: Option<(AttemptEnd, Duration)>,
    /// The handler of the event type, if the group has one.
    pub(crate) handled_by: Option<HandledBy>,
    pub(crate) verdict: Verdict,
    pub(crate) lease: InBlock<Lease>,
    /// `None` once the job waits without a slot.
    pub(crate) slot: Option<Slot>,
}

/// The handler of a job, for the log, and what its limits say of the end of an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandledBy {
    pub(crate) handler: HandlerDef,
    pub(crate) attempts_max: u32,
    /// Whether its jobs expire if they do not begin in time.
    pub(crate) expires: bool,
}

/// Settler to ack flusher: no job can end any more, so acknowledge the jobs that wait, and end.
pub(crate) type SettlingOver = CancellationToken;

/// Stop to heartbeat senders: consumers that stopped in this process but whose names the server still has. The names
/// are removed as soon as nothing is pending for them: entries that a consumer released stay under its name until
/// another consumer claims them. A name is used only once.
#[derive(Debug, Default)]
pub(crate) struct StoppedConsumers {
    names: Mutex<Vec<(Queue, ConsumerName)>>,
}

impl StoppedConsumers {
    pub(crate) fn add(&self, queue: &Queue, consumer: &ConsumerName) {
        lock(&self.names).push((queue.clone(), consumer.clone()));
    }

    /// Records that the server no longer has the name.
    pub(crate) fn remove(&self, queue: &Queue, consumer: &ConsumerName) {
        lock(&self.names).retain(|(of, name)| of != queue || name != consumer);
    }

    /// The names that remain on a queue.
    pub(crate) fn of(&self, queue: &Queue) -> Vec<ConsumerName> {
        let names = lock(&self.names);
        let remaining = names.iter().filter(|(of, _)| of == queue);
        remaining.map(|(_, name)| name.clone()).collect()
    }
}
