//! A reader's connection: one of this crate's kind, or the client crate's where only that can connect.

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::FuturesOrdered;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult, Value};
use tokio_util::sync::CancellationToken;

use super::dial::{open_for_reading, within};
use super::endpoint::Endpoint;
use super::error::{accepted, unreachable};
use super::scan;
use super::server::{Server, Tenure};
use super::wire::{Patience, Wire};
use crate::store::redis::reply;
use crate::store::{Delivery, Inlet, StoreError};

/// Opens a connection for reads that may wait. Also returns its id on the server, for
/// `CLIENT UNBLOCK`.
pub(crate) async fn open_reading(endpoint: &Endpoint) -> Result<(Reading, u64), StoreError> {
    identified(endpoint.connect(open).await)
}

/// An opened connection, and its id on the server.
pub(super) fn identified(
    opened: RedisResult<(Reading, Value)>,
) -> Result<(Reading, u64), StoreError> {
    let (reading, id) = opened.map_err(|error| unreachable(&error))?;
    Ok((reading, reply::number(accepted(id)?, "CLIENT ID")?))
}

/// Connects, and asks for the connection's id.
pub(super) async fn open(server: Server) -> RedisResult<(Reading, Value)> {
    let connection = match Wire::open(&server.address).await? {
        Some(wire) => Connection::Wire(wire),
        None => {
            let (connection, closed) = open_for_reading(&server.address).await?;
            Connection::Shared(connection, closed)
        }
    };
    let mut reading = Reading { connection, tenure: server.tenure.clone() };
    let mut identify = Pipeline::with_capacity(2);
    identify.cmd("CLIENT").arg("ID");
    server.ask_role(&mut identify);
    let answers = reading.exchange(&identify, Patience::CONNECTING).await?.into_iter();
    let mut answers = answers.map(Answer::value).collect::<RedisResult<Vec<_>>>()?;
    server.check_role(&mut answers)?;
    Ok((reading, answers.pop().unwrap_or(Value::Nil)))
}

/// A connection for one reader, which waits for each answer before its next request.
pub(crate) struct Reading {
    connection: Connection,
    tenure: Tenure,
}

enum Connection {
    Wire(Wire),
    Shared(MultiplexedConnection, CancellationToken),
}

/// One answer: its bytes, or the client crate's value.
#[derive(Debug)]
pub(crate) enum Answer {
    Raw(Bytes),
    Value(Value),
}

impl Reading {
    /// Sends commands in one go and waits for an answer to each. Refusals by the server are among
    /// the answers. Fails at once when another server becomes the primary.
    ///
    /// Not cancel safe. After an error or a cancellation the connection must be dropped: answers
    /// may still arrive.
    pub(crate) async fn exchange(
        &mut self,
        pipeline: &Pipeline,
        patience: Patience,
    ) -> RedisResult<Vec<Answer>> {
        let mut all = self.exchange_all(&[pipeline], patience).await?;
        Ok(all.pop().unwrap_or_default())
    }

    /// Like [`exchange`](Self::exchange), for several pipelines. Returns the answers of each.
    pub(crate) async fn exchange_all(
        &mut self,
        pipelines: &[&Pipeline],
        patience: Patience,
    ) -> RedisResult<Vec<Vec<Answer>>> {
        self.tenure.within(self.connection.exchange_all(pipelines, patience)).await
    }

    /// Waits until the connection breaks, or another server becomes the primary. Nothing may be
    /// outstanding.
    ///
    /// Cancel safe.
    pub(crate) async fn broken(&mut self) {
        let broken = async {
            match &mut self.connection {
                Connection::Wire(wire) => wire.broken().await,
                Connection::Shared(_, closed) => closed.cancelled().await,
            }
            Ok(())
        };
        // Both outcomes mean the same.
        let _over = self.tenure.within(broken).await.is_err();
    }
}

impl Connection {
    async fn exchange_all(
        &mut self,
        pipelines: &[&Pipeline],
        patience: Patience,
    ) -> RedisResult<Vec<Vec<Answer>>> {
        match self {
            Self::Wire(wire) => {
                let mut answers = wire.exchange(pipelines, patience).await?.into_iter();
                let mut take = |count| answers.by_ref().take(count).map(Answer::Raw).collect();
                Ok(pipelines.iter().map(|pipeline| take(pipeline.len())).collect())
            }
            // The client crate does not tell when bytes arrive, so this waits for the whole answer.
            Self::Shared(connection, _) => {
                let sent = pipelines.iter().map(|pipeline| {
                    let mut connection = connection.clone();
                    async move { connection.send_packed_commands(pipeline, 0, pipeline.len()).await }
                });
                let mut sent = sent.collect::<FuturesOrdered<_>>();
                let mut all = Vec::with_capacity(pipelines.len());
                let limit = patience.first + patience.silence;
                while let Some(answers) = within(limit, sent.try_next()).await? {
                    all.push(answers.into_iter().map(Answer::Value).collect());
                }
                Ok(all)
            }
        }
    }
}

impl Answer {
    pub(crate) fn value(self) -> RedisResult<Value> {
        match self {
            Self::Raw(bytes) => redis::parse_redis_value(&bytes),
            Self::Value(value) => Ok(value),
        }
    }

    /// Whether the server refused because it is not the one to ask, so that the connection must be given
    /// up.
    pub(crate) fn is_of_wrong_server(&self, endpoint: &Endpoint) -> bool {
        let says_so = |value: &Value| matches!(value, Value::ServerError(error) if endpoint.is_left_after(error));
        match self {
            Self::Raw(bytes) if !scan::is_refusal(bytes) => false,
            Self::Raw(bytes) => redis::parse_redis_value(bytes).is_ok_and(|value| says_so(&value)),
            Self::Value(value) => says_so(value),
        }
    }

    /// The entries that a read of one stream delivered.
    pub(crate) fn deliveries(
        self,
        inlet: Inlet,
        command: &'static str,
    ) -> Result<Vec<Delivery>, StoreError> {
        match self {
            Self::Raw(bytes) if !scan::is_refusal(&bytes) => {
                scan::deliveries(&bytes, inlet).map_err(|_| StoreError::Protocol { command })
            }
            answer => match answer.value() {
                Ok(value) => reply::read(accepted(value)?, inlet, command),
                Err(_) => Err(StoreError::Protocol { command }),
            },
        }
    }
}
