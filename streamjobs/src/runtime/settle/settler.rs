//! Settles jobs: carries out verdicts that schedule a retry, dead-letter or release.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::insight::metrics::Finish;
use crate::model::entry::Hold;
use crate::model::fail_point::FailPoint;
use crate::model::limit::HoldScope;
use crate::model::name::EventId;
use crate::model::policy::{Reason, TypeSight, Verdict, left};
use crate::model::record::{Attempted, FIELDS_CARRIED_MAX, Run};
use crate::runtime::observe::{
    FailedAttempt, JobEvent, LimitPlaces, Observed, QueueContext, Subject,
};
use crate::runtime::settle::{RefusedRoom, RetryBatches};
use crate::runtime::state::{
    Clock, GroupEpoch, InFlight, LoopBackoff, NextDue, PayloadBudget, Settlement, SettlingOver,
};
use crate::store::{DeadSign, FenceResult, NewRetry, ServerTime, StandIn, StoreError};

/// The settling loop of one queue.
#[derive(Debug)]
pub(crate) struct Settler {
    pub(crate) settlements: mpsc::Receiver<Box<Settlement>>,
    pub(crate) over: SettlingOver,
    pub(crate) steps: SettlingSteps,
}

/// What each settlement needs.
#[derive(Debug)]
pub(crate) struct SettlingSteps {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) next_due: Arc<NextDue>,
    pub(crate) budget: Arc<PayloadBudget>,
    pub(crate) retries: RetryBatches,
    pub(crate) refused: RefusedRoom,
    pub(crate) epoch: Arc<GroupEpoch>,
    pub(crate) places: Arc<LimitPlaces>,
}

impl Settler {
    /// Settles jobs until no job can end any more and everything is settled, or until the abort.
    ///
    /// Verdicts are carried out concurrently, so that a verdict that has to be repeated does not delay other
    /// verdicts. Retries of several jobs are scheduled in one request. There are never more verdicts at once than
    /// slots, plus the jobs that have room while the server refuses.
    pub(crate) async fn run(self, abort: CancellationToken) {
        let Self { mut settlements, over, steps } = self;
        let mut settling = FuturesUnordered::new();
        let context = &steps.context;
        let send = |retries: Vec<NewRetry>, event_id: Option<EventId>| {
            async move { context.schedule_retries(&retries, event_id.as_ref()).await }.boxed()
        };
        let mut scheduling = pin!(steps.retries.run(&send, &steps.budget, &abort));
        loop {
            tokio::select! {
                biased;
                () = abort.cancelled() => break,
                Some(()) = settling.next() => {}
                settlement = settlements.recv() => match settlement {
                    Some(settlement) => settling.push(steps.settle(settlement, &abort)),
                    None => break,
                },
                // Last, so that a request takes all retries that are ready.
                never = &mut scheduling => match never {},
            }
        }
        over.cancel();
        let settled = async { while settling.next().await.is_some() {} };
        tokio::select! {
            biased;
            () = settled => {}
            never = scheduling => match never {},
        }
    }
}

impl SettlingSteps {
    /// Carries out one verdict, and repeats it until the server says what became of it.
    async fn settle(&self, mut settlement: Box<Settlement>, abort: &CancellationToken) {
        // Rare cases are boxed: there is one of these futures for each job.
        if settlement.verdict == Verdict::AwaitHandler
            && !Box::pin(self.decide(&mut settlement, abort)).await
        {
            return;
        }
        let (hold, mut backoff) = (settlement.hold, LoopBackoff::new());
        let (mut unconfirmed, mut settled, mut room) = (false, false, None);
        // Whether this attempt, and not another attempt, has ended the job.
        let mut has_ended_it = false;
        while !settled && !settlement.lease.is_lost() {
            if abort.is_cancelled() {
                // The entry stays in flight, so that the report of the shutdown lists it.
                return;
            }
            // A renewal may have found the payload trimmed or the entry removed.
            let stand_in = self.in_flight.stand_in(hold);
            let carrying_out = self.carry_out(&settlement, stand_in, abort);
            let Some(result) = carrying_out.await else { return };
            match result {
                Ok(FenceResult::NotPending) if self.may_be_trimmed(hold, stand_in) => {
                    backoff.wait(abort).await;
                }
                Ok(FenceResult::NotPending) if stand_in.is_none() && !unconfirmed => {
                    match Box::pin(self.was_removed(hold)).await {
                        Ok(true) => {}
                        Ok(false) => {
                            self.report(&settlement, FenceResult::NotPending);
                            settled = true;
                        }
                        Err(error) => {
                            self.context.report.store_failed("settle", &error);
                            backoff.wait(abort).await;
                        }
                    }
                }
                Ok(result) => {
                    let done_before = unconfirmed && was_done_before(&settlement, result);
                    let result = if done_before { FenceResult::Owned } else { result };
                    has_ended_it = matches!(result, FenceResult::Owned | FenceResult::Trimmed(_));
                    self.report(&settlement, result);
                    settled = true;
                }
                // The group is lost, and its pending list with it. When it is recreated at its
                // floor, the entry is delivered again.
                Err(StoreError::GroupMissing) => {
                    let event = JobEvent::RefusedLate { step: "settle in a lost group" };
                    self.context.report.job(hold, event);
                    self.observe(&settlement, Observed::Lost { why: "its group was lost" });
                    settled = true;
                }
                Err(error) => {
                    unconfirmed |= error.is_unconfirmed();
                    // The server may refuse for long. Other jobs continue meanwhile.
                    if self.refused.is_for(&error) && room.is_none() {
                        room = self.refused.take(settlement.delivery.entry.bytes());
                        drop(settlement.slot.take_if(|_| room.is_some()));
                    }
                    self.context.report.store_failed("settle", &error);
                    backoff.wait(abort).await;
                }
            }
        }
        if has_ended_it {
            self.follow_up(&settlement, hold).await;
        }
        self.end(settlement, settled);
    }

    /// After this attempt has ended the job, lets jobs that wait for its place go on, and tells
    /// those who wait for its result.
    async fn follow_up(&self, settlement: &Settlement, hold: Hold) {
        if self.gives_place_back(&settlement.verdict) {
            Box::pin(self.places.give_back(&[(hold.inlet, hold.id)])).await;
        }
        self.sign_dead(settlement).await;
    }

    /// Tells those who wait for the result of a job that the job is a dead letter, which an archive may take away
    /// before they see it. The letter itself contains the same, so this is tried only once.
    async fn sign_dead(&self, settlement: &Settlement) {
        let keep = settlement.handled_by.and_then(|handled_by| handled_by.handler.result);
        let (Verdict::DeadLetter { reason, error }, Some(keep)) = (&settlement.verdict, keep)
        else {
            return;
        };
        let sign = DeadSign { reason: reason.as_str(), error: error.as_deref() };
        let (queue, id) = (self.context.queue(), &settlement.envelope.event_id);
        let signed = Box::pin(self.context.store.sign_dead(queue, id, &sign, keep)).await;
        let _logged = self.context.report.ok_or_report("say that a job is dead", signed);
    }

    /// Whether the end of this job lets jobs go on that wait for its place in the group's limit.
    fn gives_place_back(&self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Retry { .. } => self.places.rule().is_some_and(|rule| !rule.blocks),
            Verdict::DeadLetter { .. } => self.places.rule().is_some(),
            Verdict::Release | Verdict::Acknowledge | Verdict::Leave | Verdict::AwaitHandler => {
                false
            }
        }
    }

    /// Decides about a job that awaits a handler, repeating the question until the server says when its type was last
    /// declared. Returns false if the abort came first; in that case the entry stays in flight, for the report.
    async fn decide(&self, settlement: &mut Settlement, abort: &CancellationToken) -> bool {
        let (delivery, context) = (settlement.delivery.clone(), &self.context);
        let event_type = delivery.entry.event_type().unwrap_or_default();
        let attempted = self.attempted(settlement);
        let (after, first) = (context.config.unhandled_after, ServerTime(attempted.first()));
        let mut backoff = LoopBackoff::new();
        while settlement.verdict == Verdict::AwaitHandler && !settlement.lease.is_lost() {
            if abort.is_cancelled() {
                return false;
            }
            let sight = context.store.sight_type(context.queue(), event_type, first, after).await;
            let sight = match sight {
                // What the group remembers cannot be read or written. So the job is left to another process without
                // that knowledge, and does not keep its slot meanwhile.
                Err(error @ StoreError::Refused { .. }) => {
                    context.report.store_failed("read when a type was declared", &error);
                    Ok(TypeSight::UNKNOWN)
                }
                sight => sight,
            };
            match sight {
                Ok(sight) => {
                    settlement.verdict = left(event_type, sight, after, fastrand::f64());
                    let rest = after.saturating_sub(sight.undeclared_for);
                    let fate = match (sight.declared, rest) {
                        (true, _) => "its jobs wait for a process that has one",
                        (_, Duration::ZERO) => "its jobs become dead letters",
                        _ => "its jobs wait for a process that has one, then become dead letters",
                    };
                    let rest = (!sight.declared).then_some(rest);
                    context.report.type_without_handler(event_type, fate, rest);
                }
                Err(error) => {
                    context.report.store_failed("read when a type was declared", &error);
                    backoff.wait(abort).await;
                }
            }
        }
        true
    }

    /// Ends the job here, and frees its slot.
    fn end(&self, settlement: Box<Settlement>, settled: bool) {
        let hold = settlement.hold;
        if !settled {
            let lost = settlement.lease.is_lost();
            if lost {
                self.observe(&settlement, Observed::Lost { why: "its lease was lost" });
            }
            let finish = if lost { Finish::LostLease } else { Finish::Abandoned };
            self.context.report.job(hold, JobEvent::Ended(finish));
            self.in_flight.abandon(hold);
        } else if settlement.verdict == Verdict::Release {
            self.in_flight.release(hold);
        } else {
            self.in_flight.remove(hold.inlet, hold.id);
        }
        drop(settlement.slot);
    }

    /// Whether an entry that is not pending was removed while this attempt had its job. A renewal tells this: its
    /// answer says whether operators have moved entries, and whether the machine has stood still.
    async fn was_removed(&self, hold: Hold) -> Result<bool, StoreError> {
        let (epoch, sent) = (self.epoch.current(), Instant::now());
        let renewed = self.context.renew(&[hold], sent).await?;
        self.in_flight.observe(&renewed, sent);
        let removed = renewed.answers == [FenceResult::NotPending]
            && self.in_flight.removed_before_settling(hold, epoch);
        if removed {
            self.context.report.job(hold, JobEvent::RemovedInFlight);
        }
        Ok(removed)
    }

    /// Whether the payload of an entry that is not pending may have been trimmed. A renewal may have found this just
    /// before; its answer names the dead letter that now stands for the entry.
    fn may_be_trimmed(&self, hold: Hold, known: Option<StandIn>) -> bool {
        self.in_flight.is_renewing(hold) || self.in_flight.stand_in(hold) != known
    }

    /// Carries out one verdict. `None` if nothing was sent before the abort.
    async fn carry_out(
        &self,
        settlement: &Settlement,
        stand_in: Option<StandIn>,
        abort: &CancellationToken,
    ) -> Option<Result<FenceResult, StoreError>> {
        let Verdict::Retry { delay, error } = &settlement.verdict else {
            return Box::pin(self.carry_out_alone(settlement, stand_in, abort)).await;
        };
        let wait = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let due = self.clock.server_now(Instant::now()).saturating_add(wait);
        let job = self.attempted(settlement).retry(Some(error), Some(due), self.keeps_place());
        let retry = NewRetry { hold: settlement.hold, stand_in, delay: *delay, job };
        self.retries.schedule(retry, settlement.envelope.event_id.clone()).await
    }

    /// Carries out a verdict in a request of its own, in its span and with its duration measured.
    async fn carry_out_alone(
        &self,
        settlement: &Settlement,
        stand_in: Option<StandIn>,
        abort: &CancellationToken,
    ) -> Option<Result<FenceResult, StoreError>> {
        let (attempted, context) = (self.attempted(settlement), &self.context);
        let (hold, event_id) = (settlement.hold, Some(&settlement.envelope.event_id));
        match &settlement.verdict {
            Verdict::DeadLetter { reason, error } => {
                let consumer = context.consumer().as_str();
                let fields = attempted.dead_letter(*reason, error.as_deref(), consumer);
                let sending = tokio::select! {
                    biased;
                    () = abort.cancelled() => return None,
                    sending = self.budget.take(settlement.delivery.entry.bytes()) => sending,
                };
                let steps = context.store_dead_letter(hold, stand_in, &fields);
                let answer = context.settle("dead_letter", 1, event_id, steps).await;
                drop(sending);
                Some(answer)
            }
            Verdict::Release => {
                let expires = settlement.handled_by.is_some_and(|handled_by| handled_by.expires);
                let begun = expires && attempted.began_now();
                let steps = self.release(hold, stand_in, begun, &attempted);
                Some(context.settle("release", 1, event_id, steps).await)
            }
            Verdict::Retry { .. }
            | Verdict::Acknowledge
            | Verdict::Leave
            | Verdict::AwaitHandler => {
                // These verdicts have been handled before this point; they change nothing.
                Some(Ok(FenceResult::Owned))
            }
        }
    }

    /// Releases a job for other consumers to claim at once. An entry whose payload was trimmed or that was removed
    /// cannot be claimed, so its job goes through the retry set, due now. A job that has
    /// `begun` goes through it as well if it could expire as a job that never began: its entry would not say that.
    async fn release(
        &self,
        hold: Hold,
        mut stand_in: Option<StandIn>,
        begun: bool,
        attempted: &Attempted<'_>,
    ) -> Result<FenceResult, StoreError> {
        FailPoint::ReleaseBefore.reached();
        let too_wide = attempted.delivery.entry.fields().len() > FIELDS_CARRIED_MAX;
        if stand_in.is_none() && (too_wide || !begun) {
            let result = self.context.release(hold).await?;
            let FenceResult::Trimmed(dead_letter) = result else { return Ok(result) };
            stand_in = Some(StandIn::DeadLetter(dead_letter));
            self.in_flight.stand_for(hold, StandIn::DeadLetter(dead_letter));
        }
        match stand_in {
            Some(StandIn::DeadLetter(letter)) if too_wide => {
                return Ok(FenceResult::Trimmed(letter));
            }
            Some(StandIn::Removed) if too_wide => {
                let error =
                    "another client removed its entry, and it has too many fields for a retry";
                let (reason, consumer) = (Reason::Exhausted, self.context.consumer().as_str());
                let fields = attempted.dead_letter(reason, Some(error), consumer);
                return self.context.store_dead_letter(hold, stand_in, &fields).await;
            }
            _ => {}
        }
        let (queue, consumer) = (self.context.queue(), self.context.consumer());
        // The job has not failed, so it lets no other jobs pass. In a group with shares, jobs of the retry set have no
        // place: there, the place is given back.
        let shares = self.places.rule().map(|rule| rule.scope == HoldScope::Share);
        let job = attempted.retry(None, None, shares == Some(false));
        let store = &self.context.payload_store;
        let scheduled =
            store.schedule_retry(queue, consumer, hold, stand_in, Duration::ZERO, &job).await;
        match scheduled {
            // A server out of memory stores no job, but releases the entry.
            Err(StoreError::Refused { .. }) if stand_in.is_none() => {
                self.context.release(hold).await
            }
            Ok(result @ (FenceResult::Owned | FenceResult::Trimmed(_))) if shares == Some(true) => {
                self.places.give_back(&[(hold.inlet, hold.id)]).await;
                Ok(result)
            }
            scheduled => scheduled,
        }
    }

    /// Whether a job keeps its place in the group's limit while it waits for its retry.
    fn keeps_place(&self) -> bool {
        self.places.rule().is_some_and(|rule| rule.blocks)
    }

    fn report(&self, settlement: &Settlement, result: FenceResult) {
        let handled_by = settlement.handled_by;
        let handler = handled_by
            .map_or_else(|| "(none)".to_owned(), |handled_by| handled_by.handler.location());
        let attempt = FailedAttempt {
            event_id: settlement.envelope.event_id.as_str(),
            event_type: settlement.delivery.entry.event_type().unwrap_or("(none)"),
            handler: &handler,
            number: settlement.failures,
            number_max: handled_by.map_or(0, |handled_by| handled_by.attempts_max),
        };
        let event = match (result, &settlement.verdict) {
            (FenceResult::Owned, Verdict::Retry { delay, error }) => {
                self.next_due.note(*delay);
                let counted = settlement.failures > settlement.envelope.failures;
                JobEvent::RetryScheduled { attempt, counted, delay: *delay, error }
            }
            (FenceResult::Owned, Verdict::DeadLetter { reason, error }) => {
                JobEvent::DeadLettered { attempt, reason: *reason, error: error.as_deref() }
            }
            (FenceResult::Owned, Verdict::Release) => JobEvent::Released,
            (FenceResult::Owned, _) => return,
            (FenceResult::Trimmed(_), _) => {
                JobEvent::DeadLettered { attempt, reason: Reason::Trimmed, error: None }
            }
            (FenceResult::NotPending, _) => {
                JobEvent::RefusedLate { step: "settle: not pending any more" }
            }
            (FenceResult::Undelivered, _) => {
                JobEvent::RefusedLate { step: "settle: the entry will be delivered again" }
            }
            (FenceResult::TakenOver, _) => JobEvent::RefusedLate { step: "settle: taken over" },
        };
        self.context.report.job(settlement.hold, event);
        if self.context.report.is_observed()
            && let Some(what) = observed(&event, self.clock.server_now(Instant::now()))
        {
            self.observe(settlement, what);
        }
    }

    /// What is known about the job of a settlement.
    fn attempted<'a>(&'a self, settlement: &'a Settlement) -> Attempted<'a> {
        let process = self.context.consumer().as_str();
        Attempted {
            delivery: &settlement.delivery,
            envelope: &settlement.envelope,
            started_at: settlement.began_at,
            failures: settlement.failures,
            run: settlement.run.map(|(end, took)| Run { end, took, process }),
        }
    }

    /// Tells observers what became of a job. For a job that no handler of this process takes, they are told only of the
    /// dead letter.
    fn observe(&self, settlement: &Settlement, what: Observed) {
        let Settlement { delivery, envelope, handled_by, .. } = settlement;
        if handled_by.is_some() || matches!(what, Observed::DeadLettered { .. }) {
            let subject = Subject { delivery, envelope, handled_by: *handled_by };
            self.context.report.observe(subject, what);
        }
    }
}

/// What observers are told about the end of a settlement, at this time of the server's clock in milliseconds.
fn observed(event: &JobEvent<'_>, now: u64) -> Option<Observed> {
    Some(match *event {
        JobEvent::RetryScheduled { counted, delay, error, .. } => {
            let (error, retry_in) = (error.to_owned(), delay);
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now);
            let retry_at = now.checked_add(delay).unwrap_or(now);
            match counted {
                true => Observed::Failed { error, retry_in, retry_at },
                false => Observed::Snoozed { error, retry_in, retry_at },
            }
        }
        JobEvent::DeadLettered { reason: Reason::Cancelled, error, .. } => {
            Observed::Cancelled { error: error.map(str::to_owned) }
        }
        JobEvent::DeadLettered { reason, error, .. } => {
            Observed::DeadLettered { reason, error: error.map(str::to_owned) }
        }
        JobEvent::Released => Observed::Released,
        JobEvent::RefusedLate { step } => Observed::Lost { why: step },
        _ => return None,
    })
}

/// Whether a result shows that an earlier try, whose answer was lost, was carried out. A release lowers the delivery
/// count, so its repetition finds another attempt.
fn was_done_before(settlement: &Settlement, result: FenceResult) -> bool {
    match result {
        FenceResult::NotPending => true,
        FenceResult::TakenOver => settlement.verdict == Verdict::Release,
        FenceResult::Owned | FenceResult::Undelivered | FenceResult::Trimmed(_) => false,
    }
}
