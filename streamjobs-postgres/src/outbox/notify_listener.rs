//! Listening for the notifications of publishers.

use std::fmt;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::time::sleep;

/// A connection that listens for notifications, opened when needed.
///
/// Notifications only save time: the relay polls as well. So with a pool of one connection it does
/// not listen, and uses the connection to move events.
pub(super) struct NotifyListener {
    pool: PgPool,
    listener: Option<PgListener>,
}

impl NotifyListener {
    pub(super) fn new(pool: PgPool) -> Self {
        Self { pool, listener: None }
    }

    /// Waits until something may have been published.
    ///
    /// It also returns when it starts to listen, since commits before that send no notification to
    /// it, and a second after it failed to listen. Cancel safe.
    pub(super) async fn notified(&mut self) {
        if self.pool.options().get_max_connections() < 2 {
            return std::future::pending().await;
        }
        let received = match &mut self.listener {
            Some(listener) => listener.try_recv().await.map(|received| received.is_some()),
            None => listen(&self.pool).await.map(|listener| {
                self.listener = Some(listener);
                true
            }),
        };
        if !matches!(received, Ok(true)) {
            let error = received.err().map(|error| error.to_string());
            tracing::debug!(error, "cannot listen for notifications; polling the outbox instead");
            self.close();
            sleep(RELISTEN_AFTER).await;
        }
    }

    /// Discards the notifications received so far: the next round finds their events.
    pub(super) fn drain(&mut self) {
        let Some(listener) = &mut self.listener else { return };
        for _ in 0..DRAINED_MAX {
            match listener.try_recv().now_or_never() {
                Some(Ok(Some(_))) => {}
                Some(Ok(None) | Err(_)) => return self.close(),
                None => return,
            }
        }
    }

    /// Stops listening. A listener that does not read would make the server's notification queue
    /// grow, which all of its databases share.
    pub(super) fn close(&mut self) {
        self.listener = None;
    }
}

impl fmt::Debug for NotifyListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifyListener")
            .field("listening", &self.listener.is_some())
            .finish_non_exhaustive()
    }
}

async fn listen(pool: &PgPool) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    // A lost connection must be reported, since notifications may have been missed meanwhile.
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// How long to wait before listening again after a failure.
const RELISTEN_AFTER: Duration = Duration::from_secs(1);
/// The rest is discarded in the next round.
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
