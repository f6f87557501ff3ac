//! What the partitions of a group's stream share: one set of alerts, and gauges of the whole stream.

use std::sync::Mutex;

use tokio::time::Instant;

use crate::insight::alert::{Alert, AlertState};
use crate::insight::sample::{PartSample, Samples};
use crate::insight::view::GroupInfo;
use crate::model::config::AlertRules;
use crate::model::name::{GroupName, StreamName};
use crate::runtime::state::lock;
use crate::store::inspect::StreamSizes;

/// Watches one group on a whole stream. There is one watch for all partitions, however many consumers
/// read them.
#[derive(Debug)]
pub(crate) struct GroupWatch {
    stream: StreamName,
    state: Mutex<WatchState>,
}

#[derive(Debug)]
struct WatchState {
    alerts: AlertState,
    samples: Samples,
}

/// What is known about the whole stream after one partition was read.
#[derive(Debug)]
pub(crate) struct Watched {
    /// The alerts that begin or end.
    pub(crate) alerts: Vec<Alert>,
    pub(crate) group: Option<GroupInfo>,
    pub(crate) sizes: Option<StreamSizes>,
}

impl GroupWatch {
    pub(crate) fn new(stream: StreamName, group: &GroupName, rules: AlertRules) -> Self {
        let alerts = AlertState::new(stream.to_string(), group.to_string(), rules);
        let state = WatchState { alerts, samples: Samples::default() };
        Self { stream, state: Mutex::new(state) }
    }

    /// Takes the figures of one partition. If there was no answer for this partition, the conditions that depend on
    /// the group's figures neither begin nor end. `length_max` is how long the whole stream may be.
    pub(super) fn take(
        &self,
        now: Instant,
        partition: &StreamName,
        sample: PartSample,
        length_max: Option<u64>,
    ) -> Watched {
        let (answered, has_sizes) = (sample.group.is_some(), sample.sizes.is_some());
        let mut state = lock(&self.state);
        let WatchState { alerts, samples } = &mut *state;
        samples.take(partition.clone(), sample);
        let group = samples.group(&self.stream).filter(|_| answered);
        let sizes = samples.sizes().filter(|_| has_sizes);
        let length = sizes.map(|sizes| sizes.length);
        let sample = samples.whole(group.as_ref(), length, length_max);
        Watched { alerts: alerts.update(now, &sample), group, sizes }
    }
}
