//! Every interleaving of the steps of two processes that run four jobs of two keys, with one failure, one
//! crash and one claim: a search over the states of the memory store that remembers where it has been.

use std::collections::{BTreeMap, HashSet, hash_map::DefaultHasher};
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use streamjobs::__store::holds::{HoldRule, HoldScope, SetLimit};
use streamjobs::__store::memory::MemoryStore;
use streamjobs::__store::raw_access::RawAccess;
use streamjobs::__store::{
    ClaimedPage, Consume, Delivery, GroupUpkeep, HoldSweep, Holds, IdleClaim, Inlet, Queue,
    SweepCursors,
};
use streamjobs::config::Start;
use streamjobs::{ConsumerName, EntryId, Fields, GroupName, StreamName};

const LEASE: Duration = Duration::from_secs(10);
const JOBS: [(&str, u8); 4] = [("a", 1), ("a", 2), ("b", 3), ("a", 4)];

/// What is different in a build with a seeded bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// Entries are read in one request, and it is decided in the next whether they may run.
    TwoRequests,
    /// A hold ends although its job runs, as if by time.
    FreedByTime,
}

/// One step of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Take(usize, Inlet),
    /// With the bug: decides about an entry that was read.
    Decide(usize, usize),
    Finish(usize, usize),
    Fail(usize, usize),
    /// After a failure where those behind may pass.
    GiveBack(usize),
    Promote,
    Crash(usize),
    Claim(usize),
    Sweep,
    /// An operator raises the limit to this number, and then resets it.
    SetLimit(Option<u32>),
    FreeByTime,
}

/// A process: the jobs that it runs, and what it has not told yet.
#[derive(Clone, Debug, Default)]
struct Process {
    is_dead: bool,
    read: Vec<Delivery>,
    running: Vec<Delivery>,
    to_give_back: Vec<(Inlet, EntryId)>,
}

#[derive(Clone)]
struct World {
    store: MemoryStore,
    processes: [Process; 2],
    has_failed: bool,
    has_crashed: bool,
    has_freed: bool,
    has_raised: bool,
    has_reset: bool,
    /// The numbers of jobs that were done, by key.
    done: BTreeMap<String, Vec<u8>>,
    /// Those that have started, by key.
    started: BTreeMap<String, Vec<u8>>,
}

struct Search {
    rule: HoldRule,
    /// To what an operator raises the limit, in place of the failure of a job.
    raised: Option<u32>,
    bug: Bug,
    queue: Queue,
    names: [ConsumerName; 2],
    seen: HashSet<u64>,
}

fn job(key: &str, number: u8) -> Fields {
    let pair = |name: &'static str, value: String| {
        (Bytes::from_static(name.as_bytes()), Bytes::from(value))
    };
    vec![pair("type", "t".into()), pair("number", number.to_string()), pair("sj-key", key.into())]
}

fn key_of(delivery: &Delivery) -> String {
    delivery.entry.text("sj-key").unwrap().to_owned()
}

fn number_of(delivery: &Delivery) -> u8 {
    delivery.entry.text("number").unwrap().parse().unwrap()
}

/// The place of an entry as a retry names it.
fn place(delivery: &Delivery) -> String {
    let source = if delivery.inlet.is_lane() { 'l' } else { 's' };
    format!("{source}:{}", delivery.entry.id())
}

impl Search {
    fn new(limit: u32, blocks: bool, bug: Bug) -> Self {
        let limit = NonZeroU32::new(limit).unwrap();
        let (stream, group) = (StreamName::new("orders"), GroupName::new("work"));
        Self {
            rule: HoldRule { scope: HoldScope::Key, limit, blocks, is_order: true },
            raised: None,
            bug,
            queue: Queue { stream: stream.unwrap(), group: group.unwrap() },
            names: ["p0", "p1"].map(|name| ConsumerName::new(name).unwrap()),
            seen: HashSet::new(),
        }
    }

    async fn world(&self) -> World {
        let store = MemoryStore::new();
        store.prepare(&self.queue, Start::Beginning).await.unwrap();
        for (key, number) in JOBS {
            store.append("orders", job(key, number));
        }
        World {
            store,
            processes: Default::default(),
            has_failed: self.raised.is_some(),
            has_crashed: false,
            has_freed: false,
            has_raised: self.raised.is_none(),
            has_reset: self.raised.is_none(),
            done: BTreeMap::new(),
            started: BTreeMap::new(),
        }
    }

    /// Visits every state that can be reached: how many there are, or what is wrong in one of them.
    async fn run(&mut self) -> Result<usize, String> {
        let first = self.world().await;
        self.seen.insert(self.digest(&first));
        let mut open = vec![(first, Vec::new())];
        while let Some((world, path)) = open.pop() {
            for action in self.actions(&world) {
                let mut next = world.clone();
                next.store = world.store.copy();
                let mut path = path.clone();
                path.push(action);
                self.act(&mut next, action).await.map_err(|fault| format!("{fault}: {path:?}"))?;
                if self.seen.insert(self.digest(&next)) {
                    let ended = self.ends_well(&next).await;
                    ended.map_err(|fault| format!("{fault}: {path:?}"))?;
                    open.push((next, path));
                }
            }
        }
        Ok(self.seen.len())
    }

    fn actions(&self, world: &World) -> Vec<Action> {
        let mut actions = vec![Action::Promote, Action::Sweep];
        for (number, process) in world.processes.iter().enumerate() {
            if process.is_dead {
                continue;
            }
            if process.running.len() + process.read.len() < 2 {
                actions.extend(Inlet::ALL.map(|inlet| Action::Take(number, inlet)));
            }
            actions.extend((0..process.read.len()).map(|at| Action::Decide(number, at)));
            actions.extend((0..process.running.len()).map(|at| Action::Finish(number, at)));
            if !world.has_failed {
                actions.extend((0..process.running.len()).map(|at| Action::Fail(number, at)));
            }
            if !process.to_give_back.is_empty() {
                actions.push(Action::GiveBack(number));
            }
            match world.has_crashed {
                false => actions.push(Action::Crash(number)),
                true => actions.push(Action::Claim(number)),
            }
        }
        match self.raised {
            Some(to) if !world.has_raised => actions.push(Action::SetLimit(Some(to))),
            Some(_) if !world.has_reset => actions.push(Action::SetLimit(None)),
            _ => {}
        }
        if self.bug == Bug::FreedByTime && !world.has_freed {
            actions.push(Action::FreeByTime);
        }
        actions
    }

    async fn act(&self, world: &mut World, action: Action) -> Result<(), String> {
        let (store, queue) = (world.store.clone(), &self.queue);
        match action {
            Action::Take(by, inlet) if self.bug == Bug::TwoRequests && !inlet.is_lane() => {
                let read = self.read(&store, by).await;
                world.processes[by].read.extend(read);
            }
            Action::Take(by, inlet) => {
                let taken = store.take(queue, &self.names[by], inlet, 1, self.rule).await.unwrap();
                for delivery in taken.deliveries {
                    self.start(world, by, delivery)?;
                }
            }
            Action::Decide(by, at) => {
                let delivery = world.processes[by].read.remove(at);
                if let Some(delivery) = self.decide(&store, delivery) {
                    self.start(world, by, delivery)?;
                }
            }
            Action::Finish(by, at) => {
                let delivery = world.processes[by].running.remove(at);
                let done = world.done.entry(key_of(&delivery)).or_default();
                if !done.contains(&number_of(&delivery)) {
                    done.push(number_of(&delivery));
                }
                let places = [(delivery.inlet, delivery.entry.id())];
                store.finish(queue, self.rule, &places).await.unwrap();
            }
            Action::Fail(by, at) => {
                world.has_failed = true;
                let delivery = world.processes[by].running.remove(at);
                self.retry(&store, by, &delivery).await;
                if !self.rule.blocks {
                    let place = (delivery.inlet, delivery.entry.id());
                    world.processes[by].to_give_back.push(place);
                }
            }
            Action::GiveBack(by) => {
                let places = std::mem::take(&mut world.processes[by].to_give_back);
                store.finish(queue, self.rule, &places).await.unwrap();
            }
            Action::Promote => {
                store.promote(queue, &self.names[0], 9).await.unwrap();
            }
            Action::Crash(by) => {
                world.has_crashed = true;
                world.processes[by] = Process { is_dead: true, ..Process::default() };
            }
            Action::Claim(by) => {
                for delivery in self.claim(&store, by).await {
                    self.start(world, by, delivery)?;
                }
            }
            Action::Sweep => self.sweep(&store).await,
            Action::SetLimit(to) => {
                (world.has_raised, world.has_reset) = (true, to.is_none());
                self.set_limit(&store, to).await;
            }
            Action::FreeByTime => {
                world.has_freed = true;
                for process in &world.processes {
                    let running = process.running.iter();
                    let places = running.map(|of| (of.inlet, of.entry.id())).collect::<Vec<_>>();
                    store.finish(queue, self.rule, &places).await.unwrap();
                }
            }
        }
        Ok(())
    }

    /// A job runs from now on, if it may.
    fn start(&self, world: &mut World, by: usize, delivery: Delivery) -> Result<(), String> {
        let (key, number) = (key_of(&delivery), number_of(&delivery));
        let living = world.processes.iter().flat_map(|process| &process.running);
        let running = living.filter(|other| key_of(other) == key).count();
        let raised = self.raised.filter(|_| world.has_raised);
        let most = raised.unwrap_or_default().max(self.rule.limit.get());
        if running >= most as usize {
            return Err(format!("{key} runs more often than the limit says"));
        }
        let done = world.done.get(&key).cloned().unwrap_or_default();
        let started = world.started.entry(key.clone()).or_default();
        let is_first = !started.contains(&number);
        let before = JOBS.iter().filter(|(of, before)| *of == key && *before < number);
        // Of two that may run beside each other, either may start first.
        for (_, before) in before.filter(|_| most == 1) {
            if self.rule.blocks && !done.contains(before) {
                return Err(format!("{number} of {key} runs before {before} is done"));
            }
            if is_first && !started.contains(before) {
                return Err(format!("{number} of {key} starts before {before} has"));
            }
        }
        started.push(number);
        started.sort_unstable();
        started.dedup();
        world.processes[by].running.push(delivery);
        Ok(())
    }

    async fn retry(&self, store: &MemoryStore, by: usize, delivery: &Delivery) {
        let mut retry = delivery.entry.fields().to_vec();
        retry.retain(|(name, _)| name != "sj-held");
        if self.rule.blocks {
            retry.push((Bytes::from_static(b"sj-held"), place(delivery).into()));
        }
        let (hold, name) = (delivery.hold(), &self.names[by]);
        let delay = Duration::ZERO;
        let scheduled =
            Consume::schedule_retry(store, &self.queue, name, hold, None, delay, &retry).await;
        scheduled.unwrap();
    }

    /// What the dead process has left, one entry at a time.
    async fn claim(&self, store: &MemoryStore, by: usize) -> Vec<Delivery> {
        let mut all = Vec::new();
        for inlet in Inlet::ALL {
            let key = self.queue.key(inlet);
            let own = self.names[by].as_str();
            for row in store.pending(&key, "work") {
                if row.consumer != own {
                    store.age(&key, "work", row.id, LEASE * 2);
                }
            }
            let claim = IdleClaim {
                inlet,
                lease: LEASE,
                cursor: EntryId::ZERO,
                limit: 1,
                expected: None,
                skip: &[],
            };
            let page = store.claim_idle(&self.queue, &self.names[by], claim).await.unwrap();
            let ClaimedPage::Page { claimed, .. } = page else { panic!("the clock is right") };
            all.extend(claimed);
        }
        all
    }

    async fn sweep(&self, store: &MemoryStore) {
        let sweep = HoldSweep { rule: Some(self.rule), cursors: SweepCursors::default() };
        store.sweep_holds(&self.queue, sweep).await.unwrap();
    }

    async fn set_limit(&self, store: &MemoryStore, to: Option<u32>) {
        let text = |to| format!("key {to} 0 {{\"from\":1,\"by\":\"alice\",\"why\":\"x\"}}");
        let set = to.map(|to| SetLimit::stored(&text(to)).unwrap());
        store.set_limit(&self.queue, set.as_ref()).await.unwrap();
    }

    /// With the bug: the first request.
    async fn read(&self, store: &MemoryStore, by: usize) -> Vec<Delivery> {
        use streamjobs::__store::{ReadRequest, ReaderSetup};
        let setup = ReaderSetup::waiting(Duration::from_secs(2));
        let mut reader = store.reader(&self.queue, &self.names[by], setup).await.unwrap();
        let request = ReadRequest { acks: &[], inlet: Inlet::STREAM, count: 1, block: None };
        reader.read(request).await.unwrap().deliveries.unwrap()
    }

    /// With the bug: the second request.
    fn decide(&self, store: &MemoryStore, delivery: Delivery) -> Option<Delivery> {
        let is_admitted = store.decide(&self.queue, self.rule, delivery.inlet, &delivery.entry);
        is_admitted.then_some(delivery)
    }

    /// From here on, without another failure, everything is done and nothing is left.
    async fn ends_well(&self, world: &World) -> Result<(), String> {
        let mut world = World { store: world.store.copy(), ..world.clone() };
        let by = usize::from(world.processes[0].is_dead);
        for _ in 0..40 {
            if self.is_over(&world) {
                return Ok(());
            }
            for of in 0..2 {
                for at in (0..world.processes[of].read.len()).rev() {
                    self.act(&mut world, Action::Decide(of, at)).await?;
                }
                for at in (0..world.processes[of].running.len()).rev() {
                    self.act(&mut world, Action::Finish(of, at)).await?;
                }
                if !world.processes[of].to_give_back.is_empty() {
                    self.act(&mut world, Action::GiveBack(of)).await?;
                }
            }
            let mut steps = vec![Action::Sweep, Action::Promote];
            if world.has_crashed {
                steps.push(Action::Claim(by));
            }
            for step in steps {
                self.act(&mut world, step).await?;
            }
            for inlet in Inlet::ALL {
                if world.processes[by].running.len() + world.processes[by].read.len() < 2 {
                    self.act(&mut world, Action::Take(by, inlet)).await?;
                }
            }
        }
        let limit = world.store.look(|view| view.limit(&self.queue));
        Err(format!("in the end {:?} are done, and this is left: {limit}", world.done))
    }

    /// Whether everything is done, and nothing is left of the limit.
    fn is_over(&self, world: &World) -> bool {
        let limit = world.store.look(|view| view.limit(&self.queue));
        let done = world.done.values().map(Vec::len).sum::<usize>();
        done == JOBS.len() && limit == "Limit { holds: {}, lines: {} }"
    }

    /// What two states have in common that are the same.
    fn digest(&self, world: &World) -> u64 {
        let mut text = String::new();
        world.store.look(|view| {
            for inlet in Inlet::ALL {
                let key = self.queue.key(inlet);
                let _ = write!(text, "{:?};", view.cursor(&key, "work"));
                view.entries(&key).for_each(|entry| text.push_str(&format!("{entry:?}")));
                for row in view.pending(&key, "work") {
                    let _ = write!(text, "{}{}{}", row.id, row.consumer, row.delivery_count);
                }
            }
            view.retries(&self.queue).for_each(|job| text.push_str(&format!("{job:?}")));
            text.push_str(&view.limit(&self.queue));
        });
        let _ = write!(
            text,
            "{:?}{}{}{}{}{}{:?}{:?}",
            world.processes,
            world.has_failed,
            world.has_crashed,
            world.has_freed,
            world.has_raised,
            world.has_reset,
            world.done,
            world.started
        );
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        hasher.finish()
    }
}

#[tokio::test(start_paused = true)]
async fn no_interleaving_breaks_order_or_limit_or_leaves_anything_behind() {
    for (limit, blocks) in [(1, true), (1, false), (2, false)] {
        let states = Search::new(limit, blocks, Bug::None).run().await;
        let states = states.unwrap_or_else(|fault| panic!("limit {limit}, {blocks}: {fault}"));
        println!("limit {limit}, blocks {blocks}: {states} states");
        assert!(states > 1_000, "{states}");
    }
}

/// While no more than the code allows are seen to run before it is raised.
#[tokio::test(start_paused = true)]
async fn no_interleaving_with_a_limit_that_is_raised_and_reset_leaves_anything_behind() {
    let mut search = Search::new(1, false, Bug::None);
    (search.raised, search.rule.is_order) = (Some(2), false);
    let states = search.run().await.unwrap();
    println!("raised and reset: {states} states");
    assert!(states > 1_000, "{states}");
}

#[tokio::test(start_paused = true)]
async fn the_search_finds_a_decision_in_a_second_request_and_a_hold_that_time_ends() {
    for bug in [Bug::TwoRequests, Bug::FreedByTime] {
        let found = Search::new(1, true, bug).run().await.unwrap_err();
        println!("{bug:?}: {found}");
    }
}
