//! Reads what the limit of a group admits.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use crate::model::limit::{HoldRule, HoldScope};
use crate::runtime::observe::{QueueContext, QueueEvent};
use crate::runtime::state::PlaceSignal;
use crate::store::{Delivery, Left, ReadReply, ReadRequest, StoreError, StreamReader};

/// Reads entries in steps that also decide which of them may run. The reader behind it only waits for new
/// ones.
pub(super) struct LimitedReader {
    behind: Box<dyn StreamReader>,
    context: Arc<QueueContext>,
    rule: HoldRule,
    freed: Arc<PlaceSignal>,
    /// How often in a row a wait has ended without a place that this process freed.
    refusals: u32,
    /// What the last read has left of the stream.
    left: Left,
    /// The error of a read that had brought something before, for the next one.
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

    /// Takes until there is enough or nothing is left, into `taken`.
    async fn take(
        &mut self,
        request: &ReadRequest<'_>,
        taken: &mut Vec<Delivery>,
    ) -> Result<(), StoreError> {
        let (context, inlet) = (Arc::clone(&self.context), request.inlet);
        // What is left in the lane, the lane's signal says. A take for shares looks at both.
        let of_lane = inlet.is_lane() && self.rule.scope != HoldScope::Share;
        let mut is_watched = of_lane;
        for _ in 0..TAKES_MAX {
            let count = request.count.saturating_sub(taken.len());
            if count == 0 {
                break;
            }
            // Renewals do not wait behind its answer.
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
                    // Until another take has said that nothing came before the watch.
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
        // Acknowledgements end places as well, which no read does.
        Ok(ReadReply { acknowledged: Ok(0), deliveries })
    }

    async fn ready(&mut self, wait: Duration) -> Result<bool, StoreError> {
        if self.left == Left::More {
            return Ok(true);
        }
        if self.left == Left::Full {
            // Other processes free places too, and say nothing.
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

/// While the limit admits nothing more, how soon it is tried again for the first time: then twice as long each
/// time, up to 0.8 s.
const FULL_WAIT: Duration = Duration::from_millis(100);
const FULL_DOUBLINGS: u32 = 3;
/// Steps of one read: each looks at 200 entries at most, or 500 beside the free slots for fair shares.
const TAKES_MAX: usize = 20;
