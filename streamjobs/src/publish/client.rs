//! The client: publishes events.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use tracing::Span;

use crate::insight::metrics::{self, PublishMetrics};
use crate::model::config::{ConnectionOptions, Retention};
use crate::model::entry::{EntryAddress, EntryId};
use crate::model::error::{ConnectError, PublishError};
use crate::model::event::{Event, stream_of};
use crate::model::name::{EventId, NameError, StreamName};
use crate::model::trace::span::{self, TraceProvider};
use crate::model::trace::{self, TraceContext};
use crate::publish::encoded::{self, EncodedEvent, PAYLOAD_BYTES_MAX};
use crate::publish::hook::PublishHook;
use crate::publish::layouts::{self, Layouts};
use crate::store::Store;
use crate::store::redis::RedisStore;

/// Publishes events, and gives access to streams, groups and dead letters.
///
/// A client is cheap to clone. Clones share one connection, which reconnects by itself. `Debug` never
/// shows the password.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    retention: HashMap<StreamName, Retention>,
    retention_default: Retention,
    payload_bytes_max: usize,
    trace_context: Option<TraceProvider>,
    hooks: Vec<PublishHook>,
    metrics: PublishMetrics,
    in_memory: bool,
    layouts: Arc<Layouts>,
}

/// An event that the server has stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The server's id of the entry.
    pub entry_id: EntryId,
    /// The event id.
    pub event_id: EventId,
    /// The number of the partition that has the entry; `None` if the stream has only one.
    pub partition: Option<u16>,
}

impl Published {
    /// Where the entry is, as [`Stream::entry`](crate::stream::Stream::entry) takes it.
    #[must_use]
    pub fn address(&self) -> EntryAddress {
        EntryAddress { id: self.entry_id, partition: self.partition }
    }
}

impl Client {
    /// Connects with the default settings.
    ///
    /// The address is a `redis://`, `rediss://` (with the `tls` feature) or `redis+unix://` URL, with
    /// user, password and database if the server needs them. With
    /// `redis+sentinel://[user:password@]host[:port],host[:port]/name[/database]`, the client uses the
    /// primary that these sentinels know by the name, and follows each failover. `host` and `port`
    /// (26379 by default) are a Sentinel's; user, password and database are the primary's. The settings
    /// `?sentinel_user=…&sentinel_password=…` log in at the sentinels. With
    /// `redis+cluster://[user:password@]host[:port],host[:port]` (`rediss+cluster://` with TLS), the client
    /// uses all nodes of the cluster to which these belong. Special characters in a user or
    /// password are written as `%XX`.
    ///
    /// # Errors
    ///
    /// When the address is invalid, the server does not answer within 5 seconds or is itself a Sentinel, or no
    /// sentinel names a usable primary.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is left behind.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::builder(url).connect().await
    }

    /// A builder with the default settings.
    pub fn builder(url: &str) -> ClientBuilder {
        ClientBuilder {
            url: url.to_owned(),
            retention: Vec::new(),
            retention_default: Retention::default(),
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            trace_context: None,
            hooks: Vec::new(),
            partitions: Vec::new(),
            stored_partitions: Vec::new(),
            connection: ConnectionOptions::default(),
        }
    }

    /// Publishes one event under a new event id.
    ///
    /// When this returns `Ok`, the server has stored the event, and every group with a handler for
    /// it gets a job.
    ///
    /// # Errors
    ///
    /// When the event is certainly not stored, or its storage is
    /// [unconfirmed](PublishError::is_unconfirmed). If it is unconfirmed, publish the event again
    /// with [`publish_with_id`](Self::publish_with_id) and the id of the error.
    ///
    /// A client sends about a thousand events, or 4 MiB of them, to the server at once. Other events wait for their
    /// turn, for at most 5 seconds; then they are [`Unsent`](PublishError::Unsent), and certainly not stored. An
    /// event that was sent is unconfirmed when the server answers nothing for 3 seconds, plus a second for each 100
    /// kB of the event and of the events ahead of it on their way. This is noticed up to a quarter of a second later.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may or may not be stored.
    pub async fn publish<E: Event>(&self, event: &E) -> Result<Published, PublishError> {
        self.publish_with_id(event, EventId::generate()).await
    }

    /// Publishes one event under an event id of the caller.
    ///
    /// Publishing twice under one id stores two entries; a guarded handler does its work once.
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
        self.publish_to(&stream_of::<E>()?, event, id).await
    }

    /// Publishes one event to a stream other than its own, such as the stream of a tenant.
    ///
    /// Handlers read such streams when the runtime is built with
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
        let span = span::send(stream, 1, Some(&id));
        let trace = self.trace(&span);
        let bytes_max = self.inner.payload_bytes_max;
        let fields = encoded::encode(stream, event, &id, trace.as_deref(), bytes_max);
        let fields = fields.and_then(|fields| self.hooked(stream, &id, fields));
        let fields = fields.inspect_err(|_| span::failed(&span, "refused"))?;
        self.send_one(stream, id, fields, span).await
    }

    /// Publishes many events of one type in a pipeline: further events are sent while the server
    /// stores earlier events.
    ///
    /// Returns one result for each event, in their order, which is also the order of storage within each
    /// [partition](ClientBuilder::partitions). It is not a transaction: some events may be stored while
    /// others are refused. Without events nothing is sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of the events may or may not be stored.
    pub async fn publish_all<'e, E, I>(&self, events: I) -> Vec<Result<Published, PublishError>>
    where
        E: Event,
        I: IntoIterator<Item = &'e E>,
    {
        let events =
            events.into_iter().map(|event| (EventId::generate(), event)).collect::<Vec<_>>();
        self.publish_all_with_ids(events).await
    }

    /// Publishes many events under event ids of the caller.
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
        let trace = self.trace(&span);
        let entries = events.into_iter().map(|(id, event)| {
            let bytes_max = self.inner.payload_bytes_max;
            let fields = encoded::encode(&stream, event, &id, trace.as_deref(), bytes_max)?;
            let fields = self.hooked(&stream, &id, fields)?;
            Ok((id, fields))
        });
        self.send_all(&stream, span, entries).await
    }

    /// Encodes an event as [`publish_with_id`](Self::publish_with_id) does, with this client's limit
    /// and trace context, without sending it.
    ///
    /// # Errors
    ///
    /// When the payload cannot be encoded or is too large, or the stream's name is invalid.
    pub fn encode<E: Event>(&self, event: &E, id: EventId) -> Result<EncodedEvent, PublishError> {
        let trace = self.trace(&Span::none());
        EncodedEvent::encode(event, id, trace.as_deref(), self.inner.payload_bytes_max)
    }

    /// Publishes encoded events, each to its own stream: events of one stream in a pipeline and in
    /// their order, different streams concurrently.
    ///
    /// Returns one result for each event, in their order. It is not a transaction: some events may be
    /// stored while others are refused. Without events nothing is sent.
    ///
    /// # Cancel safety
    ///
    /// As [`publish_all`](Self::publish_all).
    pub async fn publish_encoded(
        &self,
        events: Vec<EncodedEvent>,
    ) -> Vec<Result<Published, PublishError>> {
        let mut streams = HashMap::<StreamName, (Vec<usize>, Vec<EncodedEvent>)>::new();
        for (place, event) in events.into_iter().enumerate() {
            let (places, events) = streams.entry(event.stream().clone()).or_default();
            places.push(place);
            events.push(event);
        }
        let sending = streams.into_iter().map(async |(stream, (places, events))| {
            let only = events.first().filter(|_| events.len() == 1);
            let span = span::send(&stream, events.len(), only.map(EncodedEvent::event_id));
            let bytes_max = self.inner.payload_bytes_max;
            let entries = events.into_iter().map(|event| {
                let (id, fields) = event.within(bytes_max)?;
                let fields = self.hooked(&stream, &id, fields)?;
                Ok((id, fields))
            });
            let answers = self.send_all(&stream, span, entries).await;
            places.into_iter().zip(answers).collect::<Vec<_>>()
        });
        let mut answers = join_all(sending).await.into_iter().flatten().collect::<Vec<_>>();
        answers.sort_unstable_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn in_memory(store: Arc<dyn Store>) -> Self {
        Self::builder("").build(store, HashMap::new(), Layouts::default(), true)
    }

    /// Whether the streams are in this process' memory, under the executor's clock.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.inner.in_memory
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    pub(crate) fn retention(&self, stream: &StreamName) -> Retention {
        let stream = self.inner.layouts.whole(stream);
        self.inner.retention.get(stream).copied().unwrap_or(self.inner.retention_default)
    }

    /// The partitions of the streams.
    pub(crate) fn layouts(&self) -> &Arc<Layouts> {
        &self.inner.layouts
    }

    /// The streams that a stream is spread over, in the order of its partitions: itself alone, unless
    /// [`ClientBuilder::partitions`] named more.
    ///
    /// Each has groups, pending entries, retries and dead letters of its own.
    /// [`Stream::partitions`](crate::stream::Stream::partitions) gives a handle to each.
    #[must_use]
    pub fn partitions(&self, stream: &StreamName) -> Vec<StreamName> {
        self.inner.layouts.names(stream)
    }

    pub(crate) fn payload_bytes_max(&self) -> usize {
        self.inner.payload_bytes_max
    }

    pub(super) fn hooks(&self) -> &[PublishHook] {
        &self.inner.hooks
    }

    pub(super) fn publish_metrics(&self) -> &PublishMetrics {
        &self.inner.metrics
    }

    /// The trace context of an event published now: the application's, or that of the job that
    /// publishes it.
    pub(super) fn trace(&self, span: &Span) -> Option<Arc<TraceContext>> {
        match &self.inner.trace_context {
            Some(TraceProvider(provide)) => span.in_scope(|| provide().map(Arc::new)),
            None => trace::of_job(),
        }
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
    trace_context: Option<TraceProvider>,
    pub(super) hooks: Vec<PublishHook>,
    partitions: Vec<(String, u16)>,
    stored_partitions: Vec<String>,
    pub(super) connection: ConnectionOptions,
}

impl ClientBuilder {
    /// How long one stream keeps its entries.
    pub fn retention(mut self, stream: impl Into<String>, retention: Retention) -> Self {
        self.retention.push((stream.into(), retention));
        self
    }

    /// How long streams without a [`retention`](Self::retention) of their own keep their entries: by default a
    /// history of 10,000 entries, from which no unacknowledged entry is ever trimmed.
    pub fn retention_default(mut self, retention: Retention) -> Self {
        self.retention_default = retention;
        self
    }

    /// Spreads a stream over this many partitions, 1 to 4,096: streams of their own, which a cluster keeps on
    /// different nodes. Without this setting, a stream has one partition, the stream itself.
    ///
    /// Events with a key go to the partition of their key, events without a key to each partition in turn. A handler
    /// of the stream works on all partitions, which share its slots; retention applies to each of them. Set the same
    /// number in each process that publishes to the stream or handles its events. The server stores the number: a
    /// larger number adds partitions, and with a smaller number [`connect`](Self::connect) fails. A process that
    /// still runs with the smaller number continues, in the partitions that it knows.
    ///
    /// See `docs/partitions.md`.
    pub fn partitions(mut self, stream: impl Into<String>, count: u16) -> Self {
        self.partitions.push((stream.into(), count));
        self
    }

    /// Takes the number of a stream's partitions from the server at [`connect`](Self::connect); without this setting,
    /// a stream has one partition. The setting is for programs that look at the streams of other programs, such as
    /// the command line. Programs that publish or have handlers set the number with [`partitions`](Self::partitions).
    /// Partitions that are added later are not seen.
    ///
    /// It sends one request for each stream, which needs the command `HGET` on `{stream}:partitions`.
    pub fn partitions_as_stored(mut self, stream: impl Into<String>) -> Self {
        self.stored_partitions.push(stream.into());
        self
    }

    /// The maximum size of an event in bytes, all fields together: 1 MiB by default, at most 256 MiB.
    ///
    /// A larger event is refused before anything is sent.
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// Sets the function that returns the trace context of published events. It is called once for
    /// each publishing call, within its `send` span; `None` publishes without a trace context.
    ///
    /// By default, events that a handler publishes in its own task have the trace context of its job,
    /// and other events have none.
    ///
    /// The function should be fast and must not block. `docs/tracing.md` shows a function for OpenTelemetry.
    pub fn trace_context(
        mut self,
        provide: impl Fn() -> Option<TraceContext> + Send + Sync + 'static,
    ) -> Self {
        self.trace_context = Some(TraceProvider(Arc::new(provide)));
        self
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// When a setting or the address is invalid, when the server does not answer within 5 seconds, or when a stream
    /// has more partitions than this builder was told.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, except for the numbers of partitions: larger numbers than the server had may be stored or not.
    pub async fn connect(mut self) -> Result<Client, ConnectError> {
        let store = RedisStore::new(&self.url, self.connection.clone())?;
        let stored = std::mem::take(&mut self.stored_partitions);
        if stored.is_empty() {
            let client = self.with_store(Arc::new(store.clone()), false)?;
            store.connect().await?;
            client.inner.layouts.agree(&store).await?;
            return Ok(client);
        }
        store.connect().await?;
        for stream in stored {
            let count = layouts::stored(&store, &stream).await?;
            self.partitions.push((stream, count));
        }
        let client = self.with_store(Arc::new(store.clone()), false)?;
        client.inner.layouts.agree(&store).await?;
        Ok(client)
    }

    pub(crate) fn with_store(
        mut self,
        store: Arc<dyn Store>,
        in_memory: bool,
    ) -> Result<Client, ConnectError> {
        metrics::describe();
        let named = |(name, retention)| Ok((StreamName::new(name)?, retention));
        let named = std::mem::take(&mut self.retention).into_iter().map(named);
        let retention = named.collect::<Result<_, NameError>>();
        let retention = retention.map_err(|error| ConnectError::Setting(error.to_string()))?;
        if !(1..=PAYLOAD_BYTES_CEILING).contains(&self.payload_bytes_max) {
            let bytes = self.payload_bytes_max;
            return Err(ConnectError::Setting(format!(
                "payload_bytes_max {bytes} is not between 1 and {PAYLOAD_BYTES_CEILING}"
            )));
        }
        let layouts = Layouts::new(std::mem::take(&mut self.partitions))?;
        Ok(self.build(store, retention, layouts, in_memory))
    }

    fn build(
        self,
        store: Arc<dyn Store>,
        retention: HashMap<StreamName, Retention>,
        layouts: Layouts,
        in_memory: bool,
    ) -> Client {
        let inner = Inner {
            store,
            retention,
            retention_default: self.retention_default,
            payload_bytes_max: self.payload_bytes_max,
            trace_context: self.trace_context,
            hooks: self.hooks,
            metrics: PublishMetrics::default(),
            in_memory,
            layouts: Arc::new(layouts),
        };
        Client { inner: Arc::new(inner) }
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

/// The highest maximum: half of the server's limit for one value, so that a dead letter with its
/// own fields still fits.
const PAYLOAD_BYTES_CEILING: usize = 256 * 1024 * 1024;
