//! The wiring of one queue: what its loops share, and which loops each signal connects.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::insight::metrics::QueueMetrics;
use crate::model::entry::EntryId;
use crate::runtime::intake::{
    Admission, BatchSizer, Connector, GroupRepair, LaneTurn, LeaseKeeper, Reader, Reaper, Recovery,
    SlotRequest,
};
use crate::runtime::observe::{LimitPlaces, QueueContext};
use crate::runtime::settle::{AckFlusher, RefusedRoom, RetryBatches, Settler, SettlingSteps};
use crate::runtime::state::{
    Acks, Activity, Assignment, Beat, CancelledJobs, Clock, GroupEpoch, InFlight, LaneSignal,
    LoopHealth, LostReplies, NextDue, PauseGate, PayloadBudget, PlaceSignal, ReaderUnblock,
    ReapSignal, RefusedJobs, RenewSignal, Settlement, SettlingOver, SlotDemand, Slots, StartGate,
    StreamUse, TransferLock,
};
use crate::runtime::upkeep::{Follows, Promoter};
use crate::store::ReaderSetup;

/// The state of one queue that its loops share. Clones share it too.
#[derive(Clone, Debug)]
pub(crate) struct QueueState {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) starts: Arc<StartGate>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) gate: Arc<PauseGate>,
    pub(crate) health: Arc<LoopHealth>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) refused: RefusedJobs,
    /// The cancelled jobs of the stream, for all of its queues.
    pub(crate) cancelled: Arc<CancelledJobs>,
}

impl QueueState {
    pub(crate) fn new(
        context: QueueContext,
        metrics: Arc<QueueMetrics>,
        clock: Arc<Clock>,
        (slots, starts, cancelled): (Arc<Slots>, Arc<StartGate>, Arc<CancelledJobs>),
        shares_slots: bool,
        beat: Beat,
    ) -> Self {
        let (config, now) = (context.config, Instant::now());
        let in_flight = Arc::new(InFlight::new(metrics));
        Self {
            context: Arc::new(context),
            slots,
            starts,
            acks: Arc::new(Acks::new(Arc::clone(&in_flight), shares_slots, config.limit.is_some())),
            in_flight,
            clock,
            gate: Arc::default(),
            health: Arc::default(),
            activity: Arc::new(Activity::new(config.lease, beat, now)),
            refused: RefusedJobs::default(),
            cancelled,
        }
    }
}

/// The signals between the loops of one queue, each with its senders and its receiver. Clones share
/// these signals.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueSignals {
    /// Promoter → reader.
    pub(crate) lane: Arc<LaneSignal>,
    /// Reaper → reader.
    pub(crate) demand: Arc<SlotDemand>,
    /// Promoter, reaper, control → reader.
    pub(crate) unblock: Arc<ReaderUnblock>,
    /// Promoter, control → reaper.
    pub(crate) reap: Arc<ReapSignal>,
    /// Reader, reaper → recovery, which is the reader's.
    pub(crate) lost_replies: Arc<LostReplies>,
    /// Recovery ↔ reaper.
    pub(crate) transfer: Arc<TransferLock>,
    /// Admission, which is the reader's and the reaper's → lease keeper.
    pub(crate) renew: Arc<RenewSignal>,
    /// Group repair, which is the reader's → admission, lease keeper.
    pub(crate) epoch: Arc<GroupEpoch>,
    /// Settler, admission → promoter.
    pub(crate) next_due: Arc<NextDue>,
    /// Settler → ack flusher.
    pub(crate) over: SettlingOver,
    /// Settler, ack flusher, promoter → reader.
    pub(crate) freed: Arc<PlaceSignal>,
}

/// What passes deliveries on from the reader and the reaper to the dispatcher.
pub(crate) fn admission(
    QueueState { context, in_flight, activity, acks, starts, .. }: QueueState,
    QueueSignals { next_due, epoch, renew, .. }: QueueSignals,
    assignments: mpsc::Sender<Vec<Assignment>>,
) -> Admission {
    Admission { context, starts, in_flight, activity, acks, next_due, epoch, renew, assignments }
}

/// The reader.
pub(crate) fn reader(
    QueueState { context, slots, in_flight, acks, gate, health, activity, .. }: QueueState,
    QueueSignals { lane, demand, unblock, lost_replies, transfer, epoch, freed, .. }: QueueSignals,
    admission: Arc<Admission>,
    setup: ReaderSetup,
) -> Reader {
    let recovery = Recovery {
        context: Arc::clone(&context),
        admission: Arc::clone(&admission),
        in_flight,
        slots: Arc::clone(&slots),
        lost_replies,
        transfer,
    };
    Reader {
        connector: Connector { setup, unblock, opened_before: false, freed },
        recovery,
        repair: GroupRepair { context: Arc::clone(&context), activity, epoch },
        admission,
        gate,
        slots,
        demand,
        acks,
        lane: LaneTurn { signal: lane, lane_served: false },
        health,
        batch: BatchSizer::default(),
        context,
    }
}

/// The reaper.
pub(crate) fn reaper(
    QueueState { context, slots, in_flight, clock, activity, gate, .. }: QueueState,
    QueueSignals { demand, unblock, reap, lost_replies, transfer, .. }: QueueSignals,
    admission: Arc<Admission>,
) -> Reaper {
    Reaper {
        slot_request: SlotRequest { context: Arc::clone(&context), slots, demand, unblock },
        admission,
        in_flight,
        clock,
        activity,
        gate,
        reap,
        lost_replies,
        transfer,
        batch: BatchSizer::default(),
        cursors: [EntryId::ZERO; 2],
        context,
    }
}

/// What gives places in the group's limit back.
pub(crate) fn limit_places(
    QueueState { context, .. }: QueueState,
    QueueSignals { lane, unblock, freed, .. }: QueueSignals,
) -> LimitPlaces {
    let (reported, set) = (Mutex::default(), Mutex::default());
    let next_sweep = Mutex::new(Instant::now());
    LimitPlaces { context, lane, unblock, freed, next_sweep, reported, set }
}

/// The lease keeper.
pub(crate) fn lease_keeper(
    QueueState { context, in_flight, clock, activity, .. }: QueueState,
    QueueSignals { epoch, renew, .. }: QueueSignals,
) -> LeaseKeeper {
    LeaseKeeper { context, in_flight, clock, activity, epoch, renew }
}

/// The settler.
pub(crate) fn settler(
    QueueState { context, in_flight, clock, refused, acks, .. }: QueueState,
    QueueSignals { over, next_due, epoch, .. }: QueueSignals,
    budget: Arc<PayloadBudget>,
    settlements: mpsc::Receiver<Box<Settlement>>,
    places: Arc<LimitPlaces>,
) -> Settler {
    let refused = RefusedRoom::new(refused, acks.shares_slots);
    let retries = RetryBatches::default();
    let steps = SettlingSteps {
        context,
        in_flight,
        clock,
        next_due,
        budget,
        retries,
        refused,
        epoch,
        places,
    };
    Settler { settlements, over, steps }
}

/// The ack flusher.
pub(crate) fn ack_flusher(
    QueueState { context, acks, .. }: QueueState,
    QueueSignals { over, .. }: QueueSignals,
    places: Arc<LimitPlaces>,
) -> AckFlusher {
    AckFlusher { context, acks, over, places }
}

/// The promoter.
pub(crate) fn promoter(
    QueueState { context, activity, clock, .. }: QueueState,
    QueueSignals { next_due, lane, reap, unblock, .. }: QueueSignals,
    usage: Arc<StreamUse>,
    follows: Follows,
    interval: Duration,
) -> Promoter {
    let released = None;
    Promoter {
        context,
        interval,
        activity,
        clock,
        next_due,
        follows,
        lane,
        reap,
        unblock,
        usage,
        released,
    }
}
