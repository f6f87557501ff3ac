//! What kind of jobs a cell has, and at which points that makes other steps.

use std::collections::BTreeMap;
use std::path::Path;

use streamjobs::__proof::FailPoint;
use streamjobs::{EventId, GroupName};
use streamjobs_postgres::Postgres;
use streamjobs_postgres::batches::{BatchId, NewBatch};
use streamjobs_tests::history::{self, Deed};
use streamjobs_tests::postgres::Database;
use streamjobs_tests::proof::Order;

/// What the group has besides its guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    Plain,
    /// Order per key: a job is admitted with a hold, or goes to the line of its key.
    Ordered,
    /// Fair shares: a take decides which keys go on.
    Fair,
    /// The jobs are members of a batch, which ends with the last of them.
    Members,
}

/// With fewer keys than slots, jobs wait in lines.
const KEYS: usize = 4;

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::Ordered, Self::Fair, Self::Members];

    /// Whether the point is between steps that it changes.
    pub(crate) fn changes(self, point: FailPoint) -> bool {
        let of_limits = matches!(
            point,
            FailPoint::ReadAfterReply
                | FailPoint::SpawnBefore
                | FailPoint::AckBeforeSend
                | FailPoint::AckAfterSend
                | FailPoint::DeadBeforeStore
                | FailPoint::DeadAfterStore
                | FailPoint::ClaimAfterReply
                | FailPoint::ReleaseBefore
        );
        let of_ends = matches!(
            point,
            FailPoint::GuardAfterInsert
                | FailPoint::GuardBeforeCommit
                | FailPoint::GuardAfterCommit
                | FailPoint::AckBeforeSend
                | FailPoint::AckAfterSend
        );
        match self {
            Self::Plain => true,
            Self::Ordered | Self::Fair => of_limits,
            Self::Members => of_ends,
        }
    }

    /// What its processes are told.
    pub(crate) fn word(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Ordered => Some("ordered"),
            Self::Fair => Some("fair"),
            Self::Members => Some("members"),
        }
    }

    /// The key of one of the jobs.
    pub(crate) fn key(self, number: usize) -> Option<String> {
        matches!(self, Self::Ordered | Self::Fair).then(|| format!("k-{}", number % KEYS))
    }

    /// Whether one of the jobs is to be rejected. Not of a batch with completion: a dead member ends in the archive,
    /// and the grid has no archive.
    pub(crate) fn rejects(self, number: usize) -> bool {
        self != Self::Members && number % 6 == 2
    }
}

/// Where the jobs of a key did not begin in the order of their numbers.
pub(crate) fn disorder(folder: &Path, jobs: usize) -> Vec<String> {
    let mut begun = BTreeMap::<_, Vec<_>>::new();
    for line in history::read(folder).unwrap() {
        let Deed::Started(attempt) = line.deed else { continue };
        let number = attempt.job.rsplit('-').next().and_then(|number| number.parse().ok());
        let number: usize = number.expect("its id ends with its number");
        let of_key = begun.entry(number % KEYS).or_default();
        if !of_key.contains(&number) {
            of_key.push(number);
        }
    }
    assert_eq!(begun.values().map(Vec::len).sum::<usize>(), jobs, "each has begun");
    let is_wrong = |numbers: &Vec<usize>| !numbers.is_sorted();
    let wrong = begun.into_iter().filter(|(_, numbers)| is_wrong(numbers));
    wrong.map(|(key, numbers)| format!("k-{key} began as {numbers:?}")).collect()
}

/// Opens a batch with all jobs as its members, before any of them can run.
pub(crate) async fn open_batch(database: &Database, name: &str, members: &[EventId]) {
    let (pool, group) = (database.pool_of(1), GroupName::new("guarded").unwrap());
    let batches = Postgres::open(pool.clone()).await.unwrap().batches();
    let id = BatchId::new(name).unwrap();
    let batch = NewBatch::new(id.clone()).on_completed(&Order::new(name)).unwrap();
    let mut transaction = pool.begin().await.unwrap();
    assert!(batches.open_in(&mut transaction, &batch).await.unwrap());
    batches.add_in(&mut transaction, &id, &group, members).await.unwrap();
    batches.close_in(&mut transaction, &id).await.unwrap();
    transaction.commit().await.unwrap();
}

/// What is wrong with a batch whose members have all ended: it has succeeded, and published its event once.
pub(crate) async fn unended(database: &Database, name: &str, members: usize) -> Vec<String> {
    let pool = database.pool_of(1);
    let id = BatchId::new(name).unwrap();
    let status = Postgres::open(pool.clone()).await.unwrap().batches().status(&id).await.unwrap();
    let status = status.expect("it was opened");
    let query = "SELECT count(*) FROM streamjobs.outbox WHERE event_id = $1";
    let event = id.completed_event_id();
    let published = sqlx::query_scalar(query).bind(event.as_str().to_owned());
    let published: i64 = published.fetch_one(&pool).await.unwrap();
    let all = u64::try_from(members).unwrap();
    let is_right = status.succeeded_at.is_some()
        && (status.members, status.unfinished, status.dead, published) == (all, 0, 0, 1);
    if is_right { Vec::new() } else { vec![format!("{status:?}, {published} events")] }
}
