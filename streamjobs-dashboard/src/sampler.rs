//! Samples the state of all streams and groups, and keeps recent samples for rates.
//!
//! All pages share one snapshot: it is taken when a page needs a snapshot and the last snapshot is older than the
//! refresh interval. Without open pages no requests are sent, unless the application runs the sampler as a service.
//! One snapshot reads a limited number of streams and groups; if there are more, the next snapshot continues where
//! this one ended.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use streamjobs::service::{BoxFuture, Service, ServiceContext};
use streamjobs::stream::{ConsumerInfo, Diagnosis, Group, GroupInfo, Stream, StreamError};
use streamjobs::{Client, GroupName, NameError, StreamName};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::archived::{Archive, Archived};
use crate::fault::Fault;
use crate::history::{History, Point};
use crate::snapshot::{GroupSnapshot, Snapshot, StreamFound, StreamSnapshot};
use crate::trend::{Trend, TrendPoint};

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
    last: Option<(Instant, Arc<Snapshot>)>,
    known: HashMap<StreamName, KnownStream>,
    next: Place,
    archived: Archived,
}

/// The last results for a stream.
#[derive(Debug, Default)]
struct KnownStream {
    history: History,
    /// The names of its groups, or why it could not be read. `None` before its first turn.
    names: Option<Result<Vec<GroupName>, Fault>>,
    groups: HashMap<GroupName, KnownGroup>,
}

#[derive(Debug, Default)]
struct KnownGroup {
    history: History,
    trend: Trend,
    /// The last result, or why the server refused to read it. `None` before its first turn.
    last: Option<Result<Arc<GroupSnapshot>, Fault>>,
}

/// What was read of a group, and when.
#[derive(Debug)]
struct GroupRead {
    at: Instant,
    info: GroupInfo,
    consumers: Vec<ConsumerInfo>,
}

impl GroupRead {
    async fn of(group: Group) -> Result<Self, StreamError> {
        let info = group.info().await?;
        let consumers = group.consumers().await?;
        Ok(Self { at: Instant::now(), info, consumers })
    }
}

/// Where a round goes on: the number of a stream, and the group after which to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    stream: usize,
    after: Option<GroupName>,
}

/// Which groups of a stream to read.
#[derive(Debug)]
struct Part {
    after: Option<GroupName>,
    until: Option<GroupName>,
    /// The most groups to read: at least one.
    most: usize,
}

/// The results of one round.
#[derive(Debug, Default)]
struct Round {
    /// The numbers of the streams that were tried, including those that could not be read.
    tried: HashSet<usize>,
    /// Whether the server answered for any of these streams.
    is_answered: bool,
    /// Whether there are more streams and groups than one round reads.
    is_cut: bool,
    /// If streams after the last tried stream were not tried, the reason: the server did not
    /// answer.
    stopped: Option<Fault>,
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

    /// The last snapshot, or a new snapshot if the last is older than the refresh interval.
    pub(crate) async fn sample(&self) -> Arc<Snapshot> {
        let mut cache = self.cache.lock().await;
        if let Some((taken, last)) = &cache.last
            && taken.elapsed() < self.every
        {
            return Arc::clone(last);
        }
        let round = self.round(&mut cache).await;
        let mut not_tried = 0;
        let streams = self.streams.iter().enumerate().map(|(index, name)| {
            let known = cache.known.get(name).filter(|known| known.names.is_some());
            let found = match (known, &round.stopped) {
                (Some(known), _) => known.found(),
                // Nothing is known about the stream, and the server has not answered in this round.
                (None, Some(fault)) if !round.is_answered => Err(fault.clone()),
                (None, _) => Ok(unread()),
            };
            not_tried += usize::from(round.stopped.is_some() && !round.tried.contains(&index));
            StreamSnapshot { name: name.clone(), parts: self.client.partitions(name), found }
        });
        let streams = streams.collect::<Vec<_>>();
        let archived = cache.archived.counts(self.archive.as_ref()).await.cloned();
        let snapshot = Snapshot { streams, archived, is_in_turns: round.is_cut, not_tried };
        let snapshot = Arc::new(snapshot);
        cache.last = Some((Instant::now(), Arc::clone(&snapshot)));
        snapshot
    }

    /// Reads streams and groups from where the last round ended, until all were read or there were
    /// [`ROUND_MAX`].
    async fn round(&self, cache: &mut SamplerState) -> Round {
        let (mut round, mut left, mut failures) = (Round::default(), ROUND_MAX, 0);
        let Place { stream: first, mut after } = mem::take(&mut cache.next);
        let (count, until) = (self.streams.len(), after.clone());
        // If the round began in the middle of a stream's groups, that stream comes last once more.
        for turn in 0..count + usize::from(until.is_some()) {
            let index = (first + turn) % count;
            let Some(name) = self.streams.get(index) else { break };
            if left < 2 {
                cache.next = Place { stream: index, after: None };
                round.is_cut = true;
                break;
            }
            let known = cache.known.entry(name.clone()).or_default();
            let part = Part {
                after: after.take(),
                until: until.clone().filter(|_| turn == count),
                most: left - 1,
            };
            let began = Instant::now();
            let read = match self.client.stream(name.as_str()) {
                Ok(stream) => known.read(&stream, part).await,
                Err(error) => Err(error.into()),
            };
            round.tried.insert(index);
            round.is_answered |= !matches!(&read, Err(error) if error.is_unanswered());
            match read {
                Ok((groups, None)) => left = left.saturating_sub(groups + 1),
                Ok((_, Some(last))) => {
                    cache.next = Place { stream: index, after: Some(last) };
                    round.is_cut = true;
                    break;
                }
                Err(error) => {
                    let is_unanswered = error.is_unanswered();
                    let fault = Fault::from(error);
                    known.names = Some(Err(fault.clone()));
                    failures += usize::from(is_unanswered);
                    left -= 1;
                    // Each of the other streams may wait for the same timeout. They are tried in
                    // the next round.
                    let is_slow = is_unanswered && began.elapsed() >= SLOW;
                    if failures == FAILURES_MAX || is_slow {
                        cache.next = Place { stream: (index + 1) % count, after: None };
                        round.stopped = Some(fault);
                        break;
                    }
                }
            }
        }
        round
    }
}

impl KnownStream {
    /// Reads the stream and some of its groups. Returns how many groups were read, and the last of them
    /// if there are more.
    async fn read(
        &mut self,
        stream: &Stream,
        part: Part,
    ) -> Result<(usize, Option<GroupName>), StreamError> {
        let sizes = stream.sizes().await?;
        let mut point = Point::new(Instant::now());
        point.count("", sizes.added, 0);
        self.history.add(point);
        let mut names = stream.group_names().await?;
        self.groups.retain(|name, _| names.binary_search(name).is_ok());
        let is_due = |name: &&GroupName| {
            part.after.as_ref().is_none_or(|after| *name > after)
                && part.until.as_ref().is_none_or(|until| *name <= until)
        };
        let due = names.iter().filter(is_due).cloned().collect::<Vec<_>>();
        let read = due.len().min(part.most);
        let groups =
            due.iter().take(read).map(|name| Ok((name.clone(), stream.group(name.as_str())?)));
        let groups = groups.collect::<Result<Vec<_>, NameError>>()?;
        let reads = groups.into_iter().map(|(name, group)| async move {
            let read = GroupRead::of(group).await;
            (name, read)
        });
        let mut reads = stream::iter(reads).buffered(AT_ONCE);
        while let Some((name, group)) = reads.next().await {
            match group {
                Ok(group) => self.add(&name, group),
                // The group was destroyed meanwhile.
                Err(StreamError::GroupMissing { .. }) => {
                    self.groups.remove(&name);
                    names.retain(|known| *known != name);
                }
                Err(error) if error.is_unanswered() => return Err(error),
                // One of the group's keys has another type: this tells nothing about the other groups.
                Err(error) => {
                    let known = self.groups.entry(name.clone()).or_default();
                    known.last = Some(Err(error.into()));
                }
            }
        }
        self.names = Some(Ok(names));
        let last = (due.len() > read).then(|| due.get(read.saturating_sub(1)).cloned());
        Ok((read, last.flatten()))
    }

    fn add(&mut self, name: &GroupName, GroupRead { at, info, consumers }: GroupRead) {
        let mut point = Point::new(at);
        for consumer in &consumers {
            let (done, failed) =
                (consumer.done.unwrap_or_default(), consumer.failed.unwrap_or_default());
            point.count(&consumer.name, done, failed);
        }
        let known = self.groups.entry(name.clone()).or_default();
        known.history.add(point);
        let diagnosis = Diagnosis::of(&info, &consumers);
        let history = &known.history;
        let (rates, minute, done_history) = (history.rates(), history.minute(), history.done());
        let oldest = info.oldest_waiting.unwrap_or_default();
        known.trend.add(TrendPoint { at, rates, waiting: info.backlog.entries, oldest });
        let trend = known.trend.points();
        let read = GroupSnapshot { info, consumers, diagnosis, rates, minute, done_history, trend };
        known.last = Some(Ok(Arc::new(read)));
    }

    /// The current knowledge about the stream.
    fn found(&self) -> Result<StreamFound, Fault> {
        let names = match &self.names {
            None => return Ok(unread()),
            Some(Err(fault)) => return Err(fault.clone()),
            Some(Ok(names)) => names,
        };
        let (mut groups, mut failed) = (Vec::with_capacity(names.len()), Vec::new());
        let mut is_partial = false;
        for name in names {
            match self.groups.get(name).and_then(|known| known.last.as_ref()) {
                Some(Ok(last)) => groups.push(Arc::clone(last)),
                Some(Err(fault)) => failed.push((name.clone(), fault.clone())),
                // The group waits for its turn.
                None => is_partial = true,
            }
        }
        let published = self.history.rates().map(|rates| rates.done);
        Ok(StreamFound { published, groups, failed, is_partial })
    }
}

/// A stream that waits for its first turn.
fn unread() -> StreamFound {
    StreamFound { is_partial: true, ..StreamFound::default() }
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

/// How many streams and groups one snapshot reads. Each takes two or three requests to every partition.
pub(crate) const ROUND_MAX: usize = 100;
/// How many groups are read at once.
const AT_ONCE: usize = 4;
/// After this many streams without an answer, the other streams are not tried. It is more than one, because other
/// streams may be on another node of a cluster.
const FAILURES_MAX: usize = 3;
/// A failure that took this long was a timeout.
const SLOW: Duration = Duration::from_millis(500);
