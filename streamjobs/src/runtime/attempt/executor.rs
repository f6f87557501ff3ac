//! Runs one job from its delivery to its verdict.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::handler::{Job, JobParts, Returned, States};
use crate::insight::metrics::{Failure, Finish};
use crate::model::attempts::AttemptEnd;
use crate::model::cause::panic_text;
use crate::model::entry::{Delivery, Hold};
use crate::model::event::Envelope;
use crate::model::fail_point::FailPoint;
use crate::model::outcome::Outcome;
use crate::model::policy::{
    Reason, Verdict, after_attempt, before_attempt, cancelled, reject_if_too_wide, without_handler,
};
use crate::model::record::{FIELDS_CARRIED_MAX, waited};
use crate::model::trace::span::{self, Processing, SpanHook};
use crate::model::trace::{TraceContext, within};
use crate::model::unique::UniqueLock;
use crate::publish::client::Client;
use crate::runtime::attempt::job_tasks::RunJob;
use crate::runtime::attempt::result_keeper::KeptFor;
use crate::runtime::attempt::{BoundHandler, Handlers};
use crate::runtime::observe::{JobEvent, Observed, QueueContext, QueueEvent, Subject};
use crate::runtime::state::{
    Ack, Acks, Assignment, CancelledJobs, Clock, InFlight, NextDue, OnConfirmed, Settlement,
    StartGate,
};
use crate::store::done_jobs::DoneNote;

/// Runs the jobs of one queue.
#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) handlers: Handlers,
    pub(crate) states: Arc<States>,
    /// The application's client, for handlers.
    pub(crate) client: Client,
    /// Called with the span of each run whose event carried a trace.
    pub(crate) span_hook: Option<SpanHook>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) settlements: mpsc::Sender<Box<Settlement>>,
    pub(crate) cancelled: Arc<CancelledJobs>,
    pub(crate) starts: Arc<StartGate>,
    pub(crate) next_due: Arc<NextDue>,
}

impl RunJob<Assignment> for Executor {
    /// Runs the job, unless it must not run any more, and passes the verdict on.
    async fn run(&self, assignment: Assignment) {
        let hold = assignment.delivery.hold();
        // Pinned in place, because the future is large, and each wrapper would move it.
        let whole = pin!(self.execute_unguarded(assignment));
        if let Err(panic) = AssertUnwindSafe(whole).catch_unwind().await {
            // This is a fault of this crate, since panics of handlers are caught further inside. The entry is not
            // renewed any more; another consumer claims it when its lease ends.
            let panic = panic_text(panic);
            self.context.report.job(hold, JobEvent::Broken { panic: &panic });
            self.in_flight.abandon(hold);
        }
    }
}

impl Executor {
    /// Releases a job that was not started.
    pub(crate) async fn release(&self, assignment: Assignment) {
        let envelope = Envelope::of(&self.context.queue().stream, &assignment.delivery.entry);
        let began = self.begin(&assignment);
        let judged = (envelope.failures, Verdict::Release);
        self.pass_on(assignment, envelope, began.server, judged, None).await;
    }

    async fn execute_unguarded(&self, assignment: Assignment) {
        let envelope = Envelope::of(&self.context.queue().stream, &assignment.delivery.entry);
        let began = self.begin(&assignment);
        let mut end = None;
        let judged = self.judge(&assignment, &envelope, began, &mut end).await;
        self.pass_on(assignment, envelope, began.server, judged, end).await;
    }

    /// Returns the failures recorded so far, and the verdict on the job. If its handler ran and the end of that run
    /// is to be written down, `end` gets how the run ended.
    async fn judge(
        &self,
        assignment: &Assignment,
        envelope: &Envelope,
        began: Began,
        end: &mut Option<AttemptEnd>,
    ) -> (u32, Verdict) {
        let (queue, entry) = (self.context.queue(), &assignment.delivery.entry);
        if self.cancelled.contain(queue, envelope, entry) {
            let verdict = Verdict::DeadLetter { reason: Reason::Cancelled, error: None };
            return (envelope.failures, verdict);
        }
        let event_type = entry.event_type();
        let (hold, failures) = (assignment.delivery.hold(), envelope.failures);
        let report = &self.context.report;
        let Some(bound) = self.handlers.find(event_type) else {
            report.job(hold, JobEvent::Unhandled { event_type: event_type.unwrap_or("(none)") });
            let fields = assignment.delivery.entry.fields().len();
            let verdict = self.without_handler(event_type, hold.delivery_count, fields);
            if verdict == Verdict::Acknowledge {
                report.job(hold, JobEvent::Ended(Finish::Unhandled));
            }
            return (failures, verdict);
        };
        let waited = waited(&assignment.delivery, envelope, began.server);
        if let Some(verdict) = before_attempt(hold.delivery_count, waited, &bound.limits) {
            return (failures, verdict);
        }
        let attempt = failures.saturating_add(1);
        let running = report.started(&assignment.delivery, began.server);
        let returned = bound.handler.result.map(|_| Arc::<Returned>::default());
        let attempted = (attempt, began, returned.clone());
        let outcome = self.attempt_once(assignment, envelope, bound, attempted).await;
        drop(running);
        if let (Outcome::Done, Some(returned)) = (&outcome, &returned) {
            // Boxed, because most handlers have no result.
            Box::pin(self.keep(assignment, envelope, bound, returned)).await;
        }
        if let Some(delay) = outcome.limits() {
            self.starts.limit_here(delay);
            report.queue(QueueEvent::Limited { delay });
            // This wakes the promoter, which tells the server.
            self.next_due.note(Duration::ZERO);
        }
        let failures =
            if self.report(assignment, envelope, attempt, &outcome) { attempt } else { failures };
        *end = AttemptEnd::of(&outcome);
        let verdict = after_attempt(&outcome, attempt, &bound.limits, fastrand::f64());
        let verdict = if assignment.lease.is_cancelled() { cancelled(verdict) } else { verdict };
        let fields = assignment.delivery.entry.fields().len();
        (failures, reject_if_too_wide(verdict, fields, FIELDS_CARRIED_MAX))
    }

    /// Reports the outcome of an attempt. Returns whether it counts as a failure.
    fn report(
        &self,
        assignment: &Assignment,
        envelope: &Envelope,
        attempt: u32,
        outcome: &Outcome,
    ) -> bool {
        let (hold, event_id) = (assignment.delivery.hold(), envelope.event_id.as_str());
        let failed = |failure| JobEvent::Failed { event_id, attempt, failure };
        let cause = outcome.blocked();
        let blocked = cause.as_deref();
        let event = match outcome {
            Outcome::Failed(error) if error.is_later() => {
                JobEvent::Snoozed { event_id, attempt, blocked }
            }
            Outcome::Failed(_) => failed(Failure::Error),
            Outcome::Panicked(_) => failed(Failure::Panic),
            Outcome::TimedOut(_) => failed(Failure::Timeout),
            Outcome::Done => {
                FailPoint::HandlerAfterOk.reached();
                JobEvent::Succeeded
            }
            Outcome::AlreadyDone => JobEvent::Duplicate,
            Outcome::LeaseLost if assignment.lease.lapse() => {
                JobEvent::LeaseLost { why: "it ended while its process did not run" }
            }
            Outcome::Undecodable(_) | Outcome::LeaseLost | Outcome::CutOff | Outcome::Cancelled => {
                return false;
            }
        };
        self.context.report.job(hold, event);
        matches!(event, JobEvent::Failed { .. })
    }

    /// The verdict on an entry that no handler of this process takes.
    fn without_handler(
        &self,
        event_type: Option<&str>,
        delivery_count: u64,
        fields: usize,
    ) -> Verdict {
        let config = &self.context.config;
        let Some(event_type) = event_type else {
            let error = Some(NO_TYPE.to_owned());
            return Verdict::DeadLetter { reason: Reason::Undecodable, error };
        };
        let (choice, too_wide) = (config.unhandled, fields > FIELDS_CARRIED_MAX);
        let verdict =
            without_handler(choice, event_type, delivery_count, config.max_deliveries, too_wide);
        let fate = match &verdict {
            // The settler reports this once it knows how long the job will wait.
            Verdict::AwaitHandler => return verdict,
            Verdict::Acknowledge => "its jobs are acknowledged without running",
            Verdict::DeadLetter { .. } => "its jobs become dead letters at once",
            _ => {
                "its jobs are delivered again when their lease has expired, until max_deliveries is \
                 reached"
            }
        };
        self.context.report.type_without_handler(event_type, fate, None);
        verdict
    }

    async fn attempt_once(
        &self,
        assignment: &Assignment,
        envelope: &Envelope,
        bound: &BoundHandler,
        (attempt, began, returned): (u32, Began, Option<Arc<Returned>>),
    ) -> Outcome {
        self.begin_result(envelope, bound).await;
        if self.context.report.is_observed() {
            let handled_by = Some(bound.handled_by());
            let subject = Subject { delivery: &assignment.delivery, envelope, handled_by };
            self.context.report.observe(subject, Observed::Started);
        }
        // Work before the run does not count towards its time.
        let came_before = bound.handler.result.is_some() || self.context.report.is_observed();
        let started = if came_before { Instant::now() } else { began.here };
        let entry = &assignment.delivery.entry;
        let trace = TraceContext::of(entry).map(Arc::new);
        let lines = span::job(entry, &envelope.event_id, attempt);
        let span = lines.in_scope(|| self.span(assignment, envelope, attempt));
        let job = Job::new(JobParts {
            identity: Arc::clone(&self.context.identity),
            delivery: assignment.delivery.clone(),
            event_id: envelope.event_id.clone(),
            origin: envelope.origin,
            trace: trace.clone(),
            attempt,
            attempts_max: bound.limits.max_attempts,
            timeout: bound.limits.timeout,
            started,
            lease: assignment.lease.clone(),
            states: Arc::clone(&self.states),
            client: self.client.clone(),
            returned,
        });
        let run = async {
            if let (Some(SpanHook(hook)), Some(trace)) = (&self.span_hook, &trace) {
                hook(if span.is_disabled() { &lines } else { &span }, trace);
            }
            FailPoint::HandlerBefore.reached();
            let run = within(trace, bound.run(job));
            if span.is_disabled() && lines.is_disabled() {
                return run.await;
            }
            run.instrument(span.clone()).instrument(lines.clone()).await
        };
        // Panics of the handler itself and of middleware are caught inside. This catches those of extractors,
        // decoders and resources.
        let run = pin!(run);
        let run = AssertUnwindSafe(run).catch_unwind();
        let outcome = run.await.unwrap_or_else(|panic| Outcome::Panicked(panic_text(panic)));
        let outcome = outcome.with_shown_error();
        assignment.lease.end();
        self.context.identity.progress.end(assignment.delivery.hold());
        let failed = error_type(&outcome);
        let took = started.elapsed();
        bound.durations.record(took, failed);
        self.context.report.ran(took);
        if let Some(kind) = failed {
            span::failed(&span, kind);
        }
        outcome
    }

    /// Called before an attempt at a job with a result: a job that was redriven is not a dead letter any more, so
    /// its sign is removed.
    async fn begin_result(&self, envelope: &Envelope, bound: &BoundHandler) {
        if bound.handler.result.is_some() && envelope.origin.is_some() && envelope.failures == 0 {
            let (queue, id) = (self.context.queue(), &envelope.event_id);
            let removed = self.client.store().unsign_dead(queue, id).await;
            // If the sign stays, it says what was true until now, and the result will replace it.
            let _logged = self.context.report.ok_or_report("say that a job runs again", removed);
        }
    }

    /// Keeps the result of a job that is done.
    async fn keep(
        &self,
        assignment: &Assignment,
        envelope: &Envelope,
        bound: &BoundHandler,
        returned: &Returned,
    ) {
        let (Some(keep), Some(json)) = (bound.handler.result, returned.json()) else { return };
        let (hold, lease) = (assignment.delivery.hold(), &assignment.lease);
        let kept = KeptFor { hold, event_id: &envelope.event_id, lease, keep };
        kept.keep(&self.context, self.client.store().as_ref(), json).await;
    }

    fn span(&self, assignment: &Assignment, envelope: &Envelope, attempt: u32) -> Span {
        span::process(Processing {
            stream: &self.context.queue().stream,
            group: &self.context.queue().group,
            consumer: self.context.consumer(),
            event_id: &envelope.event_id,
            delivery_count: assignment.delivery.delivery_count,
            attempt,
        })
    }

    /// Passes the verdict on to the loop that carries it out. The attempt began at `began_at`, by the server's
    /// clock in milliseconds.
    async fn pass_on(
        &self,
        assignment: Assignment,
        envelope: Envelope,
        began_at: u64,
        (failures, verdict): (u32, Verdict),
        end: Option<AttemptEnd>,
    ) {
        let Assignment { delivery, lease, slot } = assignment;
        let (inlet, id) = (delivery.inlet, delivery.entry.id());
        let hold = self.in_flight.begin_settling(delivery.hold());
        let (hold, verdict) = match (hold, verdict) {
            // A job that is done is acknowledged even if its lease was lost.
            (hold, Verdict::Acknowledge) => {
                let group = &self.context.queue().group;
                let lock = UniqueLock::of(&delivery.entry, &envelope.event_id, group);
                let lock = lock.map(Box::new);
                let told = self.told_once_done(&delivery, &envelope, began_at);
                let may_have_passed = hold.is_none() || lease.may_have_passed();
                let is_late = may_have_passed && self.in_flight.may_be_others(inlet, id);
                return self.acks.push(Ack { inlet, id, slot: Some(slot), lock, is_late, told });
            }
            (Some(hold), verdict) if verdict != Verdict::Leave => (hold, verdict),
            (hold, verdict) => return self.leave(hold, &delivery, &envelope, &verdict),
        };
        let bound = self.handlers.find(delivery.entry.event_type());
        let handled_by = bound.map(BoundHandler::handled_by);
        let ended_at = self.clock.server_now(Instant::now());
        let took = Duration::from_millis(ended_at.saturating_sub(began_at));
        let settlement = Box::new(Settlement {
            delivery,
            envelope,
            hold,
            began_at,
            failures,
            run: end.map(|end| (end, took)),
            handled_by,
            verdict,
            lease,
            slot: Some(slot),
        });
        // The settler outlives every job. If it is gone all the same, the entry is claimed when its lease ends.
        let _gone = self.settlements.send(settlement).await.is_err();
    }

    /// What observers and notes are told once a job that a handler of this process has done is acknowledged.
    fn told_once_done(
        &self,
        delivery: &Delivery,
        envelope: &Envelope,
        began_at: u64,
    ) -> Option<Box<dyn OnConfirmed>> {
        let (report, notes) = (&self.context.report, &self.context.done_notes);
        if !report.is_observed() && notes.is_none() {
            return None;
        }
        let entry = &delivery.entry;
        let handled_by = Some(self.handlers.find(entry.event_type())?.handled_by());
        let told = report.told_once_done(Subject { delivery, envelope, handled_by });
        let Some(notes) = notes else { return told };
        let ended_at = self.clock.server_now(Instant::now());
        let note = DoneNote {
            event_id: envelope.event_id.as_str().to_owned(),
            event_type: entry.event_type().map(str::to_owned),
            key: entry.text("sj-key").map(str::to_owned),
            origin: envelope.origin.unwrap_or(entry.id()),
            began: began_at,
            took: Duration::from_millis(ended_at.saturating_sub(began_at)),
            attempt: envelope.failures.saturating_add(1),
            process: self.context.consumer().as_str().to_owned(),
        };
        Some(notes.once_confirmed(note, told))
    }

    /// Leaves the job to another attempt. Without a `hold`, the lease was lost.
    fn leave(
        &self,
        hold: Option<Hold>,
        delivery: &Delivery,
        envelope: &Envelope,
        verdict: &Verdict,
    ) {
        let delivered = delivery.hold();
        if let Some(bound) = self.handlers.find(delivery.entry.event_type()) {
            let handled_by = Some(bound.handled_by());
            let subject = Subject { delivery, envelope, handled_by };
            self.context.report.observe(subject, Observed::Lost { why: "its lease was lost" });
        }
        let event = match (hold, verdict) {
            (Some(_), Verdict::Leave) => JobEvent::Ended(Finish::Left),
            (None, Verdict::Leave) => JobEvent::Ended(Finish::LostLease),
            _ => JobEvent::RefusedLate { step: "settle" },
        };
        self.context.report.job(hold.unwrap_or(delivered), event);
        self.in_flight.abandon(delivered);
    }

    fn begin(&self, assignment: &Assignment) -> Began {
        let here = Instant::now();
        Began { here, server: self.clock.server_now_after(here, assignment.delivery.entry.id()) }
    }
}

/// When an attempt begins.
#[derive(Clone, Copy)]
struct Began {
    here: Instant,
    /// By the server's clock, in milliseconds.
    server: u64,
}

/// The error type for the span of a failed attempt.
fn error_type(outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Done | Outcome::AlreadyDone => None,
        Outcome::Failed(error) if error.is_later() => Some("snoozed"),
        Outcome::Failed(_) => Some("error"),
        Outcome::Panicked(_) => Some("panic"),
        Outcome::TimedOut(_) => Some("timeout"),
        Outcome::Undecodable(_) => Some("undecodable"),
        Outcome::LeaseLost => Some("lost_lease"),
        Outcome::CutOff | Outcome::Cancelled => Some("cancelled"),
    }
}

const NO_TYPE: &str = "the entry has no readable `type` field";
