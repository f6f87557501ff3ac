//! The archive: stores dead letters in the table first, and removes them from their stream second.

mod insert;
mod mover;
mod report;
mod row;
mod service;
mod view;

pub use self::report::{ArchiveError, ArchiveReport};

use std::collections::HashSet;
use std::time::Duration;

use streamjobs::dead_letter::Taker;
use streamjobs::error::DeadLetterError;
use streamjobs::stream::Stream;
use streamjobs::{Client, ConsumerName, GroupName, StreamName};
use tokio::sync::Semaphore;

use self::mover::{LetterMover, LetterQueue};
use crate::postgres::Postgres;

impl Postgres {
    /// A service that moves dead letters into the table `dead_letters`.
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
/// Given to a runtime, it archives the dead letters of all groups that the runtime serves:
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
/// A dead letter is removed from its stream only after its row is on disk. While the database is
/// unavailable, dead letters wait in Redis. Bound their number there with
/// [`dead_letters_max`](streamjobs::RuntimeBuilder::dead_letters_max) only if losing the oldest is
/// better than running out of memory. If a process dies between the two steps, another process
/// takes the dead letter and finds its row. Any number of processes may run an archive of the same
/// table.
///
/// The fields of the entry are stored byte for byte. The payload is also stored as `jsonb` for
/// searching, if it is JSON that Postgres accepts.
#[derive(Clone, Debug)]
#[must_use = "an archive does nothing before it is given to a runtime or swept"]
pub struct Archive {
    postgres: Postgres,
    queues: Vec<(StreamName, GroupName)>,
    taken_by: Option<GroupName>,
    batch: usize,
    interval: Duration,
    lease: Duration,
}

impl Archive {
    /// Adds a group on a stream whose dead letters are archived. The groups of the runtime that
    /// runs the archive are included without this.
    pub fn queue(mut self, stream: StreamName, group: GroupName) -> Self {
        self.queues.push((stream, group));
        self
    }

    /// The consumer group that the archive creates on dead-letter streams: `archive` by default.
    ///
    /// Change it only if another program reads these streams with a group of that name.
    pub fn group(mut self, group: GroupName) -> Self {
        self.taken_by = Some(group);
        self
    }

    /// How many dead letters are moved at a time: 500 by default, which is also the maximum, and at
    /// least 1. Large dead letters are moved in smaller batches.
    pub fn batch(mut self, letters: usize) -> Self {
        self.batch = letters.clamp(1, BATCH_MAX);
        self
    }

    /// The time between two polls of a stream without new dead letters: 1 s by default, at least
    /// 10 ms. A poll is one cheap request for each group.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(INTERVAL_MIN);
        self
    }

    /// The time after which another process takes the dead letters that a process took and did not
    /// move: 30 s by default, at least 10 ms.
    ///
    /// If it is too short, several processes move the same dead letters, which wastes work. If it
    /// is too long, the dead letters of a crashed process are archived late.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(INTERVAL_MIN);
        self
    }

    /// Moves the present dead letters of the named [queues](Self::queue) and returns: for programs
    /// without a runtime, such as a scheduled command.
    ///
    /// # Errors
    ///
    /// When Redis or the database cannot be reached or refuses. Dead letters moved before that stay
    /// moved.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped, the next sweep moves the rest once the lease is over. Each dead
    /// letter becomes one row.
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
        let consumer = ConsumerName::unique(CONSUMER).map_err(DeadLetterError::from)?;
        let mut taker = Taker::new(consumer).lease(self.lease);
        if let Some(group) = &self.taken_by {
            taker = taker.group(group.clone());
        }
        let mover = |(whole, part, group): (StreamName, Stream, GroupName)| {
            let stream = part.name().clone();
            let letters = part.group(group.as_str()).map_err(DeadLetterError::from)?.dead_letters();
            let (postgres, taker, lease) = (self.postgres.clone(), taker.clone(), self.lease);
            let queue = LetterQueue { postgres, letters, taker, lease, stream, whole, group };
            Ok(LetterMover::new(queue, self.batch))
        };
        partitions(client, queues)?.into_iter().map(mover).collect()
    }
}

/// Each partition of the queues once, with the name of its whole stream. An archived job belongs to
/// one partition.
fn partitions(
    client: &Client,
    queues: &[(StreamName, GroupName)],
) -> Result<Vec<(StreamName, Stream, GroupName)>, DeadLetterError> {
    let (mut partitions, mut seen) = (Vec::new(), HashSet::new());
    for (stream, group) in queues {
        for part in client.stream(stream.as_str())?.partitions() {
            if seen.insert((part.name().clone(), group.clone())) {
                partitions.push((stream.clone(), part, group.clone()));
            }
        }
    }
    Ok(partitions)
}

const CONSUMER: &str = "archive";
const BATCH_MAX: usize = 500;
const INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const LEASE: Duration = Duration::from_secs(30);
