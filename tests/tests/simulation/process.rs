//! One process of the simulation: a runtime whose handlers do what the plan says.

use std::num::NonZeroU32;
use std::panic::resume_unwind;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::MemoryStore;
use streamjobs::config::{GroupOptions, KeyOrder};
use streamjobs::error::StartError;
use streamjobs::{Backoff, Event, Job, JobError, Runtime, State, handler, handlers};
use tokio::time::{Instant, sleep_until};

use crate::ledger::Start;
use crate::network::Network;
use crate::plan::{Behaviour, GROUPS, Limits, Plan, key_of};

/// A job's payload, which tells whether it arrived as it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "customer")]
pub struct Order {
    pub number: u64,
    pub customer: String,
    pub text: String,
}

impl Order {
    pub fn of(number: u64) -> Self {
        let text = format!("\u{1f9ea} no. {number}\n").repeat(1 + number as usize % 3);
        Self { number, customer: key_of(number), text }
    }
}

/// What handlers of a process know of the simulation.
#[derive(Clone, Debug)]
struct Inside {
    plan: Arc<Plan>,
    network: Arc<Network>,
    caller: u64,
}

#[handler(group = "work")]
async fn work(order: Order, State(inside): State<Inside>, job: Job) -> Result<(), JobError> {
    inside.run(0, order, job).await
}

#[handler(group = "audit")]
async fn audit(order: Order, State(inside): State<Inside>, job: Job) -> Result<(), JobError> {
    inside.run(1, order, job).await
}

/// Starts a process whose every call passes the network under its number.
pub async fn start(
    plan: &Arc<Plan>,
    network: &Arc<Network>,
    store: &MemoryStore,
    caller: u64,
) -> Result<Runtime, StartError> {
    let watched = store.watched(caller, network.clone());
    let client = streamjobs::__store::client(&watched);
    let inside = Inside { plan: Arc::clone(plan), network: Arc::clone(network), caller };
    let some = |number: u32| NonZeroU32::new(number).unwrap();
    let options = GroupOptions::new()
        .lease(plan.lease)
        .concurrency(some(plan.concurrency))
        .max_attempts(some(plan.attempts_max))
        .max_deliveries(some(plan.deliveries_max))
        .timeout(plan.timeout())
        .backoff(Backoff::fixed(plan.backoff));
    let options = match plan.limits {
        None => options,
        Some(Limits::Block) => options.order(KeyOrder::Block),
        Some(Limits::Skip) => options.order(KeyOrder::Skip),
        Some(Limits::PerKey(limit)) => options.concurrency_per_key(some(limit)),
        Some(Limits::Total(limit)) => options.concurrency_total(some(limit)),
        Some(Limits::Fair) => options.fair(),
    };
    let mut builder = Runtime::builder(&client)
        .handlers(handlers![work, audit])
        .only_groups(GROUPS.into_iter().take(plan.groups))
        .consumer_prefix(format!("process-{caller}"))
        .grace(plan.lease)
        .state(inside);
    for (group, weight) in GROUPS.into_iter().zip([3, 1]).take(plan.groups) {
        let shared = options.slots("slots").weight(some(weight));
        builder = builder.group(group, if plan.shares_slots { shared } else { options });
    }
    if plan.shares_slots {
        builder = builder.shared_slots("slots", some(plan.concurrency));
    }
    builder.start().await
}

/// Tells the ledger of a run that is dropped before its end.
struct Running<'a> {
    inside: &'a Inside,
    run: Option<usize>,
}

impl Running<'_> {
    fn end(mut self, fine: bool) {
        if let Some(run) = self.run.take() {
            self.inside.network.ledger(|ledger| ledger.ended(run, Some(fine)));
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            self.inside.network.ledger(|ledger| ledger.ended(run, None));
        }
    }
}

impl Inside {
    async fn run(&self, group: usize, order: Order, job: Job) -> Result<(), JobError> {
        let started = self.network.ledger(|ledger| {
            if order != Order::of(order.number) {
                ledger.fail("I2", format!("{order:?} is not what was published"));
            }
            ledger.started(&Start {
                caller: self.caller,
                job: (group, job.origin().unwrap_or(job.entry_id())),
                number: order.number,
                entry: job.entry_id(),
                consumer: job.consumer().to_string(),
                attempt: job.attempt(),
                count: job.delivery_count(),
            })
        });
        // The dead begin nothing: what its tasks still do is not there for anybody.
        let Some((run, nth)) = started else { return std::future::pending().await };
        let running = Running { inside: self, run: Some(run) };
        let behaviour = self.plan.behaviour(group, order.number, nth);
        match behaviour {
            Behaviour::Slow(tenths) => sleep_until(Instant::now() + self.plan.tenths(tenths)).await,
            Behaviour::Deaf(tenths) => {
                job.cancelled().cancelled().await;
                sleep_until(Instant::now() + self.plan.tenths(tenths)).await;
            }
            Behaviour::Never => std::future::pending().await,
            _ => {}
        }
        let result = match behaviour {
            Behaviour::Error => Err("no".into()),
            Behaviour::Permanent => Err(JobError::dead("never")),
            Behaviour::Later => Err(JobError::later(self.plan.tenths(3), "not now")),
            Behaviour::Panic => {
                running.end(false);
                // Without the hook, which would print what is planned.
                resume_unwind(Box::new("planned"))
            }
            _ => Ok(()),
        };
        running.end(result.is_ok());
        result
    }
}
