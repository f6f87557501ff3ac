//! Reads new entries: one read at a time, never more entries than free slots.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::model::entry::{Delivery, EntryId, Inlet};
use crate::runtime::intake::limited_reader::LimitedReader;
use crate::runtime::intake::{
    Admission, BATCH_MAX, Backlog, BatchSizer, GroupRepair, LaneTurn, Recovery, acks_worthwhile,
};
use crate::runtime::observe::{QueueContext, QueueEvent};
use crate::runtime::state::{
    Ack, Acks, LoopBackoff, LoopHealth, PauseGate, PlaceSignal, ReaderUnblock, Slot, SlotDemand,
    Slots, StartsFor, TakenStarts, entries_of, stopped_before,
};
use crate::store::{ReadReply, ReadRequest, ReaderSetup, StoreError, StreamReader};

/// The reading loop of one queue.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) connector: Connector,
    pub(crate) recovery: Recovery,
    pub(crate) repair: GroupRepair,
    pub(crate) admission: Arc<Admission>,
    pub(crate) gate: Arc<PauseGate>,
    /// Readers of other partitions may share these slots. In that case, this reader waits for entries without a slot.
    pub(crate) slots: Arc<Slots>,
    pub(crate) demand: Arc<SlotDemand>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) lane: LaneTurn,
    pub(crate) health: Arc<LoopHealth>,
    pub(crate) batch: BatchSizer,
}

/// What a round works with: free slots, and acknowledgements that will free theirs.
struct Intake {
    slots: Vec<Slot>,
    acks: Vec<Ack>,
}

/// What a round asks for.
struct ReadPlan {
    inlet: Inlet,
    count: usize,
    /// Whether the read may wait for new entries.
    may_wait: bool,
}

impl Reader {
    /// Reads until the stop. The dispatcher releases what a last read brings.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut backoff = LoopBackoff::new();
        let mut connection: Option<Box<dyn StreamReader>> = None;
        while !stopped_before(&stop, self.gate.opened()).await {
            if self.connector.waits_from_now_on(self.admission.starts.has_rate()) {
                connection = None;
            }
            let Some(reader) = connection.as_mut() else {
                match self.connector.open(&self.context).await {
                    Ok(reader) => connection = Some(reader),
                    Err(error) => {
                        self.context.report.store_failed("open the read connection", &error);
                        backoff.wait(&stop).await;
                    }
                }
                continue;
            };
            if self.recovery.is_due()
                && let Err(error) = self.recovery.run(&mut self.batch).await
            {
                self.failed("recover lost deliveries", &error, &mut connection).await;
                backoff.wait(&stop).await;
                continue;
            }
            match self.awaited(reader.as_mut(), &stop).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    self.failed("wait for entries", &error, &mut connection).await;
                    backoff.wait(&stop).await;
                    continue;
                }
            }
            if self.admission.starts.applies() && !self.may_start(&stop).await {
                continue;
            }
            let Some(intake) = self.next_intake(&stop).await else { break };
            match self.rounds(reader.as_mut(), intake, &stop).await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    self.failed("read", &error, &mut connection).await;
                    backoff.wait(&stop).await;
                }
            }
        }
        if let Err(error) = self.admission.starts.give_all_back().await {
            self.context.report.store_failed("give starts back", &error);
        }
    }

    /// Waits, without a slot, for the time of the next start. Returns whether it has come. If not, there may be
    /// something else to do.
    async fn may_start(&self, stop: &CancellationToken) -> bool {
        let starts = &self.admission.starts;
        if starts.is_shut() {
            if self.health.note_limited() {
                self.context.report.queue(QueueEvent::StartAwaited);
            }
        } else if !self.demand.is_raised() {
            return true;
        }
        let opened = async {
            starts.opened().await;
            if self.demand.is_raised() {
                starts.leave_to_claims().await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            opened = timeout(self.context.config.block, opened) => opened.is_ok(),
        }
    }

    /// Reports and repairs what an error says is broken.
    async fn failed(
        &mut self,
        operation: &'static str,
        error: &StoreError,
        connection: &mut Option<Box<dyn StreamReader>>,
    ) {
        self.repair.after(operation, error).await;
        match error {
            StoreError::GroupMissing | StoreError::Refused { .. } => {}
            StoreError::Unreachable(_)
            | StoreError::NotSent(_)
            | StoreError::AnswerLost(_)
            | StoreError::Protocol { .. } => {
                *connection = None;
                self.recovery.lost_replies.suspect();
                if error.is_unconfirmed() {
                    self.batch.lost();
                }
            }
        }
    }

    /// If this reader waits in the process, waits for entries before a slot is taken. Returns whether there may be
    /// entries. A slot that waits here would be missing for the other partitions.
    async fn awaited(
        &self,
        reader: &mut dyn StreamReader,
        stop: &CancellationToken,
    ) -> Result<bool, StoreError> {
        if !self.setup().waits_here {
            return Ok(true);
        }
        // The wait can be unblocked from here on, before the code below reads what other loops may
        // change.
        let _waits = self.connector.unblock.enter(reader.waker());
        if self.lane.signal.is_raised() || self.demand.is_raised() || stop.is_cancelled() {
            return Ok(true);
        }
        let ready = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(true),
            ready = reader.ready(self.context.config.block) => ready,
        };
        self.health.note_read(Instant::now());
        ready
    }

    /// Waits until there is a slot, or an acknowledgement that will free one. `None` at a stop.
    async fn next_intake(&mut self, stop: &CancellationToken) -> Option<Intake> {
        if self.demand.is_raised() && self.leaves_all(stop).await {
            let acks = || Intake { slots: Vec::new(), acks: self.acks.take() };
            return (!stop.is_cancelled()).then(acks);
        }
        let mut slots = match self.acks.shares_slots {
            true => Vec::new(),
            false => self.slots.take_free(BATCH_MAX),
        };
        if slots.is_empty() {
            if !self.slots.are_free() {
                self.health.note_saturated();
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                taken = self.slots.take_for_reading(BATCH_MAX) => slots = taken,
                () = self.worthwhile_acks() => {}
            }
        }
        let acks = self.acks.take();
        let room = BATCH_MAX.saturating_sub(slots.len() + acks.len());
        slots.extend(self.slots.take_free(room));
        Some(Intake { slots, acks })
    }

    fn setup(&self) -> ReaderSetup {
        self.connector.setup
    }

    /// Lets the reaper take free slots. If nothing is left to read, waits until there is something
    /// to acknowledge, until the demand has ended, until the stream is due to be read again, or
    /// until the stop. Returns true if the reaper may have all slots for now.
    async fn leaves_all(&mut self, stop: &CancellationToken) -> bool {
        tokio::task::yield_now().await;
        if !self.batch.is_drained() {
            return false;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.demand.lowered() => {}
            () = self.batch_of_acks() => {}
            () = sleep(DRAINED_WAIT) => self.batch.refill(),
        }
        self.demand.is_raised() && self.batch.is_drained()
    }

    /// Waits for acknowledgements: for a batch of them while entries come fast, otherwise for the
    /// first.
    async fn worthwhile_acks(&self) {
        if self.batch.is_busy() {
            self.batch_of_acks().await;
        } else {
            self.acks.filled(1).await;
        }
    }

    /// Waits until a part of the slots can be freed together, or for a millisecond and the first acknowledgement.
    /// Each wake-up costs as much as some jobs, so the first acknowledgement alone does not end the wait at once.
    async fn batch_of_acks(&self) {
        let batch = acks_worthwhile(self.slots.size());
        if timeout(LINGER, self.acks.filled(batch)).await.is_err() {
            self.acks.filled(1).await;
        }
    }

    /// One round trip, and others while each brings slots for the next one, which are not kept for anything else.
    async fn rounds(
        &mut self,
        reader: &mut dyn StreamReader,
        mut intake: Intake,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        loop {
            let slots = self.round(reader, intake, stop).await?;
            if slots.is_empty() || self.recovery.is_due() {
                return Ok(());
            }
            intake = Intake { slots, acks: self.acks.take() };
        }
    }

    /// One round trip: acknowledge, then read into the slots. Returns the slots of a set that the queue got in the
    /// meantime, if it has a backlog to read into them.
    async fn round(
        &mut self,
        reader: &mut dyn StreamReader,
        intake: Intake,
        stop: &CancellationToken,
    ) -> Result<Vec<Slot>, StoreError> {
        let Intake { mut slots, mut acks } = intake;
        let backlog = self.batch.take_backlog();
        let has_backlog = backlog.is_left() && self.keeps_on(stop);
        // Without acknowledgements the read may wait. It can be unblocked from here on, before the
        // plan reads what other loops may change: a change after this line ends the wait.
        let waits = acks.is_empty().then(|| self.connector.unblock.enter(reader.waker()));
        let Some(plan) = self.plan(slots.len(), &mut acks, stop) else {
            drop((waits, slots));
            let backlog = if has_backlog { backlog } else { Backlog::default() };
            return self.only_acknowledge(acks, backlog).await;
        };
        let (plan, starts) = match self.started(plan).await {
            Ok((plan, starts)) if plan.count > 0 => (plan, starts),
            started => {
                drop((waits, slots));
                self.only_acknowledge(acks, Backlog::default()).await?;
                return started.map(|_| Vec::new());
            }
        };
        // The other slots are for claims.
        slots.truncate(plan.count);
        self.lane.begins(plan.inlet);
        let entries = entries_of(&acks);
        let request = ReadRequest {
            acks: &entries,
            inlet: plan.inlet,
            count: plan.count,
            block: plan.may_wait.then_some(self.context.config.block),
        };
        let sent = Instant::now();
        let (reply, mut ahead) = {
            let read = pin!(self.context.read(reader, request, sent));
            self.slots.take_during(read, BATCH_MAX, has_backlog).await
        };
        drop(waits);
        let ReadReply { acknowledged, deliveries } = match reply {
            Ok(reply) => reply,
            Err(error) => {
                self.acks.put_back(acks);
                drop(slots);
                return Err(self.after_failure(error, plan.inlet, starts).await);
            }
        };
        self.health.note_read(Instant::now());
        let obsolete = self.finish(acks, &acknowledged, &mut slots);
        let read = match deliveries {
            Ok(deliveries) => {
                let unused = plan.count - deliveries.len().min(plan.count);
                self.learn(&plan, &deliveries, backlog);
                self.keep(unused, deliveries.len(), &mut slots, &mut ahead);
                self.admission.admit(deliveries, slots, sent).await;
                if let Some(starts) = starts {
                    self.admission.give_back(starts, unused, plan.inlet).await;
                }
                Ok(())
            }
            Err(error) => Err(self.after_failure(error, plan.inlet, starts).await),
        };
        // Last, because what was delivered is not renewed before it is registered.
        self.delete(&obsolete, &mut ahead).await;
        read.map(|()| ahead)
    }

    /// After a read that failed, its inlet may still have entries, and its starts may be unused.
    async fn after_failure(
        &self,
        error: StoreError,
        of: Inlet,
        taken: Option<TakenStarts>,
    ) -> StoreError {
        self.lane.failed(of);
        self.admission.give_back_after(&error, taken, of).await;
        error
    }

    /// Whether the next read follows at once if there is something left to read.
    fn keeps_on(&self, stop: &CancellationToken) -> bool {
        !stop.is_cancelled() && !self.gate.is_shut() && !self.admission.starts.applies()
    }

    /// Learns from what a read gave.
    fn learn(&mut self, plan: &ReadPlan, deliveries: &[Delivery], before: Backlog) {
        let to_its_end = deliveries.len() < plan.count;
        self.lane.served(plan.inlet, to_its_end);
        self.slots.note_read(!to_its_end);
        self.batch.observe(deliveries, to_its_end && !self.lane.signal.is_raised());
        self.batch.note_backlog(before.after(plan.inlet, !to_its_end));
    }

    /// Keeps slots of a set for the next read, if there is something to read: those that the queue got during the
    /// last one, and those that the last one did not fill, which are the first ones.
    fn keep(&self, unused: usize, used: usize, slots: &mut Vec<Slot>, ahead: &mut Vec<Slot>) {
        if self.batch.has_backlog() && self.slots.are_of_set() {
            let spare = slots.len().saturating_sub(used);
            ahead.extend(slots.drain(..unused.min(spare)));
        } else {
            ahead.clear();
        }
    }

    /// What to read; none if nothing may be read now.
    fn plan(
        &mut self,
        slots: usize,
        acks: &mut [Ack],
        stop: &CancellationToken,
    ) -> Option<ReadPlan> {
        let (inlet, lane_waits) = self.lane.next();
        let claims_want = self.demand.is_raised();
        // A slot that an acknowledgement frees here goes to the next job without being free in
        // between, unless it is another's turn. Slots that are to be removed are left out.
        let freed = acks.iter_mut().filter_map(|ack| ack.slot.as_mut());
        let free = (slots + self.slots.reuse(freed)).saturating_sub(self.slots.owed());
        let count = self.batch.count(free, claims_want);
        // The answer to the acknowledgements must not wait for new entries, a read of the stream in
        // between returns to a waiting lane at once, and one during claims to the reaper.
        let may_wait = acks.is_empty() && !lane_waits && !claims_want && !self.setup().waits_here;
        let may_read = count > 0 && !stop.is_cancelled() && !self.gate.is_shut();
        may_read.then_some(ReadPlan { inlet, count, may_wait })
    }

    /// Takes a start for each entry that is to be read, if the group has a rate. If the last read left nothing to
    /// read, takes only one start, because a start that waits for a second entry would be lost to other processes.
    /// The lane also gets only one, because all processes are told when a few jobs enter it.
    async fn started(&self, plan: ReadPlan) -> Result<(ReadPlan, Option<TakenStarts>), StoreError> {
        let starts = &self.admission.starts;
        if !starts.applies() {
            return Ok((plan, None));
        }
        let one_by_one = self.batch.is_drained() || plan.inlet.is_lane();
        let wanted = if one_by_one { 1 } else { plan.count };
        let taken = starts.take(wanted, StartsFor::Read).await?;
        Ok((ReadPlan { count: taken.count, ..plan }, Some(taken)))
    }

    /// Frees slots without reading, because the reaper waits for them or nothing may be read. After an error the
    /// acknowledgements wait for the next round, which the caller delays.
    async fn only_acknowledge(
        &mut self,
        acks: Vec<Ack>,
        backlog: Backlog,
    ) -> Result<Vec<Slot>, StoreError> {
        let (mut acknowledged, mut ahead, mut freed) = (Ok(0), Vec::new(), Vec::new());
        if !acks.is_empty() {
            let entries = entries_of(&acks);
            let request = pin!(self.context.acknowledge(&entries));
            let answer = self.slots.take_during(request, BATCH_MAX, backlog.is_left()).await;
            (acknowledged, ahead) = answer;
            let obsolete = self.finish(acks, &acknowledged, &mut freed);
            self.delete(&obsolete, &mut ahead).await;
        }
        drop(freed);
        if acknowledged.is_ok() {
            self.batch.note_backlog(backlog);
        }
        // A caller that queues for a slot gets it before this loop asks again.
        tokio::task::yield_now().await;
        acknowledged.map(|_| ahead)
    }

    /// Deletes dead letters of jobs that are done after all. Slots for the next read do not wait for that.
    async fn delete(&self, obsolete: &[EntryId], ahead: &mut Vec<Slot>) {
        if !obsolete.is_empty() {
            ahead.clear();
            self.context.delete_obsolete(obsolete).await;
        }
    }

    /// Ends acknowledged jobs, whose slots are then free for what the same round trip has read.
    /// Returns the dead letters to delete. Acknowledgements that failed wait for the next round.
    fn finish(
        &self,
        acks: Vec<Ack>,
        acknowledged: &Result<usize, StoreError>,
        slots: &mut Vec<Slot>,
    ) -> Vec<EntryId> {
        if acknowledged.is_err() {
            self.acks.put_back(acks);
            return Vec::new();
        }
        let (freed, obsolete) = self.acks.finish(acks);
        slots.extend(freed);
        obsolete
    }
}

/// Opens read connections, one after the other, and lets other loops end their waits.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) setup: ReaderSetup,
    pub(crate) unblock: Arc<ReaderUnblock>,
    pub(crate) opened_before: bool,
    /// Tells that places in the group's limit are free.
    pub(crate) freed: Arc<PlaceSignal>,
}

impl Connector {
    /// Once the group has a rate, the reader waits in this process before it takes a start. Returns whether that is
    /// new, so that the reader needs another connection.
    fn waits_from_now_on(&mut self, has_rate: bool) -> bool {
        let changes = has_rate && !self.setup.waits_here;
        if changes {
            self.setup.waits_here = true;
            // The old connection was not lost, so no reconnection is reported.
            self.opened_before = false;
        }
        changes
    }

    /// Opens a connection.
    async fn open(
        &mut self,
        context: &Arc<QueueContext>,
    ) -> Result<Box<dyn StreamReader>, StoreError> {
        let (queue, consumer) = (context.queue(), context.consumer());
        let mut reader = context.store.reader(queue, consumer, self.setup).await?;
        if let Some(rule) = context.config.limit {
            let (context, freed) = (Arc::clone(context), Arc::clone(&self.freed));
            reader = Box::new(LimitedReader::new(reader, context, rule, freed));
        }
        if std::mem::replace(&mut self.opened_before, true) {
            context.report.queue(QueueEvent::Reconnected);
        }
        Ok(reader)
    }
}

const LINGER: Duration = Duration::from_millis(1);
/// While claims take all slots, how soon the stream is read again after a read that reached its
/// end.
const DRAINED_WAIT: Duration = Duration::from_millis(50);
