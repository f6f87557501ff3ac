//! The connection behind a link: its own kind, or the client crate's where only that can connect.

use std::io;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value};

use super::places::Room;
use super::scan::{self, FrameScanner};
use super::shared_wire::SharedWire;
use super::wire::NO_ANSWER;
use crate::model::entry::EntryId;

/// A connection for many callers at once. Each request is sent with the first poll.
pub(super) enum Multiplexed {
    Wire(SharedWire),
    Crate(MultiplexedConnection),
}

/// Commands that are sent in one go.
pub(crate) trait Request: Sync {
    /// How many they are.
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
    /// The ids of the new entries: all were stored.
    Ids(Vec<EntryId>),
    /// An answer to each. Some may be refusals.
    Values(Vec<Value>),
}

/// The answers to a request: the bytes that came, or the client crate's values.
pub(super) enum Answers {
    Raw(Vec<u8>),
    Values(Vec<Value>),
}

impl Multiplexed {
    /// Sends one command, which keeps this room until it is answered.
    pub(super) async fn command(&self, command: &Cmd, room: Option<Room>) -> RedisResult<Value> {
        match self {
            Self::Wire(wire) => {
                let write = |out: &mut Vec<u8>| command.write_packed_command(out);
                redis::parse_redis_value(&exchange(wire, 1, room, write).await?)
            }
            Self::Crate(connection) => {
                let answer = connection.clone().send_packed_command(command).await;
                drop(room);
                answer
            }
        }
    }

    /// Sends commands in one go.
    pub(super) async fn commands(
        &self,
        pipeline: &Pipeline,
        room: Option<Room>,
    ) -> RedisResult<Vec<Value>> {
        match self {
            Self::Wire(wire) => {
                let write = |out: &mut Vec<u8>| {
                    for command in pipeline.cmd_iter() {
                        command.write_packed_command(out);
                    }
                };
                values(&exchange(wire, pipeline.len(), room, write).await?)
            }
            Self::Crate(connection) => {
                let mut connection = connection.clone();
                let sent = connection.send_packed_commands(pipeline, 0, pipeline.len());
                let answers = sent.await;
                drop(room);
                answers
            }
        }
    }

    /// Sends commands that are written without values in between.
    pub(super) async fn request(
        &self,
        request: &impl Request,
        room: Option<Room>,
    ) -> RedisResult<Answers> {
        match self {
            Self::Wire(wire) => {
                let answers = exchange(wire, request.count(), room, |out| request.write(out));
                answers.await.map(Answers::Raw)
            }
            Self::Crate(_) => self.commands(&request.pipeline(), room).await.map(Answers::Values),
        }
    }
}

impl Answers {
    /// The id that each answer is, unless one is something else.
    pub(super) fn ids(&self) -> Option<Vec<EntryId>> {
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

/// The bytes of the answers to a request.
async fn exchange(
    wire: &SharedWire,
    expected: usize,
    room: Option<Room>,
    write: impl FnOnce(&mut Vec<u8>),
) -> RedisResult<Vec<u8>> {
    if expected == 0 {
        return Ok(Vec::new());
    }
    let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
    let answers = wire.send(expected, room, write).ok_or_else(closed)?;
    // It ends without an answer with the executor of the connection.
    Ok(answers.await.map_err(|_| closed())??)
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
    use super::*;

    #[test]
    fn answers_are_ids_or_values_of_all_kinds() {
        let ids = Answers::Raw(b"$3\r\n7-0\r\n$4\r\n12-3\r\n".to_vec());
        assert_eq!(ids.ids(), Some(vec![EntryId::new(7, 0), EntryId::new(12, 3)]));
        let mixed = b"$3\r\n7-0\r\n-MOVED 1 a:1\r\n*1\r\n:5\r\n$-1\r\n".to_vec();
        let mixed = Answers::Raw(mixed);
        assert_eq!(mixed.ids(), None);
        let values = mixed.values().unwrap();
        assert!(matches!(&values[0], Value::BulkString(id) if id == b"7-0"), "{values:?}");
        assert!(matches!(&values[1], Value::ServerError(error) if error.code() == "MOVED"));
        assert_eq!(values[2..], [Value::Array(vec![Value::Int(5)]), Value::Nil]);
        assert!(Answers::Raw(b"$3\r\n7".to_vec()).values().is_err());
    }
}
