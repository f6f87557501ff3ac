//! Streams in memory, under tokio's clock: for tests of handlers and of the loops.
//!
//! It answers as a server would, step by step under one lock, and it can be told to fail.

mod appender;
mod facts;
mod hands;
mod inspect;
mod letters;
mod marks;
mod operate;
mod reader;
mod steps;
mod stream;
mod watch;
mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::ready;
use tokio::sync::Notify;

use self::appender::MemoryAppender;
use self::reader::MemoryReader;
pub use self::watch::{Passage, PendingView, View, Watch};
use self::world::{World, milliseconds};
use crate::model::config::{Retention, Start};
use crate::model::entry::{Delivery, EntryId, Fields, Hold, Inlet};
use crate::model::name::{ConsumerName, StreamName};
use crate::store::{
    Appender, ClaimedPage, FenceResult, Idle, IdleClaim, Promoted, Queue, Recorded, Renewed, Reply,
    ServerTime, Store, StoreError, StoredDeadLetter, StreamReader,
};

/// Streams in memory. Clones share them.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    world: Arc<Mutex<World>>,
    changed: Arc<Notify>,
    /// Who watches what this clone is asked, and under which number.
    watch: Option<(u64, Arc<dyn Watch>)>,
}

/// How a call fails. Closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not carried out, and the caller knows.
    Unreachable,
    /// It is not carried out, and the caller does not know.
    RequestLost,
    /// It is carried out, and the caller does not know.
    AnswerLost,
    /// It panics, as a fault of this crate would.
    Panic,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let (world, changed) = (Arc::new(Mutex::new(World::new())), Arc::new(Notify::new()));
        Self { world, changed, watch: None }
    }

    /// Lets the next call of an operation, named as in [`Store`], fail.
    pub fn fail_next(&self, operation: &'static str, fault: Fault) {
        self.lock().faults.entry(operation).or_default().push_back(fault);
    }

    /// Lets every call fail until [`start_server`](Self::start_server).
    pub fn stop_server(&self) {
        self.lock().down = true;
        self.changed.notify_waiters();
    }

    /// Answers again.
    pub fn start_server(&self) {
        self.lock().down = false;
    }

    /// Moves the server's clock, forwards or backwards.
    pub fn step_clock(&self, milliseconds: i64) {
        self.lock().step_clock(milliseconds);
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One step: all of it or nothing, unless a fault was ordered.
    fn step<T>(
        &self,
        operation: &'static str,
        step: impl FnOnce(&mut World) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.step_under(None, operation, step)
    }

    /// One step that may meet a fault on its way.
    fn step_under<T>(
        &self,
        met: Option<Fault>,
        operation: &'static str,
        step: impl FnOnce(&mut World) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut world = self.lock();
        let fault = match world.down {
            true => Some(Fault::Unreachable),
            false => met.or_else(|| {
                world.faults.get_mut(operation).and_then(std::collections::VecDeque::pop_front)
            }),
        };
        let answer = match fault {
            Some(Fault::Unreachable) => return Err(StoreError::Unreachable("as ordered".into())),
            Some(Fault::RequestLost) => return Err(StoreError::AnswerLost("as ordered".into())),
            #[expect(clippy::panic, reason = "a test has ordered it")]
            Some(Fault::Panic) => panic!("{operation} panics, as ordered"),
            None | Some(Fault::AnswerLost) => step(&mut world),
        };
        self.show(operation, &world);
        match fault {
            None => answer,
            Some(_) => answer.and_then(|_| Err(StoreError::AnswerLost("as ordered".into()))),
        }
    }

    fn reply<'a, T>(
        &'a self,
        operation: &'static str,
        step: impl FnOnce(&mut World) -> Result<T, StoreError> + Send + 'a,
    ) -> Reply<'a, T>
    where
        T: Send + 'static,
    {
        if self.watch.is_none() {
            let answer = self.step(operation, step);
            self.changed.notify_waiters();
            return ready(answer).boxed();
        }
        let watched = async move {
            let passage = self.passage(operation).await;
            let answer = self.step_under(passage.fault, operation, step);
            self.changed.notify_waiters();
            watch::delay(passage.after).await;
            answer
        };
        watched.boxed()
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

    fn now(&self) -> Reply<'_, ServerTime> {
        self.reply("now", move |world| Ok(ServerTime(world.now())))
    }

    fn appender(&self, stream: &StreamName, retention: Retention) -> Box<dyn Appender> {
        Box::new(MemoryAppender::new(self.clone(), stream.clone(), retention))
    }

    fn prepare<'a>(&'a self, queue: &'a Queue, start: Start) -> Reply<'a, bool> {
        self.reply("prepare", move |world| Ok(steps::prepare(world, queue, start).0))
    }

    fn recreate<'a>(&'a self, queue: &'a Queue) -> Reply<'a, bool> {
        self.reply("recreate", move |world| {
            let (stream, lane) = steps::prepare(world, queue, Start::Beginning);
            Ok(stream || lane)
        })
    }

    fn reader<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        margin: Duration,
    ) -> Reply<'a, Box<dyn StreamReader>> {
        let opened = self.step("reader", |world| {
            world.readers += 1;
            Ok(world.readers)
        });
        let reader = opened.map(|number| {
            let reader = MemoryReader::new(self.clone(), queue, consumer, number, margin);
            Box::new(reader) as Box<dyn StreamReader>
        });
        ready(reader).boxed()
    }

    fn wake(&self, reader: u64) -> Reply<'_, ()> {
        self.reply("wake", move |world| {
            world.woken.insert(reader);
            Ok(())
        })
    }

    fn acknowledge<'a>(
        &'a self,
        queue: &'a Queue,
        acks: &'a [(Inlet, EntryId)],
    ) -> Reply<'a, usize> {
        self.reply("acknowledge", move |world| Ok(steps::acknowledge(world, queue, acks)))
    }

    fn renew<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        holds: &'a [Hold],
    ) -> Reply<'a, Renewed> {
        self.reply("renew", move |world| steps::renew(world, queue, consumer.as_str(), holds))
    }

    fn release<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        lease: Duration,
        holds: &'a [Hold],
    ) -> Reply<'a, Vec<FenceResult>> {
        self.reply("release", move |world| {
            steps::release(world, queue, consumer.as_str(), milliseconds(lease), holds)
        })
    }

    fn schedule_retry<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        hold: Hold,
        trimmed: Option<EntryId>,
        delay: Duration,
        job: &'a Fields,
    ) -> Reply<'a, FenceResult> {
        self.reply("schedule_retry", move |world| {
            let settling = steps::Settling { consumer: consumer.as_str(), hold, trimmed };
            steps::schedule_retry(world, queue, settling, milliseconds(delay), job)
        })
    }

    fn store_dead_letter<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        hold: Hold,
        trimmed: Option<EntryId>,
        letter: &'a Fields,
    ) -> Reply<'a, FenceResult> {
        self.reply("store_dead_letter", move |world| {
            let settling = steps::Settling { consumer: consumer.as_str(), hold, trimmed };
            steps::store_dead_letter(world, queue, settling, letter)
        })
    }

    fn has_idle<'a>(
        &'a self,
        queue: &'a Queue,
        inlet: Inlet,
        lease: Duration,
        valid: Duration,
    ) -> Reply<'a, Idle> {
        self.reply("has_idle", move |world| steps::has_idle(world, queue, inlet, lease, valid))
    }

    fn claim_idle<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        sweep: IdleClaim<'a>,
    ) -> Reply<'a, ClaimedPage> {
        self.reply("claim_idle", move |world| {
            steps::claim_idle(world, queue, consumer.as_str(), sweep)
        })
    }

    fn own_pending<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        inlet: Inlet,
        cursor: EntryId,
        limit: usize,
    ) -> Reply<'a, Vec<Hold>> {
        self.reply("own_pending", move |world| {
            let pending = &world.group(queue, inlet)?.pending;
            let own = pending
                .iter()
                .filter(|(id, row)| **id > cursor && row.consumer == consumer.as_str());
            let hold = |(id, row): (&EntryId, &stream::Pending)| Hold {
                inlet,
                id: *id,
                delivery_count: row.delivery_count,
            };
            Ok(own.map(hold).take(limit).collect())
        })
    }

    fn recover<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        holds: &'a [Hold],
    ) -> Reply<'a, Vec<Delivery>> {
        self.reply("recover", move |world| steps::recover(world, queue, consumer.as_str(), holds))
    }

    fn promote<'a>(&'a self, queue: &'a Queue, limit: usize) -> Reply<'a, Promoted> {
        self.reply("promote", move |world| steps::promote(world, queue, limit))
    }

    fn set_paused<'a>(&'a self, queue: &'a Queue, paused: bool) -> Reply<'a, bool> {
        self.reply("set_paused", move |world| Ok(steps::set_paused(world, queue, paused)))
    }

    fn heartbeat<'a>(
        &'a self,
        queue: &'a Queue,
        consumer: &'a ConsumerName,
        about: &'a str,
    ) -> Reply<'a, Recorded> {
        self.reply("heartbeat", move |world| {
            steps::heartbeat(world, queue, consumer.as_str(), about)
        })
    }

    fn retire<'a>(&'a self, queue: &'a Queue, consumer: &'a ConsumerName) -> Reply<'a, bool> {
        self.reply("retire", move |world| Ok(steps::retire(world, queue, consumer.as_str())))
    }

    fn retire_dead<'a>(&'a self, queue: &'a Queue, silence: Duration) -> Reply<'a, usize> {
        self.reply("retire_dead", move |world| {
            Ok(steps::retire_dead(world, queue, milliseconds(silence)))
        })
    }

    fn dead_letters<'a>(
        &'a self,
        queue: &'a Queue,
        after: EntryId,
        limit: usize,
    ) -> Reply<'a, Vec<StoredDeadLetter>> {
        self.reply("dead_letters", move |world| Ok(steps::dead_letters(world, queue, after, limit)))
    }

    fn dead_letter<'a>(
        &'a self,
        queue: &'a Queue,
        id: EntryId,
    ) -> Reply<'a, Option<StoredDeadLetter>> {
        self.reply("dead_letter", move |world| {
            let fields = world.dead(queue).entries.get(&id).cloned();
            Ok(fields.map(|fields| StoredDeadLetter::new(id, fields)))
        })
    }

    fn redrive<'a>(
        &'a self,
        queue: &'a Queue,
        id: EntryId,
        job: &'a Fields,
    ) -> Reply<'a, Option<EntryId>> {
        self.reply("redrive", move |world| Ok(steps::redrive(world, queue, id, job)))
    }

    fn purge<'a>(&'a self, queue: &'a Queue, ids: &'a [EntryId]) -> Reply<'a, usize> {
        self.reply("purge", move |world| {
            let dead = world.dead(queue);
            Ok(ids.iter().filter(|id| dead.entries.remove(id).is_some()).count())
        })
    }
}
