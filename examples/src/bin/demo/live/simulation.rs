//! The simulated work of handlers, and their own record of each delivery.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamjobs::{Job, JobError};
use tokio::time::sleep;

use crate::live::orders::{Order, OrderEvent, POISON};
use crate::live::settings::Settings;

/// The result of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeliveryResult {
    Done,
    Failed,
    Dropped,
}

/// One delivery, as the handler reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delivery {
    pub(crate) group: String,
    pub(crate) consumer: String,
    pub(crate) event_id: String,
    pub(crate) entry_id: String,
    pub(crate) event_type: String,
    pub(crate) order_id: String,
    pub(crate) customer: String,
    pub(crate) amount: String,
    pub(crate) delivery_count: u64,
    pub(crate) result: DeliveryResult,
}

impl Delivery {
    fn of(job: &Job, order: Order, result: DeliveryResult) -> Self {
        let Order { order_id, customer, amount } = order;
        Self {
            group: job.group().to_string(),
            consumer: job.consumer().to_string(),
            event_id: job.event_id().to_string(),
            entry_id: job.entry_id().to_string(),
            event_type: job.entry().event_type().unwrap_or_default().to_owned(),
            order_id,
            customer,
            amount,
            delivery_count: job.delivery_count(),
            result,
        }
    }
}

/// Simulates work, and reports each delivery.
#[derive(Clone)]
pub(crate) struct Simulation {
    pub(crate) settings: Settings,
    report: Arc<dyn Fn(Delivery) + Send + Sync>,
}

impl Simulation {
    /// `report` is called for each delivery. It is the effect of a job: once it returns, the job has
    /// been done.
    pub(crate) fn new(
        settings: Settings,
        report: impl Fn(Delivery) + Send + Sync + 'static,
    ) -> Self {
        Self { settings, report: Arc::new(report) }
    }

    /// Does a job with the latency and the failures of the settings.
    pub(crate) async fn work(&self, event: &OrderEvent, job: &Job) -> Result<(), JobError> {
        let setting = self.settings.setting();
        sleep(setting.latency()).await;
        let order = event.order();
        let report = |result| (self.report)(Delivery::of(job, order.clone(), result));
        if order.customer == POISON && !setting.repaired {
            report(DeliveryResult::Failed);
            return Err("poison order: no handler can process it".into());
        }
        if fastrand::u8(0..100) < setting.failure_percent {
            report(DeliveryResult::Failed);
            return Err("simulated failure".into());
        }
        report(DeliveryResult::Done);
        Ok(())
    }

    /// Whether to drop this delivery. If so, reports it.
    pub(crate) fn drops(&self, job: &Job) -> bool {
        if !self.settings.take_drop(job.consumer().as_str()) {
            return false;
        }
        let entry = job.entry();
        let text = |name| entry.text(name).unwrap_or_default().to_owned();
        let (order_id, customer, amount) = (text("order_id"), text("customer"), text("amount"));
        let order = Order { order_id, customer, amount };
        (self.report)(Delivery::of(job, order, DeliveryResult::Dropped));
        true
    }
}
