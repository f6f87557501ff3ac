//! The workers of this process: one runtime for each group, with named consumers.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex as Lock, PoisonError};
use std::time::Duration;

use streamjobs::config::GroupOptions;
use streamjobs::error::{ControlError, StartError};
use streamjobs::runtime::ShutdownReport;
use streamjobs::{Client, ConsumerName, Runtime};
use streamjobs_dashboard::AlertLog;
use streamjobs_postgres::Postgres;
use thiserror::Error;
use tokio::sync::RwLock;

use crate::live::orders::handler_of;
use crate::live::simulation::Simulation;

/// One worker of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Worker {
    pub(crate) group: String,
    /// Its name on the page.
    pub(crate) label: String,
    /// Its name on the server.
    pub(crate) name: ConsumerName,
    pub(crate) paused: bool,
    pub(crate) in_flight: usize,
}

/// Why a worker was not added or removed.
#[derive(Debug, Error)]
pub(crate) enum WorkerError {
    #[error("group {group} already has a worker {label}")]
    Taken { group: String, label: String },
    #[error("this process has no worker {label} in group {group}")]
    Unknown { group: String, label: String },
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// The workers of this process.
pub(crate) struct WorkerPool {
    client: Client,
    stream: &'static str,
    lease: Duration,
    simulation: Simulation,
    alerts: AlertLog,
    /// The archive of this process' dead letters, if there is one.
    archive: Option<Postgres>,
    runtimes: RwLock<BTreeMap<String, Runtime>>,
    /// Names that are being added, so that concurrent requests cannot use the same one.
    reserved: Lock<HashSet<(String, String)>>,
}

/// Reserves a name until its worker has started or failed to start.
struct Reserved<'a> {
    pool: &'a WorkerPool,
    key: (String, String),
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.pool.reserved.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl WorkerPool {
    pub(crate) fn new(
        client: Client,
        stream: &'static str,
        lease: Duration,
        simulation: Simulation,
        alerts: AlertLog,
        archive: Option<Postgres>,
    ) -> Self {
        let (runtimes, reserved) = (RwLock::default(), Lock::default());
        Self { client, stream, lease, simulation, alerts, archive, runtimes, reserved }
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

    /// Adds a worker. The first worker of a group starts a runtime for it, and the group starts at the
    /// first event of the stream.
    pub(crate) async fn add(&self, group: &str, label: &str) -> Result<ConsumerName, WorkerError> {
        let taken = || WorkerError::Taken { group: group.to_owned(), label: label.to_owned() };
        let key = (group.to_owned(), label.to_owned());
        let free = self.reserved.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        if !free {
            return Err(taken());
        }
        let _reserved = Reserved { pool: self, key };
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
            .state(self.simulation.clone())
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

    /// Stops a worker and removes its consumer; its entries are released.
    pub(crate) async fn remove(
        &self,
        group: &str,
        label: &str,
    ) -> Result<ShutdownReport, WorkerError> {
        let worker = self.find(group, label).await?;
        let control = self.runtimes.read().await.get(group).map(Runtime::control);
        let control = control.ok_or_else(|| unknown(group, label))?;
        Ok(control.remove_consumer(&worker.name).await?)
    }

    /// Makes one worker claim idle entries now.
    pub(crate) async fn reap(&self, worker: &Worker) -> Result<(), WorkerError> {
        match self.runtimes.read().await.get(&worker.group) {
            Some(runtime) => Ok(runtime.control().reap_now_by(&worker.name)?),
            None => Ok(()),
        }
    }

    pub(crate) async fn find(&self, group: &str, label: &str) -> Result<Worker, WorkerError> {
        let found = self.workers().await.into_iter();
        let mut found = found.filter(|worker| worker.group == group && worker.label == label);
        found.next().ok_or_else(|| unknown(group, label))
    }

    /// Stops all runtimes: how many jobs were released, and how many abandoned.
    pub(crate) async fn stop(&self) -> (u64, usize) {
        let runtimes = std::mem::take(&mut *self.runtimes.write().await);
        let stops = runtimes.into_values().map(Runtime::shutdown);
        let reports = futures_util::future::join_all(stops).await;
        let released = reports.iter().map(|report| report.released).sum();
        (released, reports.iter().map(|report| report.abandoned.len()).sum())
    }

    /// Stops the workers of one group and returns their labels.
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

    /// Whether this process has workers of a group.
    pub(crate) async fn works_for(&self, group: &str) -> bool {
        self.runtimes.read().await.contains_key(group)
    }
}

fn unknown(group: &str, label: &str) -> WorkerError {
    WorkerError::Unknown { group: group.to_owned(), label: label.to_owned() }
}

/// A consumer's name without its random suffix.
pub(crate) fn label_of(name: &str) -> &str {
    name.rsplit_once('-').map_or(name, |(label, _)| label)
}

/// Longer than a job takes, unless the latency is set very high.
const GRACE: Duration = Duration::from_secs(5);
