//! What a test sees of streams in memory after every step, and what it lets happen to every call.

use std::fmt;
use std::time::Duration;

use tokio::time::sleep;

use super::world::World;
use super::{Fault, MemoryStore};
use crate::model::entry::{EntryId, Fields};
use crate::store::Queue;

/// Who watches a store. Its methods must not call the store.
pub trait Watch: fmt::Debug + Send + Sync {
    /// What becomes of a caller's next call. A waiting read asks for "look" every time it looks
    /// again; only the fault of that answer counts.
    fn passage(&self, caller: u64, operation: &'static str) -> Passage;

    /// A step was carried out. Nothing comes between it and this view.
    fn carried_out(&self, caller: u64, operation: &'static str, view: View<'_>);
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passage {
    /// How long the request is on its way.
    pub before: Duration,
    /// How the call fails, if it does.
    pub fault: Option<Fault>,
    /// How long the answer is on its way.
    pub after: Duration,
}

/// The state of a store between two steps.
#[derive(Clone, Copy)]
pub struct View<'a> {
    world: &'a World,
}

/// A row of a pending list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingView<'a> {
    /// The entry.
    pub id: EntryId,
    /// Who has it.
    pub consumer: &'a str,
    /// Since when nothing was heard of it, by the server's clock in milliseconds.
    pub since: u64,
    /// How often it was delivered.
    pub delivery_count: u64,
}

impl<'a> View<'a> {
    /// The server's clock in milliseconds.
    #[must_use]
    pub fn now(self) -> u64 {
        self.world.now()
    }

    /// The entries of a stream, in order.
    pub fn entries(self, key: &str) -> impl Iterator<Item = (EntryId, &'a Fields)> + use<'a> {
        let stream = self.world.streams.get(key);
        stream.into_iter().flat_map(|stream| stream.entries.iter().map(|(id, text)| (*id, text)))
    }

    /// The last entry that was delivered to a group; none without the group.
    #[must_use]
    pub fn cursor(self, key: &str, group: &str) -> Option<EntryId> {
        Some(self.world.streams.get(key)?.groups.get(group)?.delivered)
    }

    /// A pending list, in order.
    pub fn pending(
        self,
        key: &str,
        group: &str,
    ) -> impl Iterator<Item = PendingView<'a>> + use<'a> {
        let group = self.world.streams.get(key).and_then(|stream| stream.groups.get(group));
        group.into_iter().flat_map(|group| {
            group.pending.iter().map(|(id, row)| PendingView {
                id: *id,
                consumer: &row.consumer,
                since: row.since,
                delivery_count: row.delivery_count,
            })
        })
    }

    /// The jobs that are set aside, in the order in which they are due.
    pub fn retries(self, queue: &Queue) -> impl Iterator<Item = &'a Fields> + use<'a> {
        let key = queue.stream.retry_key(&queue.group);
        self.world
            .waiting
            .get(&key)
            .into_iter()
            .flat_map(|waiting| waiting.values().map(|waiting| &waiting.fields))
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// The same streams as one caller reaches them who is watched.
    #[must_use]
    pub fn watched(&self, caller: u64, watch: std::sync::Arc<dyn Watch>) -> Self {
        Self { watch: Some((caller, watch)), ..self.clone() }
    }

    /// Waits for a request to arrive: what becomes of it. Nothing, where nobody watches.
    pub(super) async fn passage(&self, operation: &'static str) -> Passage {
        let Some((caller, watch)) = &self.watch else { return Passage::default() };
        let passage = watch.passage(*caller, operation);
        delay(passage.before).await;
        passage
    }

    /// What becomes of a waiting read that looks again.
    pub(super) fn look_fault(&self) -> Option<Fault> {
        let (caller, watch) = self.watch.as_ref()?;
        watch.passage(*caller, "look").fault
    }

    /// Shows the watch what a step came to.
    pub(super) fn show(&self, operation: &'static str, world: &World) {
        if let Some((caller, watch)) = &self.watch {
            watch.carried_out(*caller, operation, View { world });
        }
    }
}

/// Waits for a message on its way; one that takes no time does not even yield.
pub(super) async fn delay(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}
