//! The consumers of this process: one runtime for each group, and workers under names of one's own.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex as Lock;
use std::sync::PoisonError;
use std::time::Duration;

use streamjobs::config::GroupOptions;
use streamjobs::error::{ControlError, StartError};
use streamjobs::runtime::ShutdownReport;
use streamjobs::{Client, ConsumerName, Runtime};
use streamjobs_dashboard::AlertLog;
use streamjobs_postgres::Postgres;
use thiserror::Error;
use tokio::sync::RwLock;

use crate::live::desk::Desk;
use crate::live::orders::handler_of;

/// One worker of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Worker {
    pub(crate) group: String,
    /// What it is called on the page.
    pub(crate) label: String,
    /// What it is called on the server.
    pub(crate) name: ConsumerName,
    pub(crate) paused: bool,
    pub(crate) in_flight: usize,
}

/// Why a worker was not added or removed.
#[derive(Debug, Error)]
pub(crate) enum CrewError {
    #[error("group {group} has a worker {label} already")]
    Taken { group: String, label: String },
    #[error("this process has no worker {label} in group {group}")]
    Unknown { group: String, label: String },
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// The workers of this process.
pub(crate) struct Crew {
    client: Client,
    stream: &'static str,
    lease: Duration,
    desk: Desk,
    alerts: AlertLog,
    /// Takes dead letters of this process' groups, if there is one.
    archive: Option<Postgres>,
    runtimes: RwLock<BTreeMap<String, Runtime>>,
    /// Names that are being added: two who want the same one cannot both have it.
    reserved: Lock<HashSet<(String, String)>>,
}

/// A name that is taken until its worker is there, or has failed to come.
struct Reserved<'a> {
    crew: &'a Crew,
    key: (String, String),
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.crew.reserved.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Crew {
    pub(crate) fn new(
        client: Client,
        stream: &'static str,
        lease: Duration,
        desk: Desk,
        alerts: AlertLog,
        archive: Option<Postgres>,
    ) -> Self {
        let (runtimes, reserved) = (RwLock::default(), Lock::default());
        Self { client, stream, lease, desk, alerts, archive, runtimes, reserved }
    }

    /// The workers, by group and in the order of their starts.
    pub(crate) async fn workers(&self) -> Vec<Worker> {
        let runtimes = self.runtimes.read().await;
        let consumers = runtimes.values().flat_map(Runtime::consumers);
        consumers
            .map(|consumer| Worker {
                group: consumer.group.to_string(),
                label: label_of(consumer.name.as_str()).to_owned(),
                name: consumer.name,
                paused: consumer.paused,
                in_flight: consumer.in_flight,
            })
            .collect()
    }

    /// Adds a worker. A group that nobody here works for yet gets a runtime, and begins with the
    /// first event of the stream.
    pub(crate) async fn add(&self, group: &str, label: &str) -> Result<ConsumerName, CrewError> {
        let taken = || CrewError::Taken { group: group.to_owned(), label: label.to_owned() };
        let key = (group.to_owned(), label.to_owned());
        let free = self.reserved.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        if !free {
            return Err(taken());
        }
        let _reserved = Reserved { crew: self, key };
        if self.find(group, label).await.is_ok() {
            return Err(taken());
        }
        let control = self.runtimes.read().await.get(group).map(Runtime::control);
        if let Some(control) = control {
            return Ok(control.add_consumer_named(group, label).await?);
        }
        let mut runtimes = self.runtimes.write().await;
        if let Some(runtime) = runtimes.get(group) {
            return Ok(runtime.control().add_consumer_named(group, label).await?);
        }
        let builder = Runtime::builder(&self.client)
            .handlers([handler_of(group, self.stream)])
            .state(self.desk.clone())
            .group(group, GroupOptions::new().lease(self.lease))
            .consumer_prefix(label)
            .grace(GRACE)
            .on_alert(self.alerts.recorder());
        let runtime = match &self.archive {
            Some(postgres) => builder.service(postgres.archive()).start().await?,
            None => builder.start().await?,
        };
        let name = runtime.consumer().clone();
        runtimes.insert(group.to_owned(), runtime);
        Ok(name)
    }

    /// Stops a worker and takes its name off the server; what it had goes to the others.
    pub(crate) async fn remove(
        &self,
        group: &str,
        label: &str,
    ) -> Result<ShutdownReport, CrewError> {
        let worker = self.find(group, label).await?;
        let control = self.runtimes.read().await.get(group).map(Runtime::control);
        let unknown = || CrewError::Unknown { group: group.to_owned(), label: label.to_owned() };
        Ok(control.ok_or_else(unknown)?.remove_consumer(&worker.name).await?)
    }

    /// Has one worker look for abandoned entries now.
    pub(crate) async fn reap(&self, worker: &Worker) -> Result<(), CrewError> {
        match self.runtimes.read().await.get(&worker.group) {
            Some(runtime) => Ok(runtime.control().reap_now_by(&worker.name)?),
            None => Ok(()),
        }
    }

    pub(crate) async fn find(&self, group: &str, label: &str) -> Result<Worker, CrewError> {
        let found = self.workers().await.into_iter();
        let mut found = found.filter(|worker| worker.group == group && worker.label == label);
        let unknown = || CrewError::Unknown { group: group.to_owned(), label: label.to_owned() };
        found.next().ok_or_else(unknown)
    }

    /// Stops all runtimes at once: what was handed back, and what had to be left.
    pub(crate) async fn stop(&self) -> (u64, usize) {
        let runtimes = std::mem::take(&mut *self.runtimes.write().await);
        let stops = runtimes.into_values().map(Runtime::shutdown);
        let reports = futures_util::future::join_all(stops).await;
        let released = reports.iter().map(|report| report.released).sum();
        (released, reports.iter().map(|report| report.abandoned.len()).sum())
    }

    /// Stops the workers of one group: which these were.
    pub(crate) async fn stop_group(&self, group: &str) -> Vec<String> {
        let workers = self.workers().await.into_iter();
        let labels = workers.filter(|worker| worker.group == group).map(|worker| worker.label);
        let labels = labels.collect();
        let runtime = self.runtimes.write().await.remove(group);
        if let Some(runtime) = runtime {
            let _report = runtime.shutdown().await;
        }
        labels
    }

    /// Whether this process works for a group.
    pub(crate) async fn works_for(&self, group: &str) -> bool {
        self.runtimes.read().await.contains_key(group)
    }
}

/// What stands in front of the random part of a consumer's name.
pub(crate) fn label_of(name: &str) -> &str {
    name.rsplit_once('-').map_or(name, |(label, _)| label)
}

/// As long as a demo's handler takes at most, but for who sets its lever very high.
const GRACE: Duration = Duration::from_secs(5);
