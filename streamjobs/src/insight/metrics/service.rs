//! The metrics of a service, which belongs to no stream.

use metrics::Counter;

use super::labels::Labels;
use super::table::SERVICES_ENDED;

/// The handles of one service.
#[derive(Debug)]
pub(crate) struct ServiceMetrics {
    returned: Counter,
    panicked: Counter,
}

impl ServiceMetrics {
    /// Makes every handle with the current recorder.
    pub(crate) fn new(service: &'static str) -> Self {
        let labels = Labels::default().and("service", service);
        let ended = |reason| labels.and("reason", reason).counter(SERVICES_ENDED);
        Self { returned: ended("returned"), panicked: ended("panic") }
    }

    /// A run ended before the shutdown.
    pub(crate) fn ended(&self, panicked: bool) {
        let counter = if panicked { &self.panicked } else { &self.returned };
        counter.increment(1);
    }
}
