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
    pub allocations: u64,
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
            allocations: now.allocations - self.at.allocations,
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
        allocations: allocations as u64,
    }
}

/// Processor time of the threads that a process has now. Whoever compares two moments sees to it that
/// none ends between them.
pub fn processor_time(process: &str) -> Duration {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        total += text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
    }
    Duration::from_nanos(total)
}
