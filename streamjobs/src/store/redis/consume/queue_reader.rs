//! Reads one queue wherever it is: in a cluster, the reader follows the queue's slot.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::time::sleep;

use super::reader::RedisReader;
use crate::model::name::ConsumerName;
use crate::store::redis::RedisStore;
use crate::store::redis::net::{Cluster, Endpoint, Pursuit, Redirect, Route, WakerSeat};
use crate::store::types::Result;
use crate::store::{Queue, ReadReply, ReadRequest, ReaderSetup, StoreError, StreamReader};

/// Reads one queue for one consumer.
pub(super) struct QueueReader {
    route: Route,
    queue: Queue,
    consumer: ConsumerName,
    setup: ReaderSetup,
    seat: WakerSeat,
    reader: RedisReader,
    /// The node to which the queue is moving: the next read goes there.
    asked: Option<Endpoint>,
    /// Why the last read of a reader that waits here was refused.
    lost: Option<StoreError>,
    /// How many reads in a row were refused.
    refusals: u32,
    /// Whether the queue is moving and the last read found nothing.
    has_pause: bool,
}

impl QueueReader {
    /// Opens a reader at the server that has the queue.
    pub(super) async fn open(
        store: &RedisStore,
        queue: &Queue,
        consumer: &ConsumerName,
        setup: ReaderSetup,
    ) -> Result<Self> {
        let (route, seat) = (store.at(queue.stream.as_str()), store.wakers.add());
        let open = |node| RedisReader::open(node, queue, consumer, setup, Arc::clone(&seat.waker));
        let reader = match &route {
            Route::One(node) => open(node.clone()).await?,
            Route::Slot(cluster, slot) => {
                let mut pursuit = Pursuit::new(cluster, *slot);
                loop {
                    match open(pursuit.target().await?.node).await {
                        Ok(reader) => break reader,
                        Err(error) => pursuit.after(error).await?,
                    }
                }
            }
        };
        let (queue, consumer) = (queue.clone(), consumer.clone());
        Ok(Self {
            route,
            queue,
            consumer,
            setup,
            seat,
            reader,
            asked: None,
            lost: None,
            refusals: 0,
            has_pause: false,
        })
    }

    /// Reads, and reads again after the queue has moved. Entries that were acknowledged are not
    /// acknowledged again.
    async fn follow(
        &mut self,
        cluster: &Cluster,
        slot: u16,
        mut request: ReadRequest<'_>,
    ) -> Result<ReadReply> {
        let waits = request.block.is_some();
        let (mut acknowledged, mut pursuit) = (0, self.pursuit(cluster, slot));
        loop {
            let mut reply = self.read_once(cluster, &request).await?;
            if let Ok(number) = &mut reply.acknowledged {
                *number += acknowledged;
                (acknowledged, request.acks) = (*number, &[]);
            }
            let may_be_elsewhere = request.block.take().is_some() || self.asked.is_some();
            let Some(error) = refusal(&mut reply, may_be_elsewhere) else {
                let is_empty = matches!(&reply.deliveries, Ok(read) if read.is_empty());
                if self.asked.take().is_some() && is_empty && waits {
                    sleep(ASKED_PAUSE).await;
                }
                return Ok(reply);
            };
            if self.asked.take().is_some() {
                sleep(ASKED_PAUSE).await;
            } else if Redirect::is_said_by(&error) {
                self.go_on(&mut pursuit, error).await?;
            }
        }
    }

    /// Reads once. The caller occupies slots that others could use, so searching for the queue is left to
    /// [`ready`](StreamReader::ready).
    async fn read_holding(
        &mut self,
        cluster: &Cluster,
        request: &ReadRequest<'_>,
    ) -> Result<ReadReply> {
        let mut reply = self.read_once(cluster, request).await?;
        if self.asked.take().is_some() {
            self.has_pause = !matches!(&reply.deliveries, Ok(read) if !read.is_empty());
            if matches!(reply.deliveries, Err(StoreError::GroupMissing)) {
                reply.deliveries = Ok(Vec::new());
            }
        }
        let errors = [reply.acknowledged.as_ref().err(), reply.deliveries.as_ref().err()];
        self.lost = errors
            .into_iter()
            .flatten()
            .find(|error| Redirect::is_said_by(error))
            .map(StoreError::copy);
        match (&self.lost, &reply.deliveries) {
            (None, _) => self.refusals = 0,
            (Some(_), Err(_)) => reply.deliveries = Ok(Vec::new()),
            (Some(_), Ok(_)) => {}
        }
        Ok(reply)
    }

    async fn read_once(
        &mut self,
        cluster: &Cluster,
        request: &ReadRequest<'_>,
    ) -> Result<ReadReply> {
        let read = match &self.asked {
            Some(to) => self.reader.read_asking(to, request).await,
            None => self.reader.read(request).await,
        };
        read.inspect_err(|_| cluster.suspect())
    }

    /// Searches for the queue after the last read was refused.
    async fn look(&mut self, cluster: &Cluster, slot: u16) -> Result<()> {
        if std::mem::take(&mut self.has_pause) {
            sleep(ASKED_PAUSE).await;
        }
        let Some(error) = self.lost.take() else { return Ok(()) };
        // The pauses within one pursuit grow, but each read begins a new pursuit.
        sleep(PAUSE.saturating_mul(self.refusals.min(PAUSES_MAX))).await;
        self.refusals += 1;
        let mut pursuit = self.pursuit(cluster, slot);
        self.go_on(&mut pursuit, error).await
    }

    fn pursuit<'c>(&self, cluster: &'c Cluster, slot: u16) -> Pursuit<'c> {
        Pursuit::after_answer_of(cluster, slot, self.reader.endpoint().node())
    }

    /// Goes to where the queue is, after a refusal.
    async fn go_on(&mut self, pursuit: &mut Pursuit<'_>, error: StoreError) -> Result<()> {
        pursuit.after(error).await?;
        let target = pursuit.target().await?;
        let endpoint = target.node.link.endpoint();
        if target.is_asking {
            self.asked = Some(endpoint.clone());
        } else if endpoint.node() != self.reader.endpoint().node() {
            let waker = Arc::clone(&self.seat.waker);
            let (queue, consumer) = (&self.queue, &self.consumer);
            let opened = RedisReader::open(target.node, queue, consumer, self.setup, waker);
            self.reader = opened.boxed().await?;
        }
        Ok(())
    }
}

/// The error because of which the request must be sent again: a node of the cluster refused it without doing anything.
/// With `may_be_elsewhere`, a missing group counts as such a refusal, and the next answer shows whether the group is
/// lost: when the key of a waiting read moves away, Redis 7.0 answers that the key is gone, and while several keys are
/// moving, one of them may be elsewhere.
fn refusal(reply: &mut ReadReply, may_be_elsewhere: bool) -> Option<StoreError> {
    let is_redirected = |error: &StoreError| match error {
        StoreError::GroupMissing => may_be_elsewhere,
        error => Redirect::is_said_by(error),
    };
    match (&reply.acknowledged, &reply.deliveries) {
        // These entries have to reach the caller, which acknowledges the others later.
        (_, Ok(read)) if !read.is_empty() => None,
        (Err(error), _) | (_, Err(error)) if is_redirected(error) => {
            let (acknowledged, deliveries) = (&mut reply.acknowledged, &mut reply.deliveries);
            let taken = std::mem::replace(acknowledged, Ok(0)).err();
            taken.or_else(|| std::mem::replace(deliveries, Ok(Vec::new())).err())
        }
        _ => None,
    }
}

#[async_trait]
impl StreamReader for QueueReader {
    async fn read(&mut self, request: ReadRequest<'_>) -> Result<ReadReply> {
        match self.route.clone() {
            Route::One(_) => self.reader.read(&request).await,
            Route::Slot(cluster, _) if self.setup.waits_here => {
                self.read_holding(&cluster, &request).boxed().await
            }
            Route::Slot(cluster, slot) => self.follow(&cluster, slot, request).boxed().await,
        }
    }

    async fn ready(&mut self, wait: Duration) -> Result<bool> {
        if let Route::Slot(cluster, slot) = self.route.clone() {
            self.look(&cluster, slot).boxed().await?;
            if self.asked.is_some() {
                return Ok(true);
            }
        }
        self.reader.ready(wait).await
    }

    async fn watch(&mut self) -> Result<()> {
        let watched = self.reader.watch().await;
        match (&self.route, watched) {
            (Route::Slot(cluster, _), Err(error)) if Redirect::is_said_by(&error) => {
                cluster.suspect();
                self.lost = Some(error);
                Ok(())
            }
            (_, watched) => watched,
        }
    }

    fn waker(&self) -> u64 {
        self.seat.number
    }
}

/// By how much the pause before each search grows while reads of a queue are refused again and again.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSES_MAX: u32 = 20;
/// How long an empty read waits while the queue is moving.
const ASKED_PAUSE: Duration = Duration::from_millis(100);
