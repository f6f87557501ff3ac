//! Streams that refuse events: their back-off, and what the replies to a batch mean for its rows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use streamjobs::error::PublishError;
use streamjobs::{EncodedEvent, EventId, StreamName};

use crate::backoff;
use crate::text;

/// A row of the outbox that can be published.
#[derive(Debug)]
pub(super) struct OutboxRow {
    pub(super) id: i64,
    pub(super) event: EncodedEvent,
    /// When it is due; `None` for an event that is published at once.
    pub(super) due: Option<SystemTime>,
}

impl OutboxRow {
    pub(super) fn place(&self) -> (i64, String) {
        (self.id, self.event.stream().to_string())
    }

    /// The key within which its order counts. Scheduled events have no order.
    fn key(&self) -> Option<&str> {
        self.event.key().filter(|_| self.due.is_none())
    }
}

/// What is needed from a row after its event was sent.
#[derive(Debug)]
pub(super) struct Sent {
    id: i64,
    stream: StreamName,
    event_id: EventId,
    key: Option<String>,
}

impl Sent {
    pub(super) fn of(row: &OutboxRow) -> Self {
        let (stream, event_id) = (row.event.stream().clone(), row.event.event_id().clone());
        Self { id: row.id, stream, event_id, key: row.key().map(str::to_owned) }
    }

    /// The result for a server that did not reply in time: the event may or may not be stored.
    pub(super) fn unanswered(&self) -> PublishError {
        PublishError::Unconfirmed {
            stream: self.stream.to_string(),
            event_id: self.event_id.clone(),
            source: "timed out".into(),
        }
    }
}

/// What the replies to a batch mean for its rows.
#[derive(Debug, Default)]
pub(super) struct BatchOutcome {
    /// Rows to delete: their events are stored.
    pub(super) stored: Vec<i64>,
    /// Rows that this client cannot publish, and why.
    pub(super) refused: Vec<(i64, String)>,
    /// The number of rows to retry, of those that were sent.
    pub(super) left: usize,
    /// The number of rows that were sent.
    pub(super) sent: usize,
    /// The number of stored events, by stream.
    pub(super) by_stream: HashMap<StreamName, u64>,
    /// Streams that refused events, with the first error of each.
    pub(super) failed: Vec<(StreamName, PublishError)>,
    /// Streams that failed before and have now accepted all events.
    pub(super) recovered: Vec<StreamName>,
}

/// The streams that refused events. A stream stays here until it accepts all its events of a batch.
#[derive(Debug, Default)]
pub(super) struct FailingStreams {
    streams: HashMap<StreamName, FailingStream>,
}

#[derive(Debug)]
struct FailingStream {
    failures: u32,
    until: Instant,
}

impl FailingStreams {
    /// The streams in back-off now.
    pub(super) fn blocked(&self, now: Instant) -> Vec<String> {
        let blocked = self.streams.iter().filter(|(_, failing)| failing.until > now);
        blocked.map(|(stream, _)| stream.to_string()).collect()
    }

    /// The time until the first of these streams is retried.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        let waits = self.streams.values().map(|failing| failing.until);
        waits.filter_map(|until| until.checked_duration_since(now)).min()
    }

    /// The rows to send now: all of them, but for a failing stream only the first row of each key.
    ///
    /// Events are sent in one request, and the refusal of one event does not stop the next. A
    /// server that refuses some events and accepts others, as it can at its memory limit, would
    /// change the order of a key. With one event per key in a request, this cannot happen again
    /// while the stream is failing.
    pub(super) fn choose(&self, rows: Vec<OutboxRow>) -> Vec<OutboxRow> {
        if self.streams.is_empty() {
            return rows;
        }
        let mut seen = HashSet::new();
        let mut first = |row: &OutboxRow| match row.key() {
            Some(key) if self.streams.contains_key(row.event.stream()) => {
                seen.insert((row.event.stream().clone(), key.to_owned()))
            }
            _ => true,
        };
        rows.into_iter().filter(|row| first(row)).collect()
    }

    /// Applies the replies, one for each row in the same order.
    ///
    /// A row that was stored after a refused row of its key is kept and published again later, so
    /// that every event is followed by all later events of its key.
    pub(super) fn record(
        &mut self,
        sent: Vec<Sent>,
        replies: impl IntoIterator<Item = Result<(), PublishError>>,
        now: Instant,
        random: f64,
    ) -> BatchOutcome {
        let mut outcome = BatchOutcome { sent: sent.len(), ..BatchOutcome::default() };
        let mut delayed = HashSet::new();
        let mut failed = BTreeMap::<String, (StreamName, PublishError)>::new();
        let mut streams = HashSet::new();
        for (Sent { id, stream, key, .. }, reply) in sent.into_iter().zip(replies) {
            streams.insert(stream.clone());
            let key = key.map(|key| (stream.clone(), key));
            match reply {
                Ok(()) if key.as_ref().is_some_and(|key| delayed.contains(key)) => {
                    outcome.left += 1;
                }
                Ok(()) => {
                    outcome.stored.push(id);
                    *outcome.by_stream.entry(stream).or_default() += 1;
                }
                // The client never sends an event that is too large, or cannot be scheduled.
                Err(
                    error @ (PublishError::TooLarge { .. }
                    | PublishError::Refused { .. }
                    | PublishError::TooFarAhead { .. }
                    | PublishError::TooManyFields { .. }),
                ) => {
                    outcome.refused.push((id, text::error_chain(&error)));
                }
                Err(error) => {
                    outcome.left += 1;
                    delayed.extend(key);
                    failed.entry(stream.to_string()).or_insert((stream, error));
                }
            }
        }
        let healthy = streams.into_iter().filter(|stream| !failed.contains_key(stream.as_str()));
        outcome.recovered =
            healthy.filter(|stream| self.streams.remove(stream).is_some()).collect();
        outcome.failed = failed.into_values().collect();
        for (stream, _) in &outcome.failed {
            self.block(stream, now, random);
        }
        outcome
    }

    /// Whether this failure of a stream is its first in a row.
    pub(super) fn is_new(&self, stream: &StreamName) -> bool {
        self.streams.get(stream).is_none_or(|failing| failing.failures == 1)
    }

    fn block(&mut self, stream: &StreamName, now: Instant, random: f64) {
        if !self.streams.contains_key(stream) && self.streams.len() >= STREAMS_MAX {
            // With this many failing streams the server itself fails, and the whole relay backs
            // off.
            return;
        }
        let failing =
            self.streams.entry(stream.clone()).or_insert(FailingStream { failures: 0, until: now });
        failing.failures = failing.failures.saturating_add(1);
        failing.until = now + backoff::delay(failing.failures, random);
    }
}

const STREAMS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> StreamName {
        StreamName::new(name).unwrap()
    }

    fn row(id: i64, on: &str, key: &'static str) -> OutboxRow {
        let mut fields =
            vec![("type".into(), "t".into()), ("sj-id".into(), format!("e-{id}").into())];
        if !key.is_empty() {
            fields.push(("sj-key".into(), key.into()));
        }
        let event = EncodedEvent::from_parts(stream(on), fields).unwrap();
        OutboxRow { id, event, due: None }
    }

    fn refused() -> PublishError {
        let event_id = EventId::new("e").unwrap();
        PublishError::Rejected { stream: "a".into(), event_id, source: "OOM".into() }
    }

    fn too_large() -> PublishError {
        let (stream, event_type) = ("a".to_owned(), "t".to_owned());
        PublishError::TooLarge { stream, event_type, bytes: 2, bytes_max: 1 }
    }

    fn record(
        failing: &mut FailingStreams,
        rows: &[OutboxRow],
        replies: Vec<Result<(), PublishError>>,
    ) -> BatchOutcome {
        failing.record(rows.iter().map(Sent::of).collect(), replies, Instant::now(), 1.0)
    }

    fn ids(rows: &[OutboxRow]) -> Vec<i64> {
        rows.iter().map(|row| row.id).collect()
    }

    #[test]
    fn an_event_stored_after_a_refused_one_of_its_key_is_published_again() {
        let mut failing = FailingStreams::default();
        let rows = [row(1, "a", "k"), row(2, "a", "k"), row(3, "a", "k"), row(4, "a", "l")];
        let outcome = record(&mut failing, &rows, vec![Ok(()), Err(refused()), Ok(()), Ok(())]);
        assert_eq!((outcome.stored, outcome.left), (vec![1, 4], 2));
        assert_eq!(outcome.failed.len(), 1);
    }

    #[test]
    fn an_event_that_was_not_sent_stays_for_another_time() {
        let mut failing = FailingStreams::default();
        let (stream, event_id) = ("a".to_owned(), EventId::new("e").unwrap());
        let unsent = PublishError::Unsent { stream, event_id, source: "no place".into() };
        let rows = [row(1, "a", "k"), row(2, "a", "k")];
        let outcome = record(&mut failing, &rows, vec![Err(unsent), Ok(())]);
        assert_eq!((outcome.left, outcome.stored.len(), outcome.refused.len()), (2, 0, 0));
    }

    #[test]
    fn events_without_a_key_or_of_other_streams_are_not_delayed() {
        let mut failing = FailingStreams::default();
        let rows = [row(1, "a", ""), row(2, "a", ""), row(3, "a", "k"), row(4, "b", "k")];
        let outcome =
            record(&mut failing, &rows, vec![Err(refused()), Ok(()), Err(refused()), Ok(())]);
        assert_eq!((outcome.stored, outcome.left), (vec![2, 4], 2));
        assert_eq!(failing.blocked(Instant::now()), ["a"]);
    }

    #[test]
    fn a_failing_stream_gets_one_event_of_each_key_until_it_accepts_all() {
        let mut failing = FailingStreams::default();
        let rows = || vec![row(1, "a", "k"), row(2, "a", "k"), row(3, "a", ""), row(4, "b", "k")];
        assert_eq!(ids(&failing.choose(rows())), [1, 2, 3, 4]);
        record(&mut failing, &rows()[..1], vec![Err(refused())]);
        assert_eq!(ids(&failing.choose(rows())), [1, 3, 4]);
        let outcome = record(&mut failing, &rows()[..1], vec![Ok(())]);
        assert_eq!(outcome.recovered, [stream("a")]);
        assert_eq!(ids(&failing.choose(rows())), [1, 2, 3, 4]);
    }

    #[test]
    fn the_back_off_of_a_stream_grows_with_each_failure() {
        let mut failing = FailingStreams::default();
        let now = Instant::now();
        let mut waits = Vec::new();
        for failures in 1..=9 {
            let sent = vec![Sent::of(&row(1, "a", "k"))];
            let outcome = failing.record(sent, [Err(refused())], now, 1.0);
            assert_eq!(failing.is_new(&outcome.failed[0].0), failures == 1);
            waits.push(failing.next(now).unwrap().as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
        assert_eq!(failing.blocked(now + Duration::from_secs(5)), <[String; 0]>::default());
    }

    #[test]
    fn an_event_that_is_too_large_is_refused_and_delays_no_other() {
        let mut failing = FailingStreams::default();
        let rows = [row(1, "a", "k"), row(2, "a", "k")];
        let outcome = record(&mut failing, &rows, vec![Err(too_large()), Ok(())]);
        assert_eq!(outcome.stored, [2]);
        assert_eq!(outcome.refused.len(), 1);
        assert!(outcome.failed.is_empty() && failing.blocked(Instant::now()).is_empty());
    }

    #[test]
    fn the_number_of_failing_streams_is_bounded() {
        let mut failing = FailingStreams::default();
        for number in 0..STREAMS_MAX + 5 {
            let rows = [row(1, &format!("s-{number}"), "")];
            record(&mut failing, &rows, vec![Err(refused())]);
        }
        assert_eq!(failing.streams.len(), STREAMS_MAX);
    }
}
