//! Carries verdicts out: acknowledges, sets aside, buries and hands back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::insight::metrics::Finish;
use crate::model::entry::{EntryId, Hold};
use crate::model::fail_point::FailPoint;
use crate::model::mutant::Mutant;
use crate::model::policy::{Reason, Verdict};
use crate::model::record::{Attempted, FIELDS_CARRIED_MAX};
use crate::model::trace::span;
use crate::runtime::pause::Pause;
use crate::runtime::queue::{QueueContext, Settlement};
use crate::store::{FenceResult, StoreError};

/// The settling loop of one queue.
pub(crate) struct Acker {
    context: Arc<QueueContext>,
    settlements: mpsc::Receiver<Settlement>,
    /// Ends every retry: the runtime gives up.
    abort: CancellationToken,
}

impl Acker {
    pub(crate) fn new(
        context: Arc<QueueContext>,
        settlements: mpsc::Receiver<Settlement>,
        abort: CancellationToken,
    ) -> Self {
        Self { context, settlements, abort }
    }

    /// Settles until no job can end any more and everything is settled, or until the abort.
    pub(crate) async fn run(self) {
        let Self { context, settlements, abort } = self;
        let over = CancellationToken::new();
        tokio::join!(
            keep_settling(&context, settlements, &abort, &over),
            keep_acknowledging(&context, &abort, &over),
        );
    }
}

/// Carries out verdicts side by side: one that has to be tried again holds no other up. There are
/// never more of them than slots.
async fn keep_settling(
    context: &QueueContext,
    mut settlements: mpsc::Receiver<Settlement>,
    abort: &CancellationToken,
    over: &CancellationToken,
) {
    let mut settling = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = abort.cancelled() => break,
            Some(()) = settling.next() => {}
            settlement = settlements.recv() => match settlement {
                Some(settlement) => settling.push(settle(context, settlement, abort)),
                None => break,
            },
        }
    }
    over.cancel();
    while settling.next().await.is_some() {}
}

/// Acknowledges what the reader does not take along with its next read.
async fn keep_acknowledging(
    context: &QueueContext,
    abort: &CancellationToken,
    over: &CancellationToken,
) {
    let mut pause = Pause::new();
    while !over.is_cancelled() || context.acks.len() > 0 {
        tokio::select! {
            biased;
            () = abort.cancelled() => return,
            () = context.acks.filled(1) => {}
            () = over.cancelled() => continue,
        }
        if !over.is_cancelled() {
            // The reader may be about to take them along.
            sleep(LINGER).await;
        }
        match acknowledge(context).await {
            Ok(()) => pause.reset(),
            Err(error) => {
                context.report.server_error("acknowledge", &error);
                pause.wait(abort).await;
            }
        }
    }
}

/// Acknowledges what waits; on an error it goes on waiting.
async fn acknowledge(context: &QueueContext) -> Result<(), StoreError> {
    let acks = context.acks.take();
    if acks.is_empty() {
        return Ok(());
    }
    let ids = acks.iter().map(|ack| (ack.inlet, ack.id)).collect::<Vec<_>>();
    match context.acknowledge(&ids).await {
        Ok(confirmed) => {
            let (slots, letters) = context.end(acks, confirmed);
            drop(slots);
            context.take_letters_back(&letters).await;
            Ok(())
        }
        Err(error) => {
            context.acks.put_back(acks);
            Err(error)
        }
    }
}

/// Carries one verdict out, again and again until the server says what became of it.
async fn settle(context: &QueueContext, settlement: Settlement, abort: &CancellationToken) {
    let mut pause = Pause::new();
    let mut unconfirmed = false;
    let mut settled = false;
    while !settled && !settlement.lease.is_lost() {
        if abort.is_cancelled() {
            // It stays among what is held here, so that the report of the stop names it.
            return;
        }
        // Where a renewal has found the payload gone, the letter that says so stands for the entry.
        let trimmed = context.held.letter(settlement.hold);
        match carry_out_measured(context, &settlement, trimmed).await {
            Ok(FenceResult::NotPending) if may_be_trimmed(context, settlement.hold, trimmed) => {
                pause.wait(abort).await;
            }
            Ok(checked) => {
                let done_before = unconfirmed && was_done_before(&settlement, checked);
                report(
                    context,
                    &settlement,
                    if done_before { FenceResult::Owned } else { checked },
                );
                settled = true;
            }
            // The group is gone, and the entry's pending record with it: when the group is made
            // again at its floor, the entry is delivered again.
            Err(StoreError::GroupMissing) => {
                context.report.refused_late(settlement.hold, "settle in a lost group");
                settled = true;
            }
            Err(error) => {
                unconfirmed |= error.is_unconfirmed();
                context.report.server_error("settle", &error);
                pause.wait(abort).await;
            }
        }
    }
    if !settled {
        let lost = settlement.lease.is_lost();
        let finish = if lost { Finish::LostLease } else { Finish::Abandoned };
        context.report.given_up(settlement.hold, finish);
        context.held.leave(settlement.hold);
    } else if settlement.verdict == Verdict::Release {
        context.held.release(settlement.hold);
    } else {
        context.held.remove(settlement.hold.inlet, settlement.hold.id);
    }
    drop(settlement.slot);
}

/// Whether an answer says that an earlier try, whose answer was lost, was carried out. A hand-back
/// lowers the count, so its repetition finds another attempt.
fn was_done_before(settlement: &Settlement, checked: FenceResult) -> bool {
    match checked {
        FenceResult::NotPending => true,
        FenceResult::TakenOver => settlement.verdict == Verdict::Release,
        FenceResult::Owned | FenceResult::Trimmed(_) => false,
    }
}

/// Whether an entry that is not pending may be one whose payload a renewal found gone just before:
/// its answer, with the letter that now stands for the entry, is on its way or has just come.
fn may_be_trimmed(context: &QueueContext, hold: Hold, known: Option<EntryId>) -> bool {
    context.held.is_renewing(hold) || context.held.letter(hold) != known
}

/// Carries one verdict out, under its span and with its duration measured.
async fn carry_out_measured(
    context: &QueueContext,
    settlement: &Settlement,
    trimmed: Option<EntryId>,
) -> Result<FenceResult, StoreError> {
    let operation = match settlement.verdict {
        Verdict::Retry { .. } => "retry",
        Verdict::DeadLetter { .. } => "dead_letter",
        Verdict::Release => "release",
        Verdict::Acknowledge | Verdict::Leave => "none",
    };
    let (queue, event_id) = (&context.queue, &settlement.envelope.event_id);
    let span = span::settle(operation, &queue.stream, &queue.group, 1, Some(event_id));
    let sent = Instant::now();
    let answer = carry_out(context, settlement, trimmed).instrument(span.clone()).await;
    context.report.settled(sent.elapsed());
    answer.inspect_err(|error| span::failed(&span, error.kind()))
}

async fn carry_out(
    context: &QueueContext,
    settlement: &Settlement,
    trimmed: Option<EntryId>,
) -> Result<FenceResult, StoreError> {
    let (store, queue, consumer) = (&context.store, &context.queue, &context.place.consumer);
    let hold = settlement.hold;
    let attempted = Attempted {
        delivery: &settlement.delivery,
        envelope: &settlement.envelope,
        started_at: settlement.taken_up,
        failures: settlement.failures,
    };
    match &settlement.verdict {
        Verdict::Retry { delay, error } => {
            let wait = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            let due = context.server_now().saturating_add(wait);
            let job = attempted.retry(Some(error), Some(due));
            store.schedule_retry(queue, consumer, hold, trimmed, *delay, &job).await
        }
        Verdict::DeadLetter { reason, error } => {
            let letter = attempted.dead_letter(*reason, error.as_deref(), consumer.as_str());
            if Mutant::DeadAckedFirst.is_seeded() {
                store.acknowledge(queue, &[(hold.inlet, hold.id)]).await?;
            }
            FailPoint::DeadBeforeStore.reached();
            let answer = store.store_dead_letter(queue, consumer, hold, trimmed, &letter).await;
            if answer.is_ok() {
                FailPoint::DeadAfterStore.reached();
            }
            answer
        }
        Verdict::Release => release(context, hold, trimmed, &attempted).await,
        // Neither reaches this loop; both change nothing.
        Verdict::Acknowledge | Verdict::Leave => Ok(FenceResult::Owned),
    }
}

/// Gives a job up for others to claim at once. Nobody can claim an entry without a payload, so its
/// job goes through the retry set, due now.
async fn release(
    context: &QueueContext,
    hold: Hold,
    trimmed: Option<EntryId>,
    attempted: &Attempted<'_>,
) -> Result<FenceResult, StoreError> {
    FailPoint::ReleaseBefore.reached();
    let (store, queue, consumer) = (&context.store, &context.queue, &context.place.consumer);
    if trimmed.is_none() {
        let answers = store.release(queue, consumer, context.config.lease, &[hold]).await?;
        let answer =
            answers.into_iter().next().ok_or(StoreError::Protocol { command: "release" })?;
        let FenceResult::Trimmed(letter) = answer else { return Ok(answer) };
        context.held.note_trimmed(hold, letter);
    }
    let letter = context.held.letter(hold);
    let too_wide = attempted.delivery.entry.fields().len() > FIELDS_CARRIED_MAX;
    if let Some(letter) = letter.filter(|_| too_wide) {
        return Ok(FenceResult::Trimmed(letter));
    }
    let job = attempted.retry(None, None);
    store.schedule_retry(queue, consumer, hold, letter, Duration::ZERO, &job).await
}

fn report(context: &QueueContext, settlement: &Settlement, checked: FenceResult) {
    let (hold, event_id) = (settlement.hold, settlement.envelope.event_id.as_str());
    match (checked, &settlement.verdict) {
        (FenceResult::Owned, Verdict::Retry { delay, error }) => {
            context.due.note(*delay);
            context.report.retry_scheduled(hold, event_id, settlement.failures, *delay, error);
        }
        (FenceResult::Owned, Verdict::DeadLetter { reason, error }) => {
            context.report.dead_lettered(hold, event_id, *reason, error.as_deref());
        }
        (FenceResult::Owned, Verdict::Release) => context.report.released(hold),
        (FenceResult::Owned, Verdict::Acknowledge | Verdict::Leave) => {}
        (FenceResult::Trimmed(_), _) => {
            context.report.dead_lettered(hold, event_id, Reason::Trimmed, None)
        }
        (FenceResult::NotPending, _) => {
            context.report.refused_late(hold, "settle: not pending any more")
        }
        (FenceResult::TakenOver, _) => context.report.refused_late(hold, "settle: taken over"),
    }
}

const LINGER: Duration = Duration::from_millis(1);
