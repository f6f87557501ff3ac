//! Debounced publishing: while an event waits, another event that counts as the same replaces it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::Instrument;

use crate::model::debounce::{Debounce, waiting_name};
use crate::model::error::PublishError;
use crate::model::event::{Event, stream_of};
use crate::model::name::{EventId, StreamName};
use crate::model::trace::span;
use crate::publish::client::Client;
use crate::publish::encoded;
use crate::publish::sending::failure;
use crate::publish::unique::{check_width, refusal};
use crate::store::NewDebounced;

/// An event that waits until it is due, unless another event replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DebouncedEvent {
    /// Its event id.
    pub event_id: EventId,
    /// The name under which it waits, and under which it is cancelled or rescheduled. An event that replaces it has
    /// the same name.
    pub name: EventId,
    /// When it is due, by the server's clock in milliseconds since 1970.
    pub due: u64,
    /// The waiting event that this event has replaced: the replaced event never enters its stream.
    pub replaced: Option<EventId>,
    /// Whether an earlier call with this event id has stored it, and it still waits. If so, this call has changed
    /// nothing.
    pub repeated: bool,
    /// The number of the partition in which it waits; `None` if the stream has only one.
    pub partition: Option<u16>,
}

impl DebouncedEvent {
    /// When it is due, by the server's clock.
    #[must_use]
    pub fn due_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.due)
    }
}

impl Client {
    /// Publishes an event after a delay under a new event id, and replaces a waiting event that counts as the same.
    /// [`Debounce`] says which events count as the same, and when the event is due.
    ///
    /// The event waits on the server as a [scheduled](Self::publish_in) event does, and enters its stream no sooner
    /// than it is due and at most half a second later. This needs a runtime with a handler of the stream that runs in
    /// some process and reaches the server. The first events ever scheduled to a stream can be three seconds late. If
    /// the previous event has entered its stream meanwhile, the new event waits as the first of a new series.
    /// [`scheduled`](Self::scheduled) lists the events that wait. See `docs/unique.md`.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use serde::{Deserialize, Serialize};
    /// use streamjobs::unique::Debounce;
    /// # use streamjobs::Event;
    ///
    /// #[derive(Event, Serialize, Deserialize)]
    /// #[event(stream = "docs", type = "doc.saved", unique = "doc")]
    /// struct Saved { doc: u64, version: u32 }
    ///
    /// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// // A second after the last save, and at the latest a minute after the first one.
    /// let quiet = Debounce::new(Duration::from_secs(1), Duration::from_secs(60));
    /// let waits = client.publish_debounced(&quiet, &Saved { doc: 7, version: 3 }).await?;
    /// client.scheduled("docs")?.cancel(&waits.name).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish): the event is certainly not stored and any waiting event still waits, or the
    /// outcome is [unconfirmed](PublishError::is_unconfirmed). If it is unconfirmed, call
    /// [`publish_debounced_with_id`](Self::publish_debounced_with_id) with the id of the error: while the event
    /// waits, that changes nothing. Also when a setting cannot be used ([`PublishError::Unique`]), or the event has
    /// more than 1,000 fields; in these cases nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may or may not wait, and may or may not have replaced
    /// another event.
    pub async fn publish_debounced<E: Event>(
        &self,
        debounce: &Debounce,
        event: &E,
    ) -> Result<DebouncedEvent, PublishError> {
        self.publish_debounced_with_id(debounce, event, EventId::generate()).await
    }

    /// Publishes an event after a delay under an event id of the caller, and replaces a waiting event that counts as
    /// the same. Each publication has an id of its own: while an event with this id waits, another call with the id
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// As [`publish_debounced`](Self::publish_debounced).
    ///
    /// # Cancel safety
    ///
    /// As [`publish_debounced`](Self::publish_debounced).
    pub async fn publish_debounced_with_id<E: Event>(
        &self,
        debounce: &Debounce,
        event: &E,
        id: EventId,
    ) -> Result<DebouncedEvent, PublishError> {
        self.publish_debounced_to(&stream_of::<E>()?, debounce, event, id).await
    }

    /// Publishes an event after a delay to a stream other than its own, such as the stream of a tenant, and replaces
    /// an event that waits there and counts as the same.
    ///
    /// # Errors
    ///
    /// As [`publish_debounced`](Self::publish_debounced).
    ///
    /// # Cancel safety
    ///
    /// As [`publish_debounced`](Self::publish_debounced).
    pub async fn publish_debounced_to<E: Event>(
        &self,
        stream: &StreamName,
        debounce: &Debounce,
        event: &E,
        id: EventId,
    ) -> Result<DebouncedEvent, PublishError> {
        let span = span::send(stream, 1, Some(&id));
        let refused = |fault| refusal(stream, event, fault);
        let times = debounce.times().map_err(refused)?;
        let (trace, bytes_max) = (self.trace(&span), self.payload_bytes_max());
        let fields = encoded::encode(stream, event, &id, trace.as_deref(), bytes_max);
        let fields = fields.and_then(|fields| self.hooked(stream, &id, fields));
        let fields = fields.inspect_err(|_| span::failed(&span, "refused"))?;
        let digest = debounce.digest(event).map_err(refused)?;
        check_width(stream, &id, &fields)?;

        let sent = Instant::now();
        let name = waiting_name(&digest)?;
        let partition = self.layouts().of_named(stream, &fields, digest.as_str());
        let event = NewDebounced { name: name.clone(), id: id.clone(), times, fields };
        let answer = self.store().debounce(partition, event).instrument(span.clone()).await;
        let answers = [match answer {
            Ok(answer) => {
                let partition = self.layouts().number(partition);
                let (due, replaced, repeated) = (answer.due, answer.replaced, answer.repeated);
                Ok(DebouncedEvent { event_id: id, name, due, replaced, repeated, partition })
            }
            Err(error) => Err(failure(stream, id, error)),
        }];
        self.note_sent(stream, &answers, sent, &span);
        let [answer] = answers;
        if answer.as_ref().is_ok_and(|answer| answer.replaced.is_some()) {
            self.publish_metrics().stream(stream).replaced.increment(1);
        }
        answer
    }
}
