//! The connection behind a link: one of this crate's kind, or the client crate's where only that can connect.

use std::io;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::task::unconstrained;

use super::error::not_taken;
use super::incoming::AnswerBytes;
use super::places::Place;
use super::scan::{self, FrameScanner, Ids};
use super::shared_wire::SharedWire;
use super::wire::NO_ANSWER;

/// A connection that many callers share. The first poll sends a request.
pub(super) enum Multiplexed {
    Wire(SharedWire),
    Crate(MultiplexedConnection),
}

/// Commands that are sent in one go.
pub(crate) trait Request: Sync {
    /// How many commands there are.
    fn count(&self) -> usize;

    /// About how many bytes they have.
    fn bytes(&self) -> usize;

    /// Writes them in the protocol.
    fn write(&self, out: &mut Vec<u8>);

    /// The same commands for the client crate.
    fn pipeline(&self) -> Pipeline;
}

/// The answers to commands that append.
#[derive(Debug)]
pub(crate) enum AppendAnswers {
    /// The ids of the new entries: all entries were stored.
    Ids(Ids),
    /// An answer to each command. Some may be refusals.
    Values(Vec<Value>),
}

/// The answers to a request: the bytes that came, or the client crate's values.
pub(super) enum Answers {
    Raw(AnswerBytes),
    Values(Vec<Value>),
}

impl Multiplexed {
    /// Sends one command, which keeps this place until it is answered.
    pub(super) async fn command(&self, command: &Cmd, place: Place) -> RedisResult<Value> {
        match self {
            Self::Wire(wire) => {
                let write = |out: &mut Vec<u8>| command.write_packed_command(out);
                redis::parse_redis_value(&exchange(wire, 1, place, write).await?)
            }
            Self::Crate(connection) => {
                let mut connection = connection.clone();
                place.answer(connection.send_packed_command(command)).await
            }
        }
    }

    /// Sends commands in one go.
    pub(super) async fn commands(
        &self,
        pipeline: &Pipeline,
        place: Place,
    ) -> RedisResult<Vec<Value>> {
        match self {
            Self::Wire(wire) => {
                let write = |out: &mut Vec<u8>| {
                    for command in pipeline.cmd_iter() {
                        command.write_packed_command(out);
                    }
                };
                values(&exchange(wire, pipeline.len(), place, write).await?)
            }
            Self::Crate(connection) => {
                let mut connection = connection.clone();
                place.answer(connection.send_packed_commands(pipeline, 0, pipeline.len())).await
            }
        }
    }

    /// Sends commands that are written directly, without building values first.
    pub(super) async fn request(
        &self,
        request: &impl Request,
        place: Place,
    ) -> RedisResult<Answers> {
        match self {
            Self::Wire(wire) => {
                let answers = exchange(wire, request.count(), place, |out| request.write(out));
                answers.await.map(Answers::Raw)
            }
            Self::Crate(_) => self.commands(&request.pipeline(), place).await.map(Answers::Values),
        }
    }
}

impl Answers {
    /// The ids, if every answer is an id.
    pub(super) fn ids(&self) -> Option<Ids> {
        match self {
            Self::Raw(bytes) => scan::ids(bytes),
            Self::Values(_) => None,
        }
    }

    /// Each answer as a value.
    pub(super) fn values(self) -> RedisResult<Vec<Value>> {
        match self {
            Self::Raw(bytes) => values(&bytes),
            Self::Values(values) => Ok(values),
        }
    }
}

/// The bytes of the answers to a request. It is excluded from the budgets of tasks: if one task joins many
/// requests, each request that runs out of the task's budget would otherwise wake the task, which then polls
/// all of them again.
async fn exchange(
    wire: &SharedWire,
    expected: usize,
    mut place: Place,
    write: impl FnOnce(&mut Vec<u8>),
) -> RedisResult<AnswerBytes> {
    if expected == 0 {
        return Ok(AnswerBytes::new());
    }
    let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
    let room = place.take_room();
    let (_on_the_way, allowance) = place.sent();
    let answers = wire.send(expected, allowance, room, write).ok_or_else(not_taken)?;
    // It ends without an answer if the connection's executor ends.
    Ok(unconstrained(answers).await.map_err(|_| closed())??)
}

fn values(bytes: &[u8]) -> RedisResult<Vec<Value>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, NO_ANSWER);
    let mut rest = bytes;
    let mut values = Vec::new();
    while !rest.is_empty() {
        let end = FrameScanner::new().end(rest).ok().flatten();
        let cut = end.and_then(|end| rest.split_at_checked(end)).ok_or_else(malformed)?;
        values.push(redis::parse_redis_value(cut.0)?);
        rest = cut.1;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::super::error::answer_lost;
    use super::super::places::Places;
    use super::*;
    use crate::model::entry::EntryId;
    use crate::store::StoreError;

    #[tokio::test]
    async fn a_request_that_a_closed_connection_does_not_take_was_not_sent() {
        let (near, far) = tokio::io::duplex(64);
        let closed = CancellationToken::new();
        let wire = SharedWire::start(Box::new(near), closed.clone().drop_guard());
        let places = Places::new();
        let place = || places.take_now(1).unwrap();
        let sent = exchange(&wire, 1, place(), |out| out.push(b'x'));
        let (lost, ()) = tokio::join!(sent, async { drop(far) });
        assert!(matches!(answer_lost(&lost.unwrap_err()), StoreError::AnswerLost(_)));
        closed.cancelled().await;
        let refused = exchange(&wire, 1, place(), |out| out.push(b'y')).await.unwrap_err();
        assert!(matches!(answer_lost(&refused), StoreError::Unreachable(_)), "{refused}");
    }

    #[test]
    fn answers_are_ids_or_values_of_all_kinds() {
        let ids = Answers::Raw(AnswerBytes::from_slice(b"$3\r\n7-0\r\n$4\r\n12-3\r\n"));
        let expected = [EntryId::new(7, 0), EntryId::new(12, 3)];
        assert_eq!(ids.ids().as_deref(), Some(expected.as_slice()));
        let mixed = b"$3\r\n7-0\r\n-MOVED 1 a:1\r\n*1\r\n:5\r\n$-1\r\n".as_slice();
        let mixed = Answers::Raw(mixed.into());
        assert_eq!(mixed.ids(), None);
        let values = mixed.values().unwrap();
        assert!(matches!(&values[0], Value::BulkString(id) if id == b"7-0"), "{values:?}");
        assert!(matches!(&values[1], Value::ServerError(error) if error.code() == "MOVED"));
        assert_eq!(values[2..], [Value::Array(vec![Value::Int(5)]), Value::Nil]);
        assert!(Answers::Raw(AnswerBytes::from_slice(b"$3\r\n7")).values().is_err());
    }
}
