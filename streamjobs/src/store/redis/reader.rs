//! Reading: a connection of its own for each reader, because a waiting read holds up whatever is
//! sent behind it.

use std::io;
use std::time::Duration;

use redis::{Cmd, Pipeline, RedisResult, Value};

use super::acknowledge::Acknowledgements;
use super::net::{Address, Answer, Reading, answer_lost, is_wrong_server, open_reading};
use crate::model::name::ConsumerName;
use crate::store::{Inlet, Queue, ReadReply, ReadRequest, Reply, StoreError, StreamReader};

/// Reads one queue for one consumer.
pub(super) struct RedisReader {
    /// None once it is of no more use.
    connection: Option<Reading>,
    id: u64,
    queue: Queue,
    lane_key: String,
    consumer: ConsumerName,
    margin: Duration,
}

impl RedisReader {
    /// Opens the connection.
    pub(super) async fn open(
        address: &Address,
        queue: &Queue,
        consumer: &ConsumerName,
        margin: Duration,
    ) -> Result<Self, StoreError> {
        let (connection, id) = open_reading(address).await?;
        Ok(Self {
            connection: Some(connection),
            id,
            queue: queue.clone(),
            lane_key: queue.key(Inlet::LANE),
            consumer: consumer.clone(),
            margin,
        })
    }

    async fn read_once(&mut self, request: ReadRequest<'_>) -> Result<ReadReply, StoreError> {
        let mut pipeline = Pipeline::with_capacity(3);
        let acknowledgements = Acknowledgements::add_to(&mut pipeline, &self.queue, request.acks);
        // The server takes a count of zero for no bound at all.
        let reads = request.count > 0;
        if reads {
            pipeline.add_command(self.command(&request));
        }
        if pipeline.is_empty() {
            return Ok(ReadReply { acknowledged: Ok(0), deliveries: Ok(Vec::new()) });
        }
        // Taken out, and put back only when the answer is here: a read that was not answered may
        // still be on the connection, and would give its entries to nobody.
        let Some(mut connection) = self.connection.take() else {
            return Err(StoreError::Unreachable(
                io::Error::from(io::ErrorKind::NotConnected).into(),
            ));
        };
        let deadline = request.block.unwrap_or_default() + self.margin;
        let mut answers = match tokio::time::timeout(deadline, connection.exchange(&pipeline)).await
        {
            Ok(answers) => answers.map_err(|error| answer_lost(&error))?,
            Err(elapsed) => return Err(StoreError::AnswerLost(elapsed.into())),
        };
        let read = if reads { answers.pop() } else { None };
        let values = answers.into_iter().map(Answer::value).collect::<RedisResult<Vec<_>>>();
        let mut values = values.map_err(|error| answer_lost(&error))?.into_iter();
        let wrong =
            |value: &Value| matches!(value, Value::ServerError(error) if is_wrong_server(error));
        if !values.as_slice().iter().any(wrong)
            && !read.as_ref().is_some_and(Answer::is_of_wrong_server)
        {
            self.connection = Some(connection);
        }
        let acknowledged = acknowledgements.read(&mut values);
        let deliveries =
            read.map_or(Ok(Vec::new()), |answer| answer.deliveries(request.inlet, XREADGROUP));
        Ok(ReadReply { acknowledged, deliveries })
    }

    fn command(&self, request: &ReadRequest<'_>) -> Cmd {
        let key = if request.inlet.is_lane() {
            self.lane_key.as_str()
        } else {
            self.queue.stream.as_str()
        };
        let mut command = redis::cmd(XREADGROUP);
        command.arg("GROUP").arg(self.queue.group.as_str()).arg(self.consumer.as_str());
        command.arg("COUNT").arg(request.count);
        if let Some(block) = request.block {
            // The server waits for ever when it is told to wait for no time.
            command.arg("BLOCK").arg(super::milliseconds(block).max(1));
        }
        command.arg("STREAMS").arg(key).arg(">");
        command
    }
}

impl StreamReader for RedisReader {
    fn read<'a>(&'a mut self, request: ReadRequest<'a>) -> Reply<'a, ReadReply> {
        Box::pin(self.read_once(request))
    }

    fn waker(&self) -> u64 {
        self.id
    }
}

const XREADGROUP: &str = "XREADGROUP";
