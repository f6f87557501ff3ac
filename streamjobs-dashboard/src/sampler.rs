//! What all streams and groups look like now, and looked like lately.
//!
//! Everybody who looks shares one look: it is taken when somebody wants one and the last is older
//! than the refresh interval. Nothing is asked while nobody looks, unless the application runs the
//! sampler as a service.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use streamjobs::service::{BoxFuture, Service, ServiceContext};
use streamjobs::stream::{ConsumerInfo, Diagnosis, GroupInfo, Stream, StreamError};
use streamjobs::{Client, StreamName};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::archived::{Archive, Archived, Counts};
use crate::fault::Fault;
use crate::history::{History, Point, Rates};

/// One look at everything.
#[derive(Debug)]
pub(crate) struct Snapshot {
    taken: Instant,
    pub(crate) streams: Vec<StreamSight>,
    /// Open letters of the archive; none without one.
    pub(crate) archived: Option<Counts>,
}

impl Snapshot {
    /// Dead letters of a group, in Redis and open in the archive; none where one of them cannot be
    /// told.
    pub(crate) fn dead(&self, info: &GroupInfo) -> Option<u64> {
        let group = (info.stream.clone(), info.group.clone());
        let archived = match &self.archived {
            None => 0,
            Some(counts) => counts.as_ref().ok()?.get(&group).copied().unwrap_or(0),
        };
        info.dead_letters.map(|letters| letters + archived)
    }
}

/// A stream as it was at that moment, or why it could not be looked at.
#[derive(Debug)]
pub(crate) struct StreamSight {
    pub(crate) name: StreamName,
    pub(crate) found: Result<StreamFound, Fault>,
}

#[derive(Debug)]
pub(crate) struct StreamFound {
    /// Entries added in a second, lately; none before the second look.
    pub(crate) published: Option<f64>,
    pub(crate) groups: Vec<GroupSight>,
}

/// A group as it was at that moment.
#[derive(Debug)]
pub(crate) struct GroupSight {
    pub(crate) info: GroupInfo,
    pub(crate) consumers: Vec<ConsumerInfo>,
    pub(crate) diagnosis: Diagnosis,
    /// What happened in a second, lately; none before the second look.
    pub(crate) rates: Option<Rates>,
    /// Jobs done in a second, over the last minutes, oldest first.
    pub(crate) done_lately: Vec<f64>,
}

impl GroupSight {
    /// Jobs that run, as far as their consumers say.
    pub(crate) fn running(&self) -> u64 {
        self.consumers.iter().filter_map(|consumer| consumer.in_flight).sum()
    }

    /// Jobs that its living consumers may run at once.
    pub(crate) fn slots(&self) -> u64 {
        let living = self.consumers.iter().filter(|consumer| is_alive(consumer));
        living.filter_map(|consumer| consumer.slots).sum()
    }
}

fn is_alive(consumer: &ConsumerInfo) -> bool {
    consumer.liveness == streamjobs::stream::Liveness::Alive
}

/// Looks, and remembers.
#[derive(Debug)]
pub(crate) struct Sampler {
    client: Client,
    streams: Vec<StreamName>,
    every: Duration,
    archive: Option<Archive>,
    /// Held while somebody looks, so that everybody else waits for the same look.
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
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
        Self { client, streams, every, archive, memory: Mutex::default() }
    }

    /// The last look, or a new one if that is too old.
    pub(crate) async fn look(&self) -> Arc<Snapshot> {
        let mut memory = self.memory.lock().await;
        if let Some(last) = memory.last.as_ref().filter(|last| last.taken.elapsed() < self.every) {
            return Arc::clone(last);
        }
        let mut streams = Vec::with_capacity(self.streams.len());
        let mut gone = None::<Fault>;
        for name in &self.streams {
            let found = match (&gone, self.client.stream(name.as_str())) {
                // A server that did not answer for one stream is not waited for with the next.
                (Some(fault), _) => Err(fault.clone()),
                (None, Ok(stream)) => memory.look_at(&stream).await.map_err(Fault::from),
                (None, Err(error)) => Err(error.into()),
            };
            gone = gone.or_else(|| {
                found.as_ref().err().filter(|fault| fault.status.is_server_error()).cloned()
            });
            streams.push(StreamSight { name: name.clone(), found });
        }
        let archived = memory.archived.look(self.archive.as_ref()).await.cloned();
        let snapshot = Snapshot { taken: Instant::now(), streams, archived };
        let snapshot = Arc::new(snapshot);
        memory.last = Some(Arc::clone(&snapshot));
        snapshot
    }
}

impl Memory {
    async fn look_at(&mut self, stream: &Stream) -> Result<StreamFound, StreamError> {
        let info = stream.info().await?;
        let now = Instant::now();
        let mut point = Point::new(now);
        point.count("", info.added, 0);
        let history = self.published.entry(stream.name().clone()).or_default();
        history.add(point);
        let published = history.rates().map(|rates| rates.done);
        let mut groups = Vec::new();
        for info in stream.groups().await? {
            match self.look_at_group(stream, info).await {
                Ok(sight) => groups.push(sight),
                // It was destroyed in between.
                Err(StreamError::GroupMissing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let named = |(of, group): &(StreamName, String)| {
            of != stream.name() || groups.iter().any(|sight| sight.info.group == *group)
        };
        self.groups.retain(|queue, _| named(queue));
        Ok(StreamFound { published, groups })
    }

    async fn look_at_group(
        &mut self,
        stream: &Stream,
        info: GroupInfo,
    ) -> Result<GroupSight, StreamError> {
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
        let (rates, done_lately) = (history.rates(), history.done());
        Ok(GroupSight { info, consumers, diagnosis, rates, done_lately })
    }
}

/// Goes on looking while nobody does.
pub(crate) struct Sampling {
    pub(crate) sampler: Arc<Sampler>,
}

impl Service for Sampling {
    fn name(&self) -> &'static str {
        "dashboard"
    }

    fn run(&self, context: ServiceContext) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            while !context.stopped_within(self.sampler.every).await {
                self.sampler.look().await;
            }
        })
    }
}
