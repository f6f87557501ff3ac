//! Where handlers work, and tell what came of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamjobs::{Job, JobError};
use tokio::time::sleep;

use crate::live::levers::Levers;
use crate::live::orders::{OrderEvent, POISON};

/// What became of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Became {
    Done,
    Failed,
    Dropped,
}

/// One delivery, as the handler itself tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) group: String,
    pub(crate) consumer: String,
    pub(crate) event_id: String,
    pub(crate) entry_id: String,
    pub(crate) event_type: String,
    pub(crate) order_id: String,
    pub(crate) customer: String,
    pub(crate) amount: String,
    pub(crate) delivery_count: u64,
    pub(crate) became: Became,
}

/// Where handlers work.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) levers: Levers,
    tell: Arc<dyn Fn(Told) + Send + Sync>,
}

impl Desk {
    /// What handlers tell goes to `tell`: that is the effect of a job, which has happened once it
    /// returns.
    pub(crate) fn new(levers: Levers, tell: impl Fn(Told) + Send + Sync + 'static) -> Self {
        Self { levers, tell: Arc::new(tell) }
    }

    /// Does a job as slowly, and as badly, as the levers say.
    pub(crate) async fn work(&self, event: &OrderEvent, job: &Job) -> Result<(), JobError> {
        let setting = self.levers.setting();
        sleep(setting.latency()).await;
        let order = event.order();
        let told = |became| Told {
            group: job.group().to_string(),
            consumer: job.consumer().to_string(),
            event_id: job.event_id().to_string(),
            entry_id: job.entry_id().to_string(),
            event_type: job.entry().event_type().unwrap_or_default().to_owned(),
            order_id: order.order_id.clone(),
            customer: order.customer.clone(),
            amount: order.amount.clone(),
            delivery_count: job.delivery_count(),
            became,
        };
        if order.customer == POISON && !setting.repaired {
            (self.tell)(told(Became::Failed));
            return Err("nobody can do an order of nobody".into());
        }
        if fastrand::u8(0..100) < setting.failure_percent {
            (self.tell)(told(Became::Failed));
            return Err("the failure lever is set".into());
        }
        (self.tell)(told(Became::Done));
        Ok(())
    }

    /// Whether this delivery is to be dropped, which is told.
    pub(crate) fn drops(&self, job: &Job) -> bool {
        if !self.levers.take_drop(job.consumer().as_str()) {
            return false;
        }
        let entry = job.entry();
        let text = |name| entry.text(name).unwrap_or_default().to_owned();
        (self.tell)(Told {
            group: job.group().to_string(),
            consumer: job.consumer().to_string(),
            event_id: job.event_id().to_string(),
            entry_id: job.entry_id().to_string(),
            event_type: entry.event_type().unwrap_or_default().to_owned(),
            order_id: text("order_id"),
            customer: text("customer"),
            amount: text("amount"),
            delivery_count: job.delivery_count(),
            became: Became::Dropped,
        });
        true
    }
}
