//! One measurement: a server, a runtime and a time limit of its own.

use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::job;
use crate::peers::{Failure, Peer, Work};
use crate::server::Server;

/// How long a measurement may take, including the publishing before a drain.
const LIMIT: Duration = Duration::from_secs(60);

/// How long tasks may take to end after the measurement.
const GRACE: Duration = Duration::from_secs(2);

/// Does the work with this many jobs. Returns jobs per second.
pub(crate) fn rate(peer: Peer, work: Work, jobs: usize) -> Result<f64, Failure> {
    let server = Server::start()?;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let (url, orders) = (server.url(), job::orders(jobs));
    let ended = runtime.block_on(async {
        // In a task, so that a panic becomes an error.
        let mut running = JoinSet::new();
        running.spawn(peer.run(work, url, orders));
        timeout(LIMIT, running.join_next()).await
    });
    runtime.shutdown_timeout(GRACE);
    match ended {
        Ok(Some(ended)) => Ok(jobs as f64 / ended??.as_secs_f64()),
        Ok(None) => Err("nothing ran".into()),
        Err(_late) => Err(format!("not done within {LIMIT:?}").into()),
    }
}
