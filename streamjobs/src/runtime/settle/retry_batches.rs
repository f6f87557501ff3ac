//! Collects the retries of failed jobs, so that one request schedules many of them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Mutex;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::model::name::EventId;
use crate::runtime::state::{PayloadBudget, lock, stopped_before};
use crate::store::{FenceResult, NewRetry, StoreError};

/// Retries of one queue that wait for a request.
///
/// While no request is on its way, the next request takes the retries that wait, without waiting for more. Retries
/// that arrive while a request is on its way wait for its answer, or until they fill a request of their own.
#[derive(Debug, Default)]
pub(crate) struct RetryBatches {
    queue: Mutex<Queue>,
    arrived: Notify,
}

type Answer = Result<FenceResult, StoreError>;

/// Sends a request for these retries. Returns an answer for each. A single retry comes with its event id.
type SendRetries<'f> =
    dyn Fn(Vec<NewRetry>, Option<EventId>) -> BoxFuture<'f, Vec<Answer>> + Sync + 'f;

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    is_closed: bool,
}

#[derive(Debug)]
struct Waiting {
    retry: NewRetry,
    event_id: EventId,
    bytes: usize,
    answer: oneshot::Sender<Answer>,
}

impl RetryBatches {
    /// Schedules a retry and returns the server's answer. `None` if it was not sent before the abort.
    pub(crate) async fn schedule(&self, retry: NewRetry, event_id: EventId) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        let fields = retry.job.iter().map(|(name, value)| name.len() + value.len() + FIELD_BYTES);
        let bytes = fields.sum();
        if !lock(&self.queue).add(Waiting { retry, event_id, bytes, answer }) {
            return None;
        }
        self.arrived.notify_one();
        answered.await.ok()
    }

    /// Sends the retries that wait, within the budget. It never returns; after the abort it sends nothing
    /// more, and passes on the answers to what was sent.
    pub(crate) async fn run(
        &self,
        send: &SendRetries<'_>,
        budget: &PayloadBudget,
        abort: &CancellationToken,
    ) -> Infallible {
        let mut requests = FuturesUnordered::new();
        loop {
            while let Some(waiting) = self.take(requests.len()) {
                requests.push(async move {
                    let bytes = waiting.iter().map(|waiting| waiting.bytes).sum();
                    let mut sending = None;
                    let taking = async { sending = budget.take(bytes).await };
                    if !stopped_before(abort, taking).await {
                        request(send, waiting).await;
                    }
                    drop(sending);
                });
            }
            tokio::select! {
                biased;
                () = abort.cancelled(), if !lock(&self.queue).is_closed => lock(&self.queue).close(),
                Some(()) = requests.next() => {}
                () = self.arrived.notified() => {}
            }
        }
    }

    fn take(&self, on_their_way: usize) -> Option<Vec<Waiting>> {
        lock(&self.queue).take(on_their_way)
    }
}

/// Sends a request, and passes its answers on.
async fn request(send: &SendRetries<'_>, waiting: Vec<Waiting>) {
    let (mut retries, mut callers) = (Vec::with_capacity(waiting.len()), Vec::new());
    let mut event_id = None;
    for Waiting { retry, event_id: its, answer, .. } in waiting {
        retries.push(retry);
        callers.push(answer);
        event_id = Some(its).filter(|_| retries.len() == 1);
    }
    let mut answers = send(retries, event_id).await.into_iter();
    let lacking = || Err(StoreError::Protocol { command: "schedule_retries" });
    for caller in callers {
        // A caller that does not wait any more needs no answer.
        let _gone = caller.send(answers.next().unwrap_or_else(lacking)).is_err();
    }
}

impl Queue {
    /// Returns false after the abort.
    fn add(&mut self, waiting: Waiting) -> bool {
        if !self.is_closed {
            self.bytes += waiting.bytes;
            self.waiting.push_back(waiting);
        }
        !self.is_closed
    }

    /// The retries for the next request while this many are on their way; `None` if no other request is
    /// needed now.
    fn take(&mut self, on_their_way: usize) -> Option<Vec<Waiting>> {
        let fills_one = self.waiting.len() >= JOBS_MAX || self.bytes >= BYTES_MAX;
        if self.waiting.is_empty()
            || on_their_way >= REQUESTS_MAX
            || (on_their_way > 0 && !fills_one)
        {
            return None;
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let fits = |next: &Waiting, bytes| bytes == 0 || bytes + next.bytes <= BYTES_MAX;
        while taken.len() < JOBS_MAX
            && self.waiting.front().is_some_and(|next| fits(next, bytes))
            && let Some(next) = self.waiting.pop_front()
        {
            bytes += next.bytes;
            taken.push(next);
        }
        self.bytes -= bytes;
        Some(taken)
    }

    /// Drops the retries that wait: their entries stay as they are.
    fn close(&mut self) {
        *self = Self { is_closed: true, ..Self::default() };
    }
}

/// The most retries in a request: as many as one call of the script schedules.
const JOBS_MAX: usize = 100;
/// The most bytes in a request, but a single larger job still gets a request. A request of this size delays the
/// requests behind it by a tenth of a second on a link of 20 Mbit/s.
const BYTES_MAX: usize = 256 * 1024;
/// The most requests on their way: several, so that a distant server does not limit how many
/// retries are scheduled in a second.
const REQUESTS_MAX: usize = 4;
/// What a field takes besides its name and value, generously estimated.
const FIELD_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use tokio::sync::mpsc;

    use super::*;
    use crate::model::entry::{EntryId, Hold, Inlet};

    fn retry(number: u64) -> NewRetry {
        let hold = Hold { inlet: Inlet::STREAM, id: EntryId::new(number, 0), delivery_count: 1 };
        let job = vec![("data".into(), "{}".into())];
        NewRetry { hold, stand_in: None, delay: Duration::ZERO, job }
    }

    fn event_id(number: u64) -> EventId {
        EventId::new(number.to_string()).unwrap()
    }

    fn waiting(number: u64, bytes: usize) -> Waiting {
        let (answer, _) = oneshot::channel();
        Waiting { retry: retry(number), event_id: event_id(number), bytes, answer }
    }

    fn queue(bytes: impl IntoIterator<Item = usize>) -> Queue {
        let mut queue = Queue::default();
        for bytes in bytes {
            assert!(queue.add(waiting(1, bytes)));
        }
        queue
    }

    #[test]
    fn a_request_takes_what_waits_and_what_comes_meanwhile_fills_the_next_one() {
        let mut queue = queue([1; 3]);
        assert_eq!(queue.take(0).map(|taken| taken.len()), Some(3));
        assert!(queue.take(0).is_none(), "nothing waits");
        for count in 1..=2 * JOBS_MAX {
            queue.add(waiting(1, 1));
            let fills_one = count >= JOBS_MAX;
            assert_eq!(queue.waiting.len() >= JOBS_MAX, fills_one);
            if !fills_one {
                assert!(queue.take(1).is_none(), "{count} wait for an answer");
            }
        }
        assert!(queue.take(REQUESTS_MAX).is_none());
        assert_eq!(queue.take(REQUESTS_MAX - 1).map(|taken| taken.len()), Some(JOBS_MAX));
        assert_eq!(queue.take(1).map(|taken| taken.len()), Some(JOBS_MAX));
        assert_eq!((queue.waiting.len(), queue.bytes), (0, 0));
    }

    #[test]
    fn a_request_is_bounded_in_bytes_unless_one_job_alone_has_more() {
        let half = BYTES_MAX / 2;
        let mut queue = queue([half, half, half, 5 * BYTES_MAX, 1]);
        let mut sizes = Vec::new();
        while let Some(taken) = queue.take(1).or_else(|| queue.take(0)) {
            sizes.push(taken.len());
        }
        assert_eq!((sizes, queue.bytes), (vec![2, 1, 1, 1], 0));
    }

    /// A request as the server gets it: its jobs, the event id if it has a single job, and the sender for
    /// its answers.
    type Sent = (Vec<u64>, Option<EventId>, oneshot::Sender<Vec<Answer>>);

    /// Runs a test together with the requests, which the test receives and answers.
    async fn beside_requests(
        batches: &RetryBatches,
        abort: &CancellationToken,
        test: impl AsyncFnOnce(&mut mpsc::Receiver<Sent>),
    ) {
        let (sender, mut requests) = mpsc::channel(8);
        let send = |retries: Vec<NewRetry>, event_id| {
            let (sender, (answer, answered)) = (sender.clone(), oneshot::channel());
            let jobs = retries.iter().map(|retry| retry.hold.id.milliseconds()).collect();
            async move {
                sender.send((jobs, event_id, answer)).await.unwrap();
                answered.await.unwrap()
            }
            .boxed()
        };
        let budget = PayloadBudget::default();
        tokio::select! {
            biased;
            () = test(&mut requests) => {}
            never = batches.run(&send, &budget, abort) => match never {},
        }
    }

    #[tokio::test]
    async fn each_job_gets_its_own_answer_and_a_lacking_one_is_an_error() {
        let (batches, abort) = (RetryBatches::default(), CancellationToken::new());
        beside_requests(&batches, &abort, async |requests| {
            let first = batches.schedule(retry(1), event_id(1));
            let serve = async {
                let (jobs, single, answer) = requests.recv().await.unwrap();
                assert_eq!((jobs, single), (vec![1], Some(event_id(1))));
                let others = (2..=4).map(|job| batches.schedule(retry(job), event_id(job)));
                let serve_others = async {
                    answer.send(vec![Ok(FenceResult::NotPending)]).unwrap();
                    let (jobs, single, answer) = requests.recv().await.unwrap();
                    assert_eq!((jobs, single), (vec![2, 3, 4], None));
                    let refused = StoreError::GroupMissing;
                    answer.send(vec![Ok(FenceResult::Owned), Err(refused)]).unwrap();
                };
                tokio::join!(join_all(others), serve_others).0
            };
            let (first, others) = tokio::join!(first, serve);
            assert!(matches!(first, Some(Ok(FenceResult::NotPending))), "{first:?}");
            let [owned, refused, lacking] = others.as_slice() else { panic!("{others:?}") };
            assert!(matches!(owned, Some(Ok(FenceResult::Owned))), "{owned:?}");
            assert!(matches!(refused, Some(Err(StoreError::GroupMissing))), "{refused:?}");
            assert!(matches!(lacking, Some(Err(StoreError::Protocol { .. }))), "{lacking:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn after_the_abort_what_was_sent_is_answered_and_nothing_else_is_sent() {
        let (batches, abort) = (RetryBatches::default(), CancellationToken::new());
        beside_requests(&batches, &abort, async |requests| {
            let sent = batches.schedule(retry(1), event_id(1));
            let rest = async {
                let (_, _, answer) = requests.recv().await.unwrap();
                let waits = batches.schedule(retry(2), event_id(2));
                let (waits, ()) = tokio::join!(waits, async { abort.cancel() });
                assert!(waits.is_none(), "{waits:?}");
                assert!(batches.schedule(retry(3), event_id(3)).await.is_none());
                answer.send(vec![Ok(FenceResult::Owned)]).unwrap();
            };
            let (sent, ()) = tokio::join!(sent, rest);
            assert!(matches!(sent, Some(Ok(FenceResult::Owned))), "{sent:?}");
            assert!(requests.try_recv().is_err());
        })
        .await;
    }
}
