//! Consumers that stopped in this process and whose names the server still has.

use std::sync::Mutex;

use crate::model::name::ConsumerName;
use crate::runtime::state::lock::lock;
use crate::store::Queue;

/// Names to be removed from the server as soon as nothing is pending for them: entries that a
/// consumer released stay under its name until another consumer claims them. A name is used once.
#[derive(Debug, Default)]
pub(crate) struct StoppedConsumers {
    names: Mutex<Vec<(Queue, ConsumerName)>>,
}

impl StoppedConsumers {
    pub(crate) fn add(&self, queue: &Queue, consumer: &ConsumerName) {
        lock(&self.names).push((queue.clone(), consumer.clone()));
    }

    /// The server no longer has the name.
    pub(crate) fn remove(&self, queue: &Queue, consumer: &ConsumerName) {
        lock(&self.names).retain(|(of, name)| of != queue || name != consumer);
    }

    /// The names that remain on a queue.
    pub(crate) fn of(&self, queue: &Queue) -> Vec<ConsumerName> {
        let names = lock(&self.names);
        let remaining = names.iter().filter(|(of, _)| of == queue);
        remaining.map(|(_, name)| name.clone()).collect()
    }
}
