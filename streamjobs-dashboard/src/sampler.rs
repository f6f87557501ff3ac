//! Samples the state of all streams and groups, and keeps recent samples for rates.
//!
//! All pages share one snapshot: it is taken when a page needs one and the last is older than the
//! refresh interval. Without open pages no requests are sent, unless the application runs the
//! sampler as a service.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use streamjobs::service::{BoxFuture, Service, ServiceContext};
use streamjobs::stream::{ConsumerInfo, Diagnosis, GroupInfo, Liveness, Stream, StreamError};
use streamjobs::{Client, StreamName};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::archived::{Archive, Archived, Counts};
use crate::fault::Fault;
use crate::format::Counted;
use crate::history::{History, Point, Rates};

/// The state of all streams at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    taken: Instant,
    pub(crate) streams: Vec<StreamSnapshot>,
    /// Open letters of the archive. `None` without an archive.
    pub(crate) archived: Option<Counts>,
}

impl Snapshot {
    /// The streams of a stream's partitions; nothing of one that is not shown.
    pub(crate) fn parts(&self, stream: &str) -> &[StreamName] {
        let shown = self.streams.iter().find(|shown| shown.name.as_str() == stream);
        shown.map_or(&[], |shown| &shown.parts)
    }

    /// Dead letters of a group: those in Redis and the open ones of the archive. `None` if Redis or
    /// the archive did not tell its count; a lower bound if the archive did not count this group.
    pub(crate) fn dead(&self, info: &GroupInfo) -> Option<Counted> {
        let archived = match &self.archived {
            None => Counted::default(),
            Some(counts) => {
                let counts = counts.as_ref().ok()?;
                let counted = counts.of_all(self.parts(&info.stream), &info.group);
                counted.unwrap_or(Counted { number: 0, more: true })
            }
        };
        info.dead_letters.map(|number| Counted { number, more: false }.plus(archived))
    }
}

/// A stream at that moment, or why it could not be read.
#[derive(Debug)]
pub(crate) struct StreamSnapshot {
    pub(crate) name: StreamName,
    /// The streams of its partitions, under which the archive keeps letters.
    parts: Vec<StreamName>,
    pub(crate) found: Result<StreamFound, Fault>,
}

#[derive(Debug)]
pub(crate) struct StreamFound {
    /// Entries added per second, recently. `None` until the second sample.
    pub(crate) published: Option<f64>,
    pub(crate) groups: Vec<GroupSnapshot>,
}

/// A group at that moment.
#[derive(Debug)]
pub(crate) struct GroupSnapshot {
    pub(crate) info: GroupInfo,
    pub(crate) consumers: Vec<ConsumerInfo>,
    pub(crate) diagnosis: Diagnosis,
    /// Jobs per second, recently. `None` until the second sample.
    pub(crate) rates: Option<Rates>,
    /// Jobs done per second over the last five minutes, oldest first.
    pub(crate) done_history: Vec<f64>,
}

impl GroupSnapshot {
    /// Running jobs, as reported by the consumers' heartbeats.
    pub(crate) fn running(&self) -> u64 {
        self.consumers.iter().filter_map(|consumer| consumer.in_flight).sum()
    }

    /// Jobs that the live consumers can run at once.
    pub(crate) fn slots(&self) -> u64 {
        let living = self.consumers.iter().filter(|consumer| consumer.liveness == Liveness::Alive);
        living.filter_map(|consumer| consumer.slots).sum()
    }
}

/// Takes snapshots and keeps recent ones.
#[derive(Debug)]
pub(crate) struct Sampler {
    client: Client,
    streams: Vec<StreamName>,
    every: Duration,
    archive: Option<Archive>,
    /// Locked while a snapshot is taken, so that concurrent requests wait for the same one.
    cache: Mutex<SamplerState>,
}

#[derive(Debug, Default)]
struct SamplerState {
    last: Option<Arc<Snapshot>>,
    published: HashMap<StreamName, History>,
    groups: HashMap<(StreamName, String), History>,
    archived: Archived,
}

impl Sampler {
    pub(crate) fn new(
        client: Client,
        streams: Vec<StreamName>,
        every: Duration,
        archive: Option<Archive>,
    ) -> Self {
        Self { client, streams, every, archive, cache: Mutex::default() }
    }

    /// The last snapshot, or a new one if that is older than the refresh interval.
    pub(crate) async fn sample(&self) -> Arc<Snapshot> {
        let mut cache = self.cache.lock().await;
        if let Some(last) = cache.last.as_ref().filter(|last| last.taken.elapsed() < self.every) {
            return Arc::clone(last);
        }
        let mut streams = Vec::with_capacity(self.streams.len());
        let mut unavailable = None::<Fault>;
        for name in &self.streams {
            let found = match (&unavailable, self.client.stream(name.as_str())) {
                // If the server did not answer for one stream, the others fail without another timeout.
                (Some(fault), _) => Err(fault.clone()),
                (None, Ok(stream)) => cache.sample_stream(&stream).await.map_err(Fault::from),
                (None, Err(error)) => Err(error.into()),
            };
            unavailable = unavailable.or_else(|| {
                found.as_ref().err().filter(|fault| fault.status.is_server_error()).cloned()
            });
            let parts = self.client.partitions(name);
            streams.push(StreamSnapshot { name: name.clone(), parts, found });
        }
        let archived = cache.archived.counts(self.archive.as_ref()).await.cloned();
        let snapshot = Snapshot { taken: Instant::now(), streams, archived };
        let snapshot = Arc::new(snapshot);
        cache.last = Some(Arc::clone(&snapshot));
        snapshot
    }
}

impl SamplerState {
    async fn sample_stream(&mut self, stream: &Stream) -> Result<StreamFound, StreamError> {
        let sizes = stream.sizes().await?;
        let now = Instant::now();
        let mut point = Point::new(now);
        point.count("", sizes.added, 0);
        let history = self.published.entry(stream.name().clone()).or_default();
        history.add(point);
        let published = history.rates().map(|rates| rates.done);
        let mut groups = Vec::new();
        for info in stream.groups().await? {
            match self.sample_group(stream, info).await {
                Ok(sampled) => groups.push(sampled),
                // The group was destroyed meanwhile.
                Err(StreamError::GroupMissing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let named = |(of, group): &(StreamName, String)| {
            of != stream.name() || groups.iter().any(|sampled| sampled.info.group == *group)
        };
        self.groups.retain(|queue, _| named(queue));
        Ok(StreamFound { published, groups })
    }

    async fn sample_group(
        &mut self,
        stream: &Stream,
        info: GroupInfo,
    ) -> Result<GroupSnapshot, StreamError> {
        let consumers = stream.group(&info.group)?.consumers().await?;
        let mut point = Point::new(Instant::now());
        for consumer in &consumers {
            let (done, failed) =
                (consumer.done.unwrap_or_default(), consumer.failed.unwrap_or_default());
            point.count(&consumer.name, done, failed);
        }
        let history = self.groups.entry((stream.name().clone(), info.group.clone())).or_default();
        history.add(point);
        let diagnosis = Diagnosis::of(&info, &consumers);
        let (rates, done_history) = (history.rates(), history.done());
        Ok(GroupSnapshot { info, consumers, diagnosis, rates, done_history })
    }
}

/// Samples in the background, so that history exists before the first page is opened.
pub(crate) struct SamplerService {
    pub(crate) sampler: Arc<Sampler>,
}

impl Service for SamplerService {
    fn name(&self) -> &'static str {
        "dashboard"
    }

    fn run(&self, context: ServiceContext) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            while !context.stopped_within(self.sampler.every).await {
                self.sampler.sample().await;
            }
        })
    }
}
