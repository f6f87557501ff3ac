//! Schedules on streams in memory under a paused clock: what fires, what is made up, and which process does
//! it.

mod deploys;
mod faults;
mod fired;
mod operated;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamjobs::__store::inspect::Span;
use streamjobs::__store::memory::MemoryStore;
use streamjobs::schedule::{Missed, Schedule, ScheduleInfo, ScheduleName, Schedules, Tick};
use streamjobs::{Client, Entry, EntryId, Job, Runtime, State, StreamName, handler, handlers};
use tokio::time::{Instant, sleep_until};

/// A tick that ran: the schedule, the occurrence, how many were missed before, and its event id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) schedule: String,
    pub(crate) at: u64,
    pub(crate) missed: u64,
    pub(crate) late: u64,
    pub(crate) id: String,
}

#[derive(Clone, Default)]
pub(crate) struct Runs(pub(crate) Arc<Mutex<Vec<Ran>>>);

impl Runs {
    pub(crate) fn all(&self) -> Vec<Ran> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn times(&self, schedule: &str) -> Vec<u64> {
        let all = self.all().into_iter().filter(|ran| ran.schedule == schedule);
        all.map(|ran| ran.at).collect()
    }
}

#[handler(group = "work")]
pub(crate) async fn work(tick: Tick, job: Job, State(runs): State<Runs>) {
    let Tick { schedule, at, missed, late, .. } = tick;
    let id = job.event_id().to_string();
    runs.0.lock().unwrap().push(Ran { schedule, at, missed, late, id });
}

pub(crate) struct Stage {
    pub(crate) store: MemoryStore,
    pub(crate) client: Client,
    pub(crate) runs: Runs,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let store = MemoryStore::new();
        let client = streamjobs::__store::client(&store);
        Self { store, client, runs: Runs::default() }
    }

    pub(crate) async fn start(&self, schedules: impl IntoIterator<Item = Schedule>) -> Runtime {
        self.start_on(&self.client, schedules).await
    }

    pub(crate) async fn start_on(
        &self,
        client: &Client,
        schedules: impl IntoIterator<Item = Schedule>,
    ) -> Runtime {
        let mut builder =
            Runtime::builder(client).handlers(handlers![work]).state(self.runs.clone());
        for schedule in schedules {
            builder = builder.schedule(schedule);
        }
        builder.start().await.unwrap()
    }

    /// The server's clock.
    pub(crate) async fn now(&self) -> u64 {
        streamjobs::__store::of(&self.client).now(&ticks()).await.unwrap().0
    }

    /// The entries of a stream: their event ids and due times, in order.
    pub(crate) async fn entries(&self, stream: &str) -> Vec<(String, u64)> {
        self.entries_from(stream, &mut EntryId::ZERO.clone()).await
    }

    /// The same of those from an id on, which is moved behind them.
    pub(crate) async fn entries_from(
        &self,
        stream: &str,
        from: &mut EntryId,
    ) -> Vec<(String, u64)> {
        let (store, stream) = (streamjobs::__store::of(&self.client), StreamName::new(stream));
        let all = Span { from: *from, to: EntryId::MAX };
        let entries = store.range(&stream.unwrap(), all, false, 20_000).await.unwrap();
        if let Some(last) = entries.last() {
            *from = last.id().next().unwrap();
        }
        let row = |entry: &Entry| {
            let text = |name: &str| entry.text(name).unwrap_or_default().to_owned();
            (text("sj-id"), text("sj-due").parse().unwrap_or(0))
        };
        entries.iter().map(row).collect()
    }

    pub(crate) fn schedules(&self) -> Schedules {
        self.client.schedules("ticks").unwrap()
    }

    pub(crate) async fn info(&self, name: &str) -> Option<ScheduleInfo> {
        self.schedules().get(&ScheduleName::new(name).unwrap()).await.unwrap()
    }

    /// Waits until the server's clock shows this.
    pub(crate) async fn reach(&self, at: u64) {
        let now = self.now().await;
        pass(Duration::from_millis(at.saturating_sub(now))).await;
    }
}

pub(crate) fn ticks() -> StreamName {
    StreamName::new("ticks").unwrap()
}

pub(crate) async fn pass(time: Duration) {
    sleep_until(Instant::now() + time).await;
}

pub(crate) fn seconds(period: u64) -> Schedule {
    Schedule::every("often", Duration::from_secs(period)).unwrap()
}

pub(crate) fn five_minutes(missed: Missed) -> Schedule {
    Schedule::cron("five", "*/5 * * * *").unwrap().missed(missed)
}

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const SECOND: u64 = 1_000;
/// The first full hour of the store's clock: 2023-11-14 23:00 UTC.
pub(crate) const FULL_HOUR: u64 = 1_700_002_800_000;
