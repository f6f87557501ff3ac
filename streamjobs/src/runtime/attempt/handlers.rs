//! The handlers of one queue and their limits.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use futures_util::future::BoxFuture;
use tracing::info;

use crate::handler::middleware::Chain;
use crate::handler::{HandlerDef, Job};
use crate::insight::metrics::Durations;
use crate::model::config::JobLimits;
use crate::model::outcome::Outcome;
use crate::runtime::observe::QueueContext;
use crate::runtime::state::HandledBy;

/// The handlers of one queue, by event type.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handlers {
    pub(crate) by_type: HashMap<&'static str, BoundHandler, FixedState>,
    /// The handler of every entry that no other handler takes.
    pub(crate) any: Option<BoundHandler>,
}

/// A handler with its limits.
#[derive(Clone, Debug)]
pub(crate) struct BoundHandler {
    pub(crate) handler: HandlerDef,
    /// The handler with the middleware around it, if there is any.
    pub(crate) chain: Option<Arc<Chain>>,
    pub(crate) limits: JobLimits,
    /// Records the durations of its runs.
    pub(crate) durations: Durations,
}

impl BoundHandler {
    /// The handler, and how many attempts its jobs have.
    pub(crate) fn handled_by(&self) -> HandledBy {
        let JobLimits { max_attempts, expires, .. } = &self.limits;
        HandledBy { handler: self.handler, attempts_max: *max_attempts, expires: expires.is_some() }
    }

    /// Runs one job.
    pub(crate) fn run(&self, job: Job) -> BoxFuture<'static, Outcome> {
        match &self.chain {
            None => (self.handler.run)(job),
            Some(chain) => Box::pin(Arc::clone(chain).run(job)),
        }
    }
}

impl Handlers {
    pub(crate) fn find(&self, event_type: Option<&str>) -> Option<&BoundHandler> {
        event_type.and_then(|event_type| self.by_type.get(event_type)).or(self.any.as_ref())
    }

    /// The event types that have a handler; `*` stands for a handler of every other type.
    pub(crate) fn types(&self) -> Vec<&'static str> {
        self.by_type.keys().copied().chain(self.any.iter().map(|_| "*")).collect()
    }

    /// Sets what records the durations of runs, by event type; `*` stands for every other type.
    pub(crate) fn measure(&mut self, durations: impl Fn(&'static str) -> Durations) {
        for (event_type, bound) in &mut self.by_type {
            bound.durations = durations(event_type);
        }
        if let Some(bound) = &mut self.any {
            bound.durations = durations("*");
        }
    }

    /// Logs one line for each handler, so that the log of a deployment shows which handlers it
    /// runs.
    pub(crate) fn log_started(&self, context: &QueueContext, concurrency: usize) {
        let (stream, group) = (&context.queue().stream, &context.queue().group);
        let typed = self.by_type.iter().map(|(event_type, bound)| (*event_type, bound));
        let mut rows = typed.chain(self.any.iter().map(|bound| ("*", bound))).collect::<Vec<_>>();
        rows.sort_unstable_by_key(|(event_type, _)| *event_type);
        for (event_type, bound) in rows {
            info!(
                %stream, %group, event_type,
                handler = bound.handler.location(),
                concurrency,
                lease = ?context.config.lease,
                max_attempts = bound.limits.max_attempts,
                timeout = ?bound.limits.timeout,
                batch = bound.handler.batch.map(|batch| batch.size.get()),
                "handler started"
            );
        }
    }
}
