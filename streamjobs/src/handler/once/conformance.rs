//! A check that a store of marks keeps the contract.
//!
//! ```
//! use streamjobs::once::{ServerMarks, conformance};
//! use streamjobs::testing::Streams;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! // For a store that needs a state, pass the state instead of `()`.
//! conformance::check::<ServerMarks, _>(&Streams::new().client(), ()).await
//! # }).unwrap();
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{KEPT, MarkBegin, Marked, Marks};
use crate::handler::{ConsumerIdentity, Job, JobParts, Lease, MachineClock, States};
use crate::model::block::InBlock;
use crate::model::cause::BoxError;
use crate::model::entry::{Delivery, Entry, EntryId, Inlet};
use crate::model::name::{ConsumerName, EventId, GroupName, StreamName};
use crate::model::outcome::JobError;
use crate::publish::client::Client;
use crate::store::Queue;

/// Checks a store of marks, with the state that a runtime would give to its jobs. It uses the groups `conformance`
/// and `conformance-other` of the stream `conformance`, with a new event each time. It takes about 100 ms.
///
/// # Errors
///
/// When a part of the contract does not hold; the error says which.
///
/// # Cancel safety
///
/// Dropping the future leaves marks behind, which do not affect the next check.
pub async fn check<M, S>(client: &Client, state: S) -> Result<(), BoxError>
where
    M: Marks,
    S: Clone + Send + Sync + 'static,
{
    let mut states = States::default();
    states.insert(state);
    let fixture = Fixture { client: client.clone(), states: Arc::new(states) };
    let cases = [
        ("one job begins the work, and it is done for all", one_begins::<M>(&fixture).await),
        ("the same job takes its work over at once", same_job::<M>(&fixture).await),
        ("abandoned work is taken over", abandoned::<M>(&fixture).await),
        ("of many jobs at the same time, one begins", many::<M>(&fixture).await),
    ];
    for (claim, held) in cases {
        held.map_err(|error| format!("{claim}: {error}"))?;
    }
    Ok(())
}

/// What the jobs of the check share.
struct Fixture {
    client: Client,
    states: Arc<States>,
}

/// One event, and an attempt at it for each group and entry.
struct Work<'a> {
    fixture: &'a Fixture,
    event_id: EventId,
}

impl Fixture {
    fn work(&self) -> Work<'_> {
        Work { fixture: self, event_id: EventId::generate() }
    }
}

impl Work<'_> {
    fn job(&self, group: &str, origin: EntryId) -> Result<Job, BoxError> {
        let queue =
            Queue { stream: StreamName::new("conformance")?, group: GroupName::new(group)? };
        let consumer = ConsumerName::new("conformance")?;
        let identity = ConsumerIdentity {
            queue,
            consumer,
            clock: Arc::new(MachineClock),
            progress: Arc::default(),
            batches: Arc::default(),
        };
        let delivery = Delivery {
            inlet: Inlet::STREAM,
            entry: Entry::new(origin, vec![("type".into(), "conformance".into())]),
            delivery_count: 1,
        };
        Ok(Job::new(JobParts {
            identity: Arc::new(identity),
            delivery: InBlock::alone(delivery),
            event_id: self.event_id.clone(),
            origin: None,
            trace: None,
            attempt: 1,
            attempts_max: 5,
            timeout: None,
            started: Instant::now(),
            lease: InBlock::alone(Lease::endless(Duration::from_secs(1), Duration::from_secs(1))),
            states: Arc::clone(&self.fixture.states),
            client: self.fixture.client.clone(),
            returned: None,
        }))
    }

    fn key(&self) -> &str {
        self.event_id.as_str()
    }

    async fn begin<M: Marks>(
        &self,
        owner: &str,
        origin: EntryId,
        expiry: Duration,
    ) -> Result<Marked, BoxError> {
        let job = self.job(GROUP, origin)?;
        let begin = MarkBegin::new(owner, origin, expiry, KEPT);
        M::begin(&job, self.key(), begin).await.map_err(boxed)
    }

    async fn done<M: Marks>(&self) -> Result<(), BoxError> {
        M::done(&self.job(GROUP, ONE)?, self.key(), KEPT).await.map_err(boxed)
    }

    async fn undo<M: Marks>(&self, owner: &str) -> Result<(), BoxError> {
        M::undo(&self.job(GROUP, ONE)?, self.key(), owner).await.map_err(boxed)
    }
}

async fn one_begins<M: Marks>(fixture: &Fixture) -> Result<(), BoxError> {
    let work = fixture.work();
    is(work.begin::<M>("a", ONE, LONG).await?, Marked::Begun { takeover: false })?;
    match work.begin::<M>("b", TWO, LONG).await? {
        Marked::Running { rest } if rest > LONG / 2 && rest <= LONG => {}
        other => return Err(format!("{other:?} in place of a time that is left").into()),
    }
    work.undo::<M>("b").await?;
    work.done::<M>().await?;
    work.undo::<M>("a").await?;
    for (owner, origin) in [("a", ONE), ("b", TWO)] {
        is(work.begin::<M>(owner, origin, LONG).await?, Marked::Done)?;
    }
    let other = work.job("conformance-other", ONE)?;
    let begun = M::begin(&other, work.key(), MarkBegin::new("a", ONE, LONG, KEPT)).await;
    is(begun.map_err(boxed)?, Marked::Begun { takeover: false })
}

async fn same_job<M: Marks>(fixture: &Fixture) -> Result<(), BoxError> {
    let work = fixture.work();
    work.begin::<M>("a", ONE, LONG).await?;
    is(work.begin::<M>("b", ONE, LONG).await?, Marked::Begun { takeover: true })?;
    work.undo::<M>("a").await?;
    is(work.begin::<M>("c", ONE, LONG).await?, Marked::Begun { takeover: true })?;
    work.undo::<M>("c").await?;
    is(work.begin::<M>("d", TWO, LONG).await?, Marked::Begun { takeover: false })?;
    work.begin::<M>("e", TWO, LONG).await?;
    work.done::<M>().await?;
    is(work.begin::<M>("e", TWO, LONG).await?, Marked::Done)
}

async fn abandoned<M: Marks>(fixture: &Fixture) -> Result<(), BoxError> {
    let work = fixture.work();
    work.begin::<M>("a", ONE, SHORT).await?;
    sleep(SHORT * 5).await;
    is(work.begin::<M>("b", TWO, LONG).await?, Marked::Begun { takeover: true })?;
    match work.begin::<M>("a", ONE, LONG).await? {
        Marked::Running { .. } => Ok(()),
        other => Err(format!("{other:?} instead of running").into()),
    }
}

async fn many<M: Marks>(fixture: &Fixture) -> Result<(), BoxError> {
    let work = fixture.work();
    let owners = (1..=20).map(|number| (number.to_string(), EntryId::new(number, 0)));
    let owners = owners.collect::<Vec<_>>();
    let begin = owners.iter().map(|(owner, origin)| work.begin::<M>(owner, *origin, LONG));
    let mut begun = 0;
    for marked in futures_util::future::join_all(begin).await {
        begun += usize::from(matches!(marked?, Marked::Begun { takeover: false }));
    }
    match begun {
        1 => Ok(()),
        _ => Err(format!("{begun} jobs began").into()),
    }
}

fn is(found: Marked, expected: Marked) -> Result<(), BoxError> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{found:?} instead of {expected:?}").into()),
    }
}

fn boxed(error: JobError) -> BoxError {
    error.text().into()
}

const GROUP: &str = "conformance";
/// A first entry of an event, and a second one of the same event.
const ONE: EntryId = EntryId::new(1, 0);
const TWO: EntryId = EntryId::new(2, 0);
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);
