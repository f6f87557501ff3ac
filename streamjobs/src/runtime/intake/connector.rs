//! Opens the reader's connection, and lets other loops end its waits.

use std::sync::Arc;
use std::time::Duration;

use crate::runtime::observe::events::QueueEvent;
use crate::runtime::observe::queue_context::QueueContext;
use crate::runtime::state::reader_unblock::{ReaderUnblock, ReaderWaits};
use crate::store::{StoreError, StreamReader};

/// Makes read connections, one after the other.
#[derive(Debug)]
pub(crate) struct Connector {
    context: Arc<QueueContext>,
    /// How long after the block time an answer may take.
    read_margin: Duration,
    unblock: Arc<ReaderUnblock>,
    opened_before: bool,
}

impl Connector {
    pub(crate) fn new(
        context: Arc<QueueContext>,
        read_margin: Duration,
        unblock: Arc<ReaderUnblock>,
    ) -> Self {
        Self { context, read_margin, unblock, opened_before: false }
    }

    /// Opens a connection.
    pub(crate) async fn open(&mut self) -> Result<Box<dyn StreamReader>, StoreError> {
        let (queue, consumer) = (self.context.queue(), self.context.consumer());
        let reader = self.context.store.reader(queue, consumer, self.read_margin).await?;
        if std::mem::replace(&mut self.opened_before, true) {
            self.context.report.queue(QueueEvent::Reconnected);
        }
        Ok(reader)
    }

    /// The next read may wait on the server. Until the guard is dropped, it can be unblocked.
    pub(crate) fn enter(&self, reader: &dyn StreamReader) -> ReaderWaits<'_> {
        self.unblock.enter(reader.waker())
    }
}
