//! The drawing of one queue: what its loops share, and which signals join which of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::insight::metrics::QueueMetrics;
use crate::model::entry::EntryId;
use crate::runtime::intake::{
    Admission, BatchSizer, Connector, GroupRepair, LaneTurn, LeaseKeeper, Reader, Reaper, Recovery,
    SlotRequest,
};
use crate::runtime::observe::QueueContext;
use crate::runtime::settle::{AckFlusher, Settler, SettlingSteps};
use crate::runtime::state::{
    Acks, Activity, Assignment, Clock, GroupEpoch, InFlight, LaneSignal, LoopHealth, LostReplies,
    NextDue, PauseGate, ReaderUnblock, ReapSignal, RenewSignal, Settlement, SettlingOver,
    SlotDemand, Slots, TransferLock,
};

/// What the loops of one queue know of it together.
#[derive(Debug)]
pub(crate) struct QueueState {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) gate: Arc<PauseGate>,
    pub(crate) health: Arc<LoopHealth>,
    pub(crate) activity: Arc<Activity>,
}

impl QueueState {
    pub(crate) fn new(context: QueueContext, metrics: Arc<QueueMetrics>) -> Self {
        let (config, now) = (context.config, Instant::now());
        let in_flight = Arc::new(InFlight::new(metrics));
        Self {
            context: Arc::new(context),
            slots: Arc::new(Slots::new(config.concurrency)),
            acks: Arc::new(Acks::new(Arc::clone(&in_flight))),
            in_flight,
            clock: Arc::new(Clock::new(config.lease, now)),
            gate: Arc::default(),
            health: Arc::default(),
            activity: Arc::new(Activity::new(config.lease, now)),
        }
    }
}

/// The signals between the loops of one queue, each with its senders and its receiver.
#[derive(Debug, Default)]
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
}

/// The reader, the reaper and the lease keeper.
pub(crate) fn intake(
    state: &QueueState,
    signals: &QueueSignals,
    read_margin: Duration,
    assignments: mpsc::Sender<Vec<Assignment>>,
) -> (Reader, Reaper, LeaseKeeper) {
    let QueueState { context, slots, in_flight, acks, clock, gate, health, activity } = state;
    let admission = Arc::new(Admission {
        context: Arc::clone(context),
        in_flight: Arc::clone(in_flight),
        activity: Arc::clone(activity),
        next_due: Arc::clone(&signals.next_due),
        epoch: Arc::clone(&signals.epoch),
        renew: Arc::clone(&signals.renew),
        assignments,
    });
    let unblock = || Arc::clone(&signals.unblock);
    let reader = Reader {
        context: Arc::clone(context),
        connector: Connector::new(Arc::clone(context), read_margin, unblock()),
        recovery: recovery(state, signals, &admission),
        repair: GroupRepair {
            context: Arc::clone(context),
            activity: Arc::clone(activity),
            epoch: Arc::clone(&signals.epoch),
        },
        admission: Arc::clone(&admission),
        gate: Arc::clone(gate),
        slots: Arc::clone(slots),
        demand: Arc::clone(&signals.demand),
        acks: Arc::clone(acks),
        lane: LaneTurn::new(Arc::clone(&signals.lane)),
        health: Arc::clone(health),
        batch: BatchSizer::default(),
    };
    let reaper = Reaper {
        context: Arc::clone(context),
        slot_request: SlotRequest {
            context: Arc::clone(context),
            slots: Arc::clone(slots),
            demand: Arc::clone(&signals.demand),
            unblock: unblock(),
        },
        admission,
        in_flight: Arc::clone(in_flight),
        clock: Arc::clone(clock),
        activity: Arc::clone(activity),
        gate: Arc::clone(gate),
        reap: Arc::clone(&signals.reap),
        lost_replies: Arc::clone(&signals.lost_replies),
        transfer: Arc::clone(&signals.transfer),
        cursors: [EntryId::ZERO; 2],
    };
    (reader, reaper, lease_keeper(state, signals))
}

fn recovery(state: &QueueState, signals: &QueueSignals, admission: &Arc<Admission>) -> Recovery {
    Recovery {
        context: Arc::clone(&state.context),
        admission: Arc::clone(admission),
        in_flight: Arc::clone(&state.in_flight),
        slots: Arc::clone(&state.slots),
        lost_replies: Arc::clone(&signals.lost_replies),
        transfer: Arc::clone(&signals.transfer),
    }
}

fn lease_keeper(state: &QueueState, signals: &QueueSignals) -> LeaseKeeper {
    LeaseKeeper {
        context: Arc::clone(&state.context),
        in_flight: Arc::clone(&state.in_flight),
        clock: Arc::clone(&state.clock),
        activity: Arc::clone(&state.activity),
        epoch: Arc::clone(&signals.epoch),
        renew: Arc::clone(&signals.renew),
    }
}

/// The settler and the ack flusher.
pub(crate) fn settling(
    state: &QueueState,
    signals: &QueueSignals,
    settlements: mpsc::Receiver<Settlement>,
) -> (Settler, AckFlusher) {
    let settler = Settler {
        settlements,
        over: signals.over.clone(),
        steps: SettlingSteps {
            context: Arc::clone(&state.context),
            in_flight: Arc::clone(&state.in_flight),
            clock: Arc::clone(&state.clock),
            next_due: Arc::clone(&signals.next_due),
        },
    };
    let ack_flusher = AckFlusher {
        context: Arc::clone(&state.context),
        acks: Arc::clone(&state.acks),
        over: signals.over.clone(),
    };
    (settler, ack_flusher)
}
