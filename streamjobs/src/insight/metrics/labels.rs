//! Labels, and the handles that are made with them.

use metrics::{Counter, Gauge, Histogram, Label};

use super::table::Metric;
use crate::model::name::{GroupName, StreamName};

/// Labels that several handles share.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(Vec<Label>);

impl Labels {
    /// The labels of a stream, or of one of its partitions.
    pub(super) fn of_stream(stream: &StreamName, partition: Option<u16>) -> Self {
        let stream = Label::new("stream", stream.to_string());
        let partition = partition.map(|number| Label::new("partition", number.to_string()));
        Self(std::iter::once(stream).chain(partition).collect())
    }

    /// The labels of a group on that stream.
    pub(super) fn and_group(&self, group: &GroupName) -> Self {
        let mut labels = self.0.clone();
        labels.push(Label::new("group", group.to_string()));
        Self(labels)
    }

    pub(super) fn and(&self, name: &'static str, value: &'static str) -> Self {
        let mut labels = self.0.clone();
        labels.push(Label::from_static_parts(name, value));
        Self(labels)
    }

    pub(super) fn counter(&self, metric: Metric) -> Counter {
        metrics::counter!(metric.name, self.0.clone())
    }

    pub(super) fn gauge(&self, metric: Metric) -> Gauge {
        metrics::gauge!(metric.name, self.0.clone())
    }

    pub(super) fn histogram(&self, metric: Metric) -> Histogram {
        metrics::histogram!(metric.name, self.0.clone())
    }
}

/// Counters that differ in one label with a closed list of values, in the order of the list.
#[derive(Debug)]
pub(super) struct Family(Vec<Counter>);

impl Family {
    pub(super) fn new(
        metric: Metric,
        labels: &Labels,
        name: &'static str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let counter = |value| labels.and(name, value).counter(metric);
        Self(values.into_iter().map(counter).collect())
    }

    /// Adds to the counter of the value at this place in the list.
    pub(super) fn add(&self, place: usize, by: u64) {
        if let Some(counter) = self.0.get(place) {
            counter.increment(by);
        }
    }
}
