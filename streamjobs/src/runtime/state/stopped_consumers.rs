//! Consumers that stopped in this process and whose names the server still has.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::name::ConsumerName;
use crate::store::Queue;

/// Names to be removed from the server as soon as nothing is pending for them: entries that a
/// consumer released stay under its name until another consumer claims them. A name is used once.
#[derive(Debug, Default)]
pub(crate) struct StoppedConsumers {
    names: Mutex<Vec<(Queue, ConsumerName)>>,
}

impl StoppedConsumers {
    pub(crate) fn add(&self, queue: &Queue, consumer: &ConsumerName) {
        self.lock().push((queue.clone(), consumer.clone()));
    }

    /// The server no longer has the name.
    pub(crate) fn remove(&self, queue: &Queue, consumer: &ConsumerName) {
        self.lock().retain(|(of, name)| of != queue || name != consumer);
    }

    /// The names that remain on a queue.
    pub(crate) fn of(&self, queue: &Queue) -> Vec<ConsumerName> {
        let names = self.lock();
        let remaining = names.iter().filter(|(of, _)| of == queue);
        remaining.map(|(_, name)| name.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Queue, ConsumerName)>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
