//! Metrics under OpenTelemetry's conventions for messaging, printed as a collector would get them.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use metrics_opentelemetry::{OpenTelemetryMetrics, OpenTelemetryRecorder};
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData};
use opentelemetry_sdk::metrics::{
    InMemoryMetricExporter, Instrument, PeriodicReader, SdkMeterProvider, Stream,
};
use serde::{Deserialize, Serialize};
use streamjobs::testing::Streams;
use streamjobs::{Event, Job, JobError, Runtime, handler};

// page: begin
/// Four metrics are those of OpenTelemetry's conventions for messaging.
fn conventional(instrument: &Instrument) -> Option<Stream> {
    let (name, unit) = match instrument.name() {
        "messaging_client_sent_messages_total" => ("messaging.client.sent.messages", "{message}"),
        "messaging_client_consumed_messages_total" => {
            ("messaging.client.consumed.messages", "{message}")
        }
        "messaging_client_operation_duration_seconds" => {
            ("messaging.client.operation.duration", "s")
        }
        "messaging_process_duration_seconds" => ("messaging.process.duration", "s"),
        _ => return None,
    };
    Stream::builder().with_name(name).with_unit(unit).build().ok()
}
// page: end

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct OrderPlaced {
    order_id: String,
}

/// Fails once.
#[handler(group = "billing", backoff = "10ms")]
async fn charge(order: OrderPlaced, job: Job) -> Result<(), JobError> {
    match job.attempt() {
        1 => Err(JobError::retry(format!("no answer for {}", order.order_id))),
        _ => Ok(()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // In a program of yours, that of `opentelemetry-otlp`.
    let exporter = InMemoryMetricExporter::default();
    // page: begin
    let reader = PeriodicReader::builder(exporter.clone()).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).with_view(conventional).build();
    let mut recorder =
        OpenTelemetryRecorder::new(OpenTelemetryMetrics::new(provider.meter("streamjobs")));
    let buckets = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
    let durations =
        ["messaging_client_operation_duration_seconds", "messaging_process_duration_seconds"];
    recorder.set_histogram_bounds_mut(durations.into_iter(), &buckets);
    metrics::set_global_recorder(recorder)?;
    // page: end

    let streams = Streams::new();
    let client = streams.client();
    let runtime = Runtime::builder(&client).start().await?;
    client.publish(&OrderPlaced { order_id: "o-1".into() }).await?;
    streams.drain(Duration::from_secs(1)).await?;
    let _report = runtime.shutdown().await;
    provider.force_flush()?;

    let finished = exporter.get_finished_metrics()?;
    let scopes = finished.iter().flat_map(|resource| resource.scope_metrics());
    let lines = scopes.flat_map(|scope| scope.metrics()).flat_map(series);
    for line in lines.collect::<BTreeSet<_>>() {
        println!("{line}");
    }
    Ok(())
}

/// A line for each series of a metric of the conventions: name, unit, attributes of the conventions, and the bounds of
/// a histogram's buckets.
fn series(metric: &Metric) -> Vec<String> {
    let line = |attributes: Vec<&KeyValue>| {
        let conventional = ["error.", "messaging."];
        let attributes = attributes.into_iter().filter(|attribute| {
            conventional.iter().any(|prefix| attribute.key.as_str().starts_with(prefix))
        });
        let attributes = attributes.map(|one| format!("{}={}", one.key, one.value));
        let attributes = attributes.collect::<Vec<_>>().join(" ");
        format!("{} [{}] {attributes}", metric.name(), metric.unit())
    };
    if !metric.name().starts_with("messaging.") {
        return Vec::new();
    }
    match metric.data() {
        AggregatedMetrics::U64(MetricData::Sum(sum)) => {
            let moved = sum.data_points().filter(|point| point.value() > 0);
            moved.map(|point| line(point.attributes().collect())).collect()
        }
        AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
            let points = histogram.data_points().map(|point| {
                let bounds = point.bounds().map(|bound| bound.to_string()).collect::<Vec<_>>();
                format!("{} <= {}", line(point.attributes().collect()), bounds.join(" "))
            });
            points.collect()
        }
        _ => Vec::new(),
    }
}
