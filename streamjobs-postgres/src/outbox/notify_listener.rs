//! Listening for the notifications of publishers.

use std::fmt;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::postgres::PgListener;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::postgres::Postgres;

/// A connection that listens for notifications, opened when needed.
///
/// Notifications only save time: the relay polls as well. So with a pool of one connection, the
/// relay does not listen, and uses the connection to move events. It also does not listen where no
/// notification arrives: behind a pooler that assigns connections per transaction, the listening
/// connection soon belongs to another client. To find out, the relay first sends itself a
/// notification, once. Behind a pooler, this notification may reach another client, whose statement
/// then fails in sqlx. Usually no notification is sent there, because the pooler gives the sender
/// the very connection that listens, and the relay notices that.
pub(super) struct NotifyListener {
    postgres: Postgres,
    /// The channel on which it notifies itself. Behind a pooler, the server's connection keeps
    /// listening to this channel.
    probe: String,
    listener: Option<PgListener>,
    phase: Phase,
    arrival: Arrival,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    /// Listens on its own channel, and has not notified itself.
    Opened,
    /// Waits for its own notification, until this time.
    Probing(Instant),
    /// Notifications arrive.
    Proven,
    /// Listens for publishers.
    Listening,
}

/// Whether notifications arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    Unknown,
    Works,
    /// No notification arrived, or the relay is not to listen.
    Never,
}

/// Why it does not listen: an error, or `None` for a connection that was lost.
type Failure = Option<sqlx::Error>;

impl NotifyListener {
    pub(super) fn new(postgres: Postgres, listens: bool) -> Self {
        let arrival = if listens { Arrival::Unknown } else { Arrival::Never };
        let probe = ["streamjobs_probe_", &Uuid::now_v7().simple().to_string()].concat();
        Self { postgres, probe, listener: None, phase: Phase::Closed, arrival }
    }

    /// Waits until something may have been published.
    ///
    /// Also returns when it starts to listen, since it gets no notification of earlier commits, and
    /// a second after it failed to listen. Cancel safe: the next call continues.
    pub(super) async fn notified(&mut self) {
        loop {
            if self.postgres.connections_max() < 2 || self.arrival == Arrival::Never {
                return std::future::pending().await;
            }
            match self.advance().await {
                Ok(false) => {}
                Ok(true) => return,
                Err(error) => {
                    let error = error.map(|error| error.to_string());
                    tracing::debug!(
                        error,
                        "cannot listen for notifications; polling the outbox instead"
                    );
                    self.close();
                    return sleep(RELISTEN_AFTER).await;
                }
            }
        }
    }

    /// Takes the next step. Returns whether something may have been published.
    async fn advance(&mut self) -> Result<bool, Failure> {
        match self.phase {
            Phase::Closed => self.open().await?,
            Phase::Opened if self.postgres.notify(&self.probe).await? => {
                self.phase = Phase::Probing(Instant::now() + PROBE_MAX);
            }
            Phase::Opened => self.give_up(),
            Phase::Probing(until) => match timeout_at(until, self.receive()).await {
                Ok(received) => {
                    received?;
                    self.arrival = Arrival::Works;
                    self.phase = Phase::Proven;
                }
                Err(_) => self.give_up(),
            },
            Phase::Proven => {
                self.listener()?.listen(CHANNEL).await?;
                self.phase = Phase::Listening;
                return Ok(true);
            }
            Phase::Listening => return self.receive().await.map(|()| true),
        }
        Ok(false)
    }

    async fn open(&mut self) -> Result<(), Failure> {
        let mut listener = self.postgres.listener().await?;
        // A lost connection must be reported, since notifications may have been missed meanwhile.
        listener.eager_reconnect(false);
        self.phase = if self.arrival == Arrival::Works {
            Phase::Proven
        } else {
            listener.listen(&self.probe).await?;
            Phase::Opened
        };
        self.listener = Some(listener);
        Ok(())
    }

    async fn receive(&mut self) -> Result<(), Failure> {
        self.listener()?.try_recv().await?.map(drop).ok_or(None)
    }

    fn listener(&mut self) -> Result<&mut PgListener, Failure> {
        self.listener.as_mut().ok_or(None)
    }

    fn give_up(&mut self) {
        tracing::warn!(
            "no notification arrives from the database, as behind a pooler that assigns \
             connections per transaction; polling the outbox instead"
        );
        self.arrival = Arrival::Never;
        self.close();
    }

    /// Discards the notifications received so far: the next round finds their events.
    pub(super) fn drain(&mut self) {
        let Some(listener) = self.listener.as_mut().filter(|_| self.phase == Phase::Listening)
        else {
            return;
        };
        for _ in 0..DRAINED_MAX {
            match listener.try_recv().now_or_never() {
                Some(Ok(Some(_))) => {}
                Some(Ok(None) | Err(_)) => return self.close(),
                None => return,
            }
        }
    }

    /// Stops listening. A listener that does not read would make the server's notification queue,
    /// which all of its databases share, grow.
    pub(super) fn close(&mut self) {
        self.listener = None;
        self.phase = Phase::Closed;
    }
}

impl fmt::Debug for NotifyListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifyListener")
            .field("phase", &self.phase)
            .field("arrival", &self.arrival)
            .finish_non_exhaustive()
    }
}

/// How long to wait before listening again after a failure.
const RELISTEN_AFTER: Duration = Duration::from_secs(1);
/// How long a notification may take to arrive. Usually it takes milliseconds.
const PROBE_MAX: Duration = Duration::from_secs(3);
/// How many notifications one round discards. The rest is discarded in the next round.
const DRAINED_MAX: usize = 10_000;
/// The channel that publishers notify.
const CHANNEL: &str = "streamjobs_outbox";

#[cfg(test)]
mod tests {
    use super::super::publisher::INSERT_AND_NOTIFY;
    use super::CHANNEL;

    #[test]
    fn relays_listen_on_the_channel_that_publishers_notify() {
        assert!(INSERT_AND_NOTIFY.contains(&format!("pg_notify('{CHANNEL}'")));
    }
}
