//! Scheduling: events that wait on the server until they are due, and then enter their stream.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use tokio::time::sleep;
use tracing::{Instrument, Span};

use crate::model::config::Retention;
use crate::model::entry::Fields;
use crate::model::error::PublishError;
use crate::model::event::{Event, stream_of};
use crate::model::name::{EventId, StreamName};
use crate::model::record::FIELDS_CARRIED_MAX;
use crate::model::trace::span;
use crate::publish::client::{Client, Published};
use crate::publish::encoded::{self, EncodedEvent};
use crate::publish::sending::failure;
use crate::store::{Due, Entered, NewScheduled, Scheduling, StoreError};

/// What became of an event that was published for a time. Exhaustive: adding a variant is a breaking
/// change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheduled {
    /// It waits on the server.
    Waits(WaitingEvent),
    /// It was due already, and is in its stream.
    Published(Published),
}

/// An event that waits until it is due.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingEvent {
    /// The event id, under which it is cancelled or rescheduled.
    pub event_id: EventId,
    /// When it is due, by the server's clock in milliseconds since 1970.
    pub due: u64,
    /// Whether an event with this id was already waiting. If so, that event stays, with its own time and payload, and
    /// this call has changed nothing.
    pub repeated: bool,
    /// The number of the partition in which it waits; `None` if the stream has only one.
    pub partition: Option<u16>,
}

impl WaitingEvent {
    /// When it is due, by the server's clock.
    #[must_use]
    pub fn due_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.due)
    }
}

impl Scheduled {
    /// The event id.
    #[must_use]
    pub fn event_id(&self) -> &EventId {
        match self {
            Self::Waits(event) => &event.event_id,
            Self::Published(published) => &published.event_id,
        }
    }

    /// Whether it waits.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(self, Self::Waits(_))
    }
}

impl Client {
    /// Publishes an event after a delay, under a new event id. It waits on the server, and no process has
    /// to remember it.
    ///
    /// When this returns `Ok`, the server has stored the event. It enters its stream when the delay is over by the
    /// server's clock, or at most half a second later. This needs a runtime with a handler of the stream that runs in
    /// some process and reaches the server. Until the event has entered, no group has a job for it. Without a delay
    /// it is published at once.
    ///
    /// [`scheduled`](Self::scheduled) lists and cancels events that wait. See `docs/scheduled.md`.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(streamjobs::Event, Serialize, Deserialize)]
    /// # #[event(stream = "orders", type = "order.reminder")]
    /// # struct Reminder { order: String }
    /// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let reminder = Reminder { order: "o-1".into() };
    /// let hour = Duration::from_secs(3_600);
    /// let scheduled = client.publish_in(hour, &reminder).await?;
    /// client.scheduled("orders")?.cancel(scheduled.event_id()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # The first events of a stream
    ///
    /// When events are scheduled to a stream for the first time ever, processes learn of it with their usual
    /// requests: within half a second, or within three seconds while all groups of the stream are idle. Until a
    /// process has learned of them, the events can be late by the same amount of time. In the first five seconds, a
    /// call whose event is due within half a second
    /// waits until it is due, and moves the event to its stream itself.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish): the event is certainly not stored, or its storage is
    /// [unconfirmed](PublishError::is_unconfirmed). Calling [`publish_in_with_id`](Self::publish_in_with_id) again
    /// with the id of the error changes nothing while the event waits; after the event has entered its stream, the
    /// call adds a second entry with the same id, which guarded handlers do once. Also when the time is after the
    /// year 9999, or the event has more than 1,000 fields; in these cases nothing was sent. A server that is out of
    /// memory refuses to schedule; events that already wait still enter their stream.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may or may not be stored.
    pub async fn publish_in<E: Event>(
        &self,
        delay: Duration,
        event: &E,
    ) -> Result<Scheduled, PublishError> {
        self.publish_in_with_id(delay, event, EventId::generate()).await
    }

    /// Publishes an event after a delay, under an event id of the caller. If an event with this id already waits,
    /// nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`publish_in`](Self::publish_in).
    ///
    /// # Cancel safety
    ///
    /// As [`publish_in`](Self::publish_in).
    pub async fn publish_in_with_id<E: Event>(
        &self,
        delay: Duration,
        event: &E,
        id: EventId,
    ) -> Result<Scheduled, PublishError> {
        self.schedule_one(&stream_of::<E>()?, When::In(delay), event, id).await
    }

    /// Publishes an event at a time of the server's clock, under a new event id; at once if that time is not in the
    /// future. Otherwise like [`publish_in`](Self::publish_in).
    ///
    /// # Errors
    ///
    /// As [`publish_in`](Self::publish_in).
    ///
    /// # Cancel safety
    ///
    /// As [`publish_in`](Self::publish_in).
    pub async fn publish_at<E: Event>(
        &self,
        at: SystemTime,
        event: &E,
    ) -> Result<Scheduled, PublishError> {
        self.publish_at_with_id(at, event, EventId::generate()).await
    }

    /// Publishes an event at a time of the server's clock, under an event id of the caller. If an event with this id
    /// already waits, nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`publish_in`](Self::publish_in).
    ///
    /// # Cancel safety
    ///
    /// As [`publish_in`](Self::publish_in).
    pub async fn publish_at_with_id<E: Event>(
        &self,
        at: SystemTime,
        event: &E,
        id: EventId,
    ) -> Result<Scheduled, PublishError> {
        self.schedule_one(&stream_of::<E>()?, When::At(at), event, id).await
    }

    /// Publishes an event at a time of the server's clock to a stream other than its own, such as the stream of a
    /// tenant.
    ///
    /// # Errors
    ///
    /// As [`publish_in`](Self::publish_in).
    ///
    /// # Cancel safety
    ///
    /// As [`publish_in`](Self::publish_in).
    pub async fn publish_at_to<E: Event>(
        &self,
        stream: &StreamName,
        at: SystemTime,
        event: &E,
        id: EventId,
    ) -> Result<Scheduled, PublishError> {
        self.schedule_one(stream, When::At(at), event, id).await
    }

    /// Publishes many events of one type, each at its time: about a hundred in each request.
    ///
    /// Returns one result for each event, in their order. It is not a transaction: some events may be
    /// stored while others are refused. Without events nothing is sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of the events may or may not be stored.
    pub async fn publish_all_at<'e, E, I>(&self, events: I) -> Vec<Result<Scheduled, PublishError>>
    where
        E: Event,
        I: IntoIterator<Item = (SystemTime, EventId, &'e E)>,
    {
        let stream = match stream_of::<E>() {
            Ok(stream) => stream,
            Err(error) => return events.into_iter().map(|_| Err(error.clone().into())).collect(),
        };
        // The caller's iterator is not kept across an await.
        let events = events.into_iter().collect::<Vec<_>>();
        if events.is_empty() {
            return Vec::new();
        }
        let span = span::send(&stream, events.len(), None);
        let (trace, bytes_max) = (self.trace(&span), self.payload_bytes_max());
        let entries = events.into_iter().map(|(at, id, event)| {
            let fields = encoded::encode(&stream, event, &id, trace.as_deref(), bytes_max)?;
            let fields = self.hooked(&stream, &id, fields)?;
            When::At(at).scheduled(&stream, id, fields)
        });
        let entries = entries.collect();
        self.schedule_all(&stream, span, entries).await
    }

    /// Publishes encoded events, each at its time to its own stream, as
    /// [`publish_encoded`](Self::publish_encoded) does at once.
    ///
    /// Returns one result for each event, in their order. It is not a transaction: some events may be
    /// stored while others are refused. Without events nothing is sent.
    ///
    /// # Cancel safety
    ///
    /// As [`publish_all_at`](Self::publish_all_at).
    pub async fn publish_encoded_at(
        &self,
        events: Vec<(SystemTime, EncodedEvent)>,
    ) -> Vec<Result<Scheduled, PublishError>> {
        let mut streams = HashMap::<StreamName, (Vec<usize>, Vec<_>)>::new();
        for (place, (at, event)) in events.into_iter().enumerate() {
            let stream = event.stream().clone();
            let entry = event.within(self.payload_bytes_max());
            let entry = entry.and_then(|(id, fields)| {
                let fields = self.hooked(&stream, &id, fields)?;
                When::At(at).scheduled(&stream, id, fields)
            });
            let (places, entries) = streams.entry(stream).or_default();
            places.push(place);
            entries.push(entry);
        }
        let sending = streams.into_iter().map(async |(stream, (places, entries))| {
            let span = span::send(&stream, entries.len(), None);
            let answers = self.schedule_all(&stream, span, entries).await;
            places.into_iter().zip(answers).collect::<Vec<_>>()
        });
        in_order(join_all(sending).await.into_iter().flatten())
    }

    async fn schedule_one<E: Event>(
        &self,
        stream: &StreamName,
        when: When,
        event: &E,
        id: EventId,
    ) -> Result<Scheduled, PublishError> {
        let span = span::send(stream, 1, Some(&id));
        let (trace, bytes_max) = (self.trace(&span), self.payload_bytes_max());
        let entry = encoded::encode(stream, event, &id, trace.as_deref(), bytes_max)
            .and_then(|fields| self.hooked(stream, &id, fields))
            .and_then(|fields| when.scheduled(stream, id.clone(), fields))
            .inspect_err(|_| span::failed(&span, "refused"))?;
        let answer = self.schedule_all(stream, span, vec![Ok(entry)]).await.into_iter().next();
        let lost = || failure(stream, id, StoreError::Protocol { command: "schedule" });
        answer.unwrap_or_else(|| Err(lost()))
    }

    /// Schedules events of one stream, each in its partition, with a result for each.
    async fn schedule_all(
        &self,
        stream: &StreamName,
        span: Span,
        entries: Vec<Result<NewScheduled, PublishError>>,
    ) -> Vec<Result<Scheduled, PublishError>> {
        let sent = Instant::now();
        let mut answers = Vec::with_capacity(entries.len());
        let mut parts = BTreeMap::<&StreamName, (Vec<usize>, Vec<NewScheduled>)>::new();
        for (place, entry) in entries.into_iter().enumerate() {
            match entry {
                Ok(event) => {
                    let partition =
                        self.layouts().of_named(stream, &event.fields, event.id.as_str());
                    let (places, events) = parts.entry(partition).or_default();
                    places.push(place);
                    events.push(event);
                }
                Err(error) => answers.push((place, Err(error))),
            }
        }
        let sending = parts.into_iter().map(async |(partition, (places, events))| {
            let answers = self.schedule_in(stream, partition, events).await;
            places.into_iter().zip(answers).collect::<Vec<_>>()
        });
        answers.extend(join_all(sending).instrument(span.clone()).await.into_iter().flatten());
        let answers = in_order(answers);
        self.note_sent(stream, &answers, sent, &span);
        answers
    }

    /// Schedules events in one partition.
    async fn schedule_in(
        &self,
        stream: &StreamName,
        partition: &StreamName,
        events: Vec<NewScheduled>,
    ) -> Vec<Result<Scheduled, PublishError>> {
        let retention = self.retention(stream);
        let ids = events.iter().map(|event| event.id.clone()).collect::<Vec<_>>();
        let answers = self.store().schedule(partition, retention, events).await;
        let unwatched = answers.iter().filter_map(|answer| match answer {
            Ok(Scheduling::Waits { unwatched, .. }) => *unwatched,
            _ => None,
        });
        if let Some(wait) = unwatched.max() {
            self.enter_after(partition, retention, wait, ids.len()).await;
        }
        let number = self.layouts().number(partition);
        let answer = |(event_id, answer)| match answer {
            Ok(Scheduling::Waits { due, repeated, .. }) => {
                let partition = number;
                Ok(Scheduled::Waits(WaitingEvent { event_id, due, repeated, partition }))
            }
            Ok(Scheduling::Entered(entry_id)) => {
                let partition = number;
                Ok(Scheduled::Published(Published { entry_id, event_id, partition }))
            }
            Err(error) => Err(failure(stream, event_id, error)),
        };
        ids.into_iter().zip(answers).map(answer).collect()
    }

    /// Moves events that are due soon to their stream, while processes may not know yet that they have to look for
    /// due events. It moves about as many events as the call has scheduled, because the caller waits; other callers
    /// may have scheduled more before, and move those themselves. An error makes events late, but loses none.
    async fn enter_after(
        &self,
        partition: &StreamName,
        retention: Retention,
        wait: Duration,
        scheduled: usize,
    ) {
        // The server counts whole milliseconds.
        sleep(wait + Duration::from_millis(1)).await;
        let mut left = scheduled;
        while left > 0 {
            match self.store().enter(partition, retention, ENTERED_MAX, 0).await {
                Ok(Entered { has_more: true, lateness, lost, .. }) => {
                    left = left.saturating_sub((lateness.len() + lost).max(1));
                }
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// When an event is to be published.
#[derive(Clone, Copy)]
enum When {
    In(Duration),
    At(SystemTime),
}

impl When {
    /// The event as the store takes it.
    fn scheduled(
        self,
        stream: &StreamName,
        id: EventId,
        mut fields: Fields,
    ) -> Result<NewScheduled, PublishError> {
        let Some(due) = self.due() else {
            return Err(PublishError::TooFarAhead { stream: stream.to_string(), event_id: id });
        };
        // The store writes this field anew.
        fields.retain(|(name, _)| name != "sj-due");
        if fields.len() > FIELDS_CARRIED_MAX {
            return Err(PublishError::TooManyFields {
                stream: stream.to_string(),
                event_id: id,
                fields: fields.len(),
                fields_max: FIELDS_CARRIED_MAX,
            });
        }
        Ok(NewScheduled { id, due, fields })
    }

    fn due(self) -> Option<Due> {
        match self {
            Self::At(at) => due_at(at).map(Due::At),
            Self::In(delay) => {
                let delay = whole_milliseconds(delay)?;
                // This decides only whether the time is too far ahead.
                let now = due_at(SystemTime::now()).unwrap_or(0);
                let fits = now.checked_add(delay).is_some_and(|due| due <= LATEST);
                fits.then_some(Due::In(Duration::from_millis(delay)))
            }
        }
    }
}

/// A time as the server counts it; `None` after the year 9999. A time before 1970 means at once.
pub(crate) fn due_at(at: SystemTime) -> Option<u64> {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    whole_milliseconds(since).filter(|due| *due <= LATEST)
}

/// Rounded up, so that nothing is early.
fn whole_milliseconds(duration: Duration) -> Option<u64> {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).ok()
}

/// Results in the order of the events that they belong to.
fn in_order<T>(answers: impl IntoIterator<Item = (usize, T)>) -> Vec<T> {
    let mut answers = answers.into_iter().collect::<Vec<_>>();
    answers.sort_unstable_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// The last millisecond of the year 9999, which every language can write.
const LATEST: u64 = 253_402_300_799_999;
const ENTERED_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(when: When, fields: Fields) -> Option<String> {
        let (stream, id) = (StreamName::new("orders").unwrap(), EventId::new("e-1").unwrap());
        when.scheduled(&stream, id, fields).err().map(|error| error.to_string())
    }

    #[test]
    fn times_are_rounded_up_and_bounded() {
        let at = |nanos| due_at(UNIX_EPOCH + Duration::from_nanos(nanos));
        assert_eq!([at(0), at(1), at(1_000_000), at(1_000_001)], [0, 1, 1, 2].map(Some));
        assert_eq!(due_at(UNIX_EPOCH - Duration::from_secs(1)), Some(0));
        let last = UNIX_EPOCH + Duration::from_millis(LATEST);
        assert_eq!(due_at(last), Some(LATEST));
        let error = refusal(When::At(last + Duration::from_nanos(1)), Fields::new()).unwrap();
        assert!(error.contains("orders") && error.contains("year 9999"), "{error}");
        for delay in [Duration::MAX, Duration::from_millis(LATEST)] {
            assert!(refusal(When::In(delay), Fields::new()).is_some(), "{delay:?}");
        }
        let short = When::In(Duration::from_nanos(1)).due();
        assert_eq!(short, Some(Due::In(Duration::from_millis(1))));
    }

    #[test]
    fn an_event_that_no_script_can_carry_is_refused_and_an_old_due_time_is_dropped() {
        let field = |name: &'static str| (name.into(), "1".into());
        let wide = (0..=FIELDS_CARRIED_MAX).map(|_| field("x")).collect::<Fields>();
        let error = refusal(When::In(Duration::ZERO), wide.clone()).unwrap();
        assert!(error.contains("1001 fields") && error.contains("1000"), "{error}");
        let mut fits = wide[1..].to_vec();
        fits.push(field("sj-due"));
        assert_eq!(refusal(When::In(Duration::ZERO), fits), None);
    }
}
