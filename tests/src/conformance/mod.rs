//! The contract of [`Store`] as test cases, which both stores run.
//!
//! Each case gets a [`Stage`] with a fresh store, and [`RawAccess`] to make entries old or lost. Each file
//! of cases lists them in a macro, and `conformance_tests` collects these macros.

pub mod admin;
pub mod cancels;
pub mod consume;
pub mod dead_letters;
pub mod debounce;
pub mod done_jobs;
pub mod group_upkeep;
pub mod hold_ends;
pub mod holds;
pub mod inspect;
pub mod marks;
pub mod overlap;
pub mod progress;
pub mod random;
pub mod rates;
pub mod reading;
pub mod results;
pub mod schedule;
pub mod schedules;
pub mod set_limits;
pub mod settle;
pub mod shares;
pub mod trends;
pub mod unique;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use streamjobs::__store::raw_access::{PendingRow, RawAccess};
use streamjobs::__store::{
    Appended, ClaimedPage, Delivery, Hold, IdleClaim, Inlet, NewEntry, Queue, ReadRequest,
    ReaderSetup, ServerTime, Store, StoreError, StreamReader,
};
use streamjobs::config::{Retention, Start};
use streamjobs::{ConsumerName, EntryId, Fields, GroupName, StreamName};
use streamjobs_servers::eventually::eventually_async;

/// Why a case failed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a case returns; an error is a failure like a failed assertion.
pub type Case = Result<(), BoxError>;

/// A fresh store with one queue and two consumers.
pub struct Stage {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The keys behind the store.
    pub raw: Arc<dyn RawAccess>,
    /// The queue.
    pub queue: Queue,
    /// The consumer of most steps.
    pub me: ConsumerName,
    /// Another one.
    pub other: ConsumerName,
}

impl Stage {
    /// A stage whose group is prepared at the beginning.
    ///
    /// # Errors
    ///
    /// When the store does not prepare.
    pub async fn new(store: Arc<dyn Store>, raw: Arc<dyn RawAccess>) -> Result<Self, BoxError> {
        let queue = Queue { stream: StreamName::new("orders")?, group: GroupName::new("work")? };
        let (me, other) = (ConsumerName::new("me")?, ConsumerName::new("other")?);
        store.prepare(&queue, Start::Beginning).await?;
        Ok(Self { store, raw, queue, me, other })
    }

    fn key(&self, inlet: Inlet) -> String {
        self.queue.key(inlet)
    }

    fn dead_key(&self) -> String {
        self.queue.dead_key()
    }

    async fn append(&self, count: usize) -> Result<Vec<EntryId>, BoxError> {
        let entries = (0..count).map(|number| fields(&number.to_string())).collect();
        let (store, stream) = (self.store.as_ref(), &self.queue.stream);
        let answers = append(store, stream, Retention::Unlimited, entries).await;
        Ok(answers.into_iter().collect::<Result<_, _>>()?)
    }

    async fn reader(&self, consumer: &ConsumerName) -> Result<Box<dyn StreamReader>, StoreError> {
        self.store.reader(&self.queue, consumer, ReaderSetup::waiting(Duration::from_secs(2))).await
    }

    /// Reads without waiting.
    async fn read(
        &self,
        consumer: &ConsumerName,
        inlet: Inlet,
        count: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let request = ReadRequest { acks: &[], inlet, count, block: None };
        self.reader(consumer).await?.read(request).await?.deliveries
    }

    /// Appends entries and has them delivered to the first consumer.
    async fn deliver(&self, count: usize) -> Result<Vec<Hold>, BoxError> {
        self.append(count).await?;
        let delivered = self.read(&self.me, Inlet::STREAM, count).await?;
        assert_eq!(delivered.len(), count);
        Ok(delivered.iter().map(Delivery::hold).collect())
    }

    async fn deliver_one(&self) -> Result<Hold, BoxError> {
        self.deliver(1).await?.pop().ok_or_else(|| "nothing was delivered".into())
    }

    /// Makes an entry look abandoned.
    fn abandon(&self, hold: Hold) {
        let key = self.key(hold.inlet);
        self.raw.age(&key, self.queue.group.as_str(), hold.id, LEASE * 2);
    }

    fn pending(&self, inlet: Inlet) -> Vec<PendingRow> {
        self.raw.pending(&self.key(inlet), self.queue.group.as_str())
    }

    /// The clock of the server that has the stream.
    async fn now(&self) -> Result<ServerTime, StoreError> {
        self.store.now(&self.queue.stream).await
    }

    /// Waits until the store's clock has advanced by more than this.
    async fn pass(&self, milliseconds: u64) -> Result<(), StoreError> {
        let end = self.now().await?.0 + milliseconds;
        let passed = async || self.now().await.is_ok_and(|now| now.0 > end);
        eventually_async(LEASE, "the store's clock advances", passed).await;
        Ok(())
    }

    fn row(&self, id: EntryId) -> Option<PendingRow> {
        self.pending(Inlet::STREAM).into_iter().find(|row| row.id == id)
    }

    /// Claims one page for a consumer. Returns the cursor, the claimed entries and the trimmed ones.
    async fn claim_idle(
        &self,
        consumer: &ConsumerName,
        cursor: EntryId,
        limit: usize,
    ) -> Result<(EntryId, Vec<Delivery>, usize), BoxError> {
        let inlet = Inlet::STREAM;
        let claim = IdleClaim { inlet, lease: LEASE, cursor, limit, expected: None, skip: &[] };
        match self.store.claim_idle(&self.queue, consumer, claim).await? {
            ClaimedPage::Page { cursor, claimed, trimmed, .. } => Ok((cursor, claimed, trimmed)),
            ClaimedPage::ClockOff { .. } => Err("the clock was off without an expectation".into()),
        }
    }
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// An entry with fields that are hard for text formats: binary, empty and repeated ones.
fn fields(name: &str) -> Fields {
    vec![
        (Bytes::from_static(b"type"), Bytes::from_static(b"t")),
        (Bytes::from_static(b"name"), name.to_owned().into()),
        (Bytes::from_static(b"binary"), Bytes::from_static(b"\0\xff\r\n")),
        (Bytes::new(), Bytes::new()),
        (Bytes::from_static(b"name"), Bytes::from_static(b"again")),
    ]
}

/// Appends entries and waits for their answers.
pub async fn append(
    store: &dyn Store,
    stream: &StreamName,
    retention: Retention,
    entries: Vec<NewEntry>,
) -> Vec<Appended> {
    let mut appender = store.appender(stream, retention);
    appender.push(entries).await;
    appender.finish().await
}

/// Long enough that no entry becomes idle for it while a case runs.
const LEASE: Duration = Duration::from_secs(60);

/// Makes a test of every case: `conformance_tests!(tokio::test, stage().await)`.
#[macro_export]
macro_rules! conformance_tests {
    ($test:meta, $stage:expr) => {
        $crate::admin_cases!($test, $stage);
        $crate::cancels_cases!($test, $stage);
        $crate::consume_cases!($test, $stage);
        $crate::dead_letters_cases!($test, $stage);
        $crate::debounce_cases!($test, $stage);
        $crate::done_jobs_cases!($test, $stage);
        $crate::group_upkeep_cases!($test, $stage);
        $crate::hold_ends_cases!($test, $stage);
        $crate::set_limits_cases!($test, $stage);
        $crate::holds_cases!($test, $stage);
        $crate::shares_cases!($test, $stage);
        $crate::trends_cases!($test, $stage);
        $crate::inspect_cases!($test, $stage);
        $crate::marks_cases!($test, $stage);
        $crate::progress_cases!($test, $stage);
        $crate::rates_cases!($test, $stage);
        $crate::reading_cases!($test, $stage);
        $crate::results_cases!($test, $stage);
        $crate::schedule_cases!($test, $stage);
        $crate::schedules_cases!($test, $stage);
        $crate::overlap_cases!($test, $stage);
        $crate::settle_cases!($test, $stage);
        $crate::unique_cases!($test, $stage);
    };
    (@each $test:meta, $stage:expr, $module:ident: $($case:ident,)*) => {
        $(
            #[$test]
            async fn $case() {
                let done = $crate::conformance::$module::$case(&$stage).await;
                if let Err(error) = done {
                    panic!("{error}");
                }
            }
        )*
    };
}
