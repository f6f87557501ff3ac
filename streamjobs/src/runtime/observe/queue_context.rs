//! What every loop of a queue gets: who works, on what, with which settings.

use std::sync::Arc;

use crate::handler::ConsumerIdentity;
use crate::model::config::QueueConfig;
use crate::model::name::{ConsumerName, StreamName};
use crate::runtime::observe::Report;
use crate::runtime::state::DoneNotes;
use crate::store::{Queue, Store};

/// One consumer of one queue: its names, its settings, its store and its report.
#[derive(Debug)]
pub(crate) struct QueueContext {
    pub(crate) identity: Arc<ConsumerIdentity>,
    /// The whole stream: the queue's stream may be one of its partitions.
    pub(crate) whole: StreamName,
    pub(crate) config: QueueConfig,
    /// The event types for which the consumer has handlers; `*` stands for a handler of every type.
    pub(crate) types: Vec<&'static str>,
    /// The store for the thread that does all of the runtime's input and output.
    pub(crate) store: Arc<dyn Store>,
    /// The same store for steps that carry payloads, so that renewals, heartbeats and requests for the
    /// clock do not wait for them.
    pub(crate) payload_store: Arc<dyn Store>,
    pub(crate) report: Report,
    /// Collects finished jobs for their notes; `None` if no job is noted.
    pub(crate) done_notes: Option<Arc<DoneNotes>>,
}

impl QueueContext {
    pub(crate) fn queue(&self) -> &Queue {
        &self.identity.queue
    }

    pub(crate) fn consumer(&self) -> &ConsumerName {
        &self.identity.consumer
    }
}
