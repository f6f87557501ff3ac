//! Unique publishing: an event is refused while another event that counts as the same stands.

use std::time::{Duration, Instant};

use tracing::Instrument;

use crate::model::entry::Fields;
use crate::model::error::PublishError;
use crate::model::event::{Event, stream_of};
use crate::model::name::{EventId, StreamName};
use crate::model::record::FIELDS_CARRIED_MAX;
use crate::model::trace::span;
use crate::model::unique::{LockTime, Unique, UniqueFault, UniqueLock};
use crate::publish::client::{Client, Published};
use crate::publish::encoded;
use crate::publish::sending::failure;
use crate::store::{NewUnique, UniqueAppend, UniqueHolder};

/// What became of an event that was published as unique. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UniquePublished {
    /// It is in its stream, and stands from now on.
    New(Published),
    /// An earlier call with this event id has stored it, and it stands. This call has changed nothing.
    Repeated(Published),
    /// Another event that counts as the same stands. The event of this call was not stored.
    Duplicate {
        /// The event that stands.
        stands: Published,
        /// For how much longer it makes others duplicates, unless its job ends sooner.
        rest: Duration,
    },
}

impl UniquePublished {
    /// Whether this call has stored the event.
    #[must_use]
    pub fn is_new(&self) -> bool {
        matches!(self, Self::New(_))
    }

    /// Whether another event stands.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Duplicate { .. })
    }

    /// The event that stands: the event of this call, or the other event.
    #[must_use]
    pub fn published(&self) -> &Published {
        match self {
            Self::New(published) | Self::Repeated(published) => published,
            Self::Duplicate { stands, .. } => stands,
        }
    }
}

impl Client {
    /// Publishes an event under a new event id, unless another event that counts as the same stands. An event stands
    /// for a time, or until a group has ended its job. [`Unique`] says which events count as the same.
    ///
    /// Of many simultaneous calls, in any processes, one stores its event; the other calls learn which event stands.
    /// Uniqueness is about publications. It says nothing about how many jobs run at the same time: a job can still
    /// run when the time of its event is over. See `docs/unique.md`.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use serde::{Deserialize, Serialize};
    /// use streamjobs::unique::Unique;
    /// # use streamjobs::Event;
    ///
    /// #[derive(Event, Serialize, Deserialize)]
    /// #[event(stream = "docs", type = "doc.index", unique = "doc")]
    /// struct Index { doc: u64, asked_by: String }
    ///
    /// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let index = Index { doc: 7, asked_by: "alice".into() };
    /// let one = Unique::until_done("indexer", Duration::from_secs(3_600));
    /// let answer = client.publish_unique(&one, &index).await?;
    /// if answer.is_duplicate() {
    ///     println!("{} does it already", answer.published().event_id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish): the event is certainly not stored, or its storage is
    /// [unconfirmed](PublishError::is_unconfirmed). If it is unconfirmed, call
    /// [`publish_unique_with_id`](Self::publish_unique_with_id) with the id of the error: while the first call's
    /// event stands, nothing is stored twice. Also when a setting cannot be used ([`PublishError::Unique`]), or the
    /// event has more than 1,000 fields; in these cases nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may or may not be stored.
    pub async fn publish_unique<E: Event>(
        &self,
        unique: &Unique,
        event: &E,
    ) -> Result<UniquePublished, PublishError> {
        self.publish_unique_with_id(unique, event, EventId::generate()).await
    }

    /// Publishes an event under an event id of the caller, unless another event that counts as the same stands.
    ///
    /// # Errors
    ///
    /// As [`publish_unique`](Self::publish_unique).
    ///
    /// # Cancel safety
    ///
    /// As [`publish_unique`](Self::publish_unique).
    pub async fn publish_unique_with_id<E: Event>(
        &self,
        unique: &Unique,
        event: &E,
        id: EventId,
    ) -> Result<UniquePublished, PublishError> {
        self.publish_unique_to(&stream_of::<E>()?, unique, event, id).await
    }

    /// Publishes an event to a stream other than its own, such as the stream of a tenant, unless another event that
    /// counts as the same stands there.
    ///
    /// # Errors
    ///
    /// As [`publish_unique`](Self::publish_unique).
    ///
    /// # Cancel safety
    ///
    /// As [`publish_unique`](Self::publish_unique).
    pub async fn publish_unique_to<E: Event>(
        &self,
        stream: &StreamName,
        unique: &Unique,
        event: &E,
        id: EventId,
    ) -> Result<UniquePublished, PublishError> {
        let span = span::send(stream, 1, Some(&id));
        let refused = |fault| refusal(stream, event, fault);
        let LockTime { window, group } = unique.times().map_err(refused)?;
        let trace = self.trace(&span);
        let bytes_max = self.payload_bytes_max();
        let fields = encoded::encode(stream, event, &id, trace.as_deref(), bytes_max);
        let fields = fields.and_then(|fields| self.hooked(stream, &id, fields));
        let mut fields = fields.inspect_err(|_| span::failed(&span, "refused"))?;
        let digest = unique.digest(event).map_err(refused)?;
        fields.extend(group.map(|group| UniqueLock::field(&digest, &group)));
        check_width(stream, &id, &fields)?;

        let sent = Instant::now();
        let partition = self.layouts().of_named(stream, &fields, digest.as_str());
        let event = NewUnique { digest, id: id.clone(), window, fields };
        let append = self.store().publish_unique(partition, self.retention(stream), event);
        let answer = append.instrument(span.clone()).await;
        let number = self.layouts().number(partition);
        let answer = match answer {
            Ok(answer) => Ok(published(answer, id, number)),
            Err(error) => Err(failure(stream, id, error)),
        };
        let metrics = self.publish_metrics().stream(stream);
        match answer {
            Ok(answer) if !answer.is_new() => {
                self.note_sent::<()>(stream, &[], sent, &span);
                metrics.unique_refused.increment(u64::from(answer.is_duplicate()));
                Ok(answer)
            }
            answer => {
                let answers = [answer];
                self.note_sent(stream, &answers, sent, &span);
                let [answer] = answers;
                answer
            }
        }
    }
}

/// What the answer of the store means for the event of this id.
fn published(answer: UniqueAppend, event_id: EventId, partition: Option<u16>) -> UniquePublished {
    match answer {
        UniqueAppend::Appended(entry_id) => {
            UniquePublished::New(Published { entry_id, event_id, partition })
        }
        UniqueAppend::Stands(UniqueHolder { event_id: other, entry_id, rest }) => {
            let is_own = other == event_id;
            let stands = Published { entry_id, event_id: other, partition };
            match is_own {
                true => UniquePublished::Repeated(stands),
                false => UniquePublished::Duplicate { stands, rest },
            }
        }
    }
}

/// Why an event of this type is not published as it was asked for.
pub(super) fn refusal<E: Event>(
    stream: &StreamName,
    event: &E,
    source: UniqueFault,
) -> PublishError {
    let (stream, event_type) = (stream.to_string(), event.event_type().to_owned());
    PublishError::Unique { stream, event_type, source }
}

/// Refuses an event with more fields than a script can carry.
pub(super) fn check_width(
    stream: &StreamName,
    id: &EventId,
    fields: &Fields,
) -> Result<(), PublishError> {
    if fields.len() <= FIELDS_CARRIED_MAX {
        return Ok(());
    }
    Err(PublishError::TooManyFields {
        stream: stream.to_string(),
        event_id: id.clone(),
        fields: fields.len(),
        fields_max: FIELDS_CARRIED_MAX,
    })
}
