//! Keeps what is held: renews it, and tells attempts whose lease is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::model::entry::Hold;
use crate::runtime::consumer::queue::QueueContext;
use crate::runtime::state::in_flight::Renewal;
use crate::runtime::state::wait::stopped_within;
use crate::store::{Renewed, StoreError};

/// The renewing loop of one queue.
pub(crate) struct LeaseKeeper {
    pub(crate) context: Arc<QueueContext>,
}

impl LeaseKeeper {
    /// Renews until the stop, which comes after the last verdict.
    ///
    /// Each duty has its own pace: the fence falls by our own clock, also while a renewal waits for
    /// its answer, and a slow look at the server's clock holds no renewal up.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::join!(self.keep_renewing(&stop), self.keep_fencing(&stop), self.keep_looking(&stop));
    }

    async fn keep_renewing(&self, stop: &CancellationToken) {
        let (context, lease) = (&self.context, self.context.config.lease);
        // Twice in each renewal interval: what came in just after one tick is renewed in time. A
        // slow answer does not move the ticks after it.
        let mut ticks = interval(lease / 6);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = context.renew_now.notified() => {}
                _ = ticks.tick() => {}
            }
            let due = context.held.due(Instant::now(), context.config.renewal_age());
            if let Err(error) = self.renew(&due).await {
                context.report.server_error("renew leases", &error);
            }
        }
    }

    async fn keep_fencing(&self, stop: &CancellationToken) {
        while !stopped_within(stop, self.context.config.lease / 24).await {
            let context = &self.context;
            for hold in context.held.fence(Instant::now(), context.config.fence()) {
                context.report.lease_lost(hold, "it could not be renewed in time");
            }
        }
    }

    /// Looks at the server's clock where neither a renewal nor the promoter does, which is how
    /// silences of the server are noticed.
    async fn keep_looking(&self, stop: &CancellationToken) {
        let (context, lease) = (&self.context, self.context.config.lease);
        let mut delay = lease / 6;
        while !stopped_within(stop, delay).await {
            let sent = Instant::now();
            // The promoter of a quiet group looks every third of a lease, give or take a fifth.
            let quiet = context.quiet.is_quiet(sent);
            let pace = if quiet { lease / 12 * 5 } else { lease / 6 };
            delay = pace.saturating_sub(context.clock.silence(sent));
            if !delay.is_zero() {
                continue;
            }
            delay = pace;
            match context.store.now().await {
                Ok(now) => context.clock.observe(sent, Instant::now(), now),
                Err(error) => context.report.server_error("look at the clock", &error),
            }
        }
    }

    /// Renews in bounded steps.
    async fn renew(&self, due: &[Hold]) -> Result<(), StoreError> {
        let context = &self.context;
        for holds in due.chunks(BATCH_MAX) {
            let epoch = context.epoch.load(Ordering::Acquire);
            let sent = Instant::now();
            context.held.begin_renewing(holds);
            let renewed =
                context.store.renew(&context.queue, &context.identity.consumer, holds).await;
            context.report.renewed(sent.elapsed());
            let Renewed { now, answers } =
                renewed.inspect_err(|_| context.held.renewal_failed(holds))?;
            context.clock.observe(sent, Instant::now(), now);
            let mut needless = Vec::new();
            for (hold, answer) in holds.iter().zip(answers) {
                match context.held.renewed(*hold, answer, sent, epoch) {
                    Renewal::Fine => {}
                    Renewal::Lost => {
                        context.report.lease_lost(*hold, "another attempt has the entry")
                    }
                    Renewal::Trimmed(letter) => context.report.trimmed_while_held(*hold, letter),
                    Renewal::Needless(letter) => {
                        context.report.trimmed_while_held(*hold, letter);
                        needless.push(letter);
                    }
                }
            }
            context.take_letters_back(&needless).await;
        }
        Ok(())
    }
}

const BATCH_MAX: usize = 500;
