//! Streams in this process, under tokio's clock: for tests of handlers and of the runtime.
//!
//! Each step is carried out as a server would carry it out, under one lock. Tests order faults in `faults`.

mod admin;
mod cancels;
mod consume;
mod dead_letters;
mod done_jobs;
mod faults;
mod granted;
mod group_upkeep;
mod holds;
mod inspect;
#[cfg(feature = "testing")]
mod kit;
mod later;
mod ledger;
#[cfg(feature = "testing")]
mod left;
mod limit;
mod marks;
mod progress;
mod publish;
mod rates;
mod raw_access;
mod reader;
mod results;
mod schedule;
mod schedules;
mod server_info;
mod shares;
mod state;
mod stream;
mod timetable;
mod trends;
mod unique;
mod work;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

pub use self::faults::{Fault, Passage, PendingView, View, Watch};
use self::faults::{Faults, delay};
#[cfg(feature = "testing")]
pub(crate) use self::left::{Left, Moment, Unfinished, Work};
use self::state::MemoryState;
use crate::store::types::Result;
use crate::store::{ServerTime, Store};

/// Streams in memory. Clones share them.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    state: Arc<Mutex<MemoryState>>,
    changed: Arc<Notify>,
    faults: Faults,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let (state, changed) = (Arc::new(Mutex::new(MemoryState::new())), Arc::default());
        Self { state, changed, faults: Faults::default() }
    }

    /// Makes the next call of a step fail; `step` is the name of its method. The step `schedule_retry` is a
    /// single job in a call of `schedule_retries`.
    pub fn fail_next(&self, step: &'static str, fault: Fault) {
        self.faults.order(step, fault);
    }

    /// Makes every call fail until [`start_server`](Self::start_server).
    pub fn stop_server(&self) {
        self.faults.set_stopped(true);
        self.changed.notify_waiters();
    }

    /// Makes calls succeed again.
    pub fn start_server(&self) {
        self.faults.set_stopped(false);
    }

    /// Moves the server's clock, forwards or backwards.
    pub fn step_clock(&self, milliseconds: i64) {
        self.lock().step_clock(milliseconds);
    }

    /// The same streams, for one caller whose calls are watched.
    #[must_use]
    pub fn watched(&self, caller: u64, watch: Arc<dyn Watch>) -> Self {
        Self { faults: self.faults.watched(caller, watch), ..self.clone() }
    }

    /// A separate store with the same contents, for a search that continues from here in several ways.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = Arc::new(Mutex::new(self.lock().clone()));
        Self { state, changed: Arc::default(), faults: Faults::default() }
    }

    /// Looks at the contents.
    pub fn look<T>(&self, at: impl FnOnce(View<'_>) -> T) -> T {
        at(View::of(&self.lock()))
    }

    fn lock(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One step of the store: it happens as a whole or not at all. Its name is the method's, for faults.
    async fn step<T: Send>(
        &self,
        name: &'static str,
        step: impl FnOnce(&mut MemoryState) -> Result<T> + Send,
    ) -> Result<T> {
        let passage = self.faults.passage(name).await;
        let answer = self.step_now(name, passage.fault, step);
        self.changed.notify_waiters();
        delay(passage.after).await;
        answer
    }

    /// One step whose request has arrived, perhaps with a fault.
    fn step_now<T>(
        &self,
        name: &'static str,
        fault: Option<Fault>,
        step: impl FnOnce(&mut MemoryState) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.lock();
        self.faults.apply(name, fault, || {
            let answer = step(&mut state);
            self.faults.show(name, &state);
            answer
        })
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    fn fork(&self) -> Arc<dyn Store> {
        Arc::new(self.clone())
    }

    fn fork_for_payloads(&self) -> Arc<dyn Store> {
        self.fork()
    }

    fn virtual_now(&self) -> Option<ServerTime> {
        Some(ServerTime(self.lock().now()))
    }
}
