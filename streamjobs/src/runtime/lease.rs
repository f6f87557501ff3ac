//! Keeps what is held: renews it, and tells attempts whose lease is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::entry::Hold;
use crate::runtime::held::Renewal;
use crate::runtime::pause::stopped_within;
use crate::runtime::queue::QueueContext;
use crate::store::StoreError;

/// The renewing loop of one queue.
pub(crate) struct LeaseKeeper {
    pub(crate) context: Arc<QueueContext>,
}

impl LeaseKeeper {
    /// Renews until the stop, which comes after the last verdict.
    ///
    /// The fence falls by our own clock, also while a renewal waits for its answer.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::join!(self.keep_renewing(&stop), self.keep_fencing(&stop));
    }

    async fn keep_fencing(&self, stop: &CancellationToken) {
        while !stopped_within(stop, self.context.config.lease / 12).await {
            let context = &self.context;
            for hold in context.held.fence(Instant::now(), context.config.fence()) {
                context.report.lease_lost(hold, "it could not be renewed in time");
            }
        }
    }

    async fn keep_renewing(&self, stop: &CancellationToken) {
        let lease = self.context.config.lease;
        // Twice in each renewal interval: what came in just after one tick is renewed in time. A
        // slow answer does not move the ticks after it.
        let mut ticks = interval(lease / 6);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            // What is a quarter of a lease old would be older than a third at the next tick.
            let due = self.context.held.due(Instant::now(), lease / 4);
            if let Err(error) = self.renew(&due).await {
                self.context.report.server_error("renew leases", &error);
            }
        }
    }

    /// Renews in bounded steps; with nothing to renew it still looks at the server's clock, which
    /// is how silences of the server are noticed.
    async fn renew(&self, due: &[Hold]) -> Result<(), StoreError> {
        let context = &self.context;
        if due.is_empty() {
            let sent = Instant::now();
            let now = context.store.now().await?;
            context.clock.observe(sent, Instant::now(), now);
        }
        for holds in due.chunks(BATCH_MAX) {
            let epoch = context.epoch.load(Ordering::Acquire);
            let sent = Instant::now();
            let renewed =
                context.store.renew(&context.queue, &context.place.consumer, holds).await?;
            context.clock.observe(sent, Instant::now(), renewed.now);
            for (hold, answer) in holds.iter().zip(renewed.answers) {
                match context.held.renewed(*hold, answer, sent, epoch) {
                    Renewal::Fine => {}
                    Renewal::Lost => {
                        context.report.lease_lost(*hold, "another attempt has the entry")
                    }
                    Renewal::Trimmed(letter) => context.report.trimmed_while_held(*hold, letter),
                }
            }
        }
        Ok(())
    }
}

const BATCH_MAX: usize = 500;
