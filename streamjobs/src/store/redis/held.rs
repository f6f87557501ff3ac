//! Steps on entries that a consumer holds, or takes over: all owner-checked.

use std::time::Duration;

use redis::{Cmd, Value};

use super::acknowledge::{Acknowledgements, IDS_MAX, Id, add_ids};
use super::connection::Link;
use super::{milliseconds, reply};
use crate::entry::{EntryId, Fields};
use crate::name::ConsumerName;
use crate::store::script::{self, Script};
use crate::store::{
    Checked, Delivery, Hold, Idle, Queue, Renewed, ServerTime, Source, StoreError, Sweep, Swept,
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
        let mut answers = vec![Checked::NotPending; holds.len()];
        let mut now = ServerTime(0);
        for (source, places) in chunks(holds) {
            let (key, dead) = (self.queue.key(source), self.dead_key());
            let add = |command: &mut Cmd| self.add_holds(command, source, &[], holds, &places);
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
    ) -> Result<Vec<Checked>, StoreError> {
        let idle = milliseconds(lease.saturating_add(RELEASED_IDLE));
        let mut answers = vec![Checked::NotPending; holds.len()];
        for (source, places) in chunks(holds) {
            let (key, dead) = (self.queue.key(source), self.dead_key());
            let hash = self.queue.stream.group_key(&self.queue.group);
            let add = |command: &mut Cmd| self.add_holds(command, source, &[idle], holds, &places);
            let value = self.link.script(&script::RELEASE, &[&key, &dead, &hash], add).await?;
            let items = reply::items(value, script::RELEASE.name)?.into_iter();
            fill(&mut answers, &places, items, script::RELEASE.name)?;
        }
        Ok(answers)
    }

    pub(super) async fn recover(self, holds: &[Hold]) -> Result<Vec<Delivery>, StoreError> {
        let mut deliveries = Vec::with_capacity(holds.len());
        for (source, places) in chunks(holds) {
            let (key, dead) = (self.queue.key(source), self.dead_key());
            let add = |command: &mut Cmd| self.add_holds(command, source, &[], holds, &places);
            let value = self.link.script(&script::RECOVER, &[&key, &dead], add).await?;
            deliveries.extend(reply::deliveries(value, source, script::RECOVER.name)?);
        }
        Ok(deliveries)
    }

    pub(super) async fn set_aside(
        self,
        hold: Hold,
        trimmed: Option<EntryId>,
        delay: Duration,
        job: &Fields,
    ) -> Result<Checked, StoreError> {
        let stream = &self.queue.stream;
        let (retry, records) =
            (stream.retry_key(&self.queue.group), stream.retry_records_key(&self.queue.group));
        let delay = milliseconds(delay).min(DELAY_MAX);
        let step =
            Settle { script: &script::SET_ASIDE, keys: &[&retry, &records], delay: Some(delay) };
        self.settle(step, hold, trimmed, job).await
    }

    pub(super) async fn bury(
        self,
        hold: Hold,
        trimmed: Option<EntryId>,
        letter: &Fields,
    ) -> Result<Checked, StoreError> {
        let step = Settle { script: &script::BURY, keys: &[], delay: None };
        self.settle(step, hold, trimmed, letter).await
    }

    pub(super) async fn sweep(self, sweep: Sweep<'_>) -> Result<Swept, StoreError> {
        let name = script::SWEEP.name;
        let (key, dead) = (self.queue.key(sweep.source), self.dead_key());
        // Nothing can come after the highest id, and the server refuses to look there.
        let cursor = if sweep.cursor == EntryId::MAX { EntryId::ZERO } else { sweep.cursor };
        let add = |command: &mut Cmd| {
            self.add_owner(command, sweep.source).arg(milliseconds(sweep.lease)).arg(Id(cursor));
            command.arg(sweep.limit.min(IDS_MAX)).arg(ROWS_MAX);
            match sweep.expected {
                Some((ServerTime(clock), tolerance)) => {
                    command.arg(clock).arg(milliseconds(tolerance))
                }
                None => command.arg("").arg(0),
            };
            add_ids(command, sweep.skip);
        };
        let value = self.link.script(&script::SWEEP, &[&key, &dead], add).await?;
        let mut items = reply::items(value, name)?.into_iter();
        let mut next = || items.next().ok_or(StoreError::Protocol { command: name });
        match reply::text(next()?, name)?.as_str() {
            "skew" => Ok(Swept::ClockOff { now: ServerTime(reply::number(next()?, name)?) }),
            "page" => Ok(Swept::Page {
                cursor: reply::id(next()?, name)?,
                claimed: reply::deliveries(next()?, sweep.source, name)?,
                trimmed: reply::size(&next()?, name)?,
                left: reply::size(&next()?, name)?,
            }),
            _ => Err(StoreError::Protocol { command: name }),
        }
    }

    pub(super) async fn own_pending(
        self,
        source: Source,
        cursor: EntryId,
        limit: usize,
    ) -> Result<Vec<Hold>, StoreError> {
        if cursor == EntryId::MAX || limit == 0 {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd(XPENDING);
        command.arg(self.queue.key(source)).arg(self.queue.group.as_str());
        command.arg(format!("({cursor}")).arg("+").arg(limit).arg(self.consumer.as_str());
        let rows = reply::items(self.link.command(&command).await?, XPENDING)?;
        rows.into_iter().map(|row| hold(source, row)).collect()
    }

    async fn settle(
        self,
        step: Settle<'_>,
        hold: Hold,
        trimmed: Option<EntryId>,
        fields: &Fields,
    ) -> Result<Checked, StoreError> {
        let (key, dead) = (self.queue.key(hold.source), self.dead_key());
        let keys = [&[key.as_str(), &dead], step.keys].concat();
        let add = |command: &mut Cmd| {
            self.add_owner(command, hold.source).arg(Id(hold.id)).arg(hold.delivery_count);
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

    fn add_owner<'c>(&self, command: &'c mut Cmd, source: Source) -> &'c mut Cmd {
        let (group, consumer) = (self.queue.group.as_str(), self.consumer.as_str());
        command.arg(group).arg(consumer).arg(name_of(source))
    }

    fn add_holds(
        &self,
        command: &mut Cmd,
        source: Source,
        more: &[u64],
        holds: &[Hold],
        places: &[usize],
    ) {
        self.add_owner(command, source).arg(more);
        for hold in places.iter().filter_map(|place| holds.get(*place)) {
            command.arg(Id(hold.id)).arg(hold.delivery_count);
        }
    }
}

/// What scripts call a source.
fn name_of(source: Source) -> &'static str {
    match source {
        Source::Stream => "stream",
        Source::Lane => "lane",
    }
}

/// Acknowledges, whoever owns the entries.
pub(super) async fn acknowledge(
    link: &Link,
    queue: &Queue,
    acks: &[(Source, EntryId)],
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
    source: Source,
    lease: Duration,
    valid: Duration,
) -> Result<Idle, StoreError> {
    let keys = [queue.key(source), queue.stream.group_key(&queue.group)];
    let [key, hash] = &keys;
    let add = |command: &mut Cmd| {
        command.arg(queue.group.as_str()).arg(name_of(source));
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

/// The places of holds that one call takes: of one source, and not too many.
fn chunks(holds: &[Hold]) -> Vec<(Source, Vec<usize>)> {
    let mut chunks = Vec::new();
    for source in [Source::Stream, Source::Lane] {
        let places = holds.iter().enumerate().filter(|(_, hold)| hold.source == source);
        let places = places.map(|(place, _)| place).collect::<Vec<_>>();
        chunks.extend(places.chunks(IDS_MAX).map(|chunk| (source, chunk.to_vec())));
    }
    chunks
}

fn fill(
    answers: &mut [Checked],
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

pub(super) fn checked(value: Value, command: &'static str) -> Result<Checked, StoreError> {
    match value {
        Value::Int(1) => Ok(Checked::Held),
        Value::Int(0) => Ok(Checked::TakenOver),
        Value::Int(-1) => Ok(Checked::NotPending),
        value => Ok(Checked::Trimmed(reply::id(value, command)?)),
    }
}

pub(super) fn hold(source: Source, row: Value) -> Result<Hold, StoreError> {
    let [id, _, _, count] = reply::tuple(row, XPENDING)?;
    Ok(Hold {
        source,
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
        let hold = |source, number| Hold { source, id: EntryId::new(number, 0), delivery_count: 1 };
        let mut holds = vec![hold(Source::Lane, 1), hold(Source::Stream, 2), hold(Source::Lane, 3)];
        assert_eq!(chunks(&holds), [(Source::Stream, vec![1]), (Source::Lane, vec![0, 2])]);
        let mut answers = vec![Checked::NotPending; 3];
        let values = [Value::Int(1), Value::BulkString(b"9-1".to_vec())].into_iter();
        fill(&mut answers, &[0, 2], values, "test").unwrap();
        let trimmed = Checked::Trimmed(EntryId::new(9, 1));
        assert_eq!(answers, [Checked::Held, Checked::NotPending, trimmed]);
        holds.extend(vec![hold(Source::Stream, 4); 1000]);
        assert_eq!(
            chunks(&holds).iter().map(|(_, places)| places.len()).collect::<Vec<_>>(),
            [500, 500, 1, 2]
        );
    }

    #[test]
    fn pending_rows_are_read_as_signed_numbers() {
        let row = b"*4\r\n$3\r\n5-1\r\n$0\r\n\r\n:-1\r\n:9223372036854775807\r\n";
        let hold = hold(Source::Stream, redis::parse_redis_value(row).unwrap()).unwrap();
        assert_eq!((hold.id, hold.delivery_count), (EntryId::new(5, 1), i64::MAX as u64));
    }
}
