//! What some work takes: time, processor time on both sides, round trips, bytes, allocations.

use std::fs;
use std::time::{Duration, Instant};

use stats_alloc::INSTRUMENTED_SYSTEM;
use streamjobs_tests::server::RedisServer;

/// What some work took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub wall: Duration,
    /// Processor time of this process.
    pub client: Duration,
    pub server: Duration,
    pub commands: u64,
    /// To the server and back.
    pub bytes: u64,
    /// Of this process; none where the work was done in others.
    pub allocations: Option<u64>,
}

/// A moment from which a cost is counted.
pub struct Meter<'s> {
    server: &'s RedisServer,
    began: Instant,
    at: Cost,
}

impl<'s> Meter<'s> {
    pub fn start(server: &'s RedisServer) -> Self {
        Self { server, at: totals(server), began: Instant::now() }
    }

    pub fn stop(self) -> Cost {
        let wall = self.began.elapsed();
        let now = totals(self.server);
        Cost {
            wall,
            client: now.client.saturating_sub(self.at.client),
            server: now.server.saturating_sub(self.at.server),
            commands: now.commands - self.at.commands,
            bytes: now.bytes - self.at.bytes,
            allocations: now.allocations.zip(self.at.allocations).map(|(now, then)| now - then),
        }
    }
}

fn totals(server: &RedisServer) -> Cost {
    let client = processor_time("self");
    let stats = INSTRUMENTED_SYSTEM.stats();
    let allocations = stats.allocations + stats.reallocations;
    let field = |name: &str| server.info(name).and_then(|text| text.trim().parse::<u64>().ok());
    Cost {
        wall: Duration::ZERO,
        client,
        server: processor_time(&server.pid().to_string()),
        commands: field("total_commands_processed").unwrap_or(0),
        bytes: field("total_net_input_bytes").unwrap_or(0)
            + field("total_net_output_bytes").unwrap_or(0),
        allocations: Some(allocations as u64),
    }
}

/// Processor time of the threads that a process has now. The caller that compares two moments ensures that
/// none ends between them.
pub fn processor_time(process: &str) -> Duration {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        total += text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
    }
    Duration::from_nanos(total)
}

/// What something costs that has nothing to do: in a second, or of a core in percent.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// What clients have sent: the server's reads, without our own.
    pub requests: f64,
    /// What the server has run, the commands of scripts included.
    pub commands: f64,
    pub server_percent: f64,
    pub client_percent: f64,
}

/// Waits until nothing has been done for more than a lease, and measures then.
pub async fn while_quiet(server: &RedisServer, client: impl Fn() -> Duration) -> Idle {
    pass(QUIET_AFTER).await;
    let sent = || server.info("total_reads_processed").unwrap().trim().parse::<u64>().unwrap();
    let first = sent();
    let own = sent() - first;
    let (before, began, meter) = (client(), sent(), Meter::start(server));
    pass(WATCHED).await;
    let (cost, own_of_meter) = (meter.stop(), 6 * own);
    let requests = (sent() - began).saturating_sub(own_of_meter + own);
    let seconds = WATCHED.as_secs_f64();
    Idle {
        requests: requests as f64 / seconds,
        commands: cost.commands as f64 / seconds,
        server_percent: cost.server.as_secs_f64() / seconds * 100.0,
        client_percent: client().saturating_sub(before).as_secs_f64() / seconds * 100.0,
    }
}

/// Lets time pass in which something is watched.
pub async fn pass(time: Duration) {
    tokio::time::sleep_until(tokio::time::Instant::now() + time).await;
}

/// What a process has in memory, in bytes.
pub fn memory(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The most that a process has had in memory since its start, in bytes.
pub fn memory_peak(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

fn status(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// More than the default lease of 10 s, after which a group is idle.
const QUIET_AFTER: Duration = Duration::from_secs(14);
const WATCHED: Duration = Duration::from_secs(45);
