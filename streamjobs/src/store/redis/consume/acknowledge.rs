//! Acknowledging, alone or in front of a read.

use redis::{Cmd, Pipeline, RedisWrite, ToRedisArgs, Value};
use smallvec::SmallVec;

use crate::model::entry::EntryId;
use crate::store::redis::net::accepted;
use crate::store::redis::reply;
use crate::store::{Inlet, Queue, StoreError};

/// An id as an argument, written without allocating.
pub(in crate::store::redis) struct Id(pub(in crate::store::redis) EntryId);

impl ToRedisArgs for Id {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg(IdText::default().of(self.0));
    }
}

/// The texts of ids that are written one after the other. Every job writes an id, and most ids have the same
/// milliseconds as the id before.
#[derive(Debug, Default)]
struct IdText {
    text: SmallVec<[u8; ID_BYTES_MAX]>,
    /// The milliseconds with which the text begins, and the length of that beginning with the dash.
    milliseconds: u64,
    beginning: usize,
}

impl IdText {
    fn of(&mut self, id: EntryId) -> &[u8] {
        if self.beginning == 0 || self.milliseconds != id.milliseconds() {
            self.text.clear();
            self.milliseconds = id.milliseconds();
            self.text.extend_from_slice(itoa::Buffer::new().format(self.milliseconds).as_bytes());
            self.text.push(b'-');
            self.beginning = self.text.len();
        }
        self.text.truncate(self.beginning);
        self.text.extend_from_slice(itoa::Buffer::new().format(id.sequence()).as_bytes());
        &self.text
    }
}

/// Acknowledgements that were added to a pipeline, kept to read their answers.
#[derive(Debug)]
pub(super) struct Acknowledgements {
    answers: Vec<Inlet>,
}

impl Acknowledgements {
    /// Appends the commands to a pipeline.
    ///
    /// In the lane, acknowledging and deleting are one step: an entry that is acknowledged but not
    /// deleted would never be removed.
    pub(super) fn add_to(
        pipeline: &mut Pipeline,
        queue: &Queue,
        acks: &[(Inlet, EntryId)],
    ) -> Self {
        let mut answers = Vec::new();
        for inlet in Inlet::ALL {
            let ids = acks.iter().filter(|(of, _)| *of == inlet).map(|(_, id)| *id);
            let ids = ids.collect::<Vec<_>>();
            let key = queue.key(inlet);
            for chunk in ids.chunks(IDS_MAX) {
                let mut acknowledge = Cmd::with_capacity(chunk.len() + 3, chunk.len() * 16 + 64);
                acknowledge.arg(XACK).arg(&key).arg(queue.group.as_str());
                add_ids(&mut acknowledge, chunk);
                if inlet.is_lane() {
                    let mut delete = redis::cmd("XDEL");
                    add_ids(delete.arg(&key), chunk);
                    pipeline.cmd("MULTI").add_command(acknowledge).add_command(delete).cmd("EXEC");
                } else {
                    pipeline.add_command(acknowledge);
                }
                answers.push(inlet);
            }
        }
        Self { answers }
    }

    /// Reads from the pipeline's answers how many entries were pending. It consumes all of its own answers,
    /// even if one of them is a refusal.
    pub(super) fn read(
        &self,
        values: &mut impl Iterator<Item = Value>,
    ) -> Result<usize, StoreError> {
        let mut total = Ok(0);
        for inlet in &self.answers {
            let answer = if inlet.is_lane() {
                transaction(values.by_ref().take(4).collect())
            } else {
                values.next().map_or(Err(lost()), count)
            };
            total = match (total, answer) {
                (Ok(total), Ok(number)) => Ok(total + number),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
        }
        total
    }
}

/// Adds ids to a command.
pub(in crate::store::redis) fn add_ids(command: &mut Cmd, ids: &[EntryId]) {
    let mut text = IdText::default();
    for id in ids {
        command.arg(text.of(*id));
    }
}

fn transaction(values: Vec<Value>) -> Result<usize, StoreError> {
    // A refusal while the commands are queued says more than the abort at the end.
    let mut executed = None;
    for value in values {
        if let Value::Array(answers) = accepted(value)? {
            executed = Some(answers);
        }
    }
    let mut acknowledged = Err(lost());
    for (place, answer) in executed.unwrap_or_default().into_iter().enumerate() {
        let number = count(answer)?;
        if place == 0 {
            acknowledged = Ok(number);
        }
    }
    acknowledged
}

fn count(value: Value) -> Result<usize, StoreError> {
    reply::size(&accepted(value)?, XACK)
}

fn lost() -> StoreError {
    StoreError::Protocol { command: XACK }
}

const XACK: &str = "XACK";
/// How many ids one command has at most, so that it does not block the server.
pub(in crate::store::redis) const IDS_MAX: usize = 500;
/// The most bytes of an id as an argument: enough for two numbers of twenty digits and the text between them.
const ID_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::{GroupName, StreamName};

    fn queue() -> Queue {
        Queue { stream: StreamName::new("orders").unwrap(), group: GroupName::new("mail").unwrap() }
    }

    fn values(wire: &str) -> impl Iterator<Item = Value> {
        let wire = format!("*{}\r\n{wire}", wire.matches(';').count()).replace(';', "\r\n");
        reply::items(redis::parse_redis_value(wire.as_bytes()).unwrap(), "test")
            .unwrap()
            .into_iter()
    }

    #[test]
    fn ids_are_written_as_they_are_shown() {
        for id in [EntryId::ZERO, EntryId::new(1_526_919_030_474, 55), EntryId::MAX] {
            let mut command = Cmd::new();
            add_ids(&mut command, &[id]);
            let shown = id.to_string();
            let arg = command.args_iter().next();
            assert!(matches!(arg, Some(redis::Arg::Simple(text)) if text == shown.as_bytes()));
        }
    }

    #[test]
    fn lane_entries_are_acknowledged_and_deleted_in_one_step() {
        let acks = [(Inlet::LANE, EntryId::new(2, 0)), (Inlet::STREAM, EntryId::new(1, 0))];
        let mut pipeline = Pipeline::new();
        let acknowledgements = Acknowledgements::add_to(&mut pipeline, &queue(), &acks);
        let names = pipeline.cmd_iter().map(|command| match command.args_iter().next() {
            Some(redis::Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
            _ => String::new(),
        });
        assert_eq!(names.collect::<Vec<_>>(), ["XACK", "MULTI", "XACK", "XDEL", "EXEC"]);
        let answers = Value::Array(vec![Value::Int(1), Value::Int(1)]);
        let mut answers = values(":1;+OK;+QUEUED;+QUEUED;").chain([answers, Value::Int(99)]);
        assert_eq!(acknowledgements.read(&mut answers).unwrap(), 2);
        assert_eq!(answers.next(), Some(Value::Int(99)), "the read's answer is left");
    }

    #[test]
    fn a_refusal_takes_no_answers_of_others() {
        let acks = [(Inlet::LANE, EntryId::new(2, 0)), (Inlet::STREAM, EntryId::new(1, 0))];
        let acknowledgements = Acknowledgements::add_to(&mut Pipeline::new(), &queue(), &acks);
        let wire = "-MISCONF disk;+OK;-MISCONF disk;-MISCONF disk;-EXECABORT discarded;:99;";
        let mut answers = values(wire);
        let error = acknowledgements.read(&mut answers).unwrap_err();
        assert!(
            matches!(error, StoreError::Refused { ref code, .. } if code == "MISCONF"),
            "{error}"
        );
        assert_eq!(answers.next(), Some(Value::Int(99)));
    }

    #[test]
    fn many_ids_go_in_several_commands() {
        let acks = vec![(Inlet::STREAM, EntryId::new(1, 0)); IDS_MAX * 2 + 1];
        let mut pipeline = Pipeline::new();
        Acknowledgements::add_to(&mut pipeline, &queue(), &acks);
        assert_eq!(pipeline.len(), 3);
    }
}
