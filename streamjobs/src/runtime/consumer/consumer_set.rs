//! The set of running consumers, and the only place that adds to it or removes from it.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::model::config::slots_of;
use crate::model::error::{ControlError, StartError};
use crate::model::name::{ConsumerName, GroupName, NameError};
use crate::runtime::consumer::{
    NewConsumer, PlannedQueue, PreparedQueue, RunningConsumer, ShutdownReport, SlotPools,
    StopTokens, Tasks, TokioHandles, Unprepared, Wiring, prepare,
};
use crate::runtime::observe::QueueEvent;
use crate::runtime::state::lock;

/// The consumers of a runtime.
pub(crate) struct ConsumerSet {
    pub(crate) wiring: Wiring,
    handles: TokioHandles,
    /// The first part of every consumer's name.
    prefix: String,
    /// Preparations and removals.
    tasks: TaskTracker,
    set: Mutex<Set>,
}

#[derive(Debug)]
struct Set {
    /// The shutdown has begun: additions and changes are refused.
    closed: bool,
    groups: BTreeMap<GroupName, Group>,
    /// In the order of their starts. A consumer that is stopping stays here until it has stopped.
    running: Vec<Arc<RunningConsumer>>,
}

/// What a new consumer of a group gets.
#[derive(Debug, Default)]
struct Group {
    queues: Vec<PlannedQueue>,
    /// The group is paused in this process.
    paused: bool,
}

impl ConsumerSet {
    pub(crate) fn new(
        wiring: Wiring,
        handles: TokioHandles,
        prefix: String,
        planned: Vec<PlannedQueue>,
    ) -> Self {
        let mut groups = BTreeMap::<GroupName, Group>::new();
        for queue in planned {
            groups.entry(queue.queue.group.clone()).or_default().queues.push(queue);
        }
        let set = Mutex::new(Set { closed: false, groups, running: Vec::new() });
        Self { wiring, handles, prefix, tasks: TaskTracker::new(), set }
    }

    /// Starts the first consumer of every group, once all groups are prepared. Returns the name of
    /// the first.
    pub(crate) async fn start(&self) -> Result<ConsumerName, StartError> {
        let groups = lock(&self.set).groups.keys().cloned().collect::<Vec<_>>();
        let mut consumers = Vec::new();
        for group in groups {
            consumers.push(self.wire(group.as_str(), None).map_err(refused)?);
        }
        match self.prepare(&consumers).await {
            Some(prepared) => prepared?,
            None => return Err(StartError::Thread("it has ended".into())),
        }
        let first = consumers.first().map(|new| new.consumer.name.clone());
        for new in consumers {
            self.begin(new).map_err(refused)?;
        }
        // A runtime with services and no consumers gets a name that no consumer has.
        first.map_or_else(|| self.unused_name().map_err(refused), Ok)
    }

    /// Starts another consumer of a group: all of it or nothing.
    pub(crate) async fn add(
        &self,
        group: &str,
        prefix: Option<&str>,
    ) -> Result<ConsumerName, ControlError> {
        let new = self.wire(group, prefix)?;
        let name = new.consumer.name.clone();
        let prepared = self.prepare(std::slice::from_ref(&new)).await;
        prepared.ok_or(ControlError::ShutDown)??;
        self.begin(new)?;
        Ok(name)
    }

    /// Stops one consumer and removes it from the set.
    pub(crate) async fn remove(
        self: &Arc<Self>,
        name: &ConsumerName,
    ) -> Result<ShutdownReport, ControlError> {
        let consumer = self.open()?.named(name)?;
        let this = Arc::clone(self);
        // A stop that has begun goes on to its end, even when its caller is dropped.
        let stop = async move {
            let report = consumer.stop(this.grace()).await;
            let mut set = lock(&this.set);
            set.running.retain(|other| !Arc::ptr_eq(other, &consumer));
            if report.released > 0 {
                // Consumers of this process need not wait for the server's signal.
                set.of(consumer.group.as_str()).for_each(RunningConsumer::reap_now);
            }
            drop(set);
            report
        };
        let stopped = self.tasks.spawn_on(stop, &self.handles.io).await;
        stopped.map_err(|_ended| ControlError::ShutDown)
    }

    /// Changes how many jobs each consumer of a group may have in flight on each stream.
    pub(crate) fn set_concurrency(
        &self,
        group: &str,
        concurrency: NonZeroU32,
    ) -> Result<(), ControlError> {
        let (slots, mut set) = (slots_of(concurrency), self.open()?);
        for queue in &mut set.group(group)?.1.queues {
            queue.config.concurrency = slots;
        }
        for consumer in set.of(group) {
            consumer.queues.iter().for_each(|queue| queue.resize(slots));
            consumer.unblock_readers();
        }
        Ok(())
    }

    /// Pauses or resumes a group in this process. Returns whether that changed anything.
    pub(crate) fn set_paused(&self, group: &str, paused: bool) -> Result<bool, ControlError> {
        let mut set = self.open()?;
        let changes = std::mem::replace(&mut set.group(group)?.1.paused, paused) != paused;
        for consumer in set.of(group).filter(|_| changes) {
            consumer.queues.iter().for_each(|queue| queue.pause.set_here(paused));
            consumer.unblock_readers();
        }
        Ok(changes)
    }

    /// Has the reapers of a group scan for idle entries at once.
    pub(crate) fn reap_now(&self, group: &str) -> Result<(), ControlError> {
        let mut set = self.open()?;
        set.group(group)?;
        set.of(group).for_each(RunningConsumer::reap_now);
        Ok(())
    }

    /// Has the reapers of one consumer scan for idle entries at once.
    pub(crate) fn reap_now_by(&self, name: &ConsumerName) -> Result<(), ControlError> {
        self.open()?.named(name)?.reap_now();
        Ok(())
    }

    /// The present consumers, those that are stopping included.
    pub(crate) fn running(&self) -> Vec<Arc<RunningConsumer>> {
        lock(&self.set).running.clone()
    }

    pub(crate) fn grace(&self) -> Duration {
        self.wiring.runtime.grace
    }

    /// Refuses additions and changes from now on. Returns the consumers to be stopped.
    pub(crate) fn close(&self) -> Vec<Arc<RunningConsumer>> {
        let mut set = lock(&self.set);
        set.closed = true;
        set.running.clone()
    }

    /// Waits for preparations and removals, after the consumers' stop.
    pub(crate) async fn end(&self) {
        self.tasks.close();
        let _late = timeout(STEP_MAX, self.tasks.wait()).await.is_err();
    }

    /// A new consumer of a group, with a name of its own, that has not contacted the server yet.
    fn wire(&self, group: &str, prefix: Option<&str>) -> Result<NewConsumer, ControlError> {
        let name = prefix.map_or_else(|| self.unused_name(), ConsumerName::unique)?;
        let mut set = self.open()?;
        let (group, Group { queues, .. }) = set.group(group)?;
        let (tally, group) = (Arc::default(), group.clone());
        let mut pools = SlotPools::default();
        let wired =
            queues.iter().map(|planned| self.wiring.queue(planned, &name, &tally, &mut pools));
        let (queues, loops) = wired.map(|(queue, loops)| (Arc::new(queue), loops)).unzip();
        let consumer = RunningConsumer {
            name,
            group,
            queues,
            tally,
            handles: self.handles.clone(),
            tokens: StopTokens::default(),
            tasks: Tasks::default(),
            leaving: AtomicBool::new(false),
            stopped: OnceCell::new(),
        };
        Ok(NewConsumer { consumer, loops })
    }

    /// A consumer name that is unique by its random bits.
    fn unused_name(&self) -> Result<ConsumerName, NameError> {
        ConsumerName::unique(&self.prefix)
    }

    /// Prepares all queues of new consumers; `None` if the thread has ended. Connections belong to the executor that
    /// opens them.
    async fn prepare(&self, consumers: &[NewConsumer]) -> Option<Result<(), Unprepared>> {
        let queues = consumers.iter().flat_map(|new| new.consumer.queues.clone());
        let (queues, interval) = (queues.collect::<Vec<_>>(), self.wiring.runtime.janitor_interval);
        let layouts = Arc::clone(self.wiring.layouts());
        let prepare = async move {
            report_old(&prepare(queues, &layouts, interval).await?);
            Ok::<_, Unprepared>(())
        };
        self.tasks.spawn_on(prepare, &self.handles.io).await.ok()
    }

    /// Starts a prepared consumer and adds it to the set in one step, so that a shutdown knows of
    /// every loop. Changes that were made during its preparation apply to it as well.
    fn begin(&self, new: NewConsumer) -> Result<(), ControlError> {
        let mut set = self.open()?;
        let (_, group) = set.group(new.consumer.group.as_str())?;
        for (queue, planned) in new.consumer.queues.iter().zip(&group.queues) {
            queue.slots.resize(planned.config.concurrency);
            queue.pause.set_here(group.paused);
            // Its first read is still to come, which does not make it unhealthy.
            queue.health.loops.expect_read(Instant::now());
        }
        set.running.push(Arc::new(new.start()));
        Ok(())
    }

    /// The set, unless the shutdown has begun.
    fn open(&self) -> Result<MutexGuard<'_, Set>, ControlError> {
        let set = lock(&self.set);
        if set.closed { Err(ControlError::ShutDown) } else { Ok(set) }
    }
}

/// Reports once for each new group how many entries it runs that were published before it, in all
/// partitions of its stream.
fn report_old(prepared: &[PreparedQueue]) {
    let mut groups = BTreeMap::new();
    for PreparedQueue { handle, old, .. } in prepared.iter().filter(|queue| queue.old > 0) {
        let context = &handle.context;
        let name = (context.whole.as_str(), context.queue().group.as_str());
        groups.entry(name).or_insert((context, 0)).1 += old;
    }
    for ((stream, _), (context, entries)) in groups {
        context.report.queue(QueueEvent::OldEntries { stream, entries });
    }
}

impl fmt::Debug for ConsumerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerSet")
            .field("running", &lock(&self.set).running)
            .finish_non_exhaustive()
    }
}

impl Set {
    fn group(&mut self, group: &str) -> Result<(&GroupName, &mut Group), ControlError> {
        let found = self.groups.iter_mut().find(|(name, _)| name.as_str() == group);
        found.ok_or_else(|| ControlError::UnknownGroup { group: group.to_owned() })
    }

    fn of(&self, group: &str) -> impl Iterator<Item = &RunningConsumer> {
        let all = self.running.iter().map(Arc::as_ref);
        all.filter(move |consumer| consumer.group.as_str() == group)
    }

    fn named(&self, name: &ConsumerName) -> Result<Arc<RunningConsumer>, ControlError> {
        let found = self.running.iter().find(|consumer| consumer.name == *name).cloned();
        found.ok_or_else(|| ControlError::UnknownConsumer { consumer: name.clone() })
    }
}

fn refused(error: impl ToString) -> StartError {
    StartError::Settings(vec![error.to_string()])
}

/// How long preparations and removals may take to end.
const STEP_MAX: Duration = Duration::from_secs(2);
