//! Reads what the limit of a group admits.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use crate::model::limit::{HoldRule, HoldScope};
use crate::runtime::observe::{QueueContext, QueueEvent};
use crate::runtime::state::PlaceSignal;
use crate::store::{Delivery, Left, ReadReply, ReadRequest, StoreError, StreamReader};

/// Reads entries in steps that also decide which of them may run. The reader `behind` only waits for new entries.
pub(super) struct LimitedReader {
    behind: Box<dyn StreamReader>,
    context: Arc<QueueContext>,
    rule: HoldRule,
    freed: Arc<PlaceSignal>,
    /// How often in a row a wait has ended without a place that this process freed.
    refusals: u32,
    /// What the last read has left of the stream.
    left: Left,
    /// The error of a read that had brought something before it failed. The next read returns this
    /// error.
    failed: Option<StoreError>,
}

impl LimitedReader {
    pub(super) fn new(
        behind: Box<dyn StreamReader>,
        context: Arc<QueueContext>,
        rule: HoldRule,
        freed: Arc<PlaceSignal>,
    ) -> Self {
        Self { behind, context, rule, freed, refusals: 0, left: Left::More, failed: None }
    }

    /// Takes entries into `taken` until there are enough or nothing is left.
    async fn take(
        &mut self,
        request: &ReadRequest<'_>,
        taken: &mut Vec<Delivery>,
    ) -> Result<(), StoreError> {
        let (context, inlet) = (Arc::clone(&self.context), request.inlet);
        // The lane's signal says what is left in the lane. A take for fair shares examines both the
        // stream and the lane.
        let of_lane = inlet.is_lane() && self.rule.scope != HoldScope::Share;
        let mut is_watched = of_lane;
        for _ in 0..TAKES_MAX {
            let count = request.count.saturating_sub(taken.len());
            if count == 0 {
                break;
            }
            // A store of its own, so that renewals do not wait behind this answer.
            let store = &context.payload_store;
            let step = store.take(context.queue(), context.consumer(), inlet, count, self.rule);
            let answer = step.await?;
            taken.extend(answer.deliveries);
            context.report.queue(QueueEvent::Parked(answer.parked));
            if !of_lane {
                self.left = answer.left;
            }
            match answer.left {
                Left::More => {}
                Left::Full => break,
                Left::Drained if is_watched => break,
                Left::Drained => {
                    // This holds until another take has shown that nothing came before the watch.
                    self.left = Left::More;
                    self.behind.watch().await?;
                    is_watched = true;
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl StreamReader for LimitedReader {
    async fn read(&mut self, request: ReadRequest<'_>) -> Result<ReadReply, StoreError> {
        let mut taken = Vec::new();
        let result = match self.failed.take() {
            Some(error) => Err(error),
            None => self.take(&request, &mut taken).await,
        };
        if !taken.is_empty() {
            self.refusals = 0;
        }
        let deliveries = match result {
            Ok(()) => Ok(taken),
            Err(error) if !taken.is_empty() => {
                self.failed = Some(error);
                Ok(taken)
            }
            Err(error @ (StoreError::GroupMissing | StoreError::Refused { .. })) => Err(error),
            Err(error) => return Err(error),
        };
        // Nothing was acknowledged here: an acknowledgement also ends the job's place, which no
        // read does.
        Ok(ReadReply { acknowledged: Ok(0), deliveries })
    }

    async fn ready(&mut self, wait: Duration) -> Result<bool, StoreError> {
        if self.left == Left::More {
            return Ok(true);
        }
        if self.left == Left::Full {
            // Other processes free places too, and this process is not told.
            let pause = FULL_WAIT.saturating_mul(1 << self.refusals.min(FULL_DOUBLINGS));
            let is_freed = timeout(wait.min(pause), self.freed.freed()).await.is_ok();
            self.refusals = if is_freed { 0 } else { self.refusals.saturating_add(1) };
            return Ok(true);
        }
        self.refusals = 0;
        self.behind.ready(wait).await
    }

    async fn watch(&mut self) -> Result<(), StoreError> {
        self.behind.watch().await
    }

    fn waker(&self) -> u64 {
        self.behind.waker()
    }
}

/// How soon a take is first tried again while the limit admits nothing more. Each further pause is twice as long, up
/// to 0.8 s.
const FULL_WAIT: Duration = Duration::from_millis(100);
const FULL_DOUBLINGS: u32 = 3;
/// The most steps of one read. Each step examines at most 200 entries, or for fair shares 500 in addition to the free
/// slots.
const TAKES_MAX: usize = 20;
