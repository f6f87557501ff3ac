//! The metrics of publishing, for each stream.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use metrics::Counter;

use super::labels::{Durations, ERROR_TYPE, Family, Labels};
use super::table::{OPERATION, REPLACED, SENT, UNIQUE_REFUSED};
use super::words::Sending;
use crate::model::name::StreamName;

/// The handles of a client, made for each stream at the first publication to it.
#[derive(Debug, Default)]
pub(crate) struct PublishMetrics {
    streams: RwLock<HashMap<StreamName, Arc<StreamMetrics>>>,
}

/// The handles for publishing to one stream.
#[derive(Debug)]
pub(crate) struct StreamMetrics {
    sent: Family,
    send: Durations,
    /// Events that were refused because another event that counts as the same stands.
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
        let operation = labels.of_operation("send");
        let sent = |outcome: &&'static str| {
            let labels = operation.and("outcome", outcome);
            let is_ok = *outcome == Sending::Ok.word();
            if is_ok { labels } else { labels.and(ERROR_TYPE, outcome) }.counter(SENT)
        };
        Self {
            sent: Family::of(Sending::WORDS.iter().map(sent)),
            unique_refused: labels.counter(UNIQUE_REFUSED),
            replaced: labels.counter(REPLACED),
            send: Durations::new(OPERATION, operation.of_type("send")),
        }
    }

    /// Counts the events of one call.
    pub(crate) fn sent(&self, outcomes: impl IntoIterator<Item = Sending>, took: Duration) {
        let mut failed = None;
        for outcome in outcomes {
            self.sent.add(outcome as usize, 1);
            let error = (outcome != Sending::Ok).then(|| outcome.word());
            failed = failed.or(error);
        }
        self.send.record(took, failed);
    }
}
