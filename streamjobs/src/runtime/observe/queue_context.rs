//! What every loop of a queue is given: who works, on what, with which settings.

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
    /// The stream of which the queue's stream is a partition, or that stream itself.
    pub(crate) whole: StreamName,
    pub(crate) config: QueueConfig,
    /// The event types that the consumer has handlers for; `*` for one that takes every type.
    pub(crate) types: Vec<&'static str>,
    /// The store of the thread that does all of the runtime's input and output.
    pub(crate) store: Arc<dyn Store>,
    /// The same for steps that carry payloads: renewals, heartbeats and the clock do not wait for them.
    pub(crate) payload_store: Arc<dyn Store>,
    pub(crate) report: Report,
    /// Where jobs that are done go on their way to the notes; `None` if none is noted.
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
