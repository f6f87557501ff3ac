//! The ways from the processes to the store: what is slow, what is lost, who is cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use streamjobs::__store::memory::{Fault, Passage, View, Watch};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ledger::Ledger;
use crate::plan::Plan;

/// The simulation itself, which is never disturbed.
pub const OPERATOR: u64 = 0;
pub const PUBLISHER: u64 = 1;

/// All ways to the store, and the ledger of what went over them.
#[derive(Debug)]
pub struct Network {
    inner: Mutex<Inner>,
    /// A process has died at one of its calls.
    pub died: Notify,
}

#[derive(Debug)]
struct Inner {
    rng: Rng,
    lease: Duration,
    faulty: u32,
    outage: Instant,
    frozen: Instant,
    parted: BTreeMap<u64, Instant>,
    /// Who dies after how many more calls.
    doomed: BTreeMap<u64, u32>,
    dead: BTreeSet<u64>,
    ledger: Ledger,
}

impl Network {
    pub fn new(plan: &Arc<Plan>) -> Self {
        let now = Instant::now();
        let inner = Inner {
            rng: Rng::with_seed(plan.seed.rotate_left(17)),
            lease: plan.lease,
            faulty: plan.faulty,
            outage: now,
            frozen: now,
            parted: BTreeMap::new(),
            doomed: BTreeMap::new(),
            dead: BTreeSet::new(),
            ledger: Ledger::new(Arc::clone(plan)),
        };
        Self { inner: Mutex::new(inner), died: Notify::new() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn ledger<T>(&self, act: impl FnOnce(&mut Ledger) -> T) -> T {
        self.with(|inner| act(&mut inner.ledger))
    }

    /// Nothing of this process reaches the store any more.
    pub fn cut(&self, caller: u64) {
        self.with(|inner| inner.kill(caller));
    }

    pub fn doom(&self, caller: u64, calls: u32) {
        self.with(|inner| inner.doomed.insert(caller, calls));
    }

    pub fn dead(&self) -> BTreeSet<u64> {
        self.with(|inner| inner.dead.clone())
    }

    pub fn part(&self, caller: u64, time: Duration) {
        self.with(|inner| {
            inner.parted.insert(caller, Instant::now() + time);
            inner.ledger.disturbed(Some(caller), time);
        });
    }

    pub fn outage(&self, time: Duration) {
        self.with(|inner| {
            inner.outage = Instant::now() + time;
            inner.ledger.disturbed(None, time);
        });
    }

    pub fn freeze(&self, time: Duration) {
        self.with(|inner| {
            inner.frozen = Instant::now() + time;
            inner.ledger.disturbed(None, time);
        });
    }

    /// From now on everything arrives.
    pub fn heal(&self) {
        self.with(|inner| {
            let now = Instant::now();
            (inner.faulty, inner.outage) = (0, now);
            inner.parted.clear();
            inner.doomed.clear();
        });
    }
}

impl Inner {
    fn kill(&mut self, caller: u64) {
        self.doomed.remove(&caller);
        if self.dead.insert(caller) {
            self.ledger.died(caller);
        }
    }

    fn is_away(&self, caller: u64, now: Instant) -> bool {
        let parted = self.parted.get(&caller).is_some_and(|until| now < *until);
        parted || now < self.outage || self.dead.contains(&caller)
    }

    /// Whether the caller dies at this call.
    fn dies(&mut self, caller: u64) -> bool {
        let Some(calls) = self.doomed.get_mut(&caller) else { return false };
        *calls = calls.saturating_sub(1);
        *calls == 0
    }

    fn latency(&mut self) -> Duration {
        match self.rng.u32(0..4) {
            0 => Duration::from_millis(self.rng.u64(0..=5)),
            _ => Duration::ZERO,
        }
    }

    fn fault(&mut self) -> Option<Fault> {
        let met = self.faulty > 0 && self.rng.u32(0..10_000) < self.faulty;
        met.then(|| {
            [Fault::Unreachable, Fault::RequestLost, Fault::AnswerLost][self.rng.usize(0..3)]
        })
    }

    fn passage(&mut self, caller: u64) -> Passage {
        let now = Instant::now();
        let mut before = self.latency() + self.frozen.saturating_duration_since(now);
        let after = self.latency();
        if self.dies(caller) {
            let fault = [Fault::RequestLost, Fault::AnswerLost][self.rng.usize(0..2)];
            self.kill(caller);
            return Passage { before: Duration::ZERO, fault: Some(fault), after };
        }
        let fault = match self.is_away(caller, now) {
            true => Some([Fault::Unreachable, Fault::RequestLost][self.rng.usize(0..2)]),
            false => self.fault(),
        };
        if fault.is_some() {
            self.ledger.disturbed(Some(caller), Duration::ZERO);
            // Sometimes it is unknown for a while.
            if self.rng.u32(0..4) == 0 {
                before += self.lease / 10 * self.rng.u32(1..=10);
            }
        }
        Passage { before, fault, after }
    }
}

impl Watch for Network {
    fn passage(&self, caller: u64, operation: &'static str) -> Passage {
        if caller == OPERATOR {
            return Passage::default();
        }
        let (passage, died) = self.with(|inner| {
            if operation == "look" {
                let away = inner.is_away(caller, Instant::now());
                let fault = away.then_some(Fault::Unreachable);
                return (Passage { fault, ..Passage::default() }, false);
            }
            let lived = !inner.dead.contains(&caller);
            let passage = inner.passage(caller);
            (passage, lived && inner.dead.contains(&caller))
        });
        if died {
            self.died.notify_one();
        }
        passage
    }

    fn carried_out(&self, caller: u64, operation: &'static str, view: View<'_>) {
        self.with(|inner| inner.ledger.observe(caller, operation, view));
    }
}
