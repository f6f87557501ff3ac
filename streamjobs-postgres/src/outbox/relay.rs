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
/// Give it to every process: one of them moves, elected anew for each batch, and the others take
/// over within [`poll`](Self::poll) when it dies. Events of one key keep their order; what a stream
/// does not take is tried again, with a back-off up to 5 s, and holds no other stream up.
///
/// It holds one connection of the pool while it moves a batch, and one to be notified on while it is
/// the one that works: not from a pool of one connection, and not after a round that failed. Behind a pooler that lends connections for one transaction it is not
/// notified, and looks every `poll`.
///
/// # Delivery
///
/// At least once, under the event id from publishing: see [`Publisher`](super::Publisher). The order of a key can show
/// once when a server refuses an event and takes a later one that was sent with it, as at its memory
/// limit: the later one is then stored again behind the refused one, so that every event is still
/// followed by all that came after it.
#[derive(Clone, Debug)]
#[must_use = "a relay moves nothing before it is given to a runtime"]
pub struct Relay {
    postgres: Postgres,
    batch: u32,
    poll: Duration,
}

/// What a [sweep](Relay::sweep) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "events may have been left"]
#[non_exhaustive]
pub struct Relayed {
    /// Events that are stored in their streams now.
    pub events: u64,
    /// Events that a stream did not take, and that will be tried again.
    pub left: u64,
    /// Rows that can never be published. They stay, with the reason in the column `refused`.
    pub refused: u64,
    /// Whether another relay was at work, which moves the rest.
    pub elsewhere: bool,
}

impl Postgres {
    /// Moves what was published inside of transactions to its streams, with the default settings.
    pub fn relay(&self) -> Relay {
        Relay { postgres: self.clone(), batch: 500, poll: Duration::from_secs(1) }
    }
}

impl Relay {
    /// How many events are moved in one transaction: 500 by default, from 1 to 10,000.
    ///
    /// Few cost a commit for few events. Many are stored again when something fails in between. At
    /// most 8 MiB are moved at once in any case.
    pub fn batch(mut self, events: u32) -> Self {
        self.batch = events;
        self
    }

    /// How often it looks without being notified: every second by default, from 10 ms to an hour.
    ///
    /// It bounds how late an event of a [quiet](super::Publisher::without_notify) publisher can be, and how soon
    /// another process takes over from one that died.
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }

    /// Moves what there is now and returns: for programs without a runtime, such as one that is run
    /// by a timer.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached. What was moved before that is moved. A server
    /// that takes nothing is no error: see [`Relayed::left`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open which events of the batch in hand are stored: they are stored
    /// again.
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
            listener: NotifyListener::new(self.postgres.pool().clone()),
            postgres: self.postgres.clone(),
            measured: None,
            failures: 0,
        };
        Box::pin(running.run(context))
    }
}

/// A relay at work.
struct Running {
    poll: Duration,
    mover: OutboxMover,
    listener: NotifyListener,
    postgres: Postgres,
    measured: Option<Instant>,
    /// Rounds in a row in which nothing went.
    failures: u32,
}

/// What to do between two rounds.
enum Wait {
    Nothing,
    /// For what is published, at most so long.
    Notified(Duration),
    For(Duration),
}

impl Running {
    async fn run(mut self, context: ServiceContext) {
        loop {
            // A round that began before the stop may have looked before the last jobs published.
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
                    tracing::warn!(error = %error, "the outbox cannot be moved; trying again");
                }
                // Where connections are what is missing, this one is for moving.
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
                    tracing::info!("the outbox is moved again");
                }
                self.failures = 0;
                if round.elsewhere {
                    // The one that works is notified, too; and whoever does not take what it is
                    // told holds up the server's queue of notifications.
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

    /// Every process says the same of the outbox, so that none goes on with an old figure.
    async fn measure(&mut self) {
        if self.measured.is_some_and(|measured| measured.elapsed() < MEASURE) {
            return;
        }
        self.measured = Some(Instant::now());
        match fault::within(MEASURE, backlog::load(&self.postgres)).await {
            Ok(backlog) => {
                metrics::outbox_backlog(backlog.events, backlog.age.unwrap_or_default());
            }
            Err(error) => tracing::debug!(error = %error, "the outbox cannot be measured"),
        }
    }
}

#[derive(Debug, Error)]
enum SettingError {
    #[error("batch {0} is not between 1 and {BATCH_MAX}")]
    Batch(u32),
    #[error("poll {0:?} is not between {POLL_MIN:?} and {POLL_MAX:?}")]
    Poll(Duration),
}

const NAME: &str = "relay";
const BATCH_MAX: u32 = 10_000;
const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_secs(3_600);
const MEASURE: Duration = Duration::from_secs(5);
