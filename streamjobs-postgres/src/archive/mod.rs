//! Dead letters into the table: stored there first, removed from their stream second.

mod insert;
mod mover;
mod row;
mod service;
mod view;

use std::time::Duration;

use streamjobs::dead_letter::Taker;
use streamjobs::error::DeadLetterError;
use streamjobs::{Client, ConsumerName, GroupName, StreamName};
use thiserror::Error;
use tokio::sync::Semaphore;

use self::mover::{LetterMover, Parts};
use crate::postgres::Postgres;

impl Postgres {
    /// Moves dead letters into the table `dead_letters`.
    pub fn archive(&self) -> Archive {
        Archive {
            postgres: self.clone(),
            queues: Vec::new(),
            taken_by: None,
            batch: BATCH_MAX,
            interval: INTERVAL,
            lease: LEASE,
        }
    }
}

/// Moves dead letters into the table `dead_letters`, where they can be searched and joined.
///
/// Give it to the runtime, and it takes the dead letters of every group that the runtime works for:
///
/// ```no_run
/// # async fn example(
/// #     client: streamjobs::Client,
/// #     pool: sqlx::PgPool,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// # use streamjobs::Runtime;
/// # use streamjobs_postgres::Postgres;
/// let postgres = Postgres::open(pool).await?;
/// let runtime = Runtime::builder(&client).service(postgres.archive()).start().await?;
/// # Ok(())
/// # }
/// ```
///
/// A letter is removed from its stream when its row is on disk, and not before. While the database
/// is away, letters wait in Redis; bound them there with
/// [`dead_letters_max`](streamjobs::RuntimeBuilder::dead_letters_max) only if losing the oldest is
/// better than running out of memory. A process that dies between the two steps leaves the letter to
/// another one, which finds the row. Any number of processes may run an archive of the same table.
///
/// The fields of the entry are stored byte for byte, and beside them as JSON to be searched where
/// they are JSON that Postgres takes.
#[derive(Clone, Debug)]
#[must_use = "an archive does nothing until a runtime has it, or it is told to sweep"]
pub struct Archive {
    postgres: Postgres,
    queues: Vec<(StreamName, GroupName)>,
    taken_by: Option<GroupName>,
    batch: usize,
    interval: Duration,
    lease: Duration,
}

/// What was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "it says whether letters were refused"]
pub struct ArchiveReport {
    /// Letters that are rows now.
    pub stored: u64,
    /// Letters that were rows already and had not been removed from their stream.
    pub stored_before: u64,
    /// Of those that are rows now, how many the guard knows as done: nothing is lost with them.
    pub known_done: u64,
    /// Letters that the database does not take. They stay in their stream.
    pub refused: u64,
    /// Letters that were taken before and are gone since: redriven, purged, or moved by another
    /// process.
    pub gone: u64,
}

/// Why dead letters were not moved. Those that were not stay in their stream.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The letters could not be taken, or not be removed.
    #[error(transparent)]
    Letters(#[from] DeadLetterError),
    /// The letters could not be stored.
    #[error("cannot store dead letters of group {group} on stream {stream}")]
    Database {
        /// The stream.
        stream: String,
        /// The group.
        group: String,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
}

impl Archive {
    /// Takes the dead letters of this group on this stream too. The groups of the runtime that has
    /// the archive need not be named.
    pub fn queue(mut self, stream: StreamName, group: GroupName) -> Self {
        self.queues.push((stream, group));
        self
    }

    /// The consumer group that the archive makes on dead-letter streams: `archive` by default.
    ///
    /// It only matters to a program of yours that reads these streams with a group of that name.
    pub fn group(mut self, group: GroupName) -> Self {
        self.taken_by = Some(group);
        self
    }

    /// How many letters are moved at a time: 500 by default and at most, at least 1. Fewer are if
    /// they are large.
    pub fn batch(mut self, letters: usize) -> Self {
        self.batch = letters.clamp(1, BATCH_MAX);
        self
    }

    /// How often streams without new dead letters are looked at: every second by default, at least
    /// every 10 ms. Each look is one cheap request for each group.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(INTERVAL_MIN);
        self
    }

    /// After how long letters that a process took and did not move are taken by another one: 30 s by
    /// default, at least 10 ms.
    ///
    /// Too short, and processes move the same letters at the same time, which is only wasted work;
    /// too long, and the letters of one that died appear late.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(INTERVAL_MIN);
        self
    }

    /// Moves all letters of the named [queues](Self::queue) that are there now, for programs that
    /// are no service: a scheduled job, or a command.
    ///
    /// # Errors
    ///
    /// When Redis or the database cannot be reached or refuses. What was moved until then is moved.
    ///
    /// # Cancel safety
    ///
    /// Letters in the middle of which the future was dropped are moved by whoever sweeps after the
    /// lease: each becomes one row.
    pub async fn sweep(&self, client: &Client) -> Result<ArchiveReport, ArchiveError> {
        let turn = Semaphore::new(1);
        let mut report = ArchiveReport::default();
        for mut mover in self.movers(client, &self.queues)? {
            while mover.round(&turn, &mut report).await? {}
        }
        Ok(report)
    }

    fn movers(
        &self,
        client: &Client,
        queues: &[(StreamName, GroupName)],
    ) -> Result<Vec<LetterMover>, ArchiveError> {
        let mut queues = queues.to_vec();
        queues.sort();
        queues.dedup();
        let consumer = ConsumerName::unique(CONSUMER).map_err(DeadLetterError::from)?;
        let mut taker = Taker::new(consumer).lease(self.lease);
        if let Some(group) = &self.taken_by {
            taker = taker.group(group.clone());
        }
        let mover = |(stream, group): (StreamName, GroupName)| {
            Ok(LetterMover::new(Parts {
                postgres: self.postgres.clone(),
                letters: client.dead_letters(stream.as_str(), group.as_str())?,
                taker: taker.clone(),
                lease: self.lease,
                stream,
                group,
                batch: self.batch,
            }))
        };
        queues.into_iter().map(mover).collect()
    }
}

const CONSUMER: &str = "archive";
const BATCH_MAX: usize = 500;
const INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const LEASE: Duration = Duration::from_secs(30);
