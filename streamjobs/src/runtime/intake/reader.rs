//! Takes in work: one connection, one read at a time, never more than there are slots.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::model::entry::{Delivery, EntryId, Hold, Inlet};
use crate::model::fail_point::FailPoint;
use crate::model::mutant::Mutant;
use crate::runtime::consumer::queue::{Assignment, QueueContext};
use crate::runtime::state::acks::Ack;
use crate::runtime::state::slots::Slot;
use crate::runtime::state::wait::LoopBackoff;
use crate::store::{ReadReply, ReadRequest, StoreError, StreamReader};

/// The reading loop of one queue.
pub(crate) struct Reader {
    context: Arc<QueueContext>,
    assignments: mpsc::Sender<Vec<Assignment>>,
    /// What the last read gave, from which the next batch is guessed.
    last_count: usize,
    /// What an entry of it took on average, by which a batch is bounded in bytes.
    entry_bytes: usize,
    /// The last read was from the lane, so the stream has its turn.
    lane_served: bool,
    /// A connection was open before.
    connected: bool,
}

/// What a round may take in: slots that are free, and slots that acknowledgements will free.
struct Intake {
    slots: Vec<Slot>,
    acks: Vec<Ack>,
}

impl Reader {
    pub(crate) fn new(
        context: Arc<QueueContext>,
        assignments: mpsc::Sender<Vec<Assignment>>,
    ) -> Self {
        Self {
            context,
            assignments,
            last_count: 0,
            entry_bytes: ENTRY_BYTES_ASSUMED,
            lane_served: false,
            connected: false,
        }
    }

    /// Reads until the stop. What a last read brings is handed back by the dispatcher.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut pause = LoopBackoff::new();
        let mut connection: Option<Box<dyn StreamReader>> = None;
        while self.may_read(&stop).await {
            let Some(reader) = connection.as_mut() else {
                match self.connect().await {
                    Ok(reader) => {
                        if std::mem::replace(&mut self.connected, true) {
                            self.context.report.reconnected();
                        }
                        connection = Some(reader);
                    }
                    Err(error) => {
                        self.context.report.server_error("connect a reader", &error);
                        pause.wait(&stop).await;
                    }
                }
                continue;
            };
            if self.context.suspect.swap(false, Ordering::AcqRel) || self.context.held.is_crowded()
            {
                match self.recover().await {
                    Ok(()) => {}
                    Err(error) => {
                        self.context.suspect.store(true, Ordering::Release);
                        self.failed("recover lost deliveries", &error, &mut connection).await;
                        pause.wait(&stop).await;
                        continue;
                    }
                }
            }
            let Some(intake) = self.next_intake(&stop).await else { break };
            match self.round(reader.as_mut(), intake, &stop).await {
                Ok(()) => pause.reset(),
                Err(error) => {
                    self.failed("read", &error, &mut connection).await;
                    pause.wait(&stop).await;
                }
            }
        }
    }

    /// Waits while the group is paused. False at a stop.
    async fn may_read(&self, stop: &CancellationToken) -> bool {
        let context = &self.context;
        if context.gate.is_shut() {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = context.gate.opened() => {}
            }
        }
        !stop.is_cancelled()
    }

    async fn connect(&self) -> Result<Box<dyn StreamReader>, StoreError> {
        let context = &self.context;
        context
            .store
            .reader(&context.queue, &context.identity.consumer, context.runtime.read_margin)
            .await
    }

    /// Repairs what an error says is broken.
    async fn failed(
        &mut self,
        during: &'static str,
        error: &StoreError,
        connection: &mut Option<Box<dyn StreamReader>>,
    ) {
        self.context.report.server_error(during, error);
        self.context.quiet.mark_active(Instant::now());
        if error.is_silence() {
            self.context.report.read_timeouts();
        }
        match error {
            StoreError::GroupMissing => {
                match self.context.store.recreate(&self.context.queue).await {
                    Ok(true) => {
                        self.context.epoch.fetch_add(1, Ordering::AcqRel);
                        self.context.report.group_recreated();
                    }
                    // Another process was quicker.
                    Ok(false) => {
                        self.context.epoch.fetch_add(1, Ordering::AcqRel);
                    }
                    Err(error) => self.context.report.server_error("restore the group", &error),
                }
            }
            StoreError::Refused { .. } => {}
            StoreError::Unreachable(_)
            | StoreError::AnswerLost(_)
            | StoreError::Protocol { .. } => {
                *connection = None;
                self.context.suspect.store(true, Ordering::Release);
            }
        }
    }

    /// Waits until there is a slot, or an acknowledgement that will free one. None at a stop.
    async fn next_intake(&self, stop: &CancellationToken) -> Option<Intake> {
        let context = &self.context;
        let mut slots = context.free_slots(BATCH_MAX);
        if slots.is_empty() {
            context.health.note_saturated();
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                slot = context.slots.take() => slots.extend(slot),
                () = self.worthwhile_acks() => {}
            }
        }
        let acks = context.acks.take();
        let room = BATCH_MAX.saturating_sub(slots.len() + acks.len());
        slots.extend(context.free_slots(room));
        Some(Intake { slots, acks })
    }

    /// Waits for acknowledgements: while much is coming in, for a good batch or a millisecond;
    /// otherwise for the first.
    async fn worthwhile_acks(&self) {
        let acks = &self.context.acks;
        acks.filled(1).await;
        if self.last_count >= BUSY_COUNT {
            let batch = self.context.slots.size().min(BATCH_MAX) / 2;
            let _partial = timeout(LINGER, acks.filled(batch)).await;
        }
    }

    /// One round trip: acknowledge, then read into the slots.
    async fn round(
        &mut self,
        reader: &mut dyn StreamReader,
        intake: Intake,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let context = Arc::clone(&self.context);
        let Intake { mut slots, acks } = intake;
        if acks.is_empty() {
            // It may wait. Before anything is looked at that may change: whoever changes it later
            // ends the wait.
            context.wake.enter(reader.waker());
        }
        let lane_waits = context.lane_waits.load(Ordering::Acquire);
        let inlet = if lane_waits && !self.lane_served { Inlet::LANE } else { Inlet::STREAM };
        // Slots that acknowledgements free here pass on to the next jobs without ever being free,
        // so those that the reaper waits for, or that are to go, are left out.
        let wanted = context.reaper_wants.load(Ordering::Acquire) + context.slots.owed();
        let count = (slots.len() + acks.len()).saturating_sub(wanted).min(self.batch_max());
        if count == 0 || stop.is_cancelled() || context.gate.is_shut() {
            context.wake.leave();
            return self.only_acknowledge(acks, slots).await;
        }
        let ids = acks.iter().map(|ack| (ack.inlet, ack.id)).collect::<Vec<_>>();
        let request = ReadRequest {
            acks: &ids,
            inlet,
            count,
            // The answer to the acknowledgements must not wait for new work, and a read that takes
            // its turn beside a waiting lane comes straight back to it.
            block: (acks.is_empty() && !lane_waits).then_some(context.config.block),
        };
        let sent = Instant::now();
        let reply = answer(reader, request, stop).await;
        context.wake.leave();
        context.report.received(sent.elapsed());
        let ReadReply { acknowledged, deliveries } = match reply {
            Ok(reply) => reply,
            Err(error) => {
                context.acks.put_back(acks);
                return Err(error);
            }
        };
        context.health.note_read(Instant::now());
        let letters = self.finish_acks(acks, acknowledged, &mut slots);
        let deliveries = match deliveries {
            Ok(deliveries) => deliveries,
            Err(error) => {
                context.take_letters_back(&letters).await;
                return Err(error);
            }
        };
        self.note_size(&deliveries);
        self.lane_served = inlet == Inlet::LANE;
        if inlet == Inlet::LANE && deliveries.len() < count {
            context.lane_waits.store(false, Ordering::Release);
        }
        self.assign(deliveries, slots, sent).await;
        // Last, because what was delivered is not renewed before it is registered.
        context.take_letters_back(&letters).await;
        Ok(())
    }

    /// How many entries make a good batch, if they are as large as the last ones.
    fn batch_max(&self) -> usize {
        (BATCH_BYTES / self.entry_bytes.max(1)).clamp(1, BATCH_MAX)
    }

    fn note_size(&mut self, deliveries: &[Delivery]) {
        self.last_count = deliveries.len();
        let bytes = deliveries.iter().map(|delivery| delivery.entry.bytes()).sum::<usize>();
        if let Some(mean) = bytes.checked_div(deliveries.len()) {
            self.entry_bytes = mean;
        }
    }

    /// Frees slots without reading: the reaper waits for them, or nothing may be taken in.
    async fn only_acknowledge(
        &self,
        acks: Vec<Ack>,
        mut slots: Vec<Slot>,
    ) -> Result<(), StoreError> {
        let context = &self.context;
        let mut letters = Vec::new();
        if !acks.is_empty() {
            let ids = acks.iter().map(|ack| (ack.inlet, ack.id)).collect::<Vec<_>>();
            let acknowledged = context.acknowledge(&ids).await;
            letters = self.finish_acks(acks, acknowledged, &mut slots);
        }
        drop(slots);
        context.take_letters_back(&letters).await;
        // Whoever queues for a slot gets it before this loop asks again.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Frees the slots of acknowledged jobs for what the same round trip has read: the dead letters
    /// that have to be taken back.
    fn finish_acks(
        &self,
        acks: Vec<Ack>,
        acknowledged: Result<usize, StoreError>,
        slots: &mut Vec<Slot>,
    ) -> Vec<EntryId> {
        match acknowledged {
            Ok(_) if acks.is_empty() => Vec::new(),
            Ok(confirmed) => {
                FailPoint::AckAfterSend.reached();
                let (freed, letters) = self.context.end(acks, confirmed);
                slots.extend(freed);
                letters
            }
            Err(error) => {
                self.context.report.server_error("acknowledge", &error);
                self.context.acks.put_back(acks);
                Vec::new()
            }
        }
    }

    async fn assign(&self, deliveries: Vec<Delivery>, mut slots: Vec<Slot>, sent: Instant) {
        if deliveries.is_empty() {
            return;
        }
        FailPoint::ReadAfterReply.reached();
        let assignments = self.context.admit(deliveries, &mut slots, sent);
        drop(slots);
        // The dispatcher outlives every reader; if it is gone, so is the whole runtime.
        let _gone = self.assignments.send(assignments).await.is_err();
    }

    /// Delivers again what this consumer owns and this process does not hold, uncounted.
    async fn recover(&self) -> Result<(), StoreError> {
        let context = &self.context;
        let Ok(_intake) = context.intake.acquire().await else { return Ok(()) };
        for inlet in [Inlet::STREAM, Inlet::LANE] {
            let mut cursor = EntryId::ZERO;
            let mut pending = BTreeSet::new();
            loop {
                let (queue, consumer) = (&context.queue, &context.identity.consumer);
                let own =
                    context.store.own_pending(queue, consumer, inlet, cursor, BATCH_MAX).await?;
                let Some(last) = own.last() else { break };
                cursor = last.id;
                pending.extend(own.iter().map(|hold| hold.id));
                self.take_up(&context.held.lost(own)).await?;
            }
            context.held.forget_left(inlet, &pending);
        }
        Ok(())
    }

    /// Takes up as many lost deliveries as there are slots; the rest waits for its lease to end.
    async fn take_up(&self, lost: &[Hold]) -> Result<(), StoreError> {
        let context = &self.context;
        let slots = context.free_slots(lost.len());
        let Some(lost) = lost.get(..slots.len()).filter(|lost| !lost.is_empty()) else {
            return Ok(());
        };
        let sent = Instant::now();
        let deliveries =
            context.store.recover(&context.queue, &context.identity.consumer, lost).await?;
        context.report.recovered(deliveries.len());
        self.assign(deliveries, slots, sent).await;
        Ok(())
    }
}

/// Sends a request and waits for its answer, at a stop as well: it may carry entries.
async fn answer(
    reader: &mut dyn StreamReader,
    request: ReadRequest<'_>,
    stop: &CancellationToken,
) -> Result<ReadReply, StoreError> {
    if !request.acks.is_empty() {
        FailPoint::AckBeforeSend.reached();
    }
    if !Mutant::ReadDropped.is_seeded() {
        return reader.read(request).await;
    }
    tokio::select! {
        reply = reader.read(request) => reply,
        () = stop.cancelled() => Err(StoreError::AnswerLost("dropped, as seeded".into())),
    }
}

/// Larger reads cost the server long pauses and gain nothing.
const BATCH_MAX: usize = 500;
/// About as much is read at once: small beside the memory of the jobs, and enough to make round trips
/// cheap beside it.
const BATCH_BYTES: usize = 1024 * 1024;
/// Before the first read has shown how large entries are.
const ENTRY_BYTES_ASSUMED: usize = 16 * 1024;
/// From this many entries a read on, work comes in faster than one by one.
const BUSY_COUNT: usize = 32;
const LINGER: Duration = Duration::from_millis(1);
