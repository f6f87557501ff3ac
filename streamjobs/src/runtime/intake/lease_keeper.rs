//! Keeps leases: renews what is in flight, and cancels attempts whose lease is lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::model::entry::{EntryId, Hold};
use crate::runtime::observe::{JobEvent, QueueContext, QueueEvent};
use crate::runtime::state::{
    Activity, Clock, GroupEpoch, InFlight, RenewSignal, Renewal, stopped_within,
};
use crate::store::inspect::PendingFilter;
use crate::store::types::released_for;
use crate::store::{Renewed, StoreError};

/// The renewing loop of one queue.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) epoch: Arc<GroupEpoch>,
    pub(crate) renew: Arc<RenewSignal>,
}

impl LeaseKeeper {
    /// Renews until the stop, which comes after the last verdict.
    ///
    /// Each duty has a pace of its own. So attempts are fenced by the local clock even while a renewal waits for its
    /// answer, and a slow answer with the server's clock delays no renewal.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::join!(self.keep_renewing(&stop), self.keep_fencing(&stop), self.keep_clock(&stop));
    }

    async fn keep_renewing(&self, stop: &CancellationToken) {
        let (context, lease) = (&self.context, self.context.config.lease);
        // Twice in each renewal interval: an entry that came just after a tick is renewed in time.
        // A slow answer does not move the ticks after it.
        let mut ticks = interval(lease / 6);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.renew.requested() => {}
                _ = ticks.tick() => {}
            }
            let (age, keeps_places) =
                (context.config.renewal_age(), context.config.limit.is_some());
            let due = self.in_flight.due_for_renewal(Instant::now(), age, keeps_places);
            if let Err(error) = self.renew_due(&due).await {
                context.report.store_failed("renew leases", &error);
            }
        }
    }

    async fn keep_fencing(&self, stop: &CancellationToken) {
        let context = &self.context;
        while !stopped_within(stop, context.config.lease / 24).await {
            for hold in self.in_flight.fence(Instant::now(), context.config.fence()) {
                let why = "it could not be renewed in time";
                context.report.job(hold, JobEvent::LeaseLost { why });
            }
        }
    }

    /// Asks for the server's clock when neither a renewal nor the promoter has had an answer. This is
    /// how silences of the server are noticed.
    async fn keep_clock(&self, stop: &CancellationToken) {
        let (context, lease) = (&self.context, self.context.config.lease);
        let mut delay = lease / 6;
        while !stopped_within(stop, delay).await {
            let sent = Instant::now();
            // The promoter of an idle group runs every third of a lease, give or take a fifth.
            let idle = self.activity.is_idle(sent);
            let pace = if idle { lease / 12 * 5 } else { lease / 6 };
            delay = pace.saturating_sub(self.clock.silence(sent));
            if !delay.is_zero() {
                continue;
            }
            delay = pace;
            match context.store.now(&context.queue().stream).await {
                Ok(now) => {
                    context.report.answered();
                    self.clock.observe(sent, Instant::now(), now);
                }
                Err(error) => context.report.store_failed("read the server's clock", &error),
            }
        }
    }

    /// Renews in bounded steps, and each inlet by itself. What goes wrong with some entries, for example because the
    /// lane is gone, does not affect other entries. Returns the first error.
    async fn renew_due(&self, due: &[Hold]) -> Result<(), StoreError> {
        let mut renewed = Ok(());
        for of_inlet in due.chunk_by(|hold, next| hold.inlet == next.inlet) {
            for holds in of_inlet.chunks(BATCH_MAX) {
                renewed = renewed.and(self.renew_together(holds).await);
            }
        }
        renewed
    }

    async fn renew_together(&self, holds: &[Hold]) -> Result<(), StoreError> {
        let (epoch, sent) = (self.epoch.current(), Instant::now());
        self.in_flight.begin_renewing(holds);
        let renewed = self.context.renew(holds, sent).await;
        let renewed = renewed.inspect_err(|_| self.in_flight.renewal_failed(holds))?;
        self.in_flight.observe(&renewed, sent);
        let Renewed { now, answers, .. } = renewed;
        self.clock.observe(sent, Instant::now(), now);
        let (mut obsolete, mut taken) = (Vec::new(), None);
        for (hold, answer) in holds.iter().zip(answers) {
            let renewal = self.in_flight.renewed(*hold, answer, sent, epoch);
            taken = taken.or((renewal == Renewal::TakenEarly).then_some(*hold));
            obsolete.extend(self.report(*hold, renewal));
        }
        self.context.delete_obsolete(&obsolete).await;
        if let Some(hold) = taken {
            self.report_claimer(hold).await;
        }
        Ok(())
    }

    /// Reports which consumer took an entry although its lease had not ended, unless the entry is done by now or an
    /// operator released it.
    async fn report_claimer(&self, hold: Hold) {
        let context = &self.context;
        let after = hold.id.previous().unwrap_or(EntryId::ZERO);
        let (inlet, idle) = (hold.inlet, Duration::ZERO);
        let filter = PendingFilter { inlet, after, idle, consumer: None, limit: 1 };
        let rows = context.store.pending(context.queue(), filter).await;
        let rows = context.report.ok_or_report("read a pending entry", rows).unwrap_or_default();
        let is_other = |consumer: &str| {
            let own = consumer.is_empty() || consumer == context.consumer().as_str();
            !own && released_for(consumer).is_none()
        };
        let row = rows.into_iter().find(|row| row.id == hold.id && is_other(&row.consumer));
        if let Some(row) = row {
            context.report.queue(QueueEvent::ClaimedEarly { consumer: &row.consumer });
        }
    }

    /// Reports what a renewal found. Returns the dead letter to delete, if there is one.
    fn report(&self, hold: Hold, renewal: Renewal) -> Option<EntryId> {
        let event = match renewal {
            Renewal::Kept => return None,
            Renewal::Lost => JobEvent::LeaseLost { why: "another attempt has the entry" },
            Renewal::TakenEarly => JobEvent::LeaseLost {
                why: "another consumer took the entry before its lease ended",
            },
            Renewal::Removed => JobEvent::RemovedInFlight,
            Renewal::Trimmed(dead_letter) | Renewal::Obsolete(dead_letter) => {
                JobEvent::TrimmedInFlight { dead_letter }
            }
        };
        self.context.report.job(hold, event);
        match renewal {
            Renewal::Obsolete(dead_letter) => Some(dead_letter),
            _ => None,
        }
    }
}

const BATCH_MAX: usize = 500;
