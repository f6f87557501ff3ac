//! Counters of what happens to a service, which belongs to no stream.

use metrics::{Counter, Label};

use super::{Labels, SERVICES_ENDED};

/// The handles of one service.
#[derive(Debug)]
pub(crate) struct ServiceMetrics {
    returned: Counter,
    panicked: Counter,
}

impl ServiceMetrics {
    /// Makes every handle with the recorder that is there now.
    pub(crate) fn new(service: &'static str) -> Self {
        let labels = Labels(vec![Label::from_static_parts("service", service)]);
        let ended = |reason| labels.and("reason", reason).counter(SERVICES_ENDED);
        Self { returned: ended("returned"), panicked: ended("panic") }
    }

    /// A run ended that should have gone on.
    pub(crate) fn ended(&self, panicked: bool) {
        let counter = if panicked { &self.panicked } else { &self.returned };
        counter.increment(1);
    }
}
