//! What tests order and observe: calls that fail or are delayed, a stopped server, a clock that jumps,
//! and the state after every step.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::state::MemoryState;
use crate::model::entry::{EntryId, Fields};
use crate::store::types::Result;
use crate::store::{Inlet, Queue, StoreError};

/// How a call fails. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not carried out, and the caller learns that.
    Unreachable,
    /// It is not carried out, because the store refuses it.
    Refused,
    /// It is not carried out, and the caller does not learn that.
    RequestLost,
    /// It is carried out, and the caller does not learn that.
    AnswerLost,
    /// It panics, as a bug of this crate would.
    Panic,
}

impl Fault {
    /// The error that the caller gets.
    pub(super) fn error(self) -> StoreError {
        match self {
            Self::Unreachable => StoreError::Unreachable("as ordered".into()),
            Self::Refused => {
                let (code, text) = ("WRONGTYPE".to_owned(), "as ordered".to_owned());
                StoreError::Refused { code, text }
            }
            _ => StoreError::AnswerLost("as ordered".into()),
        }
    }
}

/// Observes a store. Its methods must not call the store.
pub trait Watch: fmt::Debug + Send + Sync {
    /// Decides how a caller's next call proceeds. A waiting read asks under the name "look" each time it checks again.
    /// Of the answer to that, only the fault counts.
    fn passage(&self, caller: u64, operation: &'static str) -> Passage;

    /// Tells that a step was carried out; `view` is the state right after it.
    fn carried_out(&self, caller: u64, operation: &'static str, view: View<'_>);
}

/// How one call proceeds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passage {
    /// The delay of the request.
    pub before: Duration,
    /// How the call fails, if it does.
    pub fault: Option<Fault>,
    /// The delay of the answer.
    pub after: Duration,
}

/// The state of a store between two steps.
#[derive(Clone, Copy)]
pub struct View<'a> {
    state: &'a MemoryState,
}

/// A row of a pending list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingView<'a> {
    /// The entry.
    pub id: EntryId,
    /// Its consumer.
    pub consumer: &'a str,
    /// Since when it has been idle, by the server's clock in milliseconds.
    pub since: u64,
    /// How often it was delivered.
    pub delivery_count: u64,
}

impl<'a> View<'a> {
    pub(super) fn of(state: &'a MemoryState) -> Self {
        Self { state }
    }

    /// The places of a group's limit and the lines that wait for them, as text.
    #[must_use]
    pub fn limit(self, queue: &Queue) -> String {
        self.state
            .limits
            .get(&queue.group_key())
            .map(|limit| format!("{limit:?}"))
            .unwrap_or_default()
    }

    /// The places of a group's limit, each with the key that it counts for.
    pub fn holds(
        self,
        queue: &Queue,
    ) -> impl Iterator<Item = ((Inlet, EntryId), &'a str)> + use<'a> {
        let limit = self.state.limits.get(&queue.group_key());
        let holds = limit.into_iter().flat_map(|limit| &limit.holds);
        holds.map(|(place, key)| (*place, key.as_str()))
    }

    /// The jobs that wait in the lines of a group's limit.
    pub fn lines(self, queue: &Queue) -> impl Iterator<Item = &'a Fields> + use<'a> {
        let limit = self.state.limits.get(&queue.group_key());
        limit.into_iter().flat_map(|limit| limit.lines.values().flatten())
    }

    /// The server's clock in milliseconds.
    #[must_use]
    pub fn now(self) -> u64 {
        self.state.now()
    }

    /// The entries of a stream, in order.
    pub fn entries(self, key: &str) -> impl Iterator<Item = (EntryId, &'a Fields)> + use<'a> {
        let stream = self.state.streams.get(key);
        stream.into_iter().flat_map(|stream| stream.entries.iter().map(|(id, text)| (*id, text)))
    }

    /// The last entry that was delivered to a group; `None` without the group.
    #[must_use]
    pub fn cursor(self, key: &str, group: &str) -> Option<EntryId> {
        Some(self.state.streams.get(key)?.groups.get(group)?.delivered)
    }

    /// A pending list, in order.
    pub fn pending(
        self,
        key: &str,
        group: &str,
    ) -> impl Iterator<Item = PendingView<'a>> + use<'a> {
        let group = self.state.streams.get(key).and_then(|stream| stream.groups.get(group));
        group.into_iter().flat_map(|group| {
            group.pending.iter().map(|(id, row)| PendingView {
                id: *id,
                consumer: &row.consumer,
                since: row.since,
                delivery_count: row.delivery_count,
            })
        })
    }

    /// The jobs that wait for retry, in the order in which they are due.
    pub fn retries(self, queue: &Queue) -> impl Iterator<Item = &'a Fields> + use<'a> {
        let retries = self.state.retries.get(&queue.retry_key());
        retries.into_iter().flat_map(|retries| retries.values().map(|retry| &retry.fields))
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// The ordered faults, which clones share, and the watch of one caller.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    ordered: Arc<Mutex<Ordered>>,
    watch: Option<(u64, Arc<dyn Watch>)>,
}

#[derive(Debug, Default)]
struct Ordered {
    is_stopped: bool,
    next: HashMap<&'static str, VecDeque<Fault>>,
}

impl Faults {
    /// Makes the next call of a step fail.
    pub(super) fn order(&self, step: &'static str, fault: Fault) {
        self.lock().next.entry(step).or_default().push_back(fault);
    }

    /// Makes every call fail, or ends that.
    pub(super) fn set_stopped(&self, is_stopped: bool) {
        self.lock().is_stopped = is_stopped;
    }

    /// The same faults, for one caller whose calls are watched.
    pub(super) fn watched(&self, caller: u64, watch: Arc<dyn Watch>) -> Self {
        Self { watch: Some((caller, watch)), ..self.clone() }
    }

    /// Waits for a request to arrive. Returns how the call proceeds.
    pub(super) async fn passage(&self, step: &'static str) -> Passage {
        let Some((caller, watch)) = &self.watch else { return Passage::default() };
        let passage = watch.passage(*caller, step);
        delay(passage.before).await;
        passage
    }

    /// The fault of a waiting read that checks again.
    pub(super) fn of_waiting_read(&self) -> Option<Fault> {
        let (caller, watch) = self.watch.as_ref()?;
        watch.passage(*caller, "look").fault
    }

    /// Carries out a step, unless this fault or an ordered one prevents it.
    pub(super) fn apply<T>(
        &self,
        name: &'static str,
        fault: Option<Fault>,
        step: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        match self.next(name, fault) {
            None => step(),
            Some(fault @ Fault::AnswerLost) => step().and_then(|_| Err(fault.error())),
            #[expect(clippy::panic, reason = "a test has ordered it")]
            Some(Fault::Panic) => panic!("{name} panics, as ordered"),
            Some(fault) => Err(fault.error()),
        }
    }

    fn next(&self, step: &'static str, fault: Option<Fault>) -> Option<Fault> {
        let mut ordered = self.lock();
        if ordered.is_stopped {
            return Some(Fault::Unreachable);
        }
        fault.or_else(|| ordered.next.get_mut(step).and_then(VecDeque::pop_front))
    }

    /// Shows the watch the state after a step.
    pub(super) fn show(&self, step: &'static str, state: &MemoryState) {
        if let Some((caller, watch)) = &self.watch {
            watch.carried_out(*caller, step, View { state });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ordered> {
        self.ordered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a delayed message. Without a delay, it does not even yield.
pub(super) async fn delay(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}
