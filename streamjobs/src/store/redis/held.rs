//! Steps on entries that a consumer holds, or takes over: all owner-checked.

use std::time::Duration;

use redis::{Cmd, Value};

use super::acknowledge::{Acknowledgements, IDS_MAX, Id, add_ids};
use super::net::Link;
use super::{milliseconds, reply};
use crate::model::entry::{EntryId, Fields};
use crate::model::name::ConsumerName;
use crate::store::script::{self, Script};
use crate::store::{
    ClaimedPage, Delivery, FenceResult, Hold, Idle, IdleClaim, Inlet, Queue, Renewed, ServerTime,
    StoreError,
};

/// One consumer's work on one queue.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    pub(super) link: &'a Link,
    pub(super) queue: &'a Queue,
    pub(super) consumer: &'a ConsumerName,
}

/// What differs between the steps that store a job's next form.
struct Settle<'a> {
    script: &'static Script,
    /// Beside the stream and the dead letters.
    keys: &'a [&'a str],
    delay: Option<u64>,
}

impl Held<'_> {
    pub(super) async fn renew(self, holds: &[Hold]) -> Result<Renewed, StoreError> {
        let name = script::RENEW.name;
        let mut answers = vec![FenceResult::NotPending; holds.len()];
        let mut now = ServerTime(0);
        for (inlet, places) in chunks(holds) {
            let (key, dead) = (self.queue.key(inlet), self.dead_key());
            let add = |command: &mut Cmd| self.add_holds(command, inlet, &[], holds, &places);
            let value = self.link.script(&script::RENEW, &[&key, &dead], add).await?;
            let mut items = reply::items(value, name)?.into_iter();
            let clock = items.next().ok_or(StoreError::Protocol { command: name })?;
            now = ServerTime(reply::number(clock, name)?);
            fill(&mut answers, &places, items, name)?;
        }
        if holds.is_empty() {
            now = super::now(self.link).await?;
        }
        Ok(Renewed { now, answers })
    }

    pub(super) async fn release(
        self,
        lease: Duration,
        holds: &[Hold],
    ) -> Result<Vec<FenceResult>, StoreError> {
        let idle = milliseconds(lease.saturating_add(RELEASED_IDLE));
        let mut answers = vec![FenceResult::NotPending; holds.len()];
        for (inlet, places) in chunks(holds) {
            let (key, dead) = (self.queue.key(inlet), self.dead_key());
            let hash = self.queue.stream.group_key(&self.queue.group);
            let add = |command: &mut Cmd| self.add_holds(command, inlet, &[idle], holds, &places);
            let value = self.link.script(&script::RELEASE, &[&key, &dead, &hash], add).await?;
            let items = reply::items(value, script::RELEASE.name)?.into_iter();
            fill(&mut answers, &places, items, script::RELEASE.name)?;
        }
        Ok(answers)
    }

    pub(super) async fn recover(self, holds: &[Hold]) -> Result<Vec<Delivery>, StoreError> {
        let mut deliveries = Vec::with_capacity(holds.len());
        for (inlet, places) in chunks(holds) {
            let (key, dead) = (self.queue.key(inlet), self.dead_key());
            let add = |command: &mut Cmd| self.add_holds(command, inlet, &[], holds, &places);
            let value = self.link.script(&script::RECOVER, &[&key, &dead], add).await?;
            deliveries.extend(reply::deliveries(value, inlet, script::RECOVER.name)?);
        }
        Ok(deliveries)
    }

    pub(super) async fn schedule_retry(
        self,
        hold: Hold,
        trimmed: Option<EntryId>,
        delay: Duration,
        job: &Fields,
    ) -> Result<FenceResult, StoreError> {
        let stream = &self.queue.stream;
        let (retry, records) =
            (stream.retry_key(&self.queue.group), stream.retry_records_key(&self.queue.group));
        let delay = milliseconds(delay).min(DELAY_MAX);
        let step = Settle {
            script: &script::SCHEDULE_RETRY,
            keys: &[&retry, &records],
            delay: Some(delay),
        };
        self.settle(step, hold, trimmed, job).await
    }

    pub(super) async fn store_dead_letter(
        self,
        hold: Hold,
        trimmed: Option<EntryId>,
        letter: &Fields,
    ) -> Result<FenceResult, StoreError> {
        let step = Settle { script: &script::STORE_DEAD_LETTER, keys: &[], delay: None };
        self.settle(step, hold, trimmed, letter).await
    }

    pub(super) async fn claim_idle(self, sweep: IdleClaim<'_>) -> Result<ClaimedPage, StoreError> {
        let name = script::CLAIM_IDLE.name;
        let (key, dead) = (self.queue.key(sweep.inlet), self.dead_key());
        // Nothing can come after the highest id, and the server refuses to look there.
        let cursor = if sweep.cursor == EntryId::MAX { EntryId::ZERO } else { sweep.cursor };
        let add = |command: &mut Cmd| {
            self.add_owner(command, sweep.inlet).arg(milliseconds(sweep.lease)).arg(Id(cursor));
            command.arg(sweep.limit.min(IDS_MAX)).arg(ROWS_MAX);
            match sweep.expected {
                Some((ServerTime(clock), tolerance)) => {
                    command.arg(clock).arg(milliseconds(tolerance))
                }
                None => command.arg("").arg(0),
            };
            add_ids(command, sweep.skip);
        };
        let value = self.link.script(&script::CLAIM_IDLE, &[&key, &dead], add).await?;
        let mut items = reply::items(value, name)?.into_iter();
        let mut next = || items.next().ok_or(StoreError::Protocol { command: name });
        match reply::text(next()?, name)?.as_str() {
            "skew" => Ok(ClaimedPage::ClockOff { now: ServerTime(reply::number(next()?, name)?) }),
            "page" => Ok(ClaimedPage::Page {
                cursor: reply::id(next()?, name)?,
                claimed: reply::deliveries(next()?, sweep.inlet, name)?,
                trimmed: reply::size(&next()?, name)?,
                left: reply::size(&next()?, name)?,
            }),
            _ => Err(StoreError::Protocol { command: name }),
        }
    }

    pub(super) async fn own_pending(
        self,
        inlet: Inlet,
        cursor: EntryId,
        limit: usize,
    ) -> Result<Vec<Hold>, StoreError> {
        if cursor == EntryId::MAX || limit == 0 {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd(XPENDING);
        command.arg(self.queue.key(inlet)).arg(self.queue.group.as_str());
        command.arg(format!("({cursor}")).arg("+").arg(limit).arg(self.consumer.as_str());
        let rows = reply::items(self.link.command(&command).await?, XPENDING)?;
        rows.into_iter().map(|row| hold(inlet, row)).collect()
    }

    async fn settle(
        self,
        step: Settle<'_>,
        hold: Hold,
        trimmed: Option<EntryId>,
        fields: &Fields,
    ) -> Result<FenceResult, StoreError> {
        let (key, dead) = (self.queue.key(hold.inlet), self.dead_key());
        let keys = [&[key.as_str(), &dead], step.keys].concat();
        let add = |command: &mut Cmd| {
            self.add_owner(command, hold.inlet).arg(Id(hold.id)).arg(hold.delivery_count);
            match trimmed {
                Some(letter) => command.arg(Id(letter)),
                None => command.arg(""),
            };
            command.arg(step.delay);
            add_fields(command, fields);
        };
        let value = self.link.script(step.script, &keys, add).await?;
        checked(value, step.script.name)
    }

    fn dead_key(&self) -> String {
        self.queue.stream.dead_key(&self.queue.group)
    }

    fn add_owner<'c>(&self, command: &'c mut Cmd, inlet: Inlet) -> &'c mut Cmd {
        let (group, consumer) = (self.queue.group.as_str(), self.consumer.as_str());
        command.arg(group).arg(consumer).arg(inlet.as_str())
    }

    fn add_holds(
        &self,
        command: &mut Cmd,
        inlet: Inlet,
        more: &[u64],
        holds: &[Hold],
        places: &[usize],
    ) {
        self.add_owner(command, inlet).arg(more);
        for hold in places.iter().filter_map(|place| holds.get(*place)) {
            command.arg(Id(hold.id)).arg(hold.delivery_count);
        }
    }
}

/// Acknowledges, whoever owns the entries.
pub(super) async fn acknowledge(
    link: &Link,
    queue: &Queue,
    acks: &[(Inlet, EntryId)],
) -> Result<usize, StoreError> {
    if acks.is_empty() {
        return Ok(0);
    }
    let mut pipeline = redis::pipe();
    let acknowledgements = Acknowledgements::add_to(&mut pipeline, queue, acks);
    acknowledgements.read(&mut link.pipeline(&pipeline).await?.into_iter())
}

/// Whether some entry has been idle for the lease. The server stops at the first that is.
pub(super) async fn has_idle(
    link: &Link,
    queue: &Queue,
    inlet: Inlet,
    lease: Duration,
    valid: Duration,
) -> Result<Idle, StoreError> {
    let keys = [queue.key(inlet), queue.stream.group_key(&queue.group)];
    let [key, hash] = &keys;
    let add = |command: &mut Cmd| {
        command.arg(queue.group.as_str()).arg(inlet.as_str());
        command.arg(milliseconds(lease)).arg(milliseconds(valid));
    };
    match link.script(&script::HAS_IDLE, &[key, hash], add).await? {
        Value::Int(-1) => Ok(Idle::Found),
        ago => {
            let ago = reply::number(ago, script::HAS_IDLE.name)?;
            Ok(Idle::NotFound { ago: Duration::from_millis(ago) })
        }
    }
}

/// Adds names and values to a command.
pub(super) fn add_fields(command: &mut Cmd, fields: &Fields) {
    for (name, value) in fields {
        command.arg(name.as_ref()).arg(value.as_ref());
    }
}

/// The places of holds that one call takes: of one inlet, and not too many.
fn chunks(holds: &[Hold]) -> Vec<(Inlet, Vec<usize>)> {
    let mut chunks = Vec::new();
    for inlet in [Inlet::STREAM, Inlet::LANE] {
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
) -> Result<(), StoreError> {
    for place in places {
        let value = items.next().ok_or(StoreError::Protocol { command })?;
        if let Some(answer) = answers.get_mut(*place) {
            *answer = checked(value, command)?;
        }
    }
    Ok(())
}

pub(super) fn checked(value: Value, command: &'static str) -> Result<FenceResult, StoreError> {
    match value {
        Value::Int(1) => Ok(FenceResult::Owned),
        Value::Int(0) => Ok(FenceResult::TakenOver),
        Value::Int(-1) => Ok(FenceResult::NotPending),
        value => Ok(FenceResult::Trimmed(reply::id(value, command)?)),
    }
}

pub(super) fn hold(inlet: Inlet, row: Value) -> Result<Hold, StoreError> {
    let [id, _, _, count] = reply::tuple(row, XPENDING)?;
    Ok(Hold {
        inlet,
        id: reply::id(id, XPENDING)?,
        delivery_count: reply::number(count, XPENDING)?,
    })
}

const XPENDING: &str = "XPENDING";
/// Rows of the pending list that one sweep looks at: about a millisecond of the server's time.
const ROWS_MAX: usize = 1000;
/// Past every lease, also one that another process has longer than ours.
const RELEASED_IDLE: Duration = Duration::from_secs(24 * 60 * 60);
/// Past every lease that a group may have.
pub(super) const ABANDONED_IDLE: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// A hundred years: later than that, the sum with the clock would lose its milliseconds.
pub(super) const DELAY_MAX: u64 = 100 * 365 * 24 * 60 * 60 * 1000;

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
