//! Recreates a group that a failed read says is lost.

use std::sync::Arc;

use tokio::time::Instant;

use crate::runtime::observe::{QueueContext, QueueEvent};
use crate::runtime::state::{Activity, GroupEpoch};
use crate::store::StoreError;

/// Repairs what a failed read says is broken: recreates a lost group.
#[derive(Debug)]
pub(crate) struct GroupRepair {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) epoch: Arc<GroupEpoch>,
}

impl GroupRepair {
    /// Reports an error, and recreates the group if the error says that it is lost.
    pub(super) async fn after(&self, operation: &'static str, error: &StoreError) {
        self.context.report.store_failed(operation, error);
        self.activity.mark_active(Instant::now());
        if error.is_silence() {
            self.context.report.queue(QueueEvent::ReadTimedOut);
        }
        if matches!(error, StoreError::GroupMissing) {
            self.recreate().await;
        }
    }

    /// Recreates the group at its durable floor, unless another process did.
    async fn recreate(&self) {
        match self.context.store.recreate(self.context.queue()).await {
            Ok(recreated) => {
                self.epoch.advance();
                if recreated {
                    self.context.report.queue(QueueEvent::GroupRecreated);
                }
            }
            Err(error) => self.context.report.store_failed("recreate the group", &error),
        }
    }
}
