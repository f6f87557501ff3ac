//! The service that moves the outbox into its streams.

use std::time::Duration;

use streamjobs::Client;
use streamjobs::error::BoxError;
use streamjobs::service::{BoxFuture, Service, ServiceContext};
use thiserror::Error;
use tokio::time::Instant;

use super::backlog;
use super::mover::{OutboxMover, Round};
use super::notify_listener::NotifyListener;
use crate::postgres::Postgres;
use crate::{backoff, fault, metrics};

/// Moves events from the outbox to their streams: a [`Service`] of the runtime.
///
/// ```no_run
/// # use streamjobs::{Client, Runtime};
/// # use streamjobs_postgres::Postgres;
/// # async fn example(client: Client, postgres: Postgres) -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = Runtime::builder(&client).service(postgres.relay()).start().await?;
/// # Ok(())
/// # }
/// ```
///
/// Give it to every process. One relay at a time moves events, elected for each batch. If its
/// process dies, another relay continues within [`poll`](Self::poll). Events of one key keep their
/// order. Events that a stream refuses are retried, with a back-off of up to 5 s, and delay no
/// other stream.
///
/// It uses one connection of the pool while it moves a batch. The relay that is elected uses a
/// second connection to listen for notifications, unless the pool has only one connection or the
/// last round failed. Behind a pooler that assigns connections per transaction no notifications
/// arrive: the relay notices within seconds, logs it once, gives the connection back, and polls.
/// Use [`without_listen`](Self::without_listen) there.
///
/// A read of the outbox starts at the lowest row that may still wait, so it costs the same however
/// many rows were moved. The whole outbox is read once a minute, or less often if that would take
/// more than a twentieth of the time. A refused row that was set to be tried again may wait until
/// then.
///
/// # Delivery
///
/// At least once, under the event id from publishing: see [`Publisher`](super::Publisher). If a
/// server refuses an event and accepts a later one of the same key from the same batch, as it can
/// at its memory limit, the later event is stored again behind the refused one. Every event is
/// still followed by all later events of its key.
#[derive(Clone, Debug)]
#[must_use = "a relay moves nothing before it is given to a runtime"]
pub struct Relay {
    postgres: Postgres,
    batch: u32,
    poll: Duration,
    listens: bool,
}

/// What a [sweep](Relay::sweep) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "some events may not have been moved"]
#[non_exhaustive]
pub struct Relayed {
    /// Events that were stored in their streams.
    pub events: u64,
    /// Events that a stream refused and that will be retried.
    pub left: u64,
    /// Rows that cannot be published. They stay in the table, with the reason in the column
    /// `refused`.
    pub refused: u64,
    /// Whether another relay is working on the outbox. It moves the rest.
    pub elsewhere: bool,
}

impl Postgres {
    /// A relay that moves events from the outbox to their streams, with the default settings.
    pub fn relay(&self) -> Relay {
        Relay { postgres: self.clone(), batch: 500, poll: Duration::from_secs(1), listens: true }
    }
}

impl Relay {
    /// How many events are moved in one transaction: 500 by default, from 1 to 10,000.
    ///
    /// A small batch costs a commit for few events. With a large batch, more events are stored twice after a failure.
    /// A batch has at most 8 MiB in any case, and is sent about 256 KiB at a time: events that were answered before a
    /// time-out are not sent again.
    pub fn batch(mut self, events: u32) -> Self {
        self.batch = events;
        self
    }

    /// How often the relay reads the outbox without a notification: every second by default, from
    /// 10 ms to an hour.
    ///
    /// This interval bounds the delay of events that were published [without
    /// notification](super::Publisher::without_notify), and the time until another process
    /// continues after a crash.
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }

    /// Only polls, and does not listen for notifications. By default it listens.
    ///
    /// Behind a pooler that assigns connections per transaction, no notification arrives. A relay
    /// that listens finds that out by itself, once after its start, by sending a notification. This
    /// notification may reach another client of the pooler, whose statement then fails in sqlx.
    pub fn without_listen(mut self) -> Self {
        self.listens = false;
        self
    }

    /// Moves the waiting events once and returns: for programs without a runtime, such as a
    /// scheduled command.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached. Events of earlier batches stay moved. Events
    /// that a Redis server refuses are not an error: see [`Relayed::left`].
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped, events of the current batch may be stored while their rows
    /// still exist: these events are stored again.
    pub async fn sweep(&self, client: &Client) -> Result<Relayed, sqlx::Error> {
        let mut mover = OutboxMover::new(self.postgres.clone(), client.clone(), self.batch.max(1));
        let mut relayed = Relayed::default();
        loop {
            let round = mover.round().await?;
            relayed.events += round.stored as u64;
            relayed.left += round.left as u64;
            relayed.refused += round.refused as u64;
            relayed.elsewhere = round.elsewhere;
            if !round.more || round.is_stuck() {
                return Ok(relayed);
            }
        }
    }

    fn check(&self) -> Result<(), SettingError> {
        if !(1..=BATCH_MAX).contains(&self.batch) {
            return Err(SettingError::Batch(self.batch));
        }
        if !(POLL_MIN..=POLL_MAX).contains(&self.poll) {
            return Err(SettingError::Poll(self.poll));
        }
        Ok(())
    }
}

impl Service for Relay {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&'a self, _: &'a ServiceContext) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(std::future::ready(self.check().map_err(BoxError::from)))
    }

    fn run(&self, context: ServiceContext) -> BoxFuture<'_, ()> {
        let running = Running {
            poll: self.poll,
            mover: OutboxMover::new(self.postgres.clone(), context.client().clone(), self.batch),
            listener: NotifyListener::new(self.postgres.clone(), self.listens),
            postgres: self.postgres.clone(),
            measure_at: Instant::now(),
            failures: 0,
        };
        Box::pin(running.run(context))
    }
}

/// The running service.
struct Running {
    poll: Duration,
    mover: OutboxMover,
    listener: NotifyListener,
    postgres: Postgres,
    measure_at: Instant,
    /// How many rounds in a row have failed: those in which no event was moved.
    failures: u32,
}

/// The wait between two rounds.
enum Wait {
    Nothing,
    /// For a notification, at most this long.
    Notified(Duration),
    For(Duration),
}

impl Running {
    async fn run(mut self, context: ServiceContext) {
        loop {
            // A round that began before the stop may have read the outbox before the last jobs
            // published.
            let is_last = context.stop().is_cancelled();
            self.listener.drain();
            let round = self.mover.round().await;
            if round.is_ok() {
                self.measure().await;
            }
            if is_last {
                return;
            }
            match self.after(round) {
                Wait::Nothing => {}
                Wait::Notified(longest) => {
                    tokio::select! {
                        biased;
                        _ = context.stopped_within(longest) => {}
                        () = self.listener.notified() => {}
                    }
                }
                Wait::For(pause) => {
                    context.stopped_within(pause).await;
                }
            }
        }
    }

    fn after(&mut self, round: Result<Round, sqlx::Error>) -> Wait {
        match round {
            Err(error) => {
                metrics::database_error(NAME);
                if self.failures == 0 {
                    tracing::warn!(error = %error, "cannot relay the outbox; retrying");
                }
                // If the pool has run out of connections, this frees a connection for moving
                // events.
                self.listener.close();
                self.failures = self.failures.saturating_add(1);
                Wait::For(backoff::delay(self.failures, fastrand::f64()))
            }
            Ok(round) if round.is_stuck() => {
                self.failures = self.failures.saturating_add(1);
                Wait::For(backoff::delay(self.failures, fastrand::f64()))
            }
            Ok(round) => {
                if self.failures > 0 {
                    tracing::info!("relaying of the outbox works again");
                }
                self.failures = 0;
                if round.elsewhere {
                    // The elected relay listens. A listener here that does not read would make the
                    // server's notification queue grow.
                    self.listener.close();
                    return Wait::For(self.poll);
                }
                if round.more {
                    return Wait::Nothing;
                }
                Wait::Notified(self.mover.next().map_or(self.poll, |next| next.min(self.poll)))
            }
        }
    }

    /// Sets the gauges, in every process, so that no process keeps exporting an old figure.
    ///
    /// A relay that is never elected does not know where the waiting rows begin, and has to skip all rows that were
    /// moved. So it spends at most a twentieth of the time on measuring.
    async fn measure(&mut self) {
        let began = Instant::now();
        if began < self.measure_at {
            return;
        }
        let load = backlog::load(&self.postgres, self.mover.lowest(), Some(MEASURE_LIMIT));
        let loaded = fault::within(MEASURE, load).await;
        self.measure_at = began + MEASURE.max(began.elapsed() * MEASURE_SHARE);
        match loaded {
            Ok(backlog) => {
                metrics::outbox_backlog(backlog.events, backlog.age.unwrap_or_default());
            }
            Err(error) => tracing::debug!(error = %error, "cannot count the events in the outbox"),
        }
    }
}

#[derive(Debug, Error)]
enum SettingError {
    #[error("the batch size {0} is not between 1 and {BATCH_MAX}")]
    Batch(u32),
    #[error("poll {0:?} is not between {POLL_MIN:?} and {POLL_MAX:?}")]
    Poll(Duration),
}

const NAME: &str = "relay";
const BATCH_MAX: u32 = 10_000;
const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_secs(3_600);
const MEASURE: Duration = Duration::from_secs(5);
const MEASURE_SHARE: u32 = 20;
/// The time limit of measuring: shorter than the relay's wait, so that the server has ended the
/// statement when the relay gives up.
const MEASURE_LIMIT: &str = "4s";
