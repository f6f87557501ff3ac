//! One simulation: a store, processes that come and go, and what happens to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use streamjobs::__store::admin::{Admin, Cut, Trim, Unfinished};
use streamjobs::__store::memory::MemoryStore;
use streamjobs::__store::raw_access::RawAccess;
use streamjobs::runtime::ShutdownReport;
use streamjobs::{Client, EventId, Runtime, StreamName};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::network::{Network, OPERATOR, PUBLISHER};
use crate::plan::{Action, GROUPS, Plan, STREAM, Weather};
use crate::process::{self, Order};

/// What came of a simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The broken promise, if one is broken.
    pub failure: Option<String>,
    pub history: Vec<String>,
    pub simulated: Duration,
    pub steps: u64,
    pub runs: usize,
    pub overlaps: u64,
}

/// Runs one plan to its end.
pub fn simulate(plan: Plan) -> Outcome {
    fastrand::seed(plan.seed);
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    executor.block_on(async { World::new(plan).run().await })
}

type Stopped = (u64, Instant, u64, ShutdownReport);

struct World {
    plan: Arc<Plan>,
    network: Arc<Network>,
    store: MemoryStore,
    publisher: Client,
    running: BTreeMap<u64, Runtime>,
    stopping: JoinSet<Stopped>,
    stops: BTreeMap<u64, tokio::task::AbortHandle>,
    next: u64,
    published: u64,
    began: Instant,
}

impl World {
    fn new(plan: Plan) -> Self {
        let plan = Arc::new(plan);
        let (network, bare) = (Arc::new(Network::new(&plan)), MemoryStore::new());
        let store = bare.watched(OPERATOR, network.clone());
        let publisher = streamjobs::__store::client(&bare.watched(PUBLISHER, network.clone()));
        Self {
            plan,
            network,
            store,
            publisher,
            running: BTreeMap::new(),
            stopping: JoinSet::new(),
            stops: BTreeMap::new(),
            next: PUBLISHER + 1,
            published: 0,
            began: Instant::now(),
        }
    }

    async fn run(mut self) -> Outcome {
        let plan = Arc::clone(&self.plan);
        for (when, action) in &plan.actions {
            let until = self.began + *when;
            loop {
                tokio::select! {
                    biased;
                    () = self.network.died.notified() => self.clean_up_dead(),
                    Some(stopped) = self.stopping.join_next() => self.stopped(stopped),
                    () = sleep_until(until) => break,
                }
            }
            self.act(*action).await;
            self.clean_up_dead();
        }
        self.network.heal();
        self.drain().await;
        self.close().await;
        self.network.ledger(|ledger| Outcome {
            failure: ledger.failure.take(),
            history: std::mem::take(&mut ledger.history),
            simulated: self.began.elapsed(),
            steps: ledger.steps,
            runs: ledger.runs.len(),
            overlaps: ledger.overlaps,
        })
    }

    async fn act(&mut self, action: Action) {
        let first = self.running.keys().next().copied();
        let last = self.running.keys().next_back().copied();
        match action {
            Action::Publish { copies } => self.publish(copies).await,
            Action::Start => self.start().await,
            Action::Stop => first.into_iter().for_each(|caller| self.stop(caller)),
            Action::Kill => last.into_iter().for_each(|caller| self.network.cut(caller)),
            Action::KillAtCall(calls) => {
                first.into_iter().for_each(|caller| self.network.doom(caller, calls));
            }
            Action::Part { tenths } => {
                let time = self.plan.tenths(tenths);
                last.into_iter().for_each(|caller| self.network.part(caller, time));
            }
            Action::Outage { tenths } => self.network.outage(self.plan.tenths(tenths)),
            Action::Freeze { tenths } => self.network.freeze(self.plan.tenths(tenths)),
            Action::StepClock { tenths } => {
                let tenth = i64::try_from(self.plan.tenths(1).as_millis()).unwrap();
                // What the step did lasts until everybody has noticed it.
                self.network.ledger(|ledger| {
                    ledger.disturbed(None, self.plan.lease * 2);
                    if tenths < 0 {
                        ledger.set_back += self.plan.tenths(tenths.unsigned_abs());
                    }
                });
                self.store.step_clock(tenth * i64::from(tenths));
            }
            Action::DestroyGroup => {
                self.network.ledger(|ledger| ledger.disturbed(None, self.plan.lease));
                RawAccess::destroy_group(&self.store, STREAM, GROUPS[0]);
            }
            Action::Flush => {
                self.network.ledger(|ledger| ledger.disturbed(None, self.plan.lease));
                self.store.flush();
                // Else an entry of this millisecond could have the id of one that is gone.
                self.store.step_clock(1);
            }
            Action::Trim => {
                let cut = Cut::Length(3);
                let trim = Trim { cut, exact: true, unfinished: Unfinished::Lose };
                self.network.ledger(|ledger| ledger.disturbed(None, self.plan.lease));
                Admin::trim(&self.store, &StreamName::new(STREAM).unwrap(), trim).await.unwrap();
            }
        }
    }

    async fn publish(&mut self, copies: usize) {
        let number = self.published;
        self.published += 1;
        for _ in 0..copies {
            let id = EventId::new(format!("event-{number}")).unwrap();
            let answer = self.publisher.publish_with_id(&Order::of(number), id).await;
            let Ok(published) = answer else { continue };
            self.network.ledger(|ledger| {
                if !ledger.accepted.contains_key(&published.entry_id) {
                    ledger.fail("I1", format!("{published:?} was never stored"));
                }
            });
        }
    }

    async fn start(&mut self) {
        let caller = self.next;
        self.next += 1;
        let started = process::start(&self.plan, &self.network, &self.store, caller).await;
        // One that does not start is gone, as a process that ends with its error.
        match started {
            Ok(runtime) => {
                self.network.ledger(|ledger| ledger.lives(caller));
                self.running.insert(caller, runtime);
            }
            Err(_) => self.network.cut(caller),
        }
    }

    fn stop(&mut self, caller: u64) {
        let Some(runtime) = self.running.remove(&caller) else { return };
        let released = self.network.ledger(|ledger| {
            ledger.note(format_args!("process {caller} is asked to stop"));
            ledger.tally(caller).released
        });
        let began = Instant::now();
        let stop = async move { (caller, began, released, runtime.shutdown().await) };
        self.stops.insert(caller, self.stopping.spawn(stop));
    }

    fn stopped(&mut self, stopped: Result<Stopped, tokio::task::JoinError>) {
        // One that was killed while it stopped has nothing to report.
        let Ok((caller, began, released, report)) = stopped else { return };
        self.stops.remove(&caller);
        self.network.ledger(|ledger| ledger.judge_stop(caller, began, released, &report));
        self.network.cut(caller);
    }

    /// Ends what is left of processes that were killed.
    fn clean_up_dead(&mut self) {
        for caller in self.network.dead() {
            drop(self.running.remove(&caller));
            if let Some(stop) = self.stops.remove(&caller) {
                stop.abort();
            }
        }
    }

    fn is_broken(&self) -> bool {
        self.network.ledger(|ledger| ledger.failure.is_some())
    }

    /// Whether no job can run any more, and no process has one in flight, not even one that stops: behind a broken
    /// link, it may still set one aside in place of the letter of its loss.
    fn is_at_rest(&self) -> bool {
        let holds =
            |runtime: &Runtime| runtime.health().queues.iter().any(|queue| queue.in_flight > 0);
        let works = !self.stopping.is_empty() || self.running.values().any(holds);
        self.network.ledger(|ledger| ledger.is_at_rest()) && !works
    }

    /// Lets everything come to its end, in a bounded time.
    async fn drain(&mut self) {
        self.clean_up_dead();
        if self.running.is_empty() {
            self.start().await;
        }
        let bound = self.plan.lease * DRAIN + Duration::from_secs(10);
        let began = Instant::now();
        // Seen twice, because a verdict may be on its way between a run's end and its settlement.
        let mut seen = 0;
        while seen < 2 && !self.is_broken() {
            seen = if self.is_at_rest() { seen + 1 } else { 0 };
            if began.elapsed() > bound {
                self.network.ledger(|ledger| {
                    let left = ledger.unfinished();
                    ledger.fail("I14", format!("not at rest {bound:?} after all was well: {left}"));
                });
                return;
            }
            tokio::select! {
                biased;
                Some(stopped) = self.stopping.join_next() => self.stopped(stopped),
                () = sleep_until(Instant::now() + self.plan.lease / 4) => {}
            }
        }
    }

    /// At rest no slot of a shared set is taken, but for the moment in which a read finds nothing.
    async fn judge_slots_at_rest(&self) {
        let began = Instant::now();
        let in_use =
            |runtime: &Runtime| runtime.control().shared_slots().iter().any(|set| set.in_use > 0);
        while let Some((caller, _)) = self.running.iter().find(|(_, runtime)| in_use(runtime)) {
            if began.elapsed() > self.plan.lease * 4 {
                let text = format!("{caller} is at rest, and slots are taken");
                self.network.ledger(|ledger| ledger.fail("I19", text));
                return;
            }
            sleep_until(Instant::now() + self.plan.lease / 40).await;
        }
    }

    /// Compares what processes count with what happened, and stops them all.
    async fn close(&mut self) {
        while let Some(stopped) = self.stopping.join_next().await {
            self.stopped(stopped);
        }
        // What waits for a last answer is counted when it has come.
        sleep_until(Instant::now() + self.plan.lease).await;
        for (caller, runtime) in &self.running {
            let counters = runtime.counters();
            self.network.ledger(|ledger| ledger.judge_counters(*caller, &counters));
        }
        self.judge_slots_at_rest().await;
        for caller in self.running.keys().copied().collect::<Vec<_>>() {
            self.stop(caller);
        }
        while let Some(stopped) = self.stopping.join_next().await {
            self.stopped(stopped);
        }
        let clean = self.plan.weather == Weather::Calm;
        self.network.ledger(|ledger| ledger.judge_end(clean));
    }
}

/// How many leases a drain may take: runs of three leases, one after the other, with deaths between.
const DRAIN: u32 = 400;
