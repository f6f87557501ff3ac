//! The demo's state: its stream, its workers, its ledger.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use streamjobs::service::BoxFuture;
use streamjobs::stream::{Stream, StreamError, Unfinished};
use streamjobs::{Client, ConsumerName, EntryId, EventId};
use streamjobs_postgres::letters::LetterId;
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep};

use crate::AnyError;
use crate::live::archive::Archive;
use crate::live::ledger::Ledger;
use crate::live::orders::OrderEvent;
use crate::live::processes::{Order, Processes, WorkerOptions};
use crate::live::settings::Settings;
use crate::live::simulation::Delivery;
use crate::live::workers::{WorkerError, WorkerPool};

/// The demo's state.
pub(crate) struct Demo {
    pub(crate) client: Client,
    pub(crate) stream: Stream,
    pub(crate) worker_options: WorkerOptions,
    pub(crate) cap: u64,
    pub(crate) pool: WorkerPool,
    pub(crate) processes: Processes,
    pub(crate) settings: Settings,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    /// The last dead letter of each group that is in the ledger.
    pub(crate) read: tokio::sync::Mutex<HashMap<String, (EntryId, Option<LetterId>)>>,
    /// The archive of dead letters, if there is one.
    pub(crate) archive: Option<Archive>,
    /// Locked shared to publish, and exclusively to reset.
    pub(crate) publishing: RwLock<()>,
}

/// The workers at the start.
pub(crate) const SEED: [(&str, &str); 3] =
    [("notifications", "worker-a"), ("notifications", "worker-b"), ("analytics", "worker-c")];

/// The groups that worker processes work for.
const GROUPS: [&str; 2] = ["notifications", "analytics"];

impl Demo {
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the initial workers and worker processes that do not run yet.
    pub(crate) async fn seed(&self, processes: usize) -> Result<(), AnyError> {
        for (group, label) in SEED {
            match self.pool.add(group, label).await {
                Ok(_) | Err(WorkerError::Taken { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let running = self.processes.states().await.len();
        for _ in running..processes {
            self.start_process().await?;
        }
        Ok(())
    }

    /// Adds a worker. For a new group, the ledger starts with the entries that the stream still has.
    pub(crate) async fn add_worker(
        &self,
        group: &str,
        label: &str,
    ) -> Result<ConsumerName, AnyError> {
        let exists = match self.stream.group(group)?.info().await {
            Ok(_) => true,
            Err(StreamError::Missing { .. } | StreamError::GroupMissing { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        let name = self.pool.add(group, label).await?;
        // Read once the group exists and prevents trimming: entries that are missing now were
        // trimmed before.
        if !exists {
            let info = self.stream.info().await?;
            let first = info.first.or(info.last_id.next()).unwrap_or(EntryId::MAX);
            self.ledger().begin(group, first);
        }
        Ok(name)
    }

    pub(crate) async fn start_process(&self) -> Result<String, AnyError> {
        let ledger = Arc::clone(&self.ledger);
        let tell = move |delivery: Delivery| {
            ledger.lock().unwrap_or_else(PoisonError::into_inner).tell(delivery);
        };
        let mut groups = Vec::new();
        for group in GROUPS {
            // A deleted group must not be created again here.
            if self.pool.works_for(group).await {
                groups.push(group.to_owned());
            }
        }
        self.processes.start(&self.worker_options, groups, self.settings.setting(), tell).await
    }

    /// Publishes an event and records it in the ledger. An unconfirmed publish is repeated with the same
    /// event id, so that it counts as one event.
    pub(crate) async fn publish(&self, event: &OrderEvent) -> Result<String, AnyError> {
        let _not_reset = self.publishing.read().await;
        let id = EventId::generate();
        for _ in 0..PUBLISHED_MAX {
            match self.client.publish_to(self.stream.name(), event, id.clone()).await {
                Ok(published) => {
                    self.ledger().publish(id.as_str(), Some(published.entry_id));
                    return Ok(published.entry_id.to_string());
                }
                Err(error) if error.is_unconfirmed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        // It may have been stored, so it counts as published.
        self.ledger().publish(id.as_str(), None);
        Err("the event may or may not have been stored".into())
    }

    /// Records new dead letters in the ledger: first those in Redis, then those in the archive, because a
    /// letter is archived before it is removed from Redis.
    pub(crate) async fn read_letters(&self, group: &str) -> Result<(), AnyError> {
        let letters = self.stream.group(group)?.dead_letters();
        let mut read = self.read.lock().await;
        let (after, archived) = read.entry(group.to_owned()).or_insert((EntryId::ZERO, None));
        loop {
            let page = letters.list(Some((*after).into()), 500).await?;
            for letter in &page.letters {
                *after = letter.id;
                if let Some(id) = &letter.event_id {
                    self.ledger().dead_letter(group, id.as_str());
                }
            }
            if page.next.is_none() {
                break;
            }
        }
        if let Some(archive) = &self.archive {
            let stream = self.stream.name().as_str();
            let (events, last) = archive.dead_lettered(stream, group, *archived).await?;
            for event in events {
                self.ledger().dead_letter(group, &event);
            }
            *archived = last;
        }
        Ok(())
    }

    /// Destroys a group with its unfinished jobs. All workers of the group stop first, and start again if
    /// it cannot be destroyed because another process works for it.
    pub(crate) async fn delete_group(&self, name: &str) -> Result<(), AnyError> {
        let group = self.stream.group(name)?;
        group.info().await?;
        let labels = self.pool.stop_group(name).await;
        self.processes.tell(None, &Order::Leave { group: name.to_owned() }).await?;
        let Err(error) = once_stopped(|| Box::pin(group.destroy(Unfinished::Lose))).await else {
            self.ledger().forget(name);
            self.read.lock().await.remove(name);
            return Ok(());
        };
        for label in &labels {
            self.pool.add(name, label).await?;
        }
        if GROUPS.contains(&name) {
            self.processes.tell(None, &Order::Join { group: name.to_owned() }).await?;
        }
        Err(error.into())
    }

    /// Stops all workers, deletes the demo's stream with its groups and dead letters, and starts the
    /// initial workers again, also if the deletion failed.
    pub(crate) async fn reset(&self, processes: usize) -> Result<(), AnyError> {
        // Nothing is published between the deletion of the stream and that of the ledger, and only
        // one reset runs at a time.
        let _alone = self.publishing.write().await;
        self.pool.stop().await;
        self.processes.stop().await?;
        let deleted = once_stopped(|| Box::pin(self.stream.delete(Unfinished::Lose))).await;
        if deleted.is_ok() {
            self.ledger().reset();
            self.settings.reset();
            self.read.lock().await.clear();
        }
        self.seed(processes).await?;
        deleted?;
        Ok(())
    }
}

/// Retries while stopped consumers still count as alive. A killed process counts as alive until its
/// heartbeats are overdue, which can take 15 seconds.
async fn once_stopped<'a, T>(
    mut act: impl FnMut() -> BoxFuture<'a, Result<T, StreamError>>,
) -> Result<T, StreamError> {
    let end = Instant::now() + STOPPED_MAX;
    loop {
        match act().await {
            Err(StreamError::Alive { .. }) if Instant::now() < end => sleep(STOPPED_RETRY).await,
            answer => return answer,
        }
    }
}

const PUBLISHED_MAX: u32 = 5;
const STOPPED_MAX: Duration = Duration::from_secs(25);
const STOPPED_RETRY: Duration = Duration::from_millis(500);
