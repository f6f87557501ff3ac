//! What the loops of one queue share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::Histogram;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tracing::Instrument;

use crate::handler::{HandlerDef, Lease, Place, States};
use crate::model::config::{JobLimits, QueueConfig, RuntimeConfig};
use crate::model::entry::{Delivery, EntryId, Hold};
use crate::model::event::Envelope;
use crate::model::fail_point::FailPoint;
use crate::model::policy::Verdict;
use crate::model::trace::span::{self, SpanHook};
use crate::publish::client::Client;
use crate::runtime::acks::{Ack, Acks};
use crate::runtime::clock::Clock;
use crate::runtime::departed::Departed;
use crate::runtime::due::Due;
use crate::runtime::gate::Gate;
use crate::runtime::health::{LoopHealth, QueueHealth};
use crate::runtime::held::{Held, Registered};
use crate::runtime::lookout::{Audience, Lookout};
use crate::runtime::quiet::Quiet;
use crate::runtime::report::Report;
use crate::runtime::slots::{Slot, Slots};
use crate::runtime::wake::Wake;
use crate::store::{Inlet, Queue, Store, StoreError};

/// One group on one stream, as this process works on it.
#[derive(Debug)]
pub(crate) struct QueueContext {
    pub(crate) queue: Queue,
    pub(crate) place: Arc<Place>,
    pub(crate) config: QueueConfig,
    pub(crate) runtime: RuntimeConfig,
    pub(crate) handlers: Arc<Handlers>,
    /// The store of the thread that does all of the runtime's input and output.
    pub(crate) store: Arc<dyn Store>,
    /// The application's client, for handlers.
    pub(crate) client: Client,
    pub(crate) states: Arc<States>,
    pub(crate) slots: Arc<Slots>,
    /// Shut while the group is paused.
    pub(crate) gate: Gate,
    pub(crate) held: Held,
    pub(crate) acks: Acks,
    pub(crate) clock: Clock,
    pub(crate) wake: Wake,
    /// Whether the group has anything to do.
    pub(crate) quiet: Quiet,
    /// When the next job is due that this process set aside.
    pub(crate) due: Due,
    pub(crate) health: LoopHealth,
    pub(crate) report: Report,
    /// Told of the span of each run whose event came with a trace.
    pub(crate) on_process_span: Option<SpanHook>,
    /// Entries may have been delivered to nobody, because an answer was lost: the reader looks at
    /// the own pending list before it reads on.
    pub(crate) suspect: AtomicBool,
    /// Entries wait in the lane.
    pub(crate) lane_waits: AtomicBool,
    /// Somebody handed entries back: sweep without waiting for the interval.
    pub(crate) reap_now: Notify,
    /// Something was delivered whose lease is partly over: renew without waiting for the interval.
    pub(crate) renew_now: Notify,
    /// How many slots the reaper waits for. The reader would otherwise give every slot that an
    /// acknowledgement frees to what it reads next, and a busy stream would never be swept.
    pub(crate) reaper_wants: AtomicUsize,
    /// Taken for every step that moves entries to this consumer outside a plain read, so that a
    /// look at the own pending list never sees what another such step is about to register.
    pub(crate) intake: Semaphore,
    /// How often the group was lost and made again.
    pub(crate) epoch: AtomicU64,
    /// The turn to trim the stream, which all janitors of this process share.
    pub(crate) trims: Arc<TrimTurn>,
    /// What all consumers of this queue in this process share for watching it.
    pub(crate) lookout: Arc<Lookout>,
    /// Who is told of alerts.
    pub(crate) audience: Arc<Audience>,
    /// Names of stopped consumers, for whichever janitor of this process comes first.
    pub(crate) departed: Arc<Departed>,
}

/// The handlers of one queue, by event type.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handlers {
    pub(crate) by_type: HashMap<&'static str, BoundHandler>,
    /// Takes whatever no other handler takes.
    pub(crate) any: Option<BoundHandler>,
}

/// A handler with its limits.
#[derive(Clone, Debug)]
pub(crate) struct BoundHandler {
    pub(crate) handler: HandlerDef,
    pub(crate) limits: JobLimits,
    /// Where the durations of its runs go.
    pub(crate) durations: Histogram,
}

impl Handlers {
    pub(crate) fn find(&self, event_type: Option<&str>) -> Option<&BoundHandler> {
        event_type.and_then(|event_type| self.by_type.get(event_type)).or(self.any.as_ref())
    }

    /// Sets where the durations of runs go.
    pub(crate) fn measure(&mut self, durations: impl Fn(&'static str) -> Histogram) {
        for (event_type, bound) in &mut self.by_type {
            bound.durations = durations(event_type);
        }
        if let Some(bound) = &mut self.any {
            bound.durations = durations("*");
        }
    }
}

/// A delivery with a slot to run in.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) slot: Slot,
}

/// A verdict other than an acknowledgement, on its way to the server.
#[derive(Debug)]
pub(crate) struct Settlement {
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) envelope: Envelope,
    pub(crate) hold: Hold,
    pub(crate) taken_up: u64,
    pub(crate) failures: u32,
    pub(crate) verdict: Verdict,
    pub(crate) lease: Arc<Lease>,
    pub(crate) slot: Slot,
}

/// Whose turn it is to trim a stream. Every consumer that reads it has a janitor, any of which may
/// stop, and one trimming within the interval is enough.
#[derive(Debug, Default)]
pub(crate) struct TrimTurn {
    taken: Mutex<Option<Instant>>,
    /// The group that held the last trimming up.
    blocked_by: Mutex<Option<String>>,
}

impl TrimTurn {
    /// Takes the turn, unless another janitor has had it within the interval.
    pub(crate) fn take(&self, now: Instant, interval: Duration) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let due = taken.is_none_or(|taken| now.saturating_duration_since(taken) >= interval);
        if due {
            *taken = Some(now);
        }
        due
    }

    /// Records which group held a trimming up.
    pub(crate) fn set_held_by(&self, group: Option<String>) {
        *self.blocked_by.lock().unwrap_or_else(PoisonError::into_inner) = group;
    }

    pub(crate) fn blocked_by(&self) -> Option<String> {
        self.blocked_by.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl QueueContext {
    /// Registers what was delivered. `sent` is when the request was sent that brought it: the
    /// delivery cannot be older. Entries that are in flight here already are not run again.
    pub(crate) fn admit(
        &self,
        deliveries: Vec<Delivery>,
        slots: &mut Vec<Slot>,
        sent: Instant,
    ) -> Vec<Assignment> {
        self.report.delivered(deliveries.len());
        if self.quiet.stir(Instant::now()) {
            // The next look may be some seconds away.
            self.due.note(Duration::ZERO);
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let mut assignments = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let lease = Arc::new(Lease::new(self.config.window(), self.config.fence()));
            match self.held.register(delivery.hold(), &lease, sent, epoch) {
                Registered::InFlight => self.report.delivered_again(delivery.hold()),
                Registered::New => match slots.pop() {
                    Some(slot) => {
                        let delivery = Arc::new(delivery);
                        assignments.push(Assignment { delivery, lease, slot });
                    }
                    None => {
                        // More came than was asked for. The entry stays pending, unrenewed, and is
                        // claimed again when its lease is over.
                        self.held.remove(delivery.inlet, delivery.entry.id());
                    }
                },
            }
        }
        if sent.elapsed() >= self.config.renewal_age() {
            self.renew_now.notify_one();
        }
        assignments
    }

    /// Acknowledges: the number of entries that was still pending.
    pub(crate) async fn acknowledge(&self, ids: &[(Inlet, EntryId)]) -> Result<usize, StoreError> {
        let span = span::settle("ack", &self.queue.stream, &self.queue.group, ids.len(), None);
        FailPoint::AckBeforeSend.reached();
        let sent = Instant::now();
        let answer = self.store.acknowledge(&self.queue, ids).instrument(span.clone()).await;
        if answer.is_ok() {
            FailPoint::AckAfterSend.reached();
        }
        self.report.settled(sent.elapsed());
        answer.inspect_err(|error| span::failed(&span, error.kind()))
    }

    /// Ends jobs that the server has acknowledged: their slots, and the dead letters of those whose
    /// payload was trimmed while they ran. A job that is done was not lost, so those have to go.
    pub(crate) fn end(&self, acks: Vec<Ack>, confirmed: usize) -> (Vec<Slot>, Vec<EntryId>) {
        self.report.acknowledged(acks.len(), confirmed);
        let (mut slots, mut letters) = (Vec::with_capacity(acks.len()), Vec::new());
        for Ack { inlet, id, slot } in acks {
            letters.extend(self.held.remove_acknowledged(inlet, id));
            slots.push(slot);
        }
        (slots, letters)
    }

    /// Takes dead letters of finished jobs back.
    pub(crate) async fn take_letters_back(&self, letters: &[EntryId]) {
        if letters.is_empty() {
            return;
        }
        // A letter that stays says "outcome unknown", which is true enough: no retry.
        if let Err(error) = self.store.purge(&self.queue, letters).await {
            self.report.server_error("take back the dead letter of a finished job", &error);
        }
    }

    /// Takes free slots without waiting, at most `count`.
    pub(crate) fn free_slots(&self, count: usize) -> Vec<Slot> {
        let mut taken = Vec::new();
        while taken.len() < count {
            match self.slots.try_take() {
                Some(slot) => taken.push(slot),
                None => break,
            }
        }
        taken
    }

    /// Pauses or resumes in this process.
    pub(crate) fn pause_here(&self, paused: bool) {
        if self.gate.is_shut_here() != paused {
            self.expect_reads_after(paused);
            self.gate.set_here(paused);
            self.report.paused(paused, "in this process");
        }
    }

    /// Takes what the server says of the group: whether it is news.
    pub(crate) fn pause_everywhere(&self, paused: bool) -> bool {
        let news = self.gate.is_shut_everywhere() != paused;
        if news {
            self.expect_reads_after(paused);
            self.gate.set_everywhere(paused);
            self.report.paused(paused, "in every process");
        }
        news
    }

    /// Before the gate opens, so that the health is never red between the two.
    fn expect_reads_after(&self, paused: bool) {
        if !paused {
            self.health.expect_read(Instant::now());
        }
    }

    /// Whether this queue reads.
    pub(crate) fn health_at(&self, now: Instant) -> QueueHealth {
        let (last_read, saturated) = self.health.look(now);
        let last_read_max = self.config.block + self.runtime.read_margin;
        let last_answer = self.clock.silence(now);
        let reads = last_read.is_some_and(|age| age <= last_read_max)
            || self.health.is_beginning(now, last_read_max);
        let paused = self.gate.is_shut();
        let answers = last_answer <= self.config.lease / 2;
        QueueHealth {
            stream: self.queue.stream.to_string(),
            group: self.queue.group.to_string(),
            consumer: self.place.consumer.to_string(),
            last_read,
            last_read_max,
            last_answer,
            saturated,
            paused,
            in_flight: self.held.len(),
            healthy: (reads || ((saturated || paused) && answers)) && !self.health.is_broken(),
        }
    }

    /// How often this consumer beats.
    pub(crate) fn heartbeat_interval(&self) -> Duration {
        (self.config.lease / 3).min(self.runtime.janitor_interval)
    }

    /// The server's clock in milliseconds.
    pub(crate) fn server_now(&self) -> u64 {
        self.clock.server_now(Instant::now())
    }
}
