//! How many bytes of events the relay sends at once, and how long their answers may take.

use std::collections::VecDeque;
use std::time::Duration;

use super::failing::OutboxRow;

/// How many bytes are sent at once: fewer on a link that proved too slow for more.
///
/// The answers to events that are sent at once count only together, so if they do not come in time, all of these
/// events are published again. With few bytes at once, these are few events, and events that were answered earlier
/// are not sent again.
#[derive(Debug)]
pub(super) struct SendBound {
    bytes: usize,
}

impl Default for SendBound {
    fn default() -> Self {
        Self { bytes: BYTES_MAX }
    }
}

impl SendBound {
    /// Takes the first rows to send at once, at least one of them, and says how many bytes they have.
    pub(super) fn take(&self, rows: &mut VecDeque<OutboxRow>) -> (Vec<OutboxRow>, usize) {
        let (mut taken, mut bytes) = (Vec::new(), 0_usize);
        while let Some(row) = rows.pop_front() {
            let more = bytes.saturating_add(row.event.bytes());
            if more > self.bytes && !taken.is_empty() {
                rows.push_front(row);
                break;
            }
            bytes = more;
            taken.push(row);
        }
        (taken, bytes)
    }

    /// This many bytes were answered within this time. If that was less than a quarter of the time that the client
    /// allows, twice as many may be sent at once.
    pub(super) fn answered(&mut self, took: Duration, bytes: usize) {
        if took < allowed(bytes) / 4 {
            self.bytes = (self.bytes * 2).min(BYTES_MAX);
        }
    }

    /// The bytes were not answered in time.
    pub(super) fn cut(&mut self) {
        self.bytes = (self.bytes / 2).max(BYTES_MIN);
    }
}

/// How long the answers to this many bytes may take. Where nothing else is on its way, the client waits for less
/// time, and knows which events were answered.
pub(super) fn limit(bytes: usize) -> Duration {
    allowed(bytes).clamp(LIMIT_MIN, LIMIT_MAX)
}

/// How long the client waits for the answers to this many bytes.
fn allowed(bytes: usize) -> Duration {
    ANSWER + Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND_MIN)
}

/// The client's limit for the answers to events that are sent when no other event is on its way.
const ANSWER: Duration = Duration::from_secs(3);
const BYTES_PER_SECOND_MIN: f64 = 100_000.0;
pub(super) const LIMIT_MIN: Duration = Duration::from_secs(10);
/// The longest time for answers. A single event of 5.7 MB reaches it.
pub(super) const LIMIT_MAX: Duration = Duration::from_secs(60);
const BYTES_MAX: usize = 256 * 1024;
const BYTES_MIN: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use streamjobs::{EncodedEvent, StreamName};

    use super::*;

    fn rows(sizes: &[usize]) -> VecDeque<OutboxRow> {
        let row = |(id, size): (i64, &usize)| {
            let data = "x".repeat(*size);
            let fields = vec![
                ("type".into(), "t".into()),
                ("sj-id".into(), format!("e-{id}").into()),
                ("data".into(), data.into()),
            ];
            let event = EncodedEvent::from_parts(StreamName::new("a").unwrap(), fields).unwrap();
            OutboxRow { id, event, due: None }
        };
        (1..).zip(sizes).map(row).collect()
    }

    fn taken(bound: &SendBound, rows: &mut VecDeque<OutboxRow>) -> Vec<i64> {
        bound.take(rows).0.iter().map(|row| row.id).collect()
    }

    #[test]
    fn rows_are_taken_in_order_by_their_bytes_and_a_large_one_alone() {
        let (bound, mut rows) =
            (SendBound::default(), rows(&[100_000, 100_000, 100_000, 900_000, 1]));
        assert_eq!(taken(&bound, &mut rows), [1, 2]);
        assert_eq!(taken(&bound, &mut rows), [3]);
        assert_eq!(taken(&bound, &mut rows), [4]);
        assert_eq!(taken(&bound, &mut rows), [5]);
        assert_eq!(taken(&bound, &mut rows), [] as [i64; 0]);
    }

    #[test]
    fn the_time_for_answers_follows_the_bytes() {
        assert_eq!(limit(BYTES_MAX), LIMIT_MIN);
        assert_eq!(limit(1_000_000), Duration::from_secs(13));
        assert_eq!(limit(100_000_000), LIMIT_MAX);
        let (_, bytes) = SendBound::default().take(&mut rows(&[90_000, 90_000]));
        assert!((180_000..181_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn less_is_sent_at_once_after_a_cut_and_more_only_where_there_is_much_time() {
        let mut bound = SendBound::default();
        bound.cut();
        assert_eq!(bound.bytes, BYTES_MAX / 2);
        bound.answered(Duration::from_secs(1), 100_000);
        assert_eq!(bound.bytes, BYTES_MAX / 2);
        bound.answered(Duration::from_millis(900), 100_000);
        assert_eq!(bound.bytes, BYTES_MAX);
        bound.answered(Duration::ZERO, 100_000);
        assert_eq!(bound.bytes, BYTES_MAX);
        (0..20).for_each(|_| bound.cut());
        assert_eq!(bound.bytes, BYTES_MIN);
    }
}
