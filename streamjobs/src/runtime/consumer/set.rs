//! The set of running consumers, and what changes it: the only place that adds to it or takes away.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::model::config::slots_of;
use crate::model::error::{ControlError, StartError};
use crate::model::name::{ConsumerName, GroupName, NameError};
use crate::runtime::consumer::plan::PlannedQueue;
use crate::runtime::consumer::running::{Executors, RunningConsumer};
use crate::runtime::consumer::stop::ShutdownReport;
use crate::runtime::consumer::wiring::{Unprepared, Wiring, prepare};

/// The consumers of a runtime.
pub(crate) struct ConsumerSet {
    wiring: Wiring,
    executors: Executors,
    /// The first part of every consumer's name.
    prefix: String,
    /// What runs beside the workers: preparations and removals.
    tasks: TaskTracker,
    set: Mutex<Set>,
}

#[derive(Debug)]
struct Set {
    /// The shutdown has begun, so nothing is added and nothing is changed any more.
    closed: bool,
    groups: BTreeMap<GroupName, Group>,
    /// In the order of their starts. One that stops is here until it has stopped.
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
        executors: Executors,
        prefix: String,
        planned: Vec<PlannedQueue>,
    ) -> Self {
        let mut groups = BTreeMap::<GroupName, Group>::new();
        for queue in planned {
            groups.entry(queue.queue.group.clone()).or_default().queues.push(queue);
        }
        let set = Mutex::new(Set { closed: false, groups, running: Vec::new() });
        Self { wiring, executors, prefix, tasks: TaskTracker::new(), set }
    }

    /// Starts the first consumer of every group, once all groups are prepared: the first's name.
    pub(crate) async fn start(&self) -> Result<ConsumerName, StartError> {
        let groups = self.lock().groups.keys().cloned().collect::<Vec<_>>();
        let mut workers = Vec::new();
        for group in groups {
            let built = self.build(group.as_str(), None);
            workers.push(built.map_err(|error| StartError::Settings(vec![error.to_string()]))?);
        }
        match self.prepare(&workers).await {
            Some(prepared) => prepared?,
            None => return Err(StartError::Thread("it has ended".into())),
        }
        let first = workers.first().map(|worker| worker.name.clone());
        for worker in workers {
            let begun = self.begin(worker);
            begun.map_err(|error| StartError::Settings(vec![error.to_string()]))?;
        }
        // A runtime of services alone reads under no name; it has one all the same.
        let unused = || self.unused_name();
        let named = first.map_or_else(unused, Ok);
        named.map_err(|error| StartError::Settings(vec![error.to_string()]))
    }

    /// Starts another consumer of a group: all of it or nothing.
    pub(crate) async fn add(
        &self,
        group: &str,
        prefix: Option<&str>,
    ) -> Result<ConsumerName, ControlError> {
        let worker = self.build(group, prefix)?;
        let name = worker.name.clone();
        for context in &worker.queues {
            // It has not read yet, and nothing is wrong with that.
            context.health.expect_read(Instant::now());
        }
        let workers = [worker];
        self.prepare(&workers).await.ok_or(ControlError::ShutDown)??;
        for worker in workers {
            self.begin(worker)?;
        }
        Ok(name)
    }

    /// Stops one consumer and takes it out of the set.
    pub(crate) async fn remove(
        self: &Arc<Self>,
        name: &ConsumerName,
    ) -> Result<ShutdownReport, ControlError> {
        let found = self.open()?.running.iter().find(|worker| worker.name == *name).cloned();
        let worker =
            found.ok_or_else(|| ControlError::UnknownConsumer { consumer: name.clone() })?;
        let workers = Arc::clone(self);
        // A stop that has begun goes on to its end, whether anybody waits for it or not.
        let stop = async move {
            let report = worker.stop(workers.grace()).await;
            let mut set = workers.lock();
            set.running.retain(|other| !Arc::ptr_eq(other, &worker));
            if report.released > 0 {
                // Others of this process need not hear of it from the server.
                set.of(worker.group.as_str()).for_each(RunningConsumer::reap_now);
            }
            drop(set);
            report
        };
        let stopped = self.tasks.spawn_on(stop, &self.executors.io).await;
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
        for worker in set.of(group) {
            for context in &worker.queues {
                context.slots.resize(slots);
                context.report.slots(slots);
            }
            worker.wake_readers();
        }
        Ok(())
    }

    /// Pauses or resumes a group in this process: whether that changed anything.
    pub(crate) fn set_paused(&self, group: &str, paused: bool) -> Result<bool, ControlError> {
        let mut set = self.open()?;
        let changes = std::mem::replace(&mut set.group(group)?.1.paused, paused) != paused;
        for worker in set.of(group).filter(|_| changes) {
            for context in &worker.queues {
                context.pause_here(paused);
            }
            worker.wake_readers();
        }
        Ok(changes)
    }

    /// Has the reapers of a group sweep at once.
    pub(crate) fn reap_now(&self, group: &str) -> Result<(), ControlError> {
        let mut set = self.open()?;
        set.group(group)?;
        set.of(group).for_each(RunningConsumer::reap_now);
        Ok(())
    }

    /// Has the reaper of one consumer sweep at once.
    pub(crate) fn reap_now_by(&self, name: &ConsumerName) -> Result<(), ControlError> {
        let set = self.open()?;
        let worker = set.running.iter().find(|worker| worker.name == *name);
        let worker =
            worker.ok_or_else(|| ControlError::UnknownConsumer { consumer: name.clone() })?;
        worker.reap_now();
        Ok(())
    }

    /// The consumers of this moment, those that are stopping included.
    pub(crate) fn running(&self) -> Vec<Arc<RunningConsumer>> {
        self.lock().running.clone()
    }

    pub(crate) fn wiring(&self) -> &Wiring {
        &self.wiring
    }

    pub(crate) fn grace(&self) -> Duration {
        self.wiring.runtime.grace
    }

    /// Lets nothing be added or changed any more: the consumers to be stopped.
    pub(crate) fn close(&self) -> Vec<Arc<RunningConsumer>> {
        let mut set = self.lock();
        set.closed = true;
        set.running.clone()
    }

    /// Waits for what runs beside the workers, after their stop.
    pub(crate) async fn end(&self) {
        self.tasks.close();
        let _late = timeout(STEP_MAX, self.tasks.wait()).await.is_err();
    }

    /// A consumer of a group, with a name of its own, that has touched nothing yet.
    fn build(&self, group: &str, prefix: Option<&str>) -> Result<RunningConsumer, ControlError> {
        let name = prefix.map_or_else(|| self.unused_name(), ConsumerName::unique)?;
        let mut set = self.open()?;
        let (group, Group { queues, .. }) = set.group(group)?;
        let tally = Arc::default();
        let context = |planned| Arc::new(self.wiring.context(planned, &name, &tally));
        let contexts = queues.iter().map(context).collect();
        Ok(RunningConsumer::new(name, group.clone(), contexts, tally, self.executors.clone()))
    }

    /// Random bits make it unlike any other, in this process and elsewhere.
    fn unused_name(&self) -> Result<ConsumerName, NameError> {
        ConsumerName::unique(&self.prefix)
    }

    /// Prepares all queues of workers; none if the thread has ended. Connections belong to the
    /// executor that opens them.
    async fn prepare(&self, workers: &[RunningConsumer]) -> Option<Result<(), Unprepared>> {
        let contexts = workers.iter().flat_map(|worker| worker.queues.clone()).collect::<Vec<_>>();
        let prepare = async move {
            for context in &contexts {
                prepare(context).await?;
            }
            Ok(())
        };
        self.tasks.spawn_on(prepare, &self.executors.io).await.ok()
    }

    /// Starts a prepared worker and puts it into the set, in one step: there is never a loop that a
    /// shutdown does not know of. What changed while it was prepared holds for it, too.
    fn begin(&self, worker: RunningConsumer) -> Result<(), ControlError> {
        let mut set = self.open()?;
        let (_, group) = set.group(worker.group.as_str())?;
        for (context, planned) in worker.queues.iter().zip(&group.queues) {
            context.slots.resize(planned.config.concurrency);
            context.pause_here(group.paused);
        }
        worker.start();
        set.running.push(Arc::new(worker));
        Ok(())
    }

    /// The set, unless the shutdown has begun.
    fn open(&self) -> Result<MutexGuard<'_, Set>, ControlError> {
        let set = self.lock();
        if set.closed { Err(ControlError::ShutDown) } else { Ok(set) }
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ConsumerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerSet").field("running", &self.lock().running).finish_non_exhaustive()
    }
}

impl Set {
    fn group(&mut self, group: &str) -> Result<(&GroupName, &mut Group), ControlError> {
        let found = self.groups.iter_mut().find(|(name, _)| name.as_str() == group);
        found.ok_or_else(|| ControlError::UnknownGroup { group: group.to_owned() })
    }

    fn of(&self, group: &str) -> impl Iterator<Item = &RunningConsumer> {
        let all = self.running.iter().map(Arc::as_ref);
        all.filter(move |worker| worker.group.as_str() == group)
    }
}

/// How long what runs beside the workers may take to end.
const STEP_MAX: Duration = Duration::from_secs(2);
