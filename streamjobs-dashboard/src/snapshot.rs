//! The state of all streams and groups at one moment, as pages show it.

use std::sync::Arc;

use streamjobs::stream::{ConsumerInfo, Diagnosis, GroupInfo, Liveness};
use streamjobs::{GroupName, StreamName};

use crate::archived::Counts;
use crate::fault::Fault;
use crate::format::Counted;
use crate::history::Rates;
use crate::trend::TrendPoint;

/// The state of all streams at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) streams: Vec<StreamSnapshot>,
    /// Open letters of the archive. `None` without an archive.
    pub(crate) archived: Option<Counts>,
    /// Whether there are so many groups that each snapshot reads only some of them, and keeps the
    /// earlier results for the other groups.
    pub(crate) is_in_turns: bool,
    /// How many streams were not tried, because the server did not answer for an earlier stream.
    /// Their earlier results are kept.
    pub(crate) not_tried: usize,
}

/// A stream at that moment, or why it could not be read.
#[derive(Debug)]
pub(crate) struct StreamSnapshot {
    pub(crate) name: StreamName,
    /// The streams of its partitions, under which the archive keeps letters.
    pub(crate) parts: Vec<StreamName>,
    pub(crate) found: Result<StreamFound, Fault>,
}

#[derive(Debug, Default)]
pub(crate) struct StreamFound {
    /// Entries added per second, recently. `None` until the second sample.
    pub(crate) published: Option<f64>,
    pub(crate) groups: Vec<Arc<GroupSnapshot>>,
    /// Groups that the server refused to read, and why.
    pub(crate) failed: Vec<(GroupName, Fault)>,
    /// Whether some or all groups were not read yet.
    pub(crate) is_partial: bool,
}

/// A group at that moment.
#[derive(Debug)]
pub(crate) struct GroupSnapshot {
    pub(crate) info: GroupInfo,
    pub(crate) consumers: Vec<ConsumerInfo>,
    pub(crate) diagnosis: Diagnosis,
    /// Jobs per second, recently. `None` until the second sample.
    pub(crate) rates: Option<Rates>,
    /// Jobs per second over the last minute. `None` until the second sample.
    pub(crate) minute: Option<Rates>,
    /// Jobs done per second over the last five minutes, oldest first.
    pub(crate) done_history: Vec<f64>,
    /// The last quarter of an hour, oldest first.
    pub(crate) trend: Vec<TrendPoint>,
}

impl Snapshot {
    /// The streams of a stream's partitions; empty if the stream is not shown.
    pub(crate) fn parts(&self, stream: &str) -> &[StreamName] {
        let shown = self.streams.iter().find(|shown| shown.name.as_str() == stream);
        shown.map_or(&[], |shown| &shown.parts)
    }

    /// The streams that could be read.
    pub(crate) fn found(&self) -> impl Iterator<Item = &StreamFound> {
        self.streams.iter().filter_map(|stream| stream.found.as_ref().ok())
    }

    /// A stream, if it could be read.
    pub(crate) fn stream(&self, name: &str) -> Option<&StreamFound> {
        let stream = self.streams.iter().find(|stream| stream.name.as_str() == name)?;
        stream.found.as_ref().ok()
    }

    /// A group, if it could be read.
    pub(crate) fn group(&self, stream: &str, group: &str) -> Option<&GroupSnapshot> {
        let groups = &self.stream(stream)?.groups;
        groups.iter().find(|sampled| sampled.info.group == group).map(Arc::as_ref)
    }

    /// Whether some group was not read yet.
    pub(crate) fn is_partial(&self) -> bool {
        self.found().any(|found| found.is_partial)
    }

    /// Dead letters of a group: those in Redis and the open dead letters of the archive. `None` if
    /// Redis or the archive did not tell its count; a lower bound if the archive did not count this
    /// group.
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

    /// Why a stream could not be read completely: the error of the stream itself, or of some of its
    /// groups.
    pub(crate) fn failure(&self, name: &str) -> Option<&Fault> {
        let stream = self.streams.iter().find(|stream| stream.name.as_str() == name)?;
        stream.faults().next()
    }

    /// Whether some stream or group could not be read, or was not read yet.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.is_partial() || self.streams.iter().any(|stream| stream.faults().next().is_some())
    }

    /// Why streams and groups could not be read: each reason once, with its streams.
    pub(crate) fn failures(&self) -> Vec<(&Fault, Vec<&StreamName>)> {
        let mut failures = Vec::<(&Fault, Vec<&StreamName>)>::new();
        for stream in &self.streams {
            for fault in stream.faults() {
                match failures.iter_mut().find(|(known, _)| *known == fault) {
                    Some((_, streams)) if streams.contains(&&stream.name) => {}
                    Some((_, streams)) => streams.push(&stream.name),
                    None => failures.push((fault, vec![&stream.name])),
                }
            }
        }
        failures
    }
}

impl StreamSnapshot {
    /// Why the stream or some of its groups could not be read. A stream that does not exist is not a
    /// failure.
    fn faults(&self) -> impl Iterator<Item = &Fault> {
        let groups = self.found.iter().flat_map(|found| &found.failed).map(|(_, fault)| fault);
        let all = self.found.as_ref().err().into_iter().chain(groups);
        all.filter(|fault| fault.status.is_server_error())
    }
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
