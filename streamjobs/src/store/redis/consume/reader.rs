//! Reading. With few readers, each has a connection of its own, on which it waits for entries. With
//! many, they share connections and wait in this process.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::time::{Instant, sleep_until};

use super::acknowledge::Acknowledgements;
use crate::model::name::ConsumerName;
use crate::store::redis::milliseconds;
use crate::store::redis::net::{
    Answer, Answered, Endpoint, Exchange, KeyWatch, Losses, Member, Node, Patience, Reading, Waker,
    accepted, answer_lost, asking, not_connected, open_reading,
};
use crate::store::types::Result;
use crate::store::{Inlet, Queue, ReadReply, ReadRequest, ReaderSetup};

/// Reads one queue for one consumer on one server.
pub(super) struct RedisReader {
    node: Node,
    queue: Queue,
    /// The stream keys of the inlets.
    keys: [String; Inlet::ALL.len()],
    consumer: ConsumerName,
    margin: Duration,
    /// Whether the reader has no connection of its own on which a read could wait.
    waits_here: bool,
    own: Own,
    shared: Shared,
}

/// The reader's own connection.
enum Own {
    /// No connection was opened, because readers share connections.
    Closed,
    Open(Reading),
    /// The connection cannot be used any more.
    Broken,
}

/// The reader's share of the shared connections.
struct Shared {
    member: Member,
    /// Watches the stream.
    watch: KeyWatch,
    waker: Arc<Waker>,
    /// What is known after a read that left nothing to read.
    drained: Option<Drained>,
    /// The losses of the connection that gave the last answer.
    losses: Option<Losses>,
    /// The mean size of the last entries.
    entry_bytes: usize,
    /// How many entries the last read returned, if fewer than it asked for.
    partial: Option<usize>,
}

/// Nothing was left to read.
#[derive(Clone, Copy)]
struct Drained {
    /// The version of the stream at that time.
    version: u64,
    asked: Instant,
    /// Whether the server reports when the stream changes.
    is_tracked: bool,
}

impl RedisReader {
    /// Opens the connection, or checks the shared one.
    pub(super) async fn open(
        node: Node,
        queue: &Queue,
        consumer: &ConsumerName,
        setup: ReaderSetup,
        waker: Arc<Waker>,
    ) -> Result<Self> {
        let ReaderSetup { margin, waits_here } = setup;
        let keys = queue.keys();
        let member = node.reading.join(waits_here);
        let watch = member.watch(&queue.key(Inlet::STREAM));
        let shared = Shared {
            member,
            watch,
            waker,
            drained: None,
            losses: None,
            entry_bytes: ENTRY_BYTES_ASSUMED,
            partial: None,
        };
        let mut reader = Self {
            node,
            queue: queue.clone(),
            keys,
            consumer: consumer.clone(),
            margin,
            waits_here,
            own: Own::Closed,
            shared,
        };
        if reader.shared.member.shares() {
            reader.shared.waker.waits_on(None);
            reader.shared.check(margin).await?;
        } else {
            reader.open_own().await?;
        }
        Ok(reader)
    }

    /// Waits in this process until a read of the stream may find entries. Returns whether it may.
    ///
    /// Cancel safe.
    pub(super) async fn ready(&mut self, wait: Duration) -> Result<bool> {
        if self.shared.losses.as_ref().is_some_and(Losses::have_grown) {
            return Err(not_connected());
        }
        let Some(drained) = self.shared.drained else { return Ok(true) };
        let until = Instant::now() + wait;
        let is_ready = match self.shared.wait_after(drained, wait, until).await {
            Wait::Changed => true,
            Wait::Woken | Wait::Late => false,
        };
        if is_ready {
            self.shared.drained = None;
        }
        Ok(is_ready)
    }

    /// Lets [`ready`](Self::ready) wait for entries that arrive from now on.
    pub(super) async fn watch(&mut self) -> Result<()> {
        let version = self.shared.watch.version();
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("XLEN").arg(self.keys.get(Inlet::STREAM.index()));
        let exchange = Exchange { pipeline, bytes: 0, silence: self.margin };
        let (mut answers, is_tracked) = self.shared.exchange(exchange).await?;
        let answer = answers.pop().map(Answer::value).transpose();
        let length = accepted(answer.map_err(|error| answer_lost(&error))?.unwrap_or(Value::Nil))?;
        let is_tracked = is_tracked && matches!(length, Value::Int(_));
        self.shared.drained = Some(Drained { version, asked: Instant::now(), is_tracked });
        Ok(())
    }

    /// The server from which it reads.
    pub(super) fn endpoint(&self) -> &Endpoint {
        self.node.link.endpoint()
    }

    async fn open_own(&mut self) -> Result<()> {
        // Boxed, so that readers that share connections reserve no memory for it.
        let (connection, id) = self.shared.member.open_own().boxed().await?;
        self.own = Own::Open(connection);
        self.shared.waker.waits_on(Some((self.node.link.clone(), id)));
        Ok(())
    }

    fn close_own(&mut self) {
        if let Own::Closed = self.own {
            return;
        }
        self.own = Own::Closed;
        self.shared.losses = None;
        self.shared.waker.waits_on(None);
    }

    /// Acknowledges and reads without waiting, at a node to which the queue is moving.
    pub(super) async fn read_asking(
        &mut self,
        to: &Endpoint,
        request: &ReadRequest<'_>,
    ) -> Result<ReadReply> {
        let (mut connection, _) = open_reading(to).boxed().await?;
        let (pipeline, acknowledgements) = self.pipeline(request, None, false);
        let (asking, is_added) = asking(&pipeline);
        let patience = Patience { first: self.margin, silence: self.margin };
        let answers = connection.exchange(&asking, patience).await;
        let answers = answers.map_err(|error| answer_lost(&error))?.into_iter().zip(is_added);
        let answers = answers.filter(|(_, is_added)| !is_added).map(|(answer, _)| answer);
        reply(request, &acknowledgements, answers.collect()).map(|(reply, _)| reply)
    }

    /// Acknowledges, then reads. Not cancel safe.
    pub(super) async fn read(&mut self, request: &ReadRequest<'_>) -> Result<ReadReply> {
        if request.count == 0 && request.acks.is_empty() {
            return Ok(nothing());
        }
        if self.shared.member.shares() {
            self.close_own();
            self.read_shared(request).await
        } else {
            self.read_alone(request).await
        }
    }

    /// Acknowledges, then reads and waits, on the reader's own connection.
    async fn read_alone(&mut self, request: &ReadRequest<'_>) -> Result<ReadReply> {
        if let Own::Closed = self.own {
            self.open_own().await?;
        }
        self.shared.member.close_shared();
        // Taken out, and put back only after the answer: an unanswered read may still be on the
        // connection, and its entries would be lost.
        let Own::Open(mut connection) = std::mem::replace(&mut self.own, Own::Broken) else {
            return Err(not_connected());
        };
        let (pipeline, acknowledgements) = self.pipeline(request, request.block, false);
        let first = request.block.unwrap_or_default() + self.margin;
        let patience = Patience { first, silence: self.margin };
        let answers = connection.exchange(&pipeline, patience).await;
        let answers = answers.map_err(|error| answer_lost(&error))?;
        if !answers.iter().any(|answer| answer.is_of_wrong_server(self.endpoint())) {
            self.own = Own::Open(connection);
        }
        let (reply, _) = reply(request, &acknowledgements, answers)?;
        self.shared.learn(request, &reply);
        Ok(reply)
    }

    /// Acknowledges and reads over a shared connection, and waits in this process.
    async fn read_shared(&mut self, request: &ReadRequest<'_>) -> Result<ReadReply> {
        let Some(block) = request.block.filter(|_| request.count > 0) else {
            return match self.waits_here && request.count > 0 && !request.inlet.is_lane() {
                true => self.read_tracked(request).await,
                false => Ok(self.exchange(request, false).await?.0),
            };
        };
        let until = Instant::now() + block;
        loop {
            if let Some(drained) = self.shared.drained {
                match self.shared.wait_after(drained, block, until).await {
                    Wait::Changed => self.shared.drained = None,
                    Wait::Late => return Ok(nothing()),
                    Wait::Woken => {
                        self.shared.drained = None;
                        return Ok(nothing());
                    }
                }
            }
            if !self.shared.member.shares() {
                return Ok(nothing());
            }
            if self.shared.losses.as_ref().is_some_and(Losses::have_grown) {
                return Err(not_connected());
            }
            let reply = self.read_tracked(request).await?;
            let ReadReply { acknowledged: Ok(_), deliveries: Ok(read) } = &reply else {
                return Ok(reply);
            };
            if !request.acks.is_empty() || !read.is_empty() || Instant::now() >= until {
                return Ok(reply);
            }
        }
    }

    /// Reads the stream once, and notes whether that left anything.
    async fn read_tracked(&mut self, request: &ReadRequest<'_>) -> Result<ReadReply> {
        let version = self.shared.watch.version();
        let (reply, is_tracked) = self.exchange(request, true).await?;
        if matches!(&reply.deliveries, Ok(read) if read.len() < request.count) {
            let asked = Instant::now();
            self.shared.drained = Some(Drained { version, asked, is_tracked });
        }
        Ok(reply)
    }

    /// One round trip without a wait. Returns the reply, and whether the server will report when the
    /// stream changes.
    async fn exchange(
        &mut self,
        request: &ReadRequest<'_>,
        tracks: bool,
    ) -> Result<(ReadReply, bool)> {
        let (pipeline, acknowledgements) = self.pipeline(request, None, tracks);
        let exchange = Exchange {
            pipeline,
            bytes: self.shared.expected_bytes(request.count),
            silence: self.margin,
        };
        let (answers, is_tracked) = self.shared.exchange(exchange).await?;
        let (reply, remembered) = reply(request, &acknowledgements, answers)?;
        self.shared.learn(request, &reply);
        Ok((reply, is_tracked && remembered))
    }

    /// The commands of a request. With `tracks`, the server is told before the read to remember the key.
    fn pipeline(
        &self,
        request: &ReadRequest<'_>,
        block: Option<Duration>,
        tracks: bool,
    ) -> (Pipeline, Acknowledgements) {
        let mut pipeline = Pipeline::with_capacity(3);
        let acknowledgements = Acknowledgements::add_to(&mut pipeline, &self.queue, request.acks);
        // `COUNT 0` means no limit.
        if request.count > 0 {
            let key = self.keys.get(request.inlet.index());
            if tracks {
                pipeline.cmd("XLEN").arg(key);
            }
            pipeline.add_command(self.command(request, block));
        }
        (pipeline, acknowledgements)
    }

    fn command(&self, request: &ReadRequest<'_>, block: Option<Duration>) -> Cmd {
        let mut command = redis::cmd(XREADGROUP);
        command.arg("GROUP").arg(self.queue.group.as_str()).arg(self.consumer.as_str());
        command.arg("COUNT").arg(request.count);
        if let Some(block) = block {
            // `BLOCK 0` waits without a limit.
            command.arg("BLOCK").arg(milliseconds(block).max(1));
        }
        command.arg("STREAMS").arg(self.keys.get(request.inlet.index())).arg(">");
        command
    }
}

impl Shared {
    /// About how many bytes a read returns that asks for this many entries. Most readers with a hundred
    /// free slots wait for a single entry.
    fn expected_bytes(&self, count: usize) -> usize {
        let expected = self.partial.map_or(count, |last| count.min(2 * last + FEW));
        expected.saturating_mul(self.entry_bytes)
    }

    /// Learns how many entries a read returns, and how large they are.
    fn learn(&mut self, request: &ReadRequest<'_>, reply: &ReadReply) {
        let Ok(deliveries) = &reply.deliveries else { return };
        if request.count > 0 {
            self.partial = (deliveries.len() < request.count).then_some(deliveries.len());
        }
        let bytes = deliveries.iter().map(|delivery| delivery.entry.bytes()).sum::<usize>();
        if let Some(mean) = bytes.checked_div(deliveries.len()) {
            self.entry_bytes = mean;
        }
    }

    /// Waits after a read that left nothing, until it is worth reading again.
    async fn wait_after(&self, drained: Drained, block: Duration, until: Instant) -> Wait {
        let Drained { version, asked, is_tracked } = drained;
        let every = if is_tracked { self.member.ask_every(block) } else { UNTRACKED_WAIT };
        if asked.elapsed() >= every {
            return Wait::Changed;
        }
        if is_tracked {
            return self.wait(version, until).await;
        }
        match self.wait(version, until.min(asked + every)).await {
            Wait::Late if Instant::now() < until => Wait::Changed,
            ended => ended,
        }
    }

    /// Waits until the stream has changed.
    async fn wait(&self, version: u64, until: Instant) -> Wait {
        tokio::select! {
            biased;
            () = self.watch.changed_from(version) => Wait::Changed,
            () = self.waker.woken.notified() => Wait::Woken,
            () = sleep_until(until) => Wait::Late,
        }
    }

    /// Checks that the server answers.
    async fn check(&mut self, silence: Duration) -> Result<()> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("PING");
        self.exchange(Exchange { pipeline, bytes: 0, silence }).await.map(drop)
    }

    async fn exchange(&mut self, exchange: Exchange) -> Result<(Vec<Answer>, bool)> {
        let Answered { answers, is_tracked, losses } = self.member.exchange(exchange).await?;
        self.losses = Some(losses);
        Ok((answers, is_tracked))
    }
}

/// How a wait in this process ended.
enum Wait {
    /// The stream has changed, or may have changed.
    Changed,
    /// Another loop ended the wait.
    Woken,
    Late,
}

fn nothing() -> ReadReply {
    ReadReply { acknowledged: Ok(0), deliveries: Ok(Vec::new()) }
}

/// Reads the answers. Returns the reply, and whether the server has remembered the key.
fn reply(
    request: &ReadRequest<'_>,
    acknowledgements: &Acknowledgements,
    mut answers: Vec<Answer>,
) -> Result<(ReadReply, bool)> {
    let read = if request.count > 0 { answers.pop() } else { None };
    let values = answers.into_iter().map(Answer::value).collect::<RedisResult<Vec<_>>>();
    let mut values = values.map_err(|error| answer_lost(&error))?.into_iter();
    let acknowledged = acknowledgements.read(&mut values);
    let remembered = matches!(values.next(), Some(Value::Int(_)));
    let deliveries =
        read.map_or(Ok(Vec::new()), |answer| answer.deliveries(request.inlet, XREADGROUP));
    Ok((ReadReply { acknowledged, deliveries }, remembered))
}

const XREADGROUP: &str = "XREADGROUP";
/// A read is expected to return at most twice as many entries as the last read did, and this many more.
const FEW: usize = 4;
/// How often the stream is read while the server does not report its changes.
const UNTRACKED_WAIT: Duration = Duration::from_millis(250);
/// The size of entries that is assumed until the first read has shown how large they are. Few entries are asked for
/// until then.
const ENTRY_BYTES_ASSUMED: usize = 16 * 1024;
