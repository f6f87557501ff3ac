//! The archive as a service of a runtime.

use std::time::Duration;

use futures_util::future::join_all;
use streamjobs::error::BoxError;
use streamjobs::service::{BoxFuture, Service, ServiceContext};
use streamjobs::{GroupName, StreamName};
use tokio::sync::Semaphore;
use tracing::{error, info, warn};

use super::mover::{LetterMover, LetterQueue};
use super::{Archive, ArchiveError, ArchiveReport};
use crate::{backoff, fault, metrics};

impl Service for Archive {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&'a self, context: &'a ServiceContext) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async move {
            self.movers(context.client(), &self.served(context))?;
            Ok(())
        })
    }

    fn run(&self, context: ServiceContext) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let movers = match self.movers(context.client(), &self.served(&context)) {
                Ok(movers) => movers,
                // `prepare` checks this before the start. If it fails now, the service ends.
                Err(_) => return,
            };
            // One connection of the pool is enough. The other connections are for the handlers.
            let turn = Semaphore::new(1);
            let runs = movers.into_iter().map(|mover| {
                let run = QueueRun { mover, turn: &turn, interval: self.interval, failures: 0 };
                run.until_stopped(&context)
            });
            join_all(runs).await;
        })
    }
}

impl Archive {
    fn served(&self, context: &ServiceContext) -> Vec<(StreamName, GroupName)> {
        let served = context.queues().iter();
        let served = served.map(|queue| (queue.stream.clone(), queue.group.clone()));
        self.queues.iter().cloned().chain(served).collect()
    }
}

/// The rounds of one queue.
struct QueueRun<'a> {
    mover: LetterMover,
    turn: &'a Semaphore,
    interval: Duration,
    failures: u32,
}

impl QueueRun<'_> {
    /// Runs rounds until the stop. The last round archives the dead letters of the last jobs,
    /// because the consumers have drained by then.
    async fn until_stopped(mut self, context: &ServiceContext) {
        loop {
            let last = context.stop().is_cancelled();
            let pause = self.round().await;
            let stopped = context.stopped_within(pause).await;
            // The stop does not wait for an outage to end: another process takes the dead letters.
            if last || stopped && self.failures > 0 {
                return;
            }
        }
    }

    /// Runs one round, and returns how long to wait until the next.
    async fn round(&mut self) -> Duration {
        let mut report = ArchiveReport::default();
        match self.mover.round(self.turn, &mut report).await {
            Ok(more) => {
                if self.failures > 0 {
                    info!(
                        stream = %self.mover.queue.stream, group = %self.mover.queue.group,
                        "dead letters are archived again"
                    );
                }
                self.failures = 0;
                // The jitter spreads the polls of several processes.
                if more {
                    Duration::ZERO
                } else {
                    self.interval.mul_f64(0.4_f64.mul_add(fastrand::f64(), 0.8))
                }
            }
            Err(failure) => {
                if matches!(failure, ArchiveError::Database { .. }) {
                    metrics::database_error(NAME);
                }
                self.failures = self.failures.saturating_add(1);
                if self.failures == 1 {
                    self.report(&failure);
                }
                backoff::delay(self.failures, fastrand::f64())
            }
        }
    }

    /// Logs a failure, once for each outage.
    fn report(&self, failure: &ArchiveError) {
        let LetterQueue { stream, group, .. } = &self.mover.queue;
        let cause: &(dyn std::error::Error + 'static) = failure;
        match failure {
            ArchiveError::Database { source, .. } if !fault::is_transient(source) => {
                error!(%stream, %group, error = cause, "cannot archive dead letters");
            }
            _ => warn!(%stream, %group, error = cause, "cannot archive dead letters; retrying"),
        }
    }
}

const NAME: &str = "archive";
