//! Samples of a group in each partition, combined: pure.

use std::collections::BTreeMap;

use crate::insight::alert::{EventCounts, QueueSample};
use crate::insight::merge;
use crate::insight::view::GroupInfo;
use crate::model::name::StreamName;
use crate::store::inspect::StreamSizes;

/// A sample of a group in one partition, or on a stream that has only one.
#[derive(Debug)]
pub(crate) struct PartSample {
    pub(crate) happened: EventCounts,
    /// What the last blocked attempt needs; empty if none was blocked.
    pub(crate) blocked_cause: String,
    /// `None` if the server did not answer.
    pub(crate) group: Option<GroupInfo>,
    /// Whether reads succeed on the reading connection.
    pub(crate) reads: bool,
    /// `None` if the server did not answer, or if another queue watches the stream.
    pub(crate) sizes: Option<StreamSizes>,
    /// The group that keeps the stream from being trimmed, if the stream is too long.
    pub(crate) blocked_by: Option<String>,
}

/// The last samples of all partitions.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<StreamName, PartSample>);

impl Samples {
    /// Takes the sample of a partition. If its server did not answer, the last known values of the partition stay,
    /// because they describe the whole stream better than no values.
    pub(crate) fn take(&mut self, partition: StreamName, mut sample: PartSample) {
        if let Some(known) = self.0.remove(&partition) {
            sample.group = sample.group.or(known.group);
            sample.sizes = sample.sizes.or(known.sizes);
        }
        self.0.insert(partition, sample);
    }

    /// The group on the whole stream, as far as it was read.
    pub(crate) fn group(&self, stream: &StreamName) -> Option<GroupInfo> {
        let infos = self.0.values().filter_map(|sample| sample.group.clone());
        let count = u16::try_from(self.0.len()).unwrap_or(u16::MAX);
        merge::group(stream, count, infos.collect())
    }

    /// The whole stream, as far as it was read.
    pub(crate) fn sizes(&self) -> Option<StreamSizes> {
        self.0.values().filter_map(|sample| sample.sizes).reduce(merge::sizes)
    }

    /// All samples combined into one. `group` and `length` describe the whole stream, and `length_max` is the limit
    /// of its length.
    pub(crate) fn whole<'s>(
        &'s self,
        group: Option<&'s GroupInfo>,
        length: Option<u64>,
        length_max: Option<u64>,
    ) -> QueueSample<'s> {
        let samples = || self.0.values();
        let causes = samples().map(|sample| sample.blocked_cause.as_str());
        QueueSample {
            happened: samples().map(|sample| sample.happened).fold(Default::default(), sum),
            blocked_cause: causes.into_iter().find(|cause| !cause.is_empty()).unwrap_or_default(),
            group,
            reads: samples().all(|sample| sample.reads),
            length,
            length_max,
            blocked_by: samples().find_map(|sample| sample.blocked_by.as_deref()),
        }
    }
}

fn sum(one: EventCounts, other: EventCounts) -> EventCounts {
    EventCounts {
        claimed: one.claimed + other.claimed,
        dead_lettered: one.dead_lettered + other.dead_lettered,
        blocked: one.blocked + other.blocked,
        groups_recreated: one.groups_recreated + other.groups_recreated,
        removed_in_flight: one.removed_in_flight + other.removed_in_flight,
        trimmed_unread: one.trimmed_unread + other.trimmed_unread,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(partition: u16) -> StreamName {
        StreamName::new(format!("orders:p{partition}:{{7}}")).unwrap()
    }

    fn sample(pending: Option<u64>, dead_lettered: u64) -> PartSample {
        let group = pending.map(|pending| GroupInfo { pending, ..GroupInfo::idle() });
        PartSample {
            happened: EventCounts { dead_lettered, ..EventCounts::default() },
            blocked_cause: String::new(),
            group,
            reads: true,
            sizes: pending.map(|length| StreamSizes { length, added: 0, bytes: None, groups: 1 }),
            blocked_by: None,
        }
    }

    #[test]
    fn partitions_are_one_and_one_whose_server_is_silent_stays_as_it_was() {
        let (mut samples, whole) = (Samples::default(), StreamName::new("orders").unwrap());
        samples.take(name(1), sample(Some(4), 1));
        samples.take(name(2), sample(Some(5), 2));
        samples.take(name(1), PartSample { reads: false, ..sample(None, 3) });
        let group = samples.group(&whole).unwrap();
        assert_eq!((group.stream.as_str(), group.pending, group.partitions), ("orders", 9, 2));
        assert_eq!(samples.sizes().map(|sizes| sizes.length), Some(9));
        let all = samples.whole(Some(&group), Some(9), Some(5));
        assert_eq!((all.happened.dead_lettered, all.reads), (5, false));
    }

    #[test]
    fn what_blocks_one_partition_is_said_of_the_whole() {
        let mut samples = Samples::default();
        samples.take(name(1), sample(Some(0), 0));
        let blocked = PartSample {
            blocked_cause: "a right".to_owned(),
            blocked_by: Some("mail".to_owned()),
            ..sample(Some(0), 0)
        };
        samples.take(name(2), blocked);
        let all = samples.whole(None, None, None);
        assert_eq!((all.blocked_cause, all.blocked_by), ("a right", Some("mail")));
    }
}
