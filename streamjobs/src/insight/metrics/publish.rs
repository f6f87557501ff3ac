//! The metrics of publishing, for each stream.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Histogram};

use super::labels::{Family, Labels};
use super::table::{OPERATION, REPLACED, SENT, UNIQUE_REFUSED};
use super::words::Sending;
use crate::model::name::StreamName;

/// The handles of a client, made for each stream when it is first published to.
#[derive(Debug, Default)]
pub(crate) struct PublishMetrics {
    streams: RwLock<HashMap<StreamName, Arc<StreamMetrics>>>,
}

/// The handles for publishing to one stream.
#[derive(Debug)]
pub(crate) struct StreamMetrics {
    sent: Family,
    send: Histogram,
    /// Events that were refused because another one stands.
    pub(crate) unique_refused: Counter,
    /// Debounced events that were replaced before they were due.
    pub(crate) replaced: Counter,
}

impl PublishMetrics {
    /// The handles for a stream.
    pub(crate) fn stream(&self, stream: &StreamName) -> Arc<StreamMetrics> {
        let known =
            self.streams.read().unwrap_or_else(PoisonError::into_inner).get(stream).cloned();
        known.unwrap_or_else(|| {
            let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
            let made = || Arc::new(StreamMetrics::new(stream));
            Arc::clone(streams.entry(stream.clone()).or_insert_with(made))
        })
    }
}

impl StreamMetrics {
    fn new(stream: &StreamName) -> Self {
        let labels = Labels::of_stream(stream, None);
        Self {
            sent: Family::new(SENT, &labels, "outcome", Sending::WORDS.iter().copied()),
            unique_refused: labels.counter(UNIQUE_REFUSED),
            replaced: labels.counter(REPLACED),
            send: labels.and("operation", "send").histogram(OPERATION),
        }
    }

    /// Events were sent in one call.
    pub(crate) fn sent(&self, outcomes: impl IntoIterator<Item = Sending>, took: Duration) {
        for outcome in outcomes {
            self.sent.add(outcome as usize, 1);
        }
        self.send.record(took);
    }
}
