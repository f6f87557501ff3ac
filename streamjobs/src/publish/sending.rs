//! How a client appends events to streams and to their partitions.

use std::collections::HashMap;
use std::time::Instant;

use futures_util::future::join_all;
use tracing::{Instrument, Span};

use crate::insight::metrics::Sending;
use crate::model::entry::{EntryId, Fields};
use crate::model::error::PublishError;
use crate::model::name::{EventId, StreamName};
use crate::model::trace::span;
use crate::publish::client::{Client, Published};
use crate::store::StoreError;

impl Client {
    /// Appends one event to a stream.
    pub(super) async fn send_one(
        &self,
        stream: &StreamName,
        id: EventId,
        fields: Fields,
        span: Span,
    ) -> Result<Published, PublishError> {
        let sent = Instant::now();
        let partition = self.layouts().of_event(stream, &fields).unwrap_or(stream);
        let append = self.store().append_one(partition, self.retention(stream), fields);
        let number = self.layouts().number(partition);
        let appended = match span.is_disabled() {
            true => append.await,
            false => append.instrument(span.clone()).await,
        };
        let answers = [confirm(stream, number, id, appended)];
        self.note_sent(stream, &answers, sent, &span);
        let [answer] = answers;
        answer
    }

    /// Appends to one stream, with a result for each entry: in order, as far as they go to the same
    /// partition.
    pub(super) async fn send_all(
        &self,
        stream: &StreamName,
        span: Span,
        entries: impl ExactSizeIterator<Item = Result<(EventId, Fields), PublishError>>,
    ) -> Vec<Result<Published, PublishError>> {
        let sent = Instant::now();
        let sending = async {
            match self.layouts().is_spread(stream) {
                true => self.spread(stream, entries).await,
                false => self.append_all(stream, stream, entries).await,
            }
        };
        let answers = sending.instrument(span.clone()).await;
        self.note_sent(stream, &answers, sent, &span);
        answers
    }

    /// Appends each entry to its partition: entries of one partition in order, different partitions
    /// concurrently.
    async fn spread(
        &self,
        stream: &StreamName,
        entries: impl ExactSizeIterator<Item = Result<(EventId, Fields), PublishError>>,
    ) -> Vec<Result<Published, PublishError>> {
        let mut answers = Vec::with_capacity(entries.len());
        let mut parts = HashMap::<&StreamName, (Vec<usize>, Vec<_>)>::new();
        for (place, entry) in entries.enumerate() {
            match entry {
                Ok((id, fields)) => {
                    let partition = self.layouts().of_event(stream, &fields).unwrap_or(stream);
                    let (places, entries) = parts.entry(partition).or_default();
                    places.push(place);
                    entries.push(Ok((id, fields)));
                }
                Err(error) => answers.push((place, Err(error))),
            }
        }
        let sending = parts.into_iter().map(async |(partition, (places, entries))| {
            let answers = self.append_all(stream, partition, entries.into_iter()).await;
            places.into_iter().zip(answers).collect::<Vec<_>>()
        });
        answers.extend(join_all(sending).await.into_iter().flatten());
        answers.sort_unstable_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Appends to one partition in order, with a result for each entry.
    async fn append_all(
        &self,
        stream: &StreamName,
        partition: &StreamName,
        mut entries: impl ExactSizeIterator<Item = Result<(EventId, Fields), PublishError>>,
    ) -> Vec<Result<Published, PublishError>> {
        let mut ids = Vec::with_capacity(entries.len());
        let mut appender = self.store().appender(partition, self.retention(stream));
        while entries.len() > 0 {
            // While the server stores some entries, the next entries are encoded.
            let mut step = Vec::with_capacity(PUBLISH_STEP);
            for entry in entries.by_ref().take(PUBLISH_STEP) {
                ids.push(entry.map(|(id, fields)| {
                    step.push(fields);
                    id
                }));
            }
            appender.push(step).await;
        }
        let mut stored = appender.finish().await.into_iter();
        let number = self.layouts().number(partition);
        let lost = || Err(StoreError::Protocol { command: "XADD" });
        let answer = |id: Result<EventId, PublishError>| {
            id.and_then(|id| confirm(stream, number, id, stored.next().unwrap_or_else(lost)))
        };
        ids.into_iter().map(answer).collect()
    }

    pub(super) fn note_sent<T>(
        &self,
        stream: &StreamName,
        answers: &[Result<T, PublishError>],
        sent: Instant,
        span: &Span,
    ) {
        let outcomes = answers.iter().filter_map(|answer| match answer {
            Ok(_) => Some(Sending::Ok),
            Err(PublishError::Rejected { .. }) => Some(Sending::Rejected),
            Err(PublishError::Unsent { .. }) => Some(Sending::Unsent),
            Err(PublishError::Unconfirmed { .. }) => Some(Sending::Unconfirmed),
            // This event was not to be sent.
            Err(_) => None,
        });
        self.publish_metrics().stream(stream).sent(outcomes, sent.elapsed());
        match answers.iter().find_map(|answer| answer.as_ref().err()) {
            Some(PublishError::Unconfirmed { .. }) => span::failed(span, "unconfirmed"),
            Some(PublishError::Rejected { .. }) => span::failed(span, "rejected"),
            Some(PublishError::Unsent { .. }) => span::failed(span, "unsent"),
            Some(_) => span::failed(span, "refused"),
            None => {}
        }
    }
}

/// What the answer of the store means for one event.
fn confirm(
    stream: &StreamName,
    partition: Option<u16>,
    event_id: EventId,
    answer: Result<EntryId, StoreError>,
) -> Result<Published, PublishError> {
    match answer {
        Ok(entry_id) => Ok(Published { entry_id, event_id, partition }),
        Err(error) => Err(failure(stream, event_id, error)),
    }
}

/// What an error of the store means for one event.
pub(super) fn failure(stream: &StreamName, event_id: EventId, error: StoreError) -> PublishError {
    let stream = stream.to_string();
    let is_unconfirmed = error.is_unconfirmed();
    match error {
        StoreError::NotSent(source) => PublishError::Unsent { stream, event_id, source },
        error if is_unconfirmed => {
            PublishError::Unconfirmed { stream, event_id, source: error.into() }
        }
        error => PublishError::Rejected { stream, event_id, source: error.into() },
    }
}

/// The number of events that are encoded while the server stores as many before them.
const PUBLISH_STEP: usize = 256;
