//! The demo as a whole: its stream, its workers, its ledger.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use streamjobs::stream::{Stream, StreamError, Unfinished};
use streamjobs::{Client, ConsumerName, EntryId, EventId};
use streamjobs_postgres::letters::LetterId;
use tokio::time::{Instant, sleep};

use crate::AnyError;
use crate::live::archive::Archive;
use crate::live::crew::{Crew, CrewError};
use crate::live::desk::Told;
use crate::live::ledger::Ledger;
use crate::live::levers::Levers;
use crate::live::orders::OrderEvent;
use crate::live::processes::{Processes, Workplace};

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
}

/// The workers with which it begins.
pub(crate) const SEED: [(&str, &str); 3] =
    [("notifications", "worker-a"), ("notifications", "worker-b"), ("analytics", "worker-c")];

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
        self.processes.start(&self.place, self.levers.setting(), tell).await
    }

    /// Publishes an event, and enters it into the ledger if it was accepted. One that may have been
    /// stored is published again under its id, which makes it one event.
    pub(crate) async fn publish(&self, event: &OrderEvent) -> Result<String, AnyError> {
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
                    self.ledger().bury(group, id.as_str());
                }
            }
            if page.next.is_none() {
                break;
            }
        }
        if let Some(archive) = &self.archive {
            let stream = self.stream.name().as_str();
            let (events, last) = archive.buried(stream, group, *archived).await?;
            for event in events {
                self.ledger().bury(group, &event);
            }
            *archived = last;
        }
        Ok(())
    }

    /// Stops everything, deletes the demo's own stream with all that belongs to it, and begins
    /// anew. A process that was killed counts as alive until its beats are missed, so this can take
    /// a quarter of a minute.
    pub(crate) async fn reset(&self, processes: usize) -> Result<(), AnyError> {
        self.crew.stop().await;
        self.processes.stop().await?;
        let end = Instant::now() + RESET_MAX;
        while let Err(error) = self.stream.delete(Unfinished::Lose).await {
            let waits = matches!(error, StreamError::Alive { .. });
            if !waits || Instant::now() > end {
                return Err(error.into());
            }
            sleep(Duration::from_millis(500)).await;
        }
        self.ledger().reset();
        self.levers.reset();
        self.read.lock().await.clear();
        self.seed(processes).await
    }
}

const PUBLISHED_MAX: u32 = 5;
const RESET_MAX: Duration = Duration::from_secs(25);
