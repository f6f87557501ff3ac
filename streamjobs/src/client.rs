//! Publishing: the application's handle to its streams.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures_util::future::join;

use crate::config::Retention;
use crate::entry::{EntryId, Fields};
use crate::error::{ConnectError, PublishError};
use crate::event::{Envelope, Event};
use crate::name::{EventId, NameError, StreamName};
use crate::store::redis::RedisStore;
use crate::store::{Store, StoreError};

/// Publishes events, and looks at what became of them.
///
/// A client is cheap to clone; clones share one connection, which is opened again by itself when it
/// breaks. `Debug` never shows the password.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    retention: HashMap<StreamName, Retention>,
    retention_default: Retention,
    payload_bytes_max: usize,
    in_memory: bool,
}

/// An event that the server has stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The server's id of the entry.
    pub entry_id: EntryId,
    /// The identity of the event.
    pub event_id: EventId,
}

impl Client {
    /// Connects with the default settings.
    ///
    /// The address is `redis://`, `rediss://` (with the `tls` feature) or `redis+unix://`, with
    /// user, password and database as the server needs them.
    ///
    /// # Errors
    ///
    /// When the address cannot be used, or the server does not answer within 5 seconds.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::builder(url).connect().await
    }

    /// Settings for a client.
    pub fn builder(url: &str) -> ClientBuilder {
        ClientBuilder {
            url: url.to_owned(),
            retention: Vec::new(),
            retention_default: Retention::default(),
            payload_bytes_max: PAYLOAD_BYTES_MAX,
        }
    }

    /// Publishes one event under a new event id.
    ///
    /// When this returns `Ok`, the server has stored the event, and every group with a handler for
    /// it will have a job.
    ///
    /// # Errors
    ///
    /// Certainly not stored, or [unconfirmed](PublishError::is_unconfirmed): then publish it again
    /// with [`publish_with_id`](Self::publish_with_id) and the id from the error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the event is stored.
    pub async fn publish<E: Event>(&self, event: &E) -> Result<Published, PublishError> {
        self.publish_with_id(event, EventId::generate()).await
    }

    /// Publishes one event under the caller's own event id.
    ///
    /// Publishing twice under one id stores two entries; guarded handlers do their work once.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    pub async fn publish_with_id<E: Event>(
        &self,
        event: &E,
        id: EventId,
    ) -> Result<Published, PublishError> {
        self.publish_to(&StreamName::new(E::STREAM)?, event, id).await
    }

    /// Publishes one event to another stream than its own, such as one of several for each tenant.
    ///
    /// Handlers read such streams when the runtime is told so with
    /// [`read_keys`](crate::RuntimeBuilder::read_keys).
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    pub async fn publish_to<E: Event>(
        &self,
        stream: &StreamName,
        event: &E,
        id: EventId,
    ) -> Result<Published, PublishError> {
        let fields = self.entry_of(stream, event, &id)?;
        let answers = self.inner.store.append(stream, self.retention(stream), vec![fields]).await;
        let answer =
            answers.into_iter().next().unwrap_or(Err(StoreError::Protocol { command: "XADD" }));
        confirm(stream, id, answer)
    }

    /// Publishes many events of one type in as few round trips as their sizes allow.
    ///
    /// There is one answer for each event, in the order of the events, and the server stores them
    /// in that order. It is not a transaction: some may be stored where others are refused. No
    /// events make no call.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open which events are stored.
    pub async fn publish_all<'e, E, I>(&self, events: I) -> Vec<Result<Published, PublishError>>
    where
        E: Event,
        I: IntoIterator<Item = &'e E>,
    {
        let events =
            events.into_iter().map(|event| (EventId::generate(), event)).collect::<Vec<_>>();
        self.publish_all_with_ids(events).await
    }

    /// Publishes many events under the caller's own event ids.
    ///
    /// # Cancel safety
    ///
    /// As [`publish_all`](Self::publish_all).
    pub async fn publish_all_with_ids<'e, E, I>(
        &self,
        events: I,
    ) -> Vec<Result<Published, PublishError>>
    where
        E: Event,
        I: IntoIterator<Item = (EventId, &'e E)>,
    {
        let mut events = events.into_iter().collect::<Vec<_>>().into_iter();
        let stream = match StreamName::new(E::STREAM) {
            Ok(stream) => stream,
            Err(error) => return events.map(|_| Err(error.clone().into())).collect(),
        };
        let mut answers = Vec::with_capacity(events.len());
        let mut next = self.encode_some(&stream, &mut events);
        let mut broken = false;
        while !next.is_empty() {
            let (ids, entries) = split(next);
            // While the server works on some events, the next ones are written.
            let sending = self.append_unless(broken, &stream, entries);
            let (stored, encoded) =
                join(sending, async { self.encode_some(&stream, &mut events) }).await;
            broken |= stored.iter().any(is_connection_lost);
            let mut stored = stored.into_iter();
            let lost = || Err(StoreError::Protocol { command: "XADD" });
            answers.extend(ids.into_iter().map(|id| {
                id.and_then(|id| confirm(&stream, id, stored.next().unwrap_or_else(lost)))
            }));
            next = encoded;
        }
        answers
    }

    #[cfg(feature = "testing")]
    pub(crate) fn in_memory(store: Arc<dyn Store>) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                retention: HashMap::new(),
                retention_default: Retention::default(),
                payload_bytes_max: PAYLOAD_BYTES_MAX,
                in_memory: true,
            }),
        }
    }

    /// Whether the streams are in this process' memory, under the executor's own clock.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.inner.in_memory
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    pub(crate) fn retention(&self, stream: &StreamName) -> Retention {
        self.inner.retention.get(stream).copied().unwrap_or(self.inner.retention_default)
    }

    /// Writes the next events, and says which of them cannot be written.
    fn encode_some<'e, E: Event>(
        &self,
        stream: &StreamName,
        events: &mut impl Iterator<Item = (EventId, &'e E)>,
    ) -> Vec<Result<(EventId, Fields), PublishError>> {
        let encode = |(id, event)| self.entry_of(stream, event, &id).map(|fields| (id, fields));
        events.take(PUBLISH_STEP).map(encode).collect()
    }

    /// Appends, unless the connection broke before: later events must not overtake earlier ones.
    async fn append_unless(
        &self,
        broken: bool,
        stream: &StreamName,
        entries: Vec<Fields>,
    ) -> Vec<Result<EntryId, StoreError>> {
        if broken {
            let unsent =
                || StoreError::Unreachable("the connection broke before this event".into());
            return entries.iter().map(|_| Err(unsent())).collect();
        }
        if entries.is_empty() {
            return Vec::new();
        }
        self.inner.store.append(stream, self.retention(stream), entries).await
    }

    fn entry_of<E: Event>(
        &self,
        stream: &StreamName,
        event: &E,
        id: &EventId,
    ) -> Result<Fields, PublishError> {
        let event_type = event.event_type();
        let payload = event.encode().map_err(|source| PublishError::Encode {
            stream: stream.to_string(),
            event_type: event_type.to_owned(),
            source,
        })?;
        let fields = Envelope::entry(event_type, payload, id, event.key());
        let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > self.inner.payload_bytes_max {
            return Err(PublishError::TooLarge {
                stream: stream.to_string(),
                event_type: event_type.to_owned(),
                bytes,
                bytes_max: self.inner.payload_bytes_max,
            });
        }
        Ok(fields)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("store", &self.inner.store).finish_non_exhaustive()
    }
}

/// Settings of a [`Client`].
///
/// `Debug` does not show the address, which may hold a password.
#[must_use]
pub struct ClientBuilder {
    url: String,
    retention: Vec<(String, Retention)>,
    retention_default: Retention,
    payload_bytes_max: usize,
}

impl ClientBuilder {
    /// How long one stream keeps its entries.
    pub fn retention(mut self, stream: impl Into<String>, retention: Retention) -> Self {
        self.retention.push((stream.into(), retention));
        self
    }

    /// How long streams keep their entries that no [`retention`](Self::retention) names: a history
    /// of 10,000 entries, never trimming unacknowledged ones, by default.
    pub fn retention_default(mut self, retention: Retention) -> Self {
        self.retention_default = retention;
        self
    }

    /// The largest event, all fields together, in bytes: 1 MiB by default, at most 256 MiB.
    ///
    /// Larger ones are refused before anything is sent.
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// When a setting or the address cannot be used, or the server does not answer within 5
    /// seconds.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let store = RedisStore::new(&self.url)?;
        let client = self.with_store(Arc::new(store.clone()), false)?;
        store.connect().await?;
        Ok(client)
    }

    pub(crate) fn with_store(
        self,
        store: Arc<dyn Store>,
        in_memory: bool,
    ) -> Result<Client, ConnectError> {
        let named = |(name, retention)| Ok((StreamName::new(name)?, retention));
        let retention = self.retention.into_iter().map(named).collect::<Result<_, NameError>>();
        let retention = retention.map_err(|error| ConnectError::Setting(error.to_string()))?;
        if !(1..=PAYLOAD_BYTES_CEILING).contains(&self.payload_bytes_max) {
            let bytes = self.payload_bytes_max;
            return Err(ConnectError::Setting(format!(
                "payload_bytes_max {bytes} is not between 1 and {PAYLOAD_BYTES_CEILING}"
            )));
        }
        Ok(Client {
            inner: Arc::new(Inner {
                store,
                retention,
                retention_default: self.retention_default,
                payload_bytes_max: self.payload_bytes_max,
                in_memory,
            }),
        })
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("retention", &self.retention)
            .field("payload_bytes_max", &self.payload_bytes_max)
            .finish_non_exhaustive()
    }
}

type Split = (Vec<Result<EventId, PublishError>>, Vec<Fields>);

/// Takes ids and entries apart; events that could not be written keep their place among the ids.
fn split(encoded: Vec<Result<(EventId, Fields), PublishError>>) -> Split {
    let (mut ids, mut entries) =
        (Vec::with_capacity(encoded.len()), Vec::with_capacity(encoded.len()));
    for event in encoded {
        ids.push(event.map(|(id, fields)| {
            entries.push(fields);
            id
        }));
    }
    (ids, entries)
}

fn is_connection_lost(answer: &Result<EntryId, StoreError>) -> bool {
    matches!(answer, Err(StoreError::AnswerLost(_) | StoreError::Unreachable(_)))
}

fn confirm(
    stream: &StreamName,
    event_id: EventId,
    answer: Result<EntryId, StoreError>,
) -> Result<Published, PublishError> {
    let stream = stream.to_string();
    match answer {
        Ok(entry_id) => Ok(Published { entry_id, event_id }),
        Err(error) if error.is_unconfirmed() => {
            Err(PublishError::Unconfirmed { stream, event_id, source: error.into() })
        }
        Err(error) => Err(PublishError::Rejected { stream, event_id, source: error.into() }),
    }
}

/// Events that are written while the server stores as many.
const PUBLISH_STEP: usize = 250;
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Half of what the server takes as one value, so that a dead letter with its notes still fits.
const PAYLOAD_BYTES_CEILING: usize = 256 * 1024 * 1024;
