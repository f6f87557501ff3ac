//! Reading. Each reader has a connection of its own, because a waiting read blocks all later requests.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Pipeline, RedisResult};

use super::acknowledge::Acknowledgements;
use crate::model::name::ConsumerName;
use crate::store::redis::milliseconds;
use crate::store::redis::net::{
    Address, Answer, Patience, Reading, answer_lost, not_connected, open_reading,
};
use crate::store::types::Result;
use crate::store::{Inlet, Queue, ReadReply, ReadRequest, StreamReader};

/// Reads one queue for one consumer.
pub(super) struct RedisReader {
    /// `None` once it cannot be used any more.
    connection: Option<Reading>,
    id: u64,
    queue: Queue,
    /// The stream keys of the inlets.
    keys: [String; Inlet::ALL.len()],
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
    ) -> Result<Self> {
        let (connection, id) = open_reading(address).await?;
        Ok(Self {
            connection: Some(connection),
            id,
            queue: queue.clone(),
            keys: queue.keys(),
            consumer: consumer.clone(),
            margin,
        })
    }

    fn command(&self, request: &ReadRequest<'_>) -> Cmd {
        let mut command = redis::cmd(XREADGROUP);
        command.arg("GROUP").arg(self.queue.group.as_str()).arg(self.consumer.as_str());
        command.arg("COUNT").arg(request.count);
        if let Some(block) = request.block {
            // `BLOCK 0` waits without a limit.
            command.arg("BLOCK").arg(milliseconds(block).max(1));
        }
        command.arg("STREAMS").arg(self.keys.get(request.inlet.index())).arg(">");
        command
    }
}

#[async_trait]
impl StreamReader for RedisReader {
    async fn read(&mut self, request: ReadRequest<'_>) -> Result<ReadReply> {
        let mut pipeline = Pipeline::with_capacity(3);
        let acknowledgements = Acknowledgements::add_to(&mut pipeline, &self.queue, request.acks);
        // `COUNT 0` means no limit.
        let reads = request.count > 0;
        if reads {
            pipeline.add_command(self.command(&request));
        }
        if pipeline.is_empty() {
            return Ok(ReadReply { acknowledged: Ok(0), deliveries: Ok(Vec::new()) });
        }
        // Taken, and restored only after the answer: an unanswered read may still be on the connection,
        // and its entries would be lost.
        let Some(mut connection) = self.connection.take() else {
            return Err(not_connected());
        };
        let first = request.block.unwrap_or_default() + self.margin;
        let patience = Patience { first, silence: self.margin };
        let answers = connection.exchange(&pipeline, patience).await;
        let mut answers = answers.map_err(|error| answer_lost(&error))?;
        let wrong = answers.iter().any(Answer::is_of_wrong_server);
        let read = if reads { answers.pop() } else { None };
        let values = answers.into_iter().map(Answer::value).collect::<RedisResult<Vec<_>>>();
        let mut values = values.map_err(|error| answer_lost(&error))?.into_iter();
        if !wrong {
            self.connection = Some(connection);
        }
        let acknowledged = acknowledgements.read(&mut values);
        let deliveries =
            read.map_or(Ok(Vec::new()), |answer| answer.deliveries(request.inlet, XREADGROUP));
        Ok(ReadReply { acknowledged, deliveries })
    }

    fn waker(&self) -> u64 {
        self.id
    }
}

const XREADGROUP: &str = "XREADGROUP";
