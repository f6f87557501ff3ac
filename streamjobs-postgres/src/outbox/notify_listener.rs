//! Listening for what publishers notify.

use std::fmt;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::time::sleep;

/// A listening connection, as long as there is one. Nothing depends on it but how soon, so a pool
/// that has no second connection keeps its only one for moving.
pub(super) struct NotifyListener {
    pool: PgPool,
    listener: Option<PgListener>,
}

impl NotifyListener {
    pub(super) fn new(pool: PgPool) -> Self {
        Self { pool, listener: None }
    }

    /// Waits until something may have been published. Returns once when it begins to listen, too:
    /// what was committed before that is not told. Where it cannot listen it returns after a moment.
    ///
    /// Cancel safe.
    pub(super) async fn notified(&mut self) {
        if self.pool.options().get_max_connections() < 2 {
            return std::future::pending().await;
        }
        let heard = match &mut self.listener {
            Some(listener) => listener.try_recv().await.map(|heard| heard.is_some()),
            None => listen(&self.pool).await.map(|listener| {
                self.listener = Some(listener);
                true
            }),
        };
        if !matches!(heard, Ok(true)) {
            let error = heard.err().map(|error| error.to_string());
            tracing::debug!(error, "not told of what is published; looking instead");
            self.close();
            sleep(RELISTEN_AFTER).await;
        }
    }

    /// Takes what has been told until now, which is about what is looked for next.
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

    /// Stops listening: the server keeps what nobody takes, for everybody.
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
    // A loss is to be seen, so that what was not told meanwhile is looked for.
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// How long to wait before trying to listen again.
const RELISTEN_AFTER: Duration = Duration::from_secs(1);
/// More is drained in the next round.
const DRAINED_MAX: usize = 10_000;
/// What publishers notify.
const CHANNEL: &str = "streamjobs_outbox";

#[cfg(test)]
mod tests {
    use super::super::publisher::INSERT_AND_NOTIFY;
    use super::CHANNEL;

    #[test]
    fn relays_listen_to_what_publishers_notify() {
        assert!(INSERT_AND_NOTIFY.contains(&format!("pg_notify('{CHANNEL}'")));
    }
}
