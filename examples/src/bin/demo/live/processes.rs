//! Worker processes beside this one, which can be killed.

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
use crate::live::crew::Crew;
use crate::live::desk::{Desk, Told};
use crate::live::levers::{Levers, Setting};

/// What a worker process is told, one JSON line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Where to work; the first line.
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
    /// Work for a group, from now on or no longer.
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
    hearing: JoinHandle<()>,
}

/// A worker process as the page shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Seen {
    pub(crate) label: String,
    pub(crate) process: Option<u32>,
    pub(crate) alive: bool,
}

/// Where worker processes work.
#[derive(Clone, Debug)]
pub(crate) struct Workplace {
    pub(crate) url: String,
    pub(crate) stream: String,
    pub(crate) lease: Duration,
}

impl Processes {
    /// Starts another one: its label. What its handlers tell goes to `tell`.
    pub(crate) async fn start(
        &self,
        place: &Workplace,
        groups: Vec<String>,
        setting: Setting,
        tell: impl Fn(Told) + Send + 'static,
    ) -> Result<String, AnyError> {
        let label = self.next_label();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--worker").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut orders = child.stdin.take().ok_or("the worker process has no input")?;
        let output = child.stdout.take().ok_or("the worker process has no output")?;
        let lease_ms = u64::try_from(place.lease.as_millis())?;
        let (url, stream) = (place.url.clone(), place.stream.clone());
        let start = Order::Start { url, stream, label: label.clone(), lease_ms, groups };
        send(&mut orders, &start).await?;
        send(&mut orders, &Order::Set(setting)).await?;
        let hear = async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(told) = serde_json::from_str::<Told>(&line) {
                    tell(told);
                }
            }
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the process, and is waited for"
        )]
        let hearing = tokio::spawn(hear);
        let process = Process { child, orders, hearing };
        self.running.lock().await.insert(label.clone(), process);
        Ok(label)
    }

    fn next_label(&self) -> String {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        *started += 1;
        format!("process-{started}")
    }

    pub(crate) async fn seen(&self) -> Vec<Seen> {
        let mut running = self.running.lock().await;
        let seen = running.iter_mut().map(|(label, process)| Seen {
            label: label.clone(),
            process: process.child.id(),
            alive: matches!(process.child.try_wait(), Ok(None)),
        });
        seen.collect()
    }

    /// Kills a process with `SIGKILL`: whether there was one. What it had told by then is heard.
    pub(crate) async fn kill(&self, label: &str) -> Result<bool, AnyError> {
        let process = self.running.lock().await.remove(label);
        let Some(mut process) = process else { return Ok(false) };
        process.child.start_kill()?;
        process.child.wait().await?;
        process.hearing.await?;
        Ok(true)
    }

    /// Tells one process, or all of them.
    pub(crate) async fn tell(&self, label: Option<&str>, order: &Order) -> Result<bool, AnyError> {
        let mut told = false;
        let mut running = self.running.lock().await;
        for (_, process) in running.iter_mut().filter(|(own, _)| label.is_none_or(|l| l == *own)) {
            // One that has died hears nothing, and is shown as dead.
            told |= send(&mut process.orders, order).await.is_ok();
        }
        Ok(told)
    }

    /// Lets all of them stop cleanly, at the same time.
    pub(crate) async fn stop(&self) -> Result<(), AnyError> {
        let running = std::mem::take(&mut *self.running.lock().await);
        let stops = running.into_values().map(Process::stop);
        futures_util::future::try_join_all(stops).await.map(|_| ())
    }
}

impl Process {
    async fn stop(self) -> Result<(), AnyError> {
        let Self { mut child, orders, hearing } = self;
        drop(orders);
        if timeout(STOP_MAX, child.wait()).await.is_err() {
            child.kill().await?;
        }
        Ok(hearing.await?)
    }
}

async fn send(orders: &mut ChildStdin, order: &Order) -> Result<(), AnyError> {
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    // A process that was frozen reads nothing, and its pipe is full one day.
    timeout(HEARD_MAX, orders.write_all(&line)).await??;
    Ok(orders.flush().await?)
}

/// What a worker process does: it works until its input ends, however its parent ended.
pub(crate) async fn run() -> Result<(), AnyError> {
    let (heard, mut orders) = mpsc::channel::<Order>(16);
    // Reading blocks, so a thread does it; it ends with the input, or with the process.
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str(&line) else { continue };
            if heard.blocking_send(order).is_err() {
                return;
            }
        }
    });
    let Some(Order::Start { url, stream, label, lease_ms, groups }) = orders.recv().await else {
        return Err("a worker process is started by the demo only".into());
    };
    let output = Arc::new(Mutex::new(io::stdout()));
    let desk = Desk::new(Levers::default(), move |told| {
        // The line is the deed: it has happened once it is written.
        if let Ok(line) = serde_json::to_string(&told) {
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            let _gone = writeln!(output, "{line}").and_then(|()| output.flush()).is_err();
        }
    });
    let client = Client::connect(&url).await?;
    let lease = Duration::from_millis(lease_ms);
    let stream = Box::leak(stream.into_boxed_str());
    let crew = Crew::new(client, stream, lease, desk.clone(), AlertLog::new(), None);
    for group in groups {
        crew.add(&group, &label).await?;
    }
    while let Some(order) = orders.recv().await {
        obey(&crew, &desk, &label, order).await?;
    }
    let _report = crew.stop().await;
    Ok(())
}

async fn obey(crew: &Crew, desk: &Desk, label: &str, order: Order) -> Result<(), AnyError> {
    let workers = crew.workers().await;
    match order {
        Order::Start { .. } => {}
        Order::Set(setting) => desk.levers.set(setting),
        Order::DropNext { group, count } => {
            for worker in workers.iter().filter(|worker| worker.group == group) {
                desk.levers.drop_next(worker.name.as_str(), count);
            }
        }
        Order::Reap { group } => {
            for worker in workers.iter().filter(|worker| worker.group == group) {
                crew.reap(worker).await?;
            }
        }
        Order::Join { group } => {
            crew.add(&group, label).await?;
        }
        Order::Leave { group } => {
            crew.stop_group(&group).await;
        }
    }
    Ok(())
}

/// A clean stop has its grace, and a little more.
const STOP_MAX: Duration = Duration::from_secs(8);
const HEARD_MAX: Duration = Duration::from_secs(1);
