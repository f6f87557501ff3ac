//! Worker processes, which the page can start and kill.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, Write as _};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::Client;
use streamjobs_dashboard::AlertLog;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::AnyError;
use crate::live::settings::{Setting, Settings};
use crate::live::simulation::{Delivery, Simulation};
use crate::live::workers::WorkerPool;

/// What a worker process is ordered to do, one JSON line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// How to start; the first line.
    Start {
        url: String,
        stream: String,
        label: String,
        lease_ms: u64,
        groups: Vec<String>,
    },
    Set(Setting),
    DropNext {
        group: String,
        count: u32,
    },
    Reap {
        group: String,
    },
    /// Start or stop working for a group.
    Join {
        group: String,
    },
    Leave {
        group: String,
    },
}

/// The worker processes that run.
#[derive(Default)]
pub(crate) struct Processes {
    running: tokio::sync::Mutex<BTreeMap<String, Process>>,
    started: Mutex<u32>,
}

struct Process {
    child: Child,
    orders: ChildStdin,
    reader: JoinHandle<()>,
}

/// A worker process as the page shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProcessState {
    pub(crate) label: String,
    pub(crate) process: Option<u32>,
    pub(crate) alive: bool,
}

/// What a worker process needs to start.
#[derive(Clone, Debug)]
pub(crate) struct WorkerOptions {
    pub(crate) url: String,
    pub(crate) stream: String,
    pub(crate) lease: Duration,
}

impl Processes {
    /// Starts a process and returns its label. `tell` gets the deliveries that its handlers report.
    pub(crate) async fn start(
        &self,
        worker_options: &WorkerOptions,
        groups: Vec<String>,
        setting: Setting,
        tell: impl Fn(Delivery) + Send + 'static,
    ) -> Result<String, AnyError> {
        let label = self.next_label();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--worker").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut orders = child.stdin.take().ok_or("the worker process has no input")?;
        let output = child.stdout.take().ok_or("the worker process has no output")?;
        let lease_ms = u64::try_from(worker_options.lease.as_millis())?;
        let (url, stream) = (worker_options.url.clone(), worker_options.stream.clone());
        let start = Order::Start { url, stream, label: label.clone(), lease_ms, groups };
        send(&mut orders, &start).await?;
        send(&mut orders, &Order::Set(setting)).await?;
        let hear = async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(delivery) = serde_json::from_str::<Delivery>(&line) {
                    tell(delivery);
                }
            }
        };
        #[expect(clippy::disallowed_methods, reason = "it ends with the process and is awaited")]
        let reader = tokio::spawn(hear);
        let process = Process { child, orders, reader };
        self.running.lock().await.insert(label.clone(), process);
        Ok(label)
    }

    fn next_label(&self) -> String {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        *started += 1;
        format!("process-{started}")
    }

    pub(crate) async fn states(&self) -> Vec<ProcessState> {
        let mut running = self.running.lock().await;
        let seen = running.iter_mut().map(|(label, process)| ProcessState {
            label: label.clone(),
            process: process.child.id(),
            alive: matches!(process.child.try_wait(), Ok(None)),
        });
        seen.collect()
    }

    /// Kills a process with `SIGKILL`, and reads what it had reported. Returns whether it existed.
    pub(crate) async fn kill(&self, label: &str) -> Result<bool, AnyError> {
        let process = self.running.lock().await.remove(label);
        let Some(mut process) = process else { return Ok(false) };
        process.child.start_kill()?;
        process.child.wait().await?;
        process.reader.await?;
        Ok(true)
    }

    /// Sends an order to one process, or to all of them. Returns whether one received it.
    pub(crate) async fn tell(&self, label: Option<&str>, order: &Order) -> Result<bool, AnyError> {
        let mut delivery = false;
        let mut running = self.running.lock().await;
        for (_, process) in running.iter_mut().filter(|(own, _)| label.is_none_or(|l| l == *own)) {
            // A dead process cannot receive it, and is shown as dead.
            delivery |= send(&mut process.orders, order).await.is_ok();
        }
        Ok(delivery)
    }

    /// Stops all of them cleanly, at the same time.
    pub(crate) async fn stop(&self) -> Result<(), AnyError> {
        let running = std::mem::take(&mut *self.running.lock().await);
        let stops = running.into_values().map(Process::stop);
        futures_util::future::try_join_all(stops).await.map(|_| ())
    }
}

impl Process {
    async fn stop(self) -> Result<(), AnyError> {
        let Self { mut child, orders, reader } = self;
        drop(orders);
        if timeout(STOP_MAX, child.wait()).await.is_err() {
            child.kill().await?;
        }
        Ok(reader.await?)
    }
}

async fn send(orders: &mut ChildStdin, order: &Order) -> Result<(), AnyError> {
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    // A frozen process does not read, so its pipe can fill up.
    timeout(HEARD_MAX, orders.write_all(&line)).await??;
    Ok(orders.flush().await?)
}

/// The main function of a worker process. It works until its input ends, which also happens if its
/// parent dies.
pub(crate) async fn run() -> Result<(), AnyError> {
    let (heard, mut orders) = mpsc::channel::<Order>(16);
    // Reading blocks, so it has a thread, which ends with the input or the process.
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str(&line) else { continue };
            if heard.blocking_send(order).is_err() {
                return;
            }
        }
    });
    let Some(Order::Start { url, stream, label, lease_ms, groups }) = orders.recv().await else {
        return Err("a worker process can only be started by the demo".into());
    };
    let output = Arc::new(Mutex::new(io::stdout()));
    let simulation = Simulation::new(Settings::default(), move |delivery| {
        // The line is the job's effect: the job is done once it is written.
        if let Ok(line) = serde_json::to_string(&delivery) {
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            let _gone = writeln!(output, "{line}").and_then(|()| output.flush()).is_err();
        }
    });
    let client = Client::connect(&url).await?;
    let lease = Duration::from_millis(lease_ms);
    let stream = Box::leak(stream.into_boxed_str());
    let pool = WorkerPool::new(client, stream, lease, simulation.clone(), AlertLog::new(), None);
    for group in groups {
        pool.add(&group, &label).await?;
    }
    while let Some(order) = orders.recv().await {
        handle(&pool, &simulation, &label, order).await?;
    }
    let _report = pool.stop().await;
    Ok(())
}

async fn handle(
    pool: &WorkerPool,
    simulation: &Simulation,
    label: &str,
    order: Order,
) -> Result<(), AnyError> {
    let workers = pool.workers().await;
    match order {
        Order::Start { .. } => {}
        Order::Set(setting) => simulation.settings.set(setting),
        Order::DropNext { group, count } => {
            for worker in workers.iter().filter(|worker| worker.group == group) {
                simulation.settings.drop_next(worker.name.as_str(), count);
            }
        }
        Order::Reap { group } => {
            for worker in workers.iter().filter(|worker| worker.group == group) {
                pool.reap(worker).await?;
            }
        }
        Order::Join { group } => {
            pool.add(&group, label).await?;
        }
        Order::Leave { group } => {
            pool.stop_group(&group).await;
        }
    }
    Ok(())
}

/// A bit longer than the grace of a clean stop.
const STOP_MAX: Duration = Duration::from_secs(8);
const HEARD_MAX: Duration = Duration::from_secs(1);
