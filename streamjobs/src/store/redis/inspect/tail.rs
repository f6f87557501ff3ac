//! Follows one stream without a group.

use std::time::Duration;

use async_trait::async_trait;
use redis::Pipeline;
use tokio::time::sleep;

use crate::model::entry::{Entry, EntryId};
use crate::model::name::StreamName;
use crate::store::inspect::TailReader;
use crate::store::redis::consume::Id;
use crate::store::redis::milliseconds;
use crate::store::redis::net::{
    Endpoint, Patience, Pursuit, RESPONSE_DEADLINE, Reading, Redirect, Route, not_connected,
    open_reading, unreachable,
};
use crate::store::types::Result;
use crate::store::{Inlet, StoreError};

/// Follows one stream.
pub(super) struct RedisTail {
    route: Route,
    /// The server to which it is connected.
    endpoint: Endpoint,
    /// `None` once the connection cannot be used any more.
    connection: Option<Reading>,
    stream: StreamName,
}

impl RedisTail {
    pub(super) async fn open(route: Route, stream: &StreamName) -> Result<Self> {
        let (endpoint, connection) = match &route {
            Route::One(node) => {
                let endpoint = node.link.endpoint().clone();
                let (connection, _) = open_reading(&endpoint).await?;
                (endpoint, connection)
            }
            Route::Slot(cluster, slot) => {
                let mut pursuit = Pursuit::new(cluster, *slot);
                loop {
                    let endpoint = pursuit.target().await?.node.link.endpoint().clone();
                    match open_reading(&endpoint).await {
                        Ok((connection, _)) => break (endpoint, connection),
                        Err(error) => pursuit.after(error).await?,
                    }
                }
            }
        };
        Ok(Self { route, endpoint, connection: Some(connection), stream: stream.clone() })
    }

    async fn read_once(
        &mut self,
        after: EntryId,
        limit: usize,
        block: Duration,
    ) -> Result<Vec<Entry>> {
        let Some(mut connection) = self.connection.take() else {
            return Err(not_connected());
        };
        let mut command = redis::cmd(XREAD);
        // `BLOCK 0` waits without a limit.
        command.arg("COUNT").arg(limit).arg("BLOCK").arg(milliseconds(block).max(1));
        command.arg("STREAMS").arg(self.stream.as_str()).arg(Id(after));
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command);
        let patience = Patience { first: block + RESPONSE_DEADLINE, silence: RESPONSE_DEADLINE };
        let answers = connection.exchange(&pipeline, patience).await;
        let answers = answers.map_err(|error| unreachable(&error))?;
        let answer = answers.into_iter().next().ok_or(StoreError::Protocol { command: XREAD })?;
        let read = answer.deliveries(Inlet::STREAM, XREAD)?;
        self.connection = Some(connection);
        Ok(read.into_iter().map(|delivery| delivery.entry).collect())
    }
}

#[async_trait]
impl TailReader for RedisTail {
    async fn read(&mut self, after: EntryId, limit: usize, block: Duration) -> Result<Vec<Entry>> {
        let Route::Slot(cluster, slot) = self.route.clone() else {
            return self.read_once(after, limit, block).await;
        };
        let mut pursuit = Pursuit::after_answer_of(&cluster, slot, self.endpoint.node());
        loop {
            match self.read_once(after, limit, block).await {
                Err(error) if Redirect::is_said_by(&error) => pursuit.after(error).await?,
                read => return read.inspect_err(|_| cluster.suspect()),
            }
            let target = pursuit.target().await?;
            if target.is_asking {
                // The slot is moving: soon the node that has it now answers that it has moved.
                sleep(ASKED_PAUSE).await;
            }
            *self = Self::open(self.route.clone(), &self.stream).await?;
        }
    }
}

const XREAD: &str = "XREAD";
const ASKED_PAUSE: Duration = Duration::from_millis(100);
