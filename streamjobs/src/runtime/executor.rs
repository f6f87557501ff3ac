//! Runs one job from its delivery to its verdict.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::handler::{Job, JobParts, panic_text};
use crate::insight::metrics::{Failure, Finish};
use crate::model::entry::Hold;
use crate::model::event::Envelope;
use crate::model::fail_point::FailPoint;
use crate::model::mutant::Mutant;
use crate::model::outcome::Outcome;
use crate::model::policy::{
    Reason, Verdict, after_attempt, before_attempt, reject_if_too_wide, without_handler,
};
use crate::model::record::FIELDS_CARRIED_MAX;
use crate::model::trace::span::{self, Processing, SpanHook};
use crate::model::trace::{TraceContext, within};
use crate::runtime::acks::Ack;
use crate::runtime::queue::{Assignment, BoundHandler, QueueContext, Settlement};

/// Runs the job, unless it may not run any more, and passes the verdict on.
pub(crate) async fn execute(
    context: Arc<QueueContext>,
    assignment: Assignment,
    settlements: mpsc::Sender<Settlement>,
) {
    let hold = assignment.delivery.hold();
    let whole = AssertUnwindSafe(execute_unguarded(&context, assignment, &settlements));
    if let Err(panic) = whole.catch_unwind().await {
        // A fault of this crate, since handlers are guarded closer by. Given up here, the entry is
        // not renewed any more, and claimed when its lease ends.
        context.report.job_broken(hold, &panic_text(panic.as_ref()));
        context.held.leave(hold);
    }
}

async fn execute_unguarded(
    context: &QueueContext,
    assignment: Assignment,
    settlements: &mpsc::Sender<Settlement>,
) {
    let envelope = Envelope::of(&context.queue.stream, &assignment.delivery.entry);
    let taken_up = context.server_now();
    let (failures, verdict) = judge(context, &assignment, &envelope, taken_up).await;
    let ended = Ended { envelope, taken_up, failures, verdict };
    settle(context, assignment, ended, settlements).await;
}

/// Gives a job up that has not been started.
pub(crate) async fn release(
    context: &QueueContext,
    assignment: Assignment,
    settlements: &mpsc::Sender<Settlement>,
) {
    let envelope = Envelope::of(&context.queue.stream, &assignment.delivery.entry);
    let failures = envelope.failures;
    let ended =
        Ended { envelope, taken_up: context.server_now(), failures, verdict: Verdict::Release };
    settle(context, assignment, ended, settlements).await;
}

/// How a job ended here.
struct Ended {
    envelope: Envelope,
    taken_up: u64,
    failures: u32,
    verdict: Verdict,
}

/// The failures recorded by now, and what is to be done about the job.
async fn judge(
    context: &QueueContext,
    assignment: &Assignment,
    envelope: &Envelope,
    taken_up: u64,
) -> (u32, Verdict) {
    let event_type = assignment.delivery.entry.event_type();
    let (hold, failures) = (assignment.delivery.hold(), envelope.failures);
    let Some(bound) = context.handlers.find(event_type) else {
        context.report.unhandled(hold, event_type.unwrap_or("(none)"));
        let verdict = without_any(context, event_type, hold.delivery_count);
        if verdict == Verdict::Acknowledge {
            context.report.given_up(hold, Finish::Unhandled);
        }
        return (failures, verdict);
    };
    if let Some(verdict) = before_attempt(hold.delivery_count, bound.limits.max_deliveries) {
        return (failures, verdict);
    }
    if Mutant::AckBeforeRun.is_seeded() {
        let _early = context.store.acknowledge(&context.queue, &[(hold.inlet, hold.id)]).await;
    }
    let attempt = match Mutant::AttemptsByDeliveries.is_seeded() {
        true => u32::try_from(hold.delivery_count).unwrap_or(u32::MAX),
        false => failures.saturating_add(1),
    };
    let running = context.report.started(&assignment.delivery, taken_up);
    let outcome = attempt_once(context, assignment, envelope, bound, attempt).await;
    drop(running);
    let failed = |failure| {
        context.report.failed(hold, envelope.event_id.as_str(), attempt, failure);
        attempt
    };
    let failures = match &outcome {
        Outcome::Failed(error) if error.is_later() => {
            context.report.snoozed(hold, envelope.event_id.as_str(), attempt);
            failures
        }
        Outcome::Failed(_) => failed(Failure::Error),
        Outcome::Panicked(_) => failed(Failure::Panic),
        Outcome::TimedOut(_) => failed(Failure::Timeout),
        Outcome::Done => {
            FailPoint::HandlerAfterOk.reached();
            context.report.succeeded(hold);
            failures
        }
        Outcome::AlreadyDone => {
            context.report.done_before(hold);
            failures
        }
        Outcome::LeaseLost if assignment.lease.lapse() => {
            context.report.lease_lost(hold, "it was over before its process came to it");
            failures
        }
        Outcome::Undecodable(_) | Outcome::LeaseLost | Outcome::CutOff => failures,
    };
    let verdict = after_attempt(&outcome, attempt, &bound.limits, fastrand::f64());
    let fields = assignment.delivery.entry.fields().len();
    (failures, reject_if_too_wide(verdict, fields, FIELDS_CARRIED_MAX))
}

/// What is to be done about an entry that no handler of the group takes.
fn without_any(context: &QueueContext, event_type: Option<&str>, count: u64) -> Verdict {
    let config = &context.config;
    match event_type {
        Some(event_type) => {
            without_handler(config.unhandled, event_type, count, config.max_deliveries)
        }
        None => {
            Verdict::DeadLetter { reason: Reason::Undecodable, error: Some(NO_TYPE.to_owned()) }
        }
    }
}

async fn attempt_once(
    context: &QueueContext,
    assignment: &Assignment,
    envelope: &Envelope,
    bound: &BoundHandler,
    attempt: u32,
) -> Outcome {
    let trace = TraceContext::of(&assignment.delivery.entry).map(Arc::new);
    let span = span_of(context, assignment, envelope, attempt);
    let started = Instant::now();
    let job = Job::new(JobParts {
        place: Arc::clone(&context.place),
        delivery: Arc::clone(&assignment.delivery),
        event_id: envelope.event_id.clone(),
        origin: envelope.origin,
        trace: trace.clone(),
        attempt,
        attempts_max: bound.limits.max_attempts,
        timeout: bound.limits.timeout,
        started,
        lease: Arc::clone(&assignment.lease),
        states: Arc::clone(&context.states),
        client: context.client.clone(),
    });
    let run = async {
        if let (Some(SpanHook(tell)), Some(trace)) = (&context.on_process_span, &trace) {
            tell(&span, trace);
        }
        FailPoint::HandlerBefore.reached();
        within(trace, (bound.handler.run)(job)).instrument(span.clone()).await
    };
    // The steps inside contain the panics of the handler itself; this one is for extractors,
    // decoders and resources.
    let run = AssertUnwindSafe(run).catch_unwind();
    let outcome = run.await.unwrap_or_else(|panic| Outcome::Panicked(panic_text(panic.as_ref())));
    bound.durations.record(started.elapsed());
    if let Some(kind) = error_type(&outcome) {
        span::failed(&span, kind);
    }
    outcome
}

fn span_of(
    context: &QueueContext,
    assignment: &Assignment,
    envelope: &Envelope,
    attempt: u32,
) -> Span {
    span::process(Processing {
        stream: &context.queue.stream,
        group: &context.queue.group,
        consumer: &context.place.consumer,
        event_id: &envelope.event_id,
        delivery_count: assignment.delivery.delivery_count,
        attempt,
    })
}

/// What the span of an attempt says went wrong, if anything did.
fn error_type(outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Done | Outcome::AlreadyDone => None,
        Outcome::Failed(error) if error.is_later() => Some("snoozed"),
        Outcome::Failed(_) => Some("error"),
        Outcome::Panicked(_) => Some("panic"),
        Outcome::TimedOut(_) => Some("timeout"),
        Outcome::Undecodable(_) => Some("undecodable"),
        Outcome::LeaseLost => Some("lost_lease"),
        Outcome::CutOff => Some("cancelled"),
    }
}

async fn settle(
    context: &QueueContext,
    assignment: Assignment,
    ended: Ended,
    settlements: &mpsc::Sender<Settlement>,
) {
    let Assignment { delivery, lease, slot } = assignment;
    let (inlet, id) = (delivery.inlet, delivery.entry.id());
    // A job that is done is acknowledged whoever has the entry now: it is done.
    let hold = context.held.begin_settling(delivery.hold());
    let (hold, verdict) = match (hold, ended.verdict) {
        (_, Verdict::Acknowledge) => return context.acks.push(Ack { inlet, id, slot }),
        (Some(hold), verdict) if verdict != Verdict::Leave => (hold, verdict),
        (hold, verdict) => return leave(context, hold, delivery.hold(), &verdict),
    };
    let Ended { envelope, taken_up, failures, .. } = ended;
    let settlement =
        Settlement { delivery, envelope, hold, taken_up, failures, verdict, lease, slot };
    // The acker outlives every job; if it is gone, the entry is claimed when its lease is over.
    let _gone = settlements.send(settlement).await.is_err();
}

/// Another attempt has the job, or shall have it: nothing of this one counts any more. `hold` is
/// none when the lease was lost.
fn leave(context: &QueueContext, hold: Option<Hold>, delivered: Hold, verdict: &Verdict) {
    match (hold, verdict) {
        (Some(hold), Verdict::Leave) => context.report.given_up(hold, Finish::Left),
        (None, Verdict::Leave) => context.report.given_up(delivered, Finish::LostLease),
        (hold, _) => context.report.refused_late(hold.unwrap_or(delivered), "settle"),
    }
    context.held.leave(delivered);
}

const NO_TYPE: &str = "the entry has no readable `type` field";
