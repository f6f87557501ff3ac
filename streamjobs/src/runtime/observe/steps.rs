//! Steps of the store that are timed, run in a span, report what they found, or have fail points.
//! For all other steps, loops call the store itself.

use tokio::time::Instant;
use tracing::Instrument;

use crate::model::entry::{Delivery, EntryId, Fields, Hold, Inlet};
use crate::model::fail_point::FailPoint;
use crate::model::limit::HoldRule;
use crate::model::name::EventId;
use crate::model::trace::span;
use crate::runtime::observe::{QueueContext, QueueEvent};
use crate::store::{
    ClaimedPage, FenceResult, Finished, IdleClaim, NewRetry, ReadReply, ReadRequest, Renewed,
    StandIn, StoreError, StreamReader, UniqueAck,
};

impl QueueContext {
    /// Acknowledges, then reads, in one round trip. Callers await it even at a stop: the answer may
    /// carry entries.
    pub(crate) async fn read(
        &self,
        reader: &mut dyn StreamReader,
        request: ReadRequest<'_>,
        sent: Instant,
    ) -> Result<ReadReply, StoreError> {
        let acks = request.acks.len();
        if acks > 0 {
            FailPoint::AckBeforeSend.reached();
        }
        let answer = reader.read(request).await;
        // The duration includes the wait for entries.
        let error = answer.as_ref().err().map(StoreError::kind);
        self.report.metrics.receive.record(sent.elapsed(), error);
        let reply = answer?;
        self.report.answered();
        match &reply.acknowledged {
            Ok(confirmed) if acks > 0 => {
                FailPoint::AckAfterSend.reached();
                self.acknowledged(acks, *confirmed);
            }
            Ok(_) => {}
            Err(error) => self.report.store_failed("acknowledge", error),
        }
        if reply.deliveries.as_ref().is_ok_and(|deliveries| !deliveries.is_empty()) {
            FailPoint::ReadAfterReply.reached();
        }
        Ok(reply)
    }

    /// Recovers entries of this consumer whose delivery was lost.
    pub(crate) async fn recover(&self, holds: &[Hold]) -> Result<Vec<Delivery>, StoreError> {
        let deliveries = self.payload_store.recover(self.queue(), self.consumer(), holds).await?;
        self.report.queue(QueueEvent::Recovered(deliveries.len()));
        if !deliveries.is_empty() {
            FailPoint::ReadAfterReply.reached();
        }
        Ok(deliveries)
    }

    /// Claims idle entries of one page of the pending list.
    pub(crate) async fn claim_idle(&self, claim: IdleClaim<'_>) -> Result<ClaimedPage, StoreError> {
        let page = self.payload_store.claim_idle(self.queue(), self.consumer(), claim).await?;
        match &page {
            ClaimedPage::Page { claimed, trimmed, left, released, .. } => {
                self.report.queue(QueueEvent::PayloadsUnstored(*left));
                self.report.queue(QueueEvent::Trimmed(*trimmed));
                if !claimed.is_empty() {
                    FailPoint::ClaimAfterReply.reached();
                }
                self.report.queue(QueueEvent::Claimed(claimed.len() - released));
                self.report.queue(QueueEvent::ClaimedReleased(*released));
            }
            ClaimedPage::ClockOff { .. } => {
                let why = "the server's clock is not where it was expected";
                self.report.queue(QueueEvent::ClaimRefused { why });
            }
        }
        Ok(page)
    }

    /// Renews leases.
    pub(crate) async fn renew(&self, holds: &[Hold], sent: Instant) -> Result<Renewed, StoreError> {
        let renewed = self.store.renew(self.queue(), self.consumer(), holds).await;
        self.report.metrics.renew.record(sent.elapsed());
        renewed.inspect(|_| self.report.answered())
    }

    /// Acknowledges entries. Returns how many were still pending.
    pub(crate) async fn acknowledge(&self, acks: &[(Inlet, EntryId)]) -> Result<usize, StoreError> {
        FailPoint::AckBeforeSend.reached();
        let step = self.store.acknowledge(self.queue(), acks);
        let confirmed = self.settle("ack", acks.len(), None, step).await?;
        FailPoint::AckAfterSend.reached();
        self.acknowledged(acks.len(), confirmed);
        Ok(confirmed)
    }

    /// Acknowledges entries that other consumers may own by now.
    pub(crate) async fn acknowledge_late(
        &self,
        acks: &[(Inlet, EntryId)],
    ) -> Result<(), StoreError> {
        FailPoint::AckBeforeSend.reached();
        let step = self.store.acknowledge_late(self.queue(), Some(self.consumer()), acks);
        let confirmed = self.settle("ack", acks.len(), None, step).await?;
        FailPoint::AckAfterSend.reached();
        self.acknowledged(acks.len(), confirmed);
        Ok(())
    }

    /// Acknowledges entries of jobs that give their places in the group's limit back.
    pub(crate) async fn finish(
        &self,
        rule: HoldRule,
        acks: &[(Inlet, EntryId)],
    ) -> Result<Finished, StoreError> {
        FailPoint::AckBeforeSend.reached();
        let step = self.store.finish(self.queue(), rule, acks);
        let finished = self.settle("ack", acks.len(), None, step).await?;
        FailPoint::AckAfterSend.reached();
        self.acknowledged(acks.len(), finished.acknowledged);
        Ok(finished)
    }

    /// Acknowledges entries whose locks end with them. Returns for each whether it was still
    /// pending.
    pub(crate) async fn acknowledge_unique(
        &self,
        acks: &[UniqueAck],
    ) -> Vec<Result<bool, StoreError>> {
        FailPoint::AckBeforeSend.reached();
        let mut answers = Vec::new();
        let steps = async {
            answers = self.store.acknowledge_unique(self.queue(), acks).await;
            let failed = answers.iter().find_map(|answer| answer.as_ref().err());
            failed.map_or(Ok(()), |error| Err(error.copy()))
        };
        // Each answer says what failed.
        if self.settle("ack", acks.len(), None, steps).await.is_ok() {
            FailPoint::AckAfterSend.reached();
        }
        let answered = answers.iter().filter_map(|answer| answer.as_ref().ok());
        let confirmed = answered.clone().filter(|was_pending| **was_pending).count();
        self.acknowledged(answered.count(), confirmed);
        answers
    }

    /// Stores a dead letter and acknowledges its entry.
    pub(crate) async fn store_dead_letter(
        &self,
        hold: Hold,
        stand_in: Option<StandIn>,
        dead_letter: &Fields,
    ) -> Result<FenceResult, StoreError> {
        FailPoint::DeadBeforeStore.reached();
        let (queue, consumer) = (self.queue(), self.consumer());
        let store = &self.payload_store;
        let answer = store.store_dead_letter(queue, consumer, hold, stand_in, dead_letter).await?;
        FailPoint::DeadAfterStore.reached();
        Ok(answer)
    }

    /// Schedules retries in one request. Returns an answer for each. The span of a single job has
    /// its event id.
    pub(crate) async fn schedule_retries(
        &self,
        retries: &[NewRetry],
        event_id: Option<&EventId>,
    ) -> Vec<Result<FenceResult, StoreError>> {
        let mut answers = Vec::new();
        let steps = async {
            let (queue, consumer) = (self.queue(), self.consumer());
            answers = self.payload_store.schedule_retries(queue, consumer, retries).await;
            answers
                .iter()
                .find_map(|answer| Some(Err(answer.as_ref().err()?.copy())))
                .unwrap_or(Ok(()))
        };
        // Each answer says what failed.
        let _first = self.settle("retry", retries.len(), event_id, steps).await;
        answers
    }

    /// Releases an entry, uncounted.
    pub(crate) async fn release(&self, hold: Hold) -> Result<FenceResult, StoreError> {
        let (queue, consumer) = (self.queue(), self.consumer());
        let answers = self.store.release(queue, consumer, &[hold]).await?;
        answers.into_iter().next().ok_or(StoreError::Protocol { command: "release" })
    }

    /// Deletes dead letters that were stored for trimmed payloads of jobs that turned out to be
    /// done.
    pub(crate) async fn delete_obsolete(&self, dead_letters: &[EntryId]) {
        if dead_letters.is_empty() {
            return;
        }
        // Not repeated: a letter that stays says "outcome unknown", which is not wrong.
        if let Err(error) = self.store.purge(self.queue(), dead_letters).await {
            self.report.store_failed("delete an obsolete dead letter", &error);
        }
    }

    /// Runs the steps that settle jobs, in one span and with their duration measured. `operation`
    /// is one of a few words; a single job has its event id.
    pub(crate) async fn settle<T>(
        &self,
        operation: &'static str,
        jobs: usize,
        event_id: Option<&EventId>,
        steps: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let queue = self.queue();
        let span = span::settle(operation, &queue.stream, &queue.group, jobs, event_id);
        let sent = Instant::now();
        let answer = steps.instrument(span.clone()).await;
        let error = answer.as_ref().err().map(StoreError::kind);
        self.report.metrics.settled(operation, sent.elapsed(), error);
        answer.inspect_err(|error| span::failed(&span, error.kind()))
    }

    fn acknowledged(&self, asked: usize, confirmed: usize) {
        self.report.queue(QueueEvent::Acknowledged(confirmed));
        let late = asked.saturating_sub(confirmed);
        self.report.queue(QueueEvent::AcknowledgedLate(late));
    }
}
