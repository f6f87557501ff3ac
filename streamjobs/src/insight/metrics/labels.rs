//! Labels, and the handles that are made with them.

use std::time::Duration;

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

    /// These labels, and those that OpenTelemetry's conventions require on each metric of an operation on messages.
    pub(super) fn of_operation(&self, operation: &'static str) -> Self {
        let mut labels = self.and("messaging.system", "redis").and(OPERATION_NAME, operation);
        for (name, conventional) in CONVENTIONAL {
            let known = self.0.iter().find(|label| label.key() == name);
            let value = known.map(|label| label.value().to_owned());
            labels.0.extend(value.map(|value| Label::new(conventional, value)));
        }
        labels
    }

    /// As [`of_operation`](Self::of_operation), for requests: the type of the request is a label as well, both under
    /// the conventions' name and under this crate's own name.
    pub(super) fn of_type(&self, kind: &'static str) -> Self {
        self.and("operation", kind).and("messaging.operation.type", kind)
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

    /// A family of counters that differ in more than one label.
    pub(super) fn of(counters: impl IntoIterator<Item = Counter>) -> Self {
        Self(counters.into_iter().collect())
    }

    /// Adds to the counter of the value at this place in the list.
    pub(super) fn add(&self, place: usize, by: u64) {
        if let Some(counter) = self.0.get(place) {
            counter.increment(by);
        }
    }
}

/// The durations of an operation. Durations of failed operations have a label with the kind of the error, as
/// OpenTelemetry's conventions ask; each kind is registered when it first occurs.
#[derive(Clone, Debug)]
pub(crate) struct Durations {
    succeeded: Histogram,
    failed: Option<(Labels, Metric)>,
}

impl Durations {
    pub(super) fn new(metric: Metric, labels: Labels) -> Self {
        Self { succeeded: labels.histogram(metric), failed: Some((labels, metric)) }
    }

    /// The durations of an operation that is not measured.
    pub(crate) fn noop() -> Self {
        Self { succeeded: Histogram::noop(), failed: None }
    }

    /// Records how long an operation took, and the kind of its error if it failed: one of a few words.
    pub(crate) fn record(&self, took: Duration, error: Option<&'static str>) {
        match (error, &self.failed) {
            (Some(kind), Some((labels, metric))) => {
                labels.and(ERROR_TYPE, kind).histogram(*metric).record(took);
            }
            _ => self.succeeded.record(took),
        }
    }
}

pub(super) const ERROR_TYPE: &str = "error.type";
const OPERATION_NAME: &str = "messaging.operation.name";
/// Labels that have another name in OpenTelemetry's conventions.
const CONVENTIONAL: [(&str, &str); 3] = [
    ("stream", "messaging.destination.name"),
    ("partition", "messaging.destination.partition.id"),
    ("group", "messaging.consumer.group.name"),
];
