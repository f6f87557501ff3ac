//! The demo as a whole: its stream, its workers, its ledger.

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
use crate::live::crew::{Crew, CrewError};
use crate::live::desk::Told;
use crate::live::ledger::Ledger;
use crate::live::levers::Levers;
use crate::live::orders::OrderEvent;
use crate::live::processes::{Order, Processes, Workplace};

/// The demo as a whole.
pub(crate) struct Shop {
    pub(crate) client: Client,
    pub(crate) stream: Stream,
    pub(crate) place: Workplace,
    pub(crate) cap: u64,
    pub(crate) crew: Crew,
    pub(crate) processes: Processes,
    pub(crate) levers: Levers,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    /// Up to which dead letter of a group the ledger has read.
    pub(crate) read: tokio::sync::Mutex<HashMap<String, (EntryId, Option<LetterId>)>>,
    /// Where dead letters go from Redis, if anywhere.
    pub(crate) archive: Option<Archive>,
    /// Held by who publishes, and alone by a reset.
    pub(crate) publishing: RwLock<()>,
}

/// The workers with which it begins.
pub(crate) const SEED: [(&str, &str); 3] =
    [("notifications", "worker-a"), ("notifications", "worker-b"), ("analytics", "worker-c")];

/// The groups that worker processes work for.
const GROUPS: [&str; 2] = ["notifications", "analytics"];

impl Shop {
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the workers and the processes beside them that are not there yet.
    pub(crate) async fn seed(&self, processes: usize) -> Result<(), AnyError> {
        for (group, label) in SEED {
            match self.crew.add(group, label).await {
                Ok(_) | Err(CrewError::Taken { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let running = self.processes.seen().await.len();
        for _ in running..processes {
            self.start_process().await?;
        }
        Ok(())
    }

    /// Adds a worker. For a group that did not exist, the counter begins with what the stream holds.
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
        let name = self.crew.add(group, label).await?;
        // Looked at once the group is there and holds trimming up: what is gone by then without
        // being done was gone before.
        if !exists {
            let info = self.stream.info().await?;
            let first = info.first.or(info.last_id.next()).unwrap_or(EntryId::MAX);
            self.ledger().begin(group, first);
        }
        Ok(name)
    }

    pub(crate) async fn start_process(&self) -> Result<String, AnyError> {
        let ledger = Arc::clone(&self.ledger);
        let tell = move |told: Told| {
            ledger.lock().unwrap_or_else(PoisonError::into_inner).tell(told);
        };
        let mut groups = Vec::new();
        for group in GROUPS {
            // One that was deleted is not made again by the way.
            if self.crew.works_for(group).await {
                groups.push(group.to_owned());
            }
        }
        self.processes.start(&self.place, groups, self.levers.setting(), tell).await
    }

    /// Publishes an event, and enters it into the ledger if it was accepted. One that may have been
    /// stored is published again under its id, which makes it one event.
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
        // It may be there, so that it is not done would be a loss.
        self.ledger().publish(id.as_str(), None);
        Err("nobody knows whether the event was stored".into())
    }

    /// Enters the dead letters that came since the last look into the ledger: first those in Redis,
    /// then those in the archive, which are stored there before they leave Redis.
    pub(crate) async fn read_letters(&self, group: &str) -> Result<(), AnyError> {
        let letters = self.stream.group(group)?.dead_letters();
        let mut read = self.read.lock().await;
        let (after, archived) = read.entry(group.to_owned()).or_insert((EntryId::ZERO, None));
        loop {
            let page = letters.list(Some(*after), 500).await?;
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

    /// Removes a group with its work: everybody here stops working for it first, and goes on if it
    /// cannot be removed, because somebody else works for it.
    pub(crate) async fn delete_group(&self, name: &str) -> Result<(), AnyError> {
        let group = self.stream.group(name)?;
        group.info().await?;
        let labels = self.crew.stop_group(name).await;
        self.processes.tell(None, &Order::Leave { group: name.to_owned() }).await?;
        let Err(error) = once_stopped(|| Box::pin(group.destroy(Unfinished::Lose))).await else {
            self.ledger().forget(name);
            self.read.lock().await.remove(name);
            return Ok(());
        };
        for label in &labels {
            self.crew.add(name, label).await?;
        }
        if GROUPS.contains(&name) {
            self.processes.tell(None, &Order::Join { group: name.to_owned() }).await?;
        }
        Err(error.into())
    }

    /// Stops everything, deletes the demo's own stream with all that belongs to it, and begins
    /// anew, whether it could be deleted or not.
    pub(crate) async fn reset(&self, processes: usize) -> Result<(), AnyError> {
        // Nothing is published between the end of the stream and that of the ledger, and one reset
        // does not begin while another one does.
        let _alone = self.publishing.write().await;
        self.crew.stop().await;
        self.processes.stop().await?;
        let deleted = once_stopped(|| Box::pin(self.stream.delete(Unfinished::Lose))).await;
        if deleted.is_ok() {
            self.ledger().reset();
            self.levers.reset();
            self.read.lock().await.clear();
        }
        self.seed(processes).await?;
        deleted?;
        Ok(())
    }
}

/// Tries until those who were stopped count as such. A process that was killed counts as alive until
/// its beats are missed, so this can take a quarter of a minute.
async fn once_stopped<'a, T>(
    mut act: impl FnMut() -> BoxFuture<'a, Result<T, StreamError>>,
) -> Result<T, StreamError> {
    let end = Instant::now() + STOPPED_MAX;
    loop {
        match act().await {
            Err(StreamError::Alive { .. }) if Instant::now() < end => sleep(STOPPED_LOOK).await,
            answer => return answer,
        }
    }
}

const PUBLISHED_MAX: u32 = 5;
const STOPPED_MAX: Duration = Duration::from_secs(25);
const STOPPED_LOOK: Duration = Duration::from_millis(500);
