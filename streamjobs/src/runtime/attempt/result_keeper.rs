//! Keeps the results of finished jobs.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::handler::Lease;
use crate::model::entry::Hold;
use crate::model::name::EventId;
use crate::runtime::observe::{JobEvent, QueueContext};
use crate::store::{ResultKept, Store};

/// The result of one finished job.
#[derive(Debug)]
pub(super) struct KeptFor<'a> {
    pub(super) hold: Hold,
    pub(super) event_id: &'a EventId,
    pub(super) lease: &'a Lease,
    /// How long the result is kept.
    pub(super) keep: Duration,
}

impl KeptFor<'_> {
    /// Keeps the result before the job is acknowledged.
    ///
    /// The job counts as done even if this fails: running it again would repeat its effects. While the server
    /// cannot be reached, the job could not be acknowledged either. So this is tried again for as long as this
    /// process has the job, and for ten seconds at most.
    pub(super) async fn keep(self, context: &QueueContext, store: &dyn Store, json: &Bytes) {
        let give_up = Instant::now() + TRIED_FOR;
        let mut pause = PAUSE_MIN;
        let why = loop {
            match store.keep_result(context.queue(), self.event_id, json, self.keep).await {
                Ok(ResultKept::Kept | ResultKept::Present) => return,
                Ok(ResultKept::NoMemory) => break "the server is out of memory".to_owned(),
                Err(error) => {
                    let may_try = error.is_transient() && !self.lease.has_to_stop();
                    if !may_try || Instant::now() + pause > give_up {
                        break error.to_string();
                    }
                }
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        };
        let event = JobEvent::ResultLost { event_id: self.event_id.as_str(), why: &why };
        context.report.job(self.hold, event);
    }
}

/// How long keeping a result is tried again while the server cannot be reached.
const TRIED_FOR: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
