//! What a consumer does with entries. Every step that changes a pending entry checks its owner.

mod acknowledge;
mod queue_reader;
mod reader;
mod retries;

use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};

use self::acknowledge::Acknowledgements;
pub(super) use self::acknowledge::{IDS_MAX, Id, add_ids};
use self::queue_reader::QueueReader;
use super::net::Redirect;
use super::script::{Script, scripts};
use super::{RedisStore, milliseconds, packed, reply};
use crate::model::entry::{EntryId, Fields};
use crate::model::name::{ConsumerName, StreamName};
use crate::store::types::Result;
use crate::store::unique::UniqueLock;
use crate::store::{
    ClaimedPage, Consume, Delivery, FenceResult, Hold, Idle, IdleClaim, Inlet, NewRetry, Queue,
    ReaderSetup, Renewed, ServerInfo, ServerTime, StandIn, StoreError, StreamReader,
};

scripts! {
    ACKNOWLEDGE_LATE = "acknowledge_late";
    CLAIM_IDLE = "claim_idle";
    HAS_IDLE = "has_idle";
    NOW = "now";
    RECOVER = "recover";
    RELEASE = "release";
    RENEW = "renew";
    SCHEDULE_RETRIES = "schedule_retries";
}

#[async_trait]
impl Consume for RedisStore {
    async fn reader(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        setup: ReaderSetup,
    ) -> Result<Box<dyn StreamReader>> {
        let reader = QueueReader::open(self, queue, consumer, setup).await?;
        Ok(Box::new(reader))
    }

    async fn wake(&self, reader: u64) -> Result<()> {
        let Some((link, connection)) = self.wakers.wake(reader) else { return Ok(()) };
        let mut command = redis::cmd("CLIENT");
        link.command(command.arg("UNBLOCK").arg(connection)).await.map(drop)
    }

    async fn acknowledge(&self, queue: &Queue, acks: &[(Inlet, EntryId)]) -> Result<usize> {
        if acks.is_empty() {
            return Ok(0);
        }
        let mut pipeline = redis::pipe();
        let acknowledgements = Acknowledgements::add_to(&mut pipeline, queue, acks);
        let answers = self.at(queue.stream.as_str()).repeatable(&pipeline).await?;
        acknowledgements.read(&mut answers.into_iter())
    }

    async fn acknowledge_late(
        &self,
        queue: &Queue,
        consumer: Option<&ConsumerName>,
        acks: &[(Inlet, EntryId)],
    ) -> Result<usize> {
        let mut acknowledged = 0;
        for inlet in Inlet::ALL {
            let ids = acks.iter().filter(|(of, _)| *of == inlet).map(|(_, id)| *id);
            for chunk in ids.collect::<Vec<_>>().chunks(IDS_MAX) {
                let add = |command: &mut Cmd| {
                    let me = consumer.map_or("", ConsumerName::as_str);
                    add_ids(command.arg(queue.group.as_str()).arg(me).arg(inlet.as_str()), chunk);
                };
                let keys = [&*queue.key(inlet), &queue.group_key()];
                let answer = self.script(&ACKNOWLEDGE_LATE, &keys, add).await?;
                acknowledged += reply::size(&answer, ACKNOWLEDGE_LATE.name)?;
            }
        }
        Ok(acknowledged)
    }

    async fn renew(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        holds: &[Hold],
    ) -> Result<Renewed> {
        let mut answers = vec![FenceResult::NotPending; holds.len()];
        let (mut now, mut moves) = (ServerTime(0), 0);
        for (inlet, places) in chunks(holds) {
            let add = |command: &mut Cmd| {
                add_holds(add_owner(command, queue, consumer, inlet), holds, &places);
            };
            let [places_key, ..] = queue.hold_keys();
            let (dead, group) = (queue.dead_key(), queue.group_key());
            let keys = [&*queue.key(inlet), &*group, &*dead, &*places_key];
            let route = self.at(queue.stream.as_str());
            let value = match route.script_now(&RENEW, &keys, add).await {
                // The slot is moving to another node, and most queues have no dead letters: a script that
                // names them is refused until the slot has arrived.
                Err(error) if Redirect::is_pause(&error) => {
                    let [entries, hash, ..] = keys;
                    route.script(&RENEW, &[entries, hash], add).await?
                }
                answer => answer?,
            };
            let mut items = reply::items(value, RENEW.name)?.into_iter();
            now = ServerTime(reply::number(reply::next(&mut items, RENEW.name)?, RENEW.name)?);
            moves = reply::number(reply::next(&mut items, RENEW.name)?, RENEW.name)?;
            fill(&mut answers, &places, items, RENEW.name)?;
        }
        if holds.is_empty() {
            now = self.now(&queue.stream).await?;
        }
        Ok(Renewed { now, moves, answers })
    }

    async fn release(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        holds: &[Hold],
    ) -> Result<Vec<FenceResult>> {
        let mut answers = vec![FenceResult::NotPending; holds.len()];
        for (inlet, places) in chunks(holds) {
            let add = |command: &mut Cmd| {
                add_holds(add_owner(command, queue, consumer, inlet), holds, &places);
            };
            let (key, dead, hash) = (queue.key(inlet), queue.dead_key(), queue.group_key());
            let value = self.script(&RELEASE, &[&key, &dead, &hash], add).await?;
            let items = reply::items(value, RELEASE.name)?.into_iter();
            fill(&mut answers, &places, items, RELEASE.name)?;
        }
        Ok(answers)
    }

    async fn schedule_retries(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        retries: &[NewRetry],
    ) -> Vec<Result<FenceResult>> {
        self.schedule(queue, consumer, retries).await
    }

    async fn has_idle(
        &self,
        queue: &Queue,
        inlet: Inlet,
        lease: Duration,
        valid: Duration,
    ) -> Result<Idle> {
        let keys = [&*queue.key(inlet), &queue.group_key()];
        let times = [lease, valid].map(milliseconds);
        let arguments = (queue.group.as_str(), inlet.as_str(), &times);
        match self.run(&HAS_IDLE, &keys, arguments).await? {
            Value::Int(-1) => Ok(Idle::Found),
            ago => {
                let ago = reply::number(ago, HAS_IDLE.name)?;
                Ok(Idle::NotFound { ago: Duration::from_millis(ago) })
            }
        }
    }

    async fn claim_idle(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        claim: IdleClaim<'_>,
    ) -> Result<ClaimedPage> {
        let name = CLAIM_IDLE.name;
        // No id comes after the highest, and the server refuses a range that begins there.
        let cursor = if claim.cursor == EntryId::MAX { EntryId::ZERO } else { claim.cursor };
        let add = |command: &mut Cmd| {
            let command = add_owner(command, queue, consumer, claim.inlet);
            command.arg(milliseconds(claim.lease)).arg(Id(cursor));
            command.arg(claim.limit.min(IDS_MAX)).arg(ROWS_MAX);
            match claim.expected {
                Some((ServerTime(clock), tolerance)) => {
                    command.arg(clock).arg(milliseconds(tolerance))
                }
                None => command.arg("").arg(0),
            };
            add_ids(command, claim.skip);
        };
        let keys = [&*queue.key(claim.inlet), &queue.dead_key(), &queue.group_key()];
        let value = self.at(keys[0]).script_answering(&CLAIM_IDLE, &keys, add, PAGE_BYTES).await?;
        let mut items = reply::items(value, name)?.into_iter();
        let mut next = || reply::next(&mut items, name);
        match reply::text(next()?, name)?.as_str() {
            "skew" => Ok(ClaimedPage::ClockOff { now: ServerTime(reply::number(next()?, name)?) }),
            "page" => Ok(ClaimedPage::Page {
                cursor: reply::id(next()?, name)?,
                claimed: packed::deliveries(next()?, claim.inlet, name)?,
                trimmed: reply::size(&next()?, name)?,
                left: reply::size(&next()?, name)?,
                released: reply::size(&next()?, name)?,
            }),
            _ => Err(StoreError::Protocol { command: name }),
        }
    }

    async fn own_pending(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        inlet: Inlet,
        cursor: EntryId,
        limit: usize,
    ) -> Result<Vec<Hold>> {
        if cursor == EntryId::MAX || limit == 0 {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd(XPENDING);
        command.arg(queue.key(inlet)).arg(queue.group.as_str());
        command.arg(format!("({cursor}")).arg("+").arg(limit).arg(consumer.as_str());
        let rows = reply::items(self.at(queue.stream.as_str()).command(&command).await?, XPENDING)?;
        rows.into_iter().map(|row| hold(inlet, row)).collect()
    }

    async fn recover(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        holds: &[Hold],
    ) -> Result<Vec<Delivery>> {
        let mut deliveries = Vec::with_capacity(holds.len());
        for (inlet, places) in chunks(holds) {
            let add = |command: &mut Cmd| {
                add_holds(add_owner(command, queue, consumer, inlet), holds, &places);
            };
            let keys = [&*queue.key(inlet), &queue.dead_key()];
            let value = self.at(keys[0]).script_answering(&RECOVER, &keys, add, PAGE_BYTES).await?;
            deliveries.extend(packed::deliveries(value, inlet, RECOVER.name)?);
        }
        Ok(deliveries)
    }
}

/// An entry to settle, and the fields that are stored in its place.
pub(super) struct Settled<'a> {
    pub(super) consumer: &'a ConsumerName,
    pub(super) hold: Hold,
    pub(super) stand_in: Option<StandIn>,
    pub(super) fields: &'a Fields,
}

impl RedisStore {
    /// The clock of the node that has a stream, read by a script on the stream, so that there is no answer while the
    /// slot cannot be used.
    pub(super) async fn clock_of_slot(&self, stream: &StreamName) -> Result<ServerTime> {
        let value = self.script(&NOW, &[stream.as_str()], |_| ()).await?;
        reply::number(value, NOW.name).map(ServerTime)
    }

    /// Stores a job's next form and acknowledges its entry.
    pub(super) async fn settle(
        &self,
        script: &'static Script,
        queue: &Queue,
        settled: Settled<'_>,
    ) -> Result<FenceResult> {
        let Settled { consumer, hold, stand_in, fields } = settled;
        let (key, dead) = (queue.key(hold.inlet), queue.dead_key());
        let lock = UniqueLock::of_letter(fields, &queue.group);
        let lock_key = lock.as_ref().map(|lock| queue.stream.unique_key(lock.digest.as_str()));
        let keys = [key.as_str(), &dead].into_iter().chain(lock_key.as_deref());
        let add = |command: &mut Cmd| {
            add_owner(command, queue, consumer, hold.inlet);
            add_settled(command, hold, stand_in);
            command.arg(lock.as_ref().map_or("", |lock| lock.event_id.as_str()));
            add_fields(command, fields);
        };
        let keys = keys.collect::<Vec<_>>();
        fence_result(self.script(script, &keys, add).await?, script.name)
    }
}

fn add_owner<'c>(
    command: &'c mut Cmd,
    queue: &Queue,
    consumer: &ConsumerName,
    inlet: Inlet,
) -> &'c mut Cmd {
    command.arg(queue.group.as_str()).arg(consumer.as_str()).arg(inlet.as_str())
}

fn add_holds(command: &mut Cmd, holds: &[Hold], places: &[usize]) {
    for hold in places.iter().filter_map(|place| holds.get(*place)) {
        command.arg(Id(hold.id)).arg(hold.delivery_count);
    }
}

/// Adds an entry to settle, and its stand-in.
fn add_settled(command: &mut Cmd, hold: Hold, stand_in: Option<StandIn>) {
    command.arg(Id(hold.id)).arg(hold.delivery_count);
    match stand_in {
        Some(StandIn::DeadLetter(letter)) => command.arg(Id(letter)),
        Some(StandIn::Removed) => command.arg("removed"),
        None => command.arg(""),
    };
}

/// Adds names and values to a command.
pub(super) fn add_fields(command: &mut Cmd, fields: &Fields) {
    for (name, value) in fields {
        command.arg(name.as_ref()).arg(value.as_ref());
    }
}

/// The indexes of the holds that one call takes: holds of one inlet, and not too many.
fn chunks(holds: &[Hold]) -> Vec<(Inlet, Vec<usize>)> {
    let mut chunks = Vec::new();
    for inlet in Inlet::ALL {
        let places = holds.iter().enumerate().filter(|(_, hold)| hold.inlet == inlet);
        let places = places.map(|(place, _)| place).collect::<Vec<_>>();
        chunks.extend(places.chunks(IDS_MAX).map(|chunk| (inlet, chunk.to_vec())));
    }
    chunks
}

fn fill(
    answers: &mut [FenceResult],
    places: &[usize],
    mut items: impl Iterator<Item = Value>,
    command: &'static str,
) -> Result<()> {
    for place in places {
        let value = reply::next(&mut items, command)?;
        if let Some(answer) = answers.get_mut(*place) {
            *answer = fence_result(value, command)?;
        }
    }
    Ok(())
}

pub(super) fn fence_result(value: Value, command: &'static str) -> Result<FenceResult> {
    match value {
        Value::Int(1) => Ok(FenceResult::Owned),
        Value::Int(0) => Ok(FenceResult::TakenOver),
        Value::Int(-1) => Ok(FenceResult::NotPending),
        Value::Int(-2) => Ok(FenceResult::Undelivered),
        value => Ok(FenceResult::Trimmed(reply::id(value, command)?)),
    }
}

pub(super) fn hold(inlet: Inlet, row: Value) -> Result<Hold> {
    let [id, _, _, count] = reply::tuple(row, XPENDING)?;
    Ok(Hold {
        inlet,
        id: reply::id(id, XPENDING)?,
        delivery_count: reply::number(count, XPENDING)?,
    })
}

const XPENDING: &str = "XPENDING";
/// How many rows of the pending list one claim scans: about a millisecond of the server's time.
const ROWS_MAX: usize = 1000;
/// How many bytes the payloads of one claim have at most, unless a single one has more.
const PAGE_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_of_both_sources_keep_their_places() {
        let hold = |inlet, number| Hold { inlet, id: EntryId::new(number, 0), delivery_count: 1 };
        let mut holds = vec![hold(Inlet::LANE, 1), hold(Inlet::STREAM, 2), hold(Inlet::LANE, 3)];
        assert_eq!(chunks(&holds), [(Inlet::STREAM, vec![1]), (Inlet::LANE, vec![0, 2])]);
        let mut answers = vec![FenceResult::NotPending; 3];
        let values = [Value::Int(1), Value::BulkString(b"9-1".to_vec())].into_iter();
        fill(&mut answers, &[0, 2], values, "test").unwrap();
        let trimmed = FenceResult::Trimmed(EntryId::new(9, 1));
        assert_eq!(answers, [FenceResult::Owned, FenceResult::NotPending, trimmed]);
        holds.extend(vec![hold(Inlet::STREAM, 4); 1000]);
        assert_eq!(
            chunks(&holds).iter().map(|(_, places)| places.len()).collect::<Vec<_>>(),
            [500, 500, 1, 2]
        );
    }

    #[test]
    fn pending_rows_are_read_as_signed_numbers() {
        let row = b"*4\r\n$3\r\n5-1\r\n$0\r\n\r\n:-1\r\n:9223372036854775807\r\n";
        let hold = hold(Inlet::STREAM, redis::parse_redis_value(row).unwrap()).unwrap();
        assert_eq!((hold.id, hold.delivery_count), (EntryId::new(5, 1), i64::MAX as u64));
    }
}
